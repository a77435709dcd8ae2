import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import type { Inventory } from "../../../src/hardware/inventory.ts";
import type { TaskEnding } from "../../../src/vetting/protocol-task.ts";
import { network } from "../../../src/vetting/stages/network.ts";
import type { TaskPlan } from "../../../src/vetting/stages/stage.ts";
import {
  type LinkInput,
  type LinkReport,
  linkInputSchema,
  type Throughput,
} from "../../../src/vetting/tasks/link.ts";
import { PAIRS_TASK } from "../../../src/vetting/tasks/pairs.ts";
import { hostInventory, judged, stageContext, told } from "../../support/vetting-stage.ts";

const card = (name: string, mac: string): Inventory["network"][number] => ({
  ...{ name, mac, driver: "e1000e", firmware: null, pci: null, carrier: null },
  ...{ speed_mbps: null, duplex: null, most_mtu: null, numa_node: null },
});
const cards = [card("eth0", "52:54:00:00:00:01"), card("eth1", "52:54:00:00:00:02")];
const inventory = hostInventory({ network: cards });
const networkTest = { host: "192.0.2.1", port: 5201, run: 7, key: "0".repeat(32) };
const here = { inventory, networkTest };
const context = stageContext({ Network: { pair_frames: 0 } }, here);

const flow = (mbps: number) => ({ bytes: (mbps * 1e6) / 8, seconds: 1 });
const measured = (up: number, down = up): Throughput => ({
  ...{ kind: "measured", up: flow(up), down: flow(down) },
  ...{ corrupted: 0, address: "192.0.2.7" },
  engine: { name: "hostler", version: "0.1.0" },
});
const noPairs: TaskEnding = { kind: "report", report: { pairs: [] } };
const byTool = {
  ...measured(940),
  ...{ corrupted: null, engine: { name: "iperf3", version: "3.12" } },
} as Throughput;
const linked = (plan: TaskPlan, parts: Partial<LinkReport> = {}): TaskEnding => {
  if (plan.task === PAIRS_TASK) return noPairs;
  const { name, mac } = plan.input as LinkInput;
  const report: LinkReport = {
    ...{ name, mac, brought_up: false, carrier: true, waited_s: 0 },
    ...{ speed_mbps: 1_000, duplex: "full", carrier_changes: 0, errors: [] },
    throughput: measured(940),
    ...parts,
  };
  return { kind: "report", report };
};
/** All well, but eth1. */
const but =
  (parts: Partial<LinkReport>) =>
  (plan: TaskPlan): TaskEnding =>
    linked(plan, plan.component === "eth1" ? parts : {});

describe("the plan of Network", () => {
  test("a child for each card, side by side, each with time for the turns of all", () => {
    const plan = network.plan(context);
    expect(plan.map(({ id, group }) => `${group} ${id}`)).toEqual(["0 link/eth0", "0 link/eth1"]);
    for (const { input, deadline } of plan) {
      const { turn_wait_s, duration_s, carrier_wait_s, test: by } = v.parse(linkInputSchema, input);
      expect(by).toEqual(networkTest);
      expect(turn_wait_s + carrier_wait_s + 2 * duration_s).toBeLessThan(deadline / 1_000);
    }
  });

  test("nothing where the stage is off", () => {
    expect(network.plan(stageContext({ Network: { enabled: false } }, here))).toEqual([]);
    expect(network.plan(stageContext({}, { inventory: undefined }))).toEqual([]);
  });
});

