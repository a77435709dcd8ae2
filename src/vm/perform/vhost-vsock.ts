import { closeSync, constants, openSync } from "node:fs";
import { refusalCode } from "../../journal/file-refused.ts";

/** What gives machines of QEMU a context id: vhost of the host's kernel. */
const DEVICE = "/dev/vhost-vsock";

/** Why it cannot be used; undefined where it can. */
export function vsockRefusal(): string | undefined {
  try {
    closeSync(openSync(DEVICE, constants.O_RDWR | constants.O_NONBLOCK));
    return undefined;
  } catch (error) {
    return `${DEVICE} does not open: ${refusalCode(error) ?? "it is none"}`;
  }
}
