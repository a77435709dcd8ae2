import { ftruncateSync, readSync } from "node:fs";
import { makeMemoryFile, sealSize } from "../../../ffi/memory-file.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { Bytes } from "../../units/units.ts";

/** Of what a VMM says are so many bytes kept, the first ones: why it gives up. */
export const outputBytes: Bytes = 16 * 1024;

/**
 * Where a VMM's standard output and error go: memory that it cannot fill beyond that, and that
 * never has it wait, whether a worker is there or not.
 */
export function makeVmmOutput(machine: string): OwnedDescriptor {
  const file = makeMemoryFile(`hostler-vm-output-${machine}`, { allowSealing: true });
  try {
    ftruncateSync(file.number, outputBytes);
    sealSize(file);
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}

/** What was said so far: the file is zeros from there on. */
export function readVmmOutput(file: OwnedDescriptor): string {
  const bytes = new Uint8Array(outputBytes);
  const count = readSync(file.number, bytes, 0, bytes.length, 0);
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(bytes.subarray(0, end < 0 ? count : end)).trim();
}
