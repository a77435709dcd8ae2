/** A master over its store: what is written counts, what cannot be written was not decided. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { measureReconcile } from "../../scripts/bench/vm-reconcile.ts";
import { MemoryStore } from "../../src/store/memory-store.ts";
import { StoreError } from "../../src/store/store.ts";
import { readWitness } from "../../src/store/term/witness.ts";
import { assignmentOf, statusOf } from "../../src/vm/master/lifecycle-view.ts";
import { ClusterMaster, type MasterParts } from "../../src/vm/master/master.ts";
import { masterBucket, RecordRefused } from "../../src/vm/master/records.ts";
import { witnessPlace } from "../../src/vm/master/shared-master.ts";
import { declare, machine, reported, reportOf, settings } from "../support/vm-master/reports.ts";
import { rejectionOf } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

/** A store whose writes a test can refuse. */
class World {
  readonly store = new MemoryStore({ buckets: [masterBucket] });
  readonly keys: string[] = [];
  readonly timers: (() => void)[] = [];
  refuses: (key: string) => boolean = () => false;
  incarnation = "a".repeat(32);
  now = 1_000;

  async open(change: Partial<MasterParts> = {}): Promise<ClusterMaster> {
    const check = (key: string) => {
      if (this.refuses(key)) throw new StoreError("No room", { kind: "full" });
      this.keys.push(key);
    };
    return await ClusterMaster.open({
      store: {
        watch: (bucket, pattern) => this.store.watch(bucket, pattern),
        put: async (bucket, key, value, options) => {
          check(key);
          return await this.store.put(bucket, key, value, options);
        },
        delete: async (bucket, key, options) => {
          check(key);
          return await this.store.delete(bucket, key, options);
        },
      },
      incarnation: this.incarnation,
      settings,
      logger: { info: () => {}, warn: () => {} },
      now: () => this.now,
      wakeAfter: (_wait, call) => {
        this.timers.push(call);
        return { [Symbol.dispose]: () => this.timers.splice(this.timers.indexOf(call), 1) };
      },
      runHook: () => Promise.resolve(undefined),
      onWrite: () => {},
      record: () => Promise.resolve(),
      onFailure: (failure) => {
        throw failure;
      },
      ...change,
    });
  }
}

const report = (master: ClusterMaster, worker: string, change = {}) =>
  master.post({ kind: "report", worker, report: reportOf(change) });

const movable = { placement: { movable: true } };

const percent = (master: ClusterMaster) =>
  statusOf(master.state, { now: master.now(), hasHook: false }).convergence_percent;

test("1,000 machines on simulated workers: a second look writes nothing", async () => {
  const found = await measureReconcile();
  expect(found.convergencePercent).toBe(100);
  expect(found.secondWrites).toBe(0);
  // One for each worker, beside the declaration and the reservation.
  expect(found.firstWrites).toBeLessThan(3 * found.workers);
}, 60_000);

test("what is written is read again, in parts, whatever its size", async () => {
  const world = new World();
  const master = await world.open();
  await report(master, "a");
  const cmdline = "x".repeat(2_000);
  const many = Array.from({ length: 900 }, (_value, index) => machine(`m${index}`, { cmdline }));
  await master.post(declare(many));
  expect(world.keys.filter((key) => key.startsWith("desired.")).length).toBeGreaterThan(5);
  await master.stop();
  const next = await world.open();
  expect([...next.state.desired.machines.keys()]).toEqual(many.map(({ name }) => name));
  expect(next.state.placed).toEqual(master.state.placed);
  await next.post(declare([machine("m0")]));
  await next.stop();
  const last = await world.open();
  expect([...last.state.desired.machines.keys()]).toEqual(["m0"]);
});

test("a declaration that finds no room changes nothing", async () => {
  const world = new World();
  const master = await world.open();
  await report(master, "a");
  await master.post(declare([machine("one")]));
  world.refuses = (key) => key === "current";
  expect(await rejectionOf(master.post(declare([machine("two")])))).toBeInstanceOf(StoreError);
  expect([...master.state.desired.machines.keys()]).toEqual(["one"]);
  world.refuses = () => false;
  await master.post(declare([machine("two")]));
  expect([...master.state.desired.machines.keys()]).toEqual(["two"]);
});

test("one counts whose machines cannot be given; they are when there is room", async () => {
  const world = new World();
  const master = await world.open();
  await report(master, "a");
  await report(master, "b");
  world.refuses = (key) => key.startsWith("worker.") || key === "numbers";
  await master.post(declare([machine("one")]));
  expect(master.state.desired.generation).toBe(1);
  expect(master.state.placed.size).toBe(0);
  world.refuses = () => false;
  world.timers.at(-1)?.();
  await master.post({ kind: "time" });
  expect(master.state.placed.size).toBe(1);
  expect(assignmentOf(master.state, "a").machines.length).toBe(1);
});

