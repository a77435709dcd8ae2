/** What QEMU is started with: whole command lines, and every refusal. */
import { describe, expect, test } from "bun:test";
import {
  type Disk,
  MachineRefused,
  type MachineSpecification,
  type NetworkCard,
} from "../../../src/hypervisor/driver.ts";
import { qemuDriver } from "../../../src/hypervisor/qemu/driver.ts";
import { planLimits } from "../../../src/hypervisor/qemu/refuse.ts";
import { filesIn, testMachine, testProgram } from "../../support/hypervisor/machines.ts";

const files = filesIn("/run/first");
const disk = (changes: Partial<Disk> = {}): Disk => ({
  id: "root",
  path: "/disks/root.img",
  format: "raw",
  readOnly: false,
  backing: undefined,
  ...changes,
});
const card = (changes: Partial<NetworkCard> = {}): NetworkCard => ({
  id: "lan",
  tap: "hv-first-0",
  macAddress: "52:54:00:00:00:01",
  ...changes,
});
const plan = (changes: Partial<MachineSpecification>, beginning: "new" | "incoming" = "new") =>
  qemuDriver.plan(testMachine(changes), files, testProgram, beginning);
const line = (words: readonly string[]) => words.join(" ").replaceAll(" -", "\n-").split("\n");

describe("the plan", () => {
  test("of the smallest machine", () => {
    const made = plan({});
    expect(line(made.arguments)).toEqual([
      "-nodefaults",
      "-no-user-config",
      "-S",
      "-display none",
      "-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
      "-name guest=first",
      "-accel tcg,thread=multi",
      "-machine pc-q35-7.2,memory-backend=ram",
      "-cpu qemu64-v1",
      "-smp cpus=1,maxcpus=1",
      "-m size=64M",
      "-object memory-backend-file,id=ram,size=67108864,mem-path=/proc/self/fd/3,share=on",
      "-action shutdown=pause,panic=pause",
      "-chardev socket,id=control,fd=0,server=on,wait=off",
      "-mon chardev=control,mode=control",
      "-chardev socket,id=console,path=/run/first/console,server=on,wait=off",
      "-serial chardev:console",
      "-kernel /guest.elf",
      "-object rng-random,id=random,filename=/dev/urandom",
      "-device virtio-rng-pci,bus=pcie.0,addr=0x1,rng=random",
      "-device virtio-balloon-pci,bus=pcie.0,addr=0x2,id=balloon",
      "-device pvpanic",
    ]);
    expect(made.program).toBe("/usr/bin/qemu-system-x86_64");
    expect(made.descriptors).toEqual([
      { number: 0, role: "listener", path: "/run/first/control" },
      { number: 3, role: "memory" },
    ]);
    expect(made.devices).toEqual(["/dev/null", "/dev/urandom"]);
  });

  test("of one with all that there is", () => {
    const base = { path: "/images/a,b.raw", format: "raw" } as const;
    const made = plan({
      accelerator: "kvm",
      processors: 4,
      memory: 2 * 1024 ** 3,
      processorModel: "EPYC-v1",
      agent: "virtio-serial",
      boot: {
        kind: "kernel",
        kernel: "/boot/a,b",
        initramfs: "/boot/initramfs",
        commandLine: "console=ttyS0 a=b,c",
      },
      disks: [
        disk({ format: "qcow2", path: "/disks/a,b.qcow2", backing: base }),
        disk({ id: "seed", path: "/disks/seed.img", readOnly: true }),
      ],
      networks: [card(), card({ id: "wan", tap: "hv-first-1", macAddress: "52:54:00:00:00:02" })],
    });
    expect(line(made.arguments).slice(4)).toMatchSnapshot();
    expect(made.devices).toEqual(["/dev/null", "/dev/urandom", "/dev/kvm", "/dev/net/tun"]);
  });

  test("of a microvm has no bus to stand on", () => {
    const made = plan({
      machineType: "microvm",
      agent: "virtio-serial",
      disks: [disk()],
      networks: [card()],
    });
    expect(line(made.arguments).slice(6)).toMatchSnapshot();
    expect(made.arguments.join(" ")).not.toContain("pci");
  });

  test("of firmware boots from the disks in their order", () => {
    const boot = { kind: "firmware", code: "/ovmf/code.fd", variables: "/first/a,b.fd" } as const;
    const made = plan({ boot, disks: [disk(), disk({ id: "seed", readOnly: true })] });
    expect(line(made.arguments).slice(6)).toMatchSnapshot();
  });

  test("of a machine that takes another's state differs in its end alone", () => {
    const begun = plan({ disks: [disk()] }).arguments;
    expect(plan({ disks: [disk()] }, "incoming").arguments).toEqual([
      ...begun,
      "-incoming",
      "defer",
    ]);
  });

  test("of one that waits with a card: its TAP comes last", () => {
    const networks = [card()];
    const made = plan({ networks });
    const waits = plan({ networks }, "incoming");
    const { arguments: words } = made;
    const at = words.indexOf("-netdev");
    expect(words[at + 1]).toBe(
      "tap,id=card-lan,ifname=hv-first-0,script=no,downscript=no,vhost=off",
    );
    const others = words.filter((_word, index) => index !== at && index !== at + 1);
    expect(waits.arguments).toEqual([...others, "-incoming", "defer", "-preconfig"]);
    expect(waits.devices).toContain("/dev/net/tun");
    expect(qemuDriver.takesAlone(testMachine({ networks }))).toBe(true);
    expect(qemuDriver.takesAlone(testMachine({}))).toBe(false);
  });

  test("of one that waits with a context id: its machine is made when the id is free", () => {
    const machine = testMachine({ agent: { vsock: 2_100_000_000 } });
    const begun = qemuDriver.plan(machine, filesIn("/run/first"), testProgram, "new").arguments;
    const waits = qemuDriver.plan(machine, filesIn("/run/first"), testProgram, "incoming");
    expect(waits.arguments).toEqual([...begun, "-incoming", "defer", "-preconfig"]);
    expect(waits.devices).toContain("/dev/vhost-vsock");
    expect(qemuDriver.takesAlone(machine)).toBe(true);
    expect(qemuDriver.takesAlone(testMachine({ agent: "virtio-serial" }))).toBe(false);
  });

  test("with a socket to the agent names its device", () => {
    const made = plan({ agent: { vsock: 77 } });
    expect(made.arguments).toContain("vhost-vsock-pci,bus=pcie.0,addr=0x3,guest-cid=77");
    expect(made.devices).toContain("/dev/vhost-vsock");
  });

  test("doubles commas where they would end a value, and only there", () => {
    const commas = filesIn("/run/a,b");
    const made = qemuDriver.plan(
      testMachine({ agent: "virtio-serial", disks: [disk({ path: "/a,b.img" })] }),
      commas,
      testProgram,
      "new",
    );
    const words = made.arguments.join("\n");
    for (const name of ["console", "agent"]) {
      expect(words).toContain(`path=/run/a,,b/${name},server=on`);
    }
    expect(words).toContain('"filename":"/a,b.img"');
  });

  test("follows no word of a disk's own file", () => {
    const made = plan({ disks: [disk({ format: "qcow2" })] });
    expect(made.arguments.join("\n")).toContain('"file":"disk-root.file","backing":null');
  });

  test("has names of at most 31 bytes, which is QEMU's limit", () => {
    const backing = { path: "/base", format: "raw" } as const;
    const id = "x".repeat(planLimits.wordBytes);
    const made = plan({ disks: [disk({ id, format: "qcow2", backing })] });
    const names = [...made.arguments.join("\n").matchAll(/"node-name":"([^"]+)"/g)];
    expect(names).toHaveLength(4);
    for (const [, name = ""] of names) expect(name.length).toBeLessThanOrEqual(31);
  });
});

