/** What the confiner is told and what it answers: the plan, its limits, its reports. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import {
  confinePlanSchema,
  describeIssue,
  HIGHEST_USER,
  MOST_DESCRIPTORS,
  MOST_DEVICES,
  MOST_WRITABLE,
} from "../../../src/vm/confine-plan.ts";
import { confinePlanOf, parseReports, type VmmStart } from "../../../src/vm/perform/vmm-process.ts";

const plan = {
  user: 2_100_000_000,
  group: 2_100_000_000,
  limits: { core: { soft: 0, hard: 0 }, memlock: { soft: null, hard: null } },
  oom_score: 0,
  devices: ["/dev/null", "/dev/net/tun", "/dev/mapper/a-b"],
  writable: ["/run/hostler/vm/one"],
  folder: "/",
  umask: 0o077,
  optional: ["cgroup", "mounts"],
  arguments: 1,
  descriptors: [3],
  report: 4,
};

const many = (count: number, make: (index: number) => unknown) =>
  Array.from({ length: count }, (_, index) => make(index));

describe("a plan", () => {
  test("with and without a cgroup is taken as it is", () => {
    expect(v.parse(confinePlanSchema, plan) as unknown).toEqual(plan);
    const cgroup = "/sys/fs/cgroup/hostler/one";
    expect(v.parse(confinePlanSchema, { ...plan, cgroup }).cgroup).toBe(cgroup);
  });

  test("may fill its limits, and not go over them", () => {
    const full = {
      ...plan,
      devices: many(MOST_DEVICES, (index) => `/dev/${index}`),
      writable: many(MOST_WRITABLE, (index) => `/run/${index}`),
      descriptors: many(MOST_DESCRIPTORS, (index) => index + 3),
    };
    expect(v.safeParse(confinePlanSchema, full).success).toBe(true);
    for (const [name, list] of Object.entries(full)) {
      if (!Array.isArray(list) || name === "optional") continue;
      const result = v.safeParse(confinePlanSchema, { ...full, [name]: [...list, list[0]] });
      expect(result.issues?.map(describeIssue).join()).toMatch(
        new RegExp(`^${name}: .*${list.length}`),
      );
    }
  });

  const wrong: readonly (readonly [key: string, value: unknown])[] = [
    ["user", 0],
    ["user", HIGHEST_USER + 1],
    ["user", 1.5],
    ["group", 0],
    ["group", -1],
    ["cgroup", "relative"],
    ["limits.core.soft", { core: { soft: -1, hard: 0 } }],
    ["limits.nonsense", { nonsense: { soft: 0, hard: 0 } }],
    ["oom_score", 1001],
    ["oom_score", -1001],
    ["devices.0", ["/etc/passwd"]],
    ["devices.0", ["/dev/../etc/passwd"]],
    ["devices.0", ["/dev/net/"]],
    ["devices.0", ["/dev/a\0b"]],
    ["writable.0", ["run"]],
    ["writable.0", ["/run/.."]],
    ["writable.0", ["/run/./a"]],
    ["folder", ""],
    ["umask", 0o1000],
    ["optional.0", ["no-new-privileges"]],
    ["arguments", 0],
    ["descriptors.0", [2]],
    ["report", 2],
    ["more", true],
  ];
  for (const [key, value] of wrong) {
    test(`with ${key} of ${JSON.stringify(value)} is refused by its key`, () => {
      const name = key.split(".")[0] ?? "";
      const result = v.safeParse(confinePlanSchema, { ...plan, [name]: value });
      expect(result.issues?.map(describeIssue)[0]).toStartWith(`${key}: `);
    });
  }

  test("that is none is refused as a whole", () => {
    const result = v.safeParse(confinePlanSchema, undefined);
    expect(result.issues?.map(describeIssue)[0]).toStartWith("the plan: ");
  });
});

describe("the plan of a start", () => {
  const start: VmmStart = {
    invocation: "0".repeat(32),
    plan: {
      program: "/usr/bin/vmm",
      arguments: ["-a", "b"],
      descriptors: [{ number: 3, role: "memory" }],
      devices: ["/dev/kvm"],
    },
    environment: ["A=b"],
    user: 7,
    group: 8,
    cgroup: undefined,
    limits: {},
    outOfMemoryScore: -5,
    writable: ["/run/one"],
    descriptors: [
      { source: 20, target: 3 },
      { source: 21, target: 2 },
    ],
    optional: ["cgroup"],
  };

  test("has the report above its descriptors, and not those that every program has", () => {
    expect(confinePlanOf(start)).toEqual({
      user: 7,
      group: 8,
      limits: {},
      oom_score: -5,
      devices: ["/dev/kvm"],
      writable: ["/run/one"],
      folder: "/",
      umask: 0o077,
      optional: ["cgroup"],
      arguments: 3,
      descriptors: [3],
      report: 4,
    });
  });

  test("that gives nothing for a descriptor of the driver's plan is a bug", () => {
    const without = { ...start, descriptors: [] };
    expect(() => confinePlanOf(without)).toThrow("nothing is given for descriptor 3 (memory)");
  });
});

describe("reports", () => {
  const leftOut = { kind: "left-out", stage: "cgroup", message: "not there", code: "ENOENT" };
  const failed = { kind: "failed", stage: "exec", message: "Cannot start it" };
  const { kind: _left, ...part } = leftOut;
  const { kind: _failed, ...failure } = failed;

  test("of nothing say that all was done", () => {
    expect(parseReports("")).toEqual({ leftOut: [], failure: undefined });
  });

  test("tell what was left out, and the failure", () => {
    const text = `${JSON.stringify(leftOut)}\n${JSON.stringify(failed)}\n`;
    expect(parseReports(text)).toEqual({
      leftOut: [part],
      failure: { ...failure, code: undefined },
    } as unknown as ReturnType<typeof parseReports>);
  });

  for (const text of ["Segmentation fault", '{"kind":"failed"}', '{"kind":"left-out","sta', "[]"]) {
    test(`of ${text} are a failure in the confiner's own words`, () => {
      expect(parseReports(text).failure).toEqual({
        stage: "confine",
        message: `the confiner failed: ${text}`,
        code: undefined,
      });
    });
  }
});
