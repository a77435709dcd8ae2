/**
 * How long a cluster of simulated workers takes from `apply` of so many machines to all of them
 * reported as declared, over the master's own store on a disk; and what a second look writes. The
 * workers decide by the worker's own reconciler, and make what they decided at once.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { machineClocks } from "../../src/store/clocks.ts";
import { EmbeddedStore } from "../../src/store/embedded-store.ts";
import { statusOf } from "../../src/vm/master/lifecycle-view.ts";
import { ClusterMaster, type MasterStore } from "../../src/vm/master/master.ts";
import { masterBucket } from "../../src/vm/master/records.ts";
import type {
  Assignment,
  ClusterRequest,
  Report,
  ReportedMachine,
} from "../../src/vm/protocol-master.ts";
import { type ObservedMachine, reconcile } from "../../src/vm/reconcile.ts";

export interface ReconcileFindings {
  readonly machines: number;
  readonly workers: number;
  /** From `apply` to all as declared. */
  readonly firstMilliseconds: number;
  readonly firstWrites: number;
  /** Every worker asks, reconciles and reports once more, and the master looks at all. */
  readonly secondMilliseconds: number;
  readonly secondWrites: number;
  readonly convergencePercent: number;
}

const MEBIBYTE = 1024 * 1024;
const settings = {
  ...{ silentAfter: 15_000, lostAfter: 60_000, hasHook: false },
  ...{ hookRetry: 30_000, longestHookRetry: 600_000 },
};

export async function measureReconcile(
  options: { readonly machines?: number; readonly workers?: number } = {},
): Promise<ReconcileFindings> {
  const { machines = 1_000, workers: count = 10 } = options;
  const folder = mkdtempSync(join(tmpdir(), "hostler-vm-reconcile-"));
  await using owned = new AsyncDisposableStack();
  owned.defer(() => rmSync(folder, { recursive: true, force: true }));
  const store = owned.use(
    EmbeddedStore.open({
      folder: join(folder, "store"),
      buckets: [masterBucket],
      clocks: machineClocks,
    }),
  );
  const writes = { count: 0 };
  const master = await openMaster(store, writes);
  owned.defer(() => master.stop());
  const workers = Array.from({ length: count }, (_value, index) => new Worker(`w${index}`));
  for (const worker of workers) await worker.pass(master);
  const from = { time: performance.now(), writes: writes.count };
  await master.post({ kind: "apply", desired: declare(machines), expectGeneration: undefined });
  for (const worker of workers) await worker.pass(master);
  const middle = { time: performance.now(), writes: writes.count };
  for (const worker of workers) await worker.pass(master);
  await master.post({ kind: "place" });
  const end = { time: performance.now(), writes: writes.count };
  const { convergence_percent } = statusOf(master.state, { now: master.now(), hasHook: false });
  return {
    machines,
    workers: count,
    firstMilliseconds: middle.time - from.time,
    firstWrites: middle.writes - from.writes,
    secondMilliseconds: end.time - middle.time,
    secondWrites: end.writes - middle.writes,
    convergencePercent: convergence_percent,
  };
}

async function openMaster(store: EmbeddedStore, writes: { count: number }): Promise<ClusterMaster> {
  const counted: MasterStore = {
    watch: (bucket, pattern, options) => store.watch(bucket, pattern, options),
    put: async (...words) => {
      writes.count += 1;
      return await store.put(...words);
    },
    delete: async (...words) => {
      writes.count += 1;
      return await store.delete(...words);
    },
  };
  return await ClusterMaster.open({
    store: counted,
    incarnation: store.incarnation,
    settings,
    logger: { info: () => {}, warn: () => {} },
    now: machineClocks.monotonic,
    // Nothing here is waited for.
    wakeAfter: () => ({ [Symbol.dispose]: () => {} }),
    runHook: () => Promise.reject(new Error("No power is cut here")),
    onWrite: () => {},
    record: () => Promise.resolve(),
    onFailure: (failure) => {
      throw failure;
    },
  });
}