const many = (count: number) => Array.from({ length: count }, (_, index) => index);
const disks = (count: number) => many(count).map((index) => disk({ id: `d${index}` }));
const cards = (count: number) => many(count).map((index) => card({ id: `c${index}` }));
const kernel = (changes: object) => ({
  boot: {
    kind: "kernel",
    kernel: "/k",
    initramfs: undefined,
    commandLine: "",
    ...changes,
  } as const,
});
const firmware = (variables: string | undefined) =>
  ({ kind: "firmware", code: "/code", variables }) as const;

describe("a machine is refused", () => {
  const rows: readonly [key: string, Partial<MachineSpecification>][] = [
    ["name", { name: "a b" }],
    ["name", { name: "x".repeat(64) }],
    ["machine_type", { machineType: undefined }],
    ["machine_type", { machineType: "q35" }],
    ["machine_type", { machineType: "pc-i440fx-7.2" }],
    ["machine_type", { machineType: "pc-q35-7.2,usb=on" }],
    ["processor_model", { processorModel: undefined }],
    ["processor_model", { processorModel: "qemu64,+svm" }],
    ["processor_model", { processorModel: "host" }],
    ["processors", { processors: 0 }],
    ["processors", { processors: 1.5 }],
    ["processors", { processors: planLimits.processors + 1 }],
    ["memory", { memory: 1024 ** 2 * 64 + 1 }],
    ["memory", { memory: 1024 ** 2 * (planLimits.leastMemory - 1) }],
    ["memory", { memory: 1024 ** 2 * (planLimits.mostMemory + 1) }],
    ["boot.kernel", kernel({ kernel: "vmlinuz" })],
    ["boot.kernel", kernel({ kernel: `/${"x".repeat(planLimits.pathBytes)}` })],
    ["boot.initramfs", kernel({ initramfs: "json:{}" })],
    ["boot.command_line", kernel({ commandLine: "x".repeat(planLimits.commandLineBytes + 1) })],
    ["boot.command_line", kernel({ commandLine: "a\0b" })],
    ["boot.firmware", { boot: firmware("/v"), machineType: "microvm" }],
    ["boot.firmware", { boot: { kind: "firmware", code: "code", variables: "/v" } }],
    ["boot.variables", { boot: firmware(undefined) }],
    ["boot.variables", { boot: firmware("variables") }],
    ["disks", { disks: disks(planLimits.disks + 1) }],
    ["disks", { machineType: "microvm", disks: disks(12), networks: cards(10) }],
    ["disks.id", { disks: [disk(), disk()] }],
    ["disks.id", { disks: [disk({ id: "a,b" })] }],
    ["disks.id", { disks: [disk({ id: "x".repeat(planLimits.wordBytes + 1) })] }],
    ["disks.root.path", { disks: [disk({ path: "nbd:host:10809" })] }],
    ["disks.root.path", { disks: [disk({ path: "/a\0b" })] }],
    ["disks.root.format", { disks: [disk({ backing: { path: "/b", format: "raw" } })] }],
    [
      "disks.root.backing.path",
      { disks: [disk({ format: "qcow2", backing: { path: "b", format: "raw" } })] },
    ],
    [
      "disks.root.backing.path",
      { disks: [disk({ format: "qcow2", backing: { path: disk().path, format: "raw" } })] },
    ],
    ["networks", { networks: cards(planLimits.cards + 1) }],
    ["networks.id", { networks: [card(), card()] }],
    ["networks.id", { networks: [card({ id: "LAN" })] }],
    ["networks.lan.tap", { networks: [card({ tap: "x".repeat(16) })] }],
    ["networks.lan.tap", { networks: [card({ tap: "a,fd=3" })] }],
    ["networks.lan.tap", { networks: [card({ tap: ".." })] }],
    ["networks.lan.mac", { networks: [card({ macAddress: "52:54:00:00:00:0A" })] }],
    ["networks.lan.mac", { networks: [card({ macAddress: "53:54:00:00:00:01" })] }],
    ["agent.vsock", { agent: { vsock: 2 } }],
    ["agent.vsock", { agent: { vsock: 0xffff_ffff } }],
  ];

  test.each(rows)("for its %s: %j", (key, changes) => {
    expect(findingOf(() => plan(changes)).key).toBe(key);
  });

  test("for a socket whose path is too long, by its key", () => {
    const long = filesIn(`/${"x".repeat(planLimits.socketBytes)}`);
    const { key } = findingOf(() => qemuDriver.plan(testMachine(), long, testProgram, "new"));
    expect(key).toBe("files.control");
  });

  test("in words that say key, expected, received and mend", () => {
    const refused = () => plan({ machineType: "q35" });
    expect(refused).toThrow(
      'machine_type: expected "pc-q35-N.M" or "microvm", received q35: ' +
        'name a version, as "pc-q35-7.2": what "q35" means changes with QEMU',
    );
  });

  test("at the limit by nothing", () => {
    const path = `/${"x".repeat(planLimits.pathBytes - 1)}`;
    plan({
      name: "x".repeat(63),
      processors: planLimits.processors,
      memory: planLimits.mostMemory * 1024 ** 2,
      disks: disks(planLimits.disks).map((one) => ({ ...one, path })),
      networks: cards(planLimits.cards),
      ...kernel({ kernel: path, commandLine: "x".repeat(planLimits.commandLineBytes) }),
    });
    plan({ machineType: "microvm", disks: disks(12), networks: cards(9) });
    plan({ memory: planLimits.leastMemory * 1024 ** 2 });
  });
});

function findingOf(call: () => unknown) {
  try {
    call();
  } catch (error) {
    if (error instanceof MachineRefused) return error.finding;
    throw error;
  }
  throw new Error("Expected a refusal");
}

describe("a machine's state is bound to one build", () => {
  test.each([
    [{ machineType: "microvm" }, ["machine_type"]],
    [{ processorModel: "max" }, ["processor_model"]],
    [{ machineType: "microvm", processorModel: "host" }, ["machine_type", "processor_model"]],
    [{}, []],
    [{ processorModel: "Nehalem" }, []],
  ])("%j", (changes, keys) => {
    const reasons = qemuDriver.boundToBuild(testMachine(changes));
    expect(reasons.map((reason) => reason.split(" ")[0] ?? "")).toEqual(keys);
  });
});
