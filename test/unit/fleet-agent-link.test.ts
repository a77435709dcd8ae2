/** What a device says to the store, and hears of it: heartbeats, its status, its marker. */
import { describe, expect, test } from "bun:test";
import { DeviceLink, HeartbeatLink } from "../../src/fleet/device-link.ts";
import {
  type DeviceStatus,
  fleetBuckets,
  fleetLimits,
  HEARTBEAT_EVERY,
  type Marker,
} from "../../src/fleet/protocol.ts";
import { MOST_MARKER, readHeartbeat, readMarker } from "../../src/fleet/protocol-read.ts";
import { MemoryStore } from "../../src/store/memory-store.ts";
import {
  type Store,
  StoreError,
  type StoreProblem,
  type WatchEvent,
} from "../../src/store/store.ts";
import { falseTimers } from "../support/false-timers.ts";
import {
  bootOne,
  instanceOf,
  makeMarker,
  newBuild,
  oldBuild,
} from "../support/fleet-agent/life.ts";
import { waitFor } from "../support/wait-for.ts";

const usual = { age: "forever", size: 1024 ** 2, expendable: false } as const;
const buckets = Object.values(fleetBuckets).map((name) => {
  return { name, ...usual, volatile: name === fleetBuckets.heartbeats };
});

const beat = {
  ...{ instance: instanceOf(1), ...oldBuild, transaction: null, boot: bootOne },
  roles: [{ role: "agent", digest: oldBuild.digest, healthy: true, reason: null }],
};

const statusAt = (step: number): DeviceStatus => ({
  ...{ protocol: 1, transaction: null, phase: "idle", reason: null, current: oldBuild },
  ...{ previous: null, candidate: null, progress: null, last_words: null, step, boot: bootOne },
  ...{ architecture: "x64", libc: "glibc", floor: null, executor: "systemd" },
});

/** A memory store whose next calls can be made to fail. */
class Troubled {
  readonly inner = new MemoryStore({ buckets });
  readonly failures: StoreProblem[] = [];
  /** The write is done, and its answer lost. */
  isLanding = false;
  puts = 0;
  readonly store: Store = new Proxy(this.inner, {
    get: (inner, name) => {
      if (name === "put") return this.#put;
      if (name === "watch" && this.events !== undefined) return this.#watch;
      const value = Reflect.get(inner, name) as unknown;
      return typeof value === "function" ? value.bind(inner) : value;
    },
  });
  events: readonly WatchEvent[] | undefined;

  readonly #put: Store["put"] = async (bucket, key, value, options) => {
    this.puts += 1;
    const problem = this.failures.shift();
    if (problem === undefined) return await this.inner.put(bucket, key, value, options);
    if (this.isLanding) await this.inner.put(bucket, key, value, options);
    throw new StoreError("a test", problem);
  };

  readonly #watch: Store["watch"] = async function* (this: Troubled, bucket: string) {
    if (bucket === fleetBuckets.markers) yield* this.events ?? [];
  }.bind(this);

  async read(bucket: string, key: string): Promise<unknown> {
    const entry = await this.inner.get(bucket, key);
    return entry === undefined ? undefined : JSON.parse(entry.value);
  }
}

function open(troubled: Troubled) {
  const timers = falseTimers();
  const heard: string[] = [];
  const markers: Marker[] = [];
  const troubles: string[] = [];
  const parts = {
    ...{ store: troubled.store, loop: timers.loop, device: "rack-1" },
    heartbeat: () => beat,
    onHeard: () => heard.push("self"),
    onTrouble: (message: string) => troubles.push(message),
    onMarker: (marker: Marker) => markers.push(marker),
    onCandidateHeard: (instance: string) => heard.push(instance),
  };
  return { timers, heard, markers, troubles, parts };
}

const putMarker = (troubled: Troubled, value: string, writeId = "m1") =>
  troubled.inner.put(fleetBuckets.markers, "rack-1", value, { writeId });

