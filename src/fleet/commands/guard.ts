import { readFileSync } from "node:fs";
import { printText, tellText } from "../../command-line/output.ts";
import { bootClockNow } from "../../event-loop/clock.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { guard } from "../lifecycle-guard.ts";
import { encodeJournal } from "../lifecycle-journal.ts";
import { performGuard } from "../perform/boot-guard.ts";
import { readPath } from "./read-path.ts";

/** Says nothing where the current version simply runs: it stands in every start of the agent. */
export async function runGuard(flags: { readonly folder: string }): Promise<number> {
  const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  const decision = performGuard(readPath("--folder", flags.folder), (ground) => {
    const decided = guard({ ...ground, boot, now: Math.floor(bootClockNow()) });
    const next = decided.journal;
    return { ...decided, journal: next === undefined ? undefined : encodeJournal(next) };
  });
  const { run, reason } = decision;
  if (run === null) {
    tellText(`hostler fleet guard: ${reason}\n`);
    return ExitCode.refused;
  }
  if (reason !== null) await printText(`${run.version} is to run: ${reason}\n`);
  return ExitCode.done;
}
