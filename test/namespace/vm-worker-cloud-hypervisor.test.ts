/**
 * The compiled worker with cloud-hypervisor, or rather with the fake of it, which runs no guest:
 * what is proven is all that the worker does between its commands and the VMM.
 */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync } from "node:fs";
import { dirname } from "node:path";
import { hostler } from "../support/binary.ts";
import { kvmDevice, setUpFakeCloudHypervisor } from "../support/fake-cloud-hypervisor-host.ts";
import { guestChannel } from "../support/guest-channel.ts";
import { expectContinuous } from "../support/guest-numbers.ts";
import { startProgram } from "../support/program.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { type TestImage, VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

let host: VmHost;
let image: TestImage;
let configuration: readonly string[];

beforeEach(async () => {
  host = await VmHost.make();
  image = await host.image();
  configuration = await setUpFakeCloudHypervisor(host);
});
afterEach(() => host[Symbol.asyncDispose]());

const create = (name: string, ...words: readonly string[]) =>
  host.say("create", name, "--image", image.path, "--hash", image.hash, ...words);

skipUnless("the worker with cloud-hypervisor", [root, kvmDevice, program("ip", "iproute2")], () => {
  test("a machine from its creation to its removal, after which nothing is left", async () => {
    await host.start({ configuration });
    await create("web");
    expect(await host.say("boot", "web", "--wait")).toStartWith("web: running");
    expect((await host.summary("web")).hypervisor).toBe("cloud-hypervisor");
    await host.counts("web");
    expect(await host.say("pause", "web", "--wait")).toStartWith("web: paused");
    const still = host.numbers("web").at(-1);
    expect(await host.say("resume", "web", "--wait")).toStartWith("web: running");
    await waitFor("it to count on", () => (host.numbers("web").at(-1) ?? 0) > (still ?? 0));
    expectContinuous(host.numbers("web"));
    // The fake hears its power button.
    expect(await host.say("shutdown", "web", "--wait")).toStartWith("web: off");
    expect(await host.say("delete", "web", "--wait")).toBe("web: removed\n");
    expect(host.vmmProcesses()).toEqual([]);
    expect(await host.network()).toEqual({ links: [], tables: [] });
    expect(host.kept()).toEqual({ machines: [], images: [], run: [] });
    expect(host.said).not.toContain("bug");
  });

  test("the agent in its guest is reached by vsock, past a VMM that is replaced", async () => {
    await using channel = await guestChannel();
    chmodSync(dirname(channel.hostPath), 0o711);
    chmodSync(channel.hostPath, 0o777);
    await using _agent = startProgram([
      hostler(),
      "vm",
      "guest-agent",
      "--port",
      channel.guestPath,
    ]);
    configuration = await setUpFakeCloudHypervisor(host, { agent: channel.hostPath });
    await host.start({ configuration });
    await create("web", "--start");
    expect(await host.say("exec", "web", "--", "echo", "hello")).toBe("hello\n");
    expect(await host.say("replace-vmm", "web", "--wait")).toStartWith("web: running");
    expect(await host.say("ping", "web")).toStartWith("web: its agent answered within");
  });

  test("a guest without an agent is told of at once", async () => {
    await host.start({ configuration });
    await create("web", "--start");
    const { exitCode, stderr } = await host.run("ping", "web");
    expect(exitCode).toBe(111);
    expect(stderr).toContain("web: ");
  });

  test("its VMM is replaced under it, and adopted by the next worker", async () => {
    await host.start({ configuration });
    await create("web", "--start");
    await host.counts("web");
    const first = host.vmm;
    expect(await host.say("replace-vmm", "web", "--wait")).toStartWith("web: running");
    await host.counts("web");
    const second = host.vmm;
    expect(second).not.toBe(first);
    expectContinuous(host.numbers("web"));
    await host.kill();
    const heard = host.numbers("web");
    await host.start({ configuration });
    await host.reaches("web", "running");
    // Nobody keeps what the fake says while it is not heard.
    expect(await host.counts("web")).toBeGreaterThan(heard.length);
    expect(host.vmm).toBe(second);
    expectContinuous(host.numbers("web").slice(heard.length));
  });

  test("a snapshot is written, and restored as another life of it", async () => {
    await host.start({ configuration });
    await create("web", "--start");
    await host.counts("web");
    await host.say("snapshot", "web", "first");
    await host.counts("web");
    expectContinuous(host.numbers("web"));
    const last = host.numbers("web").at(-1) ?? 0;
    await host.say("delete", "web", "--now", "--wait");
    await host.say("restore", "web", "first");
    await host.reaches("web", "running");
    await host.counts("web");
    // From where it was, and not from the beginning.
    const [first = 0] = host.numbers("web");
    expect(first).toBeGreaterThan(1);
    expect(first).toBeLessThanOrEqual(last);
    expectContinuous(host.numbers("web"));
  });
});
