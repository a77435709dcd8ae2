import { printJson, printText } from "../../command-line/output.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { WorkerClient } from "../client.ts";
import type { VmMetrics } from "../protocol.ts";

interface MetricsOptions {
  readonly name: string | undefined;
  readonly "control-socket": string;
  readonly json: boolean;
}

export async function runMetrics(options: MetricsOptions): Promise<number> {
  using client = await WorkerClient.connect(options["control-socket"]);
  const metrics = await client.metrics(options.name);
  if (options.json) await printJson(metrics);
  else await printText(renderMetrics(metrics));
  return ExitCode.done;
}

/** Each series, with its kind and what it counts: Prometheus' text format 0.0.4. */
const series = [
  ["hostler_vm_cpu_seconds_total", "counter", "cpu_seconds", "Processor time of its VMM"],
  ["hostler_vm_cpu_percent", "gauge", "cpu_percent", "Of one processor, since the last reading"],
  ["hostler_vm_memory_bytes", "gauge", "memory_bytes", "Resident memory of its VMM"],
  ["hostler_vm_cgroup_memory_bytes", "gauge", "cgroup_memory_bytes", "Charged to its cgroup"],
  [
    "hostler_vm_cpu_throttled_seconds_total",
    "counter",
    "cpu_throttled_seconds",
    "In which it was held back by its limit of processor time",
  ],
  ["hostler_vm_oom_kills_total", "counter", "oom_kills", "Kills at its limit of memory"],
  [
    "hostler_vm_network_received_bytes_total",
    "counter",
    "network_received_bytes",
    "What the machine received",
  ],
  ["hostler_vm_network_sent_bytes_total", "counter", "network_sent_bytes", "What it sent"],
  ["hostler_vm_disk_read_bytes_total", "counter", "disk_read_bytes", "What it read from disks"],
  ["hostler_vm_disk_written_bytes_total", "counter", "disk_written_bytes", "What it wrote there"],
  ["hostler_vm_healthy", "gauge", "healthy", "1 where its checks pass, 0 where they do not"],
] as const satisfies readonly (readonly [
  string,
  string,
  Exclude<keyof VmMetrics, "cards">,
  string,
])[];

const cardSeries = [
  ["hostler_vm_card_received_bytes_total", "received_bytes", "What came in by one of its cards"],
  ["hostler_vm_card_sent_bytes_total", "sent_bytes", "What went out by one of its cards"],
] as const;

function renderCards(
  [name, key, help]: (typeof cardSeries)[number],
  metrics: readonly VmMetrics[],
): string[] {
  const samples = metrics.flatMap((one) =>
    one.cards.map((card) => {
      const labels = `vm="${one.name}",network="${card.network}",tap="${card.tap}"`;
      return `${name}{${labels}} ${card[key]}`;
    }),
  );
  const head = [`# HELP ${name} ${help}`, `# TYPE ${name} counter`];
  return samples.length === 0 ? [] : [...head, ...samples];
}

export function renderMetrics(metrics: readonly VmMetrics[]): string {
  const lines = series.flatMap(([name, kind, key, help]) => {
    const samples = metrics.flatMap((one) =>
      one[key] === null ? [] : [`${name}{vm="${one.name}"} ${one[key]}`],
    );
    return samples.length === 0
      ? []
      : [`# HELP ${name} ${help}`, `# TYPE ${name} ${kind}`, ...samples];
  });
  lines.push(...cardSeries.flatMap((one) => renderCards(one, metrics)));
  return lines.map((line) => `${line}\n`).join("");
}
