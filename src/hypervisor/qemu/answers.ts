import * as v from "valibot";
import type { GuestState, MachineCounters, VmmEvent } from "../driver.ts";
import { AGENT_DEVICE, CONSOLE_CHANNEL } from "./plan.ts";
import { diskOfNode } from "./plan-disks.ts";
import type { QmpEvent } from "./qmp.ts";

/**
 * What QEMU answers and tells, in the seam's words: pure. The names are those of its schema
 * (qapi/run-state.json, block-core.json, machine.json, migration.json). All that comes from QEMU
 * is checked: a guest that broke out of it may speak there.
 */

const count = v.pipe(v.number(), v.minValue(0));

export const statusSchema = v.object({ status: v.string() });

/** RunState, qapi/run-state.json. */
const guestStates: Readonly<Record<string, GuestState>> = {
  prelaunch: "created",
  running: "running",
  // Asleep by the guest's own wish: a key or its clock wakes it.
  suspended: "running",
  inmigrate: "incoming",
  shutdown: "off",
  "guest-panicked": "panicked",
  // KVM could not go on with what the guest did.
  "internal-error": "panicked",
  paused: "paused",
  postmigrate: "paused",
  "finish-migrate": "paused",
  "io-error": "paused",
  watchdog: "paused",
  debug: "paused",
  "save-vm": "paused",
  "restore-vm": "paused",
  colo: "paused",
};

/** undefined for a word that we do not know. */
export function guestStateOf(status: string): GuestState | undefined {
  return Object.hasOwn(guestStates, status) ? guestStates[status] : undefined;
}

export const blockStatisticsSchema = v.array(
  v.object({
    "node-name": v.optional(v.string()),
    stats: v.object({
      rd_bytes: count,
      wr_bytes: count,
      rd_operations: count,
      wr_operations: count,
    }),
  }),
);

/** Disks of the plan; other nodes, as the firmware's, are left out. */
export function diskCountersOf(
  statistics: v.InferOutput<typeof blockStatisticsSchema>,
): MachineCounters["disks"] {
  return statistics.flatMap(({ "node-name": node, stats }) => {
    const id = node === undefined ? undefined : diskOfNode(node);
    if (id === undefined) return [];
    return [
      {
        id,
        readBytes: stats.rd_bytes,
        writtenBytes: stats.wr_bytes,
        reads: stats.rd_operations,
        writes: stats.wr_operations,
      },
    ];
  });
}

export const balloonSchema = v.object({ actual: count });

/** ChardevInfo, qapi/char.json. */
export const channelsSchema = v.array(v.object({ label: v.string(), filename: v.string() }));

/** Whether this is the serial port, and nobody is connected to it. */
export const isConsoleAlone = (channel: v.InferOutput<typeof channelsSchema>[number]): boolean =>
  channel.label === CONSOLE_CHANNEL && channel.filename.startsWith("disconnected:");

export const processorsSchema = v.array(
  v.object({ "thread-id": v.pipe(v.number(), v.integer(), v.minValue(1)) }),
);

export const migrationSchema = v.object({
  status: v.optional(v.string()),
  "error-desc": v.optional(v.string()),
  ram: v.optional(
    v.object({ total: count, remaining: count, transferred: count, "dirty-sync-count": count }),
  ),
});

/** Jobs of the block layer, by the name that they were given. */
export const blockJobsSchema = v.array(v.object({ device: v.string(), offset: count, len: count }));

export const blockNodesSchema = v.array(v.object({ "node-name": v.optional(v.string()) }));

/** BLOCK_JOB_READY, BLOCK_JOB_COMPLETED, BLOCK_JOB_CANCELLED of qapi/block-core.json. */
export const blockJobEventSchema = v.object({
  device: v.string(),
  error: v.optional(v.string()),
});

/** MigrationStatus, qapi/migration.json: the ones after which nothing follows. */
export function migrationEnd(status: string | undefined): "completed" | "failed" | undefined {
  if (status === "completed") return "completed";
  return status === "failed" || status === "cancelled" ? "failed" : undefined;
}

const shutdownSchema = v.object({ guest: v.optional(v.boolean(), false) });
const portChangeSchema = v.object({ id: v.literal(AGENT_DEVICE), open: v.literal(false) });
const blockErrorSchema = v.object({
  "node-name": v.optional(v.string(), ""),
  operation: v.optional(v.string(), "use"),
  action: v.optional(v.string(), "report"),
  reason: v.optional(v.string(), "it did not say why"),
});

/** What has happened before decides what the next event means. */
export interface EventContext {
  /** The guest has run before, so that it goes on and does not begin. */
  readonly hasRun: boolean;
  /** The guest ended: QEMU pauses then, which is nobody's pause. */
  readonly hasEnded: boolean;
}

/** An event as the seam has it; undefined for those that nobody needs. */
export function eventOf(event: QmpEvent, context: EventContext): VmmEvent | undefined {
  switch (event.event) {
    case "RESUME":
      return { kind: context.hasRun ? "resumed" : "booted" };
    case "STOP":
      return context.hasEnded ? undefined : { kind: "paused" };
    case "RESET":
      return { kind: "guest-reset" };
    case "GUEST_PANICKED":
      return { kind: "guest-panic" };
    case "SHUTDOWN": {
      const parsed = v.safeParse(shutdownSchema, event.data);
      return { kind: "guest-off", by: parsed.success && parsed.output.guest ? "guest" : "host" };
    }
    case "VSERPORT_CHANGE":
      return v.is(portChangeSchema, event.data) ? { kind: "agent-left" } : undefined;
    case "BLOCK_IO_ERROR":
      return diskErrorOf(event.data);
    default:
      return undefined;
  }
}

/** Letters of a reason that are told. */
const LONGEST_REASON = 200;

function diskErrorOf(data: unknown): VmmEvent | undefined {
  const parsed = v.safeParse(blockErrorSchema, data);
  if (!parsed.success) return undefined;
  const { "node-name": node, operation, action, reason } = parsed.output;
  return {
    kind: "disk-error",
    disk: (diskOfNode(node)?.split(".")[0] ?? node).slice(0, LONGEST_REASON),
    reason: `${operation}: ${reason}`.slice(0, LONGEST_REASON),
    pauses: action === "stop",
  };
}
