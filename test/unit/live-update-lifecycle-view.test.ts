/** What the command line is shown of luod's state, and what luod tells itself over a kexec. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import {
  describeStatus,
  listMetrics,
  measureBlackout,
  summarizeClients,
  summarizeSessions,
} from "../../src/live-update/daemon-view.ts";
import { metricSchema, statusSchema } from "../../src/live-update/protocol.ts";
import {
  decodeRegistry,
  encodeEntered,
  encodeRegistry,
  type Registry,
} from "../../src/live-update/registry.ts";
import { events, lives, type Phase, phases } from "../support/live-update-life.ts";

const sources = {
  ...{ now: 1_300, loaded: undefined, blackout: undefined, troubles: [] },
  policy: { kind: "keep" as const },
};

const times = {
  update: "u1",
  clients: 2,
  accepted_at_ms: 1_000,
  ready_at_ms: 1_400,
  entered_at_ms: 1_500,
};

describe("status", () => {
  test("is valid in every phase, and says its word", () => {
    const words: Record<string, string> = Object.fromEntries(
      phases.map((phase) => {
        const status = describeStatus(lives[phase]().state, sources);
        return [phase, v.parse(statusSchema, status).phase];
      }),
    );
    expect(words).toEqual({
      ...{ idle: "idle", loaded: "loaded", preserving: "preserving", barrier: "barrier" },
      ...{ registry: "committing", preparation: "committing", kernel: "committing" },
      ...{ aborting: "aborting", unclaimed: "restoring", retrieving: "restoring" },
      ...{ claimed: "restoring", finishing: "restoring" },
    });
  });

  test("at the barrier: who is waited for, and how long", () => {
    const status = describeStatus(lives.barrier().tell(events.ready).state, sources);
    expect(status.update).toEqual({
      ...{ id: "u1", dry_run: false, ready: 1, clients: 2, waiting_for: ["db"], left_ms: 700 },
    });
  });

  test("counts what came, and what the last update came to", () => {
    const count = (phase: Phase) => {
      const { unclaimed, claimed } = describeStatus(lives[phase]().state, sources);
      return [unclaimed, claimed];
    };
    expect(count("unclaimed")).toEqual([1, 0]);
    expect(count("claimed")).toEqual([0, 1]);
    const life = lives.preserving().tell(
      events["operator-aborts"],
      ...["vm", "db"].flatMap((session) => [
        { kind: "session-created" as const, session },
        { kind: "session-dropped" as const, session },
      ]),
    );
    const { last } = describeStatus(life.state, sources);
    expect(last).toEqual({ id: "u1", outcome: "aborted", detail: "said so" });
  });
});

describe("clients and sessions", () => {
  test("those of an update that are gone are shown with the others", () => {
    const life = lives.kernel().tell(events.disconnected);
    expect(summarizeClients(life.state).map(({ id, state }) => [id, state])).toEqual([
      ["db", "ready"],
      ["vm", "ready"],
    ]);
    expect(summarizeSessions(life.state, life.now)).toMatchObject([
      { name: "vm", client: "vm", direction: "outgoing", state: "ready", user: 107 },
      { name: "db", client: "db", direction: "outgoing", state: "ready", user: 70 },
      { name: "hostler", client: "(luod)", state: "open" },
    ]);
  });

  test("what came says when it would be finished", () => {
    const life = lives.claimed();
    life.unclaimedTime = 500;
    life.tell(events.disconnected);
    expect(summarizeSessions(life.state, life.now + 100)).toMatchObject([
      { name: "vm", direction: "incoming", state: "claimed", finish_in_ms: 400 },
    ]);
  });
});

describe("blackout", () => {
  const restoration = { bootedAt: 3_000, offeredAt: 3_800, claimedAt: 4_000 };

  test("has its parts, which are the whole", () => {
    expect(measureBlackout(times, restoration)).toEqual({
      ...{ update: "u1", clients: 2, barrier_ms: 400, commit_ms: 100, kexec_ms: 1_500 },
      ...{ boot_ms: 800, restore_ms: 200, total_ms: 3_000 },
    });
  });

  test("says what cannot be known, and nothing below zero", () => {
    const unknown = measureBlackout({ ...times, entered_at_ms: null }, restoration);
    expect(unknown).toMatchObject({ commit_ms: null, kexec_ms: null, total_ms: 3_000 });
    const unclaimed = measureBlackout(times, { ...restoration, claimedAt: undefined });
    expect(unclaimed).toMatchObject({ restore_ms: null, total_ms: 2_800 });
    const early = measureBlackout(times, { ...restoration, bootedAt: 900 });
    expect(early.kexec_ms).toBe(0);
  });

  test("is in the metrics, in seconds", () => {
    const blackout = measureBlackout({ ...times, entered_at_ms: null }, restoration);
    const { state } = lives.loaded();
    const status = describeStatus(state, { ...sources, blackout });
    expect(status.last).toMatchObject({ id: "u1", outcome: "entered" });
    const metrics = listMetrics(state, status, { updates: new Map([["aborted", 3]]), claims: 7 });
    for (const metric of metrics) v.parse(metricSchema, metric);
    const samplesOf = (end: string) => metrics.find(({ name }) => name.endsWith(end))?.samples;
    expect(samplesOf("blackout_seconds")).toEqual([
      { labels: { part: "barrier" }, value: 0.4 },
      { labels: { part: "boot" }, value: 0.8 },
      { labels: { part: "restore" }, value: 0.2 },
      { labels: { part: "total" }, value: 3 },
    ]);
    expect(samplesOf("updates_total")?.[0]).toEqual({ labels: { outcome: "aborted" }, value: 3 });
    expect(samplesOf("claims_total")).toEqual([{ labels: {}, value: 7 }]);
  });
});

describe("the registry", () => {
  const registry: Registry = {
    ...{ version: 1, ...times, entered_at_ms: null, left_out: ["gone"] },
    sessions: [{ name: "datenbank-süd-☃", id: "datenbank-süd-☃", part: "", user: 107 }],
  };

  test("keeps its size when the moment of the kexec is written into it", () => {
    const bytes = encodeRegistry(registry);
    const entered = encodeEntered({ ...registry, entered_at_ms: 1_790_000_000_000 }, bytes.length);
    expect(entered).toHaveLength(bytes.length);
    expect(decodeRegistry(entered ?? bytes)).toMatchObject({
      ...{ entered_at_ms: 1_790_000_000_000, sessions: registry.sessions, left_out: ["gone"] },
    });
    expect(encodeEntered(registry, 10)).toBeUndefined();
  });

  test("of another version, of none, and of another time is told apart", () => {
    const encode = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
    expect(decodeRegistry(encode({ ...registry, version: 2 }))).toEqual({
      problem: "version: expected 1, received 2",
    });
    expect(decodeRegistry(new Uint8Array([0xff]))).toEqual({
      problem: "expected JSON, received 1 other bytes",
    });
    const { left_out: _leftOut, ...older } = registry;
    expect(decodeRegistry(encode(older))).toMatchObject({ left_out: [] });
  });

  test("that is too large is refused", () => {
    const [session] = registry.sessions;
    if (session === undefined) throw new Error("unreachable");
    const sessions = Array.from({ length: 60_000 }, () => ({ ...session, part: "x".repeat(63) }));
    expect(() => encodeRegistry({ ...registry, sessions })).toThrow(/at most 8388608 bytes/);
  });
});
