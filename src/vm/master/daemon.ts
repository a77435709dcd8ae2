import type {
  AdditionGround,
  AuthorityAddition,
  AuthorityExtension,
} from "../../authority/addition.ts";
import { runAuthority } from "../../authority/daemon.ts";
import { type AuthorityOptions, usualBuckets } from "../../authority/options.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { MetricsRegistry } from "../../http/metrics.ts";
import type { BucketDefinition } from "../../store/store.ts";
import { runFenceHook, whyHookCannotRun } from "../perform/fence-hook.ts";
import { passWrite } from "../perform/master-steps.ts";
import { masterLimits } from "../protocol-master.ts";
import type { MasterConfiguration } from "./configuration.ts";
import type { MasterSettings, WorkerState } from "./lifecycle-state.ts";
import { statusOf } from "./lifecycle-view.ts";
import { ClusterMaster, type MasterOpener } from "./master.ts";
import { masterBucket } from "./records.ts";
import { masterRoutes } from "./routes.ts";

/** All that a master keeps: what an authority does, and the cluster. */
export const masterBuckets: readonly BucketDefinition[] = [...usualBuckets, masterBucket];

/** Before a fence hook that failed is tried again, doubled each time, and at most. */
const HOOK_RETRY = { first: 30_000, longest: 600_000 } as const;

/**
 * Runs a master until SIGTERM or SIGINT: an authority for its hosts and operators, with the routes
 * of virtual machines.
 * @throws as runAuthority; RecordRefused
 */
export async function runMaster(
  options: AuthorityOptions,
  configuration: MasterConfiguration,
): Promise<number> {
  return await runAuthority(options, extensionOf(configuration));
}

function extensionOf(configuration: MasterConfiguration): AuthorityExtension {
  return {
    open: (ground) => openMaster(configuration, ground),
  };
}

async function openMaster(
  configuration: MasterConfiguration,
  ground: AdditionGround,
): Promise<AuthorityAddition> {
  const trouble = troubleOf(configuration);
  if (trouble !== undefined) ground.logger.warn(trouble);
  const open = masterOpener(configuration, ground);
  const { shared } = configuration;
  if (shared !== undefined) {
    const { SharedMaster } = await import("./shared-master.ts");
    return additionOf(await SharedMaster.open({ ground, shared, openMaster: open }));
  }
  const { store } = ground;
  const { incarnation } = store;
  const master = await open({ store, incarnation, isActing: () => true });
  return additionOf({ master, acting: () => master, stop: () => master.stop() });
}

/** The only master, or one of several. */
interface MasterStanding {
  /** undefined while it stands by. */
  readonly master: ClusterMaster | undefined;
  /** @throws ProblemError while it stands by */
  acting(): ClusterMaster;
  /** Beside what is told of the cluster. */
  measure?(metrics: MetricsRegistry): void;
  stop(): Promise<void>;
}

function additionOf(standing: MasterStanding): AuthorityAddition {
  return {
    routes: masterRoutes(() => standing.acting()),
    requestBytes: Math.max(masterLimits.declarationBytes, masterLimits.reportBytes),
    measure: (metrics) => {
      measure(metrics, () => standing.master);
      standing.measure?.(metrics);
    },
    stop: () => standing.stop(),
  };
}

function masterOpener(configuration: MasterConfiguration, ground: AdditionGround): MasterOpener {
  const { loop, logger, record, onFailure } = ground;
  const runHook = hookOf(loop, configuration);
  return async ({ store, incarnation, isActing }) =>
    await ClusterMaster.open({
      store,
      incarnation,
      settings: settingsOf(configuration),
      logger,
      now: monotonicNow,
      wakeAfter: (wait, call) => loop.wakeAfter(wait, call),
      // Another master may hear of that worker by now.
      runHook: async (asked) => (isActing() ? await runHook(asked) : "this master acts no more"),
      hookTrouble: () => troubleOf(configuration),
      onWrite: passWrite,
      record,
      onFailure,
    });
}

function settingsOf({ silentAfter, lostAfter, fence }: MasterConfiguration): MasterSettings {
  return {
    silentAfter,
    lostAfter,
    hasHook: fence !== undefined,
    hookRetry: HOOK_RETRY.first,
    longestHookRetry: HOOK_RETRY.longest,
  };
}

const troubleOf = ({ fence }: MasterConfiguration) =>
  fence === undefined ? undefined : whyHookCannotRun(fence);

function hookOf(loop: EventLoop, { fence }: MasterConfiguration) {
  return async (asked: { readonly worker: string; readonly boot: string | null }) => {
    if (fence === undefined) throw new Error("Bug: there is no fence hook");
    return await runFenceHook(loop, fence, asked);
  };
}

/** One that stands by knows nothing, and says 0. */
function measure(metrics: MetricsRegistry, acting: () => ClusterMaster | undefined): void {
  const convergence = (master: ClusterMaster) =>
    statusOf(master.state, { now: master.now(), hasHook: master.settings.hasHook })
      .convergence_percent;
  const isLost = ({ standing }: WorkerState) => standing === "lost";
  const gauges = {
    hostler_vm_convergence_percent: [
      "Of all declared machines, those that are as declared",
      convergence,
    ],
    hostler_vm_machines: ["Declared machines", ({ state }) => state.desired.machines.size],
    hostler_vm_machines_without_worker: [
      "Declared machines that no worker has",
      ({ state }) => state.unplaced.size,
    ],
    hostler_vm_workers: ["Workers, lost ones too", ({ state }) => state.workers.size],
    hostler_vm_workers_lost: [
      "Workers that have not reported for long",
      ({ state }) => [...state.workers.values()].filter(isLost).length,
    ],
  } satisfies Record<string, readonly [string, (master: ClusterMaster) => number]>;
  for (const [name, [help, read]] of Object.entries(gauges)) {
    metrics.gauge({ name, help }, () => {
      const master = acting();
      return master === undefined ? 0 : read(master);
    });
  }
}
