/** Rollouts: whose a device is, what is begun, paused, taken back, and when it ends. */
import { describe, expect, test } from "bun:test";
import { newFleet, noCounts } from "../../../src/fleet/operator/lifecycle.ts";
import { newDevice } from "../../../src/fleet/operator/lifecycle-device.ts";
import { DeviceMap } from "../../../src/fleet/operator/lifecycle-device-map.ts";
import { rolloutTable, stepRollout } from "../../../src/fleet/operator/lifecycle-rollout.ts";
import { rolloutPhases } from "../../../src/fleet/operator/lifecycle-state.ts";
import { deviceView, settlesFor } from "../../../src/fleet/operator/lifecycle-view.ts";
import { isWindowOpen } from "../../../src/fleet/operator/lifecycle-window.ts";
import { fleetLimits } from "../../../src/fleet/protocol.ts";
import { operatorLimits } from "../../../src/fleet/protocol-operator.ts";
import { builds, hex } from "../../support/fleet-operator/device-life.ts";
import {
  FleetLife,
  names,
  noon,
  operatorSettings,
  specOf,
} from "../../support/fleet-operator/fleet-life.ts";

const { lostAfter } = operatorSettings;

function fleetOf(count: number): { readonly fleet: FleetLife; readonly boxes: string[] } {
  const boxes = names(count);
  return { fleet: new FleetLife().arrive(...boxes), boxes };
}

const told = (fleet: FleetLife) => fleet.in("told", "preparing", "ready", "observed", "committed");

describe("waves", () => {
  test("one canary, then a tenth, then all; each when the one before has ended", () => {
    const { fleet, boxes } = fleetOf(20);
    const waves = [{ by: "count", count: 1 } as const, { by: "percent", percent: 10 } as const];
    fleet.begin("spring", { waves }).pass(2_000, ...boxes);
    expect(told(fleet)).toHaveLength(1);
    expect(fleet.waits("spring")).toBe("the end of this wave");
    fleet.completes(...told(fleet)).pass(20_000, ...boxes);
    expect(fleet.record("spring").wave).toBe(1);
    expect(told(fleet)).toHaveLength(1);
    fleet.completes(...told(fleet)).pass(20_000, ...boxes);
    expect(fleet.record("spring").wave).toBe(2);
    expect(told(fleet)).toHaveLength(18);
    fleet.completes(...told(fleet)).pass(20_000, ...boxes);
    expect(fleet.record("spring")).toMatchObject({ phase: "complete", reason: null });
    expect(fleet.record("spring").result).toMatchObject({ members: 20, done: 20, failed: 0 });
  });

  test("a wave is soaked before the next one", () => {
    const { fleet, boxes } = fleetOf(4);
    const waves = [{ by: "count", count: 1 } as const];
    fleet.begin("spring", { waves, soak_ms: 300_000 }).pass(2_000, ...boxes);
    fleet.completes(...told(fleet)).pass(200_000, ...boxes);
    expect(fleet.waits("spring")).toContain("soaks");
    expect(told(fleet)).toEqual([]);
    fleet.pass(120_000, ...boxes);
    expect(told(fleet)).toHaveLength(3);
  });

  test("never more at once than may be unavailable", () => {
    const { fleet, boxes } = fleetOf(10);
    fleet.begin("spring", { max_unavailable: { by: "percent", percent: 25 } });
    fleet.pass(2_000, ...boxes);
    expect(told(fleet)).toHaveLength(3);
    const [first = ""] = told(fleet);
    fleet.completes(first).pass(2_000, ...boxes);
    expect(told(fleet)).toHaveLength(3);
    expect(fleet.phase(first)).toBe("done");
  });

  test("devices that are away are told when they come, also when all others are done", () => {
    const { fleet } = fleetOf(3);
    fleet
      .says("late")
      .begin("spring")
      .pass(2_000, ...names(3));
    expect(fleet.phase("late")).toBe("free");
    fleet.completes(...told(fleet)).pass(20_000, ...names(3));
    expect(fleet.record("spring").phase).toBe("complete");
    expect(fleet.view("spring").counts).toMatchObject({ away: 1, done: 3 });
    fleet.heard("late").pass(2_000, "late");
    expect(fleet.phase("late")).toBe("told");
    fleet.completes("late");
    expect(fleet.phase("late")).toBe("done");
  });

  test("who has the version already is done, and whom it does not fit is not asked", () => {
    const { fleet, boxes } = fleetOf(1);
    fleet.says("new", { current: builds.new }).heard("new");
    fleet.says("arm", { architecture: "arm64" }).heard("arm");
    fleet.says("image", { executor: "immutable" }).heard("image");
    fleet.begin("spring").pass(2_000, ...boxes, "new", "arm", "image");
    expect(told(fleet)).toEqual(boxes);
    fleet.completes(...boxes).pass(20_000, ...boxes);
    expect(fleet.record("spring").result).toEqual({
      ...{ members: 2, done: 2, failed: 0, hindered: 0 },
      ...{ flight: 0, waiting: 0, away: 0, unfit: 2 },
    });
    expect(fleet.phase("new")).toBe("free");
  });
});

