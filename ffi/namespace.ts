import { control } from "./descriptor.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";

/** include/uapi/linux/nsfs.h: the parent of a PID or user namespace, as a new descriptor. */
const NS_GET_PARENT = 0xb702;

/**
 * The parent of a PID or user namespace; undefined above the one that we are in ourselves (EPERM)
 * and for other descriptors: ioctl_ns(2).
 */
export function parentNamespace(namespace: OwnedDescriptor): OwnedDescriptor | undefined {
  const result = control(namespace, NS_GET_PARENT);
  return result < 0 ? undefined : new OwnedDescriptor(result);
}
