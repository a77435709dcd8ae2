/**
 * A host as the files by which its kernel tells of it, in a folder that is gone when the test is
 * over: `using host = fixtureHost(healthyHost)`, then `host.tree`, or `host.root` for a reader's.
 * What a file cannot be made to do, such as to answer EIO, `host.refuse` has the tree do.
 */
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, relative } from "node:path";
import { type Answer, HostTree } from "../../../src/hardware/host-tree.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { type SmbiosHost, smbiosEntryPoint, smbiosParts, smbiosTable } from "./smbios-table.ts";

export interface FixtureDisk {
  readonly name: string;
  readonly kind: "nvme" | "sata" | "sas" | "usb" | "virtio" | "scsi";
  /** null: it does not tell one. */
  readonly serial?: string | null;
  readonly model?: string;
  readonly firmware?: string;
  readonly bytes?: number;
  readonly rotational?: boolean;
  readonly wwn?: string;
  /** Of its controller. */
  readonly pci?: string;
  readonly removable?: boolean;
  readonly readOnly?: boolean;
  readonly block?: { readonly logical: number; readonly physical: number };
}

export interface FixtureNetworkCard {
  readonly name: string;
  readonly mac: string;
  readonly pci?: string;
  readonly driver?: string;
  /** Mb/s as the file has it; "-1" without a carrier. */
  readonly speed?: number | string;
  readonly carrier?: boolean;
  readonly carrierChanges?: number;
  readonly errors?: { readonly received?: number; readonly sent?: number };
}

export interface FixturePciDevice {
  readonly address: string;
  /** Six digits, "030200". */
  readonly class: string;
  readonly vendor: string;
  readonly device: string;
  readonly driver?: string;
  /** As the files have it: ["16.0 GT/s PCIe", "16"], and the most that is possible. */
  readonly link?: readonly [speed: string, width: string, mostSpeed: string, mostWidth: string];
  /** Totals of Advanced Error Reporting; undefined: it has none. */
  readonly errors?: {
    readonly correctable?: number;
    readonly nonfatal?: number;
    readonly fatal?: number;
  };
  /** More of its files. */
  readonly files?: Readonly<Record<string, string>>;
  /** The port that it stands behind. */
  readonly behind?: string;
}

export interface FixtureChip {
  readonly name: string;
  /** What it is a part of: "platform/coretemp.0", "pci0000:00/0000:01:00.0/nvme/nvme0". */
  readonly device?: string;
  /** "temp1_input": "45000", "temp1_label": "Package id 0". */
  readonly files: Readonly<Record<string, string>>;
}

export interface FixtureMemoryController {
  readonly corrected?: number;
  readonly uncorrected?: number;
  readonly modules: readonly {
    readonly label?: string;
    readonly corrected: number;
    readonly uncorrected: number;
  }[];
}

export interface FixtureHostOptions {
  /** null: there is no table. */
  readonly smbios?: SmbiosHost | Uint8Array | null;
  readonly processors?: {
    readonly packages: number;
    readonly cores: number;
    readonly threadsPerCore: number;
    readonly model?: string;
    readonly microcode?: string;
  };
  readonly memoryKibibytes?: number;
  readonly numaNodes?: number;
  readonly disks?: readonly FixtureDisk[];
  readonly network?: readonly FixtureNetworkCard[];
  readonly pci?: readonly FixturePciDevice[];
  readonly chips?: readonly FixtureChip[];
  readonly memoryControllers?: readonly FixtureMemoryController[];
  /** undefined: it was booted by a BIOS. */
  readonly uefi?: { readonly secureBoot: boolean };
  readonly tpm?: 2;
  readonly commandLine?: string;
  /** Any other file, by its path without the first slash. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
}

export interface FixtureHost extends Disposable {
  readonly root: string;
  readonly tree: FixtureTree;
  /** Writes a file, also over one that is there. */
  file(path: string, content: string | Uint8Array): void;
  /** A link as the kernel has it: relative. */
  link(path: string, to: string): void;
  /** Takes away a file or a folder: what was pulled out. */
  remove(path: string): void;
  /** From now on this file answers as told: "EIO". undefined: it answers again. */
  refuse(path: string, code: string | undefined): void;
}

