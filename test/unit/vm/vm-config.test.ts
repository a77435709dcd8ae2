/** vm-config.json: both shapes of it, what is refused by key, and what is not acted on. */
import { describe, expect, test } from "bun:test";
import {
  type MachineImage,
  parseVmConfig,
  type VmConfigPlace,
  wantedFiles,
} from "../../../src/vm/vm-config.ts";
import { vmConfigLimits } from "../../../src/vm/vm-config-schema.ts";
import { SeededChance } from "../../support/chance.ts";

const place: VmConfigPlace = { folder: "/srv/images/web", hypervisor: "cloud-hypervisor" };
const inNixStore: VmConfigPlace = { ...place, folder: "/nix/store/abc-vm-image" };

function accept(json: unknown, where = place) {
  const outcome = parseVmConfig(JSON.stringify(json), where);
  if (outcome.kind === "ok") return outcome;
  throw new Error(`Refused: ${JSON.stringify(outcome.errors, null, 2)}`);
}

/** "key: expected; received (mend)" of each error. */
function told(json: unknown, where = place): string[] {
  const text = typeof json === "string" ? json : JSON.stringify(json);
  const outcome = parseVmConfig(text, where);
  if (outcome.kind === "ok") return [];
  return outcome.errors.map(({ key, expected, received, mend }) => {
    const advice = mend === undefined ? "" : ` (${mend})`;
    return `${key}: ${expected}; ${received}${advice}`;
  });
}

/** As the seed has it: cloud-hypervisor's older shape, with all that it writes by default. */
const older = {
  cpus: { boot_vcpus: 2, max_vcpus: 4, topology: null, kvm_hyperv: false, max_phys_bits: 46 },
  memory: { size: 536_870_912, shared: true, hugepages: false, hotplug_method: "acpi", thp: true },
  kernel: { path: "vmlinux" },
  initramfs: { path: "./initrd" },
  cmdline: { args: "console=ttyS0 root=/dev/vda rw" },
  disks: [
    { path: "disk.img", readonly: false, direct: false, num_queues: 1, queue_size: 128 },
    { path: "data//more.qcow2", readonly: true, id: "data", image_type: "Qcow2" },
  ],
  net: [{ tap: null, ip: "10.100.0.5", mask: "255.255.0.0", mac: "52:54:00:AB:cd:01" }],
  rng: { src: "/dev/urandom" },
  serial: { mode: "Tty", file: null, iommu: false },
  console: { mode: "Off" },
  balloon: null,
  watchdog: false,
  preserved_fds: null,
  landlock_config: null,
};

const today = {
  cpus: older.cpus,
  memory: older.memory,
  payload: {
    kernel: "vmlinux",
    initramfs: "./initrd",
    cmdline: "console=ttyS0 root=/dev/vda rw",
    firmware: null,
  },
  disks: older.disks,
  net: older.net,
  rng: older.rng,
  serial: older.serial,
  console: older.console,
};

const machine: MachineImage = {
  processors: 2,
  mostProcessors: 4,
  memory: { size: 536_870_912, isShared: true, hugePages: undefined },
  boot: {
    kind: "kernel",
    kernel: { kind: "inside", name: "vmlinux" },
    initramfs: { kind: "inside", name: "initrd" },
    commandLine: "console=ttyS0 root=/dev/vda rw",
  },
  disks: [
    {
      kind: "image",
      id: "disk0",
      file: { kind: "inside", name: "disk.img" },
      readOnly: false,
      format: undefined,
      size: undefined,
    },
    {
      kind: "image",
      id: "data",
      file: { kind: "inside", name: "data/more.qcow2" },
      readOnly: true,
      format: "qcow2",
      size: undefined,
    },
  ],
  networks: [
    {
      id: "net0",
      macAddress: "52:54:00:ab:cd:01",
      address: "10.100.0.5",
      mask: "255.255.0.0",
      tap: undefined,
    },
  ],
  serial: "Tty",
  console: "Off",
  cloudInit: undefined,
  healthChecks: [],
};

/** The least that is a machine, with more. */
const least = (more: object = {}) => ({
  cpus: { boot_vcpus: 1 },
  memory: { size: "512MiB" },
  payload: { kernel: "vmlinux" },
  ...more,
});

