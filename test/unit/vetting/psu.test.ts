import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { askDriver, askSupplies, askTool } from "../../../src/vetting/perform/tasks/psu.ts";
import { psu } from "../../../src/vetting/stages/psu.ts";
import type { PsuReport } from "../../../src/vetting/tasks/psu.ts";
import { discreteSensor } from "../../support/hardware/ipmitool-words.ts";
import { writeTool } from "../../support/hardware/nvidia-tools.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { hostInventory, judged, stageContext, told } from "../../support/vetting-stage.ts";

describe("the task psu", () => {
  const signal = new AbortController().signal;
  const well = discreteSensor("PS1", "10.1", ["Presence detected"]);

  test("asks ipmitool for supplies and for the redundancy of their unit", async () => {
    using folder = temporaryFolder();
    const unit = discreteSensor("Pwr Unit", "21.1", ["Power off/down"]);
    const body = `case "$*" in
*Supply*) echo "${discreteSensor("PS1 Status", "10.1", ["Presence detected"])}" ;;
*Unit*) echo "${unit}${discreteSensor("R", "21.2", ["Redundancy Lost"])}" ;;
-V) echo "ipmitool version 1.8.19" ;;
esac`;
    expect(await askTool(writeTool(folder, "ipmitool", body), signal)).toEqual({
      engine: { name: "ipmitool", version: "1.8.19" },
      refusal: null,
      sensors: [
        { name: "PS1 Status", entity: "10.1", states: ["present"] },
        { name: "R", entity: "21.2", states: ["redundancy-lost"] },
      ],
      unread: [],
    });
  });

  test("leaves an ipmitool that fails, and a driver that is not there", async () => {
    using folder = temporaryFolder();
    const tool = writeTool(folder, "ipmitool", "echo no BMC >&2; exit 1");
    expect(await askTool(tool, signal)).toEqual({ refusal: "ipmitool ended with 1: no BMC" });
    expect(askDriver(folder.file("ipmi0"))).toEqual({
      engine: null,
      refusal: `open ${folder.file("ipmi0")}: No such file or directory (ENOENT)`,
      sensors: [],
      unread: [],
    });
  });

  test.each([
    // What ipmitool says, whom the spec wants; who was asked, and what is said of it.
    [`echo '${well}'`, "default", "ipmitool", null, []],
    [`echo '${well}'`, "tool", "ipmitool", null, []],
    [`echo '${well}'`, "own", null, "ipmi0: No such file", []],
    ["echo no BMC >&2; exit 1", "tool", null, "ipmitool ended with 1: no BMC", []],
    [
      "echo no BMC >&2; exit 1",
      ...(["default", null, "ipmi0: No such file"] as const),
      ["ipmitool ended with 1: no BMC; asking the driver"],
    ],
    [null, "tool", null, "ipmitool is not installed", []],
    [null, "default", null, "ipmi0: No such file", []],
  ] as const)("with an ipmitool that does %j and the engine %s", async (body, engine, ...then) => {
    using folder = temporaryFolder();
    const [asked, refusal, said] = then;
    const tool = body === null ? null : writeTool(folder, "ipmitool", body);
    const lines: unknown[] = [];
    const found = await askSupplies({ device: folder.file("ipmi0"), engine }, tool, {
      signal,
      tell: (line) => lines.push(line),
    });
    expect(found.engine?.name ?? null).toBe(asked);
    if (refusal === null) expect(found.refusal).toBeNull();
    else expect(found.refusal).toContain(refusal);
    expect(lines).toMatchObject(said.map((text) => ({ kind: "log", level: "warn", text })));
  });

  test("a device that is no service processor's is told", () => {
    using folder = temporaryFolder();
    writeFileSync(folder.file("ipmi0"), "");
    expect(askDriver(folder.file("ipmi0")).refusal).toContain("ENOTTY");
  });
});

type Sensor = PsuReport["sensors"][number];
const sensor = (entity: string, ...states: Sensor["states"]): Sensor => ({
  name: `PS${entity.split(".")[1]}`,
  entity,
  states,
});
const report = (parts: Partial<PsuReport>): PsuReport => ({
  engine: { name: "hostler", version: null },
  refusal: null,
  sensors: [],
  unread: [],
  ...parts,
});
const supply = (locator: string, present = true) => ({
  ...{ locator, present, manufacturer: null, model: null, serial: null, most_watts: 800 },
  source: "smbios" as const,
});
const noController: PsuReport = {
  ...report({ refusal: "open /dev/ipmi0: No such file or directory (ENOENT)" }),
  engine: null,
};

function judge(
  settings: NonNullable<Parameters<typeof stageContext>[0]>["PSU"],
  found: PsuReport,
  supplies: ReturnType<typeof supply>[] = [],
) {
  const context = stageContext(settings === undefined ? {} : { PSU: settings }, {
    inventory: hostInventory({ power_supplies: supplies }),
  });
  return judged(psu, context, () => ({ kind: "report", report: found }));
}

