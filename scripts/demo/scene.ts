/** One thing that ends, what is seen of it, and what it leaves alone. */
import { monotonicNow } from "../../src/event-loop/clock.ts";
import type { ProcessEventRecord, ProcessSummary, WireEnding } from "../../src/process/protocol.ts";
import { signalName } from "../../src/units/signals.ts";
import { formatMicroseconds, type Report } from "./checks.ts";
import type { ProcessName } from "./configuration.ts";
import type { EventWatch } from "./event-watch.ts";
import { isAlive } from "./kernel.ts";

/** What is shown of a process's events; the others are steps on the way. */
const shownEvents = ["died", "ended", "backing-off", "started"];

/** How an ending must be told. */
export type ExpectedEnding =
  | { readonly kind: "exited"; readonly status: number }
  | { readonly kind: "signalled"; readonly signal: number }
  | { readonly kind: "unknown" };

export interface Ended {
  /** Before anything was done, by name. */
  readonly before: ReadonlyMap<string, ProcessSummary>;
  /** Microseconds of CLOCK_MONOTONIC just before the deed. */
  readonly deedAt: number;
  /** Of the event stream. */
  readonly position: number;
}

export class Scene {
  readonly #report: Report;
  readonly #events: EventWatch;

  constructor(report: Report, events: EventWatch) {
    this.#report = report;
    this.#events = events;
  }

  /** Does something to the process with this name, and notes the time. */
  async end(name: ProcessName, deed: (processId: number) => void): Promise<Ended> {
    const before = await this.#events.list();
    const processId = before.get(name)?.pid;
    if (typeof processId !== "number") throw new Error(`${name} does not run`);
    const position = this.#events.position;
    const deedAt = monotonicNow() * 1_000;
    deed(processId);
    return { before, deedAt, position };
  }

  /** Checks that the process came again, and that its ending was told as expected. */
  async expectRestart(name: ProcessName, ended: Ended, expected: ExpectedEnding): Promise<void> {
    const { before, deedAt, position } = ended;
    const invocation = before.get(name)?.invocation ?? "";
    const ending = await this.#events.next({ name, what: "ended", invocation }, position);
    const started = await this.#events.next({ name, what: "started" }, position);
    this.show(name, ended);
    const old = before.get(name)?.pid;
    const again = started.pid !== undefined && started.pid !== old;
    const took = formatMicroseconds(started.monotonic_us - deedAt);
    const seen = `process ${started.pid} for ${old}, after ${took}`;
    this.#report.check(`${name} was started again`, again, seen);
    this.checkEnding(name, ending, expected);
  }

  checkEnding(name: string, event: ProcessEventRecord, expected: ExpectedEnding): void {
    const { ending } = event;
    const holds = ending !== undefined && isAsExpected(ending, expected);
    const seen = ending === undefined ? "nothing" : describe(ending);
    this.#report.check(`how ${name} ended`, holds, seen);
  }

  /** Prints what happened to a process since, with times from the deed on. */
  show(name: string, { deedAt, position }: Ended): void {
    for (const event of this.#events.events.slice(position)) {
      if (event.name !== name || !shownEvents.includes(event.what)) continue;
      this.#report.moment(event.monotonic_us - deedAt, `${name} ${inWords(event)}`);
    }
  }

  /** Checks that all but the named ones are the same processes as before. */
  async expectUndisturbed(
    before: ReadonlyMap<string, ProcessSummary>,
    except: readonly string[] = [],
  ): Promise<void> {
    const now = await this.#events.list();
    const others = [...before.values()].filter(({ name }) => !except.includes(name));
    const disturbed = others.filter(({ name, pid, invocation }) => {
      const current = now.get(name);
      if (pid === null || current?.pid !== pid || current.invocation !== invocation) return true;
      return !isAlive(pid);
    });
    const told = (disturbed.length === 0 ? others : disturbed).map(({ name, pid }) =>
      disturbed.length === 0 ? `${name} ${pid}` : `${name} was ${pid}, is ${now.get(name)?.pid}`,
    );
    const what = except.length === 0 ? "nobody was disturbed" : "nobody else was disturbed";
    this.#report.check(what, disturbed.length === 0, `${told.join(", ")}`);
  }
}

function isAsExpected(ending: WireEnding, expected: ExpectedEnding): boolean {
  if (ending.kind === "exited") {
    return expected.kind === "exited" && ending.status === expected.status;
  }
  if (ending.kind === "signalled") {
    return expected.kind === "signalled" && ending.signal === expected.signal;
  }
  return expected.kind === "unknown";
}

function inWords(event: ProcessEventRecord): string {
  const { what, pid, ending, detail } = event;
  if (what === "started") return `was started: process ${pid}`;
  if (what === "died") return "is dead, says its pidfd";
  if (what === "ended") return `ended by ${ending === undefined ? "nothing" : describe(ending)}`;
  return `${what}: ${detail ?? ""}`;
}

/** "SIGKILL", "exit status 7", or why it is not known. */
export function describe(ending: WireEnding): string {
  switch (ending.kind) {
    case "exited":
      return `exit status ${ending.status}`;
    case "signalled":
      return signalName(ending.signal);
    case "unknown":
      return `unknown, because ${ending.reason}`;
  }
}
