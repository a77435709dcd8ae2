import * as v from "valibot";

/**
 * The two wires of live update.
 *
 * Clients speak newline-delimited JSON on a Unix stream socket; a line that carries a descriptor
 * carries exactly one, on its first byte (SCM_RIGHTS). A client that knows only the words of
 * luo-agent (SUBSCRIBE, START_PRESERVATION, READY, CLAIM) is served as they are: it is "bare". One
 * that says HELLO first gets ids, answers, errors and the further words.
 *
 * The command line speaks the house's control frames. Names there are snake_case.
 */

/** The version of both wires: a HELLO with another one is refused. */
export const PROTOCOL_VERSION = 1;

export const defaultClientSocket = "/run/luod/liveupdate.sock";
export const defaultControlSocket = "/run/luod/control.sock";

/** The session that is the daemon's own, with the registry in it; no client can have this id. */
export const OWN_SESSION = "hostler";
/** Under this token the registry stands in it. */
export const REGISTRY_TOKEN = 0n;

/** The limits of both wires; going over one is a refusal that a test shows. */
export const limits = {
  /** Bytes of a line, less its end. */
  lineBytes: 65_536,
  /** Connections of clients at once. */
  connections: 4096,
  /** Bytes that wait for a client that does not read, before it is let go. */
  queuedBytes: 1024 * 1024,
  /** Ids that are subscribed at once, over all clients. */
  subscriptions: 4096,
  /** Sessions of one subscription. */
  sessions: 16,
  /** Bytes of the name of a session, as the kernel has it: 64 with its zero. */
  nameBytes: 63,
  /** Milliseconds in which a client is ready, when it does not say, and at most. */
  deadline: 60_000,
  longestDeadline: 3_600_000,
  /** Characters of a reason or a detail, from whoever. */
  textLength: 1024,
  /** Bytes of the registry: what is read after a kexec is bounded as well. */
  registryBytes: 8 * 1024 * 1024,
  /** Bytes of a kernel and of an initrd that are looked at. */
  imageBytes: 1024 * 1024 * 1024,
} as const;

const bytesOf = (text: string) => new TextEncoder().encode(text).length;

/** Why an id cannot be one; undefined when it can. */
export function refuseName(name: string): { expected: string; received: string } | undefined {
  const size = bytesOf(name);
  if (size < 1 || size > limits.nameBytes) {
    return { expected: `1 to ${limits.nameBytes} bytes`, received: `${size} bytes` };
  }
  if (name.includes("\0")) {
    return { expected: "no zero byte", received: JSON.stringify(name) };
  }
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is refused
  if (/[\u0000-\u001f\u007f-\u009f]/.test(name)) {
    return { expected: "no control characters", received: JSON.stringify(name) };
  }
  // Two such ids would be one for the kernel, which has bytes.
  if (!name.isWellFormed()) {
    return { expected: "whole characters", received: JSON.stringify(name) };
  }
  if (["systemd", OWN_SESSION].includes(name.split("/")[0] ?? "")) {
    return { expected: "a name that is not taken by the system", received: name };
  }
  return undefined;
}

const name = v.pipe(
  v.string(),
  v.check(
    (value) => refuseName(value) === undefined,
    // The long name that was received stands behind it, and cut: its size would be lost.
    ({ input }) => {
      const { expected, received } = refuseName(String(input)) ?? { expected: "", received: "" };
      return `${expected} instead of ${received}`;
    },
  ),
);
/** The part of a session's name behind the id: the session is "id/part", or "id" for "". */
const part = v.pipe(v.string(), v.maxLength(limits.nameBytes));
const shortText = v.pipe(v.string(), v.maxLength(limits.textLength));
const request = v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0)));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

/** The kernel's name of a client's session. */
export function sessionNameOf(id: string, session: string): string {
  return session === "" ? id : `${id}/${session}`;
}

/** What a client says. Fields beyond the words of luo-agent need a HELLO. */
export const clientMessageSchema = v.variant("cmd", [
  v.looseObject({
    cmd: v.literal("HELLO"),
    request,
    protocol: v.pipe(v.number(), v.safeInteger()),
    /** For people: the program and its version. */
    program: v.optional(shortText),
  }),
  v.looseObject({
    cmd: v.literal("SUBSCRIBE"),
    request,
    id: name,
    /** One that is not required may fail, and the update goes on without it. */
    required: v.optional(v.boolean()),
    /** The same, by its other word. */
    optional: v.optional(v.boolean()),
    deadline_ms: v.optional(
      v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(limits.longestDeadline)),
    ),
    sessions: v.optional(v.pipe(v.array(part), v.minLength(1), v.maxLength(limits.sessions))),
    /** The update that it was told of on an earlier connection: it is told what became of it. */
    update: v.optional(shortText),
  }),
  v.looseObject({ cmd: v.literal("UNSUBSCRIBE"), request, id: name }),
  v.looseObject({
    cmd: v.literal("READY"),
    request,
    /** Needed where the connection has several ids. */
    id: v.optional(name),
    /** Bytes that it has preserved, for the operator. */
    bytes: v.optional(count),
    /** Of which update; one that is over is not confused with the next then. */
    update: v.optional(shortText),
  }),
  v.looseObject({
    cmd: v.literal("PROGRESS"),
    request,
    id: v.optional(name),
    percent: v.optional(v.pipe(v.number(), v.minValue(0), v.maxValue(100))),
    bytes: v.optional(count),
    detail: v.optional(shortText),
  }),
  v.looseObject({
    cmd: v.literal("ABORT"),
    request,
    id: v.optional(name),
    reason: v.optional(shortText),
  }),
  v.looseObject({ cmd: v.literal("CLAIM"), request, id: name, session: v.optional(part) }),
  v.looseObject({ cmd: v.literal("FINISHED"), request, id: name, session: v.optional(part) }),
]);
export type ClientMessage = v.InferOutput<typeof clientMessageSchema>;

