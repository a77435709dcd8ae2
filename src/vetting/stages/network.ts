import type { Inventory } from "../../hardware/inventory.ts";
import { milliseconds } from "../../units/units.ts";
import type { Coverage, Finding, Measurement, StageReport } from "../protocol-result.ts";
import type { StageSettings } from "../protocol-spec.ts";
import {
  LINK_TASK,
  type LinkInput,
  type LinkReport,
  linkReportSchema,
  type Throughput,
} from "../tasks/link.ts";
import { PAIRS_TASK, pairsReportSchema } from "../tasks/pairs.ts";
import {
  commonDeltas,
  cover,
  emptyTold,
  finding,
  missingSensors,
  notSeen,
  reportOf,
  stageReport,
} from "./findings.ts";
import { judgePairs, planPairs } from "./network-pairs.ts";
import type { StageContext, StageDefinition, StageDone, TaskPlan } from "./stage.ts";

/** Every network card: its link against the spec, and as much through it as goes, both ways. */
export const network: StageDefinition = { stage: "Network", plan, judge };

type Settings = StageSettings["Network"];
type Measured = Extract<Throughput, { readonly kind: "measured" }>;
type Card = Inventory["network"][number];

/** What a card takes beside its waiting and its test: to come up, to connect. Seconds. */
const TAKES = 10;

/** All cards side by side: the server gives each of them its turn. */
function plan({ settings, inventory, networkTest }: StageContext): readonly TaskPlan[] {
  const own = settings.Network;
  if (!own.enabled || inventory === undefined) return [];
  const turn = own.carrier_wait_s + 2 * own.duration_s + TAKES;
  const turns = turn * inventory.network.length + own.deadline.base_s;
  const links = inventory.network.map(({ name, mac }) => {
    const input: LinkInput = {
      name,
      mac,
      carrier_wait_s: own.carrier_wait_s,
      duration_s: own.duration_s,
      turn_wait_s: turns - turn,
      test: networkTest,
      engine: own.engine,
    };
    return {
      id: `link/${name}`,
      task: LINK_TASK,
      input,
      component: name,
      deadline: milliseconds((turns + turn) * 1_000),
      group: 0,
    };
  });
  return [...links, ...planPairs(own, inventory.network)];
}

function judge({ settings, inventory }: StageContext, done: StageDone): StageReport {
  const own = settings.Network;
  const told = emptyTold();
  const cards = inventory?.network ?? [];
  const exercised = new Set<string>();
  const links = done.tasks.filter(({ plan }) => plan.task === LINK_TASK);
  const engines = new Map<string, string | null>();
  for (const task of links) {
    const card = cards.find(({ name }) => name === task.plan.component);
    const report = reportOf(linkReportSchema, task, "The test of the link", told);
    if (report === undefined || card === undefined) continue;
    const found = [...judgeLink(own, { card, report, deltas: done.deltas })];
    if (report.throughput.kind === "measured") {
      exercised.add(card.name);
      engines.set(report.throughput.engine.name, report.throughput.engine.version);
    }
    if (report.throughput.kind === "measured" && !found.some(({ outcome }) => outcome === "FAIL")) {
      found.push(
        finding("PASS", "link-verified", card.name, carriedBy(card.name, report.throughput)),
      );
    }
    told.findings.push(...found);
    told.measurements.push(...measured(report));
  }
  for (const task of done.tasks.filter(({ plan }) => plan.task === PAIRS_TASK)) {
    const report = reportOf(pairsReportSchema, task, "The test of pairs of cards", told);
    if (report === undefined) continue;
    const pairs = judgePairs(own, cards.length, report);
    told.findings.push(...pairs.findings);
    told.measurements.push(...pairs.measurements);
    for (const name of pairs.exercised) exercised.add(name);
    told.engines.push({ task: PAIRS_TASK, engine: "hostler", version: null });
  }
  if (cards.length === 0) {
    told.findings.push(notSeen("network.links", "host", "it has no network card", own.required));
  }
  const present = Math.max(cards.length, links.length);
  const coverage: Coverage = {
    component: "host",
    unit: "links",
    covered: exercised.size,
    total: present,
    least: own.links_least,
  };
  cover(told, coverage, "the links");
  told.findings.push(...missingCards(own, cards), ...missingSensors(done));
  const judgedHere = ["carrier", "network-errors"] as const;
  told.findings.push(...commonDeltas(done, judgedHere));
  // The link itself is looked at by us in any case.
  if (links.length > 0 && !engines.has("hostler")) engines.set("hostler", null);
  for (const [engine, version] of engines) told.engines.push({ task: LINK_TASK, engine, version });
  const summary = `${exercised.size} of ${present} links carried traffic both ways`;
  return stageReport({ ...told, summary, deltas: [...done.deltas] });
}

