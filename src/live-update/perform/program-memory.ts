import { fstatSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { openProcess, takeDescriptor } from "../../../ffi/pidfd.ts";
import { errnoMessage } from "../../../ffi/system-call-error.ts";
import type { ProcessId } from "../../units/units.ts";
import {
  type CarriedFile,
  fileKey,
  listenName,
  mappedMemoryFiles,
  memoryFileName,
  runLimits,
} from "../run/manifest.ts";

/** A file that is to be preserved, with a descriptor of ours. */
export interface TakenFile {
  readonly descriptor: OwnedDescriptor;
  readonly key: string;
  readonly file: Omit<CarriedFile, "token">;
}

export interface Taken {
  readonly files: readonly TakenFile[];
  /** What cannot be carried, each in words. */
  readonly others: readonly string[];
}

/** A descriptor that the program has parked with us. */
export interface Parked {
  readonly name: string;
  readonly descriptor: OwnedDescriptor;
}

/** Which file a descriptor of ours leads to. */
export function keyOf(descriptor: OwnedDescriptor): string {
  return fileKey(fstatSync(descriptor.number));
}

/**
 * All memfds of a stopped group, each once: those it parked, in their order, then those that its
 * processes have open.
 * @param names of files that came from an earlier kernel, which does not carry their names
 */
export function takeMemory(
  members: readonly ProcessId[],
  parked: readonly Parked[],
  names: ReadonlyMap<string, string>,
): Taken {
  const files = new Map<string, TakenFile>();
  const others: string[] = [];
  for (const { name, descriptor } of parked) takeParked(name, descriptor, { files, others });
  for (const processId of members.toSorted((first, second) => first - second)) {
    takeFrom(processId, names, { files, others });
  }
  for (const processId of members) others.push(...onlyMapped(processId, files));
  if (files.size > runLimits.files) {
    others.push(`${files.size} memfds: expected at most ${runLimits.files}`);
  }
  return { files: [...files.values()], others };
}

interface Found {
  readonly files: Map<string, TakenFile>;
  readonly others: string[];
}

function takeParked(name: string, descriptor: OwnedDescriptor, { files, others }: Found): void {
  const target = readlinkSync(`/proc/self/fd/${descriptor.number}`);
  const key = keyOf(descriptor);
  if (memoryFileName(target) === undefined) {
    others.push(`${name}, which it parked: ${target}`);
    return;
  }
  if (files.has(key)) return;
  const kept = takeAgain(descriptor);
  const about = { process: null, number: null, source: "parked" as const };
  files.set(key, { descriptor: kept, key, file: { ...describe(kept), name, ...about } });
}

/** Ours already: another descriptor for the same open file. */
function takeAgain(descriptor: OwnedDescriptor): OwnedDescriptor {
  const own = openProcess(process.pid);
  if (own === undefined) throw new Error("Bug: this process is gone");
  using self = own;
  const taken = takeDescriptor(self, descriptor.number);
  if (typeof taken === "number") throw new Error(`pidfd_getfd: ${errnoMessage(-taken)}`);
  return taken;
}

function describe(descriptor: OwnedDescriptor): { readonly bytes: number; readonly flags: number } {
  const text = readFileSync(`/proc/self/fdinfo/${descriptor.number}`, "latin1");
  const flags = Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(text)?.[1] ?? "0", 8);
  return { bytes: fstatSync(descriptor.number).size, flags };
}

function takeFrom(
  processId: ProcessId,
  names: ReadonlyMap<string, string>,
  { files, others }: Found,
): void {
  using process = openProcess(processId);
  if (process === undefined) return;
  const folder = `/proc/${processId}/fd`;
  const numbers = readdirSync(folder).map(Number);
  for (const number of numbers.toSorted((first, second) => first - second)) {
    const name = memoryFileName(readlinkSync(`${folder}/${number}`));
    if (name === undefined) continue;
    const key = fileKey(statSync(`${folder}/${number}`));
    if (files.has(key)) continue;
    const descriptor = takeDescriptor(process, number);
    if (typeof descriptor === "number") {
      const where = `memfd ${name}, descriptor ${number} of process ${processId}`;
      others.push(`${where}: ${errnoMessage(-descriptor)}`);
      continue;
    }
    const about = { process: processId, number, source: "program" as const };
    const listed = listenName(names.get(key) ?? name, "memfd");
    files.set(key, { descriptor, key, file: { ...describe(descriptor), name: listed, ...about } });
  }
}

/** Memfds that are mapped and open nowhere: nothing could give them back to a new program. */
function onlyMapped(processId: ProcessId, files: ReadonlyMap<string, TakenFile>): string[] {
  return mappedMemoryFiles(readFileSync(`/proc/${processId}/maps`, "latin1"))
    .filter(({ key }) => !files.has(key))
    .map(({ name }) => `memfd ${name}, which process ${processId} has mapped and open nowhere`);
}
