import * as v from "valibot";
import { macSchema } from "../hardware/inventory.ts";
import { outcomeSchema, stageSchema } from "./protocol-result.ts";

/**
 * What a host is to be, and how hard it is looked at. A spec is made by hand, in TOML or JSON, or
 * learned from a good host; every limit has a default, so that the empty spec is a whole one.
 */

export const specLimits = {
  name: 63,
  rules: 4_096,
  path: 256,
  text: 256,
  values: 256,
  /** Bytes of a spec as JSON. */
  bytes: 1024 ** 2,
} as const;

const text = v.pipe(v.string(), v.maxLength(specLimits.text));
const part = v.pipe(v.number(), v.minValue(0), v.maxValue(1));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const positive = v.pipe(count, v.minValue(1));
/** Seconds. A day is the longest that a stage may be told to take. */
const seconds = v.pipe(v.number(), v.minValue(0), v.maxValue(86_400));

export const specNameSchema = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9][a-z0-9.-]{0,62}$/, "a name of small letters, digits, dots and dashes"),
);

/**
 * A place of the inventory: words with dots, `[KEY]` for the element of a list that has this key
 * (disks: serial; memory.slots, power_supplies: locator; network: mac; processors: socket;
 * graphics: pci; pci: address), `[*]` for each of them, `[WORD="TEXT"]` for each that has this,
 * `.count` for how many there are. The grammar stands in spec/path.ts.
 */
const pathSchema = v.pipe(v.string(), v.minLength(1), v.maxLength(specLimits.path));
const scalar = v.union([text, v.number(), v.boolean()]);

/** What must be so. A rule whose place is not there is broken, unless it says "absent". */
export const ruleSchema = v.strictObject({
  path: pathSchema,
  match: v.variant("is", [
    v.strictObject({ is: v.literal("equal"), value: scalar }),
    v.strictObject({
      is: v.literal("one-of"),
      values: v.pipe(v.array(scalar), v.minLength(1), v.maxLength(specLimits.values)),
    }),
    v.strictObject({ is: v.literal("at-least"), value: v.number() }),
    v.strictObject({ is: v.literal("at-most"), value: v.number() }),
    /** `*` and `?` alone: a regular expression of a stranger can take for ever. */
    v.strictObject({ is: v.literal("like"), value: text }),
    v.strictObject({ is: v.literal("present") }),
    v.strictObject({ is: v.literal("absent") }),
  ]),
  /** What a broken rule is. */
  outcome: v.optional(v.picklist(["FAIL", "WARN"]), "FAIL"),
  /** For people: why it matters. */
  because: v.optional(text),
});
export type Rule = v.InferOutput<typeof ruleSchema>;

export const expectedDiskSchema = v.strictObject({ serial: text, size_bytes: count });
export type ExpectedDisk = v.InferOutput<typeof expectedDiskSchema>;

/** A stage ends at `base_s`, and `per_tebibyte_s` more for each tebibyte that it has to go over. */
const deadline = (base: number, perTebibyte: number) =>
  v.optional(
    v.strictObject({
      base_s: v.optional(seconds, base),
      per_tebibyte_s: v.optional(v.pipe(v.number(), v.minValue(0)), perTebibyte),
    }),
    {},
  );

/**
 * Who does it, where a tool of the host's can: "default" asks the tool where it is there and sees
 * as much as we do, and does it by itself where it is not, fails, or prints nonsense; "own" asks no
 * tool; "tool" asks nobody else, and what the tool does not tell is not seen.
 */
export const engineChoiceSchema = v.picklist(["default", "own", "tool"]);
export type EngineChoice = v.InferOutput<typeof engineChoiceSchema>;
const engine = v.optional(engineChoiceSchema, "default");

/** Of every stage. */
const common = {
  /** false: the stage is not walked, and says SKIP. */
  enabled: v.optional(v.boolean(), true),
  /**
   * Properties that must have been seen: "disk.spare", "gpu.ecc", "psu.state". One that was skipped
   * fails the spec.
   */
  required: v.optional(v.pipe(v.array(text), v.maxLength(64)), []),
  /** Attempts after which a host that dies in this stage has failed. */
  attempts: v.optional(v.pipe(positive, v.maxValue(10)), 3),
};

