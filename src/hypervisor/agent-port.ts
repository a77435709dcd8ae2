/**
 * The name of the virtio-serial port that leads to the agent in a guest: a VMM gives it, udev makes
 * /dev/virtio-ports/NAME of it, and the agent looks for it.
 */
export const AGENT_PORT = "org.hostler.agent";
