import { libc } from "./c-library.ts";
import { AF_VSOCK, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM } from "./constants.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, check, Errno, SystemCallError } from "./system-call-error.ts";

const { sockaddr_vm } = layouts;

/** <linux/vm_sockets.h>, VMADDR_CID_HOST: the machine that this one is a guest of. */
export const HOST_CONTEXT = 2;
/** <linux/vm_sockets.h>, VMADDR_CID_ANY: whoever asks, by whatever id this machine has. */
const ANY_CONTEXT = 0xffff_ffff;
const BACKLOG = 8;

/**
 * A listening stream socket of AF_VSOCK, close-on-exec and non-blocking: vsock(7).
 * @throws SystemCallError (EAFNOSUPPORT without the module, EADDRINUSE)
 */
export function listenVsock(port: number): OwnedDescriptor {
  const flags = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  const socket = new OwnedDescriptor(check("socket", libc.socket(AF_VSOCK, flags, 0), "AF_VSOCK"));
  const address = new NativeMemory(sockaddr_vm.size);
  address.view.setUint16(sockaddr_vm.svm_family, AF_VSOCK, true);
  address.view.setUint32(sockaddr_vm.svm_port, port, true);
  address.view.setUint32(sockaddr_vm.svm_cid, ANY_CONTEXT, true);
  try {
    check("bind", libc.bind(socket.number, address.address, address.size), `vsock:${port}`);
    check("listen", libc.listen(socket.number, BACKLOG));
  } catch (error) {
    socket.close();
    throw error;
  }
  return socket;
}

/**
 * Takes one waiting connection, with the context id of who connects; undefined when none waits or
 * it went away: accept4(2).
 */
export function acceptVsock(
  listener: OwnedDescriptor,
): { readonly socket: OwnedDescriptor; readonly context: number } | undefined {
  const address = new NativeMemory(sockaddr_vm.size);
  const length = new NativeMemory(4);
  length.view.setInt32(0, sockaddr_vm.size, true);
  const flags = SOCK_CLOEXEC | SOCK_NONBLOCK;
  const result = attempt(() =>
    libc.accept4(listener.number, address.address, length.address, flags),
  );
  if (result >= 0) {
    const context = address.view.getUint32(sockaddr_vm.svm_cid, true);
    return { socket: new OwnedDescriptor(result), context };
  }
  if (result === -Errno.EAGAIN || result === -Errno.ECONNABORTED) return undefined;
  throw new SystemCallError("accept4", -result);
}