/** A tree some of whose files refuse. */
export class FixtureTree extends HostTree {
  readonly refusals = new Map<string, string>();

  override bytes(path: string, most?: number): Answer<Uint8Array> {
    const code = this.refusals.get(path);
    return code === undefined ? super.bytes(path, most) : { value: null, reason: code };
  }
}

export function fixtureHost(options: FixtureHostOptions = {}): FixtureHost {
  const folder = temporaryFolder();
  const file = (path: string, content: string | Uint8Array) => {
    mkdirSync(dirname(folder.file(path)), { recursive: true });
    writeFileSync(folder.file(path), content);
  };
  const tree = new FixtureTree(folder.path);
  const host: FixtureHost = {
    root: folder.path,
    tree,
    file,
    link: (path, to) => {
      mkdirSync(dirname(folder.file(path)), { recursive: true });
      symlinkSync(relative(dirname(folder.file(path)), folder.file(to)), folder.file(path));
    },
    remove: (path) => rmSync(folder.file(path), { recursive: true, force: true }),
    refuse: (path, code) => {
      if (code === undefined) tree.refusals.delete(path);
      else tree.refusals.set(path, code);
    },
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  };
  writeBase(host, options);
  writeProcessors(host, options);
  for (const device of options.pci ?? []) writePci(host, device);
  for (const disk of options.disks ?? []) writeDisk(host, disk);
  for (const card of options.network ?? []) writeNetworkCard(host, card);
  for (const [index, chip] of (options.chips ?? []).entries()) writeChip(host, index, chip);
  for (const [index, one] of (options.memoryControllers ?? []).entries()) {
    writeMemoryController(host, index, one);
  }
  for (const [path, content] of Object.entries(options.files ?? {})) file(path, content);
  return host;
}

function writeBase(host: FixtureHost, options: FixtureHostOptions): void {
  const { smbios } = options;
  if (smbios !== null) {
    const table = smbios instanceof Uint8Array ? smbios : smbiosTable(smbiosParts(smbios ?? {}));
    host.file("sys/firmware/dmi/tables/DMI", table);
    host.file("sys/firmware/dmi/tables/smbios_entry_point", smbiosEntryPoint());
  }
  host.file("proc/meminfo", `MemTotal:       ${options.memoryKibibytes ?? 16_309_532} kB\n`);
  host.file("proc/cmdline", `${options.commandLine ?? "BOOT_IMAGE=/vmlinuz quiet"}\n`);
  host.file("proc/sys/kernel/osrelease", "6.1.0-37-amd64\n");
  host.file("proc/sys/kernel/arch", "x86_64\n");
  for (let node = 0; node < (options.numaNodes ?? 1); node += 1) {
    host.file(`sys/devices/system/node/node${node}/cpulist`, "0\n");
  }
  if (options.uefi !== undefined) {
    const name = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    const value = options.uefi.secureBoot ? 1 : 0;
    host.file(`sys/firmware/efi/efivars/${name}`, new Uint8Array([6, 0, 0, 0, value]));
  }
  if (options.tpm === 2) host.file("sys/class/tpm/tpm0/tpm_version_major", "2\n");
}

function writeProcessors(host: FixtureHost, options: FixtureHostOptions): void {
  const { packages, cores, threadsPerCore, ...words } = options.processors ?? {
    packages: 1,
    cores: 2,
    threadsPerCore: 1,
  };
  const count = packages * cores * threadsPerCore;
  const paragraphs: string[] = [];
  for (let thread = 0; thread < count; thread += 1) {
    const core = Math.floor(thread / threadsPerCore);
    const at = `sys/devices/system/cpu/cpu${thread}`;
    host.file(`${at}/topology/physical_package_id`, `${Math.floor(core / cores)}\n`);
    host.file(`${at}/topology/core_id`, `${core % cores}\n`);
    host.file(`${at}/microcode/version`, `${words.microcode ?? "0x2b0004d0"}\n`);
    host.file(`${at}/thermal_throttle/core_throttle_count`, "0\n");
    host.file(`${at}/thermal_throttle/package_throttle_count`, "0\n");
    const model = words.model ?? "Fixture Processor 9000";
    paragraphs.push(
      `processor\t: ${thread}\nvendor_id\t: GenuineFixture\nmodel name\t: ${model}\n`,
    );
  }
  host.file("sys/devices/system/cpu/online", `0-${count - 1}\n`);
  host.file("proc/cpuinfo", paragraphs.join("\n"));
}

