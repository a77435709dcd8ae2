import { printJson, printText } from "../../command-line/output.ts";
import { alignColumns, renderTableWithin } from "../../command-line/table.ts";
import { formatBytes } from "../../units/bytes.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { formatDuration } from "../../units/units.ts";
import { WorkerClient } from "../client.ts";
import type { MasterStatus, VmSummary, WorkerStatus } from "../protocol.ts";
import { aimedPhase, healthText } from "./words.ts";

interface ListOptions {
  readonly "control-socket": string;
  readonly json: boolean;
}

export async function runList(options: ListOptions): Promise<number> {
  using client = await WorkerClient.connect(options["control-socket"]);
  const machines = await client.list();
  const { damaged } = await client.status();
  if (options.json) await printJson([...machines, ...damaged.map(damagedMachine)]);
  else await printText(renderMachines(machines, damaged, process.stdout.columns));
  return ExitCode.done;
}

/** Nothing is known of it but its name: it has no phase, and says what is wrong with its record. */
const damagedMachine = ({ name, path, reason }: WorkerStatus["damaged"][number]) => {
  return { name, path, damaged: reason };
};

/**
 * The table of all machines, with columns for health and reasons where there are any.
 * @param width of the terminal; undefined: a reason has the room that it takes
 */
export function renderMachines(
  machines: readonly VmSummary[],
  damaged: WorkerStatus["damaged"] = [],
  width?: number,
): string {
  const isChecked = machines.some(({ health }) => health !== null);
  const hasReasons = damaged.length > 0 || machines.some(({ reason }) => reason !== null);
  const rows = machines.map((machine) => [
    machine.name,
    aimedPhase(machine),
    addressesOf(machine),
    machine.hypervisor === null ? "-" : `${machine.hypervisor} (${machine.accelerator ?? "?"})`,
    machine.pid === null ? "-" : `${machine.pid}`,
    machine.uptime_ms === null ? "-" : formatDuration(machine.uptime_ms),
    `${machine.restarts}`,
    ...(isChecked ? [healthText(machine)] : []),
    ...(hasReasons ? [machine.reason ?? ""] : []),
  ]);
  for (const { name, path, reason } of damaged) {
    const unknown = Array.from({ length: isChecked ? 6 : 5 }, () => "-");
    rows.push([name, "damaged", ...unknown, `${path} is not understood: ${reason}`]);
  }
  const columns = [
    ...["NAME", "PHASE", "ADDRESS", "HYPERVISOR", "PID", "UPTIME", "RESTARTS"],
    ...(isChecked ? ["HEALTH"] : []),
    ...(hasReasons ? ["WHY"] : []),
  ];
  return renderTableWithin(columns, rows, width);
}

const addressesOf = ({ cards }: VmSummary) => cards.map(({ address }) => address).join(", ") || "-";

export async function runStatus(options: ListOptions): Promise<number> {
  using client = await WorkerClient.connect(options["control-socket"]);
  const status = await client.status();
  if (options.json) await printJson(status);
  else await printText(renderStatus(status));
  return ExitCode.done;
}

export function renderStatus(status: WorkerStatus): string {
  const phases = Object.entries(status.phases).map(([phase, count]) => `${count} ${phase}`);
  const health = Object.entries(status.health).map(([state, count]) => `${count} ${state}`);
  const rows = [
    ...status.warnings.map((warning) => ["WARNING", warning]),
    ["worker", `${status.version}, process ${status.pid}, ${formatDuration(status.uptime_ms)}`],
    ["machines", `${status.machines} of ${status.machine_limit}: ${phases.join(", ") || "none"}`],
    ...(health.length === 0 ? [] : [["health", health.join(", ")]]),
    ...status.hypervisors.map(({ hypervisor, path, version, accelerator, chosen }) => [
      hypervisor,
      `${version}, ${path}${chosen ? `, for new machines, with ${accelerator}` : ""}`,
    ]),
    ...status.networks.map(networkRow),
    ...(status.generation === null || status.master !== null
      ? []
      : [["declared", `generation ${status.generation}, ${status.convergence_percent ?? 0} %`]]),
    ...(status.master === null ? [] : masterRows(status.master, status.convergence_percent)),
    ["cgroups", cgroupText(status)],
  ];
  return `${alignColumns(rows).join("\n")}\n`;
}

function networkRow(network: WorkerStatus["networks"][number]): string[] {
  const { name, bridge, subnet, vlan, cards, free_addresses: free } = network;
  const inVlan = vlan === null ? "" : `, VLAN ${vlan}`;
  return [
    `network ${name}`,
    `${bridge}, ${subnet}${inVlan}, ${cards} cards, ${free} addresses free`,
  ];
}

function masterRows(master: MasterStatus, percent: number | null): string[][] {
  const { address, state, since_ms: since, reason, generation, revision, watchdog } = master;
  const long = since === null ? "" : ` for ${formatDuration(since)}`;
  const why = reason === null ? "" : `: ${reason}`;
  const assigned =
    generation === null
      ? "nothing yet"
      : `generation ${generation}, revision ${revision ?? 0}, ${percent ?? 0} % as assigned`;
  const rows = [
    ["master", `${address ?? "none: this host is not enrolled"}, ${state}${long}${why}`],
    ["assigned", assigned],
  ];
  if (watchdog !== null) {
    const { device, phase, timeout_ms: timeout } = watchdog;
    const after = timeout === null ? "" : `, resets this host after ${formatDuration(timeout)}`;
    rows.push(["watchdog", `${device}, ${phase}${after}`]);
  }
  for (const { name, reason: held } of master.held) rows.push(["HELD", `${name}: ${held}`]);
  for (const { name, reason: unmade } of master.unmade)
    rows.push(["NOT MADE", `${name}: ${unmade}`]);
  for (const name of master.unknown)
    rows.push(["UNKNOWN", `${name}: the master never heard of it`]);
  return rows;
}

function cgroupText(status: WorkerStatus): string {
  const { cgroup, cgroup_controllers: controllers, cgroup_lacking: lacking } = status;
  if (cgroup === null) return `none: ${lacking ?? ""}`;
  const words = controllers.join(" ") || "no controllers";
  return `${cgroup}, ${words}${lacking === null ? "" : `; without ${lacking}`}`;
}

export const memoryText = (bytes: number | null): string =>
  bytes === null ? "-" : formatBytes(bytes);
