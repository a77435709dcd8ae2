import type { Inventory } from "../../hardware/inventory.ts";
import { DISABLED_BY_SELF_TEST, DISABLED_BY_SETUP } from "../../hardware/smbios-records.ts";
import { milliseconds } from "../../units/units.ts";
import type { Coverage, Finding, StageReport } from "../protocol-result.ts";
import { INVENTORY_TASK, inventoryReportSchema } from "../tasks/inventory.ts";
import {
  commonDeltas,
  emptyTold,
  finding,
  missingSensors,
  notSeen,
  reportOf,
  shortened,
  stageReport,
} from "./findings.ts";
import type { StageContext, StageDefinition, StageDone, TaskPlan } from "./stage.ts";

/**
 * What the host is made of. Whether that is what it should be made of is the spec's word, on the
 * orchestrator's side; here is judged what contradicts itself, and what could not be looked at.
 */
export const inventory: StageDefinition = { stage: "Inventory", plan, judge };

function plan({ settings }: StageContext): readonly TaskPlan[] {
  const own = settings.Inventory;
  if (!own.enabled) return [];
  return [
    {
      id: "inventory",
      task: INVENTORY_TASK,
      input: {},
      component: "host",
      deadline: milliseconds(own.deadline.base_s * 1_000),
      group: 0,
    },
  ];
}

function judge({ settings }: StageContext, done: StageDone): StageReport {
  const own = settings.Inventory;
  const told = emptyTold();
  const task = done.tasks[0];
  const found =
    task === undefined ? undefined : reportOf(inventoryReportSchema, task, "The inventory", told);
  told.findings.push(...missingSensors(done), ...commonDeltas(done, []));
  if (found === undefined) {
    const summary = told.findings[0]?.message ?? "The spec leaves this stage out";
    return stageReport({ ...told, summary, deltas: [...done.deltas] });
  }
  told.findings.push(...seen(found), ...contradictions(found), ...unseen(found, own.required));
  told.coverage.push(...coverageOf(found));
  told.engines.push({ task: INVENTORY_TASK, engine: "hostler", version: null });
  const summary = summaryOf(found);
  return stageReport({ ...told, summary, deltas: [...done.deltas], inventory: found });
}

/** A host without a processor or memory was not looked at, whatever else was found. */
function seen(inventory: Inventory): Finding[] {
  if (inventory.processors.length > 0 && inventory.memory.usable_bytes > 0) {
    return [finding("PASS", "inventory", "host", summaryOf(inventory))];
  }
  const message = "Neither processors nor memory were found: /sys and /proc are not there";
  return [finding("ERROR", "nothing-found", "host", message)];
}

const GIBIBYTE = 1_024 ** 3;
const count = (number: number, what: string): string =>
  `${number} ${what}${number === 1 ? "" : "s"}`;

export function summaryOf(inventory: Inventory): string {
  const { memory, processors } = inventory;
  const bytes = memory.installed_bytes ?? memory.usable_bytes;
  const modules = memory.slots.filter((slot) => slot.size_bytes !== 0).length;
  const processor = processors[0]?.model ?? null;
  return shortened(
    [
      count(processors.length, "processor") + (processor === null ? "" : ` (${processor})`),
      count(inventory.threads_online, "thread"),
      `${Math.round((bytes / GIBIBYTE) * 10) / 10} GiB in ${count(modules, "module")}`,
      count(inventory.disks.length, "disk"),
      count(inventory.network.length, "network card"),
      count(inventory.graphics.length, "graphics card"),
      count(inventory.power_supplies.length, "power supply").replace("supplys", "supplies"),
    ].join(", "),
  );
}

/** What one source says against another, or against itself. */
function contradictions(inventory: Inventory): Finding[] {
  return [
    ...disabledProcessors(inventory),
    ...missingMemory(inventory),
    ...doubleSerials(inventory),
    ...firmwareFaults(inventory),
  ];
}

