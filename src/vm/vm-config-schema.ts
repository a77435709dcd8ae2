import * as v from "valibot";
import { flag, nonEmptyText, text, wholeNumber } from "../toml/common-readers.ts";
import {
  list,
  namedTable,
  type Path,
  type Read,
  type Reader,
  type Readers,
  table,
  value,
  word,
} from "../toml/configuration-reader.ts";
import type { TomlNode, TomlTable } from "../toml/toml-tree.ts";
import { parseBytes } from "../units/bytes.ts";
import type { Bytes } from "../units/units.ts";
import { jsonOfNode } from "./vm-config-tree.ts";

/** What each key of vm-config.json may be: vmm/src/vm_config.rs of cloud-hypervisor. */

/** Going over one is a refusal that a test shows. */
export const vmConfigLimits = {
  /** Bytes of vm-config.json. */
  textBytes: 1024 * 1024,
  /** Mistakes that are told. */
  mistakes: 100,
  processors: 255,
  leastMemory: 1024 ** 2,
  /** 16 TiB. */
  mostMemory: 16 * 1024 ** 4,
  disks: 32,
  /** 64 TiB, which is what a qcow2 of ours can have. */
  diskBytes: 64 * 1024 ** 4,
  networks: 8,
  /** COMMAND_LINE_SIZE of x86 and arm64, less its end: asm/setup.h. */
  commandLineBytes: 2047,
  /** Each of the files of a cloud-init seed. */
  seedBytes: 512 * 1024,
  healthChecks: 16,
} as const;

/** Read, and told as a warning. */
const ignored: Reader<undefined> = () => undefined;
const ignoring = (names: readonly string[]): Readers =>
  Object.fromEntries(names.map((name) => [name, ignored]));

/** Keys of cloud-hypervisor that we do not act on, by the table they are in. */
const ignoredNames = {
  root: [
    "rate_limit_groups",
    "balloon",
    "fs",
    "generic_vhost_user",
    "pmem",
    "debug_console",
    "devices",
    "user_devices",
    "vdpa",
    "vsock",
    "numa",
    "iommu",
    "watchdog",
    "rtc",
    "pvpanic",
    "pci_segments",
    "platform",
    "tpm",
    "landlock_enable",
    "landlock_rules",
    "landlock_config",
    "preserved_fds",
    "sgx_epc",
    "gdb",
    "tdx",
  ],
  cpus: [
    "topology",
    "kvm_hyperv",
    "max_phys_bits",
    "nested",
    "affinity",
    "features",
    "core_scheduling",
  ],
  memory: [
    "hotplug_size",
    "hotplugged_size",
    "mergeable",
    "hotplug_method",
    "prefault",
    "reserve",
    "thp",
    "zones",
  ],
  payload: ["igvm", "host_data"],
  disks: [
    "direct",
    "iommu",
    "num_queues",
    "queue_size",
    "vhost_user",
    "vhost_socket",
    "rate_limiter_config",
    "pci_segment",
    "pci_device_id",
    "serial",
    "rate_limit_group",
    "queue_affinity",
    "backing_files",
    "sparse",
    "lock_granularity",
    "disable_io_uring",
    "disable_aio",
  ],
  net: [
    "host_mac",
    "mtu",
    "iommu",
    "num_queues",
    "queue_size",
    "vhost_user",
    "vhost_socket",
    "vhost_mode",
    "fds",
    "pci_segment",
    "pci_device_id",
    "rate_limiter_config",
    "offload_tso",
    "offload_ufo",
    "offload_csum",
  ],
  rng: ["iommu", "id", "pci_segment", "pci_device_id"],
  serial: ["file", "socket", "iommu"],
  console: ["file", "socket", "iommu", "id", "pci_segment", "pci_device_id"],
} as const satisfies Record<string, readonly string[]>;

/**
 * What these keys have by default: such a value asks for nothing. Files that a program wrote have
 * all keys. Every other key is harmless when it is false, 0, or empty.
 */
