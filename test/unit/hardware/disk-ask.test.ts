/** Asking disks by commands of our own: what is sent, and what refusals come to. */
import { describe, expect, test } from "bun:test";
import type {
  NvmeAnswer,
  NvmeCommand,
  ScsiAnswer,
  ScsiCommand,
} from "../../../ffi/disk-commands.ts";
import { Errno } from "../../../ffi/error-numbers.ts";
import { NvmeDisk } from "../../../src/hardware/disk/ask-nvme.ts";
import { notAsked, scsiOrAtaDisk } from "../../../src/hardware/disk/ask-scsi.ts";
import {
  ataDataSector,
  ataIdentitySector,
  ataReturn,
  ataSelfTestSector,
  ataStatisticsPage,
  ataThresholdSector,
  inquiryBytes,
  logPage,
  nvmeControllerPage,
  nvmeHealthPage,
  nvmeSelfTestPage,
} from "../../support/vetting/disk-answers.ts";

describe("NVMe", () => {
  const answer = (bytes: Uint8Array): NvmeAnswer => ({ kind: "answer", bytes });
  const INVALID = { kind: "status", status: 0x2 } as const;

  interface Controller {
    readonly identify?: NvmeAnswer;
    readonly health?: NvmeAnswer;
    readonly selfTests?: NvmeAnswer;
    readonly start?: NvmeAnswer;
  }

  function controller(given: Controller) {
    const sent: NvmeCommand[] = [];
    const disk = new NvmeDisk((command) => {
      sent.push(command);
      if (command.opcode === 0x06) return given.identify ?? answer(nvmeControllerPage());
      if (command.opcode === 0x14) return given.start ?? INVALID;
      const page = command.dword10 & 0xff;
      if (page === 0x02) return given.health ?? answer(nvmeHealthPage());
      return page === 0x06 ? (given.selfTests ?? INVALID) : INVALID;
    });
    return { disk, sent };
  }

  test("a disk without a self-test, as QEMU has it, is well and says what it lacks", () => {
    const { disk, sent } = controller({});
    expect(disk.health()).toMatchObject({
      protocol: "nvme",
      serial: "S64ANX0R",
      healthy: true,
      self_test: null,
      unseen: [{ property: "disk.self-test", reason: "the controller has no self-test" }],
    });
    expect(sent).toEqual([
      { opcode: 6, namespace: 0, dword10: 1, answer: 4_096 },
      { opcode: 2, namespace: 0xffff_ffff, dword10: 0x007f_0002, answer: 512 },
    ]);
    expect(disk.start("short")).toBe("the controller has no self-test");
  });

  test("a self-test is begun, followed, and read", () => {
    const identify = answer(nvmeControllerPage({ hasSelfTest: true }));
    const start = answer(new Uint8Array(0));
    const running = answer(nvmeSelfTestPage(0x0f, 1));
    expect(controller({ identify, start }).disk.start("extended")).toBeUndefined();
    const { sent, disk } = controller({ identify, start, selfTests: running });
    disk.start("extended");
    expect(sent.at(-1)).toMatchObject({ opcode: 0x14, dword10: 2 });
    expect(disk.state()).toEqual({ kind: "running", percent: 40 });
    const ended = controller({ identify, selfTests: answer(nvmeSelfTestPage(0x17)) }).disk;
    expect(ended.state()).toEqual({ kind: "ended" });
    expect(ended.health().self_test).toMatchObject({ result: "failed" });
    expect(ended.health().unseen).toEqual([]);
  });

  test("a controller that refuses to begin one", () => {
    const identify = answer(nvmeControllerPage({ hasSelfTest: true }));
    expect(controller({ identify }).disk.start("short")).toBe("the controller answers 0x2");
    expect(controller({ identify }).disk.state()).toEqual({
      kind: "unknown",
      reason: "the controller answers 0x2",
    });
  });

  test.each<[string, NvmeAnswer, string]>([
    ["a status", INVALID, "the controller answers 0x2"],
    [
      "the kernel",
      { kind: "refused", errno: Errno.ENOTTY },
      "the kernel refuses the command: ENOTTY",
    ],
    ["an empty page", answer(new Uint8Array(512)), "its health page is no answer"],
  ])("no health page: %s; each property says why", (_name, health, reason) => {
    const told = controller({ health }).disk.health();
    expect(told).toMatchObject({ healthy: null, serial: "S64ANX0R" });
    expect(told.unseen).toContainEqual({ property: "disk.health", reason });
    expect(told.unseen).toContainEqual({ property: "disk.spare", reason });
  });

  test("a controller that does not say what it is is asked how it is all the same", () => {
    expect(controller({ identify: INVALID }).disk.health()).toMatchObject({
      serial: null,
      healthy: true,
    });
  });
});

