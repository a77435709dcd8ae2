import * as v from "valibot";
import {
  absolutePath,
  anyDuration,
  backoff,
  commonLimits,
  flag,
  nonEmptyText,
  path,
  socketPath,
  someDuration,
  startLimit,
  text,
  wholeNumber,
} from "../toml/common-readers.ts";
import {
  either,
  list,
  namedTable,
  type Read,
  type Reader,
  suggest,
  table,
  value,
  word,
} from "../toml/configuration-reader.ts";
import type { TomlNode } from "../toml/toml-tree.ts";
import { parseBytes } from "../units/bytes.ts";
import { capabilityNumbers, limitNumbers } from "../units/linux-names.ts";
import { Signal, signalNumber } from "../units/signals.ts";
import { formatDuration } from "../units/units.ts";
import { type HttpEndpoint, parseEndpoint, parseHttpEndpoint } from "./endpoint.ts";
import { limits } from "./protocol.ts";
import { keyOfResource, leastProcessors, resourceNames } from "./resources.ts";
import { MOST_PROCESSORS } from "./specification.ts";

/** What each key of a configuration file may be. */

/** The limits of a configuration; going over one is a refusal that a test shows. */
export const configurationLimits = {
  ...commonLimits,
  /** Bytes of the file: 1 MiB. */
  fileBytes: 1024 * 1024,
  processes: 4096,
  partitions: 256,
  /** Allowed users, groups or labels of a partition, and groups of a process. */
  ids: 256,
  dependencies: 256,
  /** Milliseconds. */
  hookTimeout: 8_000,
  logLines: 1_000_000,
  /** A log keeps at least one line of the longest kind. */
  leastLogBytes: 16 * 1024,
  mostLogBytes: 64 * 1024 * 1024,
  /** Of a file of lines: it holds at least one of the longest. */
  leastLogFileBytes: 64 * 1024,
  mostLogFileBytes: 16 * 1024 ** 3,
  logFiles: 100,
  /** Bytes of memory: less cannot hold a process. */
  leastMemory: 64 * 1024,
  /** Letters of what is asked for by HTTP. */
  httpEndpoint: 1_024,
  /** With standard output and error they fit one frame to an agent. */
  parkedDescriptors: 60,
} as const;

/** A cgroup is named from the root of its hierarchy; ".." would lead out of it. */
export const cgroupPathSchema = v.pipe(
  absolutePath,
  v.check((written) => !written.split("/").some((part) => part === "." || part === "..")),
);
export const cgroupPathExpected = 'an absolute path without "." and ".."';
const cgroupPath = value(cgroupPathExpected, cgroupPathSchema);
/** The largest id; 2^32 - 1 means "none" to the kernel. */
const id = value("a number from 0 to 4294967294", wholeNumber(0, 2 ** 32 - 2));
const ids = list(id, {
  expected: `an array of at most ${configurationLimits.ids} numbers`,
  least: 0,
  most: configurationLimits.ids,
});
const cgroups = list(cgroupPath, {
  expected: "an array of cgroup paths",
  least: 0,
  most: configurationLimits.ids,
});
const labels = list(value("a security label as text", nonEmptyText), {
  expected: `an array of at most ${configurationLimits.ids} labels`,
  least: 0,
  most: configurationLimits.ids,
});

const isTable = (node: TomlNode) => node.kind === "table";
const isProgram = (program: string) =>
  program !== "" && (program.startsWith("/") || !program.includes("/"));

/** Of what is no text at all, a zero byte would be a riddle. */
const plainText = either(
  (node) => node.kind === "value" && typeof node.value === "string",
  value("text without a zero byte", text),
  value("text in quotes", text),
);

const words = list(plainText, {
  expected: `an array of 1 to ${limits.argumentCount} texts: the program and its arguments`,
  least: 1,
  most: limits.argumentCount,
});

/** argv: the program by its absolute path, or by a name that PATH finds. */
const command: Reader<string[]> = (node, own, report) => {
  const found = words(node, own, report);
  const program = found?.[0];
  if (program === undefined || isProgram(program)) return found;
  const expected = "an absolute path, or a name that PATH finds, as the program";
  const at = node.kind === "array" ? (node.items[0]?.at ?? node.at) : node.at;
  report({ at, path: [...own, 0], expected, received: JSON.stringify(program) });
  return undefined;
};

const endpoint = v.pipe(
  v.string(),
  v.transform(parseEndpoint),
  v.object({ host: v.string(), port: v.number() }),
);

