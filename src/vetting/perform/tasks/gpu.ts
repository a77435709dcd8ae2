import { readRas } from "../../../hardware/graphics-health.ts";
import { HostTree } from "../../../hardware/host-tree.ts";
import { type CardLinks, nvlinkQueries, parseNvlinks } from "../../../hardware/nvidia-links.ts";
import {
  parseDiagnostics,
  parseSmiTable,
  parseThrottle,
  type SmiQuery,
  type SmiTable,
  smiCount,
  smiQueries,
} from "../../../hardware/nvidia-smi.ts";
import { PCI_FOLDER, readLink } from "../../../hardware/pci-devices.ts";
import { milliseconds } from "../../../units/units.ts";
import {
  GPU_TASK,
  type GpuCard,
  type GpuInput,
  type GpuReport,
  gpuInputSchema,
  gpuLimits,
  gpuReportSchema,
} from "../../tasks/gpu.ts";
import { findTool, runTool } from "../run-tool.ts";
import { defineTask } from "../task.ts";

const NVIDIA = "10de";
/** The first question to a driver that is not loaded yet may take so long. */
const QUERY_LIMIT = milliseconds(60_000);

/**
 * Links and AMD's counters from /sys; what NVIDIA's driver alone knows from nvidia-smi, where that
 * is; diagnostics from dcgmi. What none of them sees is named, card by card.
 */
export const gpuTask = defineTask({
  name: GPU_TASK,
  input: gpuInputSchema,
  report: gpuReportSchema,
  run: (input, { signal }) =>
    testCards(input, { nvidiaSmi: findTool("nvidia-smi"), dcgmi: findTool("dcgmi") }, signal),
});

export interface GpuTools {
  readonly nvidiaSmi: string | null;
  readonly dcgmi: string | null;
}

export async function testCards(
  input: GpuInput,
  tools: GpuTools,
  signal: AbortSignal,
): Promise<GpuReport> {
  const tree = new HostTree(input.root);
  const unseen: GpuReport["unseen"] = [];
  const engines: GpuReport["engines"] = [{ name: "hostler", version: null }];
  const hasNvidia = input.cards.some(({ vendor }) => vendor === NVIDIA);
  const isOwn = input.engine === "own";
  const absent = isOwn ? "is not asked: the spec wants no tool" : "is not installed";
  const smi = hasNvidia ? await askSmi(isOwn ? null : tools.nvidiaSmi, absent, signal) : undefined;
  if (smi?.refusal === undefined && smi !== undefined) {
    engines.push({ name: "nvidia-smi", version: smi.version });
  }
  const cards = input.cards.map(({ pci, vendor, driver }) => {
    const link = readLink(tree, `${PCI_FOLDER}/${pci}`);
    const base: GpuCard = {
      ...{ pci, width: link.width, width_most: link.width_most },
      ...{
        temperature_c: null,
        power_w: null,
        ecc: null,
        rows: null,
        nvlink: null,
        throttle: null,
        broken: null,
      },
    };
    const card = vendor === NVIDIA && smi !== undefined ? withSmi(base, smi) : withRas(tree, base);
    const why = smi?.refusal ?? "the card does not have it, or its driver does not tell";
    const reason = vendor === NVIDIA ? why : `driver ${driver ?? "none"}: nothing in /sys tells it`;
    const miss = (property: string) => unseen.push({ property, component: pci, reason });
    if (card.width === null) miss("gpu.link");
    if (card.broken !== null) return card;
    if (card.ecc === null) miss("gpu.ecc");
    if (card.rows === null) miss("gpu.rows");
    if (card.throttle === null) miss("gpu.throttle");
    return card;
  });
  const diagnostics = await diagnose(input, isOwn ? null : tools.dcgmi, { absent, signal });
  if (typeof diagnostics === "string") {
    const reason = diagnostics.slice(0, 512);
    unseen.push({ property: "gpu.diagnostics", component: "host", reason });
  } else if (diagnostics !== null) engines.push({ name: "dcgmi", version: null });
  return {
    engines,
    cards,
    diagnostics: typeof diagnostics === "string" ? null : diagnostics,
    unseen: unseen.slice(0, gpuLimits.unseen),
  };
}

interface SmiAnswers {
  /** Why nothing is known; undefined: the driver answered. */
  readonly refusal: string | undefined;
  readonly version: string | null;
  readonly tables: Readonly<Partial<Record<SmiQuery, SmiTable>>>;
  /** By UUID. */
  readonly links: ReadonlyMap<string, CardLinks>;
}

async function askSmi(
  tool: string | null,
  absent: string,
  signal: AbortSignal,
): Promise<SmiAnswers> {
  const links = new Map<string, CardLinks>();
  const refused = (refusal: string) => ({ refusal, version: null, tables: {}, links });
  if (tool === null) return refused(`nvidia-smi ${absent}`);
  const tables: Partial<Record<SmiQuery, SmiTable>> = {};
  for (const [name, words] of Object.entries(smiQueries)) {
    const answer = await runTool([tool, ...words], { limit: QUERY_LIMIT, signal });
    if (answer.kind === "failed") return refused(answer.reason.slice(0, 400));
    const table = parseSmiTable(`${answer.output}\n${answer.said}`);
    const isNothing = table.cards.size === 0 && table.broken.size === 0;
    if (name === "base" && isNothing) {
      const said = (answer.output.trim() || answer.said).split("\n", 1)[0] ?? "";
      return refused(`nvidia-smi ended with ${answer.code}: ${said}`.slice(0, 400));
    }
    // A field that this version does not know: that query alone has no answer.
    if (!isNothing) tables[name as SmiQuery] = table;
  }
  const version = tables.base?.cards.values().next().value?.get("driver_version") ?? null;
  return { refusal: undefined, version, tables, links: await askLinks(tool, signal) };
}

