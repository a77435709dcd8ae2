/** How the worker reaches the agent in a guest of QEMU's. Pure. */

export type AgentChannel = "virtio-serial" | "vsock";

/**
 * As the configuration asks, where this host can; else by virtio-serial, which every host can.
 * @param refusal why /dev/vhost-vsock cannot be used; undefined where it can
 */
export function chooseAgentChannel(
  wanted: AgentChannel,
  refusal: string | undefined,
): { readonly channel: AgentChannel; readonly warning: string | undefined } {
  if (wanted === "virtio-serial" || refusal === undefined) {
    return { channel: wanted, warning: undefined };
  }
  const warning =
    `Guest agents of new machines are reached by virtio-serial and not by vsock: ${refusal}. ` +
    "Load the module: modprobe vhost_vsock.";
  return { channel: "virtio-serial", warning };
}
