import { libc } from "./c-library.ts";
import { POLLIN, POLLOUT } from "./constants.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory } from "./memory.ts";
import type { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, SystemCallError } from "./system-call-error.ts";

/**
 * Blocks this thread until a descriptor is ready, or hangs up, or the time is over: poll(2). For a
 * process that has nothing else to do meanwhile.
 * @param timeout milliseconds
 * @returns false when the time was over
 */
export function pollDescriptor(
  descriptor: OwnedDescriptor,
  interest: "readable" | "writable",
  timeout: number,
): boolean {
  const memory = new NativeMemory(layouts.pollfd.size);
  memory.view.setInt32(layouts.pollfd.fd, descriptor.number, true);
  memory.view.setInt16(layouts.pollfd.events, interest === "readable" ? POLLIN : POLLOUT, true);
  const wait = Math.max(0, Math.ceil(timeout));
  const result = attempt(() => libc.poll(memory.address, 1, wait));
  if (result < 0) throw new SystemCallError("poll", -result);
  return result > 0;
}