function carriedBy(name: string, { corrupted, engine }: Measured): string {
  if (corrupted !== null) return `${name} carried all that was sent, both ways`;
  return `${name} carried what ${engine.name} sent, both ways`;
}

/** Cards that the spec names and this host does not have. */
function* missingCards(own: Settings, cards: readonly Card[]): Generator<Finding> {
  for (const { mac, mbps } of own.speeds) {
    if (cards.some((card) => card.mac === mac)) continue;
    yield finding("FAIL", "card-missing", mac, "The spec names a card that is not there", {
      expected: `a card ${mac} at ${mbps} Mb/s`,
      found: "none",
    });
  }
}

interface LinkCase {
  readonly card: Card;
  readonly report: LinkReport;
  readonly deltas: StageDone["deltas"];
}

function* judgeLink(own: Settings, one: LinkCase): Generator<Finding> {
  const { card, report } = one;
  const expected = own.speeds.find(({ mac }) => mac === card.mac)?.mbps;
  if (!report.carrier) {
    yield noCarrier(own, report, expected);
  } else {
    yield* judgeSpeed(own, report, expected);
  }
  yield* judgeCounts(own, one);
  yield* judgeThroughput(own, report, expected ?? report.speed_mbps ?? undefined);
}

function noCarrier(own: Settings, report: LinkReport, expected: number | undefined): Finding {
  const { name, waited_s } = report;
  if (expected === undefined) {
    const reason = `it has no carrier after ${waited_s} s`;
    return notSeen("network.carrier", name, reason, own.required);
  }
  const message = `${name} has no carrier after ${waited_s} s: no cable, or nobody at its end`;
  return finding("FAIL", "no-carrier", name, message, {
    expected: `${expected} Mb/s`,
    found: "no carrier",
  });
}

function* judgeSpeed(
  own: Settings,
  { name, speed_mbps, duplex }: LinkReport,
  expected: number | undefined,
): Generator<Finding> {
  if (speed_mbps === null) {
    // A speed that the spec names is one that must be seen.
    const required = expected === undefined ? own.required : ["network.speed"];
    yield notSeen("network.speed", name, "its driver does not tell it", required);
  } else if (expected !== undefined && speed_mbps !== expected) {
    const message = `${name} runs at another speed than the spec says`;
    const details = { expected: `${expected} Mb/s`, found: `${speed_mbps} Mb/s` };
    yield finding("FAIL", "speed", name, message, details);
  } else if (expected !== undefined) {
    yield finding("PASS", "speed", name, `${name} runs at ${speed_mbps} Mb/s`);
  }
  if (duplex === "half") {
    const message = `${name} sends and receives in turn: a cable or a setting is wrong`;
    const details = { expected: "full duplex", found: "half duplex" };
    yield finding("FAIL", "half-duplex", name, message, details);
  } else if (duplex === null) {
    yield notSeen("network.duplex", name, "its driver does not tell it", own.required);
  }
}

