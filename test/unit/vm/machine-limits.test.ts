/** Limits of a machine: what they may be, what is written for them, and where its cgroup is. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { placeOf } from "../../../src/vm/cgroup-place.ts";
import { linesOf, machineLimitsSchema, refuseLimits } from "../../../src/vm/machine-limits.ts";
import { vmSpecSchema } from "../../../src/vm/protocol.ts";

describe("what is written", () => {
  const told = (...given: Parameters<typeof linesOf>) =>
    linesOf(...given).map(
      ({ file, text, isDeclared }) => `${file} ${text}${isDeclared ? " *" : ""}`,
    );

  test("for what is declared, and for what is not", () => {
    expect(told({}, "8:0")).toEqual([
      "cpu.weight 100",
      "cpu.max max 100000",
      "memory.max max",
      "io.weight default 100",
      "pids.max max",
      "io.max 8:0 rbps=max wbps=max riops=max wiops=max",
    ]);
    const all = {
      ...{ cpuWeight: 50, cpuMaxPercent: 250, memoryMaxMb: 512, ioWeight: 10, pidsMax: 90 },
      ioMax: { readBytesPerSecond: 1, writeBytesPerSecond: 2, readsPerSecond: 3 },
    };
    expect(told(all, "8:0")).toEqual([
      "cpu.weight 50 *",
      "cpu.max 250000 100000 *",
      `memory.max ${512 * 1024 ** 2} *`,
      "io.weight default 10 *",
      "pids.max 90 *",
      "io.max 8:0 rbps=1 wbps=2 riops=3 wiops=max *",
    ]);
    expect(told({}, undefined).some((line) => line.startsWith("io.max"))).toBe(false);
  });
});

describe("limits that cannot be meant", () => {
  const machine = { memoryMebibytes: 512, processors: 4 };
  test.each([
    [{ memoryMaxMb: 639 }, "limits.memoryMaxMb: expected at least 640"],
    [{ pidsMax: 67 }, "limits.pidsMax: expected at least 68"],
    [{ memoryMaxMb: 640, pidsMax: 68 }, undefined],
    [{}, undefined],
  ])("%j", (limits, expected) => {
    const refusal = refuseLimits(limits, machine);
    if (expected === undefined) expect(refusal).toBeUndefined();
    else expect(refusal).toStartWith(expected);
  });

  test.each([
    [{ cpuWeight: 0 }],
    [{ cpuWeight: 10_001 }],
    [{ cpuMaxPercent: 0 }],
    [{ cpuMaxPercent: 1.5 }],
    [{ memoryMaxMb: 128 }],
    [{ ioWeight: -1 }],
    [{ ioMax: { readBytesPerSecond: 0 } }],
    [{ ioMax: { device: "8:0" } }],
    [{ pidsMax: 63 }],
    [{ memory: 1 }],
  ])("%j is refused where it is declared", (limits) => {
    expect(v.safeParse(machineLimitsSchema, limits).success).toBe(false);
  });

  test("less than the guest's own memory is refused where both are declared", () => {
    const spec = { name: "web", kernelPath: "/k", memoryMb: 512 };
    const isFine = (memoryMaxMb: number) =>
      v.safeParse(vmSpecSchema, { ...spec, limits: { memoryMaxMb } }).success;
    expect([isFine(639), isFine(640)]).toEqual([false, true]);
  });
});

describe("the machines' cgroup", () => {
  const mount = "/sys/fs/cgroup";
  const unit = "/system.slice/hostler-vm-worker.service";
  const at = (own: string | undefined, configured = "auto") => placeOf(configured, { mount, own });

  test("is beside the worker's own subgroup, where controllers may be given on", () => {
    expect(at(`${unit}/worker`)).toEqual({
      kind: "place",
      parent: `${mount}${unit}/machines`,
      base: `${mount}${unit}`,
      obstacle: undefined,
    });
    expect(at("/")).toMatchObject({ parent: `${mount}/machines`, obstacle: undefined });
  });

  test("is below the worker's group, without controllers where the worker is in that", () => {
    const place = at(unit);
    expect(place).toMatchObject({ parent: `${mount}${unit}/machines`, base: `${mount}${unit}` });
    expect(place.kind === "place" && place.obstacle).toContain("DelegateSubgroup=worker");
  });

  test("is where the configuration says", () => {
    const place = { parent: `${mount}/vms`, base: mount, obstacle: undefined };
    expect(at(unit, `${mount}/vms`)).toMatchObject(place);
    expect(at(unit, "/elsewhere/vms")).toMatchObject({ kind: "off" });
    expect(at(unit, "off")).toMatchObject({ kind: "off" });
  });

  test("is nowhere without cgroup v2, and outside of the namespace", () => {
    expect(placeOf("auto", { mount: undefined, own: undefined })).toMatchObject({
      reason: "cgroup v2 is not mounted",
    });
    expect(at(undefined)).toMatchObject({ kind: "off" });
    expect(at("/../other")).toMatchObject({ kind: "off" });
  });
});