describe("both shapes are the same machine", () => {
  test("cloud-hypervisor's older one, as the seed has it", () => {
    expect(accept(older).machine).toEqual(machine);
  });

  test("today's", () => {
    expect(accept(today).machine).toEqual(machine);
  });

  test("what is not acted on is told by name", () => {
    const message = "cloud-hypervisor has it; this worker does not act on it";
    const cpus = { ...older.cpus, max_phys_bits: 40, kvm_hyperv: true };
    expect(accept({ ...older, cpus }).warnings).toEqual([
      { key: "cpus.kvm_hyperv", message },
      { key: "cpus.max_phys_bits", message },
    ]);
  });

  test("of what asks for nothing, nothing is told: a program writes every key", () => {
    expect(accept(older).warnings).toEqual([]);
    const net = [{ num_queues: 2, queue_size: 256, offload_tso: true, pci_segment: 0, fds: [] }];
    expect(accept({ ...older, net }).warnings).toEqual([]);
    const other = [{ num_queues: 1, queue_size: 128, offload_tso: false, pci_segment: 1 }];
    expect(accept({ ...older, net: other }).warnings.map(({ key }) => key)).toEqual([
      "net[0].num_queues",
      "net[0].queue_size",
      "net[0].pci_segment",
      "net[0].offload_tso",
    ]);
  });

  test("the least that is a machine", () => {
    expect(accept(least()).machine).toEqual({
      processors: 1,
      mostProcessors: 1,
      memory: { size: 536_870_912, isShared: false, hugePages: undefined },
      boot: {
        kind: "kernel",
        kernel: { kind: "inside", name: "vmlinux" },
        initramfs: undefined,
        commandLine: "",
      },
      disks: [],
      networks: [],
      serial: "Null",
      console: "Off",
      cloudInit: undefined,
      healthChecks: [],
    });
  });

  test("firmware of the image, and of the host", () => {
    const base = { cpus: { boot_vcpus: 1 }, memory: { size: "1GiB" } };
    const own = accept({ ...base, payload: { firmware: "OVMF.fd" } }).machine;
    expect(own.boot).toEqual({ kind: "firmware", code: { kind: "inside", name: "OVMF.fd" } });
    expect(wantedFiles(own).map(({ key }) => key)).toEqual(["firmware"]);
    const stock = accept({ ...base, hostler: { firmware: "host" } }).machine;
    expect(stock.boot).toEqual({ kind: "firmware", code: "host" });
    expect(wantedFiles(stock)).toEqual([]);
  });
});

describe("our own keys", () => {
  test("all of them", () => {
    const cloud = { user_data: "#cloud-config\n", meta_data: "a: b", network_config: "version: 2" };
    const checks = [{ kind: "tcp", port: 22, interval: "5s" } as const, { kind: "agent" } as const];
    const { machine: read, warnings } = accept(
      least({
        disks: [{ path: "disk.img" }],
        hostler: {
          ephemeral_disks: [{ size: "2GiB" }, { id: "scratch", size: 1_048_576 }],
          disk_sizes: { disk0: "20GiB" },
          cloud_init: cloud,
          health_checks: checks,
        },
      }),
    );
    expect(warnings).toEqual([]);
    expect(read.disks).toEqual([
      {
        kind: "image",
        id: "disk0",
        file: { kind: "inside", name: "disk.img" },
        readOnly: false,
        format: undefined,
        size: 20 * 1024 ** 3,
      },
      { kind: "ephemeral", id: "ephemeral0", size: 2 * 1024 ** 3 },
      { kind: "ephemeral", id: "scratch", size: 1_048_576 },
    ]);
    expect(read.cloudInit).toEqual({
      userData: "#cloud-config\n",
      metaData: "a: b",
      networkConfig: "version: 2",
    });
    expect(read.healthChecks).toEqual(checks);
  });

  test("an empty seed is one", () => {
    const { cloudInit } = accept(least({ hostler: { cloud_init: {} } })).machine;
    expect(cloudInit).toEqual({ userData: "", metaData: undefined, networkConfig: undefined });
  });
});

