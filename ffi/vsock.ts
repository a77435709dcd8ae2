import { libc } from "./c-library.ts";
import { AF_VSOCK, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM } from "./constants.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, check, Errno, SystemCallError } from "./system-call-error.ts";
import { listen } from "./unix-socket.ts";

const { sockaddr_vm } = layouts;

/** <linux/vm_sockets.h>, VMADDR_CID_HOST: the machine that this one is a guest of. */
export const HOST_CONTEXT = 2;
/** <linux/vm_sockets.h>, VMADDR_CID_ANY: whoever asks, by whatever id this machine has. */
const ANY_CONTEXT = 0xffff_ffff;
const BACKLOG = 8;
/** net/vmw_vsock/af_vsock.c: to send from a port up to it takes CAP_NET_BIND_SERVICE. */
export const LAST_PRIVILEGED_PORT = 1023;

/**
 * A listening stream socket of AF_VSOCK, close-on-exec and non-blocking: vsock(7).
 * @throws SystemCallError (EAFNOSUPPORT without the module, EADDRINUSE)
 */
export function listenVsock(port: number): OwnedDescriptor {
  const socket = makeVsock();
  if (typeof socket === "number") throw new SystemCallError("socket", -socket, "AF_VSOCK");
  const address = addressOf({ context: ANY_CONTEXT, port });
  try {
    check("bind", libc.bind(socket.number, address.address, address.size), `vsock:${port}`);
    listen(socket, BACKLOG);
  } catch (error) {
    socket.close();
    throw error;
  }
  return socket;
}

/** @returns minus the error number where the kernel refuses: socket(2) */
function makeVsock(): OwnedDescriptor | number {
  const flags = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  const number = attempt(() => libc.socket(AF_VSOCK, flags, 0));
  return number < 0 ? number : new OwnedDescriptor(number);
}

/** A port of a machine, or of this one. */
export interface VsockAddress {
  /** A context id: which machine. */
  readonly context: number;
  readonly port: number;
}

function addressOf({ context, port }: VsockAddress): NativeMemory {
  const address = new NativeMemory(sockaddr_vm.size);
  address.view.setUint16(sockaddr_vm.svm_family, AF_VSOCK, true);
  address.view.setUint32(sockaddr_vm.svm_port, port, true);
  address.view.setUint32(sockaddr_vm.svm_cid, context, true);
  return address;
}

/**
 * Begins a connection to a port of a guest, from a port that only root may send from: the guest
 * knows by it that no other user of this host asks. It stands when the socket can be written to
 * and has no pending error.
 * @returns minus the error number where the kernel refuses: ENODEV without such a machine,
 *   EAFNOSUPPORT, EACCES without CAP_NET_BIND_SERVICE, EADDRINUSE when all those ports are used
 */
export function connectVsock(peer: VsockAddress): OwnedDescriptor | number {
  const socket = makeVsock();
  if (typeof socket === "number") return socket;
  let result = bindPrivileged(socket);
  if (result === 0) {
    const address = addressOf(peer);
    result = attempt(() => libc.connect(socket.number, address.address, address.size));
  }
  if (result === 0 || result === -Errno.EINPROGRESS) return socket;
  socket.close();
  return result;
}

/** The highest that is free. @returns minus the error number when none is */
function bindPrivileged(socket: OwnedDescriptor): number {
  let result: number = -Errno.EADDRINUSE;
  for (let port = LAST_PRIVILEGED_PORT; port > 0 && result === -Errno.EADDRINUSE; port -= 1) {
    const address = addressOf({ context: ANY_CONTEXT, port });
    result = attempt(() => libc.bind(socket.number, address.address, address.size));
  }
  return result;
}

/** Takes one waiting connection, and from where it is; undefined when none waits: accept4(2). */
export function acceptVsock(
  listener: OwnedDescriptor,
): { readonly socket: OwnedDescriptor; readonly from: VsockAddress } | undefined {
  const address = new NativeMemory(sockaddr_vm.size);
  const length = new NativeMemory(4);
  length.view.setInt32(0, sockaddr_vm.size, true);
  const flags = SOCK_CLOEXEC | SOCK_NONBLOCK;
  const result = attempt(() =>
    libc.accept4(listener.number, address.address, length.address, flags),
  );
  if (result >= 0) {
    const context = address.view.getUint32(sockaddr_vm.svm_cid, true);
    const port = address.view.getUint32(sockaddr_vm.svm_port, true);
    return { socket: new OwnedDescriptor(result), from: { context, port } };
  }
  if (result === -Errno.EAGAIN || result === -Errno.ECONNABORTED) return undefined;
  throw new SystemCallError("accept4", -result);
}