/** Answers by the command's first byte or, of ATA, by its command and feature. */
function scsi(answers: Readonly<Record<string, ScsiAnswer | Uint8Array>>) {
  const sent: string[] = [];
  const ask = ({ block }: ScsiCommand): ScsiAnswer => {
    const key = keyOf(block);
    sent.push(key);
    const found = answers[key];
    if (found instanceof Uint8Array) return good(found);
    return found ?? { kind: "answer", bytes: new Uint8Array(0), status: 2, sense: illegal };
  };
  return { disk: scsiOrAtaDisk(ask), sent };
}

const illegal = new Uint8Array([0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0]);
const hex = (value: number | undefined) => (value ?? 0).toString(16).padStart(2, "0");
const good = (bytes: Uint8Array): ScsiAnswer => ({
  kind: "answer",
  bytes,
  status: 0,
  sense: new Uint8Array(0),
});
const returned = (sense: Uint8Array): ScsiAnswer => ({
  kind: "answer",
  bytes: new Uint8Array(0),
  status: 2,
  sense,
});

function keyOf(block: readonly number[]): string {
  if (block[0] === 0x12) return block[1] === 1 ? `vpd ${hex(block[2])}` : "inquiry";
  if (block[0] === 0x4d) return `log ${hex((block[2] ?? 0) & 0x3f)}/${hex(block[3])}`;
  if (block[0] !== 0x85) return hex(block[0]);
  const low = block[14] === 0xb0 && block[4] === 0xd5 ? ` ${hex(block[8])}` : "";
  const page = block[14] === 0x2f ? ` ${hex(block[8])}/${hex(block[10])}` : "";
  return `ata ${hex(block[14])} ${hex(block[4])}${low}${page}`;
}

