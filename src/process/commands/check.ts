import { printJson, printText, tellText } from "../../command-line/output.ts";
import { formatErrors, formatWarning } from "../../toml/format-errors.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { readConfiguration } from "../configuration.ts";
import { MissingControllers, whyNotLimited } from "../perform/resources.ts";
import type { Configuration } from "../specification.ts";

/** Validates a file, and looks whether this host can keep what it limits; changes nothing. */
export async function runCheck(options: { readonly file: string; readonly json: boolean }) {
  const { file, json } = options;
  const outcome = readConfiguration(file);
  if (outcome.kind === "refused") {
    const { errors } = outcome;
    if (json) await printJson({ file, ok: false, errors, warnings: [] });
    else tellText(formatErrors(errors));
    return ExitCode.usage;
  }
  const { configuration, warnings } = outcome;
  const unable = whyNotLimited(configuration.processes);
  if (unable !== undefined) throw new MissingControllers(`${file}: ${unable}`);
  const order = startOrder(configuration);
  const { processes, partitions } = configuration;
  if (json) {
    await printJson({
      file,
      ok: true,
      errors: [],
      warnings,
      processes: processes.map(({ name }) => name),
      partitions: partitions.map(({ name }) => name),
      start_order: order,
    });
    return ExitCode.done;
  }
  tellText(warnings.map((warning) => `${formatWarning(warning)}\n`).join(""));
  const processCount = count(processes.length, "process", "es");
  const lines = [
    `ok: ${processCount}, ${count(partitions.length, "partition", "s")}`,
    ...order.map((names, index) => `${index === 0 ? "starts" : "  then"} ${names.join(", ")}`),
  ];
  await printText(`${lines.join("\n")}\n`);
  return ExitCode.done;
}

const count = (number: number, one: string, more: string) =>
  `${number} ${one}${number === 1 ? "" : more}`;

/** Which processes may start together, one group after the other. */
function startOrder({ processes }: Configuration): string[][] {
  const groups: string[][] = [];
  const started = new Set<string>();
  let waiting = [...processes];
  while (waiting.length > 0) {
    const able = waiting.filter(({ after }) => after.every((name) => started.has(name)));
    if (able.length === 0) break;
    groups.push(able.map(({ name }) => name));
    for (const { name } of able) started.add(name);
    waiting = waiting.filter(({ name }) => !started.has(name));
  }
  return groups;
}
