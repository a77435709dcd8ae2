/** What luod answers in tests: one of each, as the schemas have it. */
import type {
  Blackout,
  ClientSummary,
  KexecResult,
  LoadReport,
  Metric,
  SessionSummary,
  Status,
  UpdateEventRecord,
} from "../../src/live-update/protocol.ts";

export const qemu: ClientSummary = {
  id: "qemu-1",
  user: 107,
  pid: 4711,
  bare: false,
  required: true,
  deadline_ms: 60_000,
  sessions: [""],
  state: "ready",
  detail: null,
  bytes: 64 * 1024 * 1024,
  ready_ms: 412,
};

export const database: ClientSummary = {
  id: "db",
  user: 0,
  pid: null,
  bare: true,
  required: false,
  deadline_ms: 500,
  sessions: ["", "log"],
  state: "preserving",
  detail: "34 %",
  bytes: null,
  ready_ms: null,
};

export const restoredSession: SessionSummary = {
  name: "db/log",
  client: "db",
  direction: "incoming",
  state: "unclaimed",
  user: 0,
  finish_in_ms: 90_000,
};

export const blackout: Blackout = {
  update: "u-6",
  clients: 2,
  barrier_ms: 412,
  commit_ms: 38,
  kexec_ms: null,
  boot_ms: 2_500,
  restore_ms: 4.2,
  total_ms: 3_100,
};

export const idleStatus: Status = {
  phase: "idle",
  loaded: null,
  clients: 0,
  update: null,
  last: null,
  unclaimed: 0,
  claimed: 0,
  unclaimed_policy: "keep",
  blackout: null,
  troubles: [],
};

export const barrierStatus: Status = {
  ...idleStatus,
  phase: "barrier",
  loaded: {
    path: "/boot/vmlinuz",
    initrd: null,
    command_line: "liveupdate=on kho=on",
    version: "7.2.13",
    foreign: false,
  },
  clients: 2,
  update: {
    id: "u-7",
    dry_run: false,
    ready: 1,
    clients: 2,
    waiting_for: ["db"],
    left_ms: 12_300,
  },
};

export const loadReport: LoadReport = {
  loaded: true,
  kernel: barrierStatus.loaded,
  findings: [
    {
      check: "header",
      status: "ok",
      found: "a bzImage of protocol 2.15",
      expected: "a bzImage",
      mend: null,
      forceable: false,
    },
    {
      check: "live update",
      status: "warning",
      found: "LIVEUPDATE=y",
      expected: "liveupdate=on",
      mend: "add liveupdate=on",
      forceable: true,
    },
  ],
};

export const metrics: readonly Metric[] = [
  {
    name: "hostler_live_update_clients",
    help: "Clients, by what they are",
    type: "gauge",
    samples: [
      { labels: { id: 'a"b\\c\nd' }, value: 1 },
      { labels: { id: "x", bare: "yes" }, value: 0.5 },
    ],
  },
  {
    name: "hostler_live_update_updates_total",
    help: "One\\two\nthree",
    type: "counter",
    samples: [{ labels: {}, value: 3 }],
  },
];

export const readyEvent: UpdateEventRecord = {
  sequence: 8,
  time: "2026-11-21T04:39:08.170020Z",
  what: "ready",
  client: "qemu-1",
  update: "u-7",
  detail: "after 412 ms",
};

export const abortedResult: KexecResult = {
  update: "u-7",
  outcome: "aborted",
  reason: "db missed its deadline",
  clients: [qemu, { ...database, state: "left-out", detail: "missed its deadline" }],
  left_out: [{ id: "db", reason: "missed its deadline" }],
  barrier_ms: null,
};

export const dryResult: KexecResult = {
  update: "u-8",
  outcome: "dry-run",
  reason: "it was a dry run",
  clients: [qemu],
  left_out: [],
  barrier_ms: 430,
};
