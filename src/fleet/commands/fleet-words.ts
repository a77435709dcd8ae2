import { renderFacts, renderTable, renderTableWithin } from "../../command-line/table.ts";
import { sampleLines } from "../../http/metrics.ts";
import { escapeControls } from "../../logging/format.ts";
import { formatBytes } from "../../units/bytes.ts";
import { formatDuration } from "../../units/units.ts";
import type { Build, DeviceStatus, Heartbeat, RoleHealth } from "../protocol.ts";
import type {
  DeviceView,
  FleetSampleView,
  RolloutChange,
  RolloutMember,
  RolloutView,
  ToldHappening,
} from "../protocol-operator.ts";

/** What an operator's answers look like to people. */

export function renderEvent(id: string, { what, message, time }: ToldHappening): string {
  return `${[timeText(time), id, what, message].map(escapeControls).join(" ")}\n`;
}

/**
 * @param last the id of the last event that happened
 * @param first the id of the first that follows
 * @param isKnown an operator before this one gave that id, and what came after it is kept
 * @returns undefined where what follows is all that came after that id
 */
export function whyNotAfter(
  after: string,
  last: string,
  {
    first,
    isKnown = false,
  }: { readonly first?: string | undefined; readonly isKnown?: boolean } = {},
): string | undefined {
  const [asked, newest, next] = [eventOf(after), eventOf(last), eventOf(first ?? "")];
  const all = "all that is kept follows";
  const id = JSON.stringify(after);
  if (asked === undefined) return `${id} is no id of an event, such as ${last}: ${all}`;
  if (asked.run !== newest?.run) {
    if (isKnown) return undefined;
    return `${id} is of another run of the operator, and not kept any more: ${all}`;
  }
  if (asked.sequence > newest.sequence) return `${id} is after the last one, ${last}: ${all}`;
  const missing = next === undefined ? 0 : next.sequence - asked.sequence - 1;
  return missing > 0 ? `${missing} events after ${id} are not kept any more` : undefined;
}

function eventOf(id: string): { readonly run: string; readonly sequence: number } | undefined {
  const [, run, sequence] = /^(.+)-(\d{1,15})$/.exec(id) ?? [];
  return run === undefined ? undefined : { run, sequence: Number(sequence) };
}

/** @param width of the terminal; undefined where it is none */
export function renderDevices(devices: readonly DeviceView[], width?: number): string {
  if (devices.length === 0) return "no device was heard yet\n";
  const columns = ["DEVICE", "STANDING", "HEARD", "RUNS", "TO BE", "UPGRADE", "ROLLOUT", "LABELS"];
  const rows = devices.map((device) => [
    device.name,
    standingText(device),
    device.heard_ms === null ? "-" : `${formatDuration(device.heard_ms)} ago`,
    device.current_version ?? "-",
    device.target_version ?? "-",
    upgradeText(device),
    device.rollout ?? "-",
    labelsText(device.labels),
  ]);
  return renderTableWithin(columns, rows, width);
}

function standingText({ standing, healthy, stale_since: stale }: DeviceView): string {
  const health = healthy === false ? ", unhealthy" : "";
  return `${standing}${health}${stale === null ? "" : ", stale metadata"}`;
}

/** One device, with all that it says of itself. */
export function renderDevice(
  view: DeviceView,
  told: {
    readonly status: DeviceStatus | null;
    readonly heartbeat: Heartbeat | null;
    readonly width: number | undefined;
  },
): string {
  const { status, heartbeat, width } = told;
  const build = (one: Build | null) => (one === null ? "-" : `${one.version} ${one.digest}`);
  const { current_version: version, current_digest: digest, target_version: target } = view;
  const heard = view.heard_ms === null ? "" : `, heard ${formatDuration(view.heard_ms)} ago`;
  const facts: (readonly [string, string])[] = [
    ["DEVICE", view.name],
    ["STANDING", `${view.standing}${heard}${view.healthy === false ? ", unhealthy" : ""}`],
    ["RUNS", version === null || digest === null ? "-" : build({ version, digest })],
    ["PREVIOUS", build(status?.previous ?? null)],
    ["FLOOR", status?.floor ?? "-"],
    ["TO BE", target ?? "-"],
    ["ROLLOUT", view.rollout ?? "-"],
    ["UPGRADE", upgradeText(view)],
    ["FETCHED", fetchedText(status)],
    ["MACHINE", status === null ? "-" : `${status.architecture}, ${status.libc}`],
    ["EXECUTOR", status?.executor ?? "-"],
    ["BOOT", heartbeat?.boot ?? status?.boot ?? "-"],
    ["LABELS", labelsText(view.labels)],
    ...staleFacts(status),
  ];
  return renderFacts(facts, width);
}

