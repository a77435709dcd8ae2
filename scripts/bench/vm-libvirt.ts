/**
 * libvirt as Debian has it, on a host of the bench: its folders are in memory, and that host's.
 * Its machine is made of what hostler's has: q35 without KVM, the same processor, memory that is
 * shared, a serial port, chance, a balloon, a channel for an agent, and a TAP that is there.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { childOf } from "../../test/support/partition.ts";
import { type Program, startProgram } from "../../test/support/program.ts";
import type { VmHost } from "../../test/support/vm-worker.ts";
import { waitFor } from "../../test/support/wait-for.ts";
import { tryCommand } from "../command.ts";
import { makeTestGuest } from "../test-guest.ts";
import { type Memory, memoryOf } from "./process-status.ts";
import { guestMemory } from "./vm-bench.ts";

export interface Libvirt extends AsyncDisposable {
  /** The file that has what its guest said. */
  serialOf(name: string): string;
  /** Makes a machine's TAP, as somebody did for the floor's. */
  prepare(name: string): Promise<void>;
  /** Defines a machine and starts it; the guest of one that is paused does not run yet. */
  start(name: string, options?: { readonly paused: boolean }): Promise<void>;
  /** Ends it without asking its guest, and forgets it. */
  remove(name: string): Promise<void>;
  /** Of its daemon. */
  memory(): Memory;
}

/** All that it writes is below these. */
const folders = ["/run", "/var/lib", "/var/cache", "/var/log", "/etc/libvirt"];
const daemonProgram = "/usr/sbin/libvirtd";
const socket = "run/libvirt/libvirt-sock";

/** As root in every machine, without namespaces, cgroups and labels: less work than it can do. */
const machineConfiguration = [
  'user = "root"',
  'group = "root"',
  'security_driver = "none"',
  "namespaces = []",
  "cgroup_controllers = []",
  'stdio_handler = "file"',
  "",
].join("\n");

/** It looks for this user before it reads that it needs none: Debian makes it with the service. */
const ownUserName = "libvirt-qemu";
const ownUser = {
  passwd: `${ownUserName}:x:64055:64055::/nonexistent:/usr/sbin/nologin`,
  group: `${ownUserName}:x:64055:`,
};

/** @returns why it does not run here, where it does not */
export async function startLibvirt(host: VmHost): Promise<Libvirt | string> {
  if (!existsSync(daemonProgram)) return `${daemonProgram} is not there`;
  const folder = host.folder.file("libvirt");
  mkdirSync(folder);
  await host.on("sh", "-ec", folders.map((path) => `mount -t tmpfs bench ${path}`).join("\n"));
  const guest = join(folder, "guest");
  writeFileSync(guest, makeTestGuest({ pause: 3_000_000 }));
  const write = async (name: string, text: string, give: (path: string) => readonly string[]) => {
    writeFileSync(join(folder, name), text);
    await host.on(...give(join(folder, name)));
  };
  await write("qemu.conf", machineConfiguration, (path) => ["cp", path, "/etc/libvirt/qemu.conf"]);
  for (const [name, line] of Object.entries(ownUser)) {
    const text = readFileSync(`/etc/${name}`, "utf8");
    if (text.includes(`\n${ownUserName}:`)) continue;
    await write(name, `${text}${line}\n`, (path) => ["mount", "--bind", path, `/etc/${name}`]);
  }
  const daemon = startProgram([...host.enter, daemonProgram]);
  try {
    const processId = await waitFor("libvirtd", () => childOf(daemon.processId));
    await waitFor("libvirtd's socket", () => existsSync(`/proc/${processId}/root/${socket}`));
    const libvirt = new LibvirtHost({ host, folder, guest, daemon, processId });
    // What it asks every QEMU before its first machine, it keeps.
    await libvirt.virsh("domcapabilities --machine q35 --virttype qemu");
    return libvirt;
  } catch (error) {
    await daemon[Symbol.asyncDispose]();
    return error instanceof Error ? error.message : String(error);
  }
}

interface Parts {
  readonly host: VmHost;
  readonly folder: string;
  readonly guest: string;
  readonly daemon: Program;
  readonly processId: number;
}

class LibvirtHost implements Libvirt {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  virsh(...commands: readonly string[]): Promise<string> {
    const words = ["virsh", "--quiet", "--connect", "qemu:///system", commands.join("; ")];
    return this.#parts.host.on(...words);
  }

  serialOf(name: string): string {
    return join(this.#parts.folder, `${name}.serial`);
  }

  async start(name: string, { paused = false } = {}): Promise<void> {
    await this.virsh(`define ${this.#write(name)}`, `start ${name}${paused ? " --paused" : ""}`);
  }

  async prepare(name: string): Promise<void> {
    await this.#parts.host.on("ip", "tuntap", "add", tapOf(name), "mode", "tap", "vnet_hdr");
  }

  #write(name: string): string {
    const path = join(this.#parts.folder, `${name}.xml`);
    writeFileSync(
      path,
      domainOf(name, { guest: this.#parts.guest, serial: this.serialOf(name), tap: tapOf(name) }),
    );
    return path;
  }

  async remove(name: string): Promise<void> {
    await this.virsh(`destroy ${name}`, `undefine ${name}`);
    await this.#parts.host.on("ip", "link", "delete", tapOf(name));
  }

  memory(): Memory {
    return memoryOf([this.#parts.processId]);
  }

  /** Its machines end with the host. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { daemon, processId } = this.#parts;
    await tryCommand(["kill", "-TERM", String(processId)]);
    await daemon.ended();
  }
}

const tapOf = (name: string) => `v-${name}`;

/** @param paths the guest's program, where its serial port goes, and its TAP */
export function domainOf(
  name: string,
  paths: { readonly guest: string; readonly serial: string; readonly tap: string },
): string {
  return `<domain type='qemu'>
  <name>${name}</name>
  <memory unit='b'>${guestMemory}</memory>
  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><kernel>${paths.guest}</kernel></os>
  <features><acpi/><apic/></features>
  <cpu mode='custom' match='exact' check='none'><model>Nehalem</model></cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/>
    <interface type='ethernet'>
      <target dev='${paths.tap}' managed='no'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
    <serial type='file'><source path='${paths.serial}'/></serial>
    <channel type='unix'><target type='virtio' name='org.hostler.agent'/></channel>
    <memballoon model='virtio'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <panic model='isa'/>
  </devices>
</domain>
`;
}
