import { printJson, printText } from "../../command-line/output.ts";
import { alignColumns, renderTable } from "../../command-line/table.ts";
import { escapeControls } from "../../logging/format.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { formatDuration } from "../../units/units.ts";
import { WorkerClient } from "../client.ts";
import type { Survivable, VmDetail, VmSummary } from "../protocol.ts";
import { memoryText } from "./list.ts";
import { phaseText } from "./words.ts";

interface ShowOptions {
  readonly name: string;
  readonly "control-socket": string;
  readonly json: boolean;
}

export async function runShow(options: ShowOptions): Promise<number> {
  using client = await WorkerClient.connect(options["control-socket"]);
  const detail = await client.show(options.name);
  if (options.json) await printJson(detail);
  else await printText(renderDetail(detail));
  return ExitCode.done;
}

export function renderDetail(detail: VmDetail): string {
  const { summary } = detail;
  const machineType = [detail.machine_type, detail.processor_model].filter((one) => one !== null);
  const rows = [
    ["name", summary.name],
    ["phase", phaseText(summary)],
    ...summary.cards.map(({ network, address, mac, tap }) => [
      `network ${network}`,
      `${address}, ${mac}, ${tap}`,
    ]),
    ...(summary.forwards.length === 0 ? [] : [["forwards", summary.forwards.join(", ")]]),
    ["hypervisor", `${summary.hypervisor ?? "-"} ${summary.version ?? ""}`.trim()],
    ["machine", `${summary.accelerator ?? "-"}, ${machineType.join(", ") || "its only type"}`],
    ["processors", `${summary.processors ?? "-"}`],
    ["memory", memoryText(summary.memory_bytes)],
    ["process", summary.pid === null ? "-" : `${summary.pid}`],
    ["uptime", summary.uptime_ms === null ? "-" : formatDuration(summary.uptime_ms)],
    ["restarts", `${summary.restarts}`],
    ...(summary.health?.checks ?? []).map((check) => ["health", checkText(check)]),
    ["image", summary.image_hash ?? "-"],
    ["folder", detail.folder],
    ...(detail.cgroup === null ? [] : [["cgroup", detail.cgroup]]),
    ["VMM", survivableText(detail.survivable)],
    ...(detail.vmm_output === null ? [] : [["it said", lastLineOf(detail.vmm_output)]]),
  ];
  const events = detail.history.map((event) => [event.time, event.what, event.detail ?? ""]);
  return `${alignColumns(rows).join("\n")}\n\n${renderTable(["WHEN", "WHAT", "HOW"], events)}`;
}

function checkText(check: NonNullable<VmSummary["health"]>["checks"][number]): string {
  const why = check.reason === null ? "" : `: ${escapeControls(check.reason)}`;
  const when = check.answered_ms === null ? "" : `, asked ${formatDuration(check.answered_ms)} ago`;
  const count = `${check.failures} of ${check.probes} probes failed`;
  return `${check.check}: ${check.state}${why} (${count}${when})`;
}

/** All of it is in --json. */
const lastLineOf = (text: string) => escapeControls(text.split("\n").at(-1) ?? "");

export function survivableText(survivable: Survivable): string {
  if (!survivable.survivable) {
    const why = survivable.obstacles.map(({ key, message }) => `${key}: ${message}`);
    return `cannot be replaced: ${why.join("; ")}`;
  }
  const bound = survivable.same_build_only;
  return bound === null
    ? "can be replaced under the machine"
    : `can be replaced by the same build alone: ${bound}`;
}

const cannotSurvive = 1;

export async function runSurvivable(options: ShowOptions): Promise<number> {
  using client = await WorkerClient.connect(options["control-socket"]);
  const survivable = await client.survivable(options.name);
  if (options.json) await printJson(survivable);
  else await printText(`${survivable.name}: its VMM ${survivableText(survivable)}\n`);
  return survivable.survivable ? ExitCode.done : cannotSurvive;
}
