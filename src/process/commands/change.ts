import { printJson, printText, tellText } from "../../command-line/output.ts";
import { durationArgument } from "../../command-line/parse.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { ANSWER_TIME, expiry } from "../../messaging/control-client.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { nearest } from "../../units/nearest.ts";
import { signalNames, signalNumber } from "../../units/signals.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";
import { OrchestratorClient, OrchestratorError } from "../client.ts";
import type { ProcessSummary } from "../protocol.ts";
import { endingText, phaseText, streamLine } from "./words.ts";

interface ChangeOptions {
  readonly verb: "start" | "stop" | "restart";
  readonly name: readonly string[];
  readonly "control-socket": string;
  readonly json: boolean;
  readonly wait: boolean;
  readonly timeout: string | undefined;
  readonly now?: boolean;
}

/** What is waited for, at most so long. */
interface Awaited {
  readonly until: "ready" | "stopped";
  readonly limit: Milliseconds | undefined;
  /** The limit, counted from before the orchestrator was reached. */
  readonly expired: Promise<"expired"> | undefined;
  readonly onceOnly: boolean;
  /** What happened after this event counts. */
  readonly since?: number;
}

/** Starts, stops or restarts processes; a name that is refused does not keep the others. */
export async function runChange(options: ChangeOptions): Promise<number> {
  const { verb, wait } = options;
  const names = new Set(options.name);
  const until = verb === "stop" ? "stopped" : "ready";
  const awaited = { until, onceOnly: true, ...timeLimit(options.timeout) } as const;
  if (awaited.limit !== undefined && !wait) {
    throw new UsageError("Expected --wait beside --timeout: without it nothing is waited for");
  }
  using client = await OrchestratorClient.connect(
    options["control-socket"],
    Math.min(awaited.limit ?? ANSWER_TIME, ANSWER_TIME),
  );
  const changed = await client.change(verb, [...names], { now: options.now === true });
  const { since } = changed;
  const outcomes = await settleAll(changed.outcomes, async (outcome) => {
    if ("error" in outcome) throw outcome.error;
    const { name, summary } = outcome;
    const others = summary.still_run_after?.filter((other) => !names.has(other)) ?? [];
    if (others.length > 0)
      tellText(streamLine([`${name}: what comes after it runs on: ${others.join(", ")}`]));
    return wait ? await awaitState(client, name, { ...awaited, since }) : summary;
  });
  const done = outcomes.flatMap((outcome) =>
    outcome.status === "fulfilled" ? [outcome.value] : [],
  );
  await printSummaries(done, { json: options.json, stopped: wait && verb === "stop" });
  const refusals = outcomes.flatMap((outcome) =>
    outcome.status === "rejected" ? [outcome.reason as Error] : [],
  );
  const [first] = refusals;
  if (first === undefined) return ExitCode.done;
  if (refusals.length === 1 || !(first instanceof OrchestratorError)) throw first;
  throw new OrchestratorError(refusals.map(({ message }) => message).join("\n"));
}

/**
 * What becomes of each item, in their order. So many are waited for at once: a connection has room
 * for 64 requests, and one that is waited for in vain is looked at once more while it is open.
 */
const WAITS_AT_ONCE = 24;

async function settleAll<Item, Result>(
  items: readonly Item[],
  act: (item: Item) => Promise<Result>,
): Promise<PromiseSettledResult<Result>[]> {
  const results: PromiseSettledResult<Result>[] = [];
  const left = items.entries();
  const work = async () => {
    for (const [index, item] of left) {
      const [result] = await Promise.allSettled([act(item)]);
      results[index] = result;
    }
  };
  await Promise.all(Array.from({ length: WAITS_AT_ONCE }, work));
  return results;
}

const shortSignalNames = signalNames.map((name) => name.slice("SIG".length));

interface SignalOptions {
  readonly name: string;
  readonly signal: string;
  readonly "control-socket": string;
}

export async function runSignal(options: SignalOptions): Promise<number> {
  // After "--" the parser leaves a dash where it is.
  const signal = signalNumber(options.signal.replace(/^-/, ""));
  if (typeof signal !== "number") {
    const meant = nearest(options.signal, [...signalNames, ...shortSignalNames]);
    const mend = meant === undefined ? "" : `. Did you mean ${meant}?`;
    throw new UsageError(`Expected ${signal.expected}, received ${signal.received}${mend}`);
  }
  using client = await OrchestratorClient.connect(options["control-socket"]);
  await client.signal(options.name, signal);
  return ExitCode.done;
}

/** When the time for waiting is over: how long the orchestrator has to say what is instead. */
const LAST_LOOK: Milliseconds = 500;

interface WaitOptions {
  readonly name: string;
  readonly until: "ready" | "stopped";
  readonly timeout: string | undefined;
  readonly "control-socket": string;
  readonly json: boolean;
}

function timeLimit(timeout: string | undefined): Pick<Awaited, "limit" | "expired"> {
  const limit = timeout === undefined ? undefined : durationArgument("--timeout", timeout);
  return { limit, expired: limit === undefined ? undefined : expiry(limit) };
}

/** @throws OrchestratorError when the process is not in that state in time. */
async function awaitState(
  client: OrchestratorClient,
  name: string,
  { until, limit, expired, onceOnly, since }: Awaited,
): Promise<ProcessSummary> {
  // Of those that are in the race the first that has come to its end already wins.
  const now = await Promise.race([expired ?? "not yet", "not yet"]);
  if (now !== "expired") {
    const reached = client.wait(name, until, { onceOnly, since });
    const summary = await (expired === undefined ? reached : Promise.race([reached, expired]));
    if (summary !== "expired") return summary;
    // Its answer is not waited for any more: the connection's end is its refusal.
    reached.catch(() => undefined);
  }
  const found = await Promise.race([client.show(name), expiry(LAST_LOOK)]);
  const waited = formatDuration(limit ?? 0);
  const phase = found === "expired" ? "the orchestrator hangs" : phaseText(found.summary);
  throw new OrchestratorError(`${name} is not ${until} after ${waited}: ${phase}`);
}

/** Returns when the process is in that state; refuses when it is not in time. */
export async function runWait(options: WaitOptions): Promise<number> {
  const { name, until } = options;
  const awaited = { until, onceOnly: false, ...timeLimit(options.timeout) };
  const connected = Math.min(awaited.limit ?? ANSWER_TIME, ANSWER_TIME);
  using client = await OrchestratorClient.connect(options["control-socket"], connected);
  const summary = await awaitState(client, name, awaited);
  if (options.json) await printJson(summary);
  else await printSummaries([summary], { json: false, stopped: until === "stopped" });
  return ExitCode.done;
}

/** One line for each; of those that have ended for good, or were waited for until then, how. */
async function printSummaries(
  summaries: readonly ProcessSummary[],
  options: { readonly json: boolean; readonly stopped: boolean },
): Promise<void> {
  if (options.json) await printJson(summaries);
  else {
    const lines = summaries.map((summary) => {
      const isOver = options.stopped || summary.phase === "finished";
      const isTold = isOver && summary.last_exit !== null;
      const ending = isTold ? `; the last exit: ${endingText(summary.last_exit)}` : "";
      return streamLine([`${summary.name}:`, `${phaseText(summary)}${ending}`]);
    });
    await printText(lines.join(""));
  }
}