/** A version, or a card, that does not know the question prints something else: there are none. */
async function askLinks(tool: string, signal: AbortSignal): Promise<SmiAnswers["links"]> {
  const ask = async (words: readonly string[]) => {
    const answer = await runTool([tool, ...words], { limit: QUERY_LIMIT, signal });
    return answer.kind === "ended" ? answer.output : "";
  };
  return parseNvlinks(await ask(nvlinkQueries.states), await ask(nvlinkQueries.errors));
}

function withSmi(card: GpuCard, { refusal, tables, links }: SmiAnswers): GpuCard {
  if (refusal !== undefined) return card;
  const of = (query: SmiQuery, field: string) => tables[query]?.cards.get(card.pci)?.get(field);
  const words = Object.values(tables).map((table) => table?.broken.get(card.pci));
  const lost = words.find((text) => text !== undefined);
  const isListed = tables.base?.cards.has(card.pci) === true;
  const broken = lost ?? (isListed ? null : "nvidia-smi does not list it");
  return {
    ...card,
    temperature_c: decimal(of("base", "temperature.gpu")),
    power_w: decimal(of("base", "power.draw")),
    ecc: eccOf(of),
    rows: rowsOf(of) ?? pagesOf(of),
    nvlink: linksOf(links.get(of("base", "uuid") ?? "")),
    throttle:
      parseThrottle(of("events", "clocks_event_reasons.active")) ??
      parseThrottle(
        of("throttle", "clocks_throttle_reasons.active") ??
          of("throttle", "clocks_event_reasons.active"),
      ),
    broken,
  };
}

type Field = (query: SmiQuery, field: string) => string | undefined;

function eccOf(of: Field): GpuCard["ecc"] {
  const mode = of("ecc", "ecc.mode.current");
  const volatile = smiCount(of("ecc", "ecc.errors.uncorrected.volatile.total"));
  const ever = smiCount(of("ecc", "ecc.errors.uncorrected.aggregate.total"));
  if (mode === undefined && volatile === undefined && ever === undefined) return null;
  const uncorrected = volatile === undefined ? ever : Math.max(volatile, ever ?? 0);
  return {
    enabled: mode === undefined ? null : mode === "Enabled",
    corrected: smiCount(of("ecc", "ecc.errors.corrected.volatile.total")) ?? null,
    uncorrected: uncorrected ?? null,
  };
}

function rowsOf(of: Field): GpuCard["rows"] {
  const corrected = smiCount(of("rows", "remapped_rows.correctable"));
  const uncorrected = smiCount(of("rows", "remapped_rows.uncorrectable"));
  if (corrected === undefined || uncorrected === undefined) return null;
  return {
    remapped: corrected + uncorrected,
    pending: isYes(of("rows", "remapped_rows.pending")),
    failed: isYes(of("rows", "remapped_rows.failure")),
  };
}

function pagesOf(of: Field): GpuCard["rows"] {
  const single = smiCount(of("pages", "retired_pages.single_bit_ecc.count"));
  const double = smiCount(of("pages", "retired_pages.double_bit.count"));
  if (single === undefined || double === undefined) return null;
  const pending = isYes(of("pages", "retired_pages.pending"));
  return { remapped: single + double, pending, failed: false };
}

const linksOf = (found: CardLinks | undefined): GpuCard["nvlink"] =>
  found === undefined ? null : { ...found, inactive: [...found.inactive] };

/** "Yes" and "1", as versions have it. */
const isYes = (text: string | undefined): boolean => /^(yes|[1-9]\d*)$/i.test(text ?? "");

const decimal = (text: string | undefined): number | null =>
  text !== undefined && /^-?\d{1,6}(\.\d{1,6})?$/.test(text) ? Number(text) : null;

function withRas(tree: HostTree, card: GpuCard): GpuCard {
  const counts = readRas(tree, card.pci);
  if (counts === null) return card;
  const { corrected, uncorrected, retired, pending } = counts;
  return {
    ...card,
    ecc: { enabled: true, corrected, uncorrected },
    rows: { remapped: retired, pending: pending > 0, failed: false },
  };
}

/** null: the spec wants none, or no card that DCGM knows. A string: why there are none. */
async function diagnose(
  { cards, dcgm_level: level, diagnostics_s: limit }: GpuInput,
  dcgmi: string | null,
  { absent, signal }: { readonly absent: string; readonly signal: AbortSignal },
): Promise<GpuReport["diagnostics"] | string> {
  if (level === 0) return null;
  if (!cards.some(({ vendor }) => vendor === NVIDIA)) return "there is no card that DCGM knows";
  if (dcgmi === null) return `dcgmi ${absent}`;
  const words = [dcgmi, "diag", "-r", String(level), "-j"];
  const answer = await runTool(words, { limit: milliseconds(limit * 1_000), signal });
  if (answer.kind === "failed") return answer.reason;
  // It ends with a number of its own when a test failed, and has printed all the same.
  const found = parseDiagnostics(answer.output);
  if (typeof found !== "string") return found.map((one) => ({ ...one }));
  return `${found} (ended with ${answer.code}: ${answer.said})`;
}
