/** luod and luoctl over real kexecs, and what goes wrong before and after them. */

import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { liveUpdateFeatures, liveUpdateGuest, python } from "../support/guest/live-update-guest.ts";
import type { LiveUpdateScenario } from "../support/guest/scenario.ts";
import { rotating } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";
import {
  carriedCases,
  crowdCases,
  custodyCases,
  deathBefore,
  fateCases,
  killPointsBefore,
  refusalCases,
} from "./guest/live-update-cases.ts";

const limitMilliseconds = 15 * 60_000;
/** Each stage boots a kernel, with an emulated processor, and perhaps on a busy machine. */
const deadlineMilliseconds = 12 * 60_000;

interface Scenario extends LiveUpdateScenario {
  readonly wanted: readonly string[];
}

const cast = readFileSync("test/machine/guest/cast.py");

const scenarios: readonly Scenario[] = [
  {
    name: "updates that are rolled back, and one that is not",
    stages: [
      { program: "test/machine/guest/live-update-fates.ts", words: ["before"] },
      { program: "test/machine/guest/live-update-fates.ts", words: ["after"] },
    ],
    files: { "cast.py": cast, hook: "#!/bin/sh\n[ ! -e /run/hook ] || . /run/hook\n" },
    programs: { unload: "test/machine/guest/unload-kernel.ts" },
    wanted: [...fateCases.before, ...fateCases.after],
  },
  {
    name: "what came over a kexec, and luod killed at every point",
    stages: [
      { program: "test/machine/guest/live-update-custody.ts", words: ["before"] },
      { program: "test/machine/guest/live-update-custody.ts", words: ["after"] },
    ],
    files: { "cast.py": cast },
    wanted: [...custodyCases.before, ...custodyCases.after],
  },
  {
    name: "a hundred clients, and two kexecs in a row",
    stages: ["first", "second", "third"].map((word) => ({
      program: "test/machine/guest/live-update-crowd.ts",
      words: [word],
    })),
    files: { "cast.py": cast },
    wanted: [...crowdCases.first, ...crowdCases.second, ...crowdCases.third],
  },
  {
    name: "run and hold",
    stages: ["before", "after"].map((word) => ({
      program: "test/machine/guest/live-update-carried.ts",
      words: [word],
    })),
    files: { "ledger.py": readFileSync("test/machine/guest/ledger.py") },
    wanted: [...carriedCases.before, ...carriedCases.after],
  },
  {
    name: "what is refused, and dry runs",
    stages: [{ program: "test/machine/guest/live-update-refusals.ts" }],
    files: { "cast.py": cast },
    wanted: refusalCases,
  },
];

/** Of those that luod is killed at before a kexec. */
const deaths = rotating("deaths of luod before a kexec", killPointsBefore.map(deathBefore), {
  outOf: 10,
});

const killedBefore: Scenario = {
  name: "luod killed before a kexec",
  stages: [{ program: "test/machine/guest/live-update-killed.ts", words: deaths }],
  files: { "cast.py": cast },
  wanted: deaths,
};

skipUnless("luod's scenarios", [...liveUpdateFeatures, python], () => {
  test.each(
    [killedBefore, ...rotating("scenarios of luod", scenarios, { outOf: 10 })].map((one) => [
      one.name,
      one,
    ]),
  )(
    "%s",
    async (_name, { wanted, ...scenario }) => {
      const { cases, lines, passed } = await liveUpdateGuest({ deadlineMilliseconds, ...scenario });
      const last = lines.slice(-80).join("\n");
      const told = cases.filter(({ outcome }) => outcome === "ok").map(({ name }) => name);
      expect(told, last).toEqual([...wanted]);
      expect(passed, last).toBe(true);
    },
    limitMilliseconds,
  );
});
