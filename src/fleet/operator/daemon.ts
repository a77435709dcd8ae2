import type { AdditionGround, AuthorityAddition, StoreRequest } from "../../authority/addition.ts";
import { runAuthority } from "../../authority/daemon.ts";
import { type AuthorityOptions, usualBuckets } from "../../authority/options.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { HttpLimits } from "../../http/limits.ts";
import type { MetricsRegistry } from "../../http/metrics.ts";
import type { Principal } from "../../http/principal.ts";
import type { BucketDefinition, Store } from "../../store/store.ts";
import { passOperatorWrite } from "../perform/operator-steps.ts";
import {
  candidateKey,
  canonicalKey,
  fleetBuckets,
  fleetLimits,
  SILENT_AFTER,
} from "../protocol.ts";
import { operatorLimits } from "../protocol-operator.ts";
import { usualPace } from "../protocol-pace.ts";
import type { OperatorConfiguration } from "./configuration.ts";
import { fleetMetrics } from "./gauges.ts";
import type { OperatorSettings } from "./lifecycle-state.ts";
import { FleetOperator } from "./operator.ts";
import { fleetStoreBuckets } from "./records.ts";
import { operatorRoutes, operatorStreams } from "./routes.ts";
import type { OperatorOpener } from "./shared-operator.ts";

/** All that an operator of a fleet keeps: what an authority does, and the fleet. */
export const operatorBuckets: readonly BucketDefinition[] = [...usualBuckets, ...fleetStoreBuckets];

/** Milliseconds. */
export const operatorSettings: OperatorSettings = {
  silentAfter: SILENT_AFTER,
  lostAfter: 120_000,
  probation: usualPace.probation,
  settle: 2 * SILENT_AFTER,
  planDelay: 1_000,
  planEvery: 15_000,
};

/**
 * For every device two connections, of its agent and of a candidate, and as many of one address as
 * a large site has behind its router, where all come back at once. Where the operator may open
 * fewer descriptors, that decides: three for each connection.
 */
export const operatorHttpLimits: Partial<HttpLimits> = {
  webSockets: 2 * fleetLimits.devices,
  connections: 2 * fleetLimits.devices,
  connectionsPerAddress: 16_384,
  unproven: 4_096,
  unprovenPerAddress: 1_024,
  addressRate: { burst: 4_000, perSecond: 1_000 },
  rememberedCallers: 2 * fleetLimits.devices,
};

/**
 * Runs an operator until SIGTERM or SIGINT: an authority for its devices and people, with the
 * routes of a fleet.
 * @throws as runAuthority; RecordRefused, ValueUnreadable
 */
export async function runOperator(
  options: AuthorityOptions,
  configuration: OperatorConfiguration,
): Promise<number> {
  const names = fleetStoreBuckets.map(({ name }) => name);
  const buckets = options.retention.buckets.filter(({ name }) => names.includes(name));
  const open = (ground: AdditionGround) => openAddition(ground, configuration, buckets);
  return await runAuthority(options, { open });
}

async function openAddition(
  ground: AdditionGround,
  { shared }: OperatorConfiguration,
  buckets: readonly BucketDefinition[],
): Promise<AuthorityAddition> {
  const open = openerOver(ground);
  if (shared !== undefined) {
    const { SharedOperator } = await import("./shared-operator.ts");
    const several = await SharedOperator.open({ ground, shared, buckets, openOperator: open });
    return additionOf(several, ground);
  }
  const { store } = ground;
  const operator = await open({ store, incarnation: store.incarnation });
  return additionOf({ operator, acting: () => operator, stop: () => operator.stop() }, ground);
}

function openerOver({ loop, logger, onFailure }: AdditionGround): OperatorOpener {
  return async ({ store, incarnation }) =>
    await FleetOperator.open({
      ...{ store, logger, onFailure, incarnation },
      settings: operatorSettings,
      now: monotonicNow,
      wall: () => Date.now(),
      wakeAfter: (wait, call) => loop.wakeAfter(wait, call),
      onWrite: passOperatorWrite,
    });
}

/** The only operator, or one of several. */
interface OperatorStanding {
  /** undefined while it stands by. */
  readonly operator: FleetOperator | undefined;
  /** @throws ProblemError while it stands by */
  acting(): FleetOperator;
  /** Where devices' buckets are; undefined: in the authority's own store. */
  storeOf?(bucket: string): Store | undefined;
  stop(): Promise<void>;
}

function additionOf(
  standing: OperatorStanding,
  { isRevoked }: Pick<AdditionGround, "isRevoked">,
): AuthorityAddition {
  const acting = () => standing.acting();
  return {
    routes: operatorRoutes(acting, isRevoked),
    streams: operatorStreams(acting),
    requestBytes: operatorLimits.requestBytes,
    limits: operatorHttpLimits,
    permits: permitsDevice,
    storeOf: (bucket) => standing.storeOf?.(bucket),
    measure: (metrics) => measure(metrics, () => standing.operator),
    stop: () => standing.stop(),
  };
}

/** A device writes its own status and heartbeats, and reads its own marker. */
export function permitsDevice(
  principal: Principal,
  { operation, bucket, place }: StoreRequest,
): boolean {
  if (principal.kind !== "host" || operation === "delete") return false;
  const { name } = principal;
  switch (bucket) {
    case fleetBuckets.markers:
      return place === name && operation !== "put";
    case fleetBuckets.statuses:
      return place === name;
    case fleetBuckets.heartbeats:
      return place === canonicalKey(name) || place === candidateKey(name);
    default:
      return false;
  }
}

/** One that stands by knows nothing, and says nothing. */
function measure(metrics: MetricsRegistry, acting: () => FleetOperator | undefined): void {
  for (const { name, help, type, read } of fleetMetrics) {
    metrics.collect({ name, help }, type, () => {
      const operator = acting();
      return operator === undefined ? [] : read(operator);
    });
  }
  const help = "1: this operator acts; 0: it stands by";
  metrics.gauge({ name: "hostler_fleet_operator_acting", help }, () => (acting() ? 1 : 0));
}
