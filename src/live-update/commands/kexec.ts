import { printJson, printText, tellText } from "../../command-line/output.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { formatDuration } from "../../units/units.ts";
import { ConnectionLost, LiveUpdateClient, LiveUpdateError } from "../client.ts";
import type { EntryWay } from "../options.ts";
import { ENTERING_KERNEL, type KexecResult, type UpdateEventRecord } from "../protocol.ts";
import { openProgress, type Progress } from "./progress.ts";
import { renderOutcomes } from "./show.ts";
import { counted, streamLine } from "./words.ts";

interface KexecOptions {
  readonly "dry-run": boolean;
  readonly "include-bare": boolean;
  readonly "discard-unclaimed": boolean;
  readonly by: EntryWay;
  readonly "control-socket": string;
  readonly json: boolean;
}

/** How it ended, as far as a process of the old kernel can see. */
type Ending =
  | { readonly kind: "answered"; readonly result: KexecResult }
  | { readonly kind: "entered"; readonly update: string | null };

/** Updates the kernel, and shows who is ready; an interrupt aborts it. */
export async function runKexec(options: KexecOptions): Promise<number> {
  using client = await LiveUpdateClient.connect(options["control-socket"]);
  const progress = openProgress(client);
  const interrupt = () => abort(client);
  process.once("SIGINT", interrupt);
  let keep = false;
  try {
    const ending = await follow(client, options, progress);
    keep = ending.kind === "entered";
    progress.end({ keep });
    return await tellEnding(ending, options.json);
  } finally {
    progress.end({ keep });
    process.off("SIGINT", interrupt);
  }
}

/** Asked for once: at a second interrupt this process ends, and luod goes on with the abort. */
function abort(client: LiveUpdateClient): void {
  tellText("aborting the update\n");
  // Too late, or there is none: what it came to is told by the answer to kexec.
  client.abort("interrupted by the operator").catch(() => {});
}

async function follow(
  client: LiveUpdateClient,
  options: KexecOptions,
  progress: Progress,
): Promise<Ending> {
  let update: string | null = null;
  let isEntering = false;
  const events = client.kexec({
    dryRun: options["dry-run"],
    includeBare: options["include-bare"],
    discardUnclaimed: options["discard-unclaimed"],
    by: options.by,
  });
  try {
    for (;;) {
      const next = await events.next();
      if (next.done === true) return { kind: "answered", result: next.value };
      update = next.value.update ?? update;
      isEntering = isInEntry(isEntering, next.value);
      progress.note(next.value);
    }
  } catch (error) {
    if (!(error instanceof ConnectionLost)) throw error;
    if (isEntering) return { kind: "entered", update };
    throw new LiveUpdateError(
      "luod went away before the new kernel was entered; what became of the update is told by " +
        "luoctl status when it is there again",
      { cause: error },
    );
  }
}

/** The kernel can still say no after that. */
function isInEntry(before: boolean, { what }: UpdateEventRecord): boolean {
  return what === ENTERING_KERNEL || (before && !what.startsWith("abort"));
}

async function tellEnding(ending: Ending, json: boolean): Promise<number> {
  if (ending.kind === "entered") {
    const reason = "the new kernel is being entered";
    if (json) await printJson({ update: ending.update, outcome: "entered", reason });
    else await printText(`${reason}\n`);
    return ExitCode.done;
  }
  const { result } = ending;
  if (json) await printJson(result);
  else await printText(renderResult(result));
  if (result.outcome === "dry-run") return ExitCode.done;
  throw new LiveUpdateError(describeFailure(result));
}

/** The table of clients, who took no part at all, and of a dry run that went well its sum. */
export function renderResult(result: KexecResult): string {
  const { clients, outcome, left_out: leftOut, barrier_ms: barrier } = result;
  const table = clients.length === 0 ? "" : renderOutcomes(clients);
  const others = leftOut
    .filter(({ id }) => clients.every((client) => client.id !== id))
    .map(({ id, reason }) => streamLine(["left out:", `${id}, ${reason}`]))
    .join("");
  if (outcome !== "dry-run") return `${table}${others}`;
  if (clients.length === 0) return `${others}dry run: no client took part\n`;
  const ready = clients.filter(({ state }) => state === "ready").length;
  const took = barrier === null ? "" : ` after ${formatDuration(barrier)}`;
  const words = `dry run: ${ready} of ${counted(clients.length, "client")} ready${took}`;
  return `${table}${others}${streamLine([words])}`;
}

function describeFailure({ outcome, reason }: KexecResult): string {
  if (outcome === "aborted") return `The update was aborted: ${reason}. Everything is as before.`;
  return `The kernel refused to be replaced: ${reason}. Everything is as before; try it again.`;
}
