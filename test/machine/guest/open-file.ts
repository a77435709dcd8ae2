import { closeSync, openSync } from "node:fs";
import { duplicate } from "../../../ffi/descriptor.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";

/** Opens for reading; the descriptor belongs to the caller. @throws Error as openSync does */
export function openFile(path: string): OwnedDescriptor {
  const number = openSync(path, "r");
  const owned = duplicate(number);
  closeSync(number);
  return owned;
}
