import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { printJson, printText, tellText } from "../../command-line/output.ts";
import { durationArgument, wholeNumber } from "../../command-line/parse.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { EventLoop } from "../../event-loop/event-loop.ts";
import { startWorker } from "../../event-loop/worker-factory.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { type Fault, faults } from "../prove/faults.ts";
import { type Proven, Prover, type ProverEvent } from "../prove/prover.ts";
import { renderProgress, renderProofs } from "./proofs.ts";

/** As `hostler vetting prove --help` lists it. */
const NOT_PROVEN = 4;
const HEALTHY = "healthy";
const memoryRange = { name: "--memory", least: 1_024, most: 65_536 } as const;

interface ProveFlags {
  readonly kernel: string | undefined;
  readonly initramfs: string | undefined;
  readonly only: string | undefined;
  readonly list: boolean;
  readonly qemu: string;
  readonly memory: string;
  readonly patience: string;
  readonly console: boolean;
  readonly json: boolean;
}

export async function runProve(flags: ProveFlags): Promise<number> {
  if (flags.list) return await listFaults(flags.json);
  const chosen = choose(flags.only);
  const options = {
    image: {
      kernel: fileOf("--kernel", flags.kernel),
      initramfs: fileOf("--initramfs", flags.initramfs),
    },
    qemu: flags.qemu,
    program: "/proc/self/exe",
    memoryMebibytes: wholeNumber(flags.memory, memoryRange),
    patience: durationArgument("--patience", flags.patience, { most: 86_400_000 }),
    onProgress: (event: ProverEvent) => tellProgress(event, flags),
  };
  const folder = mkdtempSync(join(tmpdir(), "hostler-prove-"));
  const stop = new AbortController();
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, () => stop.abort());
  try {
    using loop = new EventLoop(startWorker);
    await using prover = await Prover.start(loop, { ...options, folder, signal: stop.signal });
    const proofs: Proven[] = [];
    for (const fault of chosen) {
      if (stop.signal.aborted) return ExitCode.refused;
      proofs.push(fault === HEALTHY ? await prover.proveHealthy() : await prover.proveFault(fault));
    }
    if (flags.json) await printJson({ proofs });
    else await printText(renderProofs(proofs, process.stdout.columns));
    return proofs.every(({ proof }) => proof.kind === "proven") ? ExitCode.done : NOT_PROVEN;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function listFaults(json: boolean): Promise<number> {
  const all = faults.map(({ name, wrong, expected }) => ({ name, wrong, found_by: expected.by }));
  if (json) await printJson({ faults: all });
  else {
    const lines = all.map(({ name, wrong, found_by }) => `${name}  ${wrong}  (${found_by})\n`);
    await printText(lines.join(""));
  }
  return ExitCode.done;
}

/** @throws UsageError for a name that is none */
function choose(only: string | undefined): readonly (Fault | typeof HEALTHY)[] {
  const all = [HEALTHY, ...faults] as const;
  if (only === undefined) return all;
  const nameOf = (one: Fault | typeof HEALTHY) => (one === HEALTHY ? one : one.name);
  return only.split(",").map((name) => {
    const found = all.find((one) => nameOf(one) === name.trim());
    if (found !== undefined) return found;
    throw new UsageError(
      `Expected names of faults for --only, received ${name}. There are: ` +
        all.map(nameOf).join(", "),
    );
  });
}

/** @throws UsageError when it is not given, or is none */
function fileOf(flag: string, path: string | undefined): string {
  const mend = "npx bun@1.4.5 run live-image makes the live image";
  if (path === undefined) throw new UsageError(`Expected ${flag} FILE, received none. ${mend}`);
  if (statSync(path, { throwIfNoEntry: false })?.isFile() === true) return resolve(path);
  throw new UsageError(`Expected a file for ${flag}, received ${path}. ${mend}`);
}

/** On standard error: standard output is the answer's. */
function tellProgress(event: ProverEvent, { json, console: shown }: ProveFlags): void {
  if (event.kind === "console") {
    if (shown) tellText(event.text);
    return;
  }
  const line = renderProgress(event);
  if (line !== undefined && !json) tellText(line);
}
