import { libc } from "./c-library.ts";
import {
  IPMI_BMC_CHANNEL,
  IPMI_MAX_MSG_LENGTH,
  IPMI_RESPONSE_RECV_TYPE,
  IPMI_SYSTEM_INTERFACE_ADDR_TYPE,
  IPMICTL_RECEIVE_MSG_TRUNC,
  IPMICTL_SEND_COMMAND,
  O_CLOEXEC,
  O_RDWR,
} from "./constants.ts";
import { control } from "./descriptor.ts";
import { layouts } from "./layouts.ts";
import { cString, NativeMemory } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { pollDescriptor } from "./poll.ts";
import { check, Errno, SystemCallError } from "./system-call-error.ts";

/** One command to the service processor: IPMI 2.0, 5.1. */
export interface IpmiCommand {
  readonly netFunction: number;
  readonly command: number;
  readonly unit?: number;
  readonly data: readonly number[];
}

/** The bytes of its answer, the first of which is the completion code. */
export type IpmiAnswer =
  | { readonly kind: "answer"; readonly bytes: Uint8Array }
  /** The driver tries for some seconds; a controller that hangs says nothing. */
  | { readonly kind: "silent" };

/** A reply to an earlier command, or an event, may come first; so many are passed over. */
const MOST_STRANGERS = 64;

/**
 * The device of the kernel's driver, include/uapi/linux/ipmi.h. A call blocks until the controller
 * has answered, which takes milliseconds over KCS, or until its time is over.
 */
export class IpmiDevice implements Disposable {
  readonly #file: OwnedDescriptor;
  readonly #path: string;
  #messages = 0;

  /** @throws SystemCallError (ENOENT, ENXIO, ENODEV: there is no controller, or no driver) */
  constructor(path = "/dev/ipmi0") {
    const name = cString(path);
    this.#path = path;
    this.#file = new OwnedDescriptor(
      check("open", libc.open(name.address, O_RDWR | O_CLOEXEC, 0), path),
    );
  }

  /** @param wait milliseconds @throws SystemCallError */
  ask(command: IpmiCommand, wait: number): IpmiAnswer {
    this.#messages += 1;
    const message = this.#messages;
    this.#send(command, message);
    for (let strangers = 0; strangers < MOST_STRANGERS; strangers += 1) {
      if (!pollDescriptor(this.#file, "readable", wait)) return { kind: "silent" };
      const bytes = this.#receive(message);
      if (bytes !== undefined) return { kind: "answer", bytes };
    }
    return { kind: "silent" };
  }

  #send({ netFunction, command, unit = 0, data }: IpmiCommand, message: number): void {
    const layout = layouts.ipmi_req;
    const addressing = layouts.ipmi_system_interface_addr;
    // One piece of memory, so that what it points to lives as long as it does.
    const place = layout.size;
    const content = place + addressing.size;
    const request = new NativeMemory(content + data.length);
    request.view.setInt32(place + addressing.addr_type, IPMI_SYSTEM_INTERFACE_ADDR_TYPE, true);
    request.view.setInt16(place + addressing.channel, IPMI_BMC_CHANNEL, true);
    request.view.setUint8(place + addressing.lun, unit);
    request.bytes.set(data, content);
    request.setPointer(layout.addr, request.at(place));
    request.view.setUint32(layout.addr_len, addressing.size, true);
    request.setUnsigned64(layout.msgid, message);
    request.view.setUint8(layout.msg + layouts.ipmi_msg.netfn, netFunction);
    request.view.setUint8(layout.msg + layouts.ipmi_msg.cmd, command);
    request.view.setUint16(layout.msg + layouts.ipmi_msg.data_len, data.length, true);
    request.setPointer(layout.msg + layouts.ipmi_msg.data, request.at(content));
    this.#check("IPMICTL_SEND_COMMAND", control(this.#file, IPMICTL_SEND_COMMAND, request));
  }

  /** undefined: it was no answer to this message. */
  #receive(message: number): Uint8Array | undefined {
    const layout = layouts.ipmi_recv;
    const place = layout.size;
    const content = place + layouts.ipmi_addr.size;
    const receipt = new NativeMemory(content + IPMI_MAX_MSG_LENGTH);
    receipt.setPointer(layout.addr, receipt.at(place));
    receipt.view.setUint32(layout.addr_len, layouts.ipmi_addr.size, true);
    receipt.setPointer(layout.msg + layouts.ipmi_msg.data, receipt.at(content));
    receipt.view.setUint16(layout.msg + layouts.ipmi_msg.data_len, IPMI_MAX_MSG_LENGTH, true);
    const result = control(this.#file, IPMICTL_RECEIVE_MSG_TRUNC, receipt);
    // Another reader of the same file took it; and what was cut is there as far as it fits.
    if (result === -Errno.EAGAIN) return undefined;
    if (result !== -Errno.EMSGSIZE) this.#check("IPMICTL_RECEIVE_MSG_TRUNC", result);
    const isAnswer = receipt.view.getInt32(layout.recv_type, true) === IPMI_RESPONSE_RECV_TYPE;
    if (!isAnswer || receipt.getUnsigned64(layout.msgid) !== message) return undefined;
    const length = receipt.view.getUint16(layout.msg + layouts.ipmi_msg.data_len, true);
    return receipt.bytes.slice(content, content + Math.min(length, IPMI_MAX_MSG_LENGTH));
  }

  #check(call: string, result: number): void {
    if (result < 0) throw new SystemCallError(call, -result, this.#path);
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}
