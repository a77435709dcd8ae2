/**
 * The worker on a host with vhost-vsock: it asks the agent in a Linux guest by the host's kernel.
 * The image of the guest is on the third disk.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { libc } from "../../../ffi/c-library.ts";
import { AF_VSOCK, SOCK_CLOEXEC, SOCK_STREAM } from "../../../ffi/constants.ts";
import { readInto, writeFrom } from "../../../ffi/descriptor.ts";
import { layouts } from "../../../ffi/layouts.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { check } from "../../../ffi/system-call-error.ts";
import { hashPath } from "../../../src/image/nar.ts";
import { frameMessage } from "../../../src/vm/guest-agent/framing.ts";
import { PROTOCOL_VERSION, VSOCK_PORT } from "../../../src/vm/guest-agent/protocol.ts";
import type { VmSummary } from "../../../src/vm/protocol.ts";
import { runProgram } from "../../support/program.ts";
import { waitFor } from "../../support/wait-for.ts";
import { type Case, requireEqual, tellCases } from "./tell.ts";
import { argumentsOf, VmStage } from "./vm-stage.ts";
import type { VsockCase } from "./vm-vsock-cases.ts";

/** A Linux guest in an emulated one takes its time to boot. */
const bootMilliseconds = 6 * 60_000;
const name = "web";
const imagePath = "/run/image-disk/image";
const stage = new VmStage({ artifacts: "/run/artifacts" });
let hash = "";
/** Of the first boot of its guest, and so of every one that went on from it. */
let bootId = "";

const place = (summary: VmSummary): string => {
  const words = argumentsOf(summary.pid ?? 0);
  const device = words.find((word) => /^(vhost-vsock|virtserialport)/.test(word)) ?? "none";
  return device
    .split(",")
    .filter((word) => !/^(bus|addr|nr|chardev)=/.test(word))
    .join(" ");
};

const userOf = ({ pid }: VmSummary): number => {
  const status = readFileSync(`/proc/${pid}/status`, "latin1");
  return Number(/^Uid:\t(\d+)/m.exec(status)?.[1]);
};

async function answers(): Promise<string> {
  let last = "never asked";
  const ping = async () => {
    try {
      return `${await stage.client.pingGuest(name)} ms`;
    } catch (error) {
      last = error instanceof Error ? error.message : String(error);
      return undefined;
    }
  };
  try {
    return await waitFor("the agent in the guest", ping, bootMilliseconds);
  } catch (error) {
    const heard = stage.console(name).slice(-2_000);
    throw new Error(`${last}; its console: ${heard}; ${stage.said}`, { cause: error });
  }
}

/** @returns what a program in the guest said */
async function run(...argv: readonly string[]): Promise<string> {
  let text = "";
  const command = { argv: [...argv], time_limit_ms: bootMilliseconds, output_limit: 65_536 };
  await stage.client.exec(name, command, (item) => {
    text += new TextDecoder().decode(Uint8Array.fromBase64(item.data));
    return Promise.resolve();
  });
  return text.trim();
}

const running = () => stage.become(name, "running");

const addressOf = (context: number, port: number): NativeMemory => {
  const { sockaddr_vm: layout } = layouts;
  const address = new NativeMemory(layout.size);
  address.view.setUint16(layout.svm_family, AF_VSOCK, true);
  address.view.setUint32(layout.svm_port, port, true);
  address.view.setUint32(layout.svm_cid, context, true);
  return address;
};

/**
 * Connects to the agent and says hello, from a port of one's own or, as any user of this host can,
 * from whichever there is.
 * @returns how many bytes it was told before the end of the connection, or of the first answer
 */
function sayHello(context: number, ownPort: number | undefined): number {
  const socket = new OwnedDescriptor(
    check("socket", libc.socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0)),
  );
  using _closed = socket;
  if (ownPort !== undefined) {
    const own = addressOf(0xffff_ffff, ownPort);
    check("bind", libc.bind(socket.number, own.address, own.size));
  }
  const peer = addressOf(context, VSOCK_PORT);
  check("connect", libc.connect(socket.number, peer.address, peer.size));
  const session = "5a".repeat(16);
  const hello = frameMessage({ verb: "hello", version: PROTOCOL_VERSION, session });
  const memory = new NativeMemory(4096);
  memory.bytes.set(hello);
  // Who is refused may find the connection ended before it has said anything.
  writeFrom(socket, memory, hello.length);
  return Math.max(0, readInto(socket, memory));
}

