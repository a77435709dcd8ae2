import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { Errno, errnoMessage } from "../../ffi/system-call-error.ts";
import { connectUnix, makeUnixSocket } from "../../ffi/unix-socket.ts";
import { monotonicNow } from "../event-loop/clock.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import type { Milliseconds } from "../units/units.ts";

/**
 * Waits between attempts: a twentieth of the time that has passed, so that whoever listens soon is
 * found soon, and little is lost against the time that it took.
 */
const SHORTEST_WAIT: Milliseconds = 1;
const LONGEST_WAIT: Milliseconds = 50;
const PART_OF_TIME = 20;

/** What a listener that comes later, or has no room now, answers. */
const passing = [-Errno.ENOENT, -Errno.ECONNREFUSED, -Errno.EAGAIN];

export type Connected =
  | { readonly kind: "connected"; readonly socket: OwnedDescriptor }
  | { readonly kind: "failed"; readonly reason: string };

/**
 * Connects to a Unix socket whose listener may still be starting.
 * @returns the kernel's last reason when it does not listen within the limit, or at once when
 *   waiting is of no use (EACCES)
 */
export function connectWithin(
  loop: EventLoop,
  path: string,
  options: { readonly limit: Milliseconds; readonly signal: AbortSignal },
): Promise<Connected> {
  const { limit, signal } = options;
  const begin = monotonicNow();
  const { promise, resolve } = Promise.withResolvers<Connected>();
  let timer: Disposable | undefined;
  const finish = (outcome: Connected) => {
    timer?.[Symbol.dispose]();
    signal.removeEventListener("abort", stop);
    resolve(outcome);
  };
  const stop = () => finish({ kind: "failed", reason: "it was called off" });
  const attempt = () => {
    const socket = makeUnixSocket("stream");
    const result = connectUnix(socket, path);
    if (result === 0) {
      finish({ kind: "connected", socket });
      return;
    }
    socket.close();
    const passed = monotonicNow() - begin;
    if (!passing.includes(result) || passed >= limit) {
      finish({ kind: "failed", reason: errnoMessage(-result) });
      return;
    }
    const wait = Math.max(SHORTEST_WAIT, Math.min(LONGEST_WAIT, passed / PART_OF_TIME));
    timer = loop.wakeAfter(wait, attempt);
  };
  if (signal.aborted) {
    stop();
    return promise;
  }
  signal.addEventListener("abort", stop);
  attempt();
  return promise;
}
