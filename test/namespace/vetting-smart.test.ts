/** The task that asks a disk, where it is none, and with a smartctl of the test's own. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync, existsSync } from "node:fs";
import * as v from "valibot";
import type { AskedDisk } from "../../src/hardware/disk/asked-disk.ts";
import type { TaskContext } from "../../src/vetting/perform/task.ts";
import { askDisk, runSelfTest } from "../../src/vetting/perform/tasks/smart.ts";
import { type SmartInput, smartReportSchema } from "../../src/vetting/tasks/smart.ts";
import { skipUnless } from "../support/skips.ts";
import { DiskHost, loopDevices } from "../support/vetting/loop-disks.ts";
import { rejectionOf } from "../support/wait-for.ts";

const SIZE = 1024 ** 2;

let host: DiskHost;
let context: TaskContext;
const path = process.env["PATH"];

beforeEach(() => {
  host = new DiskHost();
  context = { signal: new AbortController().signal, tell: () => {}, onQuestion: () => {} };
  process.env["PATH"] = host.path("bin");
});
afterEach(() => {
  process.env["PATH"] = path;
  host[Symbol.dispose]();
});

const input = (given: Partial<SmartInput> = {}): SmartInput => ({
  disk: { name: "sda", serial: "S1", size_bytes: SIZE },
  transport: "sata",
  self_test: "none",
  self_test_most_s: 10,
  ...given,
});

/** A program that prints this, and ends with this status. */
function installSmartctl(output: object | string, status = 0): void {
  const text = typeof output === "string" ? output : JSON.stringify(output);
  host.write("answer.json", text);
  // Without a program of the system's, because its path is the test's.
  const script = [
    "#!/bin/sh",
    `while read -r line || [ "$line" ]; do echo "$line"; done <${host.path("answer.json")}`,
    `echo "$@" >${host.path("asked")}`,
    `exit ${status}`,
  ].join("\n");
  host.write("bin/smartctl", script);
  chmodSync(host.path("bin/smartctl"), 0o755);
}

const refusedByIt = { string: "Smartctl open failed", severity: "error" };
const answer = {
  smartctl: { version: [7, 3], exit_status: 0 },
  device: { protocol: "ATA" },
  serial_number: "S1",
  smart_status: { passed: true },
};

skipUnless("asking a disk how it is", loopDevices, () => {
  beforeEach(() => {
    host.add("sda", { serial: "S1", size: SIZE });
  });

  test("without smartctl, and a disk that is none: not seen, and no pass", async () => {
    const report = await askDisk(input(), context, host.tree);
    expect(v.is(smartReportSchema, report)).toBe(true);
    expect(report).toMatchObject({
      engine: { name: "hostler" },
      health: {
        protocol: "none",
        healthy: null,
        unseen: [{ property: "disk.health" }],
      },
      passed_over: [],
    });
    expect(report.health.unseen[0]?.reason).toStartWith("the kernel refuses: E");
  });

  test("smartctl is asked first", async () => {
    installSmartctl(answer);
    const report = await askDisk(input(), context, host.tree);
    expect(report).toMatchObject({
      engine: { name: "smartctl", version: "7.3" },
      health: { protocol: "ata", healthy: true },
    });
    expect(await Bun.file(host.path("asked")).text()).toBe(`--json=c -x ${host.path("dev/sda")}\n`);
  });

  test("smartctl is not asked where the spec wants our own engine", async () => {
    installSmartctl(answer);
    const report = await askDisk(input({ engine: "own" }), context, host.tree);
    expect(report).toMatchObject({ engine: { name: "hostler" }, passed_over: [] });
    expect(existsSync(host.path("asked"))).toBe(false);
  });

  test("where the spec wants the tool, what it does not tell is not seen", async () => {
    const wanted = () => askDisk(input({ engine: "tool" }), context, host.tree);
    const reasonOf = async () => (await wanted()).health.unseen[0]?.reason;
    expect(await reasonOf()).toBe("smartctl is not installed");
    installSmartctl("usage: smartctl", 1);
    expect(await reasonOf()).toBe("smartctl: its output is no JSON object");
    expect((await wanted()).engine.name).toBe("smartctl");
    installSmartctl(answer);
    expect((await wanted()).health).toMatchObject({ protocol: "ata", healthy: true });
  });

  test.each<[string, object | string, number, string]>([
    [
      "it cannot ask",
      { ...answer, smartctl: { exit_status: 2, messages: [refusedByIt] } },
      2,
      "smartctl: Smartctl open failed",
    ],
    ["it prints no JSON", "usage: smartctl", 1, "smartctl: its output is no JSON object"],
    ["it tells no verdict", { ...answer, smart_status: {} }, 4, "smartctl: it tells no verdict"],
    [
      "it never stops printing",
      `"${"x".repeat(5 * 1024 ** 2)}"`,
      0,
      "smartctl: it prints more than 4194304 bytes",
    ],
  ])("%s: then by ourselves, and it is told", async (_name, output, status, passedOver) => {
    installSmartctl(output, status);
    const report = await askDisk(input(), context, host.tree);
    expect(report.engine.name).toBe("hostler");
    expect(report.passed_over).toEqual([passedOver]);
  });

  test.each([
    ["virtio", "vda", "virtio disks have no SMART"],
    ["mmc", "mmcblk0", "cards have no SMART"],
    ["other", "xvda", "nobody knows how to ask a disk that is called xvda"],
  ] as const)(
    "%s: no smartctl is asked, and it is not seen by its name",
    async (transport, name, reason) => {
      installSmartctl(answer);
      host.add(name, { serial: "S2", size: SIZE });
      const disk = { name, serial: "S2", size_bytes: SIZE };
      const report = await askDisk(input({ disk, transport }), context, host.tree);
      expect(report.health).toMatchObject({
        protocol: "none",
        healthy: null,
        unseen: [{ property: "disk.health", reason }],
      });
    },
  );

  test("another disk under its name is refused", async () => {
    installSmartctl(answer);
    const disk = { name: "sda", serial: "S9", size_bytes: SIZE };
    const refusal = await rejectionOf(askDisk(input({ disk }), context, host.tree));
    expect(String(refusal)).toContain("Expected under sda the disk S9");
  });
});

skipUnless("a self-test", loopDevices, () => {
  const disk = (states: ReturnType<AskedDisk["state"]>[], refusal?: string): AskedDisk => ({
    health: () => {
      throw new Error("nobody asks");
    },
    start: () => refusal,
    state: () => states.shift() ?? { kind: "ended" },
  });
  const short = { self_test: "short", self_test_most_s: 10 } as const;

  test("to its end", async () => {
    const running = { kind: "running", percent: 50 } as const;
    expect(await runSelfTest(disk([running]), short, context)).toBeUndefined();
  });

  test.each<[string, AskedDisk, Partial<SmartInput>, string]>([
    ["refused", disk([], "no"), {}, "it cannot be run: no"],
    [
      "too long",
      disk([{ kind: "running", percent: 10 }]),
      { self_test_most_s: 0 },
      "it is at 10 %, and the time is over",
    ],
    [
      "not told of",
      disk([{ kind: "unknown", reason: "no log" }]),
      {},
      "it was begun, and is not told of: no log",
    ],
  ])("%s", async (_name, asked, given, reason) => {
    expect(await runSelfTest(asked, { ...short, ...given }, context)).toBe(reason);
  });
});
