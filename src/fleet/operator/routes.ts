import { describePrincipal } from "../../http/principal.ts";
import { ProblemError } from "../../http/problem.ts";
import { defineRoute, defineStream, type Route, type StreamRoute } from "../../http/route.ts";
import type { Marker } from "../protocol.ts";
import { fleetApi, fleetStreams, operatorLimits, type RolloutView } from "../protocol-operator.ts";
import { fleetMetrics } from "./gauges.ts";
import { meant } from "./lifecycle-slot.ts";
import type { DeviceState, FleetEvent, RolloutRecord, RolloutState } from "./lifecycle-state.ts";
import {
  devicesInOrder,
  deviceView,
  membersOf,
  rolloutsInOrder,
  rolloutView,
  settlesFor,
} from "./lifecycle-view.ts";
import type { FleetOperator } from "./operator.ts";

/** @throws ProblemError while another operator acts */
type Acting = () => FleetOperator;

/**
 * What an operator of a fleet can be asked by people and programs.
 * @param isRevoked whether a host never speaks again
 */
export function operatorRoutes(
  acting: Acting,
  isRevoked: (host: string) => boolean,
): readonly Route[] {
  return [...readingRoutes(acting), ...deviceRoutes(acting, isRevoked), ...rolloutRoutes(acting)];
}

export function operatorStreams(acting: Acting): readonly StreamRoute[] {
  return [
    defineStream({
      ...fleetStreams.events,
      async *stream(call, _input, after) {
        for await (const { id, data } of acting().book.follow(after, call.signal)) {
          yield { id, event: data.what, data };
        }
      },
    }),
  ];
}

function readingRoutes(acting: Acting): readonly Route[] {
  return [
    defineRoute({
      ...fleetApi.devices,
      run(_call, { after = "" }) {
        const operator = acting();
        const all = devicesInOrder(operator.state);
        const rest = all.filter(({ name }) => name > after);
        const page = rest.slice(0, operatorLimits.page);
        const { context } = operator;
        return {
          devices: page.map((device) => deviceView(device, context)),
          total: all.length,
          next: rest.length > page.length ? (page.at(-1)?.name ?? null) : null,
          settles_ms: settlesFor(operator.state, context.now),
        };
      },
    }),
    defineRoute({
      ...fleetApi.device,
      run(_call, { device: name }) {
        const operator = acting();
        const device = deviceOf(operator, name);
        return {
          device: deviceView(device, operator.context),
          status: device.status?.value ?? null,
          canonical: device.canonical?.heartbeat ?? null,
          candidate: device.candidate?.heartbeat ?? null,
          marker: markerView(meant(device.marker)),
        };
      },
    }),
    defineRoute({
      ...fleetApi.eventsKept,
      run(_call, { after }) {
        const { book } = acting();
        const events = book.after(after).map(({ id, data: event }) => ({ id, event }));
        return { events, last: book.last, known: after !== undefined && book.knows(after) };
      },
    }),
    defineRoute({
      ...fleetApi.metrics,
      run: () => {
        const operator = acting();
        return {
          metrics: fleetMetrics.flatMap(({ name, help, type, read }) =>
            read(operator).map((sample) => ({ name, help, type, ...sample })),
          ),
        };
      },
    }),
    defineRoute({
      ...fleetApi.rollouts,
      run() {
        const { state, context } = acting();
        const rollouts = rolloutsInOrder(state).flatMap((rollout) => {
          const view = rolloutView(rollout);
          return view === undefined ? [] : [view];
        });
        return { rollouts, settles_ms: settlesFor(state, context.now) };
      },
    }),
    defineRoute({
      ...fleetApi.members,
      run(_call, { rollout: name, after = "" }) {
        const operator = acting();
        rolloutOf(operator, name);
        const all = membersOf(operator.state, operator.context, name);
        const rest = all.filter(({ device }) => device > after);
        const members = rest.slice(0, operatorLimits.page);
        const next = rest.length > members.length ? (members.at(-1)?.device ?? null) : null;
        return { members, total: all.length, next };
      },
    }),
    defineRoute({
      ...fleetApi.rollout,
      run(_call, { rollout: name }) {
        const operator = acting();
        const { record } = rolloutOf(operator, name);
        const { manifest: _manifest, ...spec } = record.spec;
        const settles_ms = settlesFor(operator.state, operator.context.now);
        return { rollout: viewOf(operator, name), spec, settles_ms };
      },
    }),
  ];
}

