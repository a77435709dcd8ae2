import type { AdditionGround, AuthorityAddition, StoreRequest } from "../../authority/addition.ts";
import { runAuthority } from "../../authority/daemon.ts";
import { type AuthorityOptions, usualBuckets } from "../../authority/options.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { MetricsRegistry } from "../../http/metrics.ts";
import type { Principal } from "../../http/principal.ts";
import type { BucketDefinition } from "../../store/store.ts";
import { passOperatorWrite } from "../perform/operator-steps.ts";
import { candidateKey, canonicalKey, fleetBuckets, SILENT_AFTER } from "../protocol.ts";
import { operatorLimits } from "../protocol-operator.ts";
import { usualPace } from "../protocol-pace.ts";
import { gaugesOf } from "./gauges.ts";
import type { OperatorSettings } from "./lifecycle-state.ts";
import { FleetOperator } from "./operator.ts";
import { fleetStoreBuckets } from "./records.ts";
import { operatorRoutes, operatorStreams } from "./routes.ts";

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
 * Runs an operator until SIGTERM or SIGINT: an authority for its devices and people, with the
 * routes of a fleet.
 * @throws as runAuthority; RecordRefused, ValueUnreadable
 */
export async function runOperator(options: AuthorityOptions): Promise<number> {
  return await runAuthority(options, { open: openOperator });
}

async function openOperator(ground: AdditionGround): Promise<AuthorityAddition> {
  const { store, loop, logger, onFailure } = ground;
  const operator = await FleetOperator.open({
    ...{ store, logger, onFailure },
    incarnation: store.incarnation,
    settings: operatorSettings,
    now: monotonicNow,
    wall: () => Date.now(),
    wakeAfter: (wait, call) => loop.wakeAfter(wait, call),
    onWrite: passOperatorWrite,
  });
  return {
    routes: operatorRoutes(operator),
    streams: operatorStreams(operator),
    requestBytes: operatorLimits.requestBytes,
    permits: permitsDevice,
    measure: (metrics) => measure(metrics, operator),
    stop: () => operator.stop(),
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

function measure(metrics: MetricsRegistry, operator: FleetOperator): void {
  for (const { name, help, read } of gaugesOf(operator)) metrics.gauge({ name, help }, read);
}
