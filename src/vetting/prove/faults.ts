import type { RunState } from "../protocol.ts";
import type { Stage } from "../protocol-result.ts";
import type { Spec } from "../protocol-spec.ts";
import {
  type GuestChange,
  guestCardSpeed,
  guestCards,
  guestDiskBytes,
  guestObjects,
  guestSerials,
  healthySmbios,
} from "./guest.ts";
import type { CompactSensor } from "./sensor-records.ts";

/**
 * Faults that a tester of hardware has to find, each as something that QEMU can do to a host, and
 * what a run of that host has to say of it. Pure.
 */

/** One command of QMP. */
export interface Injection {
  readonly command: string;
  readonly words: Readonly<Record<string, unknown>>;
}

export interface Fault {
  /** Of `--only`. */
  readonly name: string;
  /** For people: what is wrong with the host. */
  readonly wrong: string;
  /** Before the host is switched on. */
  readonly change?: GuestChange;
  readonly sensors?: readonly CompactSensor[];
  /** To the host before it boots into anything. */
  readonly atPower?: Injection;
  /**
   * To the host while its run is in this state, one each second and from the beginning again: a
   * stage looks how things were before it begins, some time after its state has.
   */
  readonly during?: { readonly state: RunState; readonly steps: readonly Injection[] };
  readonly expected: Expected;
}

/** What has to be said, and by whom. */
export type Expected =
  | {
      readonly by: Stage;
      readonly code: string;
      /** Other words for the same fault, which may be said and need not be. */
      readonly also?: readonly string[];
    }
  /** A rule of the spec below, by the beginning of its place. */
  | { readonly by: "SpecValidate"; readonly place: string };

/** What the prover holds its hosts to; every stage at its shortest. */
export const proverSpec: Spec = {
  name: "prove",
  description: "The emulated host of hostler vetting prove",
  rules: [
    equal("system.serial", healthySmbios.serial),
    equal("firmware.version", healthySmbios.biosVersion),
    equal("processors[*].model", healthySmbios.processor),
    equal("memory.slots[*].serial", healthySmbios.dimmSerial),
    present(`disks[${guestSerials.nvme}]`),
    present(`disks[${guestSerials.sata}]`),
    present(`network[${guestCards.second}]`),
  ],
  expected_disks: [],
  stages: {
    Inventory: { ...usual(), deadline: deadline(120) },
    SMART: {
      ...usual(),
      used_warn_percent: 80,
      used_fail_percent: 100,
      media_errors: 0,
      pending_sectors: 0,
      uncorrectable_sectors: 0,
      reallocated_sectors_warn: 1,
      temperature_fail_c: 70,
      self_test: "none",
      engine: "default",
      deadline: deadline(300),
    },
    CPUStress: {
      ...usual(),
      duration_s: 12,
      memory: 0.02,
      // An emulated processor fills memory slowly.
      memory_least: 0.005,
      busy_least: 0.2,
      machine_checks: 0,
      memory_corrected: 0,
      throttles: 0,
      temperature_fail_c: 100,
      deadline: deadline(300),
    },
    Storage: {
      ...usual(),
      mode: "read",
      extent: 1,
      extent_least: 1,
      block_bytes: 1024 ** 2,
      depth: 4,
      read_errors: 0,
      slow_read_warn_ms: 0,
      throughput_least_mbps: 0,
      engine: "default",
      deadline: deadline(300),
    },
    Network: {
      ...usual(),
      // Nothing is sent there: so long its carrier is watched, which comes and goes each second.
      duration_s: 4,
      carrier_wait_s: 15,
      speeds: [{ mac: guestCards.second, mbps: guestCardSpeed }],
      throughput_least: 0,
      carrier_changes: 0,
      errors: 0,
      links_least: 0,
      pair_frames: 0,
      pair_lost: 0,
      engine: "default",
      deadline: deadline(300),
    },
    GPU: {
      ...usual(),
      expected: 0,
      width_least: null,
      uncorrected_errors: 0,
      remapped_rows: 0,
      dcgm_level: 0,
      nvlinks_least: null,
      nvlink_errors: 0,
      engine: "default",
      deadline: deadline(60),
    },
    PSU: { ...usual(), expected: 2, redundancy: false, engine: "default", deadline: deadline(60) },
  },
};

function equal(path: string, value: string): Spec["rules"][number] {
  return { path, match: { is: "equal", value }, outcome: "FAIL" };
}

