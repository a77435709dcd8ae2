import { libc } from "./c-library.ts";
import { MSG_DONTWAIT, MSG_NOSIGNAL, MSG_TRUNC, SYS_recvmsg, SYS_sendmsg } from "./constants.ts";
import { layouts } from "./layouts.ts";
import { NativeMemory } from "./memory.ts";
import type { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt } from "./system-call-error.ts";

/**
 * Messages with an address, for sockets of any family: sendmsg(2), recvmsg(2). Non-blocking. The
 * memory belongs to the object, so each socket has its own.
 */

const { msghdr, iovec } = layouts;

/** What came with one message, and how much of it. */
export interface DatagramReceived {
  /** Bytes in the memory, or minus the error number (EAGAIN, ENETDOWN, ECONNREFUSED …). */
  readonly length: number;
  /** The message was longer than the memory, and its end is lost. */
  readonly truncated: boolean;
  /** Bytes of control messages: cmsg(3). */
  readonly controlLength: number;
}

export class DatagramCall {
  /** The address of the other side: written before sending, read after receiving. */
  readonly name: NativeMemory;
  readonly data: NativeMemory;
  readonly control: NativeMemory;
  readonly #header = new NativeMemory(msghdr.size);
  readonly #vector = new NativeMemory(iovec.size);
  readonly #controlSize: number;

  /** Sizes in bytes; a control size of 0 asks for no control messages. */
  constructor(sizes: { name: number; data: number; control: number }) {
    this.name = new NativeMemory(sizes.name);
    this.data = new NativeMemory(sizes.data);
    this.control = new NativeMemory(sizes.control);
    this.#controlSize = sizes.control;
    this.#vector.setPointer(iovec.iov_base, this.data.address);
    this.#header.setPointer(msghdr.msg_iov, this.#vector.address);
    this.#header.setUnsigned64(msghdr.msg_iovlen, 1);
  }

  #describe(sizes: { name: number; data: number; control: number }): void {
    const { view } = this.#header;
    this.#header.setPointer(msghdr.msg_name, sizes.name === 0 ? 0 : this.name.address);
    view.setUint32(msghdr.msg_namelen, sizes.name, true);
    this.#vector.setUnsigned64(iovec.iov_len, sizes.data);
    this.#header.setPointer(msghdr.msg_control, sizes.control === 0 ? 0 : this.control.address);
    this.#header.setUnsigned64(msghdr.msg_controllen, sizes.control);
  }

  /**
   * Sends bytes to the address in `name`, of so many bytes; 0 on a socket that is connected.
   * @returns bytes sent, or minus the error number (EAGAIN, ENETDOWN, EPERM by a firewall …)
   * @throws RangeError for more bytes than this object has room for
   */
  send(socket: OwnedDescriptor, bytes: Uint8Array, nameLength: number): number {
    if (bytes.length > this.data.size) {
      throw new RangeError(`Expected at most ${this.data.size} bytes, received ${bytes.length}`);
    }
    this.data.bytes.set(bytes);
    this.#describe({ name: nameLength, data: bytes.length, control: 0 });
    const flags = MSG_NOSIGNAL | MSG_DONTWAIT;
    return attempt(() =>
      libc.syscall(SYS_sendmsg, socket.number, this.#header.address, flags, 0, 0, 0),
    );
  }

  receive(socket: OwnedDescriptor): DatagramReceived {
    this.#describe({
      name: this.name.size,
      data: this.data.size,
      control: this.#controlSize,
    });
    const length = attempt(() =>
      libc.syscall(SYS_recvmsg, socket.number, this.#header.address, MSG_DONTWAIT, 0, 0, 0),
    );
    if (length < 0) return { length, truncated: false, controlLength: 0 };
    const flags = this.#header.view.getInt32(msghdr.msg_flags, true);
    const controlLength = this.#header.getUnsigned64(msghdr.msg_controllen);
    return { length, truncated: (flags & MSG_TRUNC) !== 0, controlLength };
  }
}
