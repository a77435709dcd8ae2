/** What is told of machines with KVM in a guest whose processor has it, in this order. */
export const kvmCases = [
  "KVM is real, and QEMU with it is chosen",
  "a machine runs by KVM, and its guest counts",
  "its VMM has a node of KVM in a /dev of its own",
  "it stands still while it is paused, and counts on",
  "its VMM is replaced under it, with KVM as well",
  "a worker that was killed adopts it where it is",
  "a snapshot of it is restored, and counts on from there",
  "its VMM dies: the next one has KVM too",
  "nothing is left of it",
  "a KVM that makes no machines is not taken, and that is loud",
] as const;
export type KvmCase = (typeof kvmCases)[number];
