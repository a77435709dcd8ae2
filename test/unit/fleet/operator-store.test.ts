/** An operator over its store: what is written, read back, lost, refused, and found again. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import * as v from "valibot";
import { permitsDevice } from "../../../src/fleet/operator/daemon.ts";
import { HappeningBook } from "../../../src/fleet/operator/event-book.ts";
import { noCounts } from "../../../src/fleet/operator/lifecycle.ts";
import { phaseOf } from "../../../src/fleet/operator/lifecycle-device.ts";
import { noPast } from "../../../src/fleet/operator/lifecycle-past.ts";
import { emptySlot, meant } from "../../../src/fleet/operator/lifecycle-slot.ts";
import {
  FleetOperator,
  FORMAT_AFTER,
  type OperatorParts,
} from "../../../src/fleet/operator/operator.ts";
import {
  fleetStoreBuckets,
  RecordRefused,
  readHeartbeatKey,
  rolloutCollection,
} from "../../../src/fleet/operator/records.ts";
import { whileActing } from "../../../src/fleet/operator/shared-operator.ts";
import {
  candidateKey,
  canonicalKey,
  type DeviceStatus,
  fleetBuckets,
  type Marker,
} from "../../../src/fleet/protocol.ts";
import { MemoryStore } from "../../../src/store/memory-store.ts";
import { type PutOptions, type Store, StoreError } from "../../../src/store/store.ts";
import { builds, heartbeatOf, hex, statusOf } from "../../support/fleet-operator/device-life.ts";
import { FleetLife, operatorSettings, specOf } from "../../support/fleet-operator/fleet-life.ts";
import { rejectionOf, waitFor } from "../../support/wait-for.ts";

setDefaultTimeout(60_000);

/** A store that a test may have fail, a clock that it turns, and a device that it plays. */
class World implements AsyncDisposable {
  readonly memory = new MemoryStore({ buckets: fleetStoreBuckets });
  readonly timers = new Set<{ readonly at: number; readonly call: () => void }>();
  readonly said: string[] = [];
  readonly operators: FleetOperator[] = [];
  now = 1_000_000;
  incarnation = "a".repeat(32);
  /** Before a write is done, and after it: whatever it throws is what the operator hears. */
  before: (bucket: string, key: string) => void = () => {};
  after: (bucket: string, key: string) => void = () => {};
  #sequence = 0;
  #writes = 0;

  readonly store: Store = new Proxy(this.memory, {
    get: (store, name) => {
      if (name !== "put") {
        const member: unknown = Reflect.get(store, name);
        return typeof member === "function" ? member.bind(store) : member;
      }
      return async (bucket: string, key: string, value: string, options: PutOptions) => {
        this.before(bucket, key);
        const revision = await store.put(bucket, key, value, options);
        this.after(bucket, key);
        return revision;
      };
    },
  });

  async open(change: Partial<OperatorParts> = {}): Promise<FleetOperator> {
    const log = (message: string) => void this.said.push(message);
    const operator = await FleetOperator.open({
      store: this.store,
      incarnation: this.incarnation,
      settings: operatorSettings,
      logger: { info: log, warn: log, debug: log },
      now: () => this.now,
      wall: () => this.now,
      wakeAfter: (wait, call) => {
        const timer = { at: this.now + wait, call };
        this.timers.add(timer);
        return { [Symbol.dispose]: () => this.timers.delete(timer) };
      },
      onWrite: () => {},
      onFailure: (failure) => {
        throw failure;
      },
      ...change,
    });
    this.operators.push(operator);
    return operator;
  }

  pass(time: number): void {
    this.now += time;
    for (const timer of [...this.timers]) {
      if (timer.at <= this.now && this.timers.delete(timer)) timer.call();
    }
  }

  async put(bucket: string, key: string, value: unknown): Promise<void> {
    this.#writes += 1;
    const text = typeof value === "string" ? value : JSON.stringify(value);
    await this.memory.put(bucket, key, text, { writeId: `device-${this.#writes}` });
  }

