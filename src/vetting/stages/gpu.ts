import { isAccelerator } from "../../hardware/accelerators.ts";
import type { Inventory } from "../../hardware/inventory.ts";
import { milliseconds } from "../../units/units.ts";
import type { Coverage, Finding, Measurement, StageReport } from "../protocol-result.ts";
import type { StageSettings } from "../protocol-spec.ts";
import {
  GPU_TASK,
  type GpuCard,
  type GpuInput,
  type GpuReport,
  gpuReportSchema,
} from "../tasks/gpu.ts";
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

/** Graphics cards that compute; the one behind a service processor's screen is none. */
export const gpu: StageDefinition = { stage: "GPU", plan, judge };

type Settings = StageSettings["GPU"];
type Card = Inventory["graphics"][number];

const cardsOf = (inventory: Inventory | undefined): Card[] =>
  (inventory?.graphics ?? []).filter(isAccelerator);

/** What is left of the deadline to ask the driver, and to end. */
const DIAGNOSTICS_PART = 0.8;

function plan({ settings, inventory }: StageContext): readonly TaskPlan[] {
  const own = settings.GPU;
  const cards = cardsOf(inventory);
  if (!own.enabled || cards.length === 0) return [];
  const input: Omit<GpuInput, "root"> = {
    cards: cards.map(({ pci, vendor, driver }) => ({ pci, vendor, driver })),
    dcgm_level: own.dcgm_level,
    engine: own.engine,
    diagnostics_s: own.deadline.base_s * DIAGNOSTICS_PART,
  };
  return [
    {
      id: "gpu",
      task: GPU_TASK,
      input,
      component: "host",
      deadline: milliseconds(own.deadline.base_s * 1_000),
      group: 0,
    },
  ];
}

function judge({ settings, inventory }: StageContext, done: StageDone): StageReport {
  const own = settings.GPU;
  const told = emptyTold();
  const cards = cardsOf(inventory);
  const task = done.tasks[0];
  const report = task === undefined ? undefined : reportOf(gpuReportSchema, task, "The test", told);
  told.findings.push(...missingSensors(done), ...commonDeltas(done, []));
  const end = (summary: string) => stageReport({ ...told, summary, deltas: [...done.deltas] });
  if (!own.enabled) return end("The spec leaves this stage out");
  told.findings.push(...judgeCount(own, cards));
  if (report !== undefined) {
    for (const engine of report.engines) {
      told.engines.push({ task: GPU_TASK, engine: engine.name, version: engine.version });
    }
    for (const card of report.cards) {
      const component = nameOf(card.pci, inventory);
      told.findings.push(...judgeCard(own, card, component));
      told.measurements.push(...measured(card, component));
    }
    told.findings.push(...judgeDiagnostics(report));
    for (const { property, component, reason } of report.unseen) {
      const whose = component === "host" ? component : nameOf(component, inventory);
      told.findings.push(notSeen(property, whose, reason, own.required));
    }
  }
  const looked = report?.cards.filter(({ broken }) => broken === null).length ?? 0;
  const coverage: Coverage = {
    component: "host",
    unit: "devices",
    covered: looked,
    total: cards.length,
    least: 1,
  };
  if (cards.length > 0) cover(told, coverage, "the graphics cards");
  return end(`${looked} of ${cards.length} graphics cards were looked at`);
}

/** "0000:41:00.0 (Slot 3)": what a person looks for has a name on the board. */
function nameOf(pci: string, inventory: Inventory | undefined): string {
  const slot = inventory?.pci.find(({ address }) => address === pci)?.slot ?? null;
  return slot === null ? `gpu ${pci}` : `gpu ${pci} (${slot})`;
}

function* judgeCount({ expected }: Settings, cards: readonly Card[]): Generator<Finding> {
  const details = { expected: `${expected ?? "any number"}`, found: `${cards.length}` };
  if (expected !== null && expected !== cards.length) {
    const message = `There must be ${expected} graphics cards, and there are ${cards.length}`;
    yield finding("FAIL", "gpu-count", "host", message, details);
  } else if (cards.length === 0) {
    yield finding(
      "SKIP",
      "no-gpu",
      "host",
      "This host has no graphics card that computes",
      details,
    );
  } else if (expected !== null) {
    yield finding("PASS", "gpu-count", "host", "There are as many as there must be", details);
  }
}

function* judgeCard(own: Settings, card: GpuCard, component: string): Generator<Finding> {
  if (card.broken !== null) {
    const message = `The driver has lost it: ${card.broken}`;
    yield finding("FAIL", "gpu-lost", component, message);
    return;
  }
  const bad = [
    ...judgeLink(own, card, component),
    ...judgeMemory(own, card, component),
    ...judgeNvlink(own, card, component),
  ];
  yield* bad;
  if (card.throttle !== null && card.throttle.length > 0) {
    const message = `It is slowed down: ${card.throttle.join(", ")}`;
    yield finding("WARN", "gpu-throttled", component, message);
  }
  // A card of which nothing but its address is known was not looked at.
  const wasSeen = card.width !== null || card.ecc !== null || card.throttle !== null;
  if (wasSeen && !bad.some(({ outcome }) => outcome === "FAIL")) {
    const seen = [
      ...(card.width === null ? [] : [`link x${card.width}`]),
      ...(card.ecc === null ? [] : ["memory errors"]),
      ...(card.rows === null ? [] : ["remapped rows"]),
      ...(card.nvlink === null ? [] : [`${card.nvlink.active} links to other cards`]),
      ...(card.throttle === null ? [] : ["slowdowns"]),
    ];
    yield finding("PASS", "gpu-well", component, `Looked at: ${seen.join(", ")}`);
  }
}

