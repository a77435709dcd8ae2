import type { Bytes, Milliseconds } from "../../units/units.ts";

/** What is taken from a cloud-hypervisor, and how long it may take; going over one is told. */
export const cloudHypervisorLimits = {
  /** Until a VMM that was just started answers. */
  connectTime: 10_000 as Milliseconds,
  /** For an answer; a boot with much memory that is asked for beforehand takes longest. */
  answerTime: 10_000 as Milliseconds,
  /** For a state to go or to come: memory is not copied, 15 ms is usual. */
  stateTime: 30_000 as Milliseconds,
  /** For a machine to come from another host, with all of its memory. */
  moveTime: 86_400_000 as Milliseconds,
  /** In which what was given up must be over. */
  abandonTime: 5_000 as Milliseconds,
  /** Calls that are not answered: it takes ten connections at once. */
  openCalls: 8,
  /** Of an answer: vm.info, the longest, has some 100 KB for a machine with 100 devices. */
  answerBytes: (4 * 1024 * 1024) as Bytes,
  /** Of one event. */
  eventBytes: (64 * 1024) as Bytes,
  /** Of one message of a migration: configuration and state have 40 KB together. */
  messageBytes: (16 * 1024 * 1024) as Bytes,
  /** Pieces of guest memory that come with a migration: KVM has 509 slots at most on x86. */
  memorySlots: 512,
};
export type CloudHypervisorLimits = typeof cloudHypervisorLimits;
