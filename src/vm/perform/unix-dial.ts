import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { Errno, errnoMessage } from "../../../ffi/system-call-error.ts";
import { connectUnix, LONGEST_SOCKET_PATH, makeUnixSocket } from "../../../ffi/unix-socket.ts";

/**
 * Connects to a Unix socket of a VMM, at once or not at all.
 * @returns the socket, or why not, with what the reader can do
 */
export function dialUnix(path: string): OwnedDescriptor | string {
  const size = new TextEncoder().encode(path).length;
  if (size === 0 || size > LONGEST_SOCKET_PATH || path.includes("\0")) {
    return `expected a path of 1 to ${LONGEST_SOCKET_PATH} bytes, received ${size} bytes`;
  }
  const socket = makeUnixSocket("stream");
  const result = connectUnix(socket, path);
  if (result === 0) return socket;
  socket.close();
  if (result === -Errno.EAGAIN) return "the VMM takes no connection: others wait there already";
  return errnoMessage(-result);
}
