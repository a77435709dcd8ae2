import * as v from "valibot";

/**
 * The two wires of the process system, both JSON frames of `messaging`: orchestrator ↔ agent, and
 * command line ↔ orchestrator. Names are snake_case; numbers and names are never reused.
 */

/** The version of both wires. A peer with another one is refused in its hello. */
export const PROTOCOL_VERSION = 1;

export const defaultAgentSocket = "/run/holden/qm_orchestrator.sock";
/** Holden's own. */
export const defaultHoldenSocket = "/tmp/process_orchestrator.sock";
export const defaultControlSocket = "/run/hostler/process.sock";

/** The limits of both wires; going over one is a refusal that a test shows. */
export const limits = {
  /** Bytes of a start frame, all of it: 4 MiB. */
  frameBytes: 4 * 1024 * 1024,
  /** Descriptors with one frame. */
  frameDescriptors: 64,
  /** Bytes before the peer has said a valid hello. */
  helloBytes: 4096,
  /** Milliseconds in which a connection must say its hello. */
  helloTime: 10_000,
  /** Connections that an agent, or a control socket, keeps at once. */
  connections: 1024,
  /** Bytes that wait for a peer that does not read, before it is let go. */
  queuedBytes: 8 * 1024 * 1024,
  /** Starts that an agent keeps prepared for one connection, and the bytes of one of them. */
  preparedStarts: 256,
  preparedBytes: 32 * 1024,
  argumentCount: 4096,
  variableCount: 4096,
  nameLength: 64,
  /** Names of one `change`: with the longest ones it still fits a request of a control socket. */
  changedNames: 512,
} as const;

const text = v.pipe(
  v.string(),
  v.check((value) => !value.includes("\0"), "Expected text without a zero byte"),
);
const identifier = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const invocation = v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/, "Expected 32 hexadecimal digits"));
const digest = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, "Expected 64 hexadecimal digits"));
const processId = v.pipe(v.number(), v.safeInteger(), v.minValue(1));

export const endingSchema = v.variant("kind", [
  v.strictObject({ kind: v.literal("exited"), status: v.pipe(v.number(), v.safeInteger()) }),
  v.strictObject({
    kind: v.literal("signalled"),
    signal: v.pipe(v.number(), v.safeInteger()),
    core_dumped: v.boolean(),
  }),
  v.strictObject({ kind: v.literal("unknown"), reason: v.string() }),
]);

export type WireEnding = v.InferOutput<typeof endingSchema>;

const limitPair = v.strictObject({
  soft: v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
  hard: v.nullable(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
});

const userOrGroup = v.union([v.pipe(v.number(), v.safeInteger(), v.minValue(0)), text]);

/** What the launcher sets before the program's first instruction. A null limit is unlimited. */
export const constraintsSchema = v.strictObject({
  user: v.optional(userOrGroup),
  group: v.optional(userOrGroup),
  groups: v.optional(v.pipe(v.array(userOrGroup), v.maxLength(256))),
  limits: v.optional(v.record(v.string(), limitPair)),
  capabilities: v.optional(v.pipe(v.array(v.string()), v.maxLength(64))),
  no_new_privileges: v.optional(v.boolean()),
  cgroup: v.optional(text),
});
export type WireConstraints = v.InferOutput<typeof constraintsSchema>;

/** The first frame of either side. */
export const helloSchema = v.strictObject({
  kind: v.literal("hello"),
  protocol: v.literal(PROTOCOL_VERSION),
  role: v.picklist(["agent", "orchestrator", "client"]),
  /** The version of the program, for people. */
  version: v.string(),
  /** Random, new for each process: tells one agent from the next. */
  instance: v.string(),
});
export type Hello = v.InferOutput<typeof helloSchema>;

/** In place of a hello, to a peer that dialled and may not speak; the connection ends with it. */
export const refusedSchema = v.strictObject({
  kind: v.literal("refused"),
  expected: v.string(),
  received: v.string(),
});
export type Refused = v.InferOutput<typeof refusedSchema>;

/** What a start says of the child. */
const startFields = {
  invocation,
  argv: v.pipe(v.array(text), v.minLength(1), v.maxLength(limits.argumentCount)),
  environment: v.pipe(v.array(text), v.maxLength(limits.variableCount)),
  working_directory: v.optional(text),
  umask: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(0o777))),
  constraints: v.optional(constraintsSchema),
  descriptors: v.pipe(
    v.array(v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(255))),
    v.maxLength(limits.frameDescriptors),
  ),
  /** What happens to the rest of this instance's process group when it dies. */
  leftovers: v.picklist(["kill", "keep"]),
  /** LISTEN_PID says the child's own number, as its partition has it: sd_listen_fds(3). */
  listen: v.optional(v.boolean()),
};