const smart = v.strictObject({
  ...common,
  used_warn_percent: v.optional(count, 80),
  used_fail_percent: v.optional(count, 100),
  media_errors: v.optional(count, 0),
  pending_sectors: v.optional(count, 0),
  uncorrectable_sectors: v.optional(count, 0),
  reallocated_sectors_warn: v.optional(count, 1),
  temperature_fail_c: v.optional(count, 70),
  /** "none", "short", "extended": the disk's own self-test, where it has one. */
  self_test: v.optional(v.picklist(["none", "short", "extended"]), "none"),
  /** smartctl; in the stage Storage as well. */
  engine,
  deadline: deadline(300, 0),
});
const cpu = v.strictObject({
  ...common,
  duration_s: v.optional(seconds, 60),
  /** Of the memory that is free, how much is filled and verified. */
  memory: v.optional(part, 0.8),
  /** Of the installed memory, and of the core-seconds there were. */
  memory_least: v.optional(part, 0.5),
  busy_least: v.optional(part, 0.95),
  machine_checks: v.optional(count, 0),
  memory_corrected: v.optional(count, 0),
  throttles: v.optional(count, 0),
  /** Over what the hardware calls critical it fails in any case. */
  temperature_fail_c: v.optional(count, 100),
  deadline: deadline(600, 600),
});
const storage = v.strictObject({
  ...common,
  /** "read": nothing is written. "verify": all is written and read back, behind every interlock. */
  mode: v.optional(v.picklist(["read", "verify"]), "read"),
  /** Of each disk. Below 1, regions are spread over the whole of it. */
  extent: v.optional(part, 1),
  extent_least: v.optional(part, 1),
  block_bytes: v.optional(v.pipe(positive, v.maxValue(16 * 1024 ** 2)), 1024 ** 2),
  depth: v.optional(v.pipe(positive, v.maxValue(64)), 4),
  read_errors: v.optional(count, 0),
  /** Slowest read that is well; 0: any. */
  slow_read_warn_ms: v.optional(count, 5_000),
  throughput_least_mbps: v.optional(count, 0),
  /** fio, which "tool" alone asks: of what fails it tells less than we do. */
  engine,
  deadline: deadline(120, 14_400),
});
const network = v.strictObject({
  ...common,
  duration_s: v.optional(seconds, 10),
  /** Until a card that has no carrier has one. */
  carrier_wait_s: v.optional(seconds, 15),
  /** For each card that is named: what it must run at. */
  speeds: v.optional(
    v.pipe(v.array(v.strictObject({ mac: macSchema, mbps: positive })), v.maxLength(256)),
    [],
  ),
  /** For each card with a carrier, in both directions; 0: it is measured, and not judged. */
  throughput_least: v.optional(part, 0),
  carrier_changes: v.optional(count, 0),
  errors: v.optional(count, 0),
  links_least: v.optional(part, 1),
  /** From each card to each other one, 16 cards at most; 0: none. */
  pair_frames: v.optional(v.pipe(count, v.maxValue(65_536)), 256),
  /** Of them, of one pair in one direction, where any came. */
  pair_lost: v.optional(count, 0),
  /** iperf3 at both ends, which "tool" alone asks: it looks at no byte that comes. */
  engine,
  deadline: deadline(300, 0),
});
const gpu = v.strictObject({
  ...common,
  /** How many there must be; null: as many as there are, and none is SKIP. */
  expected: v.optional(v.nullable(count), null),
  width_least: v.optional(v.nullable(count), null),
  uncorrected_errors: v.optional(count, 0),
  remapped_rows: v.optional(count, 0),
  /** dcgmi's level, where dcgmi is there; 0: not at all. */
  dcgm_level: v.optional(v.pipe(count, v.maxValue(4)), 1),
  /** Links between cards that must be active on each, where it tells of any; null: any number. */
  nvlinks_least: v.optional(v.nullable(count), null),
  /** Replays, recoveries and wrong checksums of these links, since the driver counts. */
  nvlink_errors: v.optional(count, 0),
  /** nvidia-smi and dcgmi. */
  engine,
  deadline: deadline(1_800, 0),
});
const psu = v.strictObject({
  ...common,
  expected: v.optional(v.nullable(count), null),
  redundancy: v.optional(v.boolean(), false),
  /** ipmitool. */
  engine,
  deadline: deadline(60, 0),
});

export const stageSettingsSchema = v.strictObject({
  Inventory: v.optional(v.strictObject({ ...common, deadline: deadline(120, 0) }), {}),
  SMART: v.optional(smart, {}),
  CPUStress: v.optional(cpu, {}),
  Storage: v.optional(storage, {}),
  Network: v.optional(network, {}),
  GPU: v.optional(gpu, {}),
  PSU: v.optional(psu, {}),
});
/** Each stage's own, with every default filled in. */
export type StageSettings = v.InferOutput<typeof stageSettingsSchema>;

export const specSchema = v.strictObject({
  name: specNameSchema,
  description: v.optional(text, ""),
  rules: v.optional(v.pipe(v.array(ruleSchema), v.maxLength(specLimits.rules)), []),
  /** Disks that may be written to where `Storage.mode` is "verify". */
  expected_disks: v.optional(v.pipe(v.array(expectedDiskSchema), v.maxLength(1_024)), []),
  stages: v.optional(stageSettingsSchema, {}),
});
export type Spec = v.InferOutput<typeof specSchema>;

/** One rule against one inventory. */
export const ruleFindingSchema = v.strictObject({
  path: pathSchema,
  /** "at-least 137438953472". */
  rule: text,
  expected: text,
  found: text,
  outcome: outcomeSchema,
  because: v.nullable(text),
});
export type RuleFinding = v.InferOutput<typeof ruleFindingSchema>;

export { stageSchema };