describe("what became of it, when, and by whom", () => {
  test("who began, paused, resumed and aborted it, and what it decided itself", () => {
    const { fleet, boxes } = fleetOf(3);
    const spec = specOf({ waves: [{ by: "count", count: 1 }] });
    const begun = fleet.wall;
    fleet.tell({ kind: "create", name: "spring", spec, by: "operator ada" });
    fleet.pass(2_000, ...boxes);
    fleet.tell({ kind: "pause", rollout: "spring", reason: "a look", by: "local uid 0" });
    fleet.tell({ kind: "resume", rollout: "spring", retry: false, by: "operator ada" });
    fleet
      .pass(2_000, ...boxes)
      .completes(...told(fleet))
      .pass(20_000, ...boxes);
    fleet.fails(told(fleet)[0] ?? "");
    fleet.tell({ kind: "abort", rollout: "spring", reason: "a mistake", by: "operator bob" });
    const { changes } = fleet.view("spring");
    expect(changes.map(({ what, by, reason }) => [what, by, reason])).toEqual([
      ["begun", "operator ada", null],
      ["paused", "local uid 0", "a look"],
      ["resumed", "operator ada", null],
      ["wave", null, "wave 2"],
      ["paused", null, "1 of 3 have failed; 0 may"],
      ["aborted", "operator bob", "a mistake"],
    ]);
    expect(changes[0]?.time).toBe(begun);
    expect(changes.map(({ time }) => time)).toEqual(changes.map(({ time }) => time).toSorted());
  });

  test("the first is kept, and of the others the last ones", () => {
    const { fleet } = fleetOf(1);
    fleet.begin("spring");
    for (let count = 0; count < operatorLimits.changes; count += 1) {
      fleet.tell({ kind: "pause", rollout: "spring", reason: `look ${count}` });
      fleet.tell({ kind: "resume", rollout: "spring", retry: false });
    }
    const { changes } = fleet.record("spring");
    expect(changes).toHaveLength(operatorLimits.changes);
    expect(changes[0]?.what).toBe("begun");
    expect(changes.at(-2)?.reason).toBe(`look ${operatorLimits.changes - 1}`);
  });
});

