/** What is told of machines' cgroups in a guest, in this order. */
export const cgroupCases = [
  "the worker divides its cgroup",
  "a machine is in a cgroup of its own, with its limits",
  "what it uses is told by its cgroup, and it is held back",
  "limits are changed while it runs",
  "a worker that was killed adopts it where it is, with what was declared last",
  "its VMM is replaced: a new cgroup, and the old one is gone",
  "its VMM dies: who was left in its cgroup is ended, and the next one has another",
  "limits that cannot be meant are refused",
  "a worker that is killed before the spawn leaves an empty cgroup, which goes",
  "at the limit of memory the VMM alone is ended, and restarted",
  "all is deleted, and no cgroup is left",
] as const;
export type CgroupCase = (typeof cgroupCases)[number];
