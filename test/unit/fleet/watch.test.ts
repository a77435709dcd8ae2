/** How far a rollout is, in one line; and what is next on a host that was let in. */
import { expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { defaultHostDirectory } from "../../../src/authority/protocol.ts";
import { nextSteps } from "../../../src/fleet/commands/enroll.ts";
import { endOf, progressText } from "../../../src/fleet/commands/watch.ts";
import type { RolloutView } from "../../../src/fleet/protocol-operator.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

const view: RolloutView = {
  ...{ name: "spring", number: 1, phase: "running", reason: null, version: "1.1.0" },
  ...{ wave: 1, waves: 3, wave_devices: 5, max_unavailable: 4, waits_for: null, named: [] },
  changes: [],
  counts: {
    members: 40,
    done: 3,
    failed: 0,
    hindered: 0,
    flight: 2,
    waiting: 35,
    away: 0,
    unfit: 0,
    superseded: 0,
  },
};

test("a rollout in one line: how far, and what it waits for", () => {
  expect(progressText(view)).toBe("spring: wave 1 of 3, 3 of 40 done, 2 under way, 0 failed");
  const counts = { ...view.counts, away: 7 };
  const waiting = { ...view, counts, waits_for: "its window\u001b[2J" };
  expect(progressText(waiting)).toBe(
    "spring: wave 1 of 3, 3 of 40 done, 2 under way, 0 failed, 7 away; " +
      "waits for its window\\u001b[2J",
  );
});

test("hosts that could not are told apart from failures", () => {
  const counts = { ...view.counts, failed: 1, hindered: 2 };
  expect(progressText({ ...view, counts })).toEndWith("1 failed, 2 could not");
});

test("how it ended is the exit code: complete, and by itself", () => {
  expect(endOf({ ...view, phase: "complete" })).toBe(0);
  for (const phase of ["paused", "aborted", "running"] as const) {
    expect(endOf({ ...view, phase, reason: "why" })).toBe(111);
  }
  const reason = "later rollouts have all its devices";
  expect(endOf({ ...view, phase: "complete", reason })).toBe(111);
});

test("what is next on a host that was let in: what it has not got yet", () => {
  using folder = temporaryFolder();
  const fresh = nextSteps(folder.path, defaultHostDirectory);
  expect(fresh).toContain("hostler fleet install --root FILE");
  expect(fresh).toContain("systemctl enable --now hostler-fleet-agent.service");
  mkdirSync(folder.file("version"));
  writeFileSync(folder.file("current"), "");
  expect(nextSteps(folder.path, defaultHostDirectory)).toContain("install --root FILE");
  mkdirSync(folder.file("trust"));
  writeFileSync(folder.file("trust/root.json"), "");
  const elsewhere = nextSteps(folder.path, "/data/identity");
  expect(elsewhere).not.toContain("install");
  expect(elsewhere).toContain("hostler fleet supervise -- --identity /data/identity");
});