describe("paths", () => {
  const kernelOf = (kernel: string, where: VmConfigPlace) => {
    const { boot } = accept(least({ payload: { kernel } }), where).machine;
    return boot.kind === "kernel" ? boot.kernel : undefined;
  };

  test("are files of the image, also by the path that the image was given by", () => {
    const file = { kind: "inside", name: "boot/vmlinux" } as const;
    expect(kernelOf("boot/vmlinux", place)).toEqual(file);
    expect(kernelOf("./boot/.//vmlinux", place)).toEqual(file);
    expect(kernelOf("/srv/images/web/boot/vmlinux", place)).toEqual(file);
    expect(kernelOf("/nix/store/abc-vm-image/boot/vmlinux", inNixStore)).toEqual(file);
  });

  test("may lead into /nix/store from an image that is there", () => {
    const path = "/nix/store/xyz-linux/bzImage";
    expect(kernelOf(path, inNixStore)).toEqual({ kind: "outside", path });
    const expected = 'payload.kernel: a path in the image, without ".."';
    expect(told(least({ payload: { kernel: path } }))).toEqual([`${expected}; "${path}"`]);
  });

  test.each([
    "..",
    "../vmlinux",
    "a/../vmlinux",
    "a/../../vmlinux",
    "/etc/passwd",
    "/srv/images/web",
    "/srv/images/web/",
    "/srv/images/website/vmlinux",
    "/srv/images/web/../x",
    "/nix/store/../../etc/passwd",
    "/nix/store",
    ".",
    "./",
    "/",
  ])("%p leads out, or nowhere", (kernel) => {
    for (const where of [place, inNixStore]) {
      const [refusal, ...more] = told(least({ payload: { kernel } }), where);
      expect(refusal).toStartWith('payload.kernel: a path in the image, without ".."');
      expect(refusal).toEndWith(`; ${JSON.stringify(kernel)}`);
      expect(more).toEqual([]);
    }
  });

  test("which files a machine needs, and who says so", () => {
    expect(wantedFiles(accept(today).machine)).toEqual([
      { key: "kernel", file: { kind: "inside", name: "vmlinux" } },
      { key: "initramfs", file: { kind: "inside", name: "initrd" } },
      { key: "disks[0].path", file: { kind: "inside", name: "disk.img" } },
      { key: "disks[1].path", file: { kind: "inside", name: "data/more.qcow2" } },
    ]);
  });
});

describe("warnings", () => {
  const warned = (json: object, hypervisor: VmConfigPlace["hypervisor"] = "cloud-hypervisor") =>
    accept(json, { ...place, hypervisor }).warnings.map(({ key }) => key);

  test("pci=off, where all devices are on PCI", () => {
    const cmdline = (line: string) => least({ payload: { kernel: "k", cmdline: line } });
    expect(warned(cmdline("quiet pci=off"))).toEqual(["cmdline"]);
    expect(accept(cmdline("pci=off")).warnings[0]?.message).toContain("take it out");
    expect(warned(cmdline("quiet pci=off"), "qemu")).toEqual([]);
    expect(warned(cmdline("pci=off"), undefined)).toEqual(["cmdline"]);
    expect(warned(cmdline("pci=offline xpci=off"))).toEqual([]);
  });

  test("everything that cloud-hypervisor has and that nobody acts on", () => {
    const json = least({
      net: [{ tap: "tap0" }, { mtu: 1_400 }],
      disks: [{ path: "a" }, { path: "b", direct: true, queue_size: 64 }],
      memory: { size: "1GiB", hugepages: true, hugepage_size: 2 * 1024 ** 2, thp: false },
      serial: { mode: "File", file: "/tmp/x" },
      rng: { src: "/dev/urandom", iommu: true },
      watchdog: true,
      vsock: { cid: 3, socket: "/tmp/v" },
    });
    expect(warned(json)).toEqual([
      "vsock",
      "watchdog",
      "memory.thp",
      "disks[1].direct",
      "disks[1].queue_size",
      "net[1].mtu",
      "rng.iommu",
      "serial.file",
      "net[0].tap",
      "memory.hugepages",
      "serial.mode",
    ]);
    expect(accept(json).machine.memory.hugePages).toBe(2 * 1024 ** 2);
  });

  test("huge pages of the host's own size", () => {
    const { memory } = accept(least({ memory: { size: "1GiB", hugepages: true } })).machine;
    expect(memory.hugePages).toBe("default");
  });
});

const memoryExpected = 'bytes from 1 MiB to 16 TiB in whole MiB, such as 536870912 or "512MiB"';
const idExpected =
  "a word of 1 to 31 of a-z, 0-9 and -, that does not begin with -, and is not seed";
const waysExpected = 'one of payload.kernel, payload.firmware and hostler.firmware ("host")';