describe("failures", () => {
  test("one canary of five fails: it pauses, and the rest is untouched", () => {
    const { fleet, boxes } = fleetOf(30);
    fleet.begin("spring", { waves: [{ by: "count", count: 5 }], failures_percent: 10 });
    fleet.pass(2_000, ...boxes);
    const canaries = told(fleet);
    expect(canaries).toHaveLength(5);
    fleet.fails(canaries[0] ?? "");
    expect(fleet.record("spring").phase).toBe("paused");
    expect(fleet.record("spring").reason).toBe("1 of 5 have failed; 0 may");
    // Those that are under way are not committed either.
    fleet.proves(...canaries.slice(1)).pass(60_000, ...boxes);
    expect(fleet.in("observed")).toHaveLength(4);
    expect(fleet.in("free")).toHaveLength(25);
    expect(fleet.view("spring").named[0]?.reason).toBe("exited with 1");
  });

  const lacksRoom = { cause: "host", reason: "there is no room", candidate: null } as const;

  test("a host's own fault is none of the version's: another takes the canary's turn", () => {
    const { fleet, boxes } = fleetOf(5);
    fleet.begin("spring", { waves: [{ by: "count", count: 1 }] }).pass(2_000, ...boxes);
    const [first = ""] = told(fleet);
    fleet.at(first, "aborted", lacksRoom).pass(2_000, ...boxes);
    expect(fleet.record("spring")).toMatchObject({ phase: "running", wave: 0 });
    const [second = "", ...more] = told(fleet);
    expect([second === first, more]).toEqual([false, []]);
    expect(fleet.view("spring").counts).toMatchObject({ failed: 0, hindered: 1, flight: 1 });
    expect(fleet.view("spring").named).toEqual([
      { device: first, standing: "hindered", reason: "there is no room" },
    ]);
    fleet.completes(second).pass(20_000, ...boxes);
    fleet.completes(...told(fleet)).pass(20_000, ...boxes);
    expect(fleet.record("spring")).toMatchObject({ phase: "complete", reason: null });
    expect(fleet.record("spring").result).toMatchObject({ done: 4, failed: 0, hindered: 1 });
    const seen = { now: fleet.now, settings: operatorSettings };
    expect(deviceView(fleet.device(first), seen)).toMatchObject({
      upgrade: "failed",
      cause: "host",
    });
  });

  test("one that was mended is tried again while all others go on", () => {
    const { fleet, boxes } = fleetOf(4);
    fleet.begin("spring").pass(2_000, ...boxes);
    fleet.at("box-0", "aborted", lacksRoom).pass(2_000, ...boxes);
    fleet.tell({ kind: "resume", rollout: "spring", retry: true }).pass(2_000, ...boxes);
    expect(fleet.record("spring")).toMatchObject({ phase: "running", round: 2 });
    expect(fleet.marker("box-0").rollout).toEqual({ name: "spring", round: 2, attempt: 1 });
    fleet.completes(...boxes).pass(20_000, ...boxes);
    expect(fleet.record("spring").result).toMatchObject({ done: 4, hindered: 0 });
  });

  test("a version that fails pauses it as before, beside hosts that could not", () => {
    const { fleet, boxes } = fleetOf(4);
    fleet.begin("spring").pass(2_000, ...boxes);
    fleet.at("box-0", "aborted", lacksRoom).fails("box-1");
    expect(fleet.record("spring").reason).toBe("1 of 4 have failed; 0 may");
  });

  test("where more hosts could not than got it, somebody is asked", () => {
    const { fleet, boxes } = fleetOf(20);
    fleet.begin("spring", { max_unavailable: { by: "count", count: 1 } }).pass(2_000, ...boxes);
    for (let count = 1; count < operatorLimits.hindered; count += 1) {
      fleet.at(told(fleet)[0] ?? "", "aborted", lacksRoom).pass(2_000, ...boxes);
      expect(fleet.record("spring").phase).toBe("running");
    }
    const [last = ""] = told(fleet);
    fleet.at(last, "aborted", lacksRoom).pass(2_000, ...boxes);
    expect(fleet.record("spring").phase).toBe("paused");
    expect(fleet.record("spring").reason).toMatch(
      /^3 hosts could not, and 0 have it, such as box-\d+: there is no room$/,
    );
    fleet.tell({ kind: "resume", rollout: "spring", retry: false }).pass(2_000, ...boxes);
    expect(fleet.record("spring")).toMatchObject({ phase: "running", forgivenHosts: 3 });
    expect(told(fleet)).toHaveLength(1);
  });

  test("where nobody is left who could, it does not call itself complete", () => {
    const { fleet, boxes } = fleetOf(2);
    fleet.begin("spring").pass(2_000, ...boxes);
    for (const box of boxes) fleet.at(box, "aborted", lacksRoom);
    fleet.pass(20_000, ...boxes);
    expect(fleet.record("spring").phase).toBe("paused");
    expect(fleet.record("spring").reason).toStartWith("2 hosts could not, and 0 have it");
  });

  test("so many may fail, and one more is too many", () => {
    const { fleet, boxes } = fleetOf(20);
    fleet.begin("spring", { failures_percent: 10 }).pass(2_000, ...boxes);
    fleet.fails("box-0").fails("box-1");
    expect(fleet.record("spring").phase).toBe("running");
    fleet.fails("box-2");
    expect(fleet.record("spring").phase).toBe("paused");
  });

  test("resumed: what failed is accepted; with retry it is tried once more", () => {
    const { fleet, boxes } = fleetOf(3);
    fleet
      .begin("spring")
      .pass(2_000, ...boxes)
      .fails("box-0");
    expect(fleet.record("spring").phase).toBe("paused");
    const resume = { kind: "resume", rollout: "spring" } as const;
    fleet.tell({ ...resume, retry: false }).pass(2_000, ...boxes);
    expect([fleet.record("spring").phase, fleet.phase("box-0")]).toEqual(["running", "failed"]);
    fleet.completes("box-1", "box-2").pass(20_000, ...boxes);
    expect(fleet.record("spring").phase).toBe("complete");
    fleet.tell({ ...resume, retry: true }).pass(2_000, ...boxes);
    expect(fleet.marker("box-0").rollout).toEqual({ name: "spring", round: 2, attempt: 1 });
    fleet.completes("box-0").pass(20_000, ...boxes);
    expect(fleet.record("spring").result).toMatchObject({ done: 3, failed: 0 });
  });

  test("one that goes back long after it was done counts, and pauses what was complete", () => {
    const { fleet, boxes } = fleetOf(2);
    fleet
      .begin("spring")
      .pass(2_000, ...boxes)
      .completes(...boxes)
      .pass(20_000, ...boxes);
    expect(fleet.record("spring").phase).toBe("complete");
    fleet.at("box-0", "rolled-back", { current: builds.old, cause: "canonical" });
    fleet.pass(2_000, ...boxes);
    expect(fleet.record("spring").phase).toBe("paused");
  });

  test("one that runs something else long after it was done counts, whatever it says", () => {
    const { fleet, boxes } = fleetOf(2);
    fleet
      .begin("spring")
      .pass(2_000, ...boxes)
      .completes(...boxes)
      .pass(60_000, ...boxes);
    expect(fleet.view("spring")).toMatchObject({ phase: "complete", counts: { failed: 0 } });
    fleet.runs("box-0", builds.old).pass(2_000);
    const why = `it was done, and runs 1.0.0 (${builds.old.digest.slice(0, 12)}) now`;
    expect(fleet.view("spring")).toMatchObject({ phase: "paused", counts: { failed: 1 } });
    expect(fleet.view("spring").named[0]).toMatchObject({ device: "box-0", reason: why });
    expect(fleet.told.find(({ what }) => what === "failed")?.message).toContain(why);
    const { now } = fleet;
    const view = deviceView(fleet.device("box-0"), { now, settings: operatorSettings });
    expect([view.upgrade, view.reason]).toEqual(["failed", why]);
    fleet.tell({ kind: "resume", rollout: "spring", retry: true });
    fleet.runs("box-0", builds.old).pass(2_000);
    expect(fleet.phase("box-0")).toBe("told");
  });

  test("no commit in time says nothing against it, and is tried again, but not for ever", () => {
    const { fleet } = fleetOf(1);
    fleet.begin("spring").pass(2_000, "box-0");
    for (let attempt = 1; attempt <= operatorLimits.attempts; attempt += 1) {
      expect(fleet.marker("box-0").rollout?.attempt).toBe(attempt);
      fleet.at("box-0", "aborted", { cause: "uncommitted", reason: "no commit" });
      fleet.pass(2_000, "box-0");
    }
    expect(fleet.record("spring").phase).toBe("paused");
    expect(fleet.view("spring").named[0]?.reason).toContain(`${operatorLimits.attempts} times`);
  });
});