/** "pci0000:00/0000:00:01.0/0000:01:00.0" */
const pciPlace = (address: string, behind?: string): string =>
  ["sys/devices/pci0000:00", ...(behind === undefined ? [] : [behind]), address].join("/");

function writePci(host: FixtureHost, device: FixturePciDevice): void {
  const place = pciPlace(device.address, device.behind);
  const [speed, width, mostSpeed, mostWidth] = device.link ?? ["Unknown", "0", "Unknown", "255"];
  const files: Record<string, string> = {
    class: `0x${device.class}`,
    vendor: `0x${device.vendor}`,
    device: `0x${device.device}`,
    current_link_speed: speed,
    current_link_width: width,
    max_link_speed: mostSpeed,
    max_link_width: mostWidth,
    ...device.files,
  };
  if (device.errors !== undefined) {
    const { correctable = 0, nonfatal = 0, fatal = 0 } = device.errors;
    files["aer_dev_correctable"] = `RxErr 0\nBadTLP ${correctable}\nTOTAL_ERR_COR ${correctable}`;
    files["aer_dev_nonfatal"] = `TLP 0\nTOTAL_ERR_NONFATAL ${nonfatal}`;
    files["aer_dev_fatal"] = `DLP 0\nTOTAL_ERR_FATAL ${fatal}`;
  }
  for (const [name, content] of Object.entries(files))
    host.file(`${place}/${name}`, `${content}\n`);
  host.link(`sys/bus/pci/devices/${device.address}`, place);
  if (device.driver !== undefined) {
    host.link(`${place}/driver`, `sys/bus/pci/drivers/${device.driver}`);
  }
}

const places: Record<FixtureDisk["kind"], (disk: FixtureDisk, pci: string) => string> = {
  nvme: ({ name }, pci) => `${pci}/nvme/${name.replace(/n\d+$/, "")}`,
  sata: ({ name }, pci) => `${pci}/ata${name.charCodeAt(2)}/host1/target1:0:0/1:0:0:0`,
  sas: ({ name }, pci) => {
    const port = `2:${name.charCodeAt(2)}`;
    return `${pci}/host2/port-${port}/end_device-${port}/target2:0:0/2:0:0:0`;
  },
  usb: (_disk, pci) => `${pci}/usb1/1-1/1-1:1.0/host3/target3:0:0/3:0:0:0`,
  virtio: ({ name }, pci) => `${pci}/virtio${name.charCodeAt(2)}`,
  scsi: ({ name }) => `sys/devices/pseudo_0/adapter0/host4/target4:0:0/4:0:0:${name.charCodeAt(2)}`,
};

function writeDisk(host: FixtureHost, disk: FixtureDisk): void {
  const pci = pciPlace(disk.pci ?? "0000:00:1f.2");
  const device = places[disk.kind](disk, pci);
  const block = disk.kind === "nvme" ? `${device}/${disk.name}` : `${device}/block/${disk.name}`;
  const serial = disk.serial === undefined ? `SERIAL-${disk.name}` : disk.serial;
  const isScsi = !["nvme", "virtio"].includes(disk.kind);
  const write = (path: string, content: string | number) => host.file(path, `${content}\n`);
  write(`${block}/size`, (disk.bytes ?? 1_000_204_886_016) / 512);
  write(`${block}/removable`, disk.removable === true ? 1 : 0);
  write(`${block}/ro`, disk.readOnly === true ? 1 : 0);
  write(`${block}/queue/rotational`, disk.rotational === true ? 1 : 0);
  write(`${block}/queue/logical_block_size`, disk.block?.logical ?? 512);
  write(`${block}/queue/physical_block_size`, disk.block?.physical ?? 4_096);
  if (disk.kind !== "virtio") {
    write(`${device}/model`, disk.model ?? "FIXTURE DISK 1TB");
    write(`${device}/${isScsi ? "rev" : "firmware_rev"}`, disk.firmware ?? "FW01");
    if (isScsi) write(`${device}/vendor`, disk.kind === "sata" ? "ATA     " : "FIXTURE ");
    if (isScsi) write(`${device}/type`, 0);
    write(
      disk.kind === "nvme" ? `${block}/wwid` : `${device}/wwid`,
      disk.wwn ?? "naa.5000c500a1b2c3d4",
    );
  }
  if (serial !== null && disk.kind === "nvme") write(`${device}/serial`, serial);
  if (serial !== null && disk.kind === "virtio") write(`${block}/serial`, serial);
  if (serial !== null && isScsi) host.file(`${device}/vpd_pg80`, serialPage(serial));
  host.link(`${block}/device`, device);
  host.link(`sys/block/${disk.name}`, block);
}