const httpEndpoint = value(
  '"http://127.0.0.1:80/path", or "http://unix:/run/web.sock:/path"',
  v.pipe(
    v.string(),
    v.maxLength(configurationLimits.httpEndpoint),
    v.transform(parseHttpEndpoint),
    v.custom<HttpEndpoint>((found) => found !== undefined),
  ),
);

/** The ways to look at a process, of which one is taken. */
const ways = {
  command,
  tcp: value('an address such as "127.0.0.1:80", "[::1]:80" or "localhost:80"', endpoint),
  unix: socketPath,
  http: httpEndpoint,
};

const readinessTable = table(ways, { expected: "a table" });

/** "started", "notify", or a table with exactly one way to look. */
const readiness = either(
  isTable,
  (node, own, report) => {
    const found = readinessTable(node, own, report);
    if (node.kind !== "table" || node.entries.size === 1) return found;
    const received = [...node.entries.keys()].join(", ") || "none";
    report({ at: node.at, path: own, expected: "one of command, tcp, unix and http", received });
    return undefined;
  },
  value(
    '"started", "notify", {command = […]}, {tcp = "…"}, {unix = "…"} or {http = "…"}',
    v.picklist(["started", "notify"]),
  ),
);

/** Shorter than the answer to a start may take. */
const hookTimeout: Reader<number> = (node, own, report) => {
  const found = someDuration(node, own, report);
  if (found === undefined || found <= configurationLimits.hookTimeout) return found;
  const expected = `at most ${formatDuration(configurationLimits.hookTimeout)}`;
  report({ at: node.at, path: own, expected, received: formatDuration(found) });
  return undefined;
};

const livenessTable = table(
  {
    ...ways,
    watchdog: someDuration,
    interval: someDuration,
    timeout: someDuration,
    failures: value("a number from 1 to 1000", wholeNumber(1, 1_000)),
    on_failure: word(["restart", "degrade"]),
  },
  { expected: 'a table such as {tcp = "127.0.0.1:80"}' },
);

/** Exactly one way to look; what belongs to checks alone does not go with a watchdog. */
const liveness: Reader<NonNullable<ReturnType<typeof livenessTable>>> = (node, own, report) => {
  const found = livenessTable(node, own, report);
  if (node.kind !== "table") return found;
  const keys = [...node.entries.keys()];
  const given = keys.filter((key) => key in ways || key === "watchdog");
  const at = { at: node.at, path: own };
  if (given.length !== 1) {
    const expected = "one of command, tcp, unix, http and watchdog";
    report({ ...at, expected, received: given.join(", ") || "none" });
    return undefined;
  }
  const foreign = keys.filter((key) => ["interval", "timeout", "failures"].includes(key));
  if (given[0] !== "watchdog" || foreign.length === 0) return found;
  const expected = "no interval, timeout and failures beside watchdog, which is its own time";
  report({ ...at, expected, received: foreign.join(", ") });
  return undefined;
};

const resourceAmount = v.union([
  v.pipe(
    v.literal("unlimited"),
    v.transform(() => Number.POSITIVE_INFINITY),
  ),
  wholeNumber(0, Number.MAX_SAFE_INTEGER),
]);
const amount = value('a whole number or "unlimited"', resourceAmount);
const resourcePair = table(
  { soft: amount, hard: amount },
  { expected: "a table", required: ["soft", "hard"] },
);

const resourceLimit: Reader<{ soft: number; hard: number }> = (node, own, report) => {
  if (node.kind !== "table") {
    const both = value('a whole number, "unlimited" or {soft, hard}', resourceAmount);
    const found = both(node, own, report);
    return found === undefined ? undefined : { soft: found, hard: found };
  }
  const { soft, hard } = resourcePair(node, own, report) ?? {};
  if (soft === undefined || hard === undefined) return undefined;
  if (soft <= hard) return { soft, hard };
  const received = `soft ${soft}, hard ${hard}`;
  report({ at: node.at, path: own, expected: "a soft limit up to the hard one", received });
  return undefined;
};

const resourceLimits = table(
  Object.fromEntries(Object.keys(limitNumbers).map((name) => [name, resourceLimit])),
  { expected: "a table such as {nofile = 1024}" },
);

const capability = value(
  "a capability such as CAP_NET_BIND_SERVICE",
  v.pipe(v.string(), v.toUpperCase(), v.picklist(Object.keys(capabilityNumbers))),
  (received) => suggest(received.toUpperCase(), Object.keys(capabilityNumbers)),
);