describe("devices that fall silent", () => {
  test("before the commit: it is taken back, and its place is another's", () => {
    const { fleet, boxes } = fleetOf(2);
    fleet.begin("spring", { max_unavailable: { by: "count", count: 1 } }).pass(2_000, ...boxes);
    const [lost = ""] = told(fleet);
    const [other = ""] = boxes.filter((name) => name !== lost);
    fleet.pass(lostAfter - 5_000, other);
    expect(told(fleet)).toEqual([lost]);
    fleet.pass(30_000, other);
    expect([fleet.phase(lost), fleet.phase(other)]).toEqual(["returned", "told"]);
    expect(fleet.marker(lost).withdrawn?.reason).toMatch(/^not heard for 1\d\d s$/);
    fleet.completes(other).heard(lost).pass(2_000, lost, other);
    expect(fleet.phase(lost)).toBe("told");
    // It never took the first one up.
    expect(fleet.marker(lost).rollout?.attempt).toBe(1);
  });

  test("one that never takes up what it was told is told anew", () => {
    const { fleet, boxes } = fleetOf(1);
    fleet.begin("spring").pass(2_000, ...boxes);
    const { transaction } = fleet.marker("box-0");
    fleet.pass(lostAfter - 5_000, ...boxes);
    expect(fleet.marker("box-0").transaction).toBe(transaction);
    fleet.pass(40_000, ...boxes);
    expect(fleet.phase("box-0")).toBe("told");
    expect(fleet.marker("box-0").transaction).not.toBe(transaction);
  });

  test("its place is free only when that is written", () => {
    const { fleet, boxes } = fleetOf(2);
    fleet.begin("spring", { max_unavailable: { by: "count", count: 1 } }).pass(2_000, ...boxes);
    const [lost = ""] = told(fleet);
    const [other = ""] = boxes.filter((name) => name !== lost);
    fleet.at(lost, "staging");
    fleet.lands = false;
    fleet.pass(lostAfter + 60_000, other);
    expect([fleet.phase(lost), fleet.phase(other)]).toEqual(["withdrawn", "free"]);
    fleet.lands = true;
    for (const effect of fleet.waiting.splice(0)) fleet.land(effect);
    fleet.pass(2_000, other);
    expect(fleet.phase(other)).toBe("told");
  });

  test("after the commit: it keeps its place, and is named, until it is forgotten", () => {
    const { fleet, boxes } = fleetOf(2);
    fleet.begin("spring", { max_unavailable: { by: "count", count: 1 } }).pass(2_000, ...boxes);
    const [lost = ""] = told(fleet);
    const [other = ""] = boxes.filter((name) => name !== lost);
    fleet.proves(lost);
    expect(fleet.phase(lost)).toBe("committed");
    expect(fleet.tell({ kind: "forget", device: lost }).refusal).toContain("it may be there");
    expect(fleet.hint).toContain("silent for 121 s more");
    fleet.pass(3_600_000, other);
    expect([fleet.phase(lost), fleet.phase(other)]).toEqual(["committed", "free"]);
    expect(fleet.waits("spring")).toContain(`silent: ${lost}`);
    expect(fleet.tell({ kind: "forget", device: lost }).refusal).toBe("");
    fleet.pass(2_000, other);
    expect(fleet.phase(other)).toBe("told");
  });

  test("a candidate that is heard is a sign of life", () => {
    const { fleet } = fleetOf(1);
    fleet.begin("spring").pass(2_000, "box-0").at("box-0", "cutover-ready");
    fleet.tell({ kind: "pause", rollout: "spring", reason: "a look" });
    for (let time = 0; time < 2 * lostAfter; time += 10_000) fleet.candidate("box-0").pass(10_000);
    expect(fleet.phase("box-0")).toBe("observed");
  });
});