test("a report that was not written was not heard", async () => {
  const world = new World();
  const master = await world.open();
  world.refuses = (key) => key === "worker.a";
  expect(await rejectionOf(report(master, "a"))).toBeInstanceOf(StoreError);
  expect(master.state.workers.size).toBe(0);
  world.refuses = () => false;
  await report(master, "a");
  expect(master.state.workers.size).toBe(1);
});

test("one whose writes find no room is a sign of life all the same", async () => {
  const world = new World();
  const hooks: string[] = [];
  const master = await world.open({
    settings: { ...settings, hasHook: true },
    runHook: async ({ worker }) => {
      hooks.push(worker);
      return await Promise.resolve(undefined);
    },
  });
  await report(master, "a");
  await report(master, "b");
  await master.post(declare(["one", "two"].map((name) => machine(name, movable))));
  world.refuses = () => true;
  for (let beat = 1; beat <= 20; beat += 1) {
    world.now += 5_000;
    await report(master, "b");
    // What is found on it is to be noted, and finds no room.
    const found = { machines: [reported("other", 7)] };
    expect(await rejectionOf(report(master, "a", found))).toBeInstanceOf(StoreError);
  }
  expect(master.state.workers.get("a")?.standing).toBe("healthy");
  expect(hooks).toEqual([]);
});

test("owner generations are higher after every restart, and after a restored backup", async () => {
  const world = new World();
  const owners: number[] = [];
  for (const name of ["one", "two", "three"]) {
    const master = await world.open();
    await report(master, "a");
    await master.post(declare([machine(name)]));
    owners.push(master.state.workers.get("a")?.record.machines[name]?.owner_generation ?? 0);
    const { incarnation, generation, revision } = assignmentOf(master.state, "a");
    await report(master, "a", { observed: { incarnation, generation, revision } });
    await master.stop();
  }
  expect(owners).toEqual(owners.toSorted((left, right) => left - right));
  expect(new Set(owners).size).toBe(3);
  world.incarnation = "b".repeat(32);
  const restored = await world.open();
  expect(restored.state.isRestored).toBe(true);
  // What is not sure yet is told to nobody.
  const asked = { lastSeen: null, wait: 0, signal: new AbortController().signal };
  expect((await restored.assignment("a", asked)).kind).toBe("unchanged");
  const held = [reported("three", owners[2] ?? 0)];
  expect((await report(restored, "a", { machines: held })).answer?.kind).toBe("heard");
  world.now += settings.lostAfter;
  expect((await report(restored, "a", { machines: held })).answer?.kind).toBe("heard");
  expect(restored.state.isRestored).toBe(false);
  expect((await restored.assignment("a", asked)).kind).toBe("assignment");
  expect(percent(restored)).toBe(0);
});

test("an older backup is made good before it counts as such", async () => {
  const world = new World();
  const master = await world.open();
  await report(master, "a");
  await master.post(declare([machine("one")]));
  const old = master.state.workers.get("a")?.record.machines["one"]?.owner_generation ?? 0;
  await master.stop();
  world.incarnation = "b".repeat(32);
  const restored = await world.open();
  await report(restored, "a");
  // As when it is killed before the reservation: all else is done by then.
  world.refuses = (key) => key === "numbers";
  world.now += settings.lostAfter;
  await report(restored, "a");
  expect(restored.state.isRestored).toBe(true);
  const kept = (await world.store.get(masterBucket.name, "worker.a"))?.value ?? "{}";
  expect(JSON.parse(kept)).toMatchObject({ machines: {}, released: { one: old } });
  world.refuses = () => false;
  await restored.post({ kind: "place" });
  await restored.post({ kind: "time" });
  const owner = restored.state.workers.get("a")?.record.machines["one"]?.owner_generation;
  expect(owner).toBeGreaterThan(old);
});

test("a record of another version is told, and left as it is", async () => {
  const world = new World();
  const foreign = JSON.stringify({ version: 2 });
  await world.store.put(masterBucket.name, "worker.a", foreign, { writeId: "w1" });
  const refusal = await rejectionOf(world.open());
  expect(refusal).toBeInstanceOf(RecordRefused);
  expect(refusal.message).toContain("worker.a");
  expect((await world.store.get(masterBucket.name, "worker.a"))?.value).toBe(foreign);
});

test("how far a host has seen is understood as older masters have noted it, too", async () => {
  const store = new MemoryStore({ buckets: [masterBucket] });
  expect(await readWitness(store, witnessPlace)).toBeUndefined();
  for (const noted of [{ incarnation: "i".repeat(32), position: 7 }, { position: 8 }]) {
    const options = { writeId: `${noted.position}`.padStart(32, "0") };
    await store.put(masterBucket.name, "shared-witness", JSON.stringify(noted), options);
    expect(await readWitness(store, witnessPlace)).toEqual({ position: noted.position });
  }
});