const defaults: Readonly<Record<string, readonly unknown[]>> = {
  nested: [true],
  thp: [true],
  sparse: [true],
  offload_tso: [true],
  offload_ufo: [true],
  offload_csum: [true],
  max_phys_bits: [46],
  core_scheduling: ["Vm"],
  hotplug_method: ["acpi", "Acpi"],
  "disks.num_queues": [1],
  "disks.queue_size": [128],
  lock_granularity: ["ByteRange"],
  "net.num_queues": [2],
  "net.queue_size": [256],
  vhost_mode: ["Client"],
};

function isDefault(key: string, name: string, node: TomlNode): boolean {
  const known = defaults[name] ?? defaults[`${key}.${name}`];
  const written = jsonOfNode(node);
  if (known !== undefined) return known.includes(written);
  const isEmpty = node.kind === "array" ? node.items.length === 0 : undefined;
  return isEmpty ?? (written === false || written === 0);
}

/** Where the keys are that nobody acts on, and that ask for something. */
export function ignoredKeys(root: TomlTable): Path[] {
  const found: Path[] = [];
  const look = (node: TomlNode | undefined, path: Path, names: readonly string[]): void => {
    if (node?.kind === "array") {
      for (const [index, item] of node.items.entries()) look(item, [...path, index], names);
    }
    if (node?.kind !== "table") return;
    for (const name of names) {
      const entry = node.entries.get(name);
      if (entry === undefined || isDefault(String(path[0] ?? ""), name, entry.node)) continue;
      found.push([...path, name]);
    }
  };
  for (const [key, names] of Object.entries(ignoredNames)) {
    if (key === "root") look(root, [], names);
    else look(root.entries.get(key)?.node, [key], names);
  }
  return found;
}

const utf8Length = (written: string) => new TextEncoder().encode(written).length;
const textOf = (expected: string, most: Bytes) =>
  value(
    expected,
    v.pipe(
      text,
      v.check((written) => utf8Length(written) <= most),
    ),
  );

/** Its length is that of the kernel's PATH_MAX. */
const filePath = value(
  "a path of at most 4095 bytes",
  v.pipe(
    nonEmptyText,
    v.check((written) => utf8Length(written) <= 4095),
  ),
);

const { commandLineBytes, processors: mostProcessors } = vmConfigLimits;
const commandLine = value(
  `one line of at most ${commandLineBytes} bytes`,
  v.pipe(
    text,
    v.check((line) => utf8Length(line) <= commandLineBytes && !/[\n\r]/.test(line)),
  ),
);

const processors = value(`a number from 1 to ${mostProcessors}`, wholeNumber(1, mostProcessors));

/** Bytes as a number, which is what cloud-hypervisor takes, or as people write them. */
function sizeOf(expected: string, [least, most]: readonly [Bytes, Bytes], multiple: Bytes) {
  return value(
    expected,
    v.pipe(
      v.union([v.pipe(v.string(), v.transform(parseBytes)), v.number()]),
      v.number(),
      v.safeInteger(),
      v.minValue(least),
      v.maxValue(most),
      v.multipleOf(multiple),
    ),
  );
}

const MiB = 1024 ** 2;
const { leastMemory, mostMemory, diskBytes } = vmConfigLimits;
const memorySize = sizeOf(
  'bytes from 1 MiB to 16 TiB in whole MiB, such as 536870912 or "512MiB"',
  [leastMemory, mostMemory],
  MiB,
);
const hugePageSize = sizeOf("the bytes of a huge page, such as 2097152", [MiB, 1024 ** 3], MiB);
const diskSize = sizeOf(
  'bytes up to 64 TiB in whole MiB, such as 1073741824 or "1GiB"',
  [MiB, diskBytes],
  MiB,
);

/** The disk that the worker makes of `cloud_init`. */
export const seedDiskId = "seed";

const isId = (written: string) =>
  /^[a-z0-9][a-z0-9-]{0,30}$/.test(written) && written !== seedDiskId;
const idExpected =
  "a word of 1 to 31 of a-z, 0-9 and -, that does not begin with -, and is not seed";
const id = value(idExpected, v.pipe(v.string(), v.check(isId)));

const macAddress = value(
  'a unicast MAC address such as "52:54:00:12:34:56"',
  v.pipe(
    v.string(),
    v.toLowerCase(),
    v.regex(/^[\da-f][02468ace](:[\da-f]{2}){5}$/),
    v.notValue("00:00:00:00:00:00"),
  ),
);

