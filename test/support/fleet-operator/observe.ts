/** What every cell of the device's table is seen to do, over all lives and shapes of events. */
import {
  type DeviceTable,
  deviceTable,
  phaseOf,
  stepDevice,
} from "../../../src/fleet/operator/lifecycle-device.ts";
import type {
  DeviceEvent,
  DeviceEventKind,
  DeviceState,
} from "../../../src/fleet/operator/lifecycle-state.ts";
import { type DevicePhase, devicePhases } from "../../../src/fleet/protocol-operator.ts";
import { type DeviceLife, makeDeviceEvents, makeDeviceLives, settings } from "./device-life.ts";

export interface Seen {
  readonly phase: DevicePhase;
  readonly event: DeviceEventKind;
  readonly leadsTo: Set<DevicePhase>;
  /** What a marker was written for. */
  readonly writes: Set<string>;
  /** The parts of the state that it changed. */
  readonly changes: Set<string>;
}

export interface Case {
  readonly life: DeviceLife;
  readonly phase: DevicePhase;
  readonly kind: DeviceEventKind;
  readonly told: readonly { readonly at: number; readonly event: DeviceEvent }[];
}

export const keyOf = (phase: DevicePhase, event: DeviceEventKind) => `${phase} × ${event}`;

/** Every life with every event: at once, after the probation, and after a silence. */
export function makeCases(): readonly Case[] {
  return makeDeviceLives(stepDevice).flatMap(({ life }) =>
    Object.entries(makeDeviceEvents(life)).map(([kind, events]) => ({
      life,
      phase: life.phase,
      kind: kind as DeviceEventKind,
      told: events.flatMap((event) =>
        [0, settings.probation, settings.silentAfter + 1].map((later) => ({
          at: life.now + later,
          event,
        })),
      ),
    })),
  );
}

/** What all cells do, under this table. */
export function observe(cases = makeCases(), table: DeviceTable = deviceTable): Map<string, Seen> {
  const seen = new Map<string, Seen>();
  for (const { life, phase, kind, told } of cases) {
    const key = keyOf(phase, kind);
    const cell = seen.get(key) ?? {
      ...{ phase, event: kind, leadsTo: new Set(), writes: new Set(), changes: new Set() },
    };
    seen.set(key, cell);
    for (const { at, event } of told) {
      const { device, mayCommit } = life;
      const outcome = stepDevice(device, event, { now: at, settings, mayCommit }, table);
      note(cell, device, outcome);
    }
  }
  return seen;
}

function note(cell: Seen, before: DeviceState, outcome: ReturnType<typeof stepDevice>): void {
  const { device, write } = outcome;
  if (write !== undefined) cell.writes.add(whatIsWritten(before, write.value));
  if (Bun.deepEquals(before, device)) return;
  cell.leadsTo.add(phaseOf(device));
  for (const part of Object.keys(before)) {
    const isSame = Bun.deepEquals(Reflect.get(before, part), Reflect.get(device, part));
    if (!isSame) cell.changes.add(part);
  }
}

function whatIsWritten(before: DeviceState, marker: DeviceState["marker"]["stored"]): string {
  const { pending, stored } = before.marker;
  const old = pending === undefined ? stored : pending.value;
  if (marker === undefined) return "nothing";
  if (old === undefined || marker.transaction !== old.transaction) return "a marker";
  if (marker.withdrawn !== old.withdrawn) return "withdrawn";
  if (marker.commit !== old.commit) return "commit";
  return marker.observed === old.observed ? "the same again" : "observed";
}

/** What stands in src/fleet/operator/lifecycle-table.md. */
export function writeTableDocument(observed: ReadonlyMap<string, Seen>): string {
  const reasons: string[] = [];
  const sections = devicePhases.flatMap((phase) => {
    const ignored = new Map<number, string[]>();
    const rows: string[] = [];
    for (const [event, cell] of sortedCells(phase)) {
      if (typeof cell === "object") {
        if (!reasons.includes(cell.ignored)) reasons.push(cell.ignored);
        const number = reasons.indexOf(cell.ignored) + 1;
        ignored.set(number, [...(ignored.get(number) ?? []), event]);
      } else rows.push(writeCell(phase, event, observed.get(keyOf(phase, event))));
    }
    const others = [...ignored].map(([number, events]) => `${events.join(", ")} (${number})`);
    const head = ["| event | leads to | writes | changes |", "|---|---|---|---|"];
    const rest = others.length === 0 ? [] : [`Ignored: ${others.join("; ")}.`, ""];
    return [`## ${phase}`, "", ...head, ...rows, "", ...rest];
  });
  return [
    "# A device as its operator sees it: every phase × every event",
    "",
    "Made from `deviceTable` in `lifecycle-device.ts`, and from what the lives in",
    "`test/support/fleet-operator` see it do; a unit test compares. Written anew by",
    "`UPDATE_TABLES=1 bun test test/unit/fleet/operator-device.test.ts`.",
    "",
    "→ leads to these phases; = is handled and stays in the phase. Then what of the marker is",
    "written, in any of its cases, and what changes of what is known.",
    "",
    ...sections,
    "## Why an event is ignored",
    "",
    ...reasons.map((reason, index) => `${index + 1}. ${reason}`),
    "",
  ].join("\n");
}

function sortedCells(phase: DevicePhase) {
  return (
    Object.entries(deviceTable[phase]) as [DeviceEventKind, { readonly ignored: string }][]
  ).sort(([one], [other]) => (one < other ? -1 : 1));
}

/** One line: what a cell leads to, writes and changes. */
export function writeCell(
  phase: DevicePhase,
  event: DeviceEventKind,
  seen: Seen | undefined,
): string {
  const leadsTo = devicePhases.filter((one) => seen?.leadsTo.has(one));
  const others = leadsTo.filter((one) => one !== phase);
  const stays = leadsTo.includes(phase) || leadsTo.length === 0;
  const where = [stays ? "=" : "", others.length > 0 ? `→ ${others.join(", ")}` : ""];
  const list = (set: ReadonlySet<string> | undefined) => [...(set ?? [])].sort().join(", ");
  const way = where.filter((part) => part !== "").join(" ");
  return `| ${[event, way, list(seen?.writes), list(seen?.changes)].join(" | ")} |`;
}
