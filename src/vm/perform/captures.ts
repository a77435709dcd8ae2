import { readSync, writeSync } from "node:fs";
import * as v from "valibot";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { HolderClient } from "../../holding/holder-client.ts";
import type { CapturedState } from "../../hypervisor/driver.ts";

/** The longest state of one machine's devices: QEMU's q35 has 287 KB. */
export const mostStateBytes = 64 * 1024 * 1024;
/** Pieces of memory of one machine. */
export const mostMemoryPieces = 64;

const headerSchema = v.strictObject({
  hypervisor: v.picklist(["cloud-hypervisor", "qemu"]),
  version: v.string(),
  bytes: v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(mostStateBytes)),
  memory: v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(mostMemoryPieces)),
});

/** What is held of a machine that no VMM has: its memory, and the state of its devices. */
export interface HeldMachine extends Disposable {
  readonly state: Pick<CapturedState, "hypervisor" | "version" | "bytes">;
  /** In the order that the state speaks of; the caller's to close. */
  readonly memory: readonly OwnedDescriptor[];
}

/**
 * Memory and state of machines between two VMMs, kept by the holder: a worker that dies meanwhile
 * loses none of it. The state goes there last, so that where it is, all of it is.
 */
export class Captures {
  readonly #holder: HolderClient;

  constructor(holder: HolderClient) {
    this.#holder = holder;
  }

  /** @throws Error when the holder refuses: nothing of it is kept then */
  async keep(id: string, state: CapturedState, memory: readonly OwnedDescriptor[]): Promise<void> {
    try {
      for (const [index, piece] of memory.entries()) await this.#put(memoryName(id, index), piece);
      using file = writeState(state, memory.length);
      await this.#put(stateName(id), file);
    } catch (error) {
      await this.forget(id);
      throw error;
    }
  }

  /** Whether all of a capture is here; the holder was reached before anybody asks. */
  isWhole(id: string): boolean {
    return this.#holder.names.includes(stateName(id));
  }

  /** @throws Error when it is not there, or is none */
  async take(id: string): Promise<HeldMachine> {
    using file = await this.#get(stateName(id));
    const { header, bytes } = readState(file);
    const memory: OwnedDescriptor[] = [];
    const close = () => {
      for (const piece of memory) piece.close();
    };
    try {
      for (let index = 0; index < header.memory; index += 1) {
        memory.push(await this.#get(memoryName(id, index)));
      }
    } catch (error) {
      close();
      throw error;
    }
    const { hypervisor, version } = header;
    return { state: { hypervisor, version, bytes }, memory, [Symbol.dispose]: close };
  }

  /** Nobody needs it any more. What is not there is forgotten already; the state goes first. */
  async forget(id: string): Promise<void> {
    const names = new Set(this.#holder.names);
    const own = [
      stateName(id),
      ...Array.from({ length: mostMemoryPieces }, (_, index) => memoryName(id, index)),
    ];
    await Promise.all(own.filter((name) => names.has(name)).map((name) => this.#drop(name)));
  }

  /** What a worker kept that died before any machine's record spoke of it. */
  async forgetOthers(ids: ReadonlySet<string>): Promise<void> {
    const kept = this.#holder.names.flatMap((name) => keptName.exec(name)?.[1] ?? []);
    const unknown = new Set(kept.filter((id) => !ids.has(id)));
    for (const id of unknown) await this.forget(id);
  }

  #drop(name: string): Promise<void> {
    return new Promise((resolve) => {
      this.#holder.drop(name, () => resolve());
    });
  }

  #put(name: string, descriptor: OwnedDescriptor): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#holder.put(name, descriptor, (refusal) => {
        if (refusal === undefined) resolve();
        else reject(new Error(`Cannot keep ${name}: ${refusal.message} (${refusal.code})`));
      });
    });
  }

  #get(name: string): Promise<OwnedDescriptor> {
    return new Promise((resolve, reject) => {
      this.#holder.get(name, (found) => {
        if (found === undefined) reject(new Error(`Nothing is kept under ${name}`));
        else resolve(found);
      });
    });
  }
}

const stateName = (id: string) => `vm-${id}-state`;
const memoryName = (id: string, index: number) => `vm-${id}-memory-${index}`;

const keptName = /^vm-([0-9a-f]{32})-(?:state|memory-[0-9]+)$/;

/** A header of one line, and the bytes. */
function writeState(state: CapturedState, pieces: number): OwnedDescriptor {
  const { hypervisor, version, bytes } = state;
  if (bytes.length > mostStateBytes) {
    throw new Error(
      `Expected a state of at most ${mostStateBytes} bytes, received ${bytes.length}`,
    );
  }
  const header = { hypervisor, version, bytes: bytes.length, memory: pieces };
  const file = makeMemoryFile("hostler-vm-state");
  try {
    writeAll(file, new TextEncoder().encode(`${JSON.stringify(header)}\n`));
    writeAll(file, bytes);
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}

/** Where the descriptor stands. @throws Error (ENOSPC …) */
export function writeAll(file: OwnedDescriptor, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(file.number, bytes, at);
}

function readState(file: OwnedDescriptor) {
  const start = readAt(file, 0, 4096);
  const end = start.indexOf(10);
  const header = v.parse(
    headerSchema,
    JSON.parse(new TextDecoder().decode(start.subarray(0, end))),
  );
  return { header, bytes: readAt(file, end + 1, header.bytes) };
}

/** Up to so many bytes; the position of the descriptor is not touched. */
export function readAt(file: OwnedDescriptor, position: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let filled = 0;
  while (filled < length) {
    const count = readSync(file.number, bytes, filled, length - filled, position + filled);
    if (count === 0) break;
    filled += count;
  }
  return bytes.subarray(0, filled);
}
