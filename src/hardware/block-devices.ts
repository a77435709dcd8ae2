import type { Answer, HostTree } from "./host-tree.ts";
import { type Disk, inventoryLimits } from "./inventory.ts";
import { pciOf } from "./pci-address.ts";
import type { Unseen } from "./unseen.ts";

/**
 * Disks as the kernel has them: /sys/block, Documentation/ABI/stable/sysfs-block. Nothing is
 * opened, so that a disk that does not answer holds nobody up.
 */
export function readDisks(tree: HostTree, unseen: Unseen): Disk[] {
  const disks: Disk[] = [];
  for (const name of tree.names("sys/block")) {
    const place = tree.place(`sys/block/${name}`);
    if (place === null || !isDisk(tree, name, place)) continue;
    const size = tree.number(`sys/block/${name}/size`).value ?? 0;
    const removable = tree.number(`sys/block/${name}/removable`).value === 1;
    if (size === 0 && removable) {
      unseen.add(`disks[${name}]`, "it is removable, and has no medium");
      continue;
    }
    if (disks.length === inventoryLimits.disks) {
      unseen.add("disks", `there are more than ${inventoryLimits.disks}`);
      break;
    }
    disks.push(readDisk(tree, { name, place, size, removable }, unseen));
  }
  return disks;
}

const SECTOR = 512;
const OPTICAL = 5;

/** Without partitions, what the kernel makes up itself, and what is read by a laser. */
function isDisk(tree: HostTree, name: string, place: string): boolean {
  // The disk of an NVMe subsystem with several paths is told as virtual; its paths are hidden.
  const isVirtual = place.includes("devices/virtual/") && !place.includes("/nvme-subsystem/");
  if (isVirtual || /^(loop|ram|zram|dm-|md|nbd|sr|fd)\d/.test(name)) return false;
  if (/^mmcblk\d+(boot|rpmb|gp)/.test(name)) return false;
  if (tree.number(`sys/block/${name}/hidden`).value === 1) return false;
  if (tree.has(`sys/block/${name}/partition`)) return false;
  return tree.number(`sys/block/${name}/device/type`).value !== OPTICAL;
}

interface Found {
  readonly name: string;
  readonly place: string;
  readonly size: number;
  readonly removable: boolean;
}

function readDisk(tree: HostTree, found: Found, unseen: Unseen): Disk {
  const at = `sys/block/${found.name}`;
  const of = (property: string) => `disks[${found.name}].${property}`;
  const identify = ataIdentify(tree.bytes(`${at}/device/vpd_pg89`).value);
  const rotational = unseen.take(of("rotational"), tree.number(`${at}/queue/rotational`));
  return {
    name: found.name,
    serial: unseen.take(of("serial"), readSerial(tree, at, identify)),
    wwn: unseen.take(of("wwn"), first(tree, [`${at}/wwid`, `${at}/device/wwid`])),
    model: unseen.take(of("model"), readModel(tree, at, identify)),
    firmware: unseen.take(of("firmware"), readFirmware(tree, at, identify)),
    size_bytes: found.size * SECTOR,
    logical_block: tree.number(`${at}/queue/logical_block_size`).value ?? SECTOR,
    physical_block: tree.number(`${at}/queue/physical_block_size`).value ?? SECTOR,
    rotational: rotational === null ? null : rotational === 1,
    transport: transportOf(tree, found),
    pci: pciOf(found.place) ?? pathOfSubsystem(tree, at),
    removable: found.removable,
    read_only: tree.number(`${at}/ro`).value === 1,
  };
}

/** The first that tells; else the reason of the first that is there and does not. */
function first(tree: HostTree, paths: readonly string[]): Answer<string> {
  let refusal: string | undefined;
  for (const path of paths) {
    const answer = tree.word(path);
    if (answer.value !== null) return answer;
    if (answer.reason !== "ENOENT") refusal ??= answer.reason;
  }
  return { value: null, reason: refusal ?? "ENOENT" };
}

