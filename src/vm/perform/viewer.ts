import { writeFrom } from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { errnoMessage } from "../../../ffi/system-call-error.ts";
import { connectUnix, makeUnixSocket } from "../../../ffi/unix-socket.ts";
import type { ViewerMode } from "./machine-console.ts";

/** Connects to a console as a viewer of that mode. @returns the socket, or why there is none */
export function dialViewer(path: string, mode: ViewerMode): OwnedDescriptor | string {
  const socket = makeUnixSocket("stream");
  const outcome = connectUnix(socket, path);
  if (outcome < 0) {
    socket.close();
    return errnoMessage(-outcome);
  }
  const memory = new NativeMemory(1);
  memory.bytes[0] = mode.charCodeAt(0);
  // A new connection has room for one byte.
  writeFrom(socket, memory, 1);
  return socket;
}
