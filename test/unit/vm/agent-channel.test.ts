/** How the agent in a guest is reached, and who may ask it. */
import { describe, expect, test } from "bun:test";
import { Errno } from "../../../ffi/system-call-error.ts";
import { HOST_CONTEXT, LAST_PRIVILEGED_PORT } from "../../../ffi/vsock.ts";
import { chooseAgentChannel } from "../../../src/vm/agent-channel.ts";
import { mayAsk } from "../../../src/vm/perform/guest-port.ts";
import { explainVsock } from "../../../src/vm/perform/vsock-dial.ts";

describe("the channel of a new machine", () => {
  const refusal = "/dev/vhost-vsock does not open: ENOENT";

  test("is what is asked for, where this host can", () => {
    expect(chooseAgentChannel("vsock", undefined)).toEqual({
      channel: "vsock",
      warning: undefined,
    });
    for (const why of [undefined, refusal]) {
      expect(chooseAgentChannel("virtio-serial", why)).toEqual({
        channel: "virtio-serial",
        warning: undefined,
      });
    }
  });

  test("is virtio-serial where it cannot, and that is told", () => {
    const { channel, warning } = chooseAgentChannel("vsock", refusal);
    expect(channel).toBe("virtio-serial");
    expect(warning).toContain(`by virtio-serial and not by vsock: ${refusal}`);
    expect(warning).toContain("modprobe vhost_vsock");
  });
});

describe("over AF_VSOCK", () => {
  const others = { ours: 3, any: 0xffff_ffff, local: 1 };

  test("root of the host may ask, by its port", () => {
    for (const port of [1, LAST_PRIVILEGED_PORT]) {
      expect(mayAsk({ context: HOST_CONTEXT, port }, false)).toBe(true);
    }
    for (const port of [LAST_PRIVILEGED_PORT + 1, 2 ** 30, 0xffff_fffe]) {
      expect(mayAsk({ context: HOST_CONTEXT, port }, false)).toBe(false);
    }
  });

  test("cloud-hypervisor's side has other ports, and a socket whose mode decides", () => {
    expect(mayAsk({ context: HOST_CONTEXT, port: 2 ** 30 }, true)).toBe(true);
  });

  test.each(Object.entries(others))("a user of the guest may not: %s", (_whose, context) => {
    for (const isCloudHypervisor of [true, false]) {
      expect(mayAsk({ context, port: 1 }, isCloudHypervisor)).toBe(false);
    }
  });

  test.each([
    [Errno.ENODEV, "no machine has this context id"],
    [Errno.ECONNRESET, "does the guest run hostler vm guest-agent?"],
    [Errno.ETIMEDOUT, "has it booted so far"],
    [Errno.EADDRINUSE, "all ports up to 1023"],
    [Errno.EACCES, "Permission denied"],
  ])("error %d says what to look at", (errno, text) => {
    expect(explainVsock(errno)).toContain(text);
  });
});
