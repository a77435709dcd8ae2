import { describe, expect, test } from "bun:test";
import { faultNames, faultOf, parseKernelRecord } from "../../../src/hardware/kernel-log.ts";
import {
  KernelLogReader,
  MOST_LINES_A_TURN,
  type RecordSource,
} from "../../../src/hardware/kernel-log-reader.ts";

describe("a record of /dev/kmsg", () => {
  test("is taken apart, and what it is about is left out", () => {
    const record = "6,339,5140900,-;NET: Registered\\x09PF_INET\n SUBSYSTEM=net\n DEVICE=+x\n";
    expect(parseKernelRecord(record)).toEqual({
      sequence: 339,
      microseconds: 5_140_900,
      level: 6,
      text: "NET: Registered\tPF_INET",
    });
  });

  test("of a facility keeps its level, and more fields are no matter", () => {
    expect(parseKernelRecord("30,7,1,c,caller=T1;systemd[1]: up\n")?.level).toBe(6);
  });

  test("what a terminal would obey stays written out", () => {
    expect(parseKernelRecord("3,1,1,-;a\\x1b[2Jb\\x5cc\n")?.text).toBe("a\\x1b[2Jb\\c");
  });

  test("of the command line keeps no secret", () => {
    const line = parseKernelRecord("6,1,0,-;Command line: quiet hostler.vetting.token=abc x=1\n");
    expect(line?.text).toBe("Command line: quiet hostler.vetting.token=(hidden) x=1");
  });

  test("that is too long is cut", () => {
    expect(parseKernelRecord(`3,1,1,-;${"x".repeat(5_000)}`)?.text).toHaveLength(1_024);
  });

  test.each(["", "hello", "6,1;", ";text", "a,b,c,-;x", "6,99999999999999999999,1,-;x"])(
    "%j is none",
    (record) => expect(parseKernelRecord(record)).toBeUndefined(),
  );
});

/** Lines as kernels from 5.10 to 6.12 write them. */
const faults: readonly (readonly [fault: string, component: string, line: string])[] = [
  [
    "memory-failure",
    "0x3f4a2",
    "Memory failure: 0x3f4a2: recovery action for dirty page: Recovered",
  ],
  ["memory-error", "MC0", "EDAC MC0: 1 CE memory read error on CPU_SrcID#0_MC#0_Chan#0_DIMM#0 (c"],
  ["memory-error", "MC1", "EDAC MC1: 1 UE memory scrubbing error on unknown memory (page:0x0"],
  [
    "pcie-error",
    "0000:01:00.0",
    "pcieport 0000:00:1c.0: AER: Corrected error received: 0000:01:00.0",
  ],
  [
    "pcie-error",
    "0000:01:00.0",
    "pcieport 0000:00:1c.0: AER: Correctable error message received from 0000:01:00.0",
  ],
  [
    "pcie-error",
    "0000:01:00.0",
    "nvme 0000:01:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)",
  ],
  ["pcie-link-down", "0000:00:1c.0", "pcieport 0000:00:1c.0: pciehp: Slot(0): Link Down"],
  [
    "machine-check",
    "CPU 2",
    "mce: [Hardware Error]: CPU 2: Machine Check: 0 Bank 5: be00000000800400",
  ],
  [
    "machine-check",
    "CPU:0",
    "[Hardware Error]: CPU:0 (17:1:1) MC4_STATUS[-|CE|MiscV]: 0x9c00410000",
  ],
  ["machine-check", "host", "{1}[Hardware Error]: event severity: corrected"],
  ["medium-error", "sda", "critical medium error, dev sda, sector 2048 op 0x0:(READ) flags 0x0"],
  ["medium-error", "vdb", "blk_update_request: critical medium error, dev vdb, sector 8"],
  ["disk-error", "nvme0n1", "I/O error, dev nvme0n1, sector 0 op 0x0:(READ) flags 0x80700"],
  ["disk-error", "sdc", "Buffer I/O error on dev sdc, logical block 0, async page read"],
  ["disk-error", "sdb", "critical target error, dev sdb, sector 99 op 0x1:(WRITE) flags 0x8800"],
  ["disk-timeout", "nvme0", "nvme nvme0: I/O 12 QID 4 timeout, aborting"],
  [
    "disk-timeout",
    "nvme0",
    "nvme nvme0: I/O tag 12 (400c) opcode 0x2 (I/O Cmd) QID 4 timeout, reset",
  ],
  [
    "disk-timeout",
    "nvme1",
    "nvme nvme1: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS",
  ],
  ["disk-lost", "nvme1", "nvme nvme1: Removing after probe failure status: -19"],
  [
    "medium-error",
    "nvme0n1",
    "nvme0n1: Read(0x2) @ LBA 8, 8 blocks, Unrecovered Read Error (sct 0x2 / s",
  ],
  ["disk-error", "ata1.00", "ata1.00: failed command: READ FPDMA QUEUED"],
  ["disk-error", "ata2", "ata2: SError: { UnrecovData Proto }"],
  ["disk-lost", "ata1.00", "ata1.00: disable device"],
  [
    "medium-error",
    "sda",
    "sd 0:0:0:0: [sda] tag#3 Sense Key : Medium Error [current] [descriptor]",
  ],
  ["disk-error", "sdb", "sd 0:0:1:0: [sdb] tag#0 Sense Key : Hardware Error [current]"],
  ["disk-lost", "2:0:0:0", "sd 2:0:0:0: rejecting I/O to offline device"],
  [
    "gpu-error",
    "0000:3b:00",
    "NVRM: Xid (PCI:0000:3b:00): 79, pid=1234, GPU has fallen off the bus.",
  ],
  ["gpu-error", "0000:03:00.0", "amdgpu 0000:03:00.0: amdgpu: GPU reset begin!"],
  ["network-timeout", "eth0", "NETDEV WATCHDOG: eth0 (igb): transmit queue 0 timed out"],
  [
    "network-timeout",
    "eth1",
    "igb 0000:02:00.0 eth1: NETDEV WATCHDOG: CPU: 3: transmit queue 0 timed o",
  ],
  ["lockup", "CPU#2", "watchdog: BUG: soft lockup - CPU#2 stuck for 26s! [kworker/2:1:123]"],
  ["lockup", "cpu 3", "watchdog: Watchdog detected hard LOCKUP on cpu 3"],
  ["stall", "host", "rcu: INFO: rcu_sched self-detected stall on CPU"],
  ["hung-task", "fio", "INFO: task fio:812 blocked for more than 120 seconds."],
  ["overheated", "CPU3", "CPU3: Core temperature above threshold, cpu clock throttled (total ev"],
  [
    "overheated",
    "CPU12",
    "mce: CPU12: Package temperature is above threshold, cpu clock throttled",
  ],
  [
    "overheated",
    "acpitz",
    "thermal thermal_zone0: acpitz: critical temperature reached, shutting do",
  ],
  [
    "iommu-fault",
    "03:00.0",
    "DMAR: [DMA Read NO_PASID] Request device [03:00.0] fault addr 0x0 [fault",
  ],
  [
    "iommu-fault",
    "03:00.0",
    "AMD-Vi: Event logged [IO_PAGE_FAULT device=03:00.0 domain=0x000f address",
  ],
  ["unexpected-nmi", "host", "NMI: PCI system error (SERR) for reason b1 on CPU 0."],
];

