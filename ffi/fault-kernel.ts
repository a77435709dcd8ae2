/**
 * Builds for fault tests can be given another kernel: what live-update.ts and kexec.ts would ask
 * of this one they ask of a process that answers like it (test/support/fake-kernel.ts). Nothing of
 * this is in `dist/hostler`.
 */
import { libc } from "./c-library.ts";
import { AF_UNIX, POLLIN, SOCK_CLOEXEC, SOCK_STREAM } from "./constants.ts";
import { faultKernelSocket } from "./fault-hooks.ts";
import { layouts } from "./layouts.ts";
import { cString, NativeMemory } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, check, Errno, SystemCallError } from "./system-call-error.ts";
import { connectUnix, receiveMessage, sendMessage } from "./unix-socket.ts";

declare const HOSTLER_FAULTS: boolean | undefined;

/** One call, with its descriptors beside it: the session first, then the file. */
export type FaultKernelRequest =
  | { readonly call: "create" | "retrieve-session"; readonly name: string }
  | { readonly call: "preserve" | "retrieve"; readonly token: string }
  | { readonly call: "finish" | "name" }
  | { readonly call: "unload" | "loaded" | "sync" }
  | { readonly call: "load"; readonly command_line: string }
  | { readonly call: "reboot"; readonly what: string };

export type FaultKernelCall = FaultKernelRequest["call"];

export interface FaultKernelAnswer {
  /** 0 or more, or minus the error number. */
  readonly result: number;
  /** Of a session. */
  readonly name?: string | undefined;
  /** Only on this side; on the wire it travels beside the answer. */
  readonly descriptor?: OwnedDescriptor | undefined;
}

let connection: OwnedDescriptor | undefined;

/**
 * Asks and waits for the answer, as a system call would. Undefined when the kernel is the machine's
 * own. Minus EIO when the other kernel is gone, or has been replaced by its successor.
 * @throws SystemCallError when there is none at its socket
 */
export function askFaultKernel(
  request: FaultKernelRequest,
  descriptors: readonly number[] = [],
): FaultKernelAnswer | undefined {
  // Spelled out, because the bundler removes what is behind it only when it sees the define here.
  if (typeof HOSTLER_FAULTS !== "undefined" && HOSTLER_FAULTS === true) {
    const path = faultKernelSocket();
    return path === undefined ? undefined : ask(path, request, descriptors);
  }
  return undefined;
}

function ask(
  path: string,
  request: FaultKernelRequest,
  descriptors: readonly number[],
): FaultKernelAnswer {
  connection ??= connect(path);
  const text = `${JSON.stringify(request)}\n`;
  const memory = cString(text);
  const length = memory.size - 1;
  const sent = sendMessage(connection, memory, { offset: 0, length }, descriptors);
  // What the kernel refuses to pass (EBADF) it would refuse to preserve as well.
  if (sent < 0) return { result: sent === -Errno.EPIPE ? -Errno.EIO : sent };
  return receiveAnswer(connection);
}

/** A socket that waits in connect(2), however many others connect. */
function connect(path: string): OwnedDescriptor {
  const type = SOCK_STREAM | SOCK_CLOEXEC;
  const socket = new OwnedDescriptor(check("socket", libc.socket(AF_UNIX, type, 0)));
  const result = connectUnix(socket, path);
  if (result < 0) throw new SystemCallError("connect", -result, `to the fault kernel at ${path}`);
  return socket;
}

function receiveAnswer(socket: OwnedDescriptor): FaultKernelAnswer {
  const memory = new NativeMemory(4096);
  const decoder = new TextDecoder();
  let text = "";
  let descriptor: OwnedDescriptor | undefined;
  while (!text.endsWith("\n")) {
    waitUntilReadable(socket);
    const message = receiveMessage(socket, memory);
    descriptor ??= message.descriptors[0];
    if (message.length <= 0) return { result: -Errno.EIO };
    text += decoder.decode(memory.bytes.subarray(0, message.length), { stream: true });
  }
  return { ...(JSON.parse(text) as FaultKernelAnswer), descriptor };
}

function waitUntilReadable(socket: OwnedDescriptor): void {
  const poll = new NativeMemory(layouts.pollfd.size);
  poll.view.setInt32(layouts.pollfd.fd, socket.number, true);
  poll.view.setInt16(layouts.pollfd.events, POLLIN, true);
  const forever = -1;
  attempt(() => libc.poll(poll.address, 1, forever));
}