const signal = value(
  "a signal such as SIGTERM",
  v.pipe(
    v.union([v.string(), v.number()]),
    v.transform((written) => {
      const number = signalNumber(written);
      return typeof number === "number" ? number : Number.NaN;
    }),
    v.number(),
  ),
  (received) => suggest(received.toUpperCase(), Object.keys(Signal)),
);

const userOrGroup = value(
  "a name, or a number from 0 to 4294967294",
  v.union([nonEmptyText, wholeNumber(0, 2 ** 32 - 2)]),
);

const umask = value(
  'octal digits in quotes, such as "022"',
  v.pipe(
    v.string(),
    v.regex(/^0?[0-7]{3}$/),
    v.transform((digits) => Number.parseInt(digits, 8)),
  ),
);

const { leastLogBytes, mostLogBytes } = configurationLimits;
const logBytes = value(
  'a size from "16KiB" to "64MiB", or as many bytes',
  v.pipe(
    v.union([v.pipe(v.string(), v.transform(parseBytes)), v.number()]),
    v.number(),
    v.safeInteger(),
    v.minValue(leastLogBytes),
    v.maxValue(mostLogBytes),
  ),
);

const { leastLogFileBytes, mostLogFileBytes, logFiles } = configurationLimits;
const logFileBytes = value(
  'a size from "64KiB" to "16GiB", or as many bytes',
  v.pipe(
    v.union([v.pipe(v.string(), v.transform(parseBytes)), v.number()]),
    v.number(),
    v.safeInteger(),
    v.minValue(leastLogFileBytes),
    v.maxValue(mostLogFileBytes),
  ),
);

const logFile = table(
  {
    path: value(
      'the absolute path of a file, without "." and ".."',
      v.pipe(cgroupPathSchema, v.regex(/[^/]$/)),
    ),
    size: logFileBytes,
    count: value(`a number from 0 to ${logFiles}`, wholeNumber(0, logFiles)),
    time: flag,
    stream: flag,
  },
  { expected: 'a table such as {path = "/var/log/hostler/web.log"}', required: ["path"] },
);

const mostProcessor = MOST_PROCESSORS - 1;
const processorRange = /^(\d{1,4})-(\d{1,4})$/;

/** One processor, or "4-7". */
const processors = value(
  `a processor from 0 to ${mostProcessor}, or a range such as "4-7"`,
  v.union([
    v.pipe(
      wholeNumber(0, mostProcessor),
      v.transform((one) => [one]),
    ),
    v.pipe(
      v.string(),
      v.regex(processorRange),
      v.transform((range) => range.split("-").map(Number) as [number, number]),
      v.check(([first, last]) => first <= last && last <= mostProcessor),
      v.transform(([first, last]) =>
        Array.from({ length: last - first + 1 }, (_one, index) => first + index),
      ),
    ),
  ]),
);

const realTimePriority = value("a priority from 1 to 99", wholeNumber(1, 99));
const realTimeTable = table(
  { fifo: realTimePriority, round_robin: realTimePriority },
  { expected: "a table" },
);

/** A class without priorities, or a table with exactly one real-time class. */
const scheduling = either(
  isTable,
  (node, own, report) => {
    const found = realTimeTable(node, own, report);
    if (node.kind !== "table" || node.entries.size === 1) return found;
    const received = [...node.entries.keys()].join(", ") || "neither";
    report({ at: node.at, path: own, expected: "one of fifo and round_robin", received });
    return undefined;
  },
  value(
    '"other", "batch", "idle", {fifo = 1} or {round_robin = 1}',
    v.picklist(["other", "batch", "idle"]),
  ),
);

const memoryAmount = value(
  'a size such as "512MiB", as many bytes, or "max"',
  v.union([
    v.literal("max"),
    v.pipe(
      v.union([v.pipe(v.string(), v.transform(parseBytes)), v.number()]),
      v.number(),
      v.safeInteger(),
      v.minValue(configurationLimits.leastMemory),
    ),
  ]),
);
const weight = value("a weight from 1 to 10000", wholeNumber(1, 10_000));
const resources = table(
  {
    memory_max: memoryAmount,
    memory_high: memoryAmount,
    cpu_max: value(
      `processors such as 1.5, from ${leastProcessors} to ${MOST_PROCESSORS}, or "max"`,
      v.union([
        v.literal("max"),
        v.pipe(v.number(), v.minValue(leastProcessors), v.maxValue(MOST_PROCESSORS)),
      ]),
    ),
    cpu_weight: weight,
    pids_max: value(
      'a number from 1 to 4194304, or "max"',
      v.union([v.literal("max"), wholeNumber(1, 4_194_304)]),
    ),
    io_weight: weight,
    optional: list(word(resourceNames.map(keyOfResource)), {
      expected: "an array of keys of resources",
      least: 0,
      most: resourceNames.length,
    }),
  },
  { expected: 'a table such as {memory_max = "512MiB"}' },
);

