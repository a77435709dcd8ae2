import type { PowerState } from "../../hardware/power-sensors.ts";
import { milliseconds } from "../../units/units.ts";
import type { Coverage, Finding, StageReport } from "../protocol-result.ts";
import type { StageSettings } from "../protocol-spec.ts";
import { PSU_TASK, type PsuReport, psuReportSchema } from "../tasks/psu.ts";
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
import type { StageContext, StageDefinition, StageDone, TaskPlan } from "./stage.ts";

/** Power supplies: how many there are, whether each is well, and whether one may fail. */
export const psu: StageDefinition = { stage: "PSU", plan, judge };

type Settings = StageSettings["PSU"];

function plan({ settings }: StageContext): readonly TaskPlan[] {
  const own = settings.PSU;
  if (!own.enabled) return [];
  return [
    {
      id: "psu",
      task: PSU_TASK,
      input: { engine: own.engine },
      component: "host",
      deadline: milliseconds(own.deadline.base_s * 1_000),
      group: 0,
    },
  ];
}

/** Of one power supply what all its sensors say. */
interface Supply {
  readonly name: string;
  readonly states: ReadonlySet<PowerState>;
}

function judge({ settings, inventory }: StageContext, done: StageDone): StageReport {
  const own = settings.PSU;
  const told = emptyTold();
  const task = done.tasks[0];
  const report = task === undefined ? undefined : reportOf(psuReportSchema, task, "The test", told);
  told.findings.push(...missingSensors(done), ...commonDeltas(done, []));
  const end = (summary: string) => stageReport({ ...told, summary, deltas: [...done.deltas] });
  if (report === undefined) return end(told.findings[0]?.message ?? "The spec leaves it out");
  const { engine } = report;
  if (engine !== null) {
    told.engines.push({ task: PSU_TASK, engine: engine.name, version: engine.version });
  }
  const supplies = suppliesOf(report);
  const known = inventory?.power_supplies ?? [];
  // Without a service processor what the firmware saw when the host was switched on counts.
  const present =
    supplies.length > 0
      ? supplies.filter(({ states }) => !states.has("absent")).length
      : known.filter((supply) => supply.present !== false).length;
  told.findings.push(...judgeCount(own, present), ...judgeSupplies(own, supplies));
  told.findings.push(...judgeRedundancy(own, report));
  if (supplies.length === 0) {
    const reason = report.refusal ?? "the service processor has no sensor of a power supply";
    told.findings.push(notSeen("psu.state", "host", reason, own.required));
  }
  told.findings.push(...judgeUnread(report));
  const coverage = coverageOf(report);
  if (coverage.total !== 0) cover(told, coverage, "the sensors of power supplies");
  const state = supplies.length === 0 ? "their state was not seen" : "their sensors were read";
  return end(`${present} power ${present === 1 ? "supply" : "supplies"}, ${state}`);
}

const POWER_SUPPLY = "10.";

/** Sensors of one entity belong together; of one that is no power supply each stands alone. */
function suppliesOf({ sensors }: PsuReport): Supply[] {
  const byEntity = new Map<string, { name: string; states: Set<PowerState> }>();
  for (const { name, entity, states } of sensors) {
    // A sensor of thresholds that none is over, and one of redundancy, tell no supply of their own.
    if (states.some((state) => redundancy[state] !== undefined)) continue;
    const key = entity.startsWith(POWER_SUPPLY) ? entity : `${entity} ${name}`;
    const known = byEntity.get(key) ?? { name, states: new Set<PowerState>() };
    for (const state of states) known.states.add(state);
    byEntity.set(key, known);
  }
  // One sensor says "present" where another, of thresholds alone, says nothing of it.
  return [...byEntity.values()].map(({ name, states }) => {
    if (states.has("present")) states.delete("absent");
    return { name, states };
  });
}

function* judgeCount({ expected }: Settings, present: number): Generator<Finding> {
  if (expected === null) {
    if (present > 0) return;
    const message = "Nothing tells of a power supply: neither SMBIOS nor a service processor";
    yield finding("SKIP", "no-power-supply", "host", message);
    return;
  }
  const details = { expected: `${expected}`, found: `${present}` };
  if (expected !== present) {
    const message = `There must be ${expected} power supplies, and there are ${present}`;
    yield finding("FAIL", "psu-count", "host", message, details);
  } else if (expected === 0) {
    yield finding("SKIP", "no-power-supply", "host", "The spec wants none", details);
  } else {
    yield finding("PASS", "psu-count", "host", "There are as many as there must be", details);
  }
}

