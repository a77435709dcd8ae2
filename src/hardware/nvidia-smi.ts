import * as v from "valibot";
import { pciOf, shortDomain } from "./pci-address.ts";

/** What nvidia-smi and dcgmi say, as they print it. Pure. */

/** Each is a query of its own, because one field that a version does not know fails all of it. */
export const smiQueries = {
  base: [
    "--query-gpu=pci.bus_id,name,uuid,driver_version,temperature.gpu,power.draw",
    "--format=csv,nounits",
  ],
  ecc: [
    "--query-gpu=pci.bus_id,ecc.mode.current,ecc.errors.corrected.volatile.total," +
      "ecc.errors.uncorrected.volatile.total,ecc.errors.uncorrected.aggregate.total",
    "--format=csv,nounits",
  ],
  rows: [
    "--query-remapped-rows=gpu_bus_id,remapped_rows.correctable,remapped_rows.uncorrectable," +
      "remapped_rows.pending,remapped_rows.failure",
    "--format=csv,nounits",
  ],
  /** Of before Ampere, which retired pages and did not remap rows. */
  pages: [
    "--query-gpu=pci.bus_id,retired_pages.single_bit_ecc.count,retired_pages.double_bit.count," +
      "retired_pages.pending",
    "--format=csv,nounits",
  ],
  throttle: ["--query-gpu=pci.bus_id,clocks_throttle_reasons.active", "--format=csv,nounits"],
  /** As drivers from 535 on call it. */
  events: ["--query-gpu=pci.bus_id,clocks_event_reasons.active", "--format=csv,nounits"],
} as const;
export type SmiQuery = keyof typeof smiQueries;

export const smiLimits = { cards: 64, text: 256, line: 4_096 } as const;

export interface SmiTable {
  /** By PCI address, "0000:3b:00.0": field → value; what a card does not have is not there. */
  readonly cards: ReadonlyMap<string, ReadonlyMap<string, string>>;
  /** Cards that the driver has lost, and its words. */
  readonly broken: ReadonlyMap<string, string>;
}

/**
 * A head line, and a line for each card. Where a card has fallen off the bus a sentence stands in
 * its place: "Unable to determine the device handle for GPU 0000:3B:00.0: Unknown Error".
 */
export function parseSmiTable(output: string): SmiTable {
  const cards = new Map<string, ReadonlyMap<string, string>>();
  const broken = new Map<string, string>();
  const lines = output
    .split("\n")
    .filter(({ length }) => length <= smiLimits.line)
    .map((line) => line.trim());
  const head = lines.find((line) => /^(pci\.bus_id|gpu_bus_id)\b/.test(line));
  const fields = (head ?? "").split(/\s*,\s*/).map((field) => field.replace(/ \[.*\]$/, ""));
  for (const line of lines) {
    if (line === head || line === "" || cards.size + broken.size >= smiLimits.cards) continue;
    const words = line.split(/\s*,\s*/);
    const address = pciOf(shortDomain(words[0] ?? ""));
    if (head === undefined || address === null || words.length !== fields.length) {
      const named = /\b([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])\b/i.exec(line)?.[1];
      if (named !== undefined) broken.set(shortDomain(named), line.slice(0, smiLimits.text));
      continue;
    }
    const values = new Map<string, string>();
    for (const [index, field] of fields.entries()) {
      const word = words[index] ?? "";
      if (isBroken(word)) broken.set(address, `${field}: ${word}`.slice(0, smiLimits.text));
      else if (!isAbsent(word)) values.set(field, word.slice(0, smiLimits.text));
    }
    cards.set(address, values);
  }
  return { cards, broken };
}

const isAbsent = (word: string): boolean =>
  /^\[?(N\/A|Not Supported|Not Found|Not Available|Insufficient Permissions)?\]?$/i.test(word);

const isBroken = (word: string): boolean =>
  /^(\[?(Unknown Error|GPU is lost|(GPU )?Reset Required|GPU requires reset)\]?|ERR!)$/i.test(word);

