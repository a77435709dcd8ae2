/** How long nobody answers at the control socket while an orchestrator becomes another program. */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { connectControl } from "../../src/messaging/control-client.ts";
import { startProgram } from "../../test/support/program.ts";
import { reexecute } from "../../test/support/reexecution.ts";
import { waitFor } from "../../test/support/wait-for.ts";
import type { Step } from "../terminal.ts";

export interface ReexecutionFindings {
  readonly processes: number;
  /** Of all of their logs, which the next program has as well. */
  readonly lines: number;
  /** Milliseconds: the longest time of one question, asked again and again, in each. */
  readonly silences: readonly number[];
}

const sizes = [
  { processes: 1, lines: 10 },
  { processes: 20, lines: 20_000 },
  { processes: 100, lines: 100_000 },
] as const;

/** @param files the compiled file, and a folder that is ours */
export async function measureReexecutions(
  files: { readonly folder: string; readonly hostler: string },
  { count, step }: { readonly count: number; readonly step: Step },
): Promise<ReexecutionFindings[]> {
  const found: ReexecutionFindings[] = [];
  for (const { processes, lines } of sizes) {
    step.say(`${processes} processes`);
    const folder = join(files.folder, `reexecution-${processes}`);
    mkdirSync(folder);
    const silences = await measureOne(files.hostler, { folder, processes, lines, count });
    found.push({ processes, lines, silences });
  }
  return found;
}

async function measureOne(
  hostler: string,
  options: { folder: string; processes: number; lines: number; count: number },
): Promise<number[]> {
  const { folder, processes, lines, count } = options;
  const [configuration, socket] = [join(folder, "processes.toml"), join(folder, "control")];
  const names = Array.from({ length: processes }, (_, index) => `process-${index}`);
  const script = (name: string) =>
    `seq ${lines / processes}; touch ${join(folder, name)}; exec sleep infinity`;
  const entries = names.map(
    (name) => `[process.${name}]\ncommand = ["/bin/sh", "-c", "${script(name)}"]\n`,
  );
  writeFileSync(configuration, entries.join("\n"));
  const words = ["process", "orchestrator", "--config", configuration, "--control-socket", socket];
  await using orchestrator = startProgram([hostler, ...words]);
  await waitFor(
    `the lines of ${processes} processes`,
    () => names.every((name) => existsSync(join(folder, name))),
    60_000,
  );
  const silences: number[] = [];
  while (silences.length < count) silences.push(await silenceOf(socket));
  orchestrator.kill("SIGTERM");
  await orchestrator.ended();
  return silences;
}

/** Asks on connections of its own, one after the other, until the next program has answered. */
async function silenceOf(socket: string): Promise<number> {
  let isOver = false;
  const next = reexecute(socket).finally(() => {
    isOver = true;
  });
  let longest = 0;
  while (!isOver) {
    const begun = performance.now();
    const client = await connectControl(socket);
    await client.request("ping");
    client.close();
    longest = Math.max(longest, performance.now() - begun);
  }
  await next;
  return longest;
}