const errorSchema = v.object({
  kind: v.string(),
  message: v.string(),
  expected: v.optional(v.string()),
  received: v.optional(v.string()),
  hint: v.optional(v.string()),
});
export type WireError = v.InferOutput<typeof errorSchema>;

/** What the daemon says to a client. START_PRESERVATION and CLAIMED carry the session. */
export const clientEventSchema = v.variant("event", [
  v.object({
    event: v.literal("HELLO"),
    request: v.optional(v.number()),
    protocol: v.number(),
    version: v.string(),
  }),
  v.object({ event: v.literal("OK"), request: v.optional(v.number()) }),
  v.object({
    event: v.literal("ERROR"),
    request: v.optional(v.number()),
    error: errorSchema,
  }),
  v.object({
    event: v.literal("START_PRESERVATION"),
    id: v.optional(v.string()),
    session: v.optional(v.string()),
    update: v.optional(v.string()),
    deadline_ms: v.optional(v.number()),
    dry_run: v.optional(v.boolean()),
  }),
  /** Nothing that was preserved for this update is kept; go on as before. */
  v.object({
    event: v.literal("ABORTED"),
    id: v.string(),
    update: v.string(),
    reason: v.string(),
  }),
  v.object({
    event: v.literal("CLAIMED"),
    request: v.optional(v.number()),
    id: v.string(),
    session: v.string(),
  }),
  /** Its session is finished, by itself, the operator or the policy: it is held no more. */
  v.object({
    event: v.literal("FINISHED"),
    request: v.optional(v.number()),
    id: v.string(),
    session: v.string(),
    reason: v.string(),
  }),
]);
export type ClientEvent = v.InferOutput<typeof clientEventSchema>;

const identifier = count;

/** What the command line asks of the daemon. */
export const controlRequestSchema = v.variant("verb", [
  v.strictObject({ id: identifier, verb: v.literal("status") }),
  v.strictObject({ id: identifier, verb: v.literal("list") }),
  v.strictObject({ id: identifier, verb: v.literal("sessions") }),
  v.strictObject({ id: identifier, verb: v.literal("metrics") }),
  /** Answered by a load report; the kernel is loaded when it says so. */
  v.strictObject({
    id: identifier,
    verb: v.literal("load"),
    kernel: v.string(),
    initrd: v.optional(v.string()),
    command_line: v.string(),
    force: v.boolean(),
  }),
  v.strictObject({ id: identifier, verb: v.literal("unload") }),
  /** Items are events of the update; the answer comes when it did not end in a new kernel. */
  v.strictObject({
    id: identifier,
    verb: v.literal("kexec"),
    dry_run: v.boolean(),
    /** A dry run leaves bare clients out: their connections would be closed. */
    include_bare: v.boolean(),
    /** Sessions of an earlier update that nobody has claimed are lost by this one. */
    discard_unclaimed: v.boolean(),
    /** How the kernel is entered; "auto" is systemctl where PID 1 is systemd. */
    by: v.picklist(["auto", "reboot", "systemctl"]),
  }),
  v.strictObject({ id: identifier, verb: v.literal("abort"), reason: v.optional(shortText) }),
  /** Finishes what was restored for an id: what nobody has retrieved is freed. */
  v.strictObject({ id: identifier, verb: v.literal("finish"), client: v.string() }),
  v.strictObject({
    id: identifier,
    verb: v.literal("subscribe"),
    after: v.optional(count),
    follow: v.optional(v.boolean()),
  }),
]);
export type ControlRequest = v.InferOutput<typeof controlRequestSchema>;

export const phases = [
  "idle",
  "loaded",
  "preserving",
  "barrier",
  "committing",
  "aborting",
  "restoring",
] as const;

/** One client, as `list` shows it. */
export const clientSummarySchema = v.object({
  id: v.string(),
  user: v.number(),
  pid: v.nullable(v.number()),
  bare: v.boolean(),
  required: v.boolean(),
  deadline_ms: v.number(),
  sessions: v.array(v.string()),
  /** subscribed, creating, preserving, ready, left-out */
  state: v.string(),
  /** For people: its progress, or why it was left out. */
  detail: v.nullable(v.string()),
  bytes: v.nullable(v.number()),
  /** Milliseconds from START_PRESERVATION to READY. */
  ready_ms: v.nullable(v.number()),
});
export type ClientSummary = v.InferOutput<typeof clientSummarySchema>;

