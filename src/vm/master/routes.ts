import { describePrincipal, type Principal } from "../../http/principal.ts";
import { ProblemError } from "../../http/problem.ts";
import { defineRoute, type Route } from "../../http/route.ts";
import { StoreError } from "../../store/store.ts";
import { type ClusterChange, masterApi } from "../protocol-master.ts";
import { changesBetween, requestOf } from "./lifecycle-apply.ts";
import type { ClusterState, MasterEvent, Refusal, Step, WorkerState } from "./lifecycle-state.ts";
import { machinesOf, statusOf, workersOf, workerView } from "./lifecycle-view.ts";
import type { ClusterMaster } from "./master.ts";

/** @throws ProblemError when this master does not act */
export type ActingMaster = () => ClusterMaster;

/**
 * What a master can be asked: by workers in their sessions, and by operators. Whether it acts is
 * asked when a request is taken.
 */
export function masterRoutes(acting: ActingMaster): readonly Route[] {
  return [...workerRoutes(acting), ...readingRoutes(acting), ...changingRoutes(acting)];
}

function workerRoutes(acting: ActingMaster): readonly Route[] {
  return [
    defineRoute({
      ...masterApi.assignment,
      run: async (call, { last_seen, wait_ms }) =>
        await acting().assignment(hostOf(call.principal), {
          lastSeen: last_seen,
          wait: wait_ms,
          signal: call.signal,
        }),
    }),
    defineRoute({
      ...masterApi.report,
      async run(call, report) {
        const worker = hostOf(call.principal);
        const { answer } = await post(acting(), { kind: "report", worker, report });
        if (answer === undefined) throw new Error("Bug: a report that was taken has an answer");
        return answer;
      },
    }),
  ];
}

function readingRoutes(acting: ActingMaster): readonly Route[] {
  const contextOf = (master: ClusterMaster) => ({
    now: master.now(),
    hasHook: master.settings.hasHook,
  });
  return [
    defineRoute({
      ...masterApi.diff,
      run(_call, { desired }) {
        const master = acting();
        const event = { kind: "apply", desired, expectGeneration: undefined } as const;
        const { state, refusal } = master.plan(event);
        if (refusal !== undefined) throw problemOf(refusal);
        return changesBetween(master.state, state);
      },
    }),
    defineRoute({
      ...masterApi.desired,
      run: () => {
        const { desired } = acting().state;
        return { desired: desired.generation === 0 ? null : requestOf(desired) };
      },
    }),
    defineRoute({
      ...masterApi.status,
      run: () => {
        const master = acting();
        const { hookTrouble } = master;
        return statusOf(master.state, { ...contextOf(master), hookTrouble });
      },
    }),
    defineRoute({
      ...masterApi.workers,
      run: () => {
        const master = acting();
        return { workers: workersOf(master.state, contextOf(master)) };
      },
    }),
    defineRoute({
      ...masterApi.worker,
      run: (_call, { worker }) => {
        const master = acting();
        const known = workerOf(master.state, worker);
        return {
          worker: workerView(master.state, known, contextOf(master)),
          machines: machinesOf(master.state).filter((machine) => machine.worker === worker),
          reported: [...(known.heard?.report.machines ?? [])],
        };
      },
    }),
  ];
}

function changingRoutes(acting: ActingMaster): readonly Route[] {
  const view = (worker: string) => {
    const master = acting();
    const { hasHook } = master.settings;
    return workerView(master.state, workerOf(master.state, worker), { now: master.now(), hasHook });
  };
  return [
    defineRoute({
      ...masterApi.apply,
      async run(call, { desired, expect_generation }) {
        const master = acting();
        const before = master.state;
        await applyWhole(master, {
          kind: "apply",
          desired,
          expectGeneration: expect_generation,
        });
        const changes = changesBetween(before, master.state);
        call.changed({
          object: "virtual machines",
          before: { generation: before.desired.generation },
          after: { generation: changes.generation, ...countsOf(changes.changes) },
        });
        return changes;
      },
    }),
    ...([true, false] as const).map((cordoned) =>
      defineRoute({
        ...(cordoned ? masterApi.cordon : masterApi.uncordon),
        async run(call, { worker }) {
          const before = workerOf(acting().state, worker).record.cordoned;
          await post(acting(), { kind: "cordon", worker, cordoned });
          const object = `worker ${worker}`;
          call.changed({ object, before: { cordoned: before }, after: { cordoned } });
          return view(worker);
        },
      }),
    ),
    defineRoute({
      ...masterApi.forget,
      async run(call, { worker, for_good: forGood = false }) {
        await post(acting(), { kind: "forget", worker, forGood });
        const after = forGood ? "forgotten for good" : "forgotten";
        call.changed({ object: `worker ${worker}`, after });
        return {};
      },
    }),
    defineRoute({
      ...masterApi.fence,
      async run(call, { worker, confirm }) {
        if (confirm !== worker) {
          throw new ProblemError("request", `${worker} is not fenced`, {
            expected: `its name once more: ${worker}`,
            received: confirm,
          });
        }
        const before = Object.keys(workerOf(acting().state, worker).record.machines).length;
        await post(acting(), { kind: "confirm", worker });
        const after = Object.keys(workerOf(acting().state, worker).record.machines).length;
        const by = describePrincipal(call.principal);
        call.changed({
          object: `worker ${worker}`,
          before: { machines: before },
          after: { machines: after, fenced: `confirmed by ${by}` },
        });
        return view(worker);
      },
    }),
  ];
}

/**
 * A declaration that is written counts, whatever else could not be: machines are given to workers
 * when the store takes that again.
 */
async function applyWhole(
  master: ClusterMaster,
  event: Extract<MasterEvent, { kind: "apply" }>,
): Promise<void> {
  const before = master.state.desired.generation;
  try {
    await post(master, event);
  } catch (error) {
    const isApplied = master.state.desired.generation > before;
    if (!(error instanceof StoreError) || !isApplied) throw error;
  }
}

/** @throws ProblemError for what is refused; StoreError */
async function post(master: ClusterMaster, event: MasterEvent): Promise<Step> {
  const outcome = await master.post(event);
  if (outcome.refusal !== undefined) throw problemOf(outcome.refusal);
  return outcome;
}

function problemOf({ kind, message, ...words }: Refusal): ProblemError {
  return new ProblemError(kind, message, words);
}

function hostOf(principal: Principal): string {
  if (principal.kind === "host") return principal.name;
  throw new Error("Bug: the dispatcher let in who is no host");
}

function workerOf(state: ClusterState, name: string): WorkerState {
  const worker = state.workers.get(name);
  if (worker !== undefined) return worker;
  throw new ProblemError("not-found", `There is no worker ${name}`, {
    expected: "a worker that has reported once",
    received: name,
    hint: "hostler vm workers lists them",
  });
}

function countsOf(changes: ClusterChange["changes"]) {
  const count = (kind: string) => changes.filter((change) => change.kind === kind).length;
  return {
    added: count("add"),
    changed: count("change"),
    recreated: count("recreate"),
    removed: count("remove"),
  };
}
