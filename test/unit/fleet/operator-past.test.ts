/** What a rollout keeps of its devices: who was done, failed, or taken by another one, for good. */
import { describe, expect, test } from "bun:test";
import { noPast, withMember } from "../../../src/fleet/operator/lifecycle-past.ts";
import type { PastMember } from "../../../src/fleet/operator/lifecycle-state.ts";
import { membersOf } from "../../../src/fleet/operator/lifecycle-view.ts";
import { rolloutCollection } from "../../../src/fleet/operator/records.ts";
import { operatorLimits } from "../../../src/fleet/protocol-operator.ts";
import { hex } from "../../support/fleet-operator/device-life.ts";
import {
  FleetLife,
  names,
  operatorSettings,
  specOf,
} from "../../support/fleet-operator/fleet-life.ts";

const summer = specOf({
  version: "1.2.0",
  builds: [{ architecture: "x64", libc: "glibc", digest: hex("d", 64) }],
});

function members(fleet: FleetLife, rollout: string) {
  const context = { now: fleet.now, settings: operatorSettings };
  return membersOf(fleet.state, context, rollout).map((one) => [
    ...[one.device, one.standing, one.reason, one.superseded_by],
  ]);
}

/** Spring: box-0 is done, box-1 has failed, box-2 is under way, box-3 waits. */
function spring(): { readonly fleet: FleetLife; readonly boxes: readonly string[] } {
  const boxes = names(4);
  const fleet = new FleetLife().arrive(...boxes);
  fleet.begin("spring", { failures_percent: 100 }).pass(2_000, ...boxes);
  fleet.completes("box-0").fails("box-1").at("box-2", "staging");
  return { fleet: fleet.pass(2_000, ...boxes), boxes };
}

function taken() {
  const { fleet, boxes } = spring();
  fleet.tell({ kind: "create", name: "summer", spec: summer });
  fleet.pass(2_000, ...boxes).pass(2_000, ...boxes);
  fleet.at("box-2", "aborted", { cause: "withdrawn" });
  fleet.at("box-3", "aborted", { cause: "withdrawn" });
  for (let time = 0; time < 20; time += 1) fleet.pass(2_000, ...boxes);
  return { fleet, boxes };
}

describe("a later rollout takes its devices", () => {
  test("who was done, and who failed with its reason, is known afterwards", () => {
    const { fleet, boxes } = taken();
    expect(boxes.map((name) => fleet.marker(name).rollout?.name)).toEqual([
      ...["summer", "summer", "summer", "summer"],
    ]);
    expect(fleet.view("spring").counts).toMatchObject({ members: 2, done: 1, failed: 1 });
    expect(members(fleet, "spring").slice(0, 2)).toEqual([
      ["box-0", "done", null, "summer"],
      ["box-1", "failed", "exited with 1", "summer"],
    ]);
    for (const [device, standing, , by] of members(fleet, "spring").slice(2)) {
      expect([device, standing, by]).toEqual([device, "superseded", "summer"]);
    }
  });

  test("it stays so when devices are done, and when a third one takes them", () => {
    const { fleet, boxes } = taken();
    const before = members(fleet, "spring");
    fleet.completes(...boxes).pass(20_000, ...boxes);
    const current = { current: { version: "1.2.0", digest: hex("d", 64) } };
    for (const name of boxes) fleet.at(name, "done", current);
    const autumn = { ...summer, version: "1.3.0" };
    const builds = [{ ...autumn.builds[0], digest: hex("e", 64) }] as typeof autumn.builds;
    fleet.tell({ kind: "create", name: "autumn", spec: { ...autumn, builds } });
    for (let time = 0; time < 5; time += 1) fleet.pass(2_000, ...boxes);
    expect(fleet.marker("box-0").rollout?.name).toBe("autumn");
    expect(members(fleet, "spring")).toEqual(before);
    expect(fleet.view("spring").counts).toMatchObject({ members: 2, done: 1, failed: 1 });
    expect(fleet.view("summer").counts).toMatchObject({ members: 4, done: 4, failed: 0 });
  });

  test("before it has begun with them, the earlier one has what it did", () => {
    const { fleet, boxes } = spring();
    const windows = [{ days: [0], from: 0, to: 1 }];
    fleet.tell({ kind: "create", name: "summer", spec: { ...summer, windows } });
    fleet.pass(20_000, ...boxes);
    expect(fleet.marker("box-0").rollout?.name).toBe("spring");
    expect(fleet.view("spring").counts).toMatchObject({ done: 1, failed: 1 });
    expect(members(fleet, "summer").map(([, standing]) => standing)).toEqual([
      ...["waiting", "waiting", "returning", "waiting"],
    ]);
  });

  test("no marker is written over before what it led to is durable", () => {
    const { fleet, boxes } = spring();
    fleet.lands = false;
    fleet.tell({ kind: "create", name: "summer", spec: summer });
    fleet.land(fleet.waiting[0] ?? { kind: "delete-device", device: "none" });
    fleet.waiting.length = 0;
    for (let time = 0; time < 10; time += 1) fleet.pass(2_000, ...boxes);
    const kept = fleet.waiting.find(({ kind }) => kind === "write-rollout");
    expect([fleet.marker("box-0").rollout?.name, kept !== undefined]).toEqual(["spring", true]);
    fleet.lands = true;
    for (const effect of fleet.waiting.splice(0)) fleet.land(effect);
    fleet.pass(2_000, ...boxes).pass(2_000, ...boxes);
    expect(fleet.marker("box-0").rollout?.name).toBe("summer");
  });

  test("of one that is forgotten it is known as well", () => {
    const { fleet, boxes } = spring();
    fleet.pass(operatorSettings.lostAfter + 20_000, ...boxes.slice(2));
    for (const device of ["box-0", "box-1"]) fleet.tell({ kind: "forget", device });
    fleet.pass(2_000, ...boxes.slice(2));
    expect(fleet.view("spring").counts).toMatchObject({ done: 1, failed: 1 });
    expect(members(fleet, "spring").slice(0, 2)).toEqual([
      ["box-0", "done", null, null],
      ["box-1", "failed", "exited with 1", null],
    ]);
  });
});