describe("pause, abort, supersede", () => {
  test("paused: nothing is begun, and nothing committed", () => {
    const { fleet, boxes } = fleetOf(4);
    fleet.begin("spring", { max_unavailable: { by: "count", count: 2 } }).pass(2_000, ...boxes);
    fleet.tell({ kind: "pause", rollout: "spring", reason: "a look" });
    const two = told(fleet);
    fleet.proves(...two).pass(30_000, ...boxes);
    expect(fleet.in("observed")).toEqual(two);
    expect(fleet.in("free")).toHaveLength(2);
    fleet.tell({ kind: "resume", rollout: "spring", retry: false });
    for (const name of two) fleet.candidate(name);
    expect(fleet.in("committed")).toEqual(two);
  });

  test("aborted: what is not committed is taken back, what is goes on", () => {
    const { fleet, boxes } = fleetOf(3);
    fleet
      .begin("spring")
      .pass(2_000, ...boxes)
      .proves("box-0")
      .at("box-1", "staging");
    fleet.tell({ kind: "abort", rollout: "spring", reason: "a mistake" }).pass(2_000, ...boxes);
    expect(fleet.in("committed")).toEqual(["box-0"]);
    expect(fleet.in("withdrawn")).toEqual(["box-1"]);
    expect(fleet.in("returned")).toEqual(["box-2"]);
    fleet.at("box-0", "swapped").at("box-0", "done");
    fleet.at("box-1", "aborted", { cause: "withdrawn" }).pass(60_000, ...boxes);
    expect(fleet.in("done")).toEqual(["box-0"]);
    expect(told(fleet)).toEqual([]);
    expect(fleet.tell({ kind: "resume", rollout: "spring", retry: true }).refusal).toContain(
      "for good",
    );
  });

  test("two race: the later one has the devices, what is under way is taken back first", () => {
    const { fleet, boxes } = fleetOf(3);
    const next = specOf({
      version: "1.2.0",
      builds: [{ architecture: "x64", libc: "glibc", digest: hex("d", 64) }],
    });
    fleet
      .begin("spring")
      .pass(2_000, ...boxes)
      .proves("box-0")
      .at("box-1", "staging");
    fleet.tell({ kind: "create", name: "summer", spec: next }).pass(2_000, ...boxes);
    expect(fleet.marker("box-1").withdrawn).toEqual({ reason: "superseded by rollout summer" });
    expect(fleet.phase("box-0")).toBe("committed");
    fleet.at("box-0", "done").at("box-1", "aborted", { cause: "withdrawn" });
    fleet.pass(20_000, ...boxes);
    expect(boxes.map((name) => fleet.marker(name).rollout?.name)).toEqual([
      ...["summer", "summer", "summer"],
    ]);
    expect(fleet.record("spring")).toMatchObject({ phase: "complete" });
    expect(fleet.record("spring").reason).toBe("later rollouts have all its devices");
    expect(fleet.view("spring")).toMatchObject({ phase: "complete", counts: { done: 1 } });
  });

  test("one whose devices all went to a later one before it gave them anything", () => {
    const { fleet, boxes } = fleetOf(2);
    const builds = [{ architecture: "x64", libc: "glibc", digest: hex("d", 64) } as const];
    fleet.begin("spring");
    fleet.tell({ kind: "create", name: "summer", spec: specOf({ version: "1.2.0", builds }) });
    for (let time = 0; time < 10; time += 1) fleet.pass(2_000, ...boxes);
    expect(fleet.view("spring").phase).toBe("superseded");
    const current = { version: "1.2.0", digest: hex("d", 64) };
    for (const name of boxes) fleet.at(name, "done", { current });
    fleet.pass(20_000, ...boxes);
    expect(fleet.view("spring").phase).toBe("superseded");
    expect(fleet.view("summer").phase).toBe("complete");
  });

  test("what a later one has is still under way for the one that gave it", () => {
    const { fleet, boxes } = fleetOf(4);
    const { version, builds: same } = specOf();
    fleet.begin("spring", { max_unavailable: { by: "count", count: 2 } }).pass(2_000, ...boxes);
    const two = told(fleet);
    fleet.proves(...two);
    const select = { devices: two, labels: {} };
    fleet.begin("summer", { version, builds: same, select }).pass(30_000, ...boxes);
    expect(fleet.in("committed")).toEqual(two);
    expect(fleet.in("free")).toHaveLength(2);
    for (const name of two) fleet.at(name, "done");
    fleet.pass(2_000, ...boxes);
    expect(fleet.in("told")).toHaveLength(2);
  });

  test("an aborted later one leaves its devices as they are", () => {
    const { fleet, boxes } = fleetOf(2);
    fleet
      .begin("spring")
      .pass(2_000, ...boxes)
      .completes(...boxes)
      .pass(20_000, ...boxes);
    const digest = hex("d", 64);
    const next = specOf({
      version: "1.2.0",
      builds: [{ architecture: "x64", libc: "glibc", digest }],
      max_unavailable: { by: "count", count: 1 },
    });
    fleet.tell({ kind: "create", name: "summer", spec: next }).pass(2_000, ...boxes);
    fleet.pass(2_000, ...boxes);
    const [first = ""] = told(fleet);
    fleet.completes(first);
    fleet.tell({ kind: "abort", rollout: "summer", reason: "no" }).pass(60_000, ...boxes);
    expect(fleet.device(first).status?.value.current.digest).toBe(digest);
    expect(told(fleet)).toEqual([]);
  });

  test("a device that nobody has heard is refused, unless it is to come", () => {
    const { fleet } = fleetOf(1);
    const spec = specOf({ select: { devices: ["box-0", "bxo-1"], labels: {} } });
    const create = { kind: "create", name: "spring", spec } as const;
    fleet.tell({ ...create, mayBeUnknown: false });
    expect(fleet.refusal).toBe("There is no device bxo-1");
    fleet.tell({ ...create, mayBeUnknown: true });
    expect([fleet.refusal, fleet.record("spring").phase]).toEqual(["", "running"]);
  });

  test("one that selects nobody says so, and goes on when somebody comes", () => {
    const { fleet, boxes } = fleetOf(1);
    const select = { devices: null, labels: { site: "lab" } };
    fleet.begin("spring", { select }).pass(20_000, ...boxes);
    expect(fleet.waits("spring")).toBe(
      "a device: none matches labels site=lab; it goes on when one comes",
    );
    expect(fleet.record("spring").phase).toBe("running");
    fleet.tell({ kind: "label", device: "box-0", labels: { site: "lab" } }).pass(2_000, ...boxes);
    expect([fleet.waits("spring"), fleet.phase("box-0")]).toEqual(["", "told"]);
  });

  test("one whose devices can not have it says so", () => {
    const fleet = new FleetLife().says("arm", { architecture: "arm64" }).heard("arm");
    fleet.begin("spring").pass(2_000, "arm");
    expect(fleet.waits("spring")).toContain("1 match, and can not have it");
  });

  test("waves that fall are refused", () => {
    const { fleet } = fleetOf(1);
    const part = (percent: number) => ({ by: "percent", percent }) as const;
    expect(fleet.begin("spring", { waves: [part(50), part(10)] }).refusal).not.toBe("");
    expect(fleet.begin("spring", { waves: [part(50), part(50)] }).refusal).not.toBe("");
    const canaries = { by: "count", count: 60 } as const;
    expect(fleet.begin("spring", { waves: [canaries, part(10), part(50)] }).refusal).toBe("");
  });

  test("labels and names say whose it is", () => {
    const { fleet, boxes } = fleetOf(6);
    for (const device of ["box-1", "box-3"]) {
      fleet.tell({ kind: "label", device, labels: { site: "lab" } });
    }
    fleet.begin("lab", { select: { devices: null, labels: { site: "lab" } } });
    fleet.begin("named", { select: { devices: ["box-0", "box-1", "gone"], labels: {} } });
    fleet.pass(2_000, ...boxes).pass(2_000, ...boxes);
    // box-1 is the later one's.
    expect(fleet.in("told")).toEqual(["box-0", "box-1", "box-3"]);
    expect(fleet.marker("box-1").rollout?.name).toBe("named");
    fleet.tell({ kind: "label", device: "box-5", labels: { site: "lab" } }).pass(2_000, ...boxes);
    expect(fleet.marker("box-5").rollout?.name).toBe("lab");
  });
});

