import type { Pointer } from "bun:ffi";
import { libc } from "./c-library.ts";
import {
  IFF_NO_PI,
  IFF_TAP,
  IFF_TUN_EXCL,
  IFF_VNET_HDR,
  IFNAMSIZ,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
  TUNSETGROUP,
  TUNSETIFF,
  TUNSETOWNER,
  TUNSETPERSIST,
  TUNSETVNETHDRSZ,
} from "./constants.ts";
import { control } from "./descriptor.ts";
import { layouts } from "./layouts.ts";
import { cString, NativeMemory } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, check } from "./system-call-error.ts";

/** TAP devices: Documentation/networking/tuntap.rst, include/uapi/linux/if_tun.h. */

/** Bytes of an interface's name, without the ending zero. */
export const LONGEST_INTERFACE_NAME: number = IFNAMSIZ - 1;
/** sizeof(struct virtio_net_hdr_v1): what both hypervisors expect of a TAP. */
const virtioHeaderSize = 12;

export interface TapRequest {
  readonly name: string;
  /** new: refused where an interface of that name is there. existing: attached to. */
  readonly as: "new" | "existing";
}

/**
 * A TAP without packet information and with virtio's header (IFF_TAP, IFF_NO_PI, IFF_VNET_HDR):
 * it lives as long as this descriptor, until it is made persistent. Non-blocking.
 * @returns minus the error number where the kernel refuses: EBUSY for a name that is taken or a
 *   TAP that another process has attached, ENOENT or EACCES without /dev/net/tun, EPERM
 * @throws RangeError for a name that is none
 */
export function openTap(request: TapRequest): OwnedDescriptor | number {
  const encoded = new TextEncoder().encode(request.name);
  if (encoded.length === 0 || encoded.length > LONGEST_INTERFACE_NAME || encoded.includes(0)) {
    throw new RangeError(
      `Expected an interface name of 1 to ${LONGEST_INTERFACE_NAME} bytes, ` +
        `received ${JSON.stringify(request.name)}`,
    );
  }
  const path = cString("/dev/net/tun");
  const flags = O_RDWR | O_CLOEXEC | O_NONBLOCK;
  const number = attempt(() => libc.open(path.address, flags, 0));
  if (number < 0) return number;
  const tap = new OwnedDescriptor(number);
  const wanted = new NativeMemory(layouts.ifreq.size);
  wanted.bytes.set(encoded, layouts.ifreq.ifr_name);
  const exclusive = request.as === "new" ? IFF_TUN_EXCL : 0;
  const kind = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | exclusive;
  wanted.view.setUint16(layouts.ifreq.ifr_flags, kind, true);
  const size = new NativeMemory(4);
  size.view.setInt32(0, virtioHeaderSize, true);
  const named = control(tap, TUNSETIFF, wanted);
  const result = named < 0 ? named : control(tap, TUNSETVNETHDRSZ, size);
  if (result >= 0) return tap;
  tap.close();
  return result;
}

/** These three take a number where ioctl(2) has its pointer. */
function controlNumber(tap: OwnedDescriptor, request: number, value: number, name: string): void {
  check("ioctl", libc.ioctl(tap.number, request, value as Pointer), name);
}

/** Who may attach to it beside CAP_NET_ADMIN: TUNSETOWNER. */
export function setTapOwner(tap: OwnedDescriptor, user: number): void {
  controlNumber(tap, TUNSETOWNER, user, "TUNSETOWNER");
}

/** Whose group may attach to it: TUNSETGROUP. */
export function setTapGroup(tap: OwnedDescriptor, group: number): void {
  controlNumber(tap, TUNSETGROUP, group, "TUNSETGROUP");
}

/** Whether it outlives its descriptors; one that does not goes with the last: TUNSETPERSIST. */
export function setTapPersistent(tap: OwnedDescriptor, isPersistent: boolean): void {
  controlNumber(tap, TUNSETPERSIST, isPersistent ? 1 : 0, "TUNSETPERSIST");
}
