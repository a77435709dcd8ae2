/** The state of an orchestrator as it is handed to another program, for tests without a kernel. */
import { createHash } from "node:crypto";
import { EventBook } from "../../src/process/event-book.ts";
import type { HistoryEntry, ProcessState } from "../../src/process/lifecycle.ts";
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
      logFile: undefined,
    })),
    strays: [],
    children: [],
    adopted: [],
    partitions: [],
    holden: [],
    metrics: { listener: undefined, meters: [] },
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

const i = invocationOf;
const descriptor = (number: number, is: string) => ({ number, is });

/** A state in which everything is that a state can have, but the phases. */
export function wholeState(processes: Readonly<Record<string, ProcessState>>): OrchestratorState {
  const state = makeState(processes);
  const [first = "it"] = Object.keys(processes);
  const ending = { kind: "signalled", signal: 9, coreDumped: true } as const;
  const instance = {
    invocation: i("i5"),
    name: first,
    processId: 0,
    process: descriptor(24, "pidfd:[7]"),
    parentTells: true,
    dead: true,
    notice: ending,
  };
  const entries: readonly HistoryEntry[] = [
    { what: "started", invocation: i("i1"), processId: 7 },
    { what: "ended", invocation: i("i1"), ending },
  ];
  const all = entries.map((entry, index) => ({
    sequence: index + 2,
    at: index + 0.5,
    name: first,
    entry,
  }));
  const older = [
    { sequence: 1, at: 0.25, name: first, entry: { what: "failed", reason: "x" } as const },
  ];
  return {
    ...state,
    configuration: { file: "/etc/hostler/process.toml", text: "[process.it]\n" },
    wallOffset: 1_700_000_000_000_000.5,
    journal: {
      ...state.journal,
      alive: [[i("i1"), first]],
      left: [[i("i2"), "gone"]],
      made: [["/sys/fs/cgroup/it", "77"]],
      isDoubtful: true,
    },
    control: {
      listener: { socket: descriptor(10, "socket:[1]"), file: "1:2" },
      clients: [
        {
          socket: descriptor(11, "socket:[2]"),
          requests: [{ id: 3, verb: "subscribe", after: 2, follow: true }],
        },
      ],
    },
    reachable: ["qm"],
    unsearched: ["radio"],
    held: [
      { kind: "process", name: first, event: { kind: "died", invocation: i("i1"), ending } },
      { kind: "wish", names: [first], event: { kind: "stop", hurry: false } },
      { kind: "partition", name: "qm", reachable: false },
    ],
    standings: [
      {
        name: "qm",
        standing: { state: "connected", since: 1, agent: { version: "0.1.0", processId: 9 } },
      },
      { name: "radio", standing: { state: "away", since: 2, reason: "it has not come yet" } },
    ],
    events: { newest: 3, older, all },
    managed: state.managed.map((managed, index) => ({
      ...managed,
      pipes: [0, 2].map((offset) => ({
        read: descriptor(100 + 4 * index + offset, `pipe:[${index}]`),
        write: descriptor(101 + 4 * index + offset, `pipe:[${index}]`),
      })),
      book: {
        lines: [[1.5, "stdout", "a line"] as const],
        sequence: 4,
        dropped: 3,
        rest: { stdout: "aGFsZg==", stderr: "" },
      },
      notifyName: "@hostler-notify-0",
      notify: {
        socket: descriptor(30, "socket:[5]"),
        early: [{ processId: 7, parentId: 1, group: 7, session: 7, state: "S", startTicks: 90 }],
      },
      logFile: {
        file: descriptor(31, "file 1:3"),
        waiting: ["a line\n"],
        dropped: 2,
        wantsReopening: true,
        episode: { reason: "no room", lines: 2, retryAt: 5.5 },
      },
    })),
    strays: [{ invocation: i("i3"), name: first, rounds: 10 }],
    children: [
      {
        invocation: i("i1"),
        name: first,
        processId: 7,
        process: descriptor(20, "pidfd:[5]"),
        leftovers: "keep",
        groupParent: "/sys/fs/cgroup/it",
      },
    ],
    adopted: [{ ...instance, invocation: i("i7"), dead: false, notice: undefined }],
    partitions: [
      {
        name: "qm",
        listener: { socket: descriptor(12, "socket:[3]"), file: undefined },
        link: {
          socket: descriptor(13, "socket:[4]"),
          protocol: 1,
          dialled: false,
          agentProcessId: 9,
          nextId: 12,
          running: [i("i5")],
        },
        instances: [instance],
        startedOn: [i("i5")],
        standby: [{ name: first, invocation: i("i6"), replaces: i("i5") }],
      },
    ],
    holden: [{ name: "radio", reachable: true, instances: [] }],
    metrics: {
      listener: { socket: descriptor(14, "socket:[6]"), file: undefined },
      meters: [
        {
          name: first,
          since: 1.5,
          restarts: { died: 2, unready: 1, unhealthy: 4, asked: 3 },
          counts: [1, 0, 2],
          sum: 0.25,
          reason: "died",
          diedAt: undefined,
        },
      ],
    },
  };
}