describe("what is refused", () => {
  test.each<[object, string]>([
    [{ cpus: { boot_vcpus: 0 } }, "cpus.boot_vcpus: a number from 1 to 255; 0"],
    [{ cpus: { boot_vcpus: 256 } }, "cpus.boot_vcpus: a number from 1 to 255; 256"],
    [{ cpus: {} }, "cpus.boot_vcpus: the key boot_vcpus; nothing"],
    [{ cpus: { boot_vcpus: 4, max_vcpus: 2 } }, "cpus.max_vcpus: at least boot_vcpus, 4; 2"],
    [{ memory: { size: 1_048_577 } }, `memory.size: ${memoryExpected}; 1048577`],
    [{ memory: { size: 0 } }, `memory.size: ${memoryExpected}; 0`],
    [{ memory: { size: "17TiB" } }, `memory.size: ${memoryExpected}; "17TiB"`],
    [{ memory: { size: 17 * 1024 ** 4 } }, `memory.size: ${memoryExpected}; ${17 * 1024 ** 4}`],
    [{ payload: {} }, `payload: ${waysExpected}; none`],
    [
      { payload: { kernel: "a", firmware: "b" } },
      `payload: ${waysExpected}; payload.kernel, payload.firmware`,
    ],
    [
      { kernel: { path: "b" } },
      "kernel: payload.kernel, or the older kernel.path; both payload.kernel and kernel",
    ],
    [
      { payload: { firmware: "a", cmdline: "x" } },
      "payload.cmdline: nothing, because firmware finds its own kernel; a value",
    ],
    [{ payload: { kernel: 5 } }, "payload.kernel: a path of at most 4095 bytes; 5"],
    [{ disks: [{}] }, "disks[0].path: the key path; nothing"],
    [{ disks: [{ path: "a", id: "A" }] }, `disks[0].id: ${idExpected}; "A"`],
    [{ disks: [{ path: "a", id: "seed" }] }, `disks[0].id: ${idExpected}; "seed"`],
    [
      { disks: [{ path: "a", id: "disk1" }, { path: "b" }] },
      "disks: ids that are different; disk1 twice",
    ],
    [
      { disks: [{ path: "a", image_type: "Vhdx" }] },
      'disks[0].image_type: "Raw" or "Qcow2"; "Vhdx"',
    ],
    [{ disks: {} }, "disks: an array of at most 32 objects; a table"],
    [
      { net: [{ mac: "53:54:00:00:00:01" }] },
      'net[0].mac: a unicast MAC address such as "52:54:00:12:34:56"; "53:54:00:00:00:01"',
    ],
    [{ net: [{ ip: "10.0.0.256" }] }, 'net[0].ip: an address such as "10.100.0.2"; "10.0.0.256"'],
    [
      { serial: { mode: "Sokcet" } },
      'serial.mode: "Off" or "Pty" or "Tty" or "File" or "Socket" or "Null"; "Sokcet" ' +
        "(Did you mean Socket?)",
    ],
    [{ rng: { src: "/etc/passwd" } }, 'rng.src: "/dev/urandom"; "/etc/passwd"'],
    [{ memroy: {} }, "memroy: a known key; memroy (Did you mean memory?)"],
    [
      { memory: { size: 1_048_576, hugepage: true } },
      "memory.hugepage: a known key; hugepage (Did you mean hugepages?)",
    ],
    [
      { hostler: { ephemeral_disk: [] } },
      "hostler.ephemeral_disk: a known key; ephemeral_disk (Did you mean ephemeral_disks?)",
    ],
    [
      { hostler: { ephemeral_disks: [{ size: "1KiB" }] } },
      "hostler.ephemeral_disks[0].size: bytes up to 64 TiB in whole MiB, such as 1073741824 or " +
        '"1GiB"; "1KiB"',
    ],
    [
      { disks: [{ path: "a" }], hostler: { disk_sizes: { disk1: "1GiB" } } },
      'hostler.disk_sizes.disk1: the id of a disk (disk0); "disk1"',
    ],
    [
      { disks: [{ path: "a", readonly: true }], hostler: { disk_sizes: { disk0: "1GiB" } } },
      "hostler.disk_sizes.disk0: disks that the machine may write to; one that is read-only",
    ],
    [{ hostler: { health_checks: [5] } }, "hostler.health_checks[0]: an object; something else"],
    [
      { hostler: { health_checks: [{ kind: "agent" }, { kind: "tcp" }] } },
      "hostler.health_checks[1].port: a value; undefined",
    ],
    [
      { hostler: { health_checks: [{ kind: "agent", interval: "1ms" }] } },
      'hostler.health_checks[0].interval: at least "100ms"; "1ms"',
    ],
    [
      { hostler: { health_checks: [{ kind: "agent", every: "5s" }] } },
      'hostler.health_checks[0].every: no such key; "every"',
    ],
    [
      { hostler: { cloud_init: { user_data: 5 } } },
      "hostler.cloud_init.user_data: text of at most 524288 bytes without a zero byte; 5",
    ],
    [
      { payload: { kernel: "k", cmdline: "a\nb" } },
      'payload.cmdline: one line of at most 2047 bytes; "a\\nb"',
    ],
    [{ __proto__x: 1, cpus: { boot_vcpus: "2" } }, 'cpus.boot_vcpus: a number from 1 to 255; "2"'],
  ])("%j", (more, expected) => {
    expect(told(least(more))).toContain(expected);
  });

  test("keys that are members of every object are unknown ones", () => {
    const text = '{"cpus":{"boot_vcpus":1},"memory":{"size":1048576},"payload":{"kernel":"k"},';
    for (const key of ["__proto__", "constructor", "toString"]) {
      expect(told(`${text}"${key}":{}}`).join()).toContain(`; ${key}`);
    }
  });

  test("all mistakes at once, by their keys", () => {
    const keys = told({ cpus: { boot_vcpus: 0 }, disks: [{ path: "../x" }], nett: [] });
    expect(keys.map((line) => line.split(":")[0])).toEqual([
      "memory",
      "cpus.boot_vcpus",
      "nett",
      "payload",
      "disks[0].path",
    ]);
  });

  test.each([
    ["", ": JSON; JSON Parse error: Unexpected EOF"],
    ["{", ": JSON; "],
    [
      '{"kernel":{"path":"a","path":"b"}}',
      "kernel.path: a key that stands once in its object; the same key once more",
    ],
    ["[]", ": an object; another value"],
    ["null", ": an object; another value"],
  ])("%p is no configuration", (text, words) => {
    expect(told(text).join()).toStartWith(words);
  });
});

