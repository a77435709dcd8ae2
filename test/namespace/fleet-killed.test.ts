/**
 * The compiled agent, killed at each place where it is joined with its host, its store and its
 * supervisor, and in each effect of an upgrade: started again, it goes on, and the upgrade is done.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fetchSteps } from "../../src/artifact/kill-points.ts";
import type { EffectKind } from "../../src/fleet/lifecycle-state.ts";
import { type AgentStep, hostSteps } from "../../src/fleet/perform/kill-points.ts";
import { readLayout } from "../../src/fleet/perform/layout-files.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { UPGRADE_TIME, UpgradedHost } from "../support/fleet-operator/upgraded-host.ts";
import { rotating } from "../support/rotation.ts";
import { root, skipUnless } from "../support/skips.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(300_000);

const around = (effects: readonly EffectKind[]) =>
  effects.flatMap((effect) => [`fleet:${effect}:before`, `fleet:${effect}:after`]);
const agent = (steps: readonly AgentStep[]) => steps.map((step) => `fleet-agent:${step}`);

/** What the former version passes until the links are changed; at the first two as it starts. */
const former = [
  ...agent(["opened", "followed", "marker-heard", "candidate-heard"]),
  ...["fleet-agent:status-told#2", "fleet-agent:status-told#3"],
  ...around(["note", "check", "fetch", "prove", "start-candidate", "hash", "swap"]),
  ...around(["restart-canonical"]),
  ...hostSteps.swap.map((step) => `fleet:${step}`),
  ...fetchSteps.map((step) => `artifact:${step}`),
];
/** What the new one passes until the upgrade is over. */
const next = [
  ...agent(["opened", "followed", "status-told", "hand-over", "handed-over", "renew"]),
  ...around(["note", "stop-candidate", "collect"]),
];
/** The supervisor ends the agent that has asked it to, which may not live to hear the answer. */
const endedBefore = ["fleet:restart-canonical:after"];
const killCases = [
  ...former.map((place) => ({ version: "the former version", place })),
  ...next.map((place) => ({ version: "the new version", place })),
];

skipUnless("an agent that is killed", root, () => {
  // Hosts of their own, which wait most of their time.
  test.concurrent.each(rotating("fleet agent kill points", killCases, { outOf: 20 }))(
    "$version at $place: the upgrade is done all the same",
    async ({ version, place }) => {
      const isFormer = version === "the former version";
      const program = isFormer ? hostlerWithFaults() : hostler();
      await using host = await UpgradedHost.start();
      await host.trust();
      const good = await host.release("7.0.0", { faults: !isFormer });
      const once = host.file("once");
      const environment = { HOSTLER_KILL_AT: place, HOSTLER_KILL_ONCE: once };
      writeFileSync(once, "");
      await host.startDevice({ program, environment });
      const before = host.current;
      await host.fleet.ask("rollout", good, ...host.source, "--heartbeat", "1s");
      const done = await host.device("is done", ({ upgrade }) => upgrade === "done", UPGRADE_TIME);
      expect(done).toMatchObject({ current_version: "7.0.0", healthy: true });
      expect(host.current).toStartWith("versions/7.0.0-");
      expect(readlinkSync(join(host.place, "previous"))).toBe(before);
      await waitFor("the supervisor to go on as it", () =>
        /goes on with .*versions\/7\.0\.0-/.test(host.supervisor?.output.stderr ?? ""),
      );
      // It was killed, once, and nobody else was.
      const said = host.supervisor?.output.stderr ?? "";
      const kills = said.match(/the agent ended by SIGKILL/g)?.length ?? 0;
      if (endedBefore.includes(place) && existsSync(once)) expect(kills).toBe(0);
      else expect([existsSync(once), kills]).toEqual([false, 1]);
      const proven = readLayout(host.place).versions.filter(({ isProven }) => isProven);
      expect(proven.map(({ build }) => build?.version)).toContain("7.0.0");
    },
  );
});
