import { libc } from "./c-library.ts";
import { AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM } from "./constants.ts";
import { cString } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { check, Errno, SystemCallError } from "./system-call-error.ts";
import { connectUnix, sendMessage } from "./unix-socket.ts";
import type { Watchdog } from "./watchdog.ts";

declare const HOSTLER_FAULTS: boolean | undefined;

/**
 * Builds for fault tests take a Unix socket for a watchdog: what a device would be told, whoever
 * listens there is told by lines ("open 30", "ping", "V" for a magic close), and the end of the
 * connection is the end of its descriptor. In `dist/hostler` a socket is refused (ENXIO), as any
 * other thing is that is no device.
 */
export function isFaultWatchdog(path: string): boolean {
  if (typeof HOSTLER_FAULTS !== "undefined" && HOSTLER_FAULTS === true) {
    return path.endsWith(".sock");
  }
  return false;
}

/** @throws SystemCallError (EBUSY: whoever listens there has no room for another) */
export function openFaultWatchdog(path: string, timeout: number): Watchdog {
  const type = SOCK_STREAM | SOCK_CLOEXEC;
  const socket = new OwnedDescriptor(check("socket", libc.socket(AF_UNIX, type, 0)));
  const result = connectUnix(socket, path);
  if (result < 0) {
    socket.close();
    throw new SystemCallError("open", result === -Errno.EAGAIN ? Errno.EBUSY : -result, path);
  }
  const tell = (line: string) => {
    const memory = cString(`${line}\n`);
    const length = memory.size - 1;
    const sent = sendMessage(socket, memory, { offset: 0, length }, []);
    if (sent < 0) throw new SystemCallError("write", -sent, path);
  };
  tell(`open ${timeout}`);
  return {
    name: "a watchdog of a test",
    timeout,
    staysArmed: true,
    ping: () => tell("ping"),
    disarm: () => {
      tell("V");
      socket.close();
    },
    [Symbol.dispose]: () => socket.close(),
  };
}