function* judgeCounts(own: Settings, { card, report, deltas }: LinkCase): Generator<Finding> {
  const { name } = card;
  const rose = (source: "carrier" | "network-errors") =>
    deltas
      .filter((delta) => delta.source === source && delta.component === name)
      .reduce((sum, { before, after }) => sum + Math.max(0, after - before), 0);
  // What was brought up and put back for the test has changed by that: its own count says more.
  const sampled = report.brought_up || !report.carrier ? 0 : rose("carrier");
  const changes = Math.max(report.carrier_changes ?? 0, sampled);
  if (report.carrier_changes === null && sampled === 0) {
    const reason = "the kernel does not count them";
    yield notSeen("network.carrier-changes", name, reason, own.required);
  }
  if (changes > own.carrier_changes) {
    const message = `The carrier of ${name} came or went ${changes} times during the test`;
    const details = { expected: `at most ${own.carrier_changes}`, found: `${changes}` };
    yield finding("FAIL", "carrier-changes", name, message, details);
  }
  const counted = report.errors.reduce((sum, error) => sum + error.rose, 0);
  const errors = Math.max(counted, rose("network-errors"));
  if (errors > own.errors) {
    const which = report.errors.map((error) => `${error.name} ${error.rose}`).join(", ");
    const message = `${name} counted errors during the test: ${which || errors}`;
    const details = { expected: `at most ${own.errors}`, found: `${errors}` };
    yield finding("FAIL", "network-errors", name, message, details);
  }
}

function* judgeThroughput(
  own: Settings,
  { name, throughput, carrier, carrier_changes }: LinkReport,
  speed: number | undefined,
): Generator<Finding> {
  if (throughput.kind === "failed" && (carrier_changes ?? 0) > 0) {
    // The link went away under its test: that is the link's fault, and not the test's.
    const message = `The test of ${name} broke with its carrier: ${throughput.reason}`;
    yield finding("FAIL", "throughput", name, message);
    return;
  }
  if (throughput.kind === "failed") {
    const message = `The throughput of ${name} could not be measured: ${throughput.reason}`;
    yield finding("ERROR", "throughput-failed", name, message);
    return;
  }
  if (throughput.kind === "not-seen") {
    if (!carrier && !own.required.includes("network.throughput")) return;
    yield notSeen("network.throughput", name, throughput.reason, own.required);
    return;
  }
  if (throughput.corrupted === null) {
    const reason = `${throughput.engine.name} does not look at the bytes that come`;
    yield notSeen("network.content", name, reason, own.required);
  } else if (throughput.corrupted > 0) {
    const message = `${throughput.corrupted} bytes came through ${name} changed`;
    yield finding("FAIL", "corrupted", name, message, {
      expected: "0",
      found: `${throughput.corrupted}`,
    });
  }
  for (const way of ["up", "down"] as const) {
    const rate = ratePerSecond(throughput[way]);
    if (rate === 0) {
      const message = `Nothing came through ${name} ${way}`;
      yield finding("FAIL", "throughput", name, message);
    } else if (own.throughput_least > 0 && speed === undefined) {
      const reason = "nobody knows what the link could carry";
      yield notSeen("network.throughput-part", name, reason, own.required);
    } else if (speed !== undefined && rate < own.throughput_least * speed) {
      const message = `${name} carries too little ${way}`;
      yield finding("FAIL", "throughput", name, message, {
        expected: `at least ${Math.ceil(own.throughput_least * speed)} Mb/s`,
        found: `${rate} Mb/s`,
      });
    }
  }
}

function* measured({ name, speed_mbps, throughput }: LinkReport): Generator<Measurement> {
  const unit = "Mb/s";
  if (speed_mbps !== null) {
    yield { name: "link-speed", component: name, value: speed_mbps, unit };
  }
  if (throughput.kind !== "measured") return;
  for (const way of ["up", "down"] as const) {
    const value = ratePerSecond(throughput[way]);
    yield { name: `throughput-${way}`, component: name, value, unit };
  }
}

/** Megabits a second, to one place. */
function ratePerSecond({ bytes, seconds }: { bytes: number; seconds: number }): number {
  return seconds > 0 ? Math.round((bytes * 8) / seconds / 1e5) / 10 : 0;
}