describe("heartbeats", () => {
  test("one at once, and one every ten seconds, with a number of its own", async () => {
    const troubled = new Troubled();
    const { parts, timers, heard } = open(troubled);
    using _link = new HeartbeatLink(parts, "canonical");
    await waitFor("the first", () => heard.length === 1);
    timers.advance(HEARTBEAT_EVERY - 1);
    expect(troubled.puts).toBe(1);
    timers.advance(1);
    await waitFor("the second", () => heard.length === 2);
    const read = await troubled.read(fleetBuckets.heartbeats, "rack-1.canonical");
    expect(readHeartbeat(JSON.stringify(read))).toEqual({
      ...{ kind: "ok", value: { ...beat, protocol: 1, sequence: 2 } },
    });
  });

  test("come more often from when that is asked for, and at once", async () => {
    const troubled = new Troubled();
    const { parts, timers, heard } = open(troubled);
    using link = new HeartbeatLink(parts, "canonical");
    await waitFor("the first", () => heard.length === 1);
    link.beatEvery(HEARTBEAT_EVERY);
    expect(troubled.puts).toBe(1);
    link.beatEvery(2_000);
    await waitFor("the second", () => heard.length === 2);
    timers.advance(1_999);
    expect(troubled.puts).toBe(2);
    timers.advance(1);
    await waitFor("the third", () => heard.length === 3);
    link.beatEvery(HEARTBEAT_EVERY);
    await waitFor("the fourth", () => heard.length === 4);
    expect(timers.waiting).toBe(1);
  });

  test("a candidate's stand beside, and end with it", async () => {
    const troubled = new Troubled();
    const { parts, timers, heard } = open(troubled);
    const link = new HeartbeatLink(parts, "candidate");
    await waitFor("the first", () => heard.length === 1);
    expect(await troubled.read(fleetBuckets.heartbeats, "rack-1.candidate")).toMatchObject(beat);
    link[Symbol.dispose]();
    expect(timers.waiting).toBe(0);
  });

  test("one that the store does not take is not heard, and the next one is sent", async () => {
    const troubled = new Troubled();
    const { parts, timers, heard, troubles } = open(troubled);
    troubled.failures.push({ kind: "unavailable" }, { kind: "ambiguous" }, { kind: "denied" });
    using _link = new HeartbeatLink(parts, "canonical");
    await waitFor("the fourth", () => {
      timers.advance(HEARTBEAT_EVERY);
      return heard.length === 1;
    });
    // A store that is away is told by what is not heard alone.
    expect(troubles).toEqual(["a heartbeat was refused, ignoring"]);
  });
});

describe("the status", () => {
  test("comes into the store whatever becomes of a try, and the newest last", async () => {
    const troubled = new Troubled();
    const { parts, timers, heard } = open(troubled);
    using link = new DeviceLink(parts);
    await waitFor("the heartbeat", () => heard.length === 1);
    troubled.isLanding = true;
    troubled.failures.push({ kind: "ambiguous" });
    const before = troubled.puts;
    link.tellStatus(statusAt(1));
    link.tellStatus(statusAt(2));
    link.tellStatus(statusAt(3));
    const read = () => troubled.read(fleetBuckets.statuses, "rack-1");
    await waitFor("the last one", async () => {
      timers.advance(50);
      return ((await read()) as { step: number } | undefined)?.step === 3;
    });
    // The first landed at once, and was read back; the second never was written.
    expect(troubled.puts - before).toBe(2);
  });

  test("that is refused is told with the next one", async () => {
    const troubled = new Troubled();
    const { parts, heard, troubles } = open(troubled);
    using link = new DeviceLink(parts);
    await waitFor("the heartbeat", () => heard.length === 1);
    troubled.failures.push({ kind: "denied" });
    link.tellStatus(statusAt(1));
    await waitFor("the refusal", () => troubles.length === 1);
    link.tellStatus(statusAt(2));
    const read = () => troubled.read(fleetBuckets.statuses, "rack-1");
    await waitFor("it", async () => (await read()) !== undefined);
    expect(await read()).toMatchObject({ step: 2 });
  });

  test("is told again to a store that went back", async () => {
    const troubled = new Troubled();
    const { parts, timers } = open(troubled);
    troubled.events = [];
    using link = new DeviceLink(parts);
    link.tellStatus(statusAt(4));
    const read = () => troubled.read(fleetBuckets.statuses, "rack-1");
    await waitFor("it", async () => (await read()) !== undefined);
    const options = { writeId: "backup" };
    const old = JSON.stringify(statusAt(1));
    await troubled.inner.put(fleetBuckets.statuses, "rack-1", old, options);
    troubled.events = [{ kind: "reset" }];
    await waitFor("it again", async () => {
      timers.advance(30_000);
      return ((await read()) as { step: number }).step === 4;
    });
  });
});

