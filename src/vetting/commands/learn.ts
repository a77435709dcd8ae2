import * as v from "valibot";
import { printJson, printText, tellText } from "../../command-line/output.ts";
import { renderTableWithin } from "../../command-line/table.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { type Inventory, inventorySchema } from "../../hardware/inventory.ts";
import { escapeControls } from "../../logging/format.ts";
import { readDocument } from "../../toml/document.ts";
import { formatErrors } from "../../toml/format-errors.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { runApi } from "../protocol-api.ts";
import type { DiffPart } from "../protocol-operator.ts";
import { type RuleFinding, specNameSchema, specSchema } from "../protocol-spec.ts";
import { type Part, parts } from "../spec/facts.ts";
import { learnSpec } from "../spec/learn.ts";
import { readSpec } from "../spec/read-spec.ts";
import { validateSpec } from "../spec/validate.ts";
import { type ClientFlags, connect, type RunFlags, runNumber, show } from "./ask.ts";
import { errorsOf, readNamed, writeNew } from "./files.ts";

/** Specs that are learned, checked, and held beside a host. */

export async function runSpecLearn(
  flags: ClientFlags & {
    readonly run: readonly string[];
    readonly name: string;
    readonly serials: boolean;
    readonly without: readonly string[];
    readonly out: string | undefined;
  },
): Promise<number> {
  const { name, serials } = flags;
  if (!v.is(specNameSchema, name)) {
    throw new UsageError(
      `Expected a name of small letters, digits, dots and dashes, received ${name}`,
    );
  }
  const without = flags.without.map(partArgument);
  const inventories = await inventoriesOf(flags, flags.run.map(runNumber));
  const { stages } = v.parse(specSchema, { name });
  const learned = learnSpec(inventories, { name, serials, without, stages });
  if (learned.kind === "too-many") {
    const counts = Object.entries(learned.rules).filter(([, count]) => count > 0);
    const told = counts.map(([part, count]) => `${part} ${count}`).join(", ");
    throw new UsageError(`The spec would have too many rules: ${told}. Say --without for a part`);
  }
  for (const left of learned.leftOut) tellText(`${escapeControls(`left out: ${left}`)}\n`);
  const { out } = flags;
  if (out === undefined) {
    await printJson(learned.spec);
    return ExitCode.done;
  }
  writeNew("write the spec", out, `${JSON.stringify(learned.spec, null, 2)}\n`);
  return ExitCode.done;
}

function partArgument(text: string): Part {
  const part = parts.find((one) => one === text);
  if (part !== undefined) return part;
  throw new UsageError(`Expected a part: ${parts.join(", ")}, received ${text}`);
}

async function inventoriesOf(
  flags: ClientFlags,
  runs: readonly number[],
): Promise<[Inventory, ...Inventory[]]> {
  using client = await connect(flags);
  const inventories: Inventory[] = [];
  for (const run of runs) {
    const { inventory, view } = await client.call(runApi.dossier, { run });
    if (inventory === null) {
      throw new UsageError(`Expected a run with an inventory, received ${run} (${view.state})`);
    }
    if (view.verdict !== "passed") {
      tellText(`run ${run} has not passed (${view.verdict ?? view.state}): is it a good host?\n`);
    }
    inventories.push(inventory);
  }
  const [first, ...others] = inventories;
  if (first === undefined) throw new UsageError("Expected the number of a run, received none");
  return [first, ...others];
}

export async function runSpecCheck(flags: {
  readonly file: string;
  readonly inventory: string | undefined;
  readonly json: boolean;
}): Promise<number> {
  const read = readSpec(readNamed("read the spec", flags.file));
  if (read.kind === "refused") return await refuse(flags, flags.file, read.mistakes);
  const { spec } = read;
  if (flags.inventory === undefined) {
    if (flags.json) await printJson({ spec: spec.name, rules: spec.rules.length, errors: [] });
    else await printText(`${spec.name}: ${spec.rules.length} rules, and no mistake\n`);
    return ExitCode.done;
  }
  const text = readNamed("read the inventory", flags.inventory);
  const found = readDocument(text, inventoryOrDossier, 512 * 1024 ** 2);
  if (found.kind === "refused") return await refuse(flags, flags.inventory, found.mistakes);
  const findings = validateSpec(spec, found.value);
  const broken = findings.filter(({ outcome }) => outcome !== "PASS");
  if (flags.json) await printJson({ findings });
  else if (broken.length === 0)
    await printText(`${spec.name}: all ${findings.length} rules hold\n`);
  else await printText(renderRows(broken));
  return broken.length === 0 ? ExitCode.done : 3;
}

/** What `show --json` prints has the inventory in it. */
const inventoryOrDossier = v.pipe(
  v.looseObject({}),
  v.transform((found) => ("inventory" in found ? found["inventory"] : found)),
  inventorySchema,
);

async function refuse(
  flags: { readonly json: boolean },
  file: string,
  mistakes: Parameters<typeof errorsOf>[1],
): Promise<number> {
  const errors = errorsOf(file, mistakes);
  if (flags.json) await printJson({ errors });
  else tellText(formatErrors(errors));
  return ExitCode.usage;
}

export async function runSpecDiff(flags: RunFlags): Promise<number> {
  const run = runNumber(flags.run);
  return await show(
    flags,
    (client) => client.call(runApi.diff, { run }),
    ({ parts: found }) => renderDiff(found),
  );
}

function renderDiff(found: readonly DiffPart[]): string {
  const sections = found.map(({ part, rows, broken, free }) => {
    const words = `${part}: ${rows.length - broken} rules hold, ${broken} are broken; `;
    const unasked = `${free.length} facts that no rule is about\n`;
    const table = renderRows(rows.slice(0, broken));
    return `${words}${unasked}${broken === 0 ? "" : table}`;
  });
  return sections.join("\n");
}

function renderRows(rows: readonly RuleFinding[]): string {
  return renderTableWithin(
    ["RULE", "PLACE", "EXPECTED", "FOUND", "BECAUSE"],
    rows.map(({ outcome, path, expected, found, because }) => [
      ...[outcome, path, expected, found, because ?? ""],
    ]),
    process.stdout.columns,
  );
}
