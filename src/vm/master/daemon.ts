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
import { runFenceHook } from "../perform/fence-hook.ts";
import { passWrite } from "../perform/master-steps.ts";
import { masterLimits } from "../protocol-master.ts";
import type { MasterConfiguration } from "./configuration.ts";
import type { MasterSettings } from "./lifecycle-state.ts";
import { statusOf } from "./lifecycle-view.ts";
import { ClusterMaster } from "./master.ts";
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
  { store, loop, logger, record, onFailure }: AdditionGround,
): Promise<AuthorityAddition> {
  const master = await ClusterMaster.open({
    store,
    incarnation: store.incarnation,
    settings: settingsOf(configuration),
    logger,
    now: monotonicNow,
    wakeAfter: (wait, call) => loop.wakeAfter(wait, call),
    runHook: hookOf(loop, configuration),
    onWrite: passWrite,
    record,
    onFailure,
  });
  return {
    routes: masterRoutes(master),
    requestBytes: Math.max(masterLimits.declarationBytes, masterLimits.reportBytes),
    measure: (metrics) => measure(metrics, master),
    stop: () => master.stop(),
  };
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

function hookOf(loop: EventLoop, { fence }: MasterConfiguration) {
  return async (asked: { readonly worker: string; readonly boot: string | null }) => {
    if (fence === undefined) throw new Error("Bug: there is no fence hook");
    return await runFenceHook(loop, fence, asked);
  };
}

function measure(metrics: MetricsRegistry, master: ClusterMaster): void {
  const status = () =>
    statusOf(master.state, { now: master.now(), hasHook: master.settings.hasHook });
  const gauges = {
    hostler_vm_convergence_percent: [
      "Of all declared machines, those that are as declared",
      () => status().convergence_percent,
    ],
    hostler_vm_machines: ["Declared machines", () => master.state.desired.machines.size],
    hostler_vm_machines_without_worker: [
      "Declared machines that no worker has",
      () => master.state.unplaced.size,
    ],
    hostler_vm_workers: ["Workers, lost ones too", () => master.state.workers.size],
    hostler_vm_workers_lost: [
      "Workers that have not reported for long",
      () => [...master.state.workers.values()].filter(({ standing }) => standing === "lost").length,
    ],
  } as const;
  for (const [name, [help, read]] of Object.entries(gauges)) metrics.gauge({ name, help }, read);
}
