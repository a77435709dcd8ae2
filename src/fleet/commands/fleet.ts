import { AuthorityClient } from "../../authority/client.ts";
import {
  type ClientFlags,
  placeOf,
  show as showAnswer,
} from "../../authority/commands/client-flags.ts";
import { printJson, printJsonLine, printText, tellText } from "../../command-line/output.ts";
import { ExitCode } from "../../units/exit-code.ts";
import {
  fleetApi,
  fleetStreams,
  type RolloutSpec,
  type ToldHappening,
} from "../protocol-operator.ts";
import { expectedOperator } from "./expected-operator.ts";
import {
  labelsText,
  renderBeginnings,
  renderChanges,
  renderDevice,
  renderDevices,
  renderEvent,
  renderMembers,
  renderMetrics,
  renderRoles,
  renderRollouts,
  renderStatus,
  settlingText,
  whyNotAfter,
} from "./fleet-words.ts";
import { type ManifestFlags, type RolloutFlags, readLabels, readRollout } from "./rollout-words.ts";

/** What a command asks a fleet's operator, and how it prints the answer. */

const show: typeof showAnswer = (flags, ask, render) =>
  showAnswer({ daemon: expectedOperator, ...flags }, ask, render);

interface DeviceFlags extends ClientFlags {
  readonly device: string;
}
interface OneRolloutFlags extends ClientFlags {
  readonly rollout: string;
}

const connect = (flags: ClientFlags): Promise<AuthorityClient> =>
  AuthorityClient.connect(placeOf({ daemon: expectedOperator, ...flags }));

/** All pages of a list. */
async function pagesOf<Page extends { readonly next: string | null }>(
  ask: (place: { readonly after?: string }) => Promise<Page>,
): Promise<Page[]> {
  const pages: Page[] = [];
  for (let place: { readonly after?: string } | undefined = {}; place !== undefined; ) {
    const page: Page = await ask(place);
    pages.push(page);
    place = page.next === null ? undefined : { after: page.next };
  }
  return pages;
}

export async function runDevices(flags: ClientFlags): Promise<number> {
  using client = await connect(flags);
  const pages = await pagesOf((place) => client.call(fleetApi.devices, place));
  const devices = pages.flatMap((page) => page.devices);
  const settles = pages.at(-1)?.settles_ms ?? null;
  if (flags.json) await printJson({ devices, settles_ms: settles });
  else await printText(renderDevices(devices, process.stdout.columns) + settlingText(settles));
  return ExitCode.done;
}

export async function runShow(flags: DeviceFlags): Promise<number> {
  const { device } = flags;
  return await show(
    flags,
    (client) => client.call(fleetApi.device, { device }),
    ({ device: view, status, canonical }) =>
      renderDevice(view, { status, heartbeat: canonical, width: process.stdout.columns }) +
      renderRoles(canonical?.roles ?? [], process.stdout.columns) +
      renderStatus(status),
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

/** What both ways to begin a rollout have. */
interface BeginFlags extends ClientFlags, ManifestFlags {
  readonly root: string | undefined;
  readonly follow: boolean;
  readonly "allow-unknown": boolean;
}

export async function runRollout(flags: BeginFlags & RolloutFlags): Promise<number> {
  const { name, spec } = readRollout(flags);
  return await begin(flags, name, spec);
}

/** Before anything is sent the release is checked, where a root set is at hand. */
async function begin(flags: BeginFlags, name: string, spec: RolloutSpec): Promise<number> {
  const { root, follow, json, "allow-unknown": allowed } = flags;
  const input = { name, spec, ...(allowed && { allow_unknown: true }) };
  if (root !== undefined) {
    const { checkManifest } = await import("./artifact-verify.ts");
    await checkManifest({ ...spec, root });
  } else if (!json) {
    tellText("Devices check the release's signature; --root FILE has it checked here as well\n");
  }
  if (follow) {
    using client = await connect(flags);
    await client.call(fleetApi.create, input);
    const { runWatch } = await import("./watch.ts");
    return await runWatch({ ...flags, rollout: name, timeout: undefined });
  }
  return await show(
    flags,
    (client) => client.call(fleetApi.create, input),
    (view) => renderRollouts([view]),
  );
}

export async function runUpgrade(flags: DeviceFlags & BeginFlags): Promise<number> {
  const { device, name } = flags;
  const read = readRollout({
    ...flags,
    ...{ canaries: undefined, wave: [], soak: "0s", "max-unavailable": "1" },
    ...{ failures: "0%", label: [], window: [], device: [device] },
  });
  return await begin(flags, name ?? `${device}.${read.name}`, read.spec);
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
      ({ rollouts, settles_ms }) =>
        renderRollouts(rollouts) +
        settlingText(settles_ms) +
        renderBeginnings(rollouts, process.stdout.columns),
    );
  }
  return await show(
    flags,
    async (client) => {
      const answer = await client.call(fleetApi.rollout, { rollout });
      const pages = await pagesOf((place) => client.call(fleetApi.members, { rollout, ...place }));
      return { ...answer, members: pages.flatMap(({ members }) => members) };
    },
    ({ rollout: view, members, settles_ms }) =>
      renderRollouts([view]) +
      settlingText(settles_ms) +
      renderChanges(view, process.stdout.columns) +
      renderMembers(members, process.stdout.columns),
  );
}

export async function runEvents(
  flags: ClientFlags & { readonly follow: boolean; readonly after: string | undefined },
): Promise<number> {
  using client = await connect(flags);
  const { after, follow, json } = flags;
  const tell = async (id: string, event: ToldHappening) => {
    if (json) await printJsonLine({ id, ...event });
    else await printText(renderEvent(id, event));
  };
  if (!follow || after !== undefined) {
    const { events, last, known } = await client.call(fleetApi.eventsKept, {
      ...(after !== undefined && { after }),
    });
    const more = { first: events[0]?.id, isKnown: known };
    const why = after === undefined ? undefined : whyNotAfter(after, last, more);
    if (why !== undefined) tellText(`${why}\n`);
    if (!follow) {
      for (const { id, event } of events) await tell(id, event);
      return ExitCode.done;
    }
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
    ({ metrics }) => renderMetrics(metrics),
  );
}