describe("maintenance windows", () => {
  test("nothing is begun nor committed while none is open", () => {
    const { fleet } = fleetOf(2);
    const windows = [{ days: [4], from: 13 * 60, to: 14 * 60 }];
    fleet.begin("spring", { windows, max_unavailable: { by: "count", count: 1 } });
    fleet.pass(50 * 60_000, "box-0", "box-1");
    expect(told(fleet)).toEqual([]);
    expect(fleet.waits("spring")).toBe("its maintenance window");
    fleet.pass(11 * 60_000, "box-0", "box-1");
    const [first = ""] = told(fleet);
    expect(first).not.toBe("");
    fleet.at(first, "staging").pass(60 * 60_000, "box-0", "box-1");
    fleet.proves(first);
    expect(fleet.phase(first)).toBe("observed");
  });

  test("who was away through a whole window is upgraded in the next one", () => {
    const { fleet } = fleetOf(1);
    const windows = [{ days: [4, 5], from: 13 * 60, to: 14 * 60 }];
    fleet.says("late").begin("spring", { windows });
    const day = 24 * 3_600_000;
    const hour = 3_600_000;
    fleet.pass(hour + 20_000, "box-0").completes("box-0");
    expect(fleet.phase("box-0")).toBe("done");
    fleet.pass(hour, "box-0");
    expect([fleet.phase("late"), fleet.view("spring").counts.away]).toEqual(["free", 1]);
    // It comes when the window is shut, and is left alone until the next one.
    fleet.pass(hour, "box-0", "late");
    expect(fleet.phase("late")).toBe("free");
    fleet.pass(day - 2 * hour, "box-0", "late");
    expect(fleet.phase("late")).toBe("told");
    fleet.completes("late");
    expect(fleet.phase("late")).toBe("done");
    expect(fleet.view("spring").counts).toMatchObject({ done: 2, away: 0, failed: 0 });
  });

  test.each([
    ["Thursday noon, a window of noon", [4], 12 * 60, 13 * 60, 0, true],
    ["it closes at its end", [4], 11 * 60, 12 * 60, 0, false],
    ["another day", [3], 12 * 60, 13 * 60, 0, false],
    ["over midnight, before it", [4], 22 * 60, 2 * 60, 11, true],
    ["over midnight, after it", [4], 22 * 60, 2 * 60, 13, true],
    ["over midnight, of the day before", [5], 22 * 60, 2 * 60, 13, false],
    ["a whole day", [4], 0, 0, 0, true],
    ["its next day", [4], 0, 0, 12, false],
  ] as const)("%s", (_name, days, from, to, hours, isOpen) => {
    const wall = noon + hours * 3_600_000;
    expect(isWindowOpen([{ days: [...days], from, to }], wall)).toBe(isOpen);
  });

  test("a clock before 1970 has days of the week as well", () => {
    expect(isWindowOpen([{ days: [3], from: 0, to: 1_440 }], -1)).toBe(true);
  });
});