describe("the marker", () => {
  test("that is there, and each that comes", async () => {
    const troubled = new Troubled();
    const { parts, markers } = open(troubled);
    await putMarker(troubled, JSON.stringify(makeMarker(1)));
    using link = new DeviceLink(parts);
    link.tellStatus(statusAt(1));
    await waitFor("both writes", () => troubled.puts === 2);
    await waitFor("the first", () => markers.length === 1);
    await putMarker(troubled, JSON.stringify(makeMarker(2)), "m2");
    await waitFor("the second", () => markers.length === 2);
    // A heartbeat and a status: a marker is no reason to tell either again.
    expect(troubled.puts).toBe(2);
    expect(markers).toEqual([makeMarker(1), makeMarker(2)]);
    await troubled.inner.delete(fleetBuckets.markers, "rack-1", { writeId: "m3" });
    await putMarker(troubled, JSON.stringify(makeMarker(3)), "m4");
    await waitFor("the third", () => markers.length === 3);
  });

  test("that is not understood is left alone, and the next one is heard", async () => {
    const troubled = new Troubled();
    const { parts, markers, troubles } = open(troubled);
    using _link = new DeviceLink(parts);
    await putMarker(troubled, "nonsense");
    await waitFor("the refusal", () => troubles.length === 1);
    expect(troubles[0]).toContain("expected JSON");
    await putMarker(troubled, JSON.stringify(makeMarker(1)), "m2");
    await waitFor("the marker", () => markers.length === 1);
  });

  test.each([
    ["no object", "7", "received none"],
    ["of a later protocol", JSON.stringify({ ...makeMarker(), protocol: 2 }), "2, of another"],
    ["with a key too many", JSON.stringify({ ...makeMarker(), more: 1 }), "never at more"],
    ["without sources", JSON.stringify({ ...makeMarker(), sources: [] }), "at sources"],
    [
      "with a manifest that is too long",
      JSON.stringify({ ...makeMarker(), manifest: "x".repeat(fleetLimits.manifestBytes + 1) }),
      "at manifest",
    ],
    ["of a gigabyte", "x".repeat(MOST_MARKER + 1), `at most ${MOST_MARKER}`],
  ])("%s is refused", (_name, text, reason) => {
    const read = readMarker(text);
    expect(read.kind).toBe("refused");
    expect(read.kind === "refused" ? read.reason : "").toContain(reason);
  });
});

describe("the candidate's heartbeats", () => {
  const put = (troubled: Troubled, writeId: string, value: string) =>
    troubled.inner.put(fleetBuckets.heartbeats, "rack-1.candidate", value, { writeId });
  const candidate = (sequence: number) =>
    JSON.stringify({
      ...{ ...beat, ...newBuild, instance: instanceOf(2), protocol: 1, sequence },
    });

  test("are heard from now on; one that was there before says nothing", async () => {
    const troubled = new Troubled();
    const { parts, heard, troubles } = open(troubled);
    await put(troubled, "c1", candidate(1));
    using _link = new DeviceLink(parts);
    await waitFor("its own", () => heard.length === 1);
    await put(troubled, "c2", "nonsense");
    await waitFor("the refusal", () => troubles.length === 1);
    await put(troubled, "c3", candidate(2));
    await waitFor("the second", () => heard.length === 2);
    expect(heard).toEqual(["self", instanceOf(2)]);
  });
});