function* judgeLink(own: Settings, card: GpuCard, component: string): Generator<Finding> {
  const { width, width_most: most } = card;
  if (width === null) return;
  const found = `x${width}`;
  if (own.width_least !== null && width < own.width_least) {
    const details = { expected: `at least x${own.width_least}`, found };
    yield finding("FAIL", "gpu-link-width", component, "Its link is narrower", details);
  } else if (own.width_least === null && most !== null && width < most) {
    const message = "Its link is narrower than the card can: it may be so built, or badly seated";
    yield finding("WARN", "gpu-link-width", component, message, { expected: `x${most}`, found });
  }
}

function* judgeMemory(own: Settings, card: GpuCard, component: string): Generator<Finding> {
  const { ecc, rows } = card;
  const over = (code: string, what: string, found: number, most: number) =>
    finding("FAIL", code, component, what, { expected: `at most ${most}`, found: `${found}` });
  if (ecc !== null && (ecc.uncorrected ?? 0) > own.uncorrected_errors) {
    const what = "Errors of its memory that nothing corrected";
    yield over("gpu-uncorrected", what, ecc.uncorrected ?? 0, own.uncorrected_errors);
  }
  if (ecc?.enabled === false) {
    const message = "Its memory is not protected: ECC is switched off";
    yield finding("WARN", "gpu-ecc-off", component, message);
  }
  if (rows === null) return;
  if (rows.failed) {
    yield finding("FAIL", "gpu-rows-failed", component, "A bad row could not be remapped");
  }
  if (rows.pending) {
    const message = "Bad rows wait to be remapped: reset the card, and test it again";
    yield finding("FAIL", "gpu-rows-pending", component, message);
  }
  if (rows.remapped > own.remapped_rows) {
    const what = "Rows of its memory that were remapped";
    yield over("gpu-rows-remapped", what, rows.remapped, own.remapped_rows);
  }
}

/** Most cards have no such link: that none is told is said where the spec asks for it. */
function* judgeNvlink(own: Settings, card: GpuCard, component: string): Generator<Finding> {
  const { nvlink } = card;
  const { nvlinks_least: least, nvlink_errors: most } = own;
  if (nvlink === null) {
    const isRequired = least !== null || own.required.includes(NVLINK);
    if (isRequired) yield notSeen(NVLINK, component, "nvidia-smi tells of no such link", [NVLINK]);
    return;
  }
  const { active, links, inactive, replays, recoveries, checksums } = nvlink;
  const found = `${active} of ${links}`;
  if (least !== null && active < least) {
    const message = "Too few of its links to other cards are active";
    yield finding("FAIL", "gpu-nvlink", component, message, { expected: `${least}`, found });
  } else if (least === null && active > 0 && inactive.length > 0) {
    const message = `Links to other cards that are not active: ${inactive.join(", ")}`;
    yield finding("WARN", "gpu-nvlink", component, message, { expected: `${links}`, found });
  }
  // A link that is trained anew has stopped everything; what was sent again has only cost time.
  const counts = [
    ["FAIL", "recoveries", recoveries],
    ["WARN", "replays", replays],
    ["WARN", "wrong checksums", checksums],
  ] as const;
  for (const [outcome, what, count] of counts) {
    if (count === null || count <= most) continue;
    const message = `Its links to other cards have counted ${what}`;
    const details = { expected: `at most ${most}`, found: `${count}` };
    yield finding(outcome, "gpu-nvlink-errors", component, message, details);
  }
}

const NVLINK = "gpu.nvlink";

const outcomes = { pass: "PASS", warn: "WARN", fail: "FAIL", skip: "SKIP" } as const;

/** Those that failed one by one; all that passed together. */
function* judgeDiagnostics({ diagnostics }: GpuReport): Generator<Finding> {
  if (diagnostics === null) return;
  const passed = diagnostics.filter(({ outcome }) => outcome === "pass");
  for (const { name, card, outcome, message } of diagnostics) {
    if (outcome === "pass") continue;
    const whose = card === null ? "host" : `gpu number ${card}`;
    yield finding(outcomes[outcome], "gpu-diagnostic", whose, `${name}: ${message}`);
  }
  if (passed.length === 0) {
    const message = "No diagnostic has passed: either none was made, or each was skipped";
    yield finding("SKIP", "gpu-diagnostic", "host", message);
    return;
  }
  const message = `${passed.length} of ${diagnostics.length} diagnostics of DCGM passed`;
  yield finding("PASS", "gpu-diagnostic", "host", message);
}

function measured(card: GpuCard, component: string): Measurement[] {
  const of = (name: string, value: number | null, unit: string) =>
    value === null ? [] : [{ name, component, value, unit }];
  return [
    ...of("gpu-temperature", card.temperature_c, "°C"),
    ...of("gpu-power", card.power_w, "W"),
    ...of("gpu-memory-corrected", card.ecc?.corrected ?? null, ""),
  ];
}
