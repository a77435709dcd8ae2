/** Cards beside each other: which pairs are tried, and what of them is said. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import type { Inventory } from "../../../src/hardware/inventory.ts";
import { LEAST_FRAME, PairFrames } from "../../../src/vetting/perform/throughput/pair-frames.ts";
import type { TaskEnding } from "../../../src/vetting/protocol-task.ts";
import { network } from "../../../src/vetting/stages/network.ts";
import {
  PAIRS_TASK,
  type Pair,
  pairsInputSchema,
  pairsLimits,
} from "../../../src/vetting/tasks/pairs.ts";
import { hostInventory, judged, stageContext, told } from "../../support/vetting-stage.ts";

const card = (index: number): Inventory["network"][number] => ({
  ...{ name: `eth${index}`, mac: `52:54:00:00:00:${index.toString(16).padStart(2, "0")}` },
  ...{ driver: "e1000e", firmware: null, pci: null, carrier: null },
  ...{ speed_mbps: null, duplex: null, most_mtu: null, numa_node: null },
});
const cards = (count: number) => Array.from({ length: count }, (_, index) => card(index));
const contextOf = (count: number, settings: object = {}) =>
  stageContext({ Network: settings }, { inventory: hostInventory({ network: cards(count) }) });

const pair = (from: number, to: number, received = 256, given: Partial<Pair> = {}): Pair => ({
  ...{ from: `eth${from}`, to: `eth${to}`, sent: received === 0 ? 1 : 256, received, wrong: 0 },
  ...given,
});
const both = (one: number, other: number, received = 256) => [
  pair(one, other, received),
  pair(other, one, received),
];

/** Links that nobody answers on, and these pairs. */
function judge(count: number, pairs: readonly Pair[] | TaskEnding, settings: object = {}) {
  return judged(network, contextOf(count, settings), ({ task, component }) => {
    if (task === PAIRS_TASK) {
      return "kind" in pairs ? pairs : { kind: "report", report: { pairs } };
    }
    const { mac } = cards(count).find(({ name }) => name === component) ?? card(0);
    const report = {
      ...{ name: component, mac, brought_up: false, carrier: true, waited_s: 0 },
      ...{ speed_mbps: 1_000, duplex: "full", carrier_changes: 0, errors: [] },
      throughput: { kind: "not-seen", reason: "the orchestrator has no throughput test" },
    };
    return { kind: "report", report };
  });
}
const said = (report: ReturnType<typeof judge>) =>
  told(report).filter((line) => !line.startsWith("SKIP not-seen eth"));

describe("the plan", () => {
  const planned = (count: number, settings: object = {}) =>
    network.plan(contextOf(count, settings)).filter(({ task }) => task === PAIRS_TASK);

  test("one child for all, after the links", () => {
    const [plan] = planned(3);
    expect(plan).toMatchObject({ group: 1, component: "host" });
    const input = v.parse(pairsInputSchema, plan?.input);
    expect(input).toMatchObject({ frames: 256, carrier_wait_s: 15 });
    expect(input.cards.map(({ name }) => name)).toEqual(["eth0", "eth1", "eth2"]);
  });

  test("none for one card, and none where the spec wants none", () => {
    expect(planned(1)).toEqual([]);
    expect(planned(2, { pair_frames: 0 })).toEqual([]);
    expect(planned(2, { enabled: false })).toEqual([]);
  });

  test("cards over the limit are in no pair, and that is told", () => {
    const over = pairsLimits.cards + 1;
    const [plan] = planned(over);
    expect(v.parse(pairsInputSchema, plan?.input).cards).toHaveLength(pairsLimits.cards);
    const { findings } = judge(over, both(0, 1));
    expect(findings.map(({ message }) => message).join()).toContain("1 cards are over the 16");
  });

  test("a child that waits for every frame ends in its time", () => {
    const [plan] = planned(16);
    // 240 pairs, each with a window whose frames come half a second late.
    expect(plan?.deadline).toBeGreaterThan(240 * (256 / 8) * 500);
  });
});