/**
 * What an orchestrator asks of an agent. The descriptors of a start become, in order, the child's
 * descriptors that `descriptors` names.
 */
export const agentRequestSchema = v.variant("kind", [
  v.strictObject({
    kind: v.literal("start"),
    id: identifier,
    ...startFields,
    /** The instance whose rest must be gone first, when this agent is its parent. */
    replaces: v.optional(invocation),
  }),
  /** Lays out the memory of a start that may come; forgotten with the connection. */
  v.strictObject({ kind: v.literal("prepare"), id: identifier, ...startFields }),
  /** Makes the start that was prepared; answered like a start. */
  v.strictObject({
    kind: v.literal("go"),
    id: identifier,
    invocation,
    replaces: v.optional(invocation),
  }),
  /**
   * Makes the prepared start by itself at the end of the instance that it replaces, when nobody
   * of that one is left; answered then, like a start, or with the error "disarmed".
   */
  v.strictObject({ kind: v.literal("arm"), id: identifier, invocation, replaces: invocation }),
  /** Takes an "arm" back, and that answers; the start stays prepared. */
  v.strictObject({ kind: v.literal("disarm"), id: identifier, invocation }),
  /**
   * The orchestrator has looked at what came with "started": until then, or until the connection
   * ends, the agent leaves a dead child unreaped, so that its number cannot mean another process.
   */
  v.strictObject({ kind: v.literal("seen"), id: identifier, invocation }),
  v.strictObject({ kind: v.literal("ping"), id: identifier }),
  /** A socket made in the agent's namespaces; a Unix one is connected by the agent, by path. */
  v.strictObject({
    kind: v.literal("socket"),
    id: identifier,
    family: v.picklist(["unix", "ipv4", "ipv6"]),
    path: v.optional(text),
  }),
  /** A datagram socket with SO_PASSCRED, bound in the partition to this abstract name. */
  v.strictObject({ kind: v.literal("notify"), id: identifier, name: text }),
]);
export type AgentRequest = v.InferOutput<typeof agentRequestSchema>;
export type StartRequest = Extract<AgentRequest, { kind: "start" }>;
export type PrepareRequest = Extract<AgentRequest, { kind: "prepare" }>;

const errorSchema = v.strictObject({
  kind: v.string(),
  message: v.string(),
  /** The name of the error number, where the kernel refused. */
  code: v.optional(v.string()),
  expected: v.optional(v.string()),
  received: v.optional(v.string()),
  hint: v.optional(v.string()),
});
export type WireError = v.InferOutput<typeof errorSchema>;

/** What an agent says. A started frame carries the pidfd, a socket or notify frame the socket. */
export const agentReplySchema = v.variant("kind", [
  v.strictObject({ kind: v.literal("started"), id: identifier, process_id: processId }),
  v.strictObject({ kind: v.literal("error"), id: identifier, error: errorSchema }),
  v.strictObject({ kind: v.literal("prepared"), id: identifier }),
  v.strictObject({ kind: v.literal("pong"), id: identifier }),
  v.strictObject({ kind: v.literal("socket"), id: identifier, connected: v.boolean() }),
  v.strictObject({ kind: v.literal("notify"), id: identifier }),
  v.strictObject({ kind: v.literal("exited"), invocation, ending: endingSchema }),
]);
export type AgentReply = v.InferOutput<typeof agentReplySchema>;

const name = v.pipe(v.string(), v.minLength(1), v.maxLength(limits.nameLength));