const modes = ["Off", "Pty", "Tty", "File", "Socket", "Null"] as const;

const object = "an object";

const own = table(
  {
    ephemeral_disks: list(table({ id, size: diskSize }, { expected: object, required: ["size"] }), {
      expected: `an array of at most ${vmConfigLimits.disks} objects`,
      least: 0,
      most: vmConfigLimits.disks,
    }),
    disk_sizes: namedTable(diskSize, {
      expected: "an object of sizes, by the ids of disks",
      most: vmConfigLimits.disks,
      isName: isId,
      expectedName: idExpected,
    }),
    firmware: word(["host"]),
    cloud_init: table(
      {
        user_data: seedText(),
        meta_data: seedText(),
        network_config: seedText(),
      },
      { expected: object },
    ),
    health_checks: list(opaque, {
      expected: `an array of at most ${vmConfigLimits.healthChecks} objects`,
      least: 0,
      most: vmConfigLimits.healthChecks,
    }),
  },
  { expected: object },
);
export type OwnTable = Read<typeof own>;

function seedText(): Reader<string> {
  const { seedBytes } = vmConfigLimits;
  return textOf(`text of at most ${seedBytes} bytes without a zero byte`, seedBytes);
}

/** As it is: a health check, which has a schema of its own. */
function opaque(
  ...[node, path, report]: Parameters<Reader<Record<string, unknown>>>
): Record<string, unknown> | undefined {
  if (node.kind === "table") return jsonOfNode(node) as Record<string, unknown>;
  report({ at: node.at, path, expected: object, received: "something else" });
  return undefined;
}

export const readVmConfig = table(
  {
    ...ignoring(ignoredNames.root),
    cpus: table(
      { boot_vcpus: processors, max_vcpus: processors, ...ignoring(ignoredNames.cpus) },
      { expected: object, required: ["boot_vcpus"] },
    ),
    memory: table(
      {
        size: memorySize,
        shared: flag,
        hugepages: flag,
        hugepage_size: hugePageSize,
        ...ignoring(ignoredNames.memory),
      },
      { expected: object, required: ["size"] },
    ),
    payload: table(
      {
        kernel: filePath,
        cmdline: commandLine,
        initramfs: filePath,
        firmware: filePath,
        ...ignoring(ignoredNames.payload),
      },
      { expected: object },
    ),
    kernel: table({ path: filePath }, { expected: object, required: ["path"] }),
    cmdline: table({ args: commandLine }, { expected: object, required: ["args"] }),
    initramfs: table({ path: filePath }, { expected: object, required: ["path"] }),
    disks: list(
      table(
        {
          path: filePath,
          readonly: flag,
          id,
          image_type: word(["Raw", "Qcow2"]),
          ...ignoring(ignoredNames.disks),
        },
        { expected: object, required: ["path"] },
      ),
      {
        expected: `an array of at most ${vmConfigLimits.disks} objects`,
        least: 0,
        most: vmConfigLimits.disks,
      },
    ),
    net: list(
      table(
        {
          id,
          tap: value("the name of a TAP", nonEmptyText),
          ip: value('an address such as "10.100.0.2"', v.pipe(v.string(), v.ip())),
          mask: value('a mask such as "255.255.0.0"', v.pipe(v.string(), v.ip())),
          mac: macAddress,
          ...ignoring(ignoredNames.net),
        },
        { expected: object },
      ),
      {
        expected: `an array of at most ${vmConfigLimits.networks} objects`,
        least: 0,
        most: vmConfigLimits.networks,
      },
    ),
    rng: table(
      {
        src: value('"/dev/urandom"', v.picklist(["/dev/urandom", "/dev/random", "/dev/hwrng"])),
        ...ignoring(ignoredNames.rng),
      },
      { expected: object },
    ),
    serial: table({ mode: word(modes), ...ignoring(ignoredNames.serial) }, { expected: object }),
    console: table({ mode: word(modes), ...ignoring(ignoredNames.console) }, { expected: object }),
    hostler: own,
  },
  { expected: object, required: ["cpus", "memory"] },
);
export type VmConfigTable = Read<typeof readVmConfig>;