/** A whole number, or undefined: it is a stranger's text. */
export function smiCount(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/** Of nvml.h, nvmlClocksThrottleReasons: those that say that something is not well. */
const throttles: readonly (readonly [number, string])[] = [
  [0x08, "hardware slowdown"],
  [0x20, "software thermal slowdown"],
  [0x40, "hardware thermal slowdown"],
  [0x80, "power brake"],
];

/** null: it is no mask. Idle, and limits that somebody set, are no reasons. */
export function parseThrottle(text: string | undefined): string[] | null {
  if (text === undefined || !/^0x[0-9a-f]{1,16}$/i.test(text)) return null;
  // The reasons stand in the lowest bits; a number holds as many as are needed.
  const mask = Number.parseInt(text.slice(-8).replace(/^0x/i, ""), 16);
  return throttles.flatMap(([bit, name]) => ((mask & bit) === 0 ? [] : [name]));
}

export const diagnosticOutcomes = ["pass", "warn", "fail", "skip"] as const;
export interface Diagnostic {
  readonly name: string;
  /** As DCGM counts cards; null: of the host. */
  readonly card: number | null;
  readonly outcome: (typeof diagnosticOutcomes)[number];
  readonly message: string;
}

const anything = v.optional(v.unknown());
const resultSchema = v.looseObject({
  status: v.string(),
  /** Before DCGM 4 "0", or "0,1,2"; since then a number of an entity. */
  gpu_ids: v.optional(v.string()),
  entity_id: v.optional(v.number()),
  warnings: anything,
  info: anything,
});
const diagnosticsSchema = v.looseObject({
  test_categories: v.array(
    v.looseObject({
      category: v.string(),
      tests: v.array(
        v.looseObject({
          name: v.string(),
          results: v.optional(v.array(resultSchema), []),
          test_summary: v.optional(v.looseObject({ status: v.string(), warnings: anything })),
        }),
      ),
    }),
  ),
});

export const MOST_DIAGNOSTICS = 1_024;

/** `dcgmi diag -j`; a string says why it is none. */
export function parseDiagnostics(output: string): readonly Diagnostic[] | string {
  // Before the JSON there may be lines of the host engine.
  const start = output.indexOf("{");
  let value: unknown;
  try {
    value = JSON.parse(start === -1 ? "" : output.slice(start));
  } catch {
    return `dcgmi printed no JSON: ${JSON.stringify(output.trim().slice(0, 160))}`;
  }
  const root = value as Readonly<Record<string, unknown>>;
  const body = root["DCGM Diagnostic"] ?? root["DCGM GPU Diagnostic"];
  const parsed = v.safeParse(diagnosticsSchema, body);
  if (!parsed.success) return `dcgmi's JSON is not what it was: ${parsed.issues[0].message}`;
  const all = parsed.output.test_categories.flatMap(({ category, tests }) =>
    tests.flatMap((test) => {
      const name = `${category}/${test.name}`.slice(0, 128);
      // Of a test that has no result of a card, the summary counts.
      const results = test.results.length > 0 ? test.results : [test.test_summary ?? []].flat();
      return results.map((result) => diagnosticOf(name, v.parse(resultSchema, result)));
    }),
  );
  return all.slice(0, MOST_DIAGNOSTICS);
}

function diagnosticOf(name: string, result: v.InferOutput<typeof resultSchema>): Diagnostic {
  const card = result.entity_id ?? smiCount(result.gpu_ids);
  const words = [result.warnings, result.info].flatMap(textsOf).join(" ");
  return {
    name,
    card: card ?? null,
    outcome: outcomeOf(result.status),
    message: words.replace(/\s+/g, " ").slice(0, 400) || result.status.slice(0, 64),
  };
}

/** Whatever a status is called that is not known, it is none that passes. */
function outcomeOf(status: string): Diagnostic["outcome"] {
  if (/^pass/i.test(status)) return "pass";
  if (/^skip|^not run/i.test(status)) return "skip";
  return /^warn/i.test(status) ? "warn" : "fail";
}

/** A text, a list of them, or of objects that have a `warning`, `error` or `message`. */
function textsOf(value: unknown): string[] {
  if (typeof value === "string") return [value];
  if (Array.isArray(value)) return value.slice(0, 16).flatMap(textsOf);
  if (typeof value !== "object" || value === null) return [];
  const object = value as Readonly<Record<string, unknown>>;
  return ["warning", "error", "message"].flatMap((key) =>
    typeof object[key] === "string" ? [object[key]] : [],
  );
}
