import type { Inventory } from "../../hardware/inventory.ts";
import { milliseconds } from "../../units/units.ts";
import type { Finding, Measurement } from "../protocol-result.ts";
import type { StageSettings } from "../protocol-spec.ts";
import {
  PAIRS_TASK,
  type Pair,
  type PairsInput,
  type PairsReport,
  pairsLimits,
} from "../tasks/pairs.ts";
import { finding, notSeen } from "./findings.ts";
import type { TaskPlan } from "./stage.ts";

/** The cards of a host beside each other: what of one comes in at the other, for every two. */

type Settings = StageSettings["Network"];

/** Of the child: so many frames are waited for at once, for half a second. */
const WINDOW = 8;
/** Seconds that a pair takes at most: a frame that does not come is waited for. */
const PAIR_TAKES = 2;
/** Pairs that are named where many have no way to each other. */
const NAMED = 4;

/** After the tests of the links, whose figures it would take from. */
export function planPairs(own: Settings, cards: Inventory["network"]): readonly TaskPlan[] {
  if (own.pair_frames === 0 || cards.length < 2) return [];
  const some = cards.slice(0, pairsLimits.cards).map(({ name, mac }) => ({ name, mac }));
  const { pair_frames: frames, carrier_wait_s } = own;
  const input: PairsInput = { cards: some, frames, carrier_wait_s };
  const pairs = some.length * (some.length - 1);
  // A frame that is late may hold up each window of them.
  const seconds = 2 * carrier_wait_s + own.deadline.base_s + pairs * (PAIR_TAKES + frames / WINDOW);
  return [
    {
      ...{ id: PAIRS_TASK, task: PAIRS_TASK, input, component: "host", group: 1 },
      deadline: milliseconds(Math.ceil(seconds * 1_000)),
    },
  ];
}

export interface JudgedPairs {
  readonly findings: Finding[];
  readonly measurements: Measurement[];
  /** Cards that something came to, and something came from. */
  readonly exercised: ReadonlySet<string>;
}

export function judgePairs(own: Settings, cardCount: number, report: PairsReport): JudgedPairs {
  const findings: Finding[] = [];
  const exercised = new Set<string>();
  const apart: string[] = [];
  let whole = 0;
  const twos = twosOf(report.pairs);
  for (const [there, back] of twos) {
    if (there.received === 0 && back.received === 0) {
      apart.push(`${there.from} and ${there.to}`);
      continue;
    }
    const found = [...judgeWay(own, there), ...judgeWay(own, back)];
    findings.push(...found);
    if (there.received > 0 && back.received > 0) {
      for (const name of [there.from, there.to]) exercised.add(name);
    }
    if (found.length === 0) whole += 1;
  }
  if (whole > 0) {
    const message = `${whole} of ${twos.length} pairs of cards carried all frames, both ways`;
    findings.push(finding("PASS", "pairs-verified", "host", message));
  }
  const unseen = unseenOf(apart, twos.length, cardCount);
  if (unseen !== undefined) findings.push(notSeen("network.pairs", "host", unseen, own.required));
  const measurements = report.pairs.map(({ from, to, received }) => ({
    ...{ name: "pair-frames", component: `${from} to ${to}`, value: received, unit: "frames" },
  }));
  return { findings, measurements, exercised };
}

function unseenOf(apart: readonly string[], all: number, cards: number): string | undefined {
  const reasons: string[] = [];
  if (all === 0) reasons.push("fewer than two cards have a carrier");
  if (apart.length > 0) {
    const more = apart.length > NAMED ? ` and ${apart.length - NAMED} more` : "";
    const names = `${apart.slice(0, NAMED).join(", ")}${more}`;
    reasons.push(`${apart.length} of ${all} pairs have no way to each other: ${names}`);
  }
  const { cards: most } = pairsLimits;
  if (cards > most) reasons.push(`${cards - most} cards are over the ${most} that are tried`);
  return reasons.length === 0 ? undefined : reasons.join("; ");
}

/** Each two once, with both directions. */
function twosOf(pairs: readonly Pair[]): (readonly [Pair, Pair])[] {
  return pairs.flatMap((there, index) => {
    const back = pairs
      .slice(index + 1)
      .find(({ from, to }) => from === there.to && to === there.from);
    return back === undefined ? [] : [[there, back] as const];
  });
}

function* judgeWay(own: Settings, { from, to, sent, received, wrong }: Pair): Generator<Finding> {
  const component = `${from} to ${to}`;
  const lost = sent - received;
  if (received === 0) {
    const message = `Nothing that ${from} sent came in at ${to}, and the other way something did`;
    const details = { expected: `${sent} frames`, found: "0" };
    yield finding("FAIL", "pair-one-way", component, message, details);
  } else if (lost > own.pair_lost) {
    const message = `Of ${sent} frames that ${from} sent, ${received} came in at ${to}`;
    const details = { expected: `at most ${own.pair_lost} lost`, found: `${lost}` };
    yield finding("FAIL", "pair-lost", component, message, details);
  }
  if (wrong > 0) {
    const message = `${wrong} frames from ${from} came in at ${to} with other bytes`;
    const details = { expected: "0", found: `${wrong}` };
    yield finding("FAIL", "pair-corrupted", component, message, details);
  }
}
