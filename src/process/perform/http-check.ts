import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { Errno, errnoMessage } from "../../../ffi/system-call-error.ts";
import { receiveMessage, sendMessage } from "../../../ffi/unix-socket.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";

/** Bytes of a request, and of as much of its answer as is looked at: the status line. */
const MEMORY_BYTES = 4_096;
/** Letters that are told of what is no answer. */
const LONGEST_TOLD = 60;

const memory = new NativeMemory(MEMORY_BYTES);

/** The status that an answer begins with: RFC 9112, section 4. "more" until its line is whole. */
export function readStatus(received: string): number | "more" | "none" {
  const end = received.indexOf("\n");
  if (end < 0 && received.length < MEMORY_BYTES) return "more";
  const digits = /^HTTP\/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?\r?$/.exec(received.slice(0, end))?.[1];
  return digits === undefined ? "none" : Number(digits);
}

/** Why an answer says that the process is not well; undefined when it is: 200 to 399. */
function judge(received: string): string | undefined {
  const status = readStatus(received);
  if (typeof status === "number") {
    return status >= 200 && status < 400 ? undefined : `it answers ${status}`;
  }
  if (received === "") return "it answers nothing";
  return `it answers no HTTP/1: ${JSON.stringify(received.slice(0, LONGEST_TOLD))}`;
}

/**
 * Asks for a path on a connected socket, which is its own from now on, and looks at the status of
 * the answer. HTTP/1.0: the answer ends with the connection.
 * @param onEnd called once, unless cancelled: why it is not well, or undefined
 */
export function askHttp(
  loop: EventLoop,
  socket: OwnedDescriptor,
  request: { readonly host: string; readonly path: string },
  onEnd: (why: string | undefined) => void,
): () => void {
  const words = `GET ${request.path} HTTP/1.0\r\nHost: ${request.host}\r\n`;
  const bytes = new TextEncoder().encode(`${words}User-Agent: hostler-check\r\n\r\n`);
  memory.bytes.set(bytes);
  // A request is far smaller than a new connection's room.
  const sent = sendMessage(socket, memory, { offset: 0, length: bytes.length }, []);
  if (sent !== bytes.length) {
    socket.close();
    onEnd(`the request is not taken: ${sent < 0 ? errnoMessage(-sent) : "half of it is"}`);
    return () => {};
  }
  let received = "";
  const stop = () => {
    watch[Symbol.dispose]();
    socket.close();
  };
  const watch = loop.watch(socket, "readable", () => {
    const { length } = receiveMessage(socket, memory);
    if (length === -Errno.EAGAIN) return;
    const piece = memory.bytes.subarray(0, Math.max(0, length));
    received = (received + new TextDecoder("latin1").decode(piece)).slice(0, MEMORY_BYTES);
    // Its end, whichever: what was said before that counts.
    if (length > 0 && readStatus(received) === "more") return;
    stop();
    onEnd(judge(received));
  });
  return () => {
    if (socket.isOpen) stop();
  };
}
