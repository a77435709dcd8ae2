/** What is told of guest agents behind vhost-vsock, in this order. */
export const vsockCases = [
  "a machine has a context id of its own, by its user's number",
  "its agent is asked by the host's kernel, and runs programs",
  "who is not root on the host is not answered",
  "its VMM is replaced, and the same guest answers",
  "a snapshot of it is restored under another context id",
  "a worker that was killed asks it again",
  "on a host without the device it does not start, and says what it lacks",
  "nothing is left of it",
  "without the device it is virtio-serial, and that is told",
] as const;
export type VsockCase = (typeof vsockCases)[number];
