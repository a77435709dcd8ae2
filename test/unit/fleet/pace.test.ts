/** An upgrade that is heard more often than usual: both sides count in its heartbeats. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { deadlineOf, step } from "../../../src/fleet/lifecycle.ts";
import { stepDevice } from "../../../src/fleet/operator/lifecycle-device.ts";
import {
  FASTEST_HEARTBEAT,
  HEARTBEAT_EVERY,
  markerSchema,
  SILENT_AFTER,
} from "../../../src/fleet/protocol.ts";
import { paceOf, usualPace } from "../../../src/fleet/protocol-pace.ts";
import { Life, limits, makeMarker, rolesOf } from "../../support/fleet-agent/life.ts";
import { DeviceLife } from "../../support/fleet-operator/device-life.ts";

const fast = { limits: { ...limits, heartbeat_ms: 2_000 } };
const time = { kind: "time" } as const;

describe("the pace of an upgrade", () => {
  test("is the usual one where nothing is said, and else in proportion", () => {
    expect(paceOf({ limits })).toBe(usualPace);
    expect(usualPace).toMatchObject({ every: HEARTBEAT_EVERY, silentAfter: SILENT_AFTER });
    expect(paceOf(fast)).toEqual({
      ...{ every: 2_000, silentAfter: 7_000, unbroken: 3_000, probation: 3_000, settle: 6_000 },
    });
    expect(paceOf({ limits: { ...limits, heartbeat_ms: HEARTBEAT_EVERY } })).toEqual(usualPace);
    expect(paceOf({ limits: { ...limits, heartbeat_ms: 1_001 } }).silentAfter).toBe(3_504);
  });

  test.each([
    [FASTEST_HEARTBEAT - 1, false],
    [FASTEST_HEARTBEAT, true],
    [HEARTBEAT_EVERY, true],
    [HEARTBEAT_EVERY + 1, false],
    [1_500.5, false],
  ])("%d ms in a marker is taken: %p", (heartbeat_ms, isTaken) => {
    const marker = makeMarker(1, { manifest: "{}", limits: { ...limits, heartbeat_ms } });
    expect(v.is(markerSchema, marker)).toBe(isTaken);
  });
});

describe("a device", () => {
  const inProbation = () => {
    const life = new Life(step);
    life.tell({ kind: "marker", marker: makeMarker(1, fast) });
    return life.becomesReady();
  };

  test("takes two silent instances for the environment after 3.5 of its heartbeats", () => {
    const life = inProbation();
    expect(deadlineOf(life.state)).toBe(life.now + 7_000);
    life.pass(6_999).ignores(time).pass(1).leads(time, "held", "note").says("7000 ms");
  });

  test("blames a candidate that alone is silent for so long", () => {
    const life = inProbation();
    for (let beat = 0; beat < 3; beat += 1) life.pass(2_000).tell(life.heard("canonical"));
    life.comes("cutover-ready");
    life.pass(1_000).goes(life.heard("canonical"), "aborted").says("7000 ms");
  });

  test("begins that time anew after a gap of more than one and a half of them", () => {
    const life = inProbation();
    life.pass(3_001).tell(life.heard("canonical"));
    for (let beat = 0; beat < 3; beat += 1) life.pass(2_000).tell(life.heard("canonical"));
    life.pass(999).goes(life.heard("canonical"), "cutover-ready");
    life.pass(1).goes(life.heard("canonical"), "aborted");
  });

  test("is done when every role has answered for three of them", () => {
    const life = inProbation();
    life.tell(life.committed()).tell(life.answer("intact")).tell(life.answer("swapped"));
    life.restart().comes("swapped", "note", "hand-over");
    life.goes(life.roles(rolesOf(life.marker.build)), "canonical").tell(life.candidateEnded());
    life.pass(5_999).goes(time, "canonical").pass(1).goes(time, "done");
  });
});

describe("its operator", () => {
  const observed = () => {
    const life = new DeviceLife(stepDevice);
    life.tell(life.status()).tell(life.canonical()).tell(life.assigned(fast)).tell(life.landed());
    life.tell(life.says("staging")).tell(life.says("cutover-ready"));
    return life.tell(life.candidate()).tell(life.landed());
  };

  test("commits when it has heard the candidate for one and a half of its heartbeats", () => {
    const life = observed();
    life.pass(2_999).tell(life.candidate()).is("observed").wroteNothing();
    life.pass(1).tell(life.candidate()).is("committed");
  });

  test("begins that time anew after a gap of more than 3.5 of them", () => {
    const life = observed();
    life.pass(7_001).tell(life.candidate()).is("observed").wroteNothing();
    life.pass(3_000).tell(life.candidate()).is("committed");
    const other = observed();
    other.pass(7_000).tell(other.candidate()).is("committed");
  });
});