describe("the store", () => {
  test("a rollout begins when it is written, not before", () => {
    const { fleet, boxes } = fleetOf(1);
    fleet.lands = false;
    fleet.begin("spring").pass(60_000, ...boxes);
    expect(fleet.in("free")).toEqual(boxes);
    fleet.lands = true;
    for (const effect of fleet.waiting.splice(0)) fleet.land(effect);
    fleet.pass(2_000, ...boxes);
    expect(fleet.in("told")).toEqual(boxes);
  });

  test("before all of it was read nothing is taken back", () => {
    const { fleet, boxes } = fleetOf(1);
    fleet.begin("spring").pass(2_000, ...boxes);
    const [marker, record] = [fleet.marker("box-0"), fleet.record("spring")];
    const next = new FleetLife();
    next.state = newFleet(next.now);
    const event = { kind: "found", value: marker, revision: 5 } as const;
    next.tell({ kind: "device", device: "box-0", event }).pass(60_000, ...boxes);
    expect(next.marker("box-0")).toEqual(marker);
    next.tell({ kind: "rollout-found", rollout: "spring", value: record, revision: 6 });
    next.tell({ kind: "opened" }).pass(60_000, ...boxes);
    expect(next.marker("box-0")).toEqual(marker);
  });

  test("an older store was put back: nothing is begun before all were heard", () => {
    const boxes = names(2);
    const fleet = new FleetLife(1_000_000 + operatorSettings.settle).arrive(...boxes);
    fleet.begin("spring").pass(operatorSettings.settle - 5_000, ...boxes);
    expect(fleet.in("free")).toEqual(boxes);
    expect(fleet.waits("spring")).toContain("an older store");
    expect(settlesFor(fleet.state, fleet.now)).toBe(5_000);
    const end = fleet.now + 5_000;
    expect([end - 0.5, end].map((now) => settlesFor(fleet.state, now))).toEqual([1, null]);
    fleet.begin("nobody", { select: { devices: null, labels: { site: "lab" } } }).pass(2_000);
    expect(fleet.waits("nobody")).toContain("an older store");
    fleet.pass(10_000, ...boxes);
    expect(fleet.in("told")).toEqual(boxes);
  });

  test("a rollout that it has lost is written again; another operator's counts", () => {
    const { fleet, boxes } = fleetOf(1);
    fleet.begin("spring").pass(2_000, ...boxes);
    const before = fleet.record("spring");
    fleet.tell({ kind: "rollout-found", rollout: "spring", value: undefined, revision: 0 });
    expect(fleet.record("spring")).toEqual(before);
    expect(fleet.told.at(-1)?.what).toBe("store-lost");
    const theirs = { ...before, phase: "paused", reason: "they say so" } as const;
    fleet.tell({ kind: "rollout-found", rollout: "spring", value: theirs, revision: 9_999 });
    expect(fleet.record("spring")).toEqual(theirs);
  });

  test("two changes at once are two writes, one after the other", () => {
    const { fleet } = fleetOf(1);
    fleet.begin("spring");
    fleet.lands = false;
    fleet.tell({ kind: "pause", rollout: "spring", reason: "one" });
    fleet.tell({ kind: "resume", rollout: "spring", retry: false });
    expect(fleet.waiting).toHaveLength(1);
    expect(fleet.record("spring").phase).toBe("running");
    const [first] = fleet.waiting.splice(0);
    if (first !== undefined) fleet.land(first);
    expect(fleet.waiting).toHaveLength(1);
    expect(fleet.waiting[0]).toMatchObject({ write: { value: { phase: "running" } } });
  });
});

describe("limits and refusals", () => {
  test("a name is taken once; unknown ones are told", () => {
    const { fleet } = fleetOf(1);
    expect(fleet.begin("spring").refusal).toBe("");
    expect(fleet.begin("spring").refusal).toContain("already");
    expect(fleet.tell({ kind: "pause", rollout: "no", reason: "" }).refusal).toContain(
      "no rollout",
    );
    expect(fleet.tell({ kind: "label", device: "no", labels: {} }).refusal).toContain("no device");
    expect(fleet.tell({ kind: "forget", device: "no" }).refusal).toContain("no device");
    // One whose host was revoked is not waited for.
    fleet.arrive("stolen");
    expect(fleet.tell({ kind: "forget", device: "stolen" }).refusal).toContain("it may be there");
    expect(fleet.hint).toContain("then it is forgotten at once");
    expect(fleet.tell({ kind: "forget", device: "stolen", isRevoked: true }).refusal).toBe("");
    expect(fleet.state.devices.get("stolen")).toBeUndefined();
    fleet.tell({ kind: "pause", rollout: "spring", reason: "" });
    const again = fleet.tell({ kind: "pause", rollout: "spring", reason: "" });
    expect(again.refusal).toContain("it is paused");
  });

  test(`over ${operatorLimits.rollouts} rollouts the oldest that ended goes`, () => {
    const fleet = new FleetLife();
    for (let index = 0; index < operatorLimits.rollouts; index += 1) fleet.begin(`r-${index}`);
    expect(fleet.begin("more").refusal).toContain("not created");
    fleet.tell({ kind: "abort", rollout: "r-7", reason: "no" });
    expect(fleet.begin("more").refusal).toBe("");
    expect(fleet.state.rollouts.has("r-7")).toBe(false);
    expect(fleet.state.rollouts.size).toBe(operatorLimits.rollouts);
    expect(fleet.record("more").number).toBe(operatorLimits.rollouts + 1);
  });

  test(`over ${fleetLimits.devices} devices none is taken in`, () => {
    const fleet = new FleetLife();
    let devices = DeviceMap.empty;
    for (const name of names(fleetLimits.devices)) devices = devices.with(newDevice(name, 0));
    fleet.state = { ...fleet.state, devices };
    expect(fleet.heard("one-more").refusal).toContain("not taken into the fleet");
    expect(fleet.heard("box-3").refusal).toBe("");
    fleet.tell({ kind: "forget", device: "box-4" }).heard("one-more");
    expect(fleet.refusal).toBe("");
  });

  test("failed devices are tried again so often, and no more", () => {
    const { fleet } = fleetOf(1);
    fleet.begin("spring");
    const retry = { kind: "resume", rollout: "spring", retry: true } as const;
    for (let round = 1; round < operatorLimits.retries; round += 1) {
      fleet.tell({ kind: "pause", rollout: "spring", reason: "a look" }).tell(retry);
      expect(fleet.refusal).toBe("");
    }
    fleet.tell({ kind: "pause", rollout: "spring", reason: "a look" });
    expect(fleet.tell(retry).refusal).toContain("left as it is");
  });
});