const faults: Partial<Record<PowerState, readonly [Finding["outcome"], string, string]>> = {
  failure: ["FAIL", "psu-failed", "it has failed"],
  "predictive-failure": ["FAIL", "psu-failing", "it says that it is going to fail"],
  "input-lost": ["FAIL", "psu-input-lost", "it gets no power"],
  "input-lost-or-out-of-range": ["FAIL", "psu-input-lost", "it gets no power, or a wrong one"],
  "input-out-of-range": ["FAIL", "psu-input-wrong", "its input is out of its range"],
  "configuration-error": ["FAIL", "psu-mismatch", "it does not match the others"],
  "non-recoverable": ["FAIL", "psu-critical", "one of its sensors is over its last threshold"],
  critical: ["FAIL", "psu-critical", "one of its sensors is over a critical threshold"],
  "non-critical": ["WARN", "psu-threshold", "one of its sensors is over a threshold"],
};

function* judgeSupplies(own: Settings, supplies: readonly Supply[]): Generator<Finding> {
  for (const { name, states } of supplies) {
    const component = `power supply ${name}`;
    if (states.has("absent")) {
      // How many there must be, the spec says; where it does not, a person does.
      const outcome = own.expected === null ? "WARN" : "SKIP";
      const message = `${name}: there is none in its place`;
      yield finding(outcome, "psu-absent", component, message, { found: list(states) });
      continue;
    }
    let isWell = true;
    for (const state of states) {
      const [outcome, code, what] = faults[state] ?? [];
      if (outcome === undefined || code === undefined) continue;
      isWell = false;
      yield finding(outcome, code, component, `${name}: ${what}`, { found: list(states) });
    }
    if (isWell) {
      // A sensor of thresholds says so much, and not that its supply is there.
      const thresholds = `${name}: none of its sensors is over a threshold`;
      const standby = states.has("inactive") ? ", and stands by" : "";
      const message = states.has("present") ? `${name} is well${standby}` : thresholds;
      yield finding("PASS", "psu-well", component, message, { found: list(states) });
    }
  }
}

const list = (states: ReadonlySet<PowerState>): string => [...states].join(", ") || "nothing";

const redundancy: Partial<Record<PowerState, readonly ["PASS" | "LOST", string]>> = {
  "fully-redundant": ["PASS", "one power supply may fail"],
  "redundancy-lost": ["LOST", "no power supply may fail any more"],
  "redundancy-degraded": ["LOST", "fewer power supplies may fail than could"],
  "not-redundant-sufficient": ["LOST", "no power supply may fail"],
  "not-redundant-insufficient": ["LOST", "the power supplies do not suffice"],
};

function* judgeRedundancy(own: Settings, report: PsuReport): Generator<Finding> {
  let isTold = false;
  for (const { name, states } of report.sensors) {
    for (const state of states) {
      const [kind, what] = redundancy[state] ?? [];
      if (kind === undefined) continue;
      isTold = true;
      const details = { expected: own.redundancy ? "fully-redundant" : "any", found: state };
      const bad = own.redundancy ? "FAIL" : "WARN";
      const outcome = kind === "PASS" ? "PASS" : bad;
      yield finding(outcome, "psu-redundancy", name, `${name}: ${what}`, details);
    }
  }
  if (isTold) return;
  const reason = report.refusal ?? "no sensor tells of it";
  const required = own.redundancy ? [...own.required, "psu.redundancy"] : own.required;
  yield notSeen("psu.redundancy", "host", reason, required);
}

function* judgeUnread({ unread }: PsuReport): Generator<Finding> {
  for (const { name, reason } of unread) {
    const message = `${name} is there, and was not read: ${reason}`;
    yield finding("WARN", "sensor-unread", name, message);
  }
}

function coverageOf({ sensors, unread }: PsuReport): Coverage {
  const total = sensors.length + unread.length;
  return { component: "host", unit: "sensors", covered: sensors.length, total, least: 1 };
}