/** Vital product data, page 80h. */
export function serialPage(serial: string): Uint8Array {
  const text = new TextEncoder().encode(serial);
  return new Uint8Array([0, 0x80, text.length >> 8, text.length & 0xff, ...text]);
}

function writeNetworkCard(host: FixtureHost, card: FixtureNetworkCard): void {
  const device = pciPlace(card.pci ?? "0000:00:03.0");
  const place = `${device}/net/${card.name}`;
  const hasCarrier = card.carrier !== false;
  const write = (path: string, content: string | number) =>
    host.file(`${place}/${path}`, `${content}\n`);
  write("address", card.mac);
  write("type", 1);
  write("carrier", hasCarrier ? 1 : 0);
  write("carrier_changes", card.carrierChanges ?? 1);
  write("speed", card.speed ?? (hasCarrier ? 10_000 : -1));
  write("duplex", hasCarrier ? "full" : "unknown");
  write("mtu", 1_500);
  write("statistics/rx_errors", card.errors?.received ?? 0);
  write("statistics/tx_errors", card.errors?.sent ?? 0);
  host.file(`${device}/numa_node`, "0\n");
  host.link(`${place}/device`, device);
  host.link(`sys/class/net/${card.name}`, place);
  // A card of the same address may stand in `pci`, with its driver.
  if (!host.tree.has(`${device}/driver`)) {
    host.link(`${device}/driver`, `sys/bus/pci/drivers/${card.driver ?? "ixgbe"}`);
  }
}

function writeChip(host: FixtureHost, index: number, chip: FixtureChip): void {
  const device = chip.device === undefined ? undefined : `sys/devices/${chip.device}`;
  const place = `${device ?? "sys/devices/virtual"}/hwmon/hwmon${index}`;
  host.file(`${place}/name`, `${chip.name}\n`);
  for (const [name, content] of Object.entries(chip.files)) {
    host.file(`${place}/${name}`, `${content}\n`);
  }
  if (device !== undefined) host.link(`${place}/device`, device);
  host.link(`sys/class/hwmon/hwmon${index}`, place);
}

function writeMemoryController(
  host: FixtureHost,
  index: number,
  controller: FixtureMemoryController,
): void {
  const at = `sys/devices/system/edac/mc/mc${index}`;
  const sum = (of: "corrected" | "uncorrected") =>
    controller[of] ?? controller.modules.reduce((total, module) => total + module[of], 0);
  host.file(`${at}/mc_name`, "Fixture EDAC\n");
  host.file(`${at}/ce_count`, `${sum("corrected")}\n`);
  host.file(`${at}/ue_count`, `${sum("uncorrected")}\n`);
  host.file(`${at}/ce_noinfo_count`, "0\n");
  host.file(`${at}/ue_noinfo_count`, "0\n");
  for (const [number, module] of controller.modules.entries()) {
    const dimm = `${at}/dimm${number}`;
    host.file(`${dimm}/dimm_label`, `${module.label ?? `DIMM_${number}`}\n`);
    host.file(`${dimm}/dimm_ce_count`, `${module.corrected}\n`);
    host.file(`${dimm}/dimm_ue_count`, `${module.uncorrected}\n`);
  }
}

