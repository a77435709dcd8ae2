import { AuthorityClient } from "../../authority/client.ts";
import { type ClientFlags, placeOf, show } from "../../authority/commands/client-flags.ts";
import { printJson, printJsonLine, printText } from "../../command-line/output.ts";
import { renderTable } from "../../command-line/table.ts";
import { escapeControls } from "../../logging/format.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { formatDuration } from "../../units/units.ts";
import type { DeviceStatus } from "../protocol.ts";
import {
  type DeviceView,
  fleetApi,
  fleetStreams,
  type RolloutView,
  type ToldHappening,
} from "../protocol-operator.ts";
import { type ManifestFlags, type RolloutFlags, readLabels, readRollout } from "./rollout-words.ts";

/** What a command asks a fleet's operator, and how it prints the answer. */

interface DeviceFlags extends ClientFlags {
  readonly device: string;
}
interface OneRolloutFlags extends ClientFlags {
  readonly rollout: string;
}

export async function runDevices(flags: ClientFlags): Promise<number> {
  using client = await AuthorityClient.connect(placeOf(flags));
  const devices: DeviceView[] = [];
  for (let after: string | null = ""; after !== null; ) {
    const input: { after?: string } = after === "" ? {} : { after };
    const page: { devices: DeviceView[]; next: string | null } = await client.call(
      fleetApi.devices,
      input,
    );
    devices.push(...page.devices);
    after = page.next;
  }
  if (flags.json) await printJson({ devices });
  else await printText(renderDevices(devices));
  return ExitCode.done;
}

export async function runShow(flags: DeviceFlags): Promise<number> {
  const { device } = flags;
  return await show(
    flags,
    (client) => client.call(fleetApi.device, { device }),
    ({ device: view, status }) => renderDevices([view]) + renderStatus(status),
  );
}

export async function runLabel(
  flags: DeviceFlags & { readonly label: readonly string[] },
): Promise<number> {
  const { device } = flags;
  const labels = readLabels(flags.label);
  return await show(
    flags,
    (client) => client.call(fleetApi.label, { device, labels }),
    () => `${device}: ${labelsText(labels)}\n`,
  );
}

export async function runForget(flags: DeviceFlags): Promise<number> {
  const { device } = flags;
  return await show(
    flags,
    (client) => client.call(fleetApi.forget, { device }),
    () => `${device} is forgotten\n`,
  );
}

export async function runRollout(flags: ClientFlags & RolloutFlags): Promise<number> {
  const { name, spec } = readRollout(flags);
  return await show(
    flags,
    (client) => client.call(fleetApi.create, { name, spec }),
    (view) => renderRollouts([view]),
  );
}

export async function runUpgrade(flags: DeviceFlags & ManifestFlags): Promise<number> {
  const { device, name } = flags;
  const read = readRollout({
    ...flags,
    ...{ canaries: undefined, wave: [], soak: "0s", "max-unavailable": "1" },
    ...{ failures: "0%", label: [], window: [], device: [device] },
  });
  const called = name ?? `${device}.${read.name}`;
  return await show(
    flags,
    (client) => client.call(fleetApi.create, { name: called, spec: read.spec }),
    (view) => renderRollouts([view]),
  );
}

export async function runPause(
  flags: OneRolloutFlags & { readonly reason: string | undefined },
): Promise<number> {
  const { rollout, reason } = flags;
  return await show(
    flags,
    (client) => client.call(fleetApi.pause, { rollout, ...(reason !== undefined && { reason }) }),
    (view) => renderRollouts([view]),
  );
}

export async function runResume(
  flags: OneRolloutFlags & { readonly retry: boolean },
): Promise<number> {
  const { rollout, retry } = flags;
  return await show(
    flags,
    (client) => client.call(fleetApi.resume, { rollout, retry }),
    (view) => renderRollouts([view]),
  );
}

export async function runAbort(
  flags: OneRolloutFlags & { readonly reason: string | undefined },
): Promise<number> {
  const { rollout, reason } = flags;
  return await show(
    flags,
    (client) => client.call(fleetApi.abort, { rollout, ...(reason !== undefined && { reason }) }),
    (view) => renderRollouts([view]),
  );
}

export async function runHistory(
  flags: ClientFlags & { readonly rollout: string | undefined },
): Promise<number> {
  const { rollout } = flags;
  if (rollout === undefined) {
    return await show(
      flags,
      (client) => client.call(fleetApi.rollouts, {}),
      ({ rollouts }) => renderRollouts(rollouts),
    );
  }
  return await show(
    flags,
    (client) => client.call(fleetApi.rollout, { rollout }),
    ({ rollout: view }) => renderRollouts([view]) + renderNamed(view),
  );
}

export async function runEvents(
  flags: ClientFlags & { readonly follow: boolean; readonly after: string | undefined },
): Promise<number> {
  using client = await AuthorityClient.connect(placeOf(flags));
  const { after, follow, json } = flags;
  const tell = async (id: string, event: ToldHappening) => {
    if (json) await printJsonLine({ id, ...event });
    else await printText(renderEvent(id, event));
  };
  if (!follow) {
    const { events } = await client.call(fleetApi.eventsKept, {
      ...(after !== undefined && { after }),
    });
    for (const { id, event } of events) await tell(id, event);
    return ExitCode.done;
  }
  const { signal } = new AbortController();
  for await (const { id, data } of client.stream(fleetStreams.events, {}, { after, signal })) {
    await tell(id, data);
  }
  return ExitCode.done;
}

export async function runMetrics(flags: ClientFlags): Promise<number> {
  return await show(
    flags,
    (client) => client.call(fleetApi.metrics, {}),
    ({ metrics }) =>
      metrics
        .map(
          ({ name, help, value }) =>
            `# HELP ${name} ${help}\n# TYPE ${name} gauge\n${name} ${value}\n`,
        )
        .join(""),
  );
}

function renderEvent(id: string, { what, message, time }: ToldHappening): string {
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

function labelsText(labels: Readonly<Record<string, string>>): string {
  const words = Object.entries(labels).map(([key, value]) => escapeControls(`${key}=${value}`));
  return words.length === 0 ? "-" : words.join(",");
}

/** Its last words, when there are any. */
function renderStatus(status: DeviceStatus | null): string {
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

function renderNamed({ named }: RolloutView): string {
  if (named.length === 0) return "";
  const rows = named.map(({ device, standing, reason }) => [
    device,
    standing,
    escapeControls(reason),
  ]);
  return `\n${renderTable(["DEVICE", "STANDING", "WHY"], rows)}`;
}