function staleFacts(status: DeviceStatus | null): (readonly [string, string])[] {
  const stale = status?.stale_metadata;
  if (stale === undefined) return [];
  const said = `${stale.version} is stale since ${stale.expires}: publish a later one`;
  return [["METADATA", said]];
}

/** "2.1 MiB for 45 MiB": the less, the more of it was here already. */
function fetchedText(status: DeviceStatus | null): string {
  const progress = status?.progress ?? null;
  if (progress === null) return "-";
  const { fetched_bytes: fetched, of_bytes: all, again_bytes: again } = progress;
  const twice = again === 0 ? "" : `, ${formatBytes(again)} of them again`;
  return `${formatBytes(fetched)} for ${formatBytes(all)}${twice}`;
}

/** Why nothing is begun just now; nothing where no older store was put back. */
export function settlingText(settles: number | null): string {
  if (settles === null) return "";
  const left = Math.ceil(settles / 1_000);
  return (
    `an older store was put back: for ${left} s more devices tell anew what they do, and nothing ` +
    "is begun or committed\n"
  );
}

function upgradeText(view: DeviceView): string {
  const { upgrade, progress_percent: percent, reason, cause } = view;
  // It says nothing of the version: the host itself could not.
  const word = upgrade === "failed" && cause === "host" ? "could not" : upgrade;
  const far = percent === null ? word : `${word} ${percent} %`;
  return reason === null ? far : `${far}: ${reason}`;
}

export function labelsText(labels: Readonly<Record<string, string>>): string {
  const words = Object.entries(labels).map(([key, value]) => escapeControls(`${key}=${value}`));
  return words.length === 0 ? "-" : words.join(",");
}

/** What runs on it, and from which file. */
export function renderRoles(roles: readonly RoleHealth[], width?: number): string {
  if (roles.length === 0) return "";
  const rows = roles.map(({ role, digest, healthy, reason }) => [
    role,
    digest?.slice(0, 12) ?? "-",
    healthy ? "yes" : "no",
    reason ?? "-",
  ]);
  return `\n${renderTableWithin(["ROLE", "DIGEST", "HEALTHY", "WHY"], rows, width)}`;
}

/** Its last words, when there are any. */
export function renderStatus(status: DeviceStatus | null): string {
  const words = status?.last_words ?? null;
  if (words === null) return "";
  const log = words.log.split("\n").map((line) => `    ${escapeControls(line)}\n`);
  // After the swap it was the canonical agent that failed: its words are told.
  const isAfter = status?.phase === "rolled-back" || status?.phase === "reverting";
  const who = isAfter ? "the version that failed" : "the candidate";
  return `\nwhat ${who} left: ${escapeControls(words.ending)}\n${log.join("")}`;
}

export function renderRollouts(rollouts: readonly RolloutView[]): string {
  if (rollouts.length === 0) return "nothing was rolled out yet\n";
  const columns = [
    "ROLLOUT",
    "VERSION",
    "PHASE",
    "WAVE",
    "DONE",
    "UNDER WAY",
    "FAILED",
    "COULD NOT",
    "AWAY",
    "SUPERSEDED",
  ];
  const rows = rollouts.map(({ name, version, phase, wave, waves, counts }) => [
    name,
    version,
    phase,
    `${wave} of ${waves}`,
    `${counts.done} of ${counts.members}`,
    String(counts.flight),
    String(counts.failed),
    String(counts.hindered),
    String(counts.away),
    String(counts.superseded),
  ]);
  const why = rollouts.flatMap(({ name, reason, waits_for: waitsFor }) => [
    ...(reason === null ? [] : [`${name}: ${escapeControls(reason)}\n`]),
    ...(waitsFor === null ? [] : [`${name} waits for ${escapeControls(waitsFor)}\n`]),
  ]);
  return renderTable(columns, rows) + why.join("");
}

