import { printJson, printText } from "../../command-line/output.ts";
import { alignColumns, renderTable } from "../../command-line/table.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { formatDuration } from "../../units/units.ts";
import { LiveUpdateClient } from "../client.ts";
import type { Blackout, ClientSummary, SessionSummary, Status } from "../protocol.ts";
import { bytesText, counted, durationText, yesOrNo } from "./words.ts";

interface ShowOptions {
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Asks for something, and prints it as JSON or as a table. */
async function show<T>(
  options: ShowOptions,
  ask: (client: LiveUpdateClient) => Promise<T>,
  render: (answer: T) => string,
): Promise<number> {
  using client = await LiveUpdateClient.connect(options["control-socket"]);
  const answer = await ask(client);
  if (options.json) await printJson(answer);
  else await printText(render(answer));
  return ExitCode.done;
}

export async function runStatus(options: ShowOptions): Promise<number> {
  return await show(options, (client) => client.status(), renderStatus);
}

export async function runList(options: ShowOptions): Promise<number> {
  return await show(options, (client) => client.list(), renderClients);
}

export async function runSessions(options: ShowOptions): Promise<number> {
  return await show(options, (client) => client.sessions(), renderSessions);
}

/** The table of all clients; details have their column where there are any. */
export function renderClients(clients: readonly ClientSummary[]): string {
  const hasDetails = clients.some((client) => detailText(client) !== "");
  const columns = [
    ...["ID", "USER", "PID", "BARE", "REQUIRED", "STATE", "DEADLINE", "READY AFTER", "BYTES"],
    ...(hasDetails ? ["DETAIL"] : []),
  ];
  const rows = clients.map((client) => [
    client.id,
    String(client.user),
    client.pid === null ? "-" : String(client.pid),
    yesOrNo(client.bare),
    yesOrNo(client.required),
    client.state,
    formatDuration(client.deadline_ms),
    durationText(client.ready_ms),
    bytesText(client.bytes),
    ...(hasDetails ? [detailText(client)] : []),
  ]);
  return renderTable(columns, rows);
}

/** How far it is, or why it was left out; what one that is ready said on the way is over. */
export function detailText({ state, detail }: ClientSummary): string {
  return state === "ready" ? "" : (detail ?? "");
}

/** What each client came to in an update: the time it took, and what it saved. */
export function renderOutcomes(clients: readonly ClientSummary[]): string {
  const hasDetails = clients.some((client) => detailText(client) !== "");
  const columns = ["ID", "STATE", "READY AFTER", "BYTES", ...(hasDetails ? ["DETAIL"] : [])];
  const rows = clients.map((client) => [
    client.id,
    client.state,
    durationText(client.ready_ms),
    bytesText(client.bytes),
    ...(hasDetails ? [detailText(client)] : []),
  ]);
  return renderTable(columns, rows);
}

export function renderSessions(sessions: readonly SessionSummary[]): string {
  const rows = sessions.map((session) => [
    session.name,
    session.client,
    session.direction,
    session.state,
    String(session.user),
    session.finish_in_ms === null ? "never" : `in ${formatDuration(session.finish_in_ms)}`,
  ]);
  return renderTable(["NAME", "CLIENT", "DIRECTION", "STATE", "USER", "FINISHED"], rows);
}

export function renderStatus(status: Status): string {
  const { phase, update, last, blackout } = status;
  const rows = [
    ["phase", phase],
    ...status.troubles.map((trouble) => ["trouble", trouble]),
    ...kernelRows(status),
    ["clients", String(status.clients)],
    ...(update === null ? [] : [["update", updateText(update)]]),
    ["last update", last === null ? "-" : lastText(last)],
    ["restored", restoredText(status)],
    ["unclaimed", status.unclaimed_policy],
  ];
  const table = blackout === null ? "" : `\n${renderBlackout(blackout)}`;
  return `${alignColumns(rows).join("\n")}\n${table}`;
}

/** What came over a kexec, and is not settled yet. */
function restoredText({ phase, claimed, unclaimed, blackout }: Status): string {
  if (claimed + unclaimed > 0) {
    return `${counted(claimed, "session")} claimed, ${unclaimed} unclaimed`;
  }
  if (phase === "restoring") return "nothing waits for a client; what is left is being finished";
  return blackout === null ? "nothing" : "nothing waits any more: every session is settled";
}

function kernelRows({ loaded }: Status): string[][] {
  if (loaded === null) return [["kernel", "none is loaded"]];
  if (loaded.foreign) {
    return [["kernel", "loaded by another program: nothing is known of it; load it by luod"]];
  }
  const version = loaded.version === null ? "" : `, ${loaded.version}`;
  return [
    ["kernel", `${loaded.path}${version}`],
    ["initrd", loaded.initrd ?? "-"],
    ["command line", loaded.command_line],
  ];
}

/** "u-7: 2 of 3 are ready, waits for db, 12.30 s left" */
export function updateText(update: NonNullable<Status["update"]>): string {
  const { id, ready, clients, waiting_for: missing, left_ms: left } = update;
  const parts = [
    `${id}${update.dry_run ? " (dry run)" : ""}: ${ready} of ${clients} ready`,
    ...(missing.length === 0 ? [] : [`waits for ${listed(missing)}`]),
    ...(left === null ? [] : [`${formatDuration(Math.max(0, left))} left`]),
  ];
  return parts.join(", ");
}

/** Names in a line; of many the first ones. */
function listed(names: readonly string[]): string {
  const most = 8;
  const more = names.length - most;
  return `${names.slice(0, most).join(", ")}${more > 0 ? ` and ${more} more` : ""}`;
}

function lastText(last: NonNullable<Status["last"]>): string {
  return `${last.id}: ${last.outcome}${last.detail === "" ? "" : `: ${last.detail}`}`;
}

/** Where the time of an update went. */
export function renderBlackout(blackout: Blackout): string {
  const rows = [
    ["barrier", durationText(blackout.barrier_ms), "from the command to the last ready client"],
    ["commit", durationText(blackout.commit_ms), "sync, hooks, and stopping what runs"],
    ["kexec", durationText(blackout.kexec_ms), "from there to the new kernel's first moment"],
    ["boot", durationText(blackout.boot_ms), "from there to luod, which offers the sessions"],
    ["restore", durationText(blackout.restore_ms), "from there to the last claim"],
    ["total", durationText(blackout.total_ms), ""],
  ];
  const heading = `Update ${blackout.update}, ${counted(blackout.clients, "client")}:`;
  const [title = ""] = alignColumns([[heading]]);
  return `${title}\n${renderTable(["PART", "TIME", "WHAT"], rows)}`;
}