  async says(change: Partial<DeviceStatus> = {}): Promise<void> {
    this.#sequence += 1;
    await this.put(fleetBuckets.statuses, "box", statusOf({ step: this.#sequence, ...change }));
  }

  async beats(): Promise<void> {
    this.#sequence += 1;
    const heartbeat = heartbeatOf({ sequence: this.#sequence });
    await this.put(fleetBuckets.heartbeats, canonicalKey("box"), heartbeat);
  }

  async candidateBeats({ transaction, build }: Marker): Promise<void> {
    this.#sequence += 1;
    const own = { transaction, ...build, instance: hex("c", 32), sequence: this.#sequence };
    await this.put(fleetBuckets.heartbeats, candidateKey("box"), heartbeatOf(own));
  }

  async marker(): Promise<Marker | undefined> {
    const entry = await this.memory.get(fleetBuckets.markers, "box");
    return entry?.operation === "put" ? (JSON.parse(entry.value) as Marker) : undefined;
  }

  /** A marker that is as it should be. */
  async markerWith(what: string, is: (marker: Marker) => boolean): Promise<Marker> {
    return await waitFor(`a marker that ${what}`, async () => {
      const marker = await this.marker();
      return marker !== undefined && is(marker) ? marker : undefined;
    });
  }

  /** Told, and its candidate ready. */
  async ready(operator: FleetOperator): Promise<Marker> {
    await this.says();
    await this.beats();
    await heard(operator);
    await operator.post({ kind: "create", name: "spring", spec: specOf() }).written;
    this.pass(2_000);
    const marker = await this.markerWith("is there", () => true);
    const { transaction, build } = marker;
    const candidate = { ...build, instance: hex("c", 32) };
    await this.says({ transaction, phase: "cutover-ready", candidate });
    await inPhase(operator, "ready");
    return marker;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const operator of this.operators) await operator.stop();
  }
}

const inPhase = (operator: FleetOperator, phase: string) =>
  waitFor(`box is ${phase}`, () => {
    const device = operator.state.devices.get("box");
    return device !== undefined && phaseOf(device) === phase ? true : undefined;
  });

const heard = (operator: FleetOperator) =>
  waitFor("box is heard", () => {
    const device = operator.state.devices.get("box");
    return device?.status !== undefined && device.canonical !== undefined ? true : undefined;
  });

describe("an operator over its store", () => {
  test("commits what it has heard itself, and another one goes on from the store", async () => {
    await using world = new World();
    const operator = await world.open();
    const marker = await world.ready(operator);
    await world.candidateBeats(marker);
    await world.markerWith("was observed", ({ observed }) => observed !== null);
    await operator.stop();
    // What it heard is gone with it: the next one hears anew.
    const next = await world.open();
    await inPhase(next, "observed");
    expect(next.state.rollouts.size).toBe(1);
    world.pass(operatorSettings.probation);
    await world.candidateBeats(marker);
    await waitFor("it is heard", () => next.state.devices.get("box")?.candidate);
    expect((await world.marker())?.commit).toBeNull();
    world.pass(operatorSettings.probation);
    await world.candidateBeats(marker);
    const { commit } = await world.markerWith("is committed", (one) => one.commit !== null);
    expect(commit).toEqual({ transaction: marker.transaction, instance: hex("c", 32) });
  });

  test("an answer that is lost is read back: one effect", async () => {
    await using world = new World();
    const operator = await world.open();
    const marker = await world.ready(operator);
    let lost = 0;
    world.after = (bucket) => {
      if (bucket !== fleetBuckets.markers || lost > 0) return;
      lost += 1;
      throw new StoreError("No answer", { kind: "ambiguous" });
    };
    await world.candidateBeats(marker);
    await world.markerWith("was observed", ({ observed }) => observed !== null);
    await waitFor("it waits to read back", () => (lost === 1 ? true : undefined));
    const revision = (await world.memory.get(fleetBuckets.markers, "box"))?.revision;
    await waitFor("it knows", () => {
      world.pass(100);
      const slot = operator.state.devices.get("box")?.marker;
      return slot?.pending === undefined ? true : undefined;
    });
    expect(operator.state.devices.get("box")?.marker.revision).toBe(revision ?? 0);
  });

  test("another operator's write counts, and is not written over", async () => {
    await using world = new World();
    const operator = await world.open();
    const marker = await world.ready(operator);
    const theirs = { ...marker, withdrawn: { reason: "another one says so" } };
    await world.put(fleetBuckets.markers, "box", theirs);
    await world.candidateBeats(marker);
    await inPhase(operator, "withdrawn");
    expect(await world.marker()).toEqual(theirs);
  });

  test("another operator's late marker is taken up when its device tells it", async () => {
    await using world = new World();
    const operator = await world.open();
    const marker = await world.ready(operator);
    const theirs = { ...marker, transaction: hex("f", 32) };
    await world.put(fleetBuckets.markers, "box", theirs);
    expect(meant(operator.state.devices.get("box")?.marker ?? emptySlot)).toEqual(marker);
    await world.says({ transaction: theirs.transaction, phase: "staging" });
    await waitFor("it is taken up", () => {
      const slot = operator.state.devices.get("box")?.marker;
      return slot && meant(slot)?.transaction === theirs.transaction ? true : undefined;
    });
    expect(await world.marker()).toEqual(theirs);
  });

  test("one that acts no more writes nothing", async () => {
    await using world = new World();
    let isActing = true;
    const store = whileActing(world.store, () => isActing);
    const operator = await world.open({ store });
    isActing = false;
    const { written } = operator.post({ kind: "create", name: "spring", spec: specOf() });
    await operator.stop();
    expect((await rejectionOf(written)).message).toContain("this operator does not act");
    expect(await world.memory.get(fleetBuckets.rollouts, "spring")).toBeUndefined();
  });

  test("rollouts of the version before are read, and written so for a while", async () => {
    await using world = new World();
    const record = new FleetLife().begin("spring").record("spring");
    const { changes: _changes, forgivenHosts: _hosts, ...rest } = record;
    const { hindered: _hindered, ...counts } = noCounts;
    const { hindered: _none, ...unnamed } = noPast.unnamed;
    const before = { ...rest, result: counts, past: { named: [], unnamed } };
    await world.put("meta", `collection.${fleetBuckets.rollouts}`, { version: 2 });
    await world.put(fleetBuckets.rollouts, "spring", { version: 2, value: before });
    const operator = await world.open();
    const versionOf = async () => {
      const { value = "{}" } = (await world.memory.get(fleetBuckets.rollouts, "spring")) ?? {};
      return (JSON.parse(value) as { readonly version: number }).version;
    };
    world.pass(FORMAT_AFTER - 1);
    await operator.post({ kind: "pause", rollout: "spring", reason: "a look" }).written;
    expect(await versionOf()).toBe(2);
    world.pass(1);
    await operator.post({ kind: "resume", rollout: "spring", retry: false }).written;
    expect(await versionOf()).toBe(3);
    await operator.stop();
    const next = await world.open();
    const spring = next.state.rollouts.get("spring");
    expect(spring && meant(spring.record)).toMatchObject({ phase: "running", past: noPast });
  });

  test("whose host could not has failed, to an operator of the version before", () => {
    const { up, down } = rolloutCollection.former ?? {};
    const named = [{ device: "box", standing: "hindered", reason: "no room", by: null }] as const;
    const record = {
      ...new FleetLife().begin("spring").record("spring"),
      ...{ forgiven: 1, forgivenHosts: 2, result: { ...noCounts, failed: 1, hindered: 2 } },
      past: { named, unnamed: { ...noPast.unnamed, failed: 1, hindered: 3 } },
    };
    const former = down?.(record);
    expect(former).toMatchObject({ forgiven: 3, result: { failed: 3 } });
    expect(former?.past).toEqual({
      named: [{ ...named[0], standing: "failed" }],
      unnamed: { done: 0, failed: 4, superseded: 0 },
    });
    expect(former && v.is(rolloutCollection.former?.schema as v.GenericSchema, former)).toBe(true);
    const back = former && up?.(former);
    expect(back).toMatchObject({
      forgiven: 3,
      forgivenHosts: 0,
      result: { failed: 3, hindered: 0 },
    });
    expect(back && v.is(rolloutCollection.schema, back)).toBe(true);
  });

  test("a store without room: it is said, and tried again", async () => {
    await using world = new World();
    const operator = await world.open();
    let isFull = true;
    world.before = (bucket) => {
      if (bucket === fleetBuckets.rollouts && isFull) {
        throw new StoreError("No room", { kind: "full" });
      }
    };
    const { written } = operator.post({ kind: "create", name: "spring", spec: specOf() });
    expect((await rejectionOf(written)).message).toBe("No room");
    expect(world.said.join("\n")).toContain("it is tried again");
    isFull = false;
    world.pass(5_000);
    await waitFor(
      "it is written",
      async () => (await world.memory.get(fleetBuckets.rollouts, "spring"))?.operation,
    );
    expect(operator.post({ kind: "create", name: "spring", spec: specOf() }).refusal).toBeDefined();
  });

  test("a store that was put back: it settles first, once", async () => {
    await using world = new World();
    await (await world.open()).stop();
    world.incarnation = "b".repeat(32);
    const operator = await world.open();
    expect(operator.state.settlesAt).toBe(world.now + operatorSettings.settle);
    await operator.stop();
    expect((await world.open()).state.settlesAt).toBeUndefined();
  });

  test("what devices say and is not understood is told; they are given nothing", async () => {
    await using world = new World();
    const operator = await world.open();
    const trouble = (text: string) =>
      waitFor(`trouble with ${text}`, () => {
        const { trouble: said } = operator.state.devices.get("box") ?? {};
        return said?.includes(text) === true ? said : undefined;
      });
    await world.put(fleetBuckets.statuses, "box", "noise");
    await trouble("JSON");
    await world.put(fleetBuckets.statuses, "box", { ...statusOf(), phase: "transcending" });
    await trouble("phase");
    await world.put(fleetBuckets.statuses, "box", { ...statusOf(), protocol: 2 });
    await trouble("protocol");
    await world.put(fleetBuckets.heartbeats, canonicalKey("box"), heartbeatOf({ sequence: -1 }));
    await trouble("sequence");
    await world.beats();
    await operator.post({ kind: "create", name: "spring", spec: specOf() }).written;
    world.pass(20_000);
    expect(await world.marker()).toBeUndefined();
    expect(operator.state.rollouts.get("spring")?.counts?.unfit).toBe(1);
  });

  test("own records of another version are left as they are, and it does not start", async () => {
    await using world = new World();
    await world.put(fleetBuckets.markers, "box", { protocol: 2, from: "the future" });
    const refused = await rejectionOf(world.open());
    expect(refused).toBeInstanceOf(RecordRefused);
    expect(refused.message).toContain("agent-upgrade/box");
    await using other = new World();
    await (await other.open()).stop();
    await other.put(fleetBuckets.rollouts, "spring", { version: 9, value: {} });
    expect((await rejectionOf(other.open())).message).toContain("version 9");
  });

  test("a device that is forgotten is gone from the store, and known when it speaks", async () => {
    await using world = new World();
    const operator = await world.open();
    await world.says({ current: builds.old });
    await world.beats();
    await heard(operator);
    await operator.post({ kind: "label", device: "box", labels: { site: "lab" } }).written;
    world.pass(operatorSettings.lostAfter + 1_000);
    const { refusal, written } = operator.post({ kind: "forget", device: "box" });
    expect(refusal).toBeUndefined();
    await written;
    for (const bucket of [fleetBuckets.statuses, fleetBuckets.labels]) {
      expect((await world.memory.get(bucket, "box"))?.operation).toBe("delete");
    }
    expect(operator.state.devices.size).toBe(0);
    await world.says();
    await waitFor("it is known", () => operator.state.devices.get("box"));
  });
});

describe("after a restart", () => {
  test("what was so before is no event, and what comes then is one", async () => {
    await using world = new World();
    const first = await world.open();
    const { transaction, build } = await world.ready(first);
    await first.stop();
    await world.says({ transaction, phase: "done", current: build });
    const second = await world.open();
    await inPhase(second, "done");
    await world.beats();
    await heard(second);
    const before = first.book.after(undefined);
    expect(before.map(({ data: { what } }) => what)).toContain("rollout-created");
    expect(second.book.after(undefined)).toEqual(before);
    const news = () => second.book.after(before.at(-1)?.id).map(({ data: { what } }) => what);
    expect(news()).toEqual([]);
    await world.says({ transaction, phase: "rolled-back", reason: "exited with 1" });
    await inPhase(second, "failed");
    await world.put(fleetBuckets.statuses, "other", statusOf());
    await waitFor("it is known", () => second.state.devices.get("other"));
    expect(news()).toContain("failed");
    expect(news()).toContain("device-new");
  });
});

describe("what happened is kept", () => {
  const happening = (message: string) => ({
    ...{ what: "done", device: "box", rollout: null, message, time: 0 },
  });

  test("so many, and after an id; of another process all", () => {
    const book = new HappeningBook("run", { limit: 3 });
    for (let count = 1; count <= 8; count += 1) book.add(happening(String(count)));
    const told = (id?: string) => book.after(id).map(({ data }) => data.message);
    expect(told()).toEqual(["6", "7", "8"]);
    expect(told("run-7")).toEqual(["8"]);
    expect(told("run-8")).toEqual([]);
    for (const id of ["other-7", "run-9", "run", "7", ""]) {
      expect(told(id)).toEqual(["6", "7", "8"]);
    }
    expect([book.last, new HappeningBook("new").last]).toEqual(["run-8", "new-0"]);
  });

  test("whoever follows hears what was kept, then what comes, until it ends", async () => {
    const book = new HappeningBook("run");
    book.add(happening("one"));
    const stop = new AbortController();
    const told: string[] = [];
    const following = (async () => {
      for await (const { id, data } of book.follow(undefined, stop.signal)) {
        told.push(`${id} ${data.message}`);
        if (told.length === 1) book.add(happening("two"));
        if (told.length === 2) stop.abort();
      }
    })();
    await following;
    expect(told).toEqual(["run-1 one", "run-2 two"]);
  });
});

test("a device may read its marker, and write its own status and heartbeats alone", () => {
  const host = { kind: "host", name: "box", session: "s" } as const;
  const may = (operation: "get" | "put" | "delete" | "watch", bucket: string, place: string) =>
    permitsDevice(host, { operation, bucket, place });
  expect(may("get", fleetBuckets.markers, "box")).toBe(true);
  expect(may("watch", fleetBuckets.markers, "box")).toBe(true);
  expect(may("put", fleetBuckets.markers, "box")).toBe(false);
  expect(may("watch", fleetBuckets.markers, "")).toBe(false);
  expect(may("watch", fleetBuckets.markers, "box.")).toBe(false);
  expect(may("put", fleetBuckets.statuses, "box")).toBe(true);
  expect(may("put", fleetBuckets.statuses, "other")).toBe(false);
  expect(may("delete", fleetBuckets.statuses, "box")).toBe(false);
  expect(may("put", fleetBuckets.heartbeats, "box.canonical")).toBe(true);
  expect(may("put", fleetBuckets.heartbeats, "box.candidate")).toBe(true);
  expect(may("put", fleetBuckets.heartbeats, "box.other")).toBe(false);
  expect(may("get", fleetBuckets.rollouts, "box")).toBe(false);
  const operator = { kind: "operator", name: "o", role: "admin", special: [] } as const;
  const asked = { operation: "get", bucket: fleetBuckets.markers, place: "box" } as const;
  expect(permitsDevice(operator, asked)).toBe(false);
});

test("a heartbeat's key says whose it is, whatever a device is called", () => {
  expect(readHeartbeatKey("a.candidate.canonical")).toEqual({
    device: "a.candidate",
    who: "canonical",
  });
  expect(readHeartbeatKey("candidate")).toBeUndefined();
  expect(readHeartbeatKey("a.other")).toBeUndefined();
});
