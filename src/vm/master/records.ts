import * as v from "valibot";
import type { BucketDefinition, Store } from "../../store/store.ts";
import { ExitCode } from "../../units/exit-code.ts";
import type { MasterWrite } from "../perform/master-steps.ts";
import { clusterSchema } from "../protocol-master.ts";
import { machinesOf, requestOf } from "./lifecycle-apply.ts";
import {
  type Declaration,
  nothingDeclared,
  type OwnerNumbers,
  type WorkerRecord,
} from "./lifecycle-state.ts";

/** What a master remembers, and where. */

const MEBIBYTE = 1024 * 1024;

/** A worker with as many machines as it may have takes some 150 KB; a declaration 4 MiB, twice. */
export const masterBucket: BucketDefinition = {
  name: "vm-master",
  size: 128 * MEBIBYTE,
  age: "forever",
  expendable: false,
  volatile: false,
};

/** Keys of the bucket; workers stand below "worker.", parts of a declaration below "desired.". */
const keys = {
  numbers: "numbers",
  current: "current",
  worker: "worker.",
  part: "desired.",
} as const;

export const workerKey = (name: string) => `${keys.worker}${name}`;
const partKey = (generation: number, index: number) => `${keys.part}${generation}-${index}`;

/** Bytes of machines in one entry: a store takes half a mebibyte. */
const PART_BYTES = 256 * 1024;

/**
 * Owner generations that one write reserves. Revisions of a store are never given twice, and go up
 * by 2^32 with each restored backup: so a revision times this never comes again either, and stays
 * below 2^53 for 512 restores.
 */
const NUMBERS = 4_096;

const version = v.literal(1);
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

const workerRecordSchema: v.GenericSchema<unknown, WorkerRecord> = v.strictObject({
  version,
  revision: count,
  cordoned: v.boolean(),
  fenced: v.nullable(
    v.strictObject({
      how: v.picklist(["hook", "watchdog", "confirmed"]),
      boot: v.nullable(v.string()),
    }),
  ),
  machines: v.record(
    v.string(),
    v.strictObject({
      owner_generation: count,
      movable: v.boolean(),
      watchdog_ms: v.nullable(count),
    }),
  ),
  released: v.record(v.string(), count),
  found: v.record(v.string(), count),
});
const numbersSchema = v.strictObject({ version, incarnation: v.string() });
const currentSchema = v.strictObject({ version, generation: count, parts: count });
const partSchema = v.strictObject({ version, machine: clusterSchema.entries.machine });

/** All that the store has. */
export interface Kept {
  readonly desired: Declaration;
  readonly workers: ReadonlyMap<string, WorkerRecord>;
  /** Numbers were last reserved in another incarnation of the store: a backup was restored. */
  readonly isRestored: boolean;
  /** Entries that nothing needs: of applications that were killed halfway. */
  readonly leftOver: readonly string[];
}

/** A record is not understood; the message says which, and what to do. */
export class RecordRefused extends Error {
  override readonly name = "RecordRefused";
  readonly exitCode = ExitCode.refused;
}

/** @throws RecordRefused, StoreError */
export async function readKept(store: Pick<Store, "watch">, incarnation: string): Promise<Kept> {
  const entries = await readAll(store);
  const read = <T>(key: string, schema: v.GenericSchema<unknown, T>): T | undefined => {
    const text = entries.get(key);
    return text === undefined ? undefined : understood({ key, text, otherwise: RESTORE }, schema);
  };
  const current = read(keys.current, currentSchema);
  const numbers = read(keys.numbers, numbersSchema);
  const machine = Array.from({ length: current?.parts ?? 0 }, (_, index) => {
    const key = partKey(current?.generation ?? 0, index);
    const part = read(key, partSchema);
    if (part === undefined) throw missing(key);
    return part.machine;
  }).flat();
  const ownParts = new Set(
    Array.from({ length: current?.parts ?? 0 }, (_, index) =>
      partKey(current?.generation ?? 0, index),
    ),
  );
  const workers = [...entries.keys()]
    .filter((key) => key.startsWith(keys.worker))
    .map((key): [string, WorkerRecord] => {
      const record = read(key, workerRecordSchema);
      if (record === undefined) throw missing(key);
      return [key.slice(keys.worker.length), record];
    });
  return {
    desired:
      current === undefined
        ? nothingDeclared
        : { generation: current.generation, machines: machinesOf({ machine }) },
    workers: new Map(workers),
    isRestored: numbers !== undefined && numbers.incarnation !== incarnation,
    leftOver: [...entries.keys()].filter((key) => key.startsWith(keys.part) && !ownParts.has(key)),
  };
}

