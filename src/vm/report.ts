import type { AssignmentState } from "./lifecycle-assignment.ts";
import { placeOf } from "./lifecycle-assignment.ts";
import type { VmMetrics } from "./protocol.ts";
import { limits, type phases } from "./protocol.ts";
import {
  type Labels,
  MASTER_PROTOCOL_VERSION,
  masterLimits,
  type Report,
  type ReportedMachine,
  type Resources,
  type Watchdog,
} from "./protocol-master.ts";
import { mayHaveVmm, type Standing } from "./reconcile.ts";

/** What a worker says of itself and of its machines, within the limits of the wire. Pure. */

export interface MachineFacts {
  readonly name: string;
  readonly phase: (typeof phases)[number];
  readonly reason: string | undefined;
  readonly ownerGeneration: number | undefined;
  /** undefined for one of which nothing is declared. */
  readonly standing: Standing | undefined;
  /** undefined while nobody knows. */
  readonly processors: number | undefined;
  readonly memory: number | undefined;
  readonly metrics: VmMetrics | undefined;
}

export interface ReportFacts {
  readonly boot: string;
  readonly run: string;
  readonly sequence: number;
  readonly program: string;
  readonly assignment: AssignmentState;
  readonly convergencePercent: number;
  readonly total: Resources;
  readonly labels: Labels;
  readonly watchdog: Watchdog | null;
  readonly machines: readonly MachineFacts[];
}

const encoder = new TextEncoder();
const sizeOf = (report: Report) => encoder.encode(JSON.stringify(report)).length;

/** Where it would be too long, it is without metrics, and then without drift. */
export function makeReport(facts: ReportFacts): Report {
  const whole = reportOf(facts, reportedMachine);
  if (sizeOf(whole) <= masterLimits.reportBytes) return whole;
  const measured = reportOf(facts, (machine) => ({ ...reportedMachine(machine), metrics: null }));
  if (sizeOf(measured) <= masterLimits.reportBytes) return measured;
  return reportOf(facts, (machine) => ({ ...reportedMachine(machine), metrics: null, drift: [] }));
}

function reportOf(facts: ReportFacts, tell: (machine: MachineFacts) => ReportedMachine): Report {
  const machines = facts.machines.slice(0, masterLimits.machinesOfWorker);
  return {
    version: MASTER_PROTOCOL_VERSION,
    boot: facts.boot,
    run: facts.run,
    sequence: facts.sequence,
    program: facts.program,
    observed: placeOf(facts.assignment),
    convergence_percent: facts.convergencePercent,
    total: facts.total,
    free: freeOf(
      facts.total,
      machines.filter((machine) => !isLeftOver(facts.assignment, machine)),
    ),
    labels: facts.labels,
    watchdog: facts.watchdog,
    machines: machines.map(tell),
  };
}

/** It is another worker's by now, and has no VMM: it is never started here again. */
function isLeftOver(
  { stale }: AssignmentState,
  { name, ownerGeneration, phase }: MachineFacts,
): boolean {
  const isAnothers = (stale.get(name) ?? 0) >= (ownerGeneration ?? Number.POSITIVE_INFINITY);
  return isAnothers && !mayHaveVmm(phase);
}

/** What no machine was made with; never less than nothing. */
export function freeOf(total: Resources, machines: readonly MachineFacts[]): Resources {
  const sum = (of: (machine: MachineFacts) => number | undefined) =>
    machines.reduce((whole, machine) => whole + (of(machine) ?? 0), 0);
  return {
    processors: Math.max(0, total.processors - sum(({ processors }) => processors)),
    memory_bytes: Math.max(0, total.memory_bytes - sum(({ memory }) => memory)),
  };
}

const cut = (text: string, length: number) => text.slice(0, length);
const cutJson = (value: unknown) => cut(JSON.stringify(value) ?? "null", masterLimits.driftLength);

function reportedMachine(machine: MachineFacts): ReportedMachine {
  const { name, phase, ownerGeneration, standing, metrics } = machine;
  const reason = standing?.reason ?? machine.reason;
  return {
    name,
    owner_generation: ownerGeneration ?? null,
    phase,
    // Nothing is declared of it, and nothing is done about it.
    standing: standing?.status ?? "left-alone",
    reason: reason === undefined ? null : cut(reason, limits.textLength),
    drift: (standing?.drift ?? []).slice(0, masterLimits.drift).map((found) => ({
      key: cut(found.key, masterLimits.labelLength),
      desired: cutJson(found.desired),
      observed: cutJson(found.observed),
    })),
    processors: machine.processors ?? null,
    memory_bytes: machine.memory ?? null,
    metrics: metrics === undefined ? null : metricsOf(metrics),
  };
}

/** Those of the wire, one by one: this host's own commands are told more. */
const metricsOf = (metrics: VmMetrics): ReportedMachine["metrics"] => ({
  cpu_percent: metrics.cpu_percent,
  cpu_seconds: metrics.cpu_seconds,
  memory_bytes: metrics.memory_bytes,
  network_received_bytes: metrics.network_received_bytes,
  network_sent_bytes: metrics.network_sent_bytes,
  disk_read_bytes: metrics.disk_read_bytes,
  disk_written_bytes: metrics.disk_written_bytes,
});