describe("SCSI", () => {
  test("a disk with its pages", () => {
    const { disk, sent } = scsi({
      inquiry: inquiryBytes("SEAGATE", "ST4000"),
      "vpd 80": new Uint8Array([0, 0x80, 0, 2, 0x41, 0x42]),
      "log 2f/00": logPage(0x2f, { 0: [0, 0, 40] }),
      "log 03/00": logPage(3, { 6: [3] }),
      "log 15/01": logPage(0x15, { 0: [0, 0, 0, 4] }),
      b7: new Uint8Array([0, 0x0d, 0, 0, 0, 0, 0, 16]),
    });
    if (typeof disk === "string") throw new Error(disk);
    expect(disk.health()).toMatchObject({
      protocol: "scsi",
      serial: "AB",
      healthy: true,
      media_errors: 3,
      pending_sectors: 4,
      reallocated_sectors: 2,
      unseen: [{ property: "disk.self-test", reason: "the disk has no such page" }],
    });
    // ATA's commands go to no disk that does not say it is one.
    expect(sent.filter((key) => key.startsWith("ata"))).toEqual([]);
  });

  test("a disk that refuses its log says so at each property", () => {
    const { disk } = scsi({ inquiry: inquiryBytes("QEMU", "QEMU HARDDISK") });
    if (typeof disk === "string") throw new Error(disk);
    const health = disk.health();
    expect(health.healthy).toBeNull();
    expect(health.unseen).toContainEqual({
      property: "disk.health",
      reason: "the disk refuses: sense 5/24/0",
    });
    expect(disk.start("short")).toBe("the disk refuses: sense 5/24/0");
    expect(disk.state()).toMatchObject({ kind: "unknown" });
  });

  test("a self-test is followed by its own page, and each page is asked for once", () => {
    const running = [0x2f, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const { disk, sent } = scsi({
      inquiry: inquiryBytes("SEAGATE", "ST4000"),
      "log 10/00": logPage(0x10, { 1: running }),
    });
    if (typeof disk === "string") throw new Error(disk);
    sent.length = 0;
    expect(disk.state()).toEqual({ kind: "running", percent: 0 });
    expect(sent).toEqual(["log 10/00"]);
    sent.length = 0;
    disk.health();
    expect(sent.toSorted()).toEqual([...new Set(sent)].toSorted());
  });

  test.each<[string, ScsiAnswer | Uint8Array, string]>([
    ["no SCSI", { kind: "refused", errno: Errno.ENOTTY }, "the kernel refuses: ENOTTY"],
    ["gone", { kind: "transport", host: 1, driver: 0 }, "nothing came back: host 0x1, driver 0"],
    ["zeros", new Uint8Array(36), "its INQUIRY is no answer"],
  ])("what cannot be asked at all: %s", (_name, answer, reason) => {
    expect(scsi({ inquiry: answer }).disk).toBe(reason);
    expect(notAsked(reason)).toMatchObject({
      protocol: "none",
      healthy: null,
      unseen: [{ property: "disk.health", reason }],
    });
  });
});

describe("ATA", () => {
  const rows = [{ id: 5, threshold: 10 }, { id: 197, raw: [3] }, { id: 198 }] as const;
  const disk = {
    inquiry: inquiryBytes("ATA", "WDC"),
    "ata ec 00": ataIdentitySector(),
    "ata b0 d0": ataDataSector(rows),
    "ata b0 d1": ataThresholdSector(rows),
    "ata b0 d5 06": ataSelfTestSector(0),
    "ata b0 da": returned(ataReturn(0x4f, 0xc2)),
    "ata 2f 00 04/04": ataStatisticsPage(4, { 8: { value: 6 } }),
  };

  const askedAs = (answers: Parameters<typeof scsi>[0]) => {
    const asked = scsi(answers).disk;
    if (typeof asked === "string") throw new Error(asked);
    return asked;
  };

  test("a disk with all of it", () => {
    expect(askedAs(disk).health()).toMatchObject({
      protocol: "ata",
      serial: "WD-WCC4N",
      healthy: true,
      pending_sectors: 3,
      uncorrectable_sectors: 0,
      media_errors: 6,
      self_test: { result: "passed" },
    });
  });

  test("by its page 89h it is one, whoever its bridge is", () => {
    const pages = new Uint8Array([0, 0, 0, 2, 0x80, 0x89]);
    const bridged = { ...disk, inquiry: inquiryBytes("JMicron", "Bridge"), "vpd 00": pages };
    expect(askedAs(bridged).health().protocol).toBe("ata");
  });

  test("a verdict that failed, and a bridge that tells none", () => {
    const failing = { ...disk, "ata b0 da": returned(ataReturn(0xf4, 0x2c)) };
    expect(askedAs(failing).health().healthy).toBe(false);
    const silent = { ...disk, "ata b0 da": good(new Uint8Array(0)) };
    const health = askedAs(silent).health();
    expect(health.healthy).toBeNull();
    expect(health.unseen.map(({ property }) => property)).toContain("disk.health");
  });

  test("a sector with a wrong checksum is not believed", () => {
    const data = ataDataSector(rows);
    data[100] = (data[100] ?? 0) + 1;
    const health = askedAs({ ...disk, "ata b0 d0": data }).health();
    expect(health).toMatchObject({ pending_sectors: null, healthy: true });
    expect(health.unseen.map(({ property }) => property)).toContain("disk.pending");
  });

  test.each([
    [{ 82: 0 }, "the disk has no SMART"],
    [{ 85: 0 }, "SMART is switched off in the disk"],
  ])("%j: %s", (words, reason) => {
    const health = askedAs({ ...disk, "ata ec 00": ataIdentitySector(words) }).health();
    expect(health.unseen).toContainEqual({ property: "disk.health", reason });
  });

  test("one that does not say what it is", () => {
    const health = askedAs({ inquiry: disk.inquiry }).health();
    expect(health.healthy).toBeNull();
    expect(health.unseen[0]?.reason).toContain("no IDENTIFY DEVICE");
  });

  test("a self-test", () => {
    const begun = { ...disk, "ata b0 d4": returned(ataReturn(0x4f, 0xc2)) };
    expect(askedAs(begun).start("short")).toBeUndefined();
    expect(askedAs(disk).start("short")).toBe("the disk refuses it");
    const running = { ...disk, "ata b0 d0": ataDataSector(rows, 0xf3) };
    expect(askedAs(running).state()).toEqual({ kind: "running", percent: 70 });
    expect(askedAs(disk).state()).toEqual({ kind: "ended" });
  });
});