function present(path: string): Spec["rules"][number] {
  return { path, match: { is: "present" }, outcome: "FAIL" };
}

function usual() {
  return { enabled: true, required: [], attempts: 3 };
}

function deadline(seconds: number) {
  return { base_s: seconds, per_tebibyte_s: 0 };
}

function healthySensor(number: number): CompactSensor {
  return { number, name: `PSU ${number} Input`, supply: number, tells: "thresholds" };
}

/** Both power supplies are there, and well. */
export const healthySensors: readonly CompactSensor[] = [healthySensor(1), healthySensor(2)];

const middle = guestDiskBytes / 2;
const link = (up: boolean): Injection => {
  return { command: "set_link", words: { name: guestObjects.secondCard, up } };
};

/**
 * A corrected error of bank 4: valid, enabled, with an address (bits 63, 60, 58), of a cache.
 * Intel's Software Developer's Manual, volume 3B, 16.3.2.2. QEMU's words are
 * `mce CPU BANK STATUS MCGSTATUS ADDR MISC`.
 */
const machineCheck = "mce 0 4 0x9400000000000136 0x0 0x12340000 0x8c";

export const faults: readonly Fault[] = [
  {
    name: "wrong-bios",
    wrong: "firmware of another version",
    change: { smbios: { biosVersion: "1.0.0" } },
    expected: { by: "SpecValidate", place: "firmware.version" },
  },
  {
    name: "wrong-processor",
    wrong: "a processor of another model",
    change: { smbios: { processor: "Laboratory Processor 1.0" } },
    expected: { by: "SpecValidate", place: "processors" },
  },
  {
    name: "wrong-dimm",
    wrong: "a memory module with another serial",
    change: { smbios: { dimmSerial: "DIMM-9999" } },
    expected: { by: "SpecValidate", place: "memory.slots" },
  },
  {
    name: "missing-disk",
    wrong: "the bay of the SATA disk is empty",
    change: { sata: false },
    expected: { by: "SpecValidate", place: `disks[${guestSerials.sata}]` },
  },
  {
    name: "swapped-serial",
    wrong: "another NVMe disk in its place",
    change: { nvmeSerial: "PROVE-NVME-9999" },
    expected: { by: "SpecValidate", place: `disks[${guestSerials.nvme}]` },
  },
  {
    name: "smart-warning",
    wrong: "the NVMe disk tells of degraded reliability",
    atPower: {
      command: "qom-set",
      words: { path: guestObjects.nvme, property: "smart_critical_warning", value: 4 },
    },
    expected: { by: "SMART", code: "nvme-critical-warning" },
  },
  {
    name: "machine-check",
    wrong: "the processor tells of corrected errors under load",
    during: {
      state: "CPUStress",
      steps: [{ command: "human-monitor-command", words: { "command-line": machineCheck } }],
    },
    expected: { by: "CPUStress", code: "machine-check-limit", also: ["kernel-log"] },
  },
  {
    name: "nvme-media-error",
    wrong: "a sector of the NVMe disk cannot be read",
    change: { nvmeMediaError: middle },
    expected: { by: "Storage", code: "read-errors", also: ["kernel-errors"] },
  },
  {
    name: "sata-media-error",
    wrong: "a sector of the SATA disk cannot be read",
    change: { sataMediaError: middle },
    expected: { by: "Storage", code: "read-errors", also: ["kernel-errors"] },
  },
  {
    name: "scsi-media-error",
    wrong: "a sector of a SCSI disk cannot be read",
    change: { scsiMediaError: middle },
    expected: { by: "Storage", code: "read-errors", also: ["kernel-errors"] },
  },
  {
    name: "slow-card",
    wrong: "the second network card has a tenth of its speed",
    change: { secondCardSpeed: guestCardSpeed / 10 },
    expected: { by: "Network", code: "speed" },
  },
  {
    name: "link-flaps",
    wrong: "the second network card loses its carrier, and has it again",
    during: { state: "Network", steps: [link(false), link(true)] },
    expected: { by: "Network", code: "carrier-changes", also: ["no-carrier"] },
  },
  {
    name: "supply-absent",
    wrong: "the second power supply says that it is not there",
    sensors: [healthySensor(1), { number: 2, name: "PSU 2", supply: 2, tells: "presence" }],
    expected: { by: "PSU", code: "psu-count" },
  },
];
