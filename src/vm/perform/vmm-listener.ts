import { chmodSync } from "node:fs";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { SystemCallError } from "../../../ffi/system-call-error.ts";
import { bindUnix, listen, makeUnixSocket } from "../../../ffi/unix-socket.ts";

/** Connections that wait while the VMM is busy, or has not begun to look. */
const BACKLOG = 16;

/**
 * A socket that a VMM is to serve, made before the VMM is: 0600, root's alone. It never blocks
 * whoever accepts: two threads of QEMU may both be told of one connection, and one finds none.
 * @throws SystemCallError
 */
export function makeVmmListener(path: string): OwnedDescriptor {
  const socket = makeUnixSocket("stream");
  try {
    const result = bindUnix(socket, path);
    if (result < 0) throw new SystemCallError("bind", -result, path);
    chmodSync(path, 0o600);
    listen(socket, BACKLOG);
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}