const cases: Readonly<Record<VsockCase, Case>> = {
  "a machine has a context id of its own, by its user's number": async () => {
    mkdirSync("/run/image-disk");
    await runProgram(["mount", "-t", "ext4", "-o", "ro", "/dev/vdc", "/run/image-disk"]);
    stage.configure(['guest_agent = "vsock"']);
    await stage.start();
    requireEqual((await stage.client.status()).warnings, []);
    hash = await hashPath(imagePath);
    await stage.client.create({ name, imagePath, hash }, "running");
    const summary = await running();
    requireEqual(place(summary), `vhost-vsock-pci guest-cid=${userOf(summary)}`);
    const own = `/proc/${summary.pid}/root/dev`;
    requireEqual(readdirSync(own).includes("vhost-vsock"), true);
    requireEqual(statSync(join(own, "vhost-vsock")).rdev, statSync("/dev/vhost-vsock").rdev);
    return place(summary);
  },

  "its agent is asked by the host's kernel, and runs programs": async () => {
    const time = await answers();
    bootId = await run("/bin/busybox", "cat", "/proc/sys/kernel/random/boot_id");
    requireEqual(/^[0-9a-f-]{36}$/.test(bootId), true);
    const ports = await run("/bin/busybox", "ls", "/sys/class/virtio-ports");
    requireEqual(ports, "");
    return `${time}, boot ${bootId}`;
  },

  "who is not root on the host is not answered": async () => {
    const context = userOf(await running());
    requireEqual(sayHello(context, undefined), 0);
    requireEqual(sayHello(context, 1024), 0);
    // It is the port alone that makes the difference.
    requireEqual(sayHello(context, 1000) > 0, true);
    return await answers();
  },

  "its VMM is replaced, and the same guest answers": async () => {
    const before = await running();
    const device = place(before);
    await stage.client.change("replace-vmm", name);
    const look = async () => {
      const { summary } = await stage.client.show(name);
      return summary.phase === "running" && summary.pid !== before.pid && summary;
    };
    const after = await waitFor(`another VMM: ${stage.said}`, look, bootMilliseconds);
    requireEqual(place(after), device);
    const time = await answers();
    requireEqual(await run("/bin/busybox", "cat", "/proc/sys/kernel/random/boot_id"), bootId);
    return time;
  },

  "a snapshot of it is restored under another context id": async () => {
    const before = place(await running());
    await stage.client.takeSnapshot(name, "first");
    await stage.client.change("delete", name, { now: true });
    await stage.client.wait(name, "removed");
    await stage.client.restore(name, "first");
    const after = await running();
    requireEqual(place(after), `vhost-vsock-pci guest-cid=${userOf(after)}`);
    requireEqual(place(after) === before, false);
    const time = await answers();
    requireEqual(await run("/bin/busybox", "cat", "/proc/sys/kernel/random/boot_id"), bootId);
    return `${before}, then ${place(after)}: ${time}`;
  },

  "a worker that was killed asks it again": async () => {
    const before = await running();
    await stage.kill();
    await stage.start();
    requireEqual((await running()).pid, before.pid);
    return await answers();
  },

  "on a host without the device it does not start, and says what it lacks": async () => {
    await stage.client.change("shutdown", name, { grace_ms: 10 });
    await stage.become(name, "off");
    renameSync("/dev/vhost-vsock", "/dev/vhost-vsock-of-host");
    await stage.client.change("boot", name);
    const why = "its agent is reached by vsock, and /dev/vhost-vsock does not open: ENOENT";
    const look = async () => {
      const { reason } = (await stage.client.show(name)).summary;
      return reason?.includes(why) === true && reason;
    };
    return await waitFor(`the reason: ${stage.said}`, look, bootMilliseconds);
  },

  "nothing is left of it": async () => {
    await stage.client.change("delete", name, { now: true });
    await stage.client.wait(name, "removed");
    await stage.client.deleteSnapshot(name, "first");
    return requireEqual(stage.left(), { machines: [], run: [], vmms: [], links: [] });
  },

  "without the device it is virtio-serial, and that is told": async () => {
    await stage.stop();
    await stage.start();
    const { warnings } = await stage.client.status();
    const told = "by virtio-serial and not by vsock: /dev/vhost-vsock does not open: ENOENT";
    requireEqual(warnings.filter((one) => one.includes(told)).length, 1);
    await stage.client.create({ name, imagePath, hash }, "running");
    const seen = requireEqual(
      place(await running()),
      "virtserialport id=agent-port name=org.hostler.agent",
    );
    await stage.client.change("delete", name, { now: true });
    await stage.client.wait(name, "removed");
    return seen;
  },
};

const failures = await tellCases(cases);
if (failures > 0) console.log(stage.said);
await stage[Symbol.asyncDispose]();
process.exitCode = failures === 0 ? 0 : 1;
