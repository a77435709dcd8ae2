import { fstatSync, readSync, writeSync } from "node:fs";
import { faultHooks, killPoint } from "../../../ffi/fault-hooks.ts";
import { preserveDescriptor, retrieveDescriptor } from "../../../ffi/live-update.ts";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { Errno, errnoMessage, errnoName } from "../../../ffi/system-call-error.ts";

/** What `run` and `hold` do with sessions: the files in them, and the steps between. */

/** Under this token stands the manifest of a session. */
export const MANIFEST_TOKEN = 0n;

/** The steps after which a fault test may kill `run` or `hold`. */
export type CarryStep =
  | "stopped"
  | "taken"
  | "preserved"
  | "manifest"
  | "ready"
  | "claimed"
  | "retrieved"
  | "started"
  | "released"
  | "restored"
  | "finished";

/** Passes a kill point, in the build for fault tests. */
export function passStep(program: "run" | "hold", step: CarryStep): void {
  if (faultHooks) killPoint(`live-update:${program}:${step}`);
}

/** A memfd with these bytes. @throws SystemCallError, or the error of write(2) (ENOSPC) */
export function memoryFileOf(name: string, bytes: Uint8Array): OwnedDescriptor {
  const file = makeMemoryFile(name);
  try {
    for (let offset = 0; offset < bytes.length; ) {
      offset += writeSync(file.number, bytes, offset, bytes.length - offset, offset);
    }
    return file;
  } catch (error) {
    file.close();
    throw error;
  }
}

/** Puts a file into a session. @returns why the kernel does not take it */
export function preserveFile(
  session: OwnedDescriptor,
  file: OwnedDescriptor,
  token: bigint,
): string | undefined {
  const result = preserveDescriptor(session, file, token);
  if (result >= 0) return undefined;
  if (result === -Errno.ENOENT) return "this kernel cannot preserve a file of its kind (ENOENT)";
  if (result === -Errno.EBUSY) return "it is in another session already (EBUSY)";
  if (result === -Errno.ENOSPC) return "this kernel takes no more files in one session (ENOSPC)";
  return `${errnoMessage(-result)} (${errnoName(-result)})`;
}

/** Takes a file out of a restored session, or says why there is none. */
export function retrieveFile(
  session: OwnedDescriptor,
  token: bigint,
): OwnedDescriptor | { readonly problem: string } {
  const result = retrieveDescriptor(session, token);
  if (typeof result !== "number") return result;
  const code = errnoName(-result);
  return { problem: `cannot retrieve file ${token}: ${errnoMessage(-result)} (${code})` };
}

export const isProblem = (found: object): found is { readonly problem: string } =>
  "problem" in found;

/** The bytes of the manifest of a restored session. */
export function retrieveManifest(
  session: OwnedDescriptor,
  limit: number,
): { readonly bytes: Uint8Array } | { readonly problem: string } {
  const found = retrieveFile(session, MANIFEST_TOKEN);
  if (isProblem(found)) return found;
  using file = found;
  const { size } = fstatSync(file.number);
  if (size > limit) {
    return { problem: `expected a manifest of at most ${limit} bytes, received ${size}` };
  }
  const bytes = new Uint8Array(size);
  for (let offset = 0; offset < size; ) {
    const length = readSync(file.number, bytes, offset, size - offset, offset);
    if (length === 0) break;
    offset += length;
  }
  return { bytes };
}