/** What the command line asks of the orchestrator. */
export const controlRequestSchema = v.variant("verb", [
  /** With `usage` also what each process uses. */
  v.strictObject({ id: identifier, verb: v.literal("list"), usage: v.optional(v.boolean()) }),
  v.strictObject({ id: identifier, verb: v.literal("partitions") }),
  /** What a scraper is told, in parts. */
  v.strictObject({ id: identifier, verb: v.literal("metrics") }),
  /** Which program answers: the file that runs, and not the one that stands at its path. */
  v.strictObject({ id: identifier, verb: v.literal("about") }),
  /** Goes on as another program; that one answers, as `about` does. */
  v.strictObject({
    id: identifier,
    verb: v.literal("reexecute"),
    /** An absolute path; the file that a new start would run when nothing is said. */
    program: v.optional(text),
    /** SHA-256 that the file must have. */
    digest: v.optional(digest),
  }),
  /** Reads the configuration anew; answered in parts, and ended when all of it is put in. */
  v.strictObject({ id: identifier, verb: v.literal("reload"), dry_run: v.optional(v.boolean()) }),
  v.strictObject({ id: identifier, verb: v.literal("show"), name }),
  v.strictObject({ id: identifier, verb: v.literal("start"), name }),
  v.strictObject({ id: identifier, verb: v.literal("stop"), name, now: v.optional(v.boolean()) }),
  v.strictObject({ id: identifier, verb: v.literal("restart"), name }),
  /** One of the three, of several processes in one turn; a name that is refused keeps no other. */
  v.strictObject({
    id: identifier,
    verb: v.literal("change"),
    what: v.picklist(["start", "stop", "restart"]),
    names: v.pipe(v.array(name), v.minLength(1), v.maxLength(limits.changedNames)),
    now: v.optional(v.boolean()),
  }),
  v.strictObject({
    id: identifier,
    verb: v.literal("signal"),
    name,
    signal: v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(64)),
  }),
  /** The kept lines of a process, or of all; with `follow` the coming ones too. */
  v.strictObject({
    id: identifier,
    verb: v.literal("logs"),
    name: v.optional(name),
    lines: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
    follow: v.optional(v.boolean()),
  }),
  /** Opens the files of lines of a process, or of all, anew: somebody has renamed them. */
  v.strictObject({ id: identifier, verb: v.literal("reopen-logs"), name: v.optional(name) }),
  /** The kept events after a sequence number; with `follow` the coming ones too. */
  v.strictObject({
    id: identifier,
    verb: v.literal("subscribe"),
    after: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
    follow: v.optional(v.boolean()),
  }),
  /** Answered when the process is in that state. */
  v.strictObject({
    id: identifier,
    verb: v.literal("wait"),
    name,
    until: v.picklist(["ready", "stopped"]),
    /** Ready at any time after this event counts, however short; after the request without it. */
    since: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
    /** Refused as well when the start that it waits for was refused and is to be made again. */
    once_only: v.optional(v.boolean()),
  }),
]);
export type ControlRequest = v.InferOutput<typeof controlRequestSchema>;

/** One line of `list`. */
export const processSummarySchema = v.object({
  name: v.string(),
  partition: v.nullable(v.string()),
  phase: v.string(),
  /** As the host sees it; null when none runs. */
  pid: v.nullable(v.number()),
  /** Instances that came after another one by the rule or by `restart`, not by `start`. */
  restarts: v.number(),
  /** Starts that the kernel, or the agent, refused. */
  refused_starts: v.number(),
  last_exit: v.nullable(endingSchema),
  /** Milliseconds since the instance started; null when none runs. */
  uptime_ms: v.nullable(v.number()),
  invocation: v.nullable(v.string()),
  /** What it waits for, or why it failed; null otherwise. */
  reason: v.nullable(v.string()),
  /** In the answer to `list` with `usage` alone; null where none runs. */
  usage: v.optional(v.nullable(v.object({ cpu_seconds: v.number(), memory_bytes: v.number() }))),
  /** In the answer to `stop` alone: processes that come after it and were not stopped with it. */
  still_run_after: v.optional(v.array(v.string())),
});
export type ProcessSummary = v.InferOutput<typeof processSummarySchema>;

