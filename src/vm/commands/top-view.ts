import { alignColumns } from "../../command-line/table.ts";
import { formatBytes } from "../../units/bytes.ts";
import type { MonotonicTime } from "../../units/units.ts";
import type { VmMetrics, VmSummary } from "../protocol.ts";
import { healthText, phaseText } from "./words.ts";

/** What machines use, from two looks at them. */

export interface Sample {
  readonly at: MonotonicTime;
  readonly machines: readonly VmSummary[];
  readonly metrics: readonly VmMetrics[];
}

/** One machine; null where nobody can tell, or there is nothing to compare with yet. */
export interface TopRow {
  readonly name: string;
  readonly phase: VmSummary["phase"];
  readonly health: NonNullable<VmSummary["health"]>["state"] | null;
  /** Of one processor. */
  readonly cpu_percent: number | null;
  readonly memory_bytes: number | null;
  /** Each in bytes a second. */
  readonly network_received_rate: number | null;
  readonly network_sent_rate: number | null;
  readonly disk_read_rate: number | null;
  readonly disk_written_rate: number | null;
}

type Counter =
  | "cpu_seconds"
  | "network_received_bytes"
  | "network_sent_bytes"
  | "disk_read_bytes"
  | "disk_written_bytes";

/** The busiest first. */
export function rowsOf(before: Sample | undefined, now: Sample): TopRow[] {
  const rows = now.machines.map((machine) => rowOf(machine, before, now));
  return rows.sort(
    (one, other) =>
      (other.cpu_percent ?? -1) - (one.cpu_percent ?? -1) || (one.name < other.name ? -1 : 1),
  );
}

function rowOf(machine: VmSummary, before: Sample | undefined, now: Sample): TopRow {
  const { name, phase, invocation } = machine;
  const find = (sample: Sample | undefined) => sample?.metrics.find((one) => one.name === name);
  const [earlier, later] = [find(before), find(now)];
  const former = before?.machines.find((one) => one.name === name);
  const seconds = (now.at - (before?.at ?? now.at)) / 1_000;
  // Of another process everything has begun anew, even where it has come further meanwhile.
  const isSame = former !== undefined && former.invocation === invocation && seconds > 0;
  const rate = (key: Counter): number | null => {
    const [one, other] = [earlier?.[key] ?? null, later?.[key] ?? null];
    if (!isSame || one === null || other === null || other < one) return null;
    return (other - one) / seconds;
  };
  const share = rate("cpu_seconds");
  return {
    name,
    phase,
    health: machine.health?.state ?? null,
    cpu_percent: share === null ? null : Math.round(share * 1_000) / 10,
    memory_bytes: later?.memory_bytes ?? null,
    network_received_rate: whole(rate("network_received_bytes")),
    network_sent_rate: whole(rate("network_sent_bytes")),
    disk_read_rate: whole(rate("disk_read_bytes")),
    disk_written_rate: whole(rate("disk_written_bytes")),
  };
}

const whole = (value: number | null) => (value === null ? null : Math.round(value));

const rateText = (rate: number | null) => (rate === null ? "-" : `${formatBytes(rate)}/s`);
const head = ["NAME", "CPU", "MEMORY", "RECEIVED", "SENT", "READ", "WRITTEN", "HEALTH", "PHASE"];

/** One line for all of them, and a table. Nothing in it can drive a terminal. */
export function renderTop(before: Sample | undefined, now: Sample): string[] {
  const rows = rowsOf(before, now);
  const table = rows.map((row) => {
    const machine = now.machines.find(({ name }) => name === row.name);
    return [
      row.name,
      row.cpu_percent === null ? "-" : `${row.cpu_percent.toFixed(1)} %`,
      row.memory_bytes === null ? "-" : formatBytes(row.memory_bytes),
      rateText(row.network_received_rate),
      rateText(row.network_sent_rate),
      rateText(row.disk_read_rate),
      rateText(row.disk_written_rate),
      machine === undefined ? "-" : healthText(machine),
      machine === undefined ? row.phase : phaseText(machine),
    ];
  });
  return [summaryOf(rows), ...alignColumns([head, ...table])];
}

function summaryOf(rows: readonly TopRow[]): string {
  const running = rows.filter(({ phase }) => phase === "running").length;
  const unhealthy = rows.filter(({ health }) => health === "unhealthy").length;
  const sum = (key: "cpu_percent" | "memory_bytes") =>
    rows.reduce((all, row) => all + (row[key] ?? 0), 0);
  return [
    `${rows.length} machine${rows.length === 1 ? "" : "s"}, ${running} running`,
    ...(unhealthy === 0 ? [] : [`${unhealthy} unhealthy`]),
    `${sum("cpu_percent").toFixed(1)} % of a processor`,
    formatBytes(sum("memory_bytes")),
  ].join(", ");
}
