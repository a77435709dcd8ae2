import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { durationArgument } from "../../command-line/parse.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { withNamedFile } from "../../journal/file-refused.ts";
import { apiLimits, runApi } from "../protocol-api.ts";
import type { RunView } from "../protocol-operator.ts";
import { type RunFlags, runNumber, show, stageArgument } from "./ask.ts";
import { renderRuns } from "./words.ts";

/** What a command has happen to a run. */

interface ReasonFlags extends RunFlags {
  readonly reason: string | undefined;
}

const render = (view: RunView) => renderRuns([view], process.stdout.columns);

function asked({ run, reason }: ReasonFlags) {
  return { run: runNumber(run), ...(reason !== undefined && { reason }) };
}

export async function runCancel(flags: ReasonFlags): Promise<number> {
  const input = asked(flags);
  return await show(flags, (client) => client.call(runApi.cancel, input), render);
}

export async function runAbort(flags: ReasonFlags): Promise<number> {
  const input = asked(flags);
  return await show(flags, (client) => client.call(runApi.abort, input), render);
}

export async function runRetry(
  flags: ReasonFlags & { readonly stage: string | undefined; readonly wipe: readonly string[] },
): Promise<number> {
  const { stage, wipe } = flags;
  const input = {
    ...asked(flags),
    ...(stage !== undefined && { stage: stageArgument(stage) }),
    ...(wipe.length > 0 && { wipe: [...wipe] }),
  };
  return await show(flags, (client) => client.call(runApi.retry, input), render);
}

export async function runOverride(
  flags: RunFlags & { readonly what: string; readonly reason: string },
): Promise<number> {
  const { what, reason } = flags;
  const run = runNumber(flags.run);
  const whole = (["SpecValidate", "identity"] as const).find((one) => one === what);
  const input = { run, what: whole ?? stageArgument(what), reason };
  return await show(flags, (client) => client.call(runApi.override, input), render);
}

export async function runHold(
  flags: RunFlags & { readonly key: string; readonly for: string },
): Promise<number> {
  const run = runNumber(flags.run);
  const lasts = durationArgument("--for", flags.for, { most: apiLimits.hold });
  const key = readKey(flags.key);
  return await show(
    flags,
    (client) => client.call(runApi.hold, { run, key, for_ms: lasts }),
    (view) => render(view) + holdText(view),
  );
}

/** The first line that is a key: an agent takes one alone. */
function readKey(given: string): string {
  const path = resolve(given);
  const file = { what: "read the key", path, otherwise: "give another --key" };
  const text = withNamedFile(file, () => readFileSync(path, "utf8"));
  if (text.includes("PRIVATE KEY")) {
    throw new UsageError(`Expected a public key after --key, received a private one: ${path}.pub?`);
  }
  const lines = text.split("\n").map((line) => line.trim());
  return lines.find((line) => line !== "" && !line.startsWith("#")) ?? "";
}

function holdText({ address, hold }: RunView): string {
  const fingerprint = hold?.host_key ?? "not told yet: hostler vetting show has it then";
  return `ssh root@${address ?? "ADDRESS"}; its host key: ${fingerprint}\n`;
}

export async function runRelease(
  flags: ReasonFlags & { readonly after: "shutdown" | "reboot" | "stay" },
): Promise<number> {
  const input = { ...asked(flags), after: flags.after };
  return await show(flags, (client) => client.call(runApi.release, input), render);
}