describe("every phase of a rollout × every event", () => {
  const record = new FleetLife().begin("spring").record("spring");
  const events = [
    { kind: "pause", reason: "why", counts: noCounts },
    { kind: "resume", retry: true, counts: noCounts },
    { kind: "abort", reason: "why", counts: noCounts },
    { kind: "failing", reason: "why", counts: noCounts },
    { kind: "advance" },
    { kind: "finish", reason: null, counts: noCounts },
  ] as const;

  test("is what the table says", () => {
    const rows = rolloutPhases.map((phase) =>
      events.map((event) => {
        const next = stepRollout({ ...record, phase }, event);
        return typeof next === "string" ? next : `→ ${next.phase}`;
      }),
    );
    const stopped = "nothing of it goes on while it is paused";
    const over = "it was aborted, for good";
    expect(rows).toEqual([
      ["→ paused", "→ running", "→ aborted", "→ paused", "→ running", "→ complete"],
      ["it is paused", "→ running", "→ aborted", stopped, stopped, stopped],
      [
        "→ paused",
        "→ running",
        "→ aborted",
        "→ paused",
        "its last wave has ended",
        "it is complete",
      ],
      [over, over, over, over, over, over],
    ]);
  });

  test("what is taken away from the table is missed", () => {
    const kinds = events.map(({ kind }) => kind);
    for (const phase of rolloutPhases) {
      expect(Object.keys(rolloutTable[phase]).sort()).toEqual([...kinds].sort());
    }
    const wave = stepRollout(record, { kind: "advance" });
    expect(wave).toEqual({ ...record, wave: 1 });
    const counts = { ...noCounts, failed: 3 };
    const paused = { ...record, phase: "paused", result: counts, reason: "why" } as const;
    expect(stepRollout(record, { kind: "failing", reason: "why", counts })).toEqual(paused);
    expect(stepRollout(paused, { kind: "resume", retry: false, counts })).toEqual({
      ...{ ...record, forgiven: 3 },
    });
    expect(stepRollout(paused, { kind: "resume", retry: true, counts })).toEqual({
      ...{ ...record, round: 2 },
    });
    expect(
      stepRollout({ ...record, phase: "complete" }, { kind: "resume", retry: false, counts }),
    ).toBe("it is as it was");
  });
});

describe("what people see", () => {
  test("a device that was never heard, silent, lost, and alive again", () => {
    const fleet = new FleetLife().says("box");
    const standing = () => {
      const { now } = fleet;
      return deviceView(fleet.device("box"), { now, settings: operatorSettings }).standing;
    };
    expect(standing()).toBe("unheard");
    fleet.heard("box");
    expect(standing()).toBe("alive");
    fleet.pass(40_000);
    expect(standing()).toBe("silent");
    fleet.pass(lostAfter);
    expect(standing()).toBe("lost");
    fleet.heard("box");
    expect(standing()).toBe("alive");
  });

  test("what it runs, is to become, and how much of that it has", () => {
    const { fleet, boxes } = fleetOf(1);
    fleet.begin("spring").pass(2_000, ...boxes);
    const progress = { bytes: 250, of_bytes: 1_000, fetched_bytes: 250, again_bytes: 0 };
    fleet.at("box-0", "staging", { progress });
    const { now } = fleet;
    const view = deviceView(fleet.device("box-0"), { now, settings: operatorSettings });
    const ready = { bytes: 1_000, of_bytes: 1_000, fetched_bytes: 2_048, again_bytes: 512 };
    fleet.at("box-0", "cutover-ready", { progress: ready });
    expect(fleet.told.at(-1)?.message).toContain("; 2 KiB fetched for 1000 B, 512 B of them again");
    expect(view).toMatchObject({
      ...{ current_version: "1.0.0", target_version: "1.1.0", rollout: "spring" },
      ...{ upgrade: "preparing", progress_percent: 25, healthy: true, reason: null },
    });
  });
});

describe("devices as a value", () => {
  test("a map with one changed leaves the one before as it was", () => {
    const one = DeviceMap.empty.with(newDevice("a", 1)).with(newDevice("b", 1));
    const two = one.with(newDevice("a", 2)).without("b").without("never");
    expect([one.get("a")?.known, one.size, two.get("a")?.known, two.size]).toEqual([1, 2, 2, 1]);
    expect([...two].map(({ name }) => name)).toEqual(["a"]);
  });
});
