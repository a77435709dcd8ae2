/**
 * The emulated host that vetting is proven on: a server with two disks, two network cards and a
 * management controller, all of which can be told to be broken. Words of QEMU's command line alone.
 */

/** What of the host differs from the healthy one before it is switched on. */
export interface GuestChange {
  readonly smbios?: Partial<GuestSmbios>;
  readonly nvmeSerial?: string;
  /** false: the bay of the SATA disk is empty. */
  readonly sata?: boolean;
  /** Bytes from the disk's beginning of a sector that cannot be read. */
  readonly nvmeMediaError?: number;
  readonly sataMediaError?: number;
  /** As well a SCSI disk in its memory, by the kernel's own emulation, with such a sector. */
  readonly scsiMediaError?: number;
  /** Megabits a second that the second card has. */
  readonly secondCardSpeed?: number;
}

export interface GuestFiles {
  readonly kernel: string;
  readonly initramfs: string;
  readonly nvme: string;
  readonly sata: string;
  /** What firmware keeps of a crash (ACPI ERST). */
  readonly errorRecords: string;
  /** Sensor data records of the management controller. */
  readonly sensorRecords: string;
  readonly qmpSocket: string;
}

export interface GuestPlan {
  readonly files: GuestFiles;
  /** The kernel's, after those that make the serial port the console. */
  readonly kernelWords: readonly string[];
  /** Of the card that it boots from. */
  readonly mac: string;
  readonly change: GuestChange;
  readonly memoryMebibytes: number;
}

export const healthySmbios = {
  biosVendor: "Hostler Laboratory",
  biosVersion: "2.17.1",
  biosDate: "04/01/2026",
  manufacturer: "Hostler Laboratory",
  product: "Prover 2U",
  serial: "HL-0001",
  uuid: "5f1d3c52-8d0e-4c38-9e64-6f1d0c5e7a01",
  boardSerial: "HLB-0001",
  processor: "Laboratory Processor 2.0",
  dimmManufacturer: "Laboratory Memory",
  dimmSerial: "DIMM-0001",
  dimmPart: "LM-1024-3200",
  dimmSpeed: 3200,
};
export type GuestSmbios = Readonly<typeof healthySmbios>;

export const guestCards = { first: "52:54:00:76:65:01", second: "52:54:00:76:65:02" } as const;
export const guestSerials = { nvme: "PROVE-NVME-0001", sata: "PROVE-SATA-0001" } as const;
/** Of each disk. Whole, it is read in seconds by an emulated processor. */
export const guestDiskBytes: number = 64 * 1024 ** 2;
/** Megabits a second of the second card, when it is well. */
export const guestCardSpeed = 10_000;
/** Of QEMU's objects, by which faults are told to them. */
export const guestObjects = {
  nvme: "/machine/peripheral/nvme0",
  secondCard: "card1",
  errorRecordBytes: 64 * 1024,
} as const;
/** The host on QEMU's own network: where an orchestrator of this machine listens for the guest. */
export const hostAddress = "10.0.2.2";

/** All words after the program's name; the guest's console is standard input and output. */
export function guestWords(plan: GuestPlan): string[] {
  const { files, kernelWords, change, memoryMebibytes } = plan;
  const line = ["console=ttyS0", "panic=1", ...kernelWords, ...scsiWords(change)].join(" ");
  return [
    ...["-accel", "tcg,thread=multi", "-machine", "q35"],
    // Linux takes a processor's name from itself, and not from SMBIOS.
    ...["-cpu", `max,model-id=${change.smbios?.processor ?? healthySmbios.processor}`],
    ...["-m", `${memoryMebibytes}`, "-smp", "2", "-nodefaults", "-no-user-config"],
    ...["-display", "none", "-monitor", "none", "-serial", "stdio"],
    ...["-qmp", `unix:${files.qmpSocket},server=on,wait=off`],
    ...["-kernel", files.kernel, "-initrd", files.initramfs, "-append", line],
    ...smbiosWords({ ...healthySmbios, ...change.smbios }),
    ...diskWords(files, change),
    ...cardWords(plan.mac, change),
    ...["-device", `ipmi-bmc-sim,id=bmc,sdrfile=${files.sensorRecords}`],
    ...["-device", "isa-ipmi-kcs,bmc=bmc"],
    "-object",
    `memory-backend-file,id=records,mem-path=${files.errorRecords},` +
      `size=${guestObjects.errorRecordBytes},share=on`,
    ...["-device", "acpi-erst,memdev=records"],
    // Chance must not wait until an emulated machine has seen enough.
    ...["-device", "virtio-rng-pci"],
  ];
}

