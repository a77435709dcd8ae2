import type { Pointer } from "bun:ffi";
import { libc } from "./c-library.ts";
import {
  KVM_CAP_SPLIT_IRQCHIP,
  KVM_CAP_USER_MEMORY,
  KVM_CHECK_EXTENSION,
  KVM_CREATE_VM,
  KVM_GET_API_VERSION,
  O_CLOEXEC,
  O_RDWR,
} from "./constants.ts";
import { cString } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, errnoName } from "./system-call-error.ts";

/** What KVM said when it was asked for a machine; errors are names, such as "ENOENT". */
export type KvmAnswer =
  | { readonly kind: "not-opened"; readonly error: string }
  /** Whatever opened, it is no KVM: ioctl(2) was refused. */
  | { readonly kind: "not-asked"; readonly error: string }
  | {
      readonly kind: "answered";
      readonly apiVersion: number;
      /** Whether it maps memory of its user into a machine: KVM_CAP_USER_MEMORY. */
      readonly userMemory: boolean;
      /** Whether it has the local APICs, and leaves the rest to its user: KVM_CAP_SPLIT_IRQCHIP. */
      readonly splitIrqchip: boolean;
      /** Why it makes no machine; undefined where it made one, which is gone again. */
      readonly machineRefusal: string | undefined;
    };

/**
 * Asks KVM what it can, and has it make a machine without memory and processors, which goes at
 * once. Nothing of the host's is changed.
 */
export function askKvm(path = "/dev/kvm"): KvmAnswer {
  const name = cString(path);
  const number = attempt(() => libc.open(name.address, O_RDWR | O_CLOEXEC, 0));
  if (number < 0) return { kind: "not-opened", error: errnoName(-number) };
  using device = new OwnedDescriptor(number);
  const apiVersion = ask(device, KVM_GET_API_VERSION, 0);
  if (apiVersion < 0) return { kind: "not-asked", error: errnoName(-apiVersion) };
  const has = (extension: number) => ask(device, KVM_CHECK_EXTENSION, extension) > 0;
  // The kind of machine that every processor has: 0.
  const machine = ask(device, KVM_CREATE_VM, 0);
  if (machine >= 0) new OwnedDescriptor(machine).close();
  return {
    kind: "answered",
    apiVersion,
    userMemory: has(KVM_CAP_USER_MEMORY),
    splitIrqchip: has(KVM_CAP_SPLIT_IRQCHIP),
    machineRefusal: machine < 0 ? errnoName(-machine) : undefined,
  };
}

/** These take a number where ioctl(2) has its pointer. */
function ask(device: OwnedDescriptor, request: number, value: number): number {
  return attempt(() => libc.ioctl(device.number, request, value as Pointer));
}