describe("the judge", () => {
  test("pairs that carried all of it are links that were exercised, without a server", () => {
    const found = judge(2, both(0, 1));
    expect(said(found)).toEqual(["PASS pairs-verified host"]);
    expect(found.coverage).toMatchObject([{ unit: "links", covered: 2, total: 2 }]);
    expect(found.measurements).toContainEqual({
      ...{ name: "pair-frames", component: "eth1 to eth0", value: 256, unit: "frames" },
    });
    expect(found.engines).toContainEqual({ task: "pairs", engine: "hostler", version: null });
  });

  test("pairs with no way to each other are not seen, by name, and not covered", () => {
    const found = judge(3, [...both(0, 1), ...both(0, 2, 0), ...both(1, 2, 0)]);
    expect(said(found)).toEqual([
      "WARN coverage host",
      "SKIP not-seen host",
      "PASS pairs-verified host",
    ]);
    expect(found.coverage).toMatchObject([{ covered: 2, total: 3 }]);
    const reason = "2 of 3 pairs have no way to each other: eth0 and eth2, eth1 and eth2";
    expect(found.findings.map(({ message }) => message).join()).toContain(reason);
    const required = judge(3, both(0, 1, 0), { required: ["network.pairs"] });
    expect(said(required)).toContain("FAIL required-not-seen host");
  });

  test.each<[string, readonly Pair[], object, string]>([
    ["frames that were lost", [pair(0, 1, 255), pair(1, 0)], {}, "FAIL pair-lost eth0 to eth1"],
    ["one way alone", [pair(0, 1, 0), pair(1, 0)], {}, "FAIL pair-one-way eth0 to eth1"],
    [
      "other bytes",
      [pair(0, 1), pair(1, 0, 256, { wrong: 1 })],
      {},
      "FAIL pair-corrupted eth1 to eth0",
    ],
  ])("%s", (_name, pairs, settings, line) => {
    const found = judge(2, pairs, settings);
    expect(said(found)).toContain(line);
    expect(said(found)).not.toContain("PASS pairs-verified host");
    expect(found.outcome).toBe("FAIL");
  });

  test("losses that the spec allows", () => {
    const found = judge(2, [pair(0, 1, 254), pair(1, 0)], { pair_lost: 2 });
    expect(said(found)).toEqual(["PASS pairs-verified host"]);
  });

  test("no carrier at two of them: none is seen; a child that broke is an ERROR", () => {
    const none = judge(2, []);
    expect(none.findings.map(({ message }) => message).join()).toContain("fewer than two cards");
    expect(judge(2, { kind: "failure", message: "EPERM" }).outcome).toBe("ERROR");
    expect(judge(2, { kind: "report", report: { pairs: 7 } }).outcome).toBe("ERROR");
  });
});

describe("frames", () => {
  const nonce = new Uint8Array(16).fill(7);
  const frames = () => new PairFrames(1_500, nonce);

  test("are long and short in turn, and no two are alike", () => {
    const [first, second, third] = [0, 1, 2].map((number) => frames().frame(number));
    expect([first, second, third].map((frame) => frame?.length)).toEqual([
      1_500,
      LEAST_FRAME,
      1_500,
    ]);
    expect(first).not.toEqual(third as Uint8Array);
  });

  test("count once each, also where a card has filled a short one", () => {
    const coming = frames();
    expect(coming.take(coming.frame(0))).toBe(true);
    expect(coming.take(coming.frame(0))).toBe(false);
    expect(coming.take(Uint8Array.from([...coming.frame(1), 0, 0]))).toBe(true);
    expect([coming.received, coming.wrong]).toEqual([2, 0]);
  });

  test("with one bit that differs are wrong; cut ones too", () => {
    const coming = frames();
    const flipped = coming.frame(0);
    flipped[1_000] = (flipped[1_000] ?? 0) ^ 1;
    expect(coming.take(flipped)).toBe(true);
    expect(coming.take(coming.frame(2).subarray(0, 1_400))).toBe(true);
    expect([coming.received, coming.wrong]).toEqual([2, 2]);
  });

  test("of another pair, another program, or too short are none", () => {
    const coming = frames();
    const other = new PairFrames(1_500, new Uint8Array(16).fill(8)).frame(0);
    for (const bytes of [other, new Uint8Array(46), new Uint8Array(3)]) {
      expect(coming.take(bytes)).toBe(false);
    }
    expect(coming.received).toBe(0);
  });
});
