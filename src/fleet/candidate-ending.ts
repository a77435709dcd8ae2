import * as v from "valibot";
import { unknownEnding } from "./executor.ts";
import { fleetLimits, type LastWords } from "./protocol.ts";

/**
 * How a unit ended, as its ExecStopPost= wrote it down: the first line has $SERVICE_RESULT,
 * $EXIT_CODE and $EXIT_STATUS of systemd.exec(5), the others are of cgroup v2's files, where the
 * host has them: memory.peak, and cpu.stat.
 */
export function parseUnitEnding(text: string, log: string): LastWords {
  const [first = "", ...rest] = text.split("\n");
  const [result = "", code = "", status = ""] = first.split(" ");
  const microseconds = /^usage_usec (\d{1,15})$/m.exec(text)?.[1];
  const peak = rest.find((line) => /^\d{1,15}$/.test(line));
  return {
    ending: describe({ result, code, status }).slice(0, fleetLimits.textLength),
    log: tailOf(log),
    processor_seconds: microseconds === undefined ? null : Number(microseconds) / 1_000_000,
    memory_peak_bytes: peak === undefined ? null : Number(peak),
  };
}

/** Bytes that are no text, and what is too long, the journal tells otherwise: they are left out. */
const lineSchema = v.looseObject({
  MESSAGE: v.string(),
  _PID: v.optional(v.string()),
  INVOCATION_ID: v.optional(v.string()),
  _SYSTEMD_INVOCATION_ID: v.optional(v.string()),
});

/**
 * How the run of a unit before the present one ended, and what was said until then, as
 * `journalctl --output=json` tells the unit: the lines of systemd itself are among them.
 * @param own this process, and its run of the unit: what those said is not told
 * @returns null where nothing is known of another run
 */
export function parseFormerEnding(
  text: string,
  own: { readonly process: number; readonly invocation: string | undefined },
): LastWords | null {
  const said: string[] = [];
  let ending: string | undefined;
  for (const line of text.split("\n")) {
    const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), lineSchema), line);
    if (!parsed.success) continue;
    const { MESSAGE: message, _PID: process, ...of } = parsed.output;
    const isOwn = [of.INVOCATION_ID, of._SYSTEMD_INVOCATION_ID].includes(own.invocation ?? "");
    if (isOwn || process === String(own.process)) continue;
    // "Main process exited, code=killed, status=9/KILL", as systemd says it of a service.
    const [, code, number, name] =
      /: Main process exited, code=(\w+), status=(\d+)\/(\w+)$/.exec(message) ?? [];
    if (code !== undefined) ending = describeCode(code, (code === "exited" ? number : name) ?? "");
    said.push(message);
  }
  if (said.length === 0) return null;
  return {
    // A manager that logs elsewhere has not told it.
    ending: ending ?? unknownEnding.ending,
    log: tailOf(said.map((one) => `${one}\n`).join("")),
    processor_seconds: null,
    memory_peak_bytes: null,
  };
}

/** The end of what it said; what came before has no room. */
export function tailOf(log: string): string {
  return log.slice(-fleetLimits.lastWords);
}

/** What the results that say more than the ending mean: systemd.exec(5), $SERVICE_RESULT. */
const results: Readonly<Record<string, string>> = {
  timeout: "its time was over",
  watchdog: "it did not say that it lives",
  protocol: "it never said that it is ready",
  "oom-kill": "there was no memory left for it",
  resources: "it could not be started",
};

function describe(ended: { result: string; code: string; status: string }): string {
  const { result, code, status } = ended;
  const how = describeCode(code, status);
  const why = results[result];
  return why === undefined ? how : `${why}: ${how}`;
}

function describeCode(code: string, status: string): string {
  if (code === "exited") return `exited with ${status}`;
  if (code === "killed") return `ended by SIG${status}`;
  if (code === "dumped") return `ended by SIG${status}, with a core dump`;
  return "it did not run";
}
