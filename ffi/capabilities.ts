import { libc } from "./c-library.ts";
import { LINUX_CAPABILITY_VERSION_3, SYS_capget, SYS_capset } from "./constants.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory } from "./memory.ts";
import { check } from "./system-call-error.ts";

/** A thread's capability sets; bit n stands for the capability with number n: capabilities(7). */
export interface CapabilitySets {
  readonly effective: bigint;
  readonly permitted: bigint;
  readonly inheritable: bigint;
}

const setNames = ["effective", "permitted", "inheritable"] as const;

/** Version 3 of the call, on this thread (0), with room for both halves of each set. */
function makeArguments(): { header: NativeMemory; data: NativeMemory } {
  const layout = layouts.__user_cap_header_struct;
  const header = new NativeMemory(layout.size);
  header.view.setUint32(layout.version, LINUX_CAPABILITY_VERSION_3, true);
  return { header, data: new NativeMemory(2 * layouts.__user_cap_data_struct.size) };
}

/** This thread's capabilities: capget(2). */
export function capabilities(): CapabilitySets {
  const { header, data } = makeArguments();
  check("capget", libc.syscall(SYS_capget, header.address, data.address, 0, 0, 0, 0));
  const layout = layouts.__user_cap_data_struct;
  const read = (name: (typeof setNames)[number]) => {
    const low = BigInt(data.view.getUint32(layout[name], true));
    return low | (BigInt(data.view.getUint32(layout.size + layout[name], true)) << 32n);
  };
  return {
    effective: read("effective"),
    permitted: read("permitted"),
    inheritable: read("inheritable"),
  };
}

/**
 * Sets this thread's capabilities, not those of other threads: capset(2).
 * @throws SystemCallError (EPERM: more permitted than before, or effective beyond permitted)
 */
export function setCapabilities(sets: CapabilitySets): void {
  const { header, data } = makeArguments();
  const layout = layouts.__user_cap_data_struct;
  for (const name of setNames) {
    data.view.setUint32(layout[name], Number(sets[name] & 0xffff_ffffn), true);
    data.view.setUint32(layout.size + layout[name], Number(sets[name] >> 32n), true);
  }
  check("capset", libc.syscall(SYS_capset, header.address, data.address, 0, 0, 0, 0));
}