function readSerial(tree: HostTree, at: string, identify: AtaIdentify | null): Answer<string> {
  if (identify !== null && identify.serial !== "") return { value: identify.serial };
  const page = tree.bytes(`${at}/device/vpd_pg80`, 4_096);
  if (page.value !== null) {
    const serial = unitSerial(page.value);
    if (serial !== "") return { value: serial };
  }
  const told = first(tree, [`${at}/device/serial`, `${at}/serial`]);
  const refusal = page.reason === undefined || page.reason === "ENOENT" ? undefined : page.reason;
  return told.value === null && refusal !== undefined ? { value: null, reason: refusal } : told;
}

const decoder = new TextDecoder("latin1");
const spell = (bytes: Uint8Array): string =>
  decoder
    .decode(bytes)
    .replace(/[^\x20-\x7e]+/g, " ")
    .replace(/\s+/g, " ")
    .trim();

/** Vital product data, page 80h, of SPC-4: four bytes of header, of which two are the length. */
export function unitSerial(page: Uint8Array): string {
  if (page.length < 4 || page[1] !== 0x80) return "";
  const length = ((page[2] ?? 0) << 8) | (page[3] ?? 0);
  return spell(page.subarray(4, 4 + length)).slice(0, inventoryLimits.text);
}

interface AtaIdentify {
  readonly serial: string;
  readonly model: string;
  readonly firmware: string;
}

/**
 * Page 89h, ATA Information, of SAT-3: IDENTIFY DEVICE stands at byte 60. Its strings are words of
 * two letters, the second letter first. SCSI's own fields have room for half of a model's name.
 */
export function ataIdentify(page: Uint8Array | null): AtaIdentify | null {
  const IDENTIFY = 60;
  if (page === null || page.length < IDENTIFY + 512 || page[1] !== 0x89) return null;
  const text = (word: number, words: number) => {
    const swapped = new Uint8Array(words * 2);
    for (let at = 0; at < words * 2; at += 1) {
      swapped[at] = page[IDENTIFY + word * 2 + (at ^ 1)] ?? 0;
    }
    return spell(swapped);
  };
  return { serial: text(10, 10), firmware: text(23, 4), model: text(27, 20) };
}

function readModel(tree: HostTree, at: string, identify: AtaIdentify | null): Answer<string> {
  if (identify !== null && identify.model !== "") return { value: identify.model };
  const model = first(tree, [`${at}/device/model`, `${at}/device/name`]);
  const vendor = tree.word(`${at}/device/vendor`).value;
  // "ATA" is who translates; virtio's is a number.
  if (model.value === null || vendor === null || /^(ATA|0x.*)$/.test(vendor)) return model;
  return { value: `${vendor} ${model.value}`.slice(0, inventoryLimits.text) };
}

function readFirmware(tree: HostTree, at: string, identify: AtaIdentify | null): Answer<string> {
  if (identify !== null && identify.firmware !== "") return { value: identify.firmware };
  return first(tree, [`${at}/device/firmware_rev`, `${at}/device/rev`, `${at}/device/fwrev`]);
}

function transportOf(tree: HostTree, { name, place }: Found): Disk["transport"] {
  if (name.startsWith("nvme")) return "nvme";
  if (name.startsWith("mmcblk")) return "mmc";
  if (/\/usb\d+\//.test(place)) return "usb";
  if (/\/ata\d+\//.test(place)) return "sata";
  if (/\/(end_device|expander)-/.test(place)) return "sas";
  if (name.startsWith("vd")) return "virtio";
  return tree.has(`sys/block/${name}/device/type`) ? "scsi" : "other";
}

/** Of a disk with several paths: that of its first controller. */
function pathOfSubsystem(tree: HostTree, at: string): string | null {
  for (const name of tree.names(`${at}/device`)) {
    if (!/^nvme\d+$/.test(name)) continue;
    const place = tree.place(`${at}/device/${name}`);
    const pci = place === null ? null : pciOf(place);
    if (pci !== null) return pci;
  }
  return null;
}
