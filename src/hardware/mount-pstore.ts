import { mountPstore } from "../../ffi/mount.ts";
import { SystemCallError } from "../../ffi/system-call-error.ts";
import { HostTree } from "./host-tree.ts";
import { PSTORE_FOLDER } from "./pstore.ts";

/**
 * Has the host's pstore at its place, where no service has mounted it: a live image has none.
 * @returns why it is not there; undefined: it is
 */
export function ensurePstore(): string | undefined {
  const mounts = new HostTree().text("proc/self/mounts").value ?? "";
  if (mounts.split("\n").some((line) => line.split(" ")[2] === "pstore")) return undefined;
  try {
    mountPstore(`/${PSTORE_FOLDER}`);
    return undefined;
  } catch (error) {
    // ENOENT, ENODEV: this kernel has none.
    if (!(error instanceof SystemCallError)) throw error;
    return error.message;
  }
}
