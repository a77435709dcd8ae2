import { printJson, tellText } from "../../command-line/output.ts";
import { wholeNumber } from "../../command-line/parse.ts";
import { renderTableWithin } from "../../command-line/table.ts";
import { formatErrors } from "../../toml/format-errors.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { type SpecSummary, specApi } from "../protocol-api.ts";
import { readSpec } from "../spec/read-spec.ts";
import { type ClientFlags, connect, show } from "./ask.ts";
import { errorsOf, readNamed } from "./files.ts";

/** What a command asks of specs. */

interface SpecFlags extends ClientFlags {
  readonly spec: string;
}

export async function runSpecList(flags: ClientFlags): Promise<number> {
  return await show(
    flags,
    (client) => client.call(specApi.specs, {}),
    ({ specs }) => renderSpecs(specs),
  );
}

export async function runSpecPut(
  flags: ClientFlags & { readonly file: string; readonly revision: string | undefined },
): Promise<number> {
  const read = readSpec(readNamed("read the spec", flags.file));
  if (read.kind === "refused") {
    tellText(formatErrors(errorsOf(flags.file, read.mistakes)));
    return ExitCode.usage;
  }
  const { spec } = read;
  const expected = flags.revision === undefined ? undefined : revisionOf(flags.revision, 0);
  return await show(
    flags,
    (client) =>
      client.call(specApi.specPut, {
        ...{ spec: spec.name, content: spec },
        ...(expected !== undefined && { expected_revision: expected }),
      }),
    (summary) => renderSpecs([summary]),
  );
}

export async function runSpecGet(
  flags: SpecFlags & { readonly revision: string | undefined },
): Promise<number> {
  const { spec } = flags;
  const revision = flags.revision === undefined ? undefined : revisionOf(flags.revision, 1);
  using client = await connect(flags);
  const asked = { spec, ...(revision !== undefined && { revision }) };
  const answer = await client.call(specApi.spec, asked);
  await printJson(flags.json ? answer : answer.spec);
  return ExitCode.done;
}

export async function runSpecRemove(flags: SpecFlags): Promise<number> {
  const { spec } = flags;
  return await show(
    flags,
    (client) => client.call(specApi.specRemove, { spec }),
    () => `${spec} is taken away\n`,
  );
}

const revisionOf = (text: string, least: number) =>
  wholeNumber(text, { name: "--revision", least, most: 999_999_999 });

function renderSpecs(specs: readonly SpecSummary[]): string {
  if (specs.length === 0) return "there is no spec yet: hostler vetting spec put FILE\n";
  const columns = ["SPEC", "REVISION", "RULES", "CHANGED", "DESCRIPTION"];
  const rows = specs.map(({ name, revision, rules, changed, description }) => [
    ...[name, String(revision), String(rules), changed.slice(0, 19).replace("T", " ")],
    description,
  ]);
  return renderTableWithin(columns, rows, process.stdout.columns);
}
