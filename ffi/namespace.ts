import { NS_GET_PARENT } from "./constants.ts";
import { control } from "./descriptor.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";

/**
 * The parent of a PID or user namespace; undefined above the one that we are in ourselves (EPERM)
 * and for other descriptors: ioctl_ns(2).
 */
export function parentNamespace(namespace: OwnedDescriptor): OwnedDescriptor | undefined {
  const result = control(namespace, NS_GET_PARENT);
  return result < 0 ? undefined : new OwnedDescriptor(result);
}