/** Two processors, eight modules, four disks, two cards, a GPU, two power supplies: all is well. */
export const healthyHost: FixtureHostOptions = {
  smbios: {
    sockets: [
      { socket: "CPU1", cores: 4, threads: 8 },
      { socket: "CPU2", cores: 4, threads: 8 },
    ],
    memory: Array.from({ length: 8 }, (_, index) => ({
      locator: `DIMM_${"ABCDEFGH"[index]}1`,
      bank: `P0_Node0_Channel${index}`,
      mebibytes: 65_536,
      serial: `MEM-${1_000 + index}`,
    })),
    supplies: [
      { location: "PSU 1", serial: "PSU-1001", watts: 1_400 },
      { location: "PSU 2", serial: "PSU-1002", watts: 1_400 },
    ],
    slots: [{ name: "Slot 3", pci: "0000:00:02.0" }],
    ipmi: true,
  },
  processors: { packages: 2, cores: 4, threadsPerCore: 2 },
  memoryKibibytes: 527_950_128,
  numaNodes: 2,
  uefi: { secureBoot: true },
  tpm: 2,
  disks: [
    {
      name: "nvme0n1",
      kind: "nvme",
      serial: "S64ANX0R000001",
      wwn: "eui.0025385b00000001",
      pci: "0000:01:00.0",
    },
    {
      name: "nvme1n1",
      kind: "nvme",
      serial: "S64ANX0R000002",
      wwn: "eui.0025385b00000002",
      pci: "0000:02:00.0",
    },
    {
      name: "sda",
      kind: "sata",
      serial: "ZA1B2C3D",
      rotational: true,
      wwn: "naa.5000c500a1b2c301",
    },
    {
      name: "sdb",
      kind: "sata",
      serial: "ZA1B2C3E",
      rotational: true,
      wwn: "naa.5000c500a1b2c302",
    },
  ],
  network: [
    { name: "eth0", mac: "52:54:00:12:34:56", pci: "0000:03:00.0", speed: 25_000 },
    { name: "eth1", mac: "52:54:00:12:34:57", pci: "0000:03:00.1", speed: 25_000 },
  ],
  pci: [
    {
      address: "0000:00:02.0",
      class: "060400",
      vendor: "8086",
      device: "347a",
      driver: "pcieport",
      link: ["16.0 GT/s PCIe", "16", "16.0 GT/s PCIe", "16"],
      errors: {},
    },
    {
      address: "0000:41:00.0",
      behind: "0000:00:02.0",
      class: "030200",
      vendor: "10de",
      device: "20b5",
      driver: "nvidia",
      link: ["16.0 GT/s PCIe", "16", "16.0 GT/s PCIe", "16"],
      errors: {},
    },
    { address: "0000:05:00.0", class: "030000", vendor: "1a03", device: "2000", driver: "ast" },
  ],
  chips: [
    {
      name: "coretemp",
      device: "platform/coretemp.0",
      files: {
        temp1_input: "45000",
        temp1_label: "Package id 0",
        temp1_crit: "100000",
        temp2_input: "43000",
        temp2_label: "Core 0",
        temp2_crit: "100000",
      },
    },
    {
      name: "nvme",
      device: "pci0000:00/0000:01:00.0/nvme/nvme0",
      files: { temp1_input: "38850", temp1_label: "Composite", temp1_crit: "84850" },
    },
  ],
  memoryControllers: [
    { modules: Array.from({ length: 4 }, () => ({ corrected: 0, uncorrected: 0 })) },
    { modules: Array.from({ length: 4 }, () => ({ corrected: 0, uncorrected: 0 })) },
  ],
  files: {
    "proc/driver/nvidia/gpus/0000:41:00.0/information":
      "Model: \t\t NVIDIA A100 80GB PCIe\nIRQ:   \t\t 163\nGPU UUID: \t GPU-5a1b2c3d\n" +
      "Video BIOS: \t 92.00.68.00.01\nBus Type: \t PCIe\n",
    "sys/devices/platform/ipmi_bmc.0/firmware_revision": "2.60\n",
    "sys/devices/platform/ipmi_bmc.0/manufacturer_id": "0x0002a2\n",
    "sys/devices/platform/ipmi_bmc.0/ipmi_version": "2.0\n",
    "sys/bus/platform/devices/ipmi_bmc.0/firmware_revision": "2.60\n",
    "sys/bus/platform/devices/ipmi_bmc.0/manufacturer_id": "0x0002a2\n",
    "sys/bus/platform/devices/ipmi_bmc.0/ipmi_version": "2.0\n",
  },
};
