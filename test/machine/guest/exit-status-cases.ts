/** The names of the cases of the story process-exit-status, for both sides of the serial line. */
export const exitStatusCases = [
  "the kernel is the one that was meant",
  "the daemons start",
  "local: exit 7",
  "local: SIGTERM",
  "local: SIGKILL",
  "local: SIGSEGV, and whether a core was dumped",
  "local: the launcher sets user and groups",
  "local: a cgroup's rest is killed before the restart",
  "agent: exit 7",
  "agent: SIGTERM",
  "agent: SIGKILL",
  "agent: SIGSEGV, and whether a core was dumped",
  "agent: the launcher sets user and groups",
  "agent: killed, it is restarted and its ending told",
  "agent: what ignores SIGTERM is killed with its whole group",
  "agent killed: the child is not disturbed",
  "agent killed: the child dies later",
  "agent killed: it is replaced, and the child restarted through the new one",
  "agent stopped, the child dies, the agent killed",
  "doctor names what the kernel lacks",
  "SIGTERM to the orchestrator stops all",
] as const;

export type ExitStatusCase = (typeof exitStatusCases)[number];
