import * as v from "valibot";
import type { ProcessState } from "./lifecycle.ts";
import { isParkedName } from "./notice.ts";
import { processStateSchema, type StateRefusal } from "./protocol-state.ts";

/**
 * What an orchestrator has its holder keep for the one that follows it when it is killed: the names
 * of descriptors, and a journal in a file in memory. Pure.
 *
 * Both outlive the program that wrote them, so a name is never used again for something else, and
 * what is changed in the journal is another version of it. Fields that are undefined in memory are
 * null in the file.
 */

/** Of a descriptor that a process has parked: all that is known of it. */
export interface ParkedName {
  readonly slot: number;
  /** One that is hung up, or fails, is kept no more. */
  readonly isPolled: boolean;
  /** In LISTEN_FDNAMES. */
  readonly name: string;
}

/** Under which names descriptors are kept. `agent/…` is for what may come. */
export const keptNames = {
  /** An end of a log pipe of a process: both ends, so that no writer loses its reader. */
  pipe: (process: string, stream: "stdout" | "stderr", end: "read" | "write"): string =>
    `pipe/${process}/${stream}/${end}`,
  /** The pidfd of an instance, dead or alive. */
  instance: (invocation: string): string => `process/${invocation}`,
  /** The socket on which a process tells its readiness. */
  notices: (process: string): string => `notices/${process}`,
  /** What a process has parked; `slot` tells those of one name apart. */
  parked: (process: string, { slot, isPolled, name }: ParkedName): string =>
    `descriptor/${process}/${slot}/${isPolled ? "polled" : "held"}/${name}`,
  /** A journal; of two the one with the higher number counts. */
  journal: (generation: number): string => `journal/${generation}`,
} as const;

/** What a process has parked, by the name it is kept under; undefined for all else. */
export function readParked(process: string, kept: string): ParkedName | undefined {
  const prefix = `descriptor/${process}/`;
  if (!kept.startsWith(prefix)) return undefined;
  const found = /^([1-9]\d{0,14})\/(polled|held)\/(.*)$/.exec(kept.slice(prefix.length));
  const [, slot, how, name = ""] = found ?? [];
  if (slot === undefined || !isParkedName(name)) return undefined;
  return { slot: Number(slot), isPolled: how === "polled", name };
}

/** The number of a journal by its name; undefined for what is none. */
export function journalGeneration(name: string): number | undefined {
  const digits = /^journal\/([1-9]\d{0,14})$/.exec(name)?.[1];
  return digits === undefined ? undefined : Number(digits);
}

/** The newest journal among what is kept; 0 for none. */
export const newestJournal = (names: Iterable<string>): number =>
  Math.max(0, ...[...names].map((name) => journalGeneration(name) ?? 0));

/** The name of the format: it is looked for before anything else. */
export const KEPT_FORMAT = "hostler-kept-journal";

/** The version that is written, and the only one that is read. */
export const KEPT_VERSION = 1;

/** Bytes of a journal after which it is written anew, with what is still so: 1 MiB. */
export const KEPT_JOURNAL_BYTES = 1024 * 1024;

const headerSchema = v.strictObject({
  format: v.literal(KEPT_FORMAT),
  version: v.literal(KEPT_VERSION),
  /** The boot in which it was written: random(4). */
  boot: v.string(),
});

const entrySchema = v.strictObject({
  name: v.string(),
  /** A hash of all that a start is made of: with another one it is another program. */
  launch: v.string(),
  /** The name in its NOTIFY_SOCKET; null where it has none. */
  notify: v.pipe(
    v.nullable(v.string()),
    v.transform((value) => value ?? undefined),
  ),
  state: processStateSchema,
});

/** What was written of one process. */
export interface KeptEntry {
  readonly name: string;
  readonly launch: string;
  readonly notify: string | undefined;
  readonly state: ProcessState;
}

const encode = (value: unknown) =>
  `${JSON.stringify(value, (_key, inner) => (inner === undefined ? null : inner))}\n`;

/** The first line of a journal. */
export const keptHeader = (boot: string): string =>
  encode({ format: KEPT_FORMAT, version: KEPT_VERSION, boot });

/** A line of it: of one process the last one counts. */
export const keptLine = (entry: KeptEntry): string => encode(entry);

/**
 * What a journal says, by the names of processes; or what is wrong with it. A last line without its
 * end was being written when its writer died: the one before it counts.
 */
export function readKept(
  text: string,
  boot: string,
): { readonly entries: ReadonlyMap<string, KeptEntry> } | { readonly refusal: StateRefusal } {
  const [first = "", ...lines] = text.split("\n").slice(0, -1);
  const header = v.safeParse(headerSchema, parse(first));
  if (!header.success || header.output.boot !== boot) {
    const expected = `${KEPT_FORMAT} of version ${KEPT_VERSION}, of boot ${boot}`;
    return { refusal: { expected, received: first.slice(0, 200) || "nothing" } };
  }
  const entries = new Map<string, KeptEntry>();
  for (const [index, line] of lines.entries()) {
    const entry = v.safeParse(entrySchema, parse(line));
    if (!entry.success) {
      const expected = `a process in line ${index + 2}`;
      return { refusal: { expected, received: line.slice(0, 200) } };
    }
    entries.set(entry.output.name, entry.output);
  }
  return { entries };
}

function parse(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