function declare(count: number): ClusterRequest {
  const machine = Array.from({ length: count }, (_value, index) => ({
    name: `machine-${index}`,
    imagePath: `/nix/store/${String(index % 20).padStart(32, "0")}-vm-image`,
    hash: `sha256-${"A".repeat(43)}=`,
    cpu: 1 + (index % 4),
    memoryMb: 256 * (1 + (index % 8)),
    placement: {
      movable: index % 2 === 0,
      ...(index % 10 === 0 && { spread: { group: `group-${index % 50}` } }),
    },
  }));
  return { machine };
}

/** Follows its assignment by the worker's own reconciler; what that orders is done at once. */
class Worker {
  readonly #name: string;
  #sequence = 0;
  #assignment: Assignment | undefined;
  readonly #machines = new Map<string, { readonly observed: ObservedMachine; owner: number }>();

  constructor(name: string) {
    this.#name = name;
  }

  async pass(master: ClusterMaster): Promise<void> {
    const answer = await master.assignment(this.#name, {
      lastSeen: this.#assignment ?? null,
      wait: 0,
      signal: new AbortController().signal,
    });
    if (answer.kind === "assignment") this.#assignment = answer;
    this.#reconcile();
    const { refusal } = await master.post({
      kind: "report",
      worker: this.#name,
      report: this.#report(),
    });
    if (refusal !== undefined) throw new Error(refusal.message);
  }

  get #desired() {
    const { generation = 0, machines = [] } = this.#assignment ?? {};
    return { generation, machines };
  }

  #observe(): ObservedMachine[] {
    return [...this.#machines.values()].map(({ observed }) => observed);
  }

  #reconcile(): void {
    const owners = new Map(
      this.#desired.machines.map(({ spec, owner_generation }) => [spec.name, owner_generation]),
    );
    for (const command of reconcile(this.#desired, this.#observe()).commands) {
      if (command.kind !== "create") throw new Error(`${command.name} is to ${command.kind}`);
      const { name, machine } = command;
      const { spec, power } = machine;
      this.#machines.set(name, {
        owner: owners.get(name) ?? 0,
        observed: {
          ...{ name, phase: "running", wanted: power, declaredPower: power },
          ...{ spec, owner: "declared", reason: undefined },
        },
      });
    }
  }

  #report(): Report {
    this.#sequence += 1;
    const { standings, convergencePercent } = reconcile(this.#desired, this.#observe());
    const status = new Map(standings.map((standing) => [standing.name, standing.status]));
    const machines = [...this.#machines].map(([name, { observed, owner }]): ReportedMachine => {
      const { cpu = 1, memoryMb = 512 } = observed.spec ?? {};
      return {
        ...{ name, owner_generation: owner, phase: "running", reason: null, drift: [] },
        ...{ standing: status.get(name) ?? "left-alone", metrics: null },
        ...{ processors: cpu, memory_bytes: memoryMb * MEBIBYTE },
      };
    });
    const total = { processors: 4_096, memory_bytes: 4_194_304 * MEBIBYTE };
    const used = machines.reduce((sum, { processors }) => sum + (processors ?? 0), 0);
    const bytes = machines.reduce((sum, { memory_bytes }) => sum + (memory_bytes ?? 0), 0);
    const { incarnation, generation, revision } = this.#assignment ?? {};
    const observed =
      incarnation === undefined || generation === undefined || revision === undefined
        ? null
        : { incarnation, generation, revision };
    return {
      ...{ version: 1, boot: "00000000-0000-4000-8000-000000000000", run: "0".repeat(32) },
      ...{ sequence: this.#sequence, program: "simulated", observed, total },
      convergence_percent: convergencePercent,
      free: {
        processors: total.processors - used,
        memory_bytes: total.memory_bytes - bytes,
      },
      ...{ labels: {}, watchdog: null, machines },
    };
  }
}

if (import.meta.main) console.log(JSON.stringify(await measureReconcile(), null, 2));