/** The answer of `change`: for each name how things are right after, or why it was refused. */
export const changeAnswerSchema = v.strictObject({
  /** The sequence number of the newest event before the change: what follows has a higher one. */
  since: v.number(),
  outcomes: v.array(
    v.union([
      v.strictObject({ name: v.string(), summary: processSummarySchema }),
      v.strictObject({ name: v.string(), error: errorSchema }),
    ]),
  ),
});
export type ChangeAnswer = v.InferOutput<typeof changeAnswerSchema>;

/** A part of one metric; parts of the same metric follow each other. */
export const metricPartSchema = v.object({
  name: v.string(),
  help: v.string(),
  type: v.picklist(["gauge", "counter", "histogram"]),
  samples: v.array(
    v.object({
      /** Of a histogram: "_bucket", "_sum" and "_count". */
      suffix: v.optional(v.string()),
      labels: v.record(v.string(), v.string()),
      value: v.number(),
    }),
  ),
});

/** One line of `partitions`. */
export const partitionSummarySchema = v.object({
  name: v.string(),
  state: v.picklist(["connected", "away"]),
  /** Since when it is so: wall clock, RFC 3339 with microseconds, UTC. */
  since: v.string(),
  /** Why it is away; null while it is connected. */
  reason: v.nullable(v.string()),
  /** Null while it is away, and of a Holden agent. */
  agent_version: v.nullable(v.string()),
  /** As the host sees it. */
  agent_pid: v.nullable(v.number()),
  protocol: v.picklist(["hostler", "holden"]),
  /** Where the agent listens, or where the orchestrator listens for it. */
  endpoint: v.object({ connect: v.optional(v.string()), listen: v.optional(v.string()) }),
  processes: v.array(v.string()),
});
export type PartitionSummary = v.InferOutput<typeof partitionSummarySchema>;

/** The answer of `about`: what the orchestrator runs. */
export const aboutSchema = v.object({
  /** Random, new for each program that the process becomes. */
  instance: v.string(),
  version: v.string(),
  commit: v.string(),
  /** SHA-256 of the file that runs, in hexadecimal. */
  digest,
  /** Where that file is; " (deleted)" behind it when it is gone: proc_pid_exe(5). */
  program: v.string(),
  process_id: processId,
  /** When the process became this program: wall clock, RFC 3339 with microseconds, UTC. */
  started_at: v.string(),
  /** What outlives it: its process, 0 until it is there; null where there is to be none. */
  holder: v.optional(
    v.nullable(v.object({ process_id: v.number(), kept: v.nullable(v.number()) })),
  ),
});
export type About = v.InferOutput<typeof aboutSchema>;

/** One thing that happened, as `events` and `show` print it. */
export const processEventSchema = v.object({
  sequence: v.number(),
  /** Wall clock, RFC 3339 with microseconds, UTC. */
  time: v.string(),
  /** CLOCK_MONOTONIC in microseconds. */
  monotonic_us: v.number(),
  name: v.string(),
  what: v.string(),
  invocation: v.optional(v.string()),
  pid: v.optional(v.number()),
  ending: v.optional(endingSchema),
  /** For people: the rest in words. */
  detail: v.optional(v.string()),
});
export type ProcessEventRecord = v.InferOutput<typeof processEventSchema>;