/** Lines of boots where nothing is wrong. */
const harmless: readonly string[] = [
  "pcieport 0000:00:1c.0: AER: enabled with IRQ 24",
  "pcieport 0000:00:1c.0: PME: Signaling with IRQ 24",
  "EDAC MC0: Giving out device to module skx_edac controller Skylake Socket#0 IMC#0: DEV",
  "EDAC MC: Ver: 3.0.0",
  "mce: CPU0: Thermal monitoring enabled (TM1)",
  "MCE: In-kernel MCE decoding enabled.",
  "nvme nvme0: 4/0/0 default/read/poll queues",
  "nvme nvme0: pci function 0000:01:00.0",
  "ata1: SATA link up 6.0 Gbps (SStatus 133 SControl 300)",
  "ata1.00: ATA-10: ST4000NM0035, TN05, max UDMA/133",
  "sd 0:0:0:0: [sda] Write cache: enabled, read cache: enabled, doesn't support DPO or FUA",
  "e1000e: eth0 NIC Link is Down",
  "CPU3: Core temperature/speed normal",
  "rcu: Hierarchical SRCU implementation.",
  "thermal LNXTHERM:00: registered as thermal_zone0",
  "DMAR: IOMMU enabled",
  "NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
  "watchdog: Delayed init of the lockup detector failed: -19",
  "memory: hot-added",
  "I/O error, dev loop0, sector 0 op 0x0:(READ) flags 0x80700 phys_seg 1",
  "Buffer I/O error on dev dm-3, logical block 0, async page read",
  "I/O error, dev zram0, sector 8 op 0x1:(WRITE)",
];

describe("what names a fault", () => {
  test.each(faults)("%s of %s", (fault, component, line) =>
    expect(faultOf(line)).toEqual({ fault, component }),
  );

  test("of the table each is tested here", () => {
    expect([...new Set(faults.map(([fault]) => fault))].sort()).toEqual([...faultNames].sort());
  });

  test.each(harmless)("not %j", (line) => expect(faultOf(line)).toBeUndefined());

  test("a line of nothing but what a pattern begins with is answered at once", () => {
    for (const [, , line] of faults) faultOf(line.slice(0, 30).repeat(34));
    expect(faultOf("sd ".repeat(340))).toBeUndefined();
  });
});

const script = (records: readonly (number | "lost")[]): RecordSource => {
  const waiting = [...records];
  return {
    read: () => {
      const next = waiting.shift();
      if (next === undefined) return { kind: "none" };
      return next === "lost" ? { kind: "lost" } : { kind: "record", text: `6,${next},1,-;x` };
    },
  };
};

describe("the reader of the kernel's log", () => {
  const sequences = (reader: KernelLogReader) => {
    const { lines, ...rest } = reader.read();
    return { sequences: lines.map(({ sequence }) => sequence), ...rest };
  };

  test("tells a gap by the numbers", () => {
    const reader = new KernelLogReader(script([5, 6, "lost", 20, 21]), null);
    expect(sequences(reader)).toEqual({ sequences: [5, 6, 20, 21], lost: 13, more: false });
  });

  test("tells nothing twice to who knows the last one", () => {
    const reader = new KernelLogReader(script([5, 6, 7]), 6);
    expect(sequences(reader)).toEqual({ sequences: [7], lost: 0, more: false });
  });

  test("what was lost before the oldest there is, after the last known, counts", () => {
    const reader = new KernelLogReader(script([105]), 100);
    expect(sequences(reader)).toEqual({ sequences: [105], lost: 4, more: false });
  });

  test("of a flood takes so much in one turn", () => {
    const all = Array.from({ length: MOST_LINES_A_TURN + 3 }, (_, index) => index);
    const reader = new KernelLogReader(script(all), null);
    expect(reader.read().lines).toHaveLength(MOST_LINES_A_TURN);
    expect(sequences(reader)).toEqual({
      sequences: all.slice(MOST_LINES_A_TURN),
      lost: 0,
      more: false,
    });
  });
});