describe("the judge of Network", () => {
  test("cards that are well pass, with links and figures", () => {
    const found = judged(network, context, (plan) => linked(plan));
    expect(found.outcome).toBe("PASS");
    expect(told(found)).toEqual(["PASS link-verified eth0", "PASS link-verified eth1"]);
    expect(found.coverage).toMatchObject([{ unit: "links", covered: 2, total: 2, least: 1 }]);
    expect(
      found.measurements.map(({ name, component, value }) => `${component} ${name} ${value}`),
    ).toEqual([
      ...["eth0 link-speed 1000", "eth0 throughput-up 940", "eth0 throughput-down 940"],
      ...["eth1 link-speed 1000", "eth1 throughput-up 940", "eth1 throughput-down 940"],
    ]);
  });

  const unreachable: Throughput = { kind: "not-seen", reason: "it has no address" };
  const cases: readonly [string, Partial<LinkReport>, object, string, string][] = [
    [
      "no carrier, of a card that nobody named",
      { carrier: false, speed_mbps: null, duplex: null, throughput: unreachable },
      {},
      "WARN",
      "SKIP not-seen eth1",
    ],
    [
      "no carrier, where the spec says a speed",
      { carrier: false, speed_mbps: null, duplex: null, throughput: unreachable },
      { speeds: [{ mac: "52:54:00:00:00:02", mbps: 1_000 }] },
      "FAIL",
      "FAIL no-carrier eth1",
    ],
    [
      "a tenth of its speed",
      { speed_mbps: 100 },
      { speeds: [{ mac: "52:54:00:00:00:02", mbps: 1_000 }] },
      "FAIL",
      "FAIL speed eth1",
    ],
    [
      "its speed",
      {},
      { speeds: [{ mac: "52:54:00:00:00:02", mbps: 1_000 }] },
      "PASS",
      "PASS speed eth1",
    ],
    ["a driver that tells no speed", { speed_mbps: null }, {}, "PASS", "SKIP not-seen eth1"],
    [
      "a driver that tells no speed, where the spec says one",
      { speed_mbps: null },
      { speeds: [{ mac: "52:54:00:00:00:02", mbps: 1_000 }] },
      "FAIL",
      "FAIL required-not-seen eth1",
    ],
    ["half duplex", { duplex: "half" }, {}, "FAIL", "FAIL half-duplex eth1"],
    ["no duplex", { duplex: null }, {}, "PASS", "SKIP not-seen eth1"],
    [
      "a card that is not there",
      {},
      { speeds: [{ mac: "52:54:00:00:00:99", mbps: 1_000 }] },
      "FAIL",
      "FAIL card-missing 52:54:00:00:00:99",
    ],
    ["flaps", { carrier_changes: 2 }, {}, "FAIL", "FAIL carrier-changes eth1"],
    ["flaps that are allowed", { carrier_changes: 2 }, { carrier_changes: 2 }, "PASS", "PASS link"],
    ["nobody counts flaps", { carrier_changes: null }, {}, "PASS", "SKIP not-seen eth1"],
    [
      "errors",
      { errors: [{ name: "rx_crc_errors", rose: 3 }] },
      {},
      "FAIL",
      "FAIL network-errors eth1",
    ],
    ["no address", { throughput: unreachable }, {}, "WARN", "SKIP not-seen eth1"],
    [
      "no address, where it is required",
      { throughput: unreachable },
      { required: ["network.throughput"] },
      "FAIL",
      "FAIL required-not-seen eth1",
    ],
    [
      "a server that died",
      { throughput: { kind: "failed", reason: "the connection ended" } },
      {},
      "ERROR",
      "ERROR throughput-failed eth1",
    ],
    [
      "a test that broke with the carrier",
      { throughput: { kind: "failed", reason: "the connection broke" }, carrier_changes: 1 },
      { carrier_changes: 2 },
      "FAIL",
      "FAIL throughput eth1",
    ],
    ["a tool that looks at no byte", { throughput: byTool }, {}, "PASS", "SKIP not-seen eth1"],
    [
      "a tool that looks at no byte, where that is required",
      { throughput: byTool },
      { required: ["network.content"] },
      "FAIL",
      "FAIL required-not-seen eth1",
    ],
    [
      "changed bytes",
      { throughput: { ...measured(940), corrupted: 1 } as Throughput },
      {},
      "FAIL",
      "FAIL corrupted eth1",
    ],
    ["nothing came", { throughput: measured(0, 940) }, {}, "FAIL", "FAIL throughput eth1"],
    [
      "too little down",
      { throughput: measured(940, 400) },
      { throughput_least: 0.9 },
      "FAIL",
      "FAIL throughput eth1",
    ],
    [
      "a part of an unknown speed",
      { speed_mbps: null },
      { throughput_least: 0.9 },
      "PASS",
      "SKIP not-seen eth1",
    ],
    ["enough", {}, { throughput_least: 0.9 }, "PASS", "PASS link-verified eth1"],
  ];
  test.each([...cases])("%s", (_, parts, settings, outcome, line) => {
    const found = judged(
      network,
      stageContext({ Network: { pair_frames: 0, ...settings } }, here),
      but(parts),
    );
    expect(told(found).some((one) => one.startsWith(line))).toBe(true);
    expect(found.outcome).toBe(outcome as typeof found.outcome);
  });

  const delta = (source: "carrier" | "network-errors", component = "eth1") => ({
    deltas: [{ source, component, before: 3, after: 5 }],
  });

  test("what the sampler saw counts, but for the changes that bringing a card up makes", () => {
    const of = (parts: Partial<LinkReport>, world: object) =>
      judged(network, context, but(parts), world).outcome;
    expect(of({}, delta("carrier"))).toBe("FAIL");
    expect(of({ brought_up: true }, delta("carrier"))).toBe("PASS");
    expect(of({}, delta("carrier", "docker0"))).toBe("PASS");
    expect(of({}, delta("network-errors"))).toBe("FAIL");
  });

  test("a child that died is an ERROR, and its card is not covered", () => {
    const found = judged(network, context, (plan) =>
      plan.component === "eth1" ? { kind: "died", how: "signal 11", lastWords: "x" } : linked(plan),
    );
    expect(told(found)).toEqual([
      ...["ERROR task-died eth1", "WARN coverage host", "PASS link-verified eth0"],
    ]);
    expect(found.evidence).toEqual([{ name: "last-output", component: "eth1", text: "x" }]);
  });

  test("a host without a card is never PASS", () => {
    const none = stageContext({}, { inventory: hostInventory() });
    expect(judged(network, none, (plan) => linked(plan)).outcome).toBe("SKIP");
  });
});
