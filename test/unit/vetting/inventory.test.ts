import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import type { Inventory } from "../../../src/hardware/inventory.ts";
import { readInventory } from "../../../src/hardware/read-inventory.ts";
import { stageSettingsSchema } from "../../../src/vetting/protocol-spec.ts";
import type { TaskEnding } from "../../../src/vetting/protocol-task.ts";
import { inventory as inventoryStage } from "../../../src/vetting/stages/inventory.ts";
import {
  type FixtureHostOptions,
  fixtureHost,
  healthyHost,
} from "../../support/hardware/fixture-host.ts";
import { judged, stageContext, told } from "../../support/vetting-stage.ts";

function inventoryOf(options: FixtureHostOptions): Inventory {
  using host = fixtureHost(options);
  return readInventory(host.tree);
}

const judgeInventory = (report: unknown, required: string[] = []) =>
  judged(inventoryStage, stageContext({ Inventory: { required } }), () => ({
    kind: "report",
    report,
  }));

describe("the stage Inventory", () => {
  test("is one task, with the deadline of the spec", () => {
    const context = stageContext({ Inventory: { deadline: { base_s: 7 } } });
    expect(inventoryStage.plan(context)).toMatchObject([{ task: "inventory", deadline: 7_000 }]);
    expect(v.parse(stageSettingsSchema, {}).Inventory.deadline.base_s).toBe(120);
  });

  test("of a host that is well passes, and carries the inventory", () => {
    const inventory = inventoryOf(healthyHost);
    const report = judgeInventory(inventory);
    expect(report.outcome).toBe("PASS");
    expect(report.inventory).toEqual(inventory);
    expect(report.summary).toBe(
      "2 processors (Fixture Processor 9000), 16 threads, 512 GiB in 8 modules, 4 disks, " +
        "2 network cards, 2 graphics cards, 2 power supplies",
    );
    expect(told(report)).toEqual(["SKIP not-seen host", "PASS inventory host"]);
  });

  test("names what was not seen once, and fails where the spec requires it", () => {
    const disks = ["vda", "vdb"].map((name, index) => ({
      name,
      kind: "virtio" as const,
      serial: null,
      pci: `0000:00:0${index + 1}.0`,
    }));
    const inventory = inventoryOf({ ...healthyHost, disks });
    const skipped = judgeInventory(inventory);
    expect(skipped.outcome).toBe("PASS");
    const serials = skipped.findings.filter(({ expected }) => expected === "disks[*].serial");
    expect(serials.map(({ message }) => message)).toEqual([
      "disks[*].serial was not seen: ENOENT (of vda, vdb)",
    ]);
    const required = judgeInventory(inventory, ["disks[*].serial"]);
    expect(required.outcome).toBe("FAIL");
    expect(told(required)[0]).toBe("FAIL required-not-seen host");
  });

  test.each<[string, FixtureHostOptions, string, string]>([
    [
      "a processor that failed its self-test",
      {
        smbios: {
          sockets: [
            { socket: "CPU1", cores: 4, threads: 8 },
            { socket: "CPU2", cores: 4, threads: 8, status: 3 },
          ],
        },
        processors: { packages: 1, cores: 4, threadsPerCore: 2 },
      },
      "FAIL",
      "FAIL processor-disabled processor CPU2",
    ],
    [
      "a processor that somebody switched off",
      {
        smbios: { sockets: [{ socket: "CPU2", cores: 4, threads: 8, status: 2 }] },
      },
      "WARN",
      "WARN processor-disabled processor CPU2",
    ],
    [
      "fewer processors than sockets",
      {
        smbios: {
          sockets: [
            { socket: "CPU1", cores: 4, threads: 8 },
            { socket: "CPU2", cores: 4, threads: 8 },
          ],
        },
        processors: { packages: 1, cores: 4, threadsPerCore: 2 },
      },
      "WARN",
      "WARN processors-disagree host",
    ],
    [
      "a module that is there and gives no memory",
      { ...healthyHost, memoryKibibytes: 460_000_000 },
      "WARN",
      "WARN memory-missing host",
    ],
    [
      "two disks of one serial",
      {
        disks: [
          { name: "sda", kind: "sas", serial: "X1" },
          { name: "sdb", kind: "sas", serial: "X1" },
        ],
      },
      "WARN",
      "WARN serial-not-unique disk X1",
    ],
    [
      "a table that leads beyond its end",
      { smbios: new Uint8Array([1, 200, 0, 0, 0]) },
      "WARN",
      "WARN smbios-fault firmware",
    ],
  ])("sees %s", (_, options, outcome, code) => {
    const report = judgeInventory(inventoryOf(options));
    expect(report.outcome).toBe(outcome as typeof report.outcome);
    expect(told(report)).toContain(code);
  });

  test("of a host of which nothing was seen is an ERROR, and never PASS", () => {
    using host = fixtureHost({ smbios: null });
    host.remove("sys");
    host.remove("proc");
    const report = judgeInventory(readInventory(host.tree));
    expect(report.outcome).toBe("ERROR");
    expect(told(report)[0]).toBe("ERROR nothing-found host");
  });

  test("that the spec leaves out is SKIP, and has no task", () => {
    const context = stageContext({ Inventory: { enabled: false } });
    expect(inventoryStage.plan(context)).toEqual([]);
    expect(judged(inventoryStage, context, () => ({ kind: "cancelled" })).outcome).toBe("SKIP");
  });

  test.each<[TaskEnding, string]>([
    [{ kind: "failure", message: "no" }, "ERROR"],
    [{ kind: "overdue", done: 0, total: 0 }, "ERROR"],
    [{ kind: "died", how: "signal SIGSEGV", lastWords: "" }, "ERROR"],
    [{ kind: "stuck", stack: "", wait: "" }, "ERROR"],
    [{ kind: "cancelled" }, "SKIP"],
    [{ kind: "report", report: { disks: "many" } }, "ERROR"],
  ])("whose task ended as %j is %s", (ending, outcome) => {
    const report = judged(inventoryStage, stageContext(), () => ending);
    expect(report.outcome).toBe(outcome as typeof report.outcome);
    expect(report.inventory).toBeUndefined();
  });
});
