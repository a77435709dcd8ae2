import { renderTable } from "../../command-line/table.ts";
import { escapeControls } from "../../logging/format.ts";
import { formatDuration } from "../../units/units.ts";
import type { DeviceStatus, RoleHealth } from "../protocol.ts";
import type { DeviceView, RolloutView, ToldHappening } from "../protocol-operator.ts";

/** What an operator's answers look like to people. */

export function renderEvent(id: string, { what, message, time }: ToldHappening): string {
  const when = new Date(time).toISOString().slice(0, 19).replace("T", " ");
  return `${[when, id, what, message].map(escapeControls).join(" ")}\n`;
}

export function renderDevices(devices: readonly DeviceView[]): string {
  if (devices.length === 0) return "no device was heard yet\n";
  const columns = ["DEVICE", "STANDING", "HEARD", "RUNS", "TO BE", "UPGRADE", "ROLLOUT", "LABELS"];
  const rows = devices.map((device) => [
    device.name,
    device.healthy === false ? `${device.standing}, unhealthy` : device.standing,
    device.heard_ms === null ? "-" : `${formatDuration(device.heard_ms)} ago`,
    device.current_version ?? "-",
    device.target_version ?? "-",
    upgradeText(device),
    device.rollout ?? "-",
    labelsText(device.labels),
  ]);
  return renderTable(columns, rows);
}

function upgradeText({ upgrade, progress_percent: percent, reason }: DeviceView): string {
  const far = percent === null ? upgrade : `${upgrade} ${percent} %`;
  return reason === null ? far : `${far}: ${escapeControls(reason)}`;
}

export function labelsText(labels: Readonly<Record<string, string>>): string {
  const words = Object.entries(labels).map(([key, value]) => escapeControls(`${key}=${value}`));
  return words.length === 0 ? "-" : words.join(",");
}

/** What runs on it, and from which file. */
export function renderRoles(roles: readonly RoleHealth[]): string {
  if (roles.length === 0) return "";
  const rows = roles.map(({ role, digest, healthy, reason }) => [
    escapeControls(role),
    digest?.slice(0, 12) ?? "-",
    healthy ? "yes" : "no",
    reason === null ? "-" : escapeControls(reason),
  ]);
  return `\n${renderTable(["ROLE", "DIGEST", "HEALTHY", "WHY"], rows)}`;
}

/** Its last words, when there are any. */
export function renderStatus(status: DeviceStatus | null): string {
  const words = status?.last_words ?? null;
  if (words === null) return "";
  const log = words.log.split("\n").map((line) => `    ${escapeControls(line)}\n`);
  return `\nwhat the candidate left: ${escapeControls(words.ending)}\n${log.join("")}`;
}

export function renderRollouts(rollouts: readonly RolloutView[]): string {
  if (rollouts.length === 0) return "nothing was rolled out yet\n";
  const columns = ["ROLLOUT", "VERSION", "PHASE", "WAVE", "DONE", "UNDER WAY", "FAILED", "AWAY"];
  const rows = rollouts.map(({ name, version, phase, wave, waves, counts }) => [
    name,
    version,
    phase,
    `${wave} of ${waves}`,
    `${counts.done} of ${counts.members}`,
    String(counts.flight),
    String(counts.failed),
    String(counts.away),
  ]);
  const why = rollouts.flatMap(({ name, reason, waits_for: waitsFor }) => [
    ...(reason === null ? [] : [`${name}: ${escapeControls(reason)}\n`]),
    ...(waitsFor === null ? [] : [`${name} waits for ${waitsFor}\n`]),
  ]);
  return renderTable(columns, rows) + why.join("");
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