/** One session, as `sessions` shows it. */
export const sessionSummarySchema = v.object({
  name: v.string(),
  client: v.string(),
  direction: v.picklist(["outgoing", "incoming"]),
  /** outgoing: creating, delegated, ready; incoming: unclaimed, claimed, lost */
  state: v.string(),
  user: v.number(),
  /** What happens to it if nobody does anything: null for nothing. */
  finish_in_ms: v.nullable(v.number()),
});
export type SessionSummary = v.InferOutput<typeof sessionSummarySchema>;

/** The kernel that is loaded. */
export const loadedKernelSchema = v.object({
  path: v.string(),
  initrd: v.nullable(v.string()),
  command_line: v.string(),
  version: v.nullable(v.string()),
  /** By somebody else than this daemon: nothing is known of it. */
  foreign: v.boolean(),
});
export type LoadedKernel = v.InferOutput<typeof loadedKernelSchema>;

/** The parts of an update's time, in milliseconds; null where it cannot be known. */
export const blackoutSchema = v.object({
  update: v.string(),
  clients: v.number(),
  /** From the accepted command to the last READY. */
  barrier_ms: v.nullable(v.number()),
  /** From the last READY to the call that enters the new kernel: sync, hooks, stopping. */
  commit_ms: v.nullable(v.number()),
  /** From that call to the first moment of the new kernel. */
  kexec_ms: v.nullable(v.number()),
  /** From there to the daemon that offers the sessions again. */
  boot_ms: v.nullable(v.number()),
  /** From there to the last claim. */
  restore_ms: v.nullable(v.number()),
  total_ms: v.nullable(v.number()),
});
export type Blackout = v.InferOutput<typeof blackoutSchema>;

export const statusSchema = v.object({
  phase: v.picklist(phases),
  loaded: v.nullable(loadedKernelSchema),
  clients: v.number(),
  /** The update under way. */
  update: v.nullable(
    v.object({
      id: v.string(),
      dry_run: v.boolean(),
      ready: v.number(),
      clients: v.number(),
      waiting_for: v.array(v.string()),
      /** Until the first deadline of those that it waits for. */
      left_ms: v.nullable(v.number()),
    }),
  ),
  /** What the last one came to: its end before a kexec, or the kexec that this kernel follows. */
  last: v.nullable(v.object({ id: v.string(), outcome: v.string(), detail: v.string() })),
  unclaimed: v.number(),
  claimed: v.number(),
  unclaimed_policy: v.string(),
  blackout: v.nullable(blackoutSchema),
  /** What hinders luod now, and what can be done. */
  troubles: v.array(v.string()),
});
export type Status = v.InferOutput<typeof statusSchema>;

/** `what` of the event with which an update leaves the barrier. */
export const COMMITTING = "committing";
/**
 * `what` of the event just before the kernel is entered: from here on, a connection that ends means
 * that it is. Before it luod may have died. The other words are for people alone.
 */
export const ENTERING_KERNEL = "entering-kernel";

/** One thing that happened, as `events` prints it and `kexec` shows it. */
export const updateEventSchema = v.object({
  sequence: v.number(),
  /** Wall clock, RFC 3339 with microseconds, UTC. */
  time: v.string(),
  what: v.string(),
  client: v.optional(v.string()),
  session: v.optional(v.string()),
  update: v.optional(v.string()),
  detail: v.optional(v.string()),
});
export type UpdateEventRecord = v.InferOutput<typeof updateEventSchema>;

/** What `load` found of the target. */
export const findingSchema = v.object({
  check: v.string(),
  status: v.picklist(["ok", "warning", "fatal", "unknown"]),
  found: v.string(),
  expected: v.string(),
  mend: v.nullable(v.string()),
  /** --force loads in spite of it. */
  forceable: v.boolean(),
});
export const loadReportSchema = v.object({
  loaded: v.boolean(),
  kernel: v.nullable(loadedKernelSchema),
  findings: v.array(findingSchema),
});
export type LoadReport = v.InferOutput<typeof loadReportSchema>;

/** One metric, in the words of Prometheus' text format; `metrics` is answered by a list of them. */
export const metricSchema = v.object({
  name: v.pipe(v.string(), v.regex(/^[a-zA-Z_:][a-zA-Z0-9_:]*$/)),
  help: v.string(),
  type: v.picklist(["counter", "gauge"]),
  samples: v.array(v.object({ labels: v.record(v.string(), v.string()), value: v.number() })),
});
export type Metric = v.InferOutput<typeof metricSchema>;

/** How an update ended that did not end in a new kernel. */
export const kexecResultSchema = v.object({
  update: v.string(),
  outcome: v.picklist(["aborted", "dry-run", "refused-by-kernel"]),
  reason: v.string(),
  clients: v.array(clientSummarySchema),
  /** Everybody whom the update went without, among them who took no part from its begin. */
  left_out: v.array(v.object({ id: v.string(), reason: v.string() })),
  barrier_ms: v.nullable(v.number()),
});
export type KexecResult = v.InferOutput<typeof kexecResultSchema>;