describe("the stage PSU", () => {
  test("with two that are well and stand in for each other passes", () => {
    const sensors = [
      sensor("10.1", "present"),
      sensor("10.2", "present", "inactive"),
      { name: "Redundancy", entity: "19.1", states: ["fully-redundant" as const] },
    ];
    const result = judge({ expected: 2, redundancy: true }, report({ sensors }));
    expect(result.outcome).toBe("PASS");
    expect(told(result)).toEqual([
      "PASS psu-count host",
      "PASS psu-well power supply PS1",
      "PASS psu-well power supply PS2",
      "PASS psu-redundancy Redundancy",
    ]);
    expect(result.coverage).toEqual([
      { component: "host", unit: "sensors", covered: 3, total: 3, least: 1 },
    ]);
    expect(result.engines).toEqual([{ task: "psu", engine: "hostler", version: null }]);
  });

  test.each<[Sensor["states"], string]>([
    [["present", "failure"], "FAIL psu-failed power supply PS1"],
    [["present", "predictive-failure"], "FAIL psu-failing power supply PS1"],
    [["present", "input-lost"], "FAIL psu-input-lost power supply PS1"],
    [["present", "input-lost-or-out-of-range"], "FAIL psu-input-lost power supply PS1"],
    [["present", "input-out-of-range"], "FAIL psu-input-wrong power supply PS1"],
    [["present", "configuration-error"], "FAIL psu-mismatch power supply PS1"],
    [["critical"], "FAIL psu-critical power supply PS1"],
    [["non-recoverable"], "FAIL psu-critical power supply PS1"],
    [["non-critical"], "WARN psu-threshold power supply PS1"],
    [["absent"], "WARN psu-absent power supply PS1"],
  ])("of one that is %j", (states, expected) => {
    const result = judge({}, report({ sensors: [sensor("10.1", ...states)] }));
    expect(told(result)).toContain(expected);
    expect(result.outcome).toBe(expected.split(" ", 1)[0] as typeof result.outcome);
  });

  test("that tells thresholds alone, none of which is crossed, was looked at", () => {
    const result = judge({}, report({ sensors: [sensor("10.1"), sensor("10.2")] }));
    expect(result.outcome).toBe("PASS");
    expect(result.findings.at(-1)?.message).toBe("PS2: none of its sensors is over a threshold");
  });

  test("sensors of one supply belong together", () => {
    const sensors = [
      sensor("10.1", "present"),
      { ...sensor("10.1", "input-lost"), name: "PS1 AC" },
    ];
    expect(told(judge({ expected: 1 }, report({ sensors })))).toEqual([
      "FAIL psu-input-lost power supply PS1",
      "SKIP not-seen host",
      "PASS psu-count host",
    ]);
  });

  test.each([
    [2, 1],
    [1, 2],
    [0, 1],
  ])("with %d expected and %d found fails", (expected, found) => {
    const sensors = Array.from({ length: found }, (_, at) => sensor(`10.${at + 1}`, "present"));
    const result = judge({ expected }, report({ sensors }));
    expect(result.outcome).toBe("FAIL");
    expect(told(result)[0]).toBe("FAIL psu-count host");
  });

  test("one that is pulled out is no supply", () => {
    const sensors = [sensor("10.1", "present"), sensor("10.2", "absent")];
    const result = judge({ expected: 2 }, report({ sensors }));
    expect(result.outcome).toBe("FAIL");
    expect(result.findings[0]?.found).toBe("1");
  });

  test("none expected and none there is SKIP, and nothing there never passes", () => {
    expect(judge({ expected: 0 }, report({})).outcome).toBe("SKIP");
    expect(judge({}, report({})).outcome).toBe("SKIP");
    expect(told(judge({}, noController))).toContain("SKIP no-power-supply host");
  });

  test("without a controller SMBIOS's are counted, and their state is not seen", () => {
    const two = [supply("PSU 1"), supply("PSU 2"), supply("PSU 3", false)];
    const counted = judge({ expected: 2 }, noController, two);
    expect(counted.outcome).toBe("PASS");
    expect(told(counted)).toEqual([
      "SKIP not-seen host",
      "SKIP not-seen host",
      "PASS psu-count host",
    ]);
    expect(counted.summary).toBe("2 power supplies, their state was not seen");
    expect(judge({ expected: 3 }, noController, two).outcome).toBe("FAIL");
    const required = judge({ expected: 2, required: ["psu.state"] }, noController, two);
    expect(required.outcome).toBe("FAIL");
    expect(told(required)[0]).toBe("FAIL required-not-seen host");
  });

  test.each([
    ["redundancy-lost", true, "FAIL"],
    ["redundancy-degraded", true, "FAIL"],
    ["not-redundant-sufficient", false, "WARN"],
    ["not-redundant-insufficient", false, "WARN"],
    ["fully-redundant", false, "PASS"],
  ] as const)("redundancy that is %s, wanted: %j, is %s", (state, redundancy, outcome) => {
    const sensors = [sensor("10.1", "present"), { ...sensor("19.1", state), name: "R" }];
    expect(judge({ redundancy }, report({ sensors })).outcome).toBe(outcome);
  });

  test("redundancy that is wanted, and that nobody tells of, fails", () => {
    const result = judge({ redundancy: true }, report({ sensors: [sensor("10.1", "present")] }));
    expect(told(result)[0]).toBe("FAIL required-not-seen host");
  });

  test("a sensor that was not read is too little looked at, and no PASS", () => {
    const unread = [{ name: "PS2", reason: "the controller does not scan it" }];
    const result = judge({}, report({ sensors: [sensor("10.1", "present")], unread }));
    expect(result.outcome).toBe("WARN");
    expect(told(result)).toContain("WARN sensor-unread PS2");
    expect(told(result)).toContain("WARN coverage host");
  });

  test("that is left out, or whose task dies, does not pass", () => {
    const left = stageContext({ PSU: { enabled: false } });
    expect(psu.plan(left)).toEqual([]);
    expect(judged(psu, left, () => ({ kind: "cancelled" })).outcome).toBe("SKIP");
    const stuck = { kind: "stuck", stack: "ipmi_wait", wait: "ipmi" } as const;
    const died = judged(psu, stageContext(), () => stuck);
    expect(died.outcome).toBe("ERROR");
    expect(died.evidence).toEqual([{ name: "stack", component: "host", text: "ipmi_wait" }]);
  });
});
