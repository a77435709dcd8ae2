/** A rollout as it is typed. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import * as v from "valibot";
import {
  type RolloutFlags,
  readAmount,
  readLabels,
  readRollout,
  readWindow,
} from "../../../src/fleet/commands/rollout-words.ts";
import { fleetLimits } from "../../../src/fleet/protocol.ts";
import { operatorLimits, rolloutSpecSchema } from "../../../src/fleet/protocol-operator.ts";
import { hex } from "../../support/fleet-operator/device-life.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

const manifest = {
  ...{ format: 1, product: "hostler", version: "1.5.0", floor: "1.0.0" },
  builds: [{ architecture: "x64", libc: "glibc", digest: hex("b", 64), size: 100 }],
};

function flagsFor(text: string, change: Partial<RolloutFlags> = {}): RolloutFlags {
  const folder = temporaryFolder();
  const path = folder.file("manifest.json");
  writeFileSync(path, text);
  return {
    ...{ manifest: path, source: ["https://files.example/hostler"], rate: undefined },
    ...{ name: undefined, canaries: undefined, wave: [], soak: "0s", heartbeat: "10s" },
    ...{ "max-unavailable": "10%", failures: "0%", label: [], device: [], window: [] },
    ...change,
  };
}

const signed = JSON.stringify({ format: 1, signed: JSON.stringify(manifest), signatures: [] });

describe("a rollout", () => {
  test("is what was typed, with the manifest as it is", () => {
    const { name, spec } = readRollout(
      flagsFor(signed, {
        ...{ canaries: "5", wave: ["10%", "50%"], soak: "1h", rate: "1MiB" },
        ...{ label: ["site=lab"], device: ["box-1"], failures: "2.5%" },
        window: ["sat,sun 22:00-04:00"],
      }),
    );
    expect(name).toBe("1.5.0");
    expect(v.safeParse(rolloutSpecSchema, spec).success).toBe(true);
    expect(spec).toMatchObject({
      version: "1.5.0",
      builds: [{ architecture: "x64", libc: "glibc", digest: hex("b", 64) }],
      manifest: signed,
      rate: 1_048_576,
      waves: [
        { by: "count", count: 5 },
        { by: "percent", percent: 10 },
        { by: "percent", percent: 50 },
      ],
      soak_ms: 3_600_000,
      failures_percent: 2.5,
      select: { devices: ["box-1"], labels: { site: "lab" } },
      windows: [{ days: [0, 6], from: 1_320, to: 240 }],
    });
  });

  test.each([
    ["10s", undefined],
    ["1s", 1_000],
    ["2500ms", 2_500],
  ])("heard every %s is said to devices as %p", (heartbeat, heartbeat_ms) => {
    const { spec } = readRollout(flagsFor(signed, { heartbeat }));
    expect(spec.limits.heartbeat_ms).toBe(heartbeat_ms);
    expect("heartbeat_ms" in spec.limits).toBe(heartbeat_ms !== undefined);
  });

  test.each([
    ["noise", "noise"],
    ["without a version", JSON.stringify({ signed: "{}" })],
    ["that is not signed", JSON.stringify(manifest)],
    ["too large", JSON.stringify({ signed: "x".repeat(fleetLimits.manifestBytes) })],
  ])("a manifest %s is refused", (_name, text) => {
    expect(() => readRollout(flagsFor(text))).toThrow(/Cannot read the manifest/);
  });

  test.each([
    [{ source: [] }, "1 to 8 times --source"],
    [{ source: Array.from({ length: 9 }, () => "https://a.example") }, "received 9"],
    [{ source: ["ftp://a.example"] }, "after --source"],
    [{ source: ["https://"] }, "after --source"],
    [{ source: ["https://a.example/x?y=1"] }, "without ? and #"],
    [{ source: ["https://a.example/#x"] }, "without ? and #"],
    [{ source: ["https://a.example/?"] }, "without ? and #"],
    [{ source: ["https://bob:secret@a.example/"] }, "received one with them, on a.example"],
    [{ source: ["https://token@a.example/"] }, "without a user and password"],
    [{ device: ["box-1", "box-2", "box-1"] }, "received box-1 twice"],
    [{ rate: "10" }, "after --rate"],
    [{ canaries: "10%" }, "a number of devices after --canaries"],
    [{ wave: ["0"] }, "after --wave"],
    [{ wave: ["50%", "10%"] }, "waves that rise"],
    [{ wave: ["10%", "10%"] }, "received 10% after 10%"],
    [{ canaries: "5", wave: ["10%", "4"] }, "received 4 after 5"],
    [{ soak: "soon" }, "after --soak"],
    [{ soak: "169h" }, "at most 168h, after --soak, received 169h"],
    [{ heartbeat: "999ms" }, "Expected 1s to 10s after --heartbeat, received 999ms"],
    [{ heartbeat: "11s" }, "after --heartbeat"],
    [{ heartbeat: "often" }, "after --heartbeat"],
    [{ failures: "101%" }, "after --failures"],
    [{ label: ["site"] }, "after --label"],
    [{ window: ["someday 01:00-02:00"] }, "after --window"],
  ] as const)("%j is refused", (change, message) => {
    expect(() => readRollout(flagsFor(signed, change as Partial<RolloutFlags>))).toThrow(message);
  });
});

test.each(["0s", "168h"])("a soak of %s is one", (soak) => {
  expect(readRollout(flagsFor(signed, { soak })).spec.soak_ms).toBeLessThanOrEqual(
    operatorLimits.soak,
  );
});

test.each([
  ["5", { by: "count", count: 5 }],
  ["12.5%", { by: "percent", percent: 12.5 }],
] as const)("%s is an amount", (text, amount) => {
  expect(readAmount(text, "--wave")).toEqual(amount);
});

test.each(["0%", "101%", "1.5", "-1", "", "%"])("%j is no amount", (text) => {
  expect(() => readAmount(text, "--wave")).toThrow("after --wave");
});

test.each([
  ["daily 01:00-05:00", [0, 1, 2, 3, 4, 5, 6], 60, 300],
  ["mon-fri 22:30-24:00", [1, 2, 3, 4, 5], 1_350, 1_440],
  ["fri-mon 00:00-24:00", [0, 1, 5, 6], 0, 1_440],
  ["sun 22:00-00:00", [0], 1_320, 0],
] as const)("%s is a window", (text, days, from, to) => {
  expect(readWindow(text)).toEqual({ days: [...days], from, to });
});

test.each(["mon 25:00-26:00", "mon 10:60-11:00", "mon 10:00", "10:00-11:00", "mon-x 10:00-11:00"])(
  "%j is no window",
  (text) => {
    expect(() => readWindow(text)).toThrow("after --window");
  },
);

test.each(["daily 01:00-01:00", "daily 00:00-00:00", "mon 24:00-00:00", "mon 24:00-24:00"])(
  "%j is no time, and no whole day either",
  (text) => {
    expect(() => readWindow(text)).toThrow("an end that is not the begin after --window");
  },
);

test("labels: each once, and no more than there may be", () => {
  expect(readLabels(["a=1", "b=", "c=x=y"])).toEqual({ a: "1", b: "", c: "x=y" });
  expect(() => readLabels(["a=1", "a=2"])).toThrow("each label once");
  const many = Array.from({ length: fleetLimits.labels + 1 }, (_value, index) => `k${index}=v`);
  expect(() => readLabels(many)).toThrow(`at most ${fleetLimits.labels}`);
});
