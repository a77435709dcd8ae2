import * as v from "valibot";
import { describeIssues } from "../messaging/describe-issues.ts";
import { cardsSchema, withCards } from "./cards.ts";
import { healthLimits } from "./health-configuration.ts";
import { LONGEST_PATTERN } from "./health-pattern.ts";
import { noteOf } from "./lifecycle.ts";
import { decodeNote, encodeNote, noteSchema } from "./lifecycle-note.ts";
import { initialState, type Note } from "./lifecycle-state.ts";
import { vmSpecSchema } from "./protocol.ts";

/**
 * What a worker keeps of a machine on the disk, in `machines/NAME/machine.json`: what it was
 * declared to be, what was given to it for as long as it exists, and the lifecycle's own note. It
 * is written before what it speaks of is done; whoever reads it knows what may have happened.
 */

/** Bytes of one record; a longer file is none of ours. */
export const mostRecordBytes = 1024 * 1024;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const shortText = v.pipe(v.string(), v.maxLength(8192));

/** What a machine has of its host as long as it exists. */
export const allocationSchema = v.pipe(
  v.unknown(),
  withCards,
  v.strictObject({
    /** Of its VMM; no other machine has it. */
    user: v.pipe(count, v.minValue(1)),
    cards: cardsSchema,
  }),
);
export type Allocation = v.InferOutput<typeof allocationSchema>;

/** What its VMM was chosen to be, at its first start: a newer program would choose otherwise. */
export const choiceSchema = v.strictObject({
  hypervisor: v.picklist(["cloud-hypervisor", "qemu"]),
  accelerator: v.picklist(["kvm", "tcg"]),
  machine_type: v.nullable(shortText),
  processor_model: v.nullable(shortText),
  /** Of QEMU's machines: how their agent is reached. Left out: virtio-serial. */
  agent: v.optional(v.literal("vsock")),
});
export type RecordedChoice = v.InferOutput<typeof choiceSchema>;

/** What a master gave a machine with; see protocol-master.ts. */
export const assignedSchema = v.strictObject({
  owner_generation: v.pipe(count, v.minValue(1)),
  movable: v.boolean(),
  fencing: v.picklist(["none", "watchdog"]),
});
export type Assigned = v.InferOutput<typeof assignedSchema>;

/** To whom a machine was given ("10.77.0.2:40123"), and when: RFC 3339, UTC, for people. */
export const givenSchema = v.strictObject({ to: shortText, time: shortText });
export type Given = v.InferOutput<typeof givenSchema>;

export const machineRecordSchema = v.strictObject({
  format: v.literal(1),
  spec: vmSpecSchema,
  /**
   * Whoever declares it: a machine that was made by hand is not removed by `apply`, nor is one that
   * was received from another host, until a file declares it as it is.
   */
  owner: v.picklist(["declared", "operator", "received"]),
  /** What it was declared to be when it was last told so; null for one that nobody declared. */
  declared_power: v.nullable(v.picklist(["off", "created", "running", "paused"])),
  /** Left out of one that no master gave. */
  assigned: v.optional(assignedSchema),
  /** From the note that gave it to another host until it is taken back. */
  given: v.optional(givenSchema),
  /** In which its guest must be off, as the last shutdown asked; null: the usual time. */
  shutdown_grace_ms: v.nullable(count),
  allocation: allocationSchema,
  choice: v.nullable(choiceSchema),
  /** The key of its image in the store, once it was verified. */
  image: v.nullable(shortText),
  /** Of the boot that the note's instance and times belong to: random(4), boot_id. */
  boot: shortText,
  /** Patterns of its checks that a line of its console has had since its boot. */
  said: v.optional(
    v.pipe(
      v.array(v.pipe(v.string(), v.maxLength(LONGEST_PATTERN))),
      v.maxLength(healthLimits.checks),
    ),
  ),
  /** As lifecycle-note.ts encodes it. */
  note: noteSchema,
});
export type MachineRecord = v.InferOutput<typeof machineRecordSchema>;

/** What of a record differs between machines that are new on this host. */
type NewMachine = Pick<MachineRecord, "spec" | "allocation" | "choice" | "image" | "boot"> &
  Partial<Pick<MachineRecord, "owner" | "declared_power" | "assigned">>;

/** Of a machine that is new here: nothing of it was begun, and unless told, an operator's own. */
export const newRecord = (machine: NewMachine): MachineRecord => ({
  format: 1,
  owner: "operator",
  declared_power: null,
  shutdown_grace_ms: null,
  ...machine,
  note: noteToRecord(noteOf(initialState)),
});

/** The lifecycle's note, as the record has it. */
export const noteToRecord = (note: Note): MachineRecord["note"] => JSON.parse(encodeNote(note));

/** Back again. @returns why it is none */
export function noteFromRecord(note: MachineRecord["note"]): Note | string {
  const decoded = decodeNote(JSON.stringify(note));
  if (decoded.kind === "ok") return decoded.note;
  return typeof decoded.issues === "string" ? decoded.issues : describeIssues(decoded.issues);
}

/** What can be made out of a record that is not understood: nobody else is to be given it. */
export interface LegibleParts {
  readonly addresses: readonly string[];
  readonly users: readonly number[];
}

/** Looks for words, and not for JSON: of a file that was cut off the beginning is what it was. */
export function legibleParts(text: string): LegibleParts {
  const addresses = [...text.matchAll(/"address"\s*:\s*"([\d.]{7,15})"/g)];
  const users = [...text.matchAll(/"user"\s*:\s*(\d{1,10})\b/g)];
  return {
    addresses: [...new Set(addresses.map(([, address = ""]) => address))],
    users: users.map(([, user]) => Number(user)),
  };
}