describe("limits", () => {
  test("bytes of the text", () => {
    const { textBytes } = vmConfigLimits;
    const text = JSON.stringify(least());
    expect(told(text + " ".repeat(textBytes - text.length))).toEqual([]);
    const expected = `: at most ${textBytes} bytes; ${textBytes + 1} bytes`;
    expect(told(text + " ".repeat(textBytes + 1 - text.length))).toEqual([expected]);
  });

  test("objects in each other", () => {
    const nested = (depth: number) => `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`;
    const text = (depth: number) =>
      JSON.stringify(least({ hostler: { health_checks: [] } })).replace("[]", `[${nested(depth)}]`);
    // Not too deep: what is there is no check.
    expect(told(text(29)).every((line) => line.startsWith("hostler.health_checks[0]"))).toBeTrue();
    expect(told(text(30))).toEqual([": tables and arrays at most 32 deep; deeper ones"]);
    expect(told(nested(100_000)).length).toBe(1);
  });

  test("disks, networks, health checks, the command line, a seed, mistakes that are told", () => {
    const { disks, networks, healthChecks, commandLineBytes, seedBytes, mistakes } = vmConfigLimits;
    const many = (count: number, item: (index: number) => unknown) =>
      Array.from({ length: count }, (_, index) => item(index));
    const cases = (more: number): object[] => [
      { disks: many(disks + more, (index) => ({ path: `d${index}` })) },
      { net: many(networks + more, () => ({})) },
      { hostler: { health_checks: many(healthChecks + more, () => ({ kind: "agent" })) } },
      { hostler: { ephemeral_disks: many(disks + more, () => ({ size: "1MiB" })) } },
      { payload: { kernel: "k", cmdline: "x".repeat(commandLineBytes + more) } },
      { hostler: { cloud_init: { user_data: "x".repeat(seedBytes + more) } } },
    ];
    for (const [index, within] of cases(0).entries()) {
      expect(told(least(within))).toEqual([]);
      expect(told(least(cases(1)[index]))).toHaveLength(1);
    }
    const unknown = Object.fromEntries(many(mistakes + 5, (index) => [`key-${index}`, 1]) as []);
    expect(told(least(unknown))).toHaveLength(mistakes);
  });
});

test("2000 mutated texts: every one is taken or refused, by keys", () => {
  const chance = new SeededChance(11);
  const text = JSON.stringify({ ...older, hostler: { ephemeral_disks: [{ size: "1GiB" }] } });
  let taken = 0;
  for (let round = 0; round < 2_000; round += 1) {
    const letters = [...text];
    for (let count = 0; count <= chance.below(3); count += 1) {
      letters[chance.below(letters.length)] = chance.pick([...'"{}[],:0x./\\ -e']);
    }
    const outcome = parseVmConfig(letters.join(""), place);
    if (outcome.kind === "ok") taken += 1;
    else expect(outcome.errors.length).toBeGreaterThan(0);
  }
  expect(taken).toBeGreaterThan(0);
});
