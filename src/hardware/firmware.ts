import type { HostTree } from "./host-tree.ts";
import type { Inventory } from "./inventory.ts";
import type { SmbiosTable } from "./smbios.ts";
import { type FirmwareRecord, readIpmiVersion } from "./smbios-records.ts";
import type { Unseen } from "./unseen.ts";

const EFI = "sys/firmware/efi";
/** Of the UEFI specification: EFI_GLOBAL_VARIABLE. */
const GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

export function readFirmware(
  tree: HostTree,
  record: FirmwareRecord | undefined,
  unseen: Unseen,
): Inventory["firmware"] {
  const isUefi = tree.has(EFI);
  return {
    vendor: record?.vendor ?? tree.word("sys/class/dmi/id/bios_vendor").value,
    version: record?.version ?? tree.word("sys/class/dmi/id/bios_version").value,
    date: record?.date ?? tree.word("sys/class/dmi/id/bios_date").value,
    boot: isUefi ? "uefi" : "bios",
    secure_boot: isUefi ? readSecureBoot(tree, unseen) : false,
    tpm: readTpm(tree),
  };
}

/** A variable's file begins with four bytes of attributes: efivarfs of the kernel. */
function readSecureBoot(tree: HostTree, unseen: Unseen): boolean | null {
  const variable = tree.bytes(`${EFI}/efivars/SecureBoot-${GLOBAL}`, 16);
  if (variable.value !== null && variable.value.length >= 5) return variable.value[4] === 1;
  const older = tree.bytes(`${EFI}/vars/SecureBoot-${GLOBAL}/data`, 16);
  if (older.value !== null && older.value.length >= 1) return older.value[0] === 1;
  unseen.add("firmware.secure_boot", `efivarfs: ${variable.reason ?? "the variable is too short"}`);
  return null;
}

/** "2.0", "1.2"; null: there is none. */
function readTpm(tree: HostTree): string | null {
  const name = tree.names("sys/class/tpm")[0];
  if (name === undefined) return null;
  const major = tree.number(`sys/class/tpm/${name}/tpm_version_major`).value;
  if (major === 2) return "2.0";
  return tree.has(`sys/class/tpm/${name}/device/caps`) || major === 1 ? "1.2" : "unknown";
}

/** The service processor, as the driver of IPMI has asked it: /sys/devices/platform/ipmi_bmc.*. */
export function readBmc(tree: HostTree, table: SmbiosTable, unseen: Unseen): Inventory["bmc"] {
  const platform = "sys/bus/platform/devices";
  const name = tree.names(platform).find((one) => one.startsWith("ipmi_bmc."));
  const told = readIpmiVersion(table);
  if (name === undefined) {
    if (told === null) return null;
    unseen.add("bmc.firmware", "SMBIOS has a BMC, and the kernel no driver for it: ipmi_si");
    return { firmware: null, manufacturer: null, ipmi: told };
  }
  const at = `${platform}/${name}`;
  return {
    firmware: unseen.take("bmc.firmware", tree.word(`${at}/firmware_revision`)),
    manufacturer: unseen.take("bmc.manufacturer", tree.word(`${at}/manufacturer_id`)),
    ipmi: tree.word(`${at}/ipmi_version`).value ?? told,
  };
}