async function readAll(store: Pick<Store, "watch">): Promise<ReadonlyMap<string, string>> {
  const entries = new Map<string, string>();
  for await (const event of store.watch(masterBucket.name, "")) {
    if (event.kind === "synced") break;
    if (event.kind === "reset") entries.clear();
    else if (event.entry.operation === "put") entries.set(event.entry.key, event.entry.value);
    else entries.delete(event.entry.key);
  }
  return entries;
}

const RESTORE = "restore a backup by hostler store restore";

/**
 * What an entry of the bucket says.
 * @param entry otherwise: what is to be done where the hostler that wrote it cannot be started
 * @throws RecordRefused
 */
export function understood<T>(
  entry: { readonly key: string; readonly text: string; readonly otherwise?: string },
  schema: v.GenericSchema<unknown, T>,
): T {
  const { key, text, otherwise } = entry;
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), schema), text);
  if (parsed.success) return parsed.output;
  throw new RecordRefused(
    `${masterBucket.name}/${key} is a record of another version, or damaged: ` +
      `${parsed.issues[0].message}. It is left as it is: start the hostler that wrote it` +
      (otherwise === undefined ? "" : `, or ${otherwise}`),
  );
}

const missing = (key: string) =>
  new RecordRefused(`${masterBucket.name}/${key} is missing: ${RESTORE}`);

/** One entry to write; undefined as the value deletes it. */
export interface Write {
  readonly kind: MasterWrite;
  readonly key: string;
  readonly value: string | undefined;
}

export function writeOfWorker(name: string, record: WorkerRecord | undefined): Write {
  const value = record === undefined ? undefined : JSON.stringify(record);
  return { kind: "worker", key: workerKey(name), value };
}

/**
 * A declaration counts with the entry that says how many parts it has, which is written after them;
 * those of the former one go last.
 */
export function writesOfDesired(declaration: Declaration, formerParts: readonly string[]): Write[] {
  const { generation } = declaration;
  const parts = partsOf(declaration);
  const written = parts.map((machine, index) => ({
    kind: "desired-part" as const,
    key: partKey(generation, index),
    value: JSON.stringify({ version: 1, machine }),
  }));
  const current = { version: 1, generation, parts: parts.length };
  return [
    ...written,
    { kind: "desired-current", key: keys.current, value: JSON.stringify(current) },
    ...formerParts.map((key) => ({ kind: "desired-old-part" as const, key, value: undefined })),
  ];
}

/** The entries of a declaration beside the one that counts. */
export const partKeysOf = (declaration: Declaration): string[] =>
  partsOf(declaration).map((_, index) => partKey(declaration.generation, index));

function partsOf(declaration: Declaration) {
  const parts: (typeof machine)[] = [];
  const { machine } = requestOf(declaration);
  let part: typeof machine = [];
  let bytes = 0;
  for (const one of machine) {
    const size = Buffer.byteLength(JSON.stringify(one));
    if (bytes + size > PART_BYTES && part.length > 0) {
      parts.push(part);
      part = [];
      bytes = 0;
    }
    part.push(one);
    bytes += size;
  }
  if (part.length > 0) parts.push(part);
  return parts;
}

export function writeOfNumbers(incarnation: string): Write {
  return { kind: "numbers", key: keys.numbers, value: JSON.stringify({ version: 1, incarnation }) };
}

/** @param revision with which the store took `writeOfNumbers` */
export function numbersOf(revision: number): OwnerNumbers {
  const next = revision * NUMBERS;
  return { next, end: next + NUMBERS };
}