function disabledProcessors({ unseen: lines }: Inventory): Finding[] {
  return lines.flatMap(({ property, reason }) => {
    const socket = /^processors\[(.*)\]$/.exec(property)?.[1];
    if (socket === undefined) return [];
    const component = `processor ${socket}`;
    if (reason === DISABLED_BY_SELF_TEST) {
      return [finding("FAIL", "processor-disabled", component, `It is ${reason}`)];
    }
    if (reason !== DISABLED_BY_SETUP) return [];
    return [finding("WARN", "processor-disabled", component, `It is ${reason}`)];
  });
}

/** What a kernel and a firmware keep for themselves, at most, of what is installed. */
const KEPT_PART = 0.1;
const KEPT_BYTES = 512 * 1_024 ** 2;

/** A module that the firmware found bad is still in its slot, and its memory is not there. */
function missingMemory({ memory }: Inventory): Finding[] {
  const { installed_bytes: installed, usable_bytes: usable } = memory;
  if (installed === null) return [];
  const kept = Math.max(KEPT_BYTES, installed * KEPT_PART);
  if (usable >= installed - kept) return [];
  const details = { expected: `${installed} bytes, as SMBIOS says`, found: `${usable} bytes` };
  const message = "The kernel has much less memory than is installed: a module may be switched off";
  return [finding("WARN", "memory-missing", "host", message, details)];
}

function doubleSerials({ disks }: Inventory): Finding[] {
  const bySerial = new Map<string, string[]>();
  for (const { serial, name } of disks) {
    if (serial !== null) bySerial.set(serial, [...(bySerial.get(serial) ?? []), name]);
  }
  return [...bySerial].flatMap(([serial, names]) => {
    if (names.length === 1) return [];
    const message = `${names.join(", ")} have one serial: are they one disk, by several ways?`;
    return [finding("WARN", "serial-not-unique", `disk ${serial}`, message)];
  });
}

function firmwareFaults({ unseen: lines }: Inventory): Finding[] {
  return lines.flatMap(({ property, reason }) => {
    if (property.startsWith("smbios.fault")) {
      const message = `The SMBIOS table is wrong: ${reason}`;
      return [finding("WARN", "smbios-fault", "firmware", message)];
    }
    if (property !== "processors.socket") return [];
    return [finding("WARN", "processors-disagree", "host", reason)];
  });
}

/** Told once for each property, with all whose it is. */
function unseen({ unseen: lines }: Inventory, required: readonly string[]): Finding[] {
  const byProperty = new Map<string, { reason: string; owners: string[] }>();
  for (const { property, reason } of lines) {
    if (/^(smbios\.fault|processors\[)/.test(property)) continue;
    const owner = /\[([^\]]*)\]/.exec(property)?.[1];
    const name = property.replace(/\[[^\]]*\]/, "[*]");
    const known = byProperty.get(name) ?? { reason, owners: [] };
    if (owner !== undefined) known.owners.push(owner);
    byProperty.set(name, known);
  }
  return [...byProperty].map(([property, { reason, owners }]) => {
    const whose = owners.length === 0 ? "" : ` (of ${owners.join(", ")})`;
    return notSeen(property, "host", `${reason}${whose}`, required);
  });
}

function coverageOf({ disks, memory, network }: Inventory): Coverage[] {
  const of = (component: string, covered: number, total: number): Coverage[] =>
    total === 0 ? [] : [{ component, unit: "devices", covered, total, least: 0 }];
  return [
    ...of(
      "disks with a serial",
      disks.filter(({ serial }) => serial !== null).length,
      disks.length,
    ),
    ...of(
      "memory slots of known size",
      memory.slots.filter((slot) => slot.size_bytes !== null).length,
      memory.slots.length,
    ),
    ...of(
      "network cards with a carrier",
      network.filter(({ carrier }) => carrier === true).length,
      network.length,
    ),
  ];
}