function deviceRoutes(acting: Acting, isRevoked: (host: string) => boolean): readonly Route[] {
  return [
    defineRoute({
      ...fleetApi.label,
      async run(call, { device, labels }) {
        const operator = acting();
        const before = meant(deviceOf(operator, device).labels) ?? {};
        await post(operator, { kind: "label", device, labels });
        call.changed({ object: `device ${device}`, before: { labels: before }, after: { labels } });
        return {};
      },
    }),
    defineRoute({
      ...fleetApi.forget,
      async run(call, { device }) {
        await post(acting(), { kind: "forget", device, isRevoked: isRevoked(device) });
        call.changed({ object: `device ${device}`, after: "forgotten" });
        return {};
      },
    }),
  ];
}

function rolloutRoutes(acting: Acting): readonly Route[] {
  const change = async (
    call: Parameters<Route["run"]>[0],
    event: Extract<FleetEvent, { readonly kind: "pause" | "resume" | "abort" }>,
  ): Promise<RolloutView> => {
    const operator = acting();
    const { rollout: name } = event;
    const before = rolloutOf(operator, name).record.phase;
    await post(operator, { ...event, by: describePrincipal(call.principal) });
    const after = rolloutOf(operator, name).record.phase;
    call.changed({ object: `rollout ${name}`, before, after });
    return viewOf(operator, name);
  };
  return [
    defineRoute({
      ...fleetApi.create,
      async run(call, { name, spec, allow_unknown: mayBeUnknown = false }) {
        const operator = acting();
        const by = describePrincipal(call.principal);
        await post(operator, { kind: "create", name, spec, mayBeUnknown, by });
        const { manifest: _manifest, ...after } = spec;
        call.changed({ object: `rollout ${name}`, after });
        return viewOf(operator, name);
      },
    }),
    defineRoute({
      ...fleetApi.pause,
      run: async (call, { rollout, reason = "somebody paused it" }) =>
        await change(call, { kind: "pause", rollout, reason }),
    }),
    defineRoute({
      ...fleetApi.resume,
      run: async (call, { rollout, retry = false }) =>
        await change(call, { kind: "resume", rollout, retry }),
    }),
    defineRoute({
      ...fleetApi.abort,
      run: async (call, { rollout, reason = "somebody aborted it" }) =>
        await change(call, { kind: "abort", rollout, reason }),
    }),
  ];
}

/** Answered when it is durable. @throws ProblemError for what is refused; StoreError */
async function post(operator: FleetOperator, event: FleetEvent): Promise<void> {
  const { refusal, written } = operator.post(event);
  if (refusal !== undefined) {
    const { kind, message, ...words } = refusal;
    throw new ProblemError(kind, message, words);
  }
  await written;
}

function markerView(marker: Marker | undefined): Omit<Marker, "manifest"> | null {
  if (marker === undefined) return null;
  const { manifest: _manifest, ...rest } = marker;
  return rest;
}

function deviceOf({ state }: FleetOperator, name: string): DeviceState {
  const device = state.devices.get(name);
  if (device !== undefined) return device;
  throw new ProblemError("not-found", `There is no device ${name}`, {
    expected: "a device that was heard once",
    received: name,
    hint: "hostler fleet devices lists them",
  });
}

function rolloutOf(
  { state }: FleetOperator,
  name: string,
): { readonly rollout: RolloutState; readonly record: RolloutRecord } {
  const rollout = state.rollouts.get(name);
  const record = rollout === undefined ? undefined : meant(rollout.record);
  if (rollout !== undefined && record !== undefined) return { rollout, record };
  throw new ProblemError("not-found", `There is no rollout ${name}`, {
    expected: "the name of a rollout",
    received: name,
    hint: "hostler fleet history lists them",
  });
}

function viewOf(operator: FleetOperator, name: string): RolloutView {
  const { rollout } = rolloutOf(operator, name);
  const view = rolloutView(rollout);
  if (view === undefined) throw new Error(`Bug: rollout ${name} has no record`);
  return view;
}
