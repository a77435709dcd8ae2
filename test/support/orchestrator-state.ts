/** The state of an orchestrator as it is handed to another program, for tests without a kernel. */
import { createHash } from "node:crypto";
import { EventBook } from "../../src/process/event-book.ts";
import type { ProcessState } from "../../src/process/lifecycle.ts";
import { LogBook } from "../../src/process/log-book.ts";
import {
  encodeState,
  type OrchestratorState,
  STATE_FORMAT,
  STATE_VERSION,
} from "../../src/process/protocol-state.ts";

/** An invocation as it stands on the wire, for the short ones of tests. */
export const invocationOf = (short: string): string =>
  createHash("md5").update(short).digest("hex");

/** The same state with whole invocations in place of "i1", "i2" and so on. */
export function withInvocations<T>(value: T): T {
  if (typeof value === "string") {
    return (/^i\d+$/.test(value) ? invocationOf(value) : value) as T;
  }
  if (Array.isArray(value)) return value.map(withInvocations) as T;
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([key, inner]) => [key, withInvocations(inner)]);
  return Object.fromEntries(entries) as T;
}

export function makeState(
  processes: Readonly<Record<string, ProcessState>>,
  change: Partial<OrchestratorState> = {},
): OrchestratorState {
  const names = Object.keys(processes);
  const book = new LogBook({ lines: 10, bytes: 1_000 }).save(1_000);
  const { newest } = new EventBook().save();
  const descriptor = { number: 9, is: "/run/hostler/process.sock.lock" };
  return {
    format: STATE_FORMAT,
    version: STATE_VERSION,
    owner: { boot: "9a0c7f5e-6b5c-4b0e-9d8c-1f6f6f6f6f6f", processId: 7, startTicks: 11 },
    program: { version: "0.1.0", commit: "unknown" },
    configuration: undefined,
    wallOffset: undefined,
    journal: {
      lock: descriptor,
      run: "0a1b2c3d",
      alive: [],
      left: [],
      made: [],
      isDoubtful: false,
    },
    control: { listener: undefined, clients: [] },
    processes: names.map((name) => ({ name, state: processes[name] as ProcessState })),
    reachable: [],
    unsearched: [],
    held: [],
    standings: [],
    events: { newest, older: [], all: [] },
    managed: names.map((name) => ({
      name,
      pipes: undefined,
      book,
      notifyName: undefined,
      notify: undefined,
    })),
    strays: [],
    children: [],
    partitions: [],
    holden: [],
    ...change,
  };
}

/** The text of a state with a value at a path changed, as if it had been damaged. */
export function damaged(
  state: OrchestratorState,
  path: readonly (string | number)[],
  value: unknown,
): string {
  const copy = JSON.parse(encodeState(state)) as Record<string, unknown>;
  let at: Record<string | number, unknown> = copy;
  for (const key of path.slice(0, -1)) at = at[key] as Record<string | number, unknown>;
  at[path.at(-1) as string] = value;
  return JSON.stringify(copy);
}