describe("what is kept", () => {
  const one = (device: string, change: Partial<PastMember> = {}): PastMember => ({
    ...{ device, standing: "done", reason: "", by: "summer" },
    ...change,
  });

  test(`at most ${operatorLimits.past} by name; who failed is named before others`, () => {
    let past = noPast;
    for (const name of names(operatorLimits.past)) past = withMember(past, one(name));
    expect([past.named.length, past.unnamed.done]).toEqual([operatorLimits.past, 0]);
    past = withMember(past, one("more"));
    expect([past.named.length, past.unnamed.done]).toEqual([operatorLimits.past, 1]);
    const failed = one("worse", { standing: "failed", reason: "why" });
    past = withMember(past, failed);
    expect([past.named.length, past.unnamed.done]).toEqual([operatorLimits.past, 2]);
    expect(past.named).toContain(failed);
  });

  test("of a device that came back the last word counts", () => {
    const past = withMember(withMember(noPast, one("box", { standing: "failed" })), one("box"));
    expect(past).toEqual({ ...noPast, named: [one("box")] });
  });

  test("a reason is cut where it is too long", () => {
    const boxes = names(1);
    const fleet = new FleetLife().arrive(...boxes);
    fleet.begin("spring", { failures_percent: 100 }).pass(2_000, ...boxes);
    const reason = "x".repeat(operatorLimits.pastReason + 1);
    fleet.at("box-0", "aborted", { cause: "candidate", reason, candidate: null });
    fleet.tell({ kind: "create", name: "summer", spec: summer });
    for (let time = 0; time < 5; time += 1) fleet.pass(2_000, ...boxes);
    expect(fleet.record("spring").past.named[0]?.reason).toBe(reason.slice(1));
  });

  test("a record of the version before is read, and can be written", () => {
    const record = new FleetLife().begin("spring").record("spring");
    const { changes: _changes, forgivenHosts: _hosts, ...rest } = record;
    const { hindered: _hindered, ...unnamed } = noPast.unnamed;
    const before = { ...rest, result: null, past: { named: [], unnamed } };
    const now = rolloutCollection.former?.up(before);
    expect(now).toEqual({ ...record, changes: [], past: noPast });
    expect(now && rolloutCollection.former?.down(now)).toEqual(before);
  });

  test("a rollout that leaves no room for it is refused", () => {
    const devices = names(operatorLimits.namedDevices, "x".repeat(30));
    const fleet = new FleetLife().begin("spring", { select: { devices, labels: {} } });
    expect(fleet.refusal).toBe("The rollout is not created");
    const others = JSON.stringify(specOf({ manifest: "" })).length;
    const manifest = "x".repeat(operatorLimits.specCharacters - others);
    expect(fleet.begin("spring", { manifest: `${manifest}x` }).refusal).not.toBe("");
    expect(fleet.begin("spring", { manifest }).refusal).toBe("");
  });
});
