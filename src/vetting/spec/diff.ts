import type { Inventory } from "../../hardware/inventory.ts";
import type { DiffPart } from "../protocol-operator.ts";
import type { Spec } from "../protocol-spec.ts";
import { type Fact, factsOf, type Part, parts } from "./facts.ts";
import { foundText } from "./match.ts";
import { parsePath } from "./path.ts";
import { validateSpec } from "./validate.ts";

/** A host beside its spec, part by part: what is broken first, and what no rule speaks of. Pure. */

/** Parts of which there is anything, in their order. */
export function specDiff(spec: Pick<Spec, "rules">, inventory: Inventory): DiffPart[] {
  const rows = Map.groupBy(validateSpec(spec, inventory), ({ path }) => partOf(path));
  const asked = new Set(spec.rules.map(({ path }) => path));
  const facts = factsOf(inventory, { serials: true }).filter(({ path }) => !isAsked(path, asked));
  const free = Map.groupBy(facts, ({ part }) => part);
  return [...parts, "other" as const].flatMap((part) => {
    const found = rows.get(part) ?? [];
    const unasked = part === "other" ? [] : (free.get(part) ?? []);
    if (found.length === 0 && unasked.length === 0) return [];
    const broken = found.filter(({ outcome }) => outcome !== "PASS");
    const held = found.filter(({ outcome }) => outcome === "PASS");
    return [{ part, rows: [...broken, ...held], broken: broken.length, free: unasked.map(freeOf) }];
  });
}

/** The rule may ask for each element what the fact says of one. */
function isAsked(path: string, asked: ReadonlySet<string>): boolean {
  return asked.has(path) || asked.has(path.replace(/\[[^\]]*\]/, "[*]"));
}

function freeOf({ path, match }: Fact): { readonly path: string; readonly found: string } {
  return { path, found: "value" in match ? foundText(match.value, path) : match.is };
}

const partOfWord: Readonly<Record<string, Part>> = {
  system: "system",
  board: "system",
  chassis: "system",
  firmware: "firmware",
  processors: "processors",
  threads_online: "processors",
  numa_nodes: "processors",
  memory: "memory",
  disks: "disks",
  network: "network",
  graphics: "graphics",
  pci: "pci",
  power_supplies: "power",
  bmc: "bmc",
};

function partOf(path: string): Part | "other" {
  const parsed = parsePath(path);
  const word = parsed.kind === "path" ? parsed.steps[0]?.word : undefined;
  return partOfWord[word ?? ""] ?? "other";
}