const changeWords = {
  begun: "begun",
  paused: "paused",
  resumed: "resumed",
  aborted: "aborted",
  wave: "next wave",
  complete: "complete",
} satisfies Record<RolloutChange["what"], string>;

/** "2026-11-30 08:25:50", UTC. */
const timeText = (time: number) => new Date(time).toISOString().slice(0, 19).replace("T", " ");

/** What became of a rollout, when, and by whom; "-" is its operator itself. */
export function renderChanges({ changes }: RolloutView, width?: number): string {
  if (changes.length === 0) return "";
  const rows = changes.map(({ time, what, by, reason }) => [
    timeText(time),
    changeWords[what],
    by ?? "-",
    reason ?? "-",
  ]);
  return `\n${renderTableWithin(["WHEN (UTC)", "WHAT", "BY", "WHY"], rows, width)}`;
}

/** When each was begun, by whom, and what came last, the newest first. */
export function renderBeginnings(rollouts: readonly RolloutView[], width?: number): string {
  const rows = rollouts.flatMap(({ name, changes }) => {
    const [first, last] = [changes[0], changes.at(-1)];
    if (first === undefined || last === undefined) return [];
    const then = `${changeWords[last.what]} ${timeText(last.time)}`;
    return [[name, timeText(first.time), first.by ?? "-", then, last.by ?? "-"]];
  });
  if (rows.length === 0) return "";
  return `\n${renderTableWithin(["ROLLOUT", "BEGUN (UTC)", "BY", "LAST", "BY"], rows, width)}`;
}

const standingWords = {
  done: "done",
  failed: "failed",
  hindered: "could not",
  flight: "under way",
  returning: "taken back",
  waiting: "waiting",
  away: "away",
  unfit: "can not have it",
  superseded: "superseded",
} satisfies Record<RolloutMember["standing"], string>;

/** Those that somebody looks for come first. */
const order: readonly RolloutMember["standing"][] = [
  ...(["failed", "hindered", "flight", "returning", "waiting", "away", "unfit"] as const),
  ...(["done", "superseded"] as const),
];
/** Devices of one standing that people are told; `--json` has all. */
export const SHOWN_MEMBERS = 50;

/** A rollout's devices, and what became of each. */
export function renderMembers(members: readonly RolloutMember[], width?: number): string {
  if (members.length === 0) return "";
  const groups = Map.groupBy(members, ({ standing }) => standing);
  const shown = order.flatMap((standing) => (groups.get(standing) ?? []).slice(0, SHOWN_MEMBERS));
  const rows = shown.map(({ device, standing, reason, superseded_by: by }) => {
    const now = by === null ? [] : [`rollout ${by} has it now`];
    const why = [...(reason === null ? [] : [reason]), ...now].join("; ");
    return [device, standingWords[standing], why === "" ? "-" : why];
  });
  const left = order.flatMap((standing) => {
    const more = (groups.get(standing)?.length ?? 0) - SHOWN_MEMBERS;
    return more > 0 ? [`${more} more ${standingWords[standing]}: --json has all\n`] : [];
  });
  return `\n${renderTableWithin(["DEVICE", "STANDING", "WHY"], rows, width)}${left.join("")}`;
}

export function renderNamed({ named }: RolloutView): string {
  if (named.length === 0) return "";
  const rows = named.map(({ device, standing, reason }) => [
    device,
    standing,
    escapeControls(reason),
  ]);
  return `\n${renderTable(["DEVICE", "STANDING", "WHY"], rows)}`;
}

/** As Prometheus reads them: https://prometheus.io/docs/instrumenting/exposition_formats/ */
export function renderMetrics(samples: readonly FleetSampleView[]): string {
  return [...Map.groupBy(samples, ({ name }) => name)]
    .flatMap(([name, all]) => {
      const { help = "", type = "gauge" } = all[0] ?? {};
      return sampleLines({ name, help }, type, all);
    })
    .map((line) => `${line}\n`)
    .join("");
}