/** They are hostler's to set, for every start anew. */
const ownVariables = ["INVOCATION_ID", "NOTIFY_SOCKET", "HOSTLER_ORCHESTRATOR"];
const environment = namedTable(plainText, {
  expected: "a table of variables",
  most: limits.variableCount,
  isName: (name) => /^[^=\0]+$/.test(name) && !ownVariables.includes(name),
  expectedName: `a name without "=", and none of ${ownVariables.join(", ")}`,
});

const reference = value("a name", nonEmptyText);

export const readProcess = table(
  {
    command,
    partition: reference,
    restart: word(["always", "on-failure", "never"]),
    backoff,
    start_limit: startLimit,
    after: list(reference, {
      expected: `an array of at most ${configurationLimits.dependencies} names of processes`,
      least: 0,
      most: configurationLimits.dependencies,
    }),
    before_start: command,
    after_stop: command,
    hook_timeout: hookTimeout,
    on_dependency_failure: word(["ignore", "stop", "restart"]),
    ready: readiness,
    ready_timeout: someDuration,
    alive: liveness,
    stop_signal: signal,
    stop_grace: anyDuration,
    leftovers: word(["kill", "keep"]),
    output: word(["log", "inherit"]),
    log_lines: value(
      `a number from 1 to ${configurationLimits.logLines}`,
      wholeNumber(1, configurationLimits.logLines),
    ),
    log_bytes: logBytes,
    log_file: logFile,
    descriptor_store: value(
      `a number from 0 to ${configurationLimits.parkedDescriptors}`,
      wholeNumber(0, configurationLimits.parkedDescriptors),
    ),
    environment,
    working_directory: path,
    umask,
    user: userOrGroup,
    group: userOrGroup,
    groups: list(userOrGroup, {
      expected: `an array of at most ${configurationLimits.ids} groups`,
      least: 0,
      most: configurationLimits.ids,
    }),
    limits: resourceLimits,
    capabilities: list(capability, {
      expected: "an array of capabilities",
      least: 0,
      most: Object.keys(capabilityNumbers).length,
    }),
    no_new_privileges: flag,
    cgroup: value(
      `"auto", or ${cgroupPathExpected}`,
      v.union([v.literal("auto"), cgroupPathSchema]),
    ),
    nice: value("a number from -20 to 19", wholeNumber(-20, 19)),
    affinity: list(processors, {
      expected: `an array of 1 to ${configurationLimits.ids} processors and ranges`,
      least: 1,
      most: configurationLimits.ids,
    }),
    scheduling,
    resources,
    oom_score_adjust: value("a number from -1000 to 1000", wholeNumber(-1000, 1000)),
    autostart: flag,
  },
  { expected: "a table [process.NAME]", required: ["command"] },
);
export type ProcessTable = Read<typeof readProcess>;

export const readPartition = table(
  {
    socket: socketPath,
    listen: socketPath,
    protocol: word(["hostler", "holden"]),
    allow_uid: ids,
    allow_gid: ids,
    allow_label: labels,
    allow_cgroup: cgroups,
    other_pid_namespace: flag,
  },
  { expected: "a table [partition.NAME]" },
);
export type PartitionTable = Read<typeof readPartition>;

const readOrchestrator = table(
  {
    holder: flag,
    concurrent_starts: value(
      `a number from 1 to ${configurationLimits.processes}`,
      wholeNumber(1, configurationLimits.processes),
    ),
  },
  { expected: "a table [orchestrator]" },
);

/** Names of processes and partitions. */
export const isName = (name: string) => /^[a-z0-9][a-z0-9._-]{0,63}$/i.test(name);
const expectedName =
  "a name of 1 to 64 letters, digits, dots, dashes and underscores " +
  "that begins with a letter or digit";

export const readRoot = table(
  {
    orchestrator: readOrchestrator,
    process: namedTable(readProcess, {
      expected: "tables [process.NAME]",
      most: configurationLimits.processes,
      isName,
      expectedName,
    }),
    partition: namedTable(readPartition, {
      expected: "tables [partition.NAME]",
      most: configurationLimits.partitions,
      isName,
      expectedName,
    }),
  },
  { expected: "tables" },
);
export type RootTable = Read<typeof readRoot>;