/** The answer of `show`. */
export const processDetailSchema = v.object({
  summary: processSummarySchema,
  command: v.array(v.string()),
  restart: v.string(),
  readiness: v.string(),
  /** How it is seen that it does its work; absent where nobody looks. */
  liveness: v.optional(
    v.object({
      check: v.string(),
      interval_ms: v.number(),
      timeout_ms: v.optional(v.number()),
      failures: v.optional(v.number()),
      on_failure: v.string(),
    }),
  ),
  after: v.array(v.string()),
  on_dependency_failure: v.optional(v.string(), "ignore"),
  stop: v.object({ signal: v.string(), grace_ms: v.number() }),
  start_limit: v.nullable(v.object({ starts: v.number(), within_ms: v.number() })),
  /** The waits that can come if it kept failing, in milliseconds, jitter left out. */
  backoff_schedule_ms: v.array(v.number()),
  /** After these waits the start limit lets no start happen. */
  fails_after_schedule: v.boolean(),
  /** What it is told to be scheduled by; what is not said is the daemon's own. */
  scheduling: v.optional(
    v.object({
      nice: v.optional(v.number()),
      affinity: v.optional(v.array(v.number())),
      policy: v.optional(v.string()),
      priority: v.optional(v.number()),
      oom_score_adjust: v.optional(v.number()),
    }),
  ),
  /** Absent where it may park nothing; `is` as the kernel has it: "socket:[4711]". */
  descriptor_store: v.optional(
    v.object({
      most: v.number(),
      parked: v.array(v.object({ name: v.string(), is: v.string() })),
    }),
  ),
  log: v.object({
    lines: v.number(),
    bytes: v.number(),
    dropped_lines: v.number(),
    /** The file that lines are written to; null without `log_file`. */
    file: v.nullish(
      v.object({ path: v.string(), bytes: v.number(), dropped_lines: v.number() }),
      null,
    ),
  }),
  history: v.array(processEventSchema),
});
export type ProcessDetail = v.InferOutput<typeof processDetailSchema>;

/** The answer of `reopen-logs`, for each file: why it could not be opened, or null. */
export const reopenedSchema = v.array(
  v.object({ name: v.string(), path: v.string(), error: v.nullable(v.string()) }),
);
export type Reopened = v.InferOutput<typeof reopenedSchema>;

const mistakeSchema = v.object({
  file: v.string(),
  line: v.number(),
  column: v.number(),
  key_path: v.string(),
  expected: v.string(),
  received: v.string(),
  mend: v.exactOptional(v.string()),
  beyond_syntax_error: v.exactOptional(v.literal(true)),
});

const changedSchema = v.object({ name: v.string(), keys: v.array(v.string()) });

/** Of a reload, as it comes: what is wrong with the file, or what it means, and that it is so. */
export const reloadPartSchema = v.variant("what", [
  v.object({ what: v.literal("refused"), errors: v.array(mistakeSchema) }),
  v.object({
    what: v.literal("planned"),
    warnings: v.array(
      v.object({
        file: v.string(),
        line: v.number(),
        column: v.number(),
        key_path: v.string(),
        message: v.string(),
        mend: v.string(),
      }),
    ),
    dry_run: v.boolean(),
    /** Keys of [orchestrator] that differ. */
    orchestrator: v.array(v.string()),
    processes: v.object({
      added: v.array(v.string()),
      removed: v.array(v.string()),
      /** Keys that differ; none where its partition alone is another. */
      changed: v.array(
        v.object({ ...changedSchema.entries, how: v.picklist(["restart", "in-place"]) }),
      ),
      unchanged: v.number(),
    }),
    partitions: v.object({
      added: v.array(v.string()),
      removed: v.array(v.string()),
      changed: v.array(changedSchema),
    }),
  }),
  v.object({
    what: v.literal("applied"),
    /** What the system refused of what a process was to have while it runs. */
    refused: v.array(v.object({ name: v.string(), reason: v.string() })),
  }),
]);
export type ReloadPart = v.InferOutput<typeof reloadPartSchema>;

/** One line that a process wrote. */
export const logLineSchema = v.object({
  name: v.string(),
  time: v.string(),
  stream: v.picklist(["stdout", "stderr"]),
  line: v.string(),
  /** Lines lost just before this one, because memory is bounded. */
  dropped: v.optional(v.number()),
});
export type LogLine = v.InferOutput<typeof logLineSchema>;

/**
 * Answers of the control socket: {id, ok: …} once per request; before it, for logs and subscribe,
 * any number of {id, item: …}; or {id, error}. With `follow`, items go on until the client leaves.
 */
export const controlReplySchema = v.union([
  v.strictObject({ id: identifier, ok: v.unknown() }),
  v.strictObject({ id: identifier, item: v.unknown() }),
  v.strictObject({ id: identifier, error: errorSchema }),
]);
export type ControlReply = v.InferOutput<typeof controlReplySchema>;
