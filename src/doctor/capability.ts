/** What to do for a capability. Root that lacks one was given less by whoever started it. Pure. */
export function mendCapability(name: string, user: number | undefined): string {
  if (user !== 0) return `Run as root, or with AmbientCapabilities=${name} in the unit.`;
  const short = name.replace(/^CAP_/, "");
  return (
    "This root has less than the host's. In a container: start that with " +
    `--cap-add=${short} (podman, docker). In a unit: add ${name} to CapabilityBoundingSet=.`
  );
}