/** A comma in a value is told by two. */
function smbiosWords(smbios: GuestSmbios): string[] {
  const words = (type: number, values: Readonly<Record<string, string | number>>) => {
    const parts = Object.entries(values).map(
      ([name, value]) => `${name}=${String(value).replaceAll(",", ",,")}`,
    );
    return ["-smbios", [`type=${type}`, ...parts].join(",")];
  };
  const { manufacturer } = smbios;
  return [
    ...words(0, { vendor: smbios.biosVendor, version: smbios.biosVersion, date: smbios.biosDate }),
    ...words(1, {
      manufacturer,
      product: smbios.product,
      serial: smbios.serial,
      uuid: smbios.uuid,
    }),
    ...words(2, { manufacturer, product: "Prover Board", serial: smbios.boardSerial }),
    ...words(3, { manufacturer, serial: smbios.serial }),
    ...words(4, { manufacturer, version: smbios.processor, sock_pfx: "CPU " }),
    ...words(17, {
      loc_pfx: "DIMM_A",
      manufacturer: smbios.dimmManufacturer,
      serial: smbios.dimmSerial,
      part: smbios.dimmPart,
      speed: smbios.dimmSpeed,
    }),
  ];
}

function diskWords(files: GuestFiles, change: GuestChange): string[] {
  const serial = change.nvmeSerial ?? guestSerials.nvme;
  const nvme = blockWords("nvme", files.nvme, change.nvmeMediaError);
  const sata = blockWords("sata", files.sata, change.sataMediaError);
  return [
    ...[...nvme, "-device", `nvme,id=nvme0,drive=nvme,serial=${serial}`],
    ...(change.sata === false
      ? []
      : [...sata, "-device", `ide-hd,id=sata0,drive=sata,serial=${guestSerials.sata}`]),
  ];
}

const sectorBytes = 512;

/** docs/devel/blkdebug.rst of QEMU: a read that touches the sector fails, each time. */
function blockWords(name: string, path: string, mediaError: number | undefined): string[] {
  const file = { driver: "file", filename: path };
  const injection = { event: "read_aio", errno: 5, once: false, immediately: false };
  const below =
    mediaError === undefined
      ? file
      : {
          driver: "blkdebug",
          image: file,
          "inject-error": [{ ...injection, sector: Math.floor(mediaError / sectorBytes) }],
        };
  return ["-blockdev", JSON.stringify({ driver: "raw", "node-name": name, file: below })];
}

/**
 * Words of the live image and of the module scsi_debug: bit 1 of its options
 * (SDEBUG_OPT_MEDIUM_ERR) has a read of that sector end as a medium error.
 */
function scsiWords({ scsiMediaError }: GuestChange): string[] {
  if (scsiMediaError === undefined) return [];
  const start = Math.floor(scsiMediaError / sectorBytes);
  const options = {
    ...{ dev_size_mb: guestDiskBytes / 1024 ** 2, opts: 2 },
    ...{ medium_error_start: start, medium_error_count: 1 },
  };
  const words = Object.entries(options).map(([name, value]) => `scsi_debug.${name}=${value}`);
  return ["hostler.live.module=scsi_debug", ...words];
}

function cardWords(mac: string, change: GuestChange): string[] {
  const speed = change.secondCardSpeed ?? guestCardSpeed;
  return [
    ...["-netdev", "user,id=net0"],
    ...["-device", `e1000e,id=card0,netdev=net0,mac=${mac}`],
    // Of another network, because both of one network would answer for each other.
    ...["-netdev", "user,id=net1,net=10.0.3.0/24,dhcpstart=10.0.3.15"],
    "-device",
    `virtio-net-pci,id=${guestObjects.secondCard},netdev=net1,mac=${guestCards.second},` +
      `speed=${speed},duplex=full`,
  ];
}
