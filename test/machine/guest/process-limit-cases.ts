/** What is told of processes' limits in a guest, in this order. */
export const limitCases = [
  "the host can keep them, says check",
  "they stand in the cgroup of each, here and behind an agent",
  "memory over its limit ends the process, and it is restarted within the same",
  "a processor's time is held back",
  "one more process than it may have is refused by the kernel",
  "a reload changes them while it runs, and says from what to what",
  "what is not said any more is taken back",
  "an orchestrator that was killed is followed by one that has them as the file says",
  "a start whose limits nobody may set is refused, with the reason; an optional one goes on",
  "all is stopped, and no cgroup is left",
] as const;
export type LimitCase = (typeof limitCases)[number];
