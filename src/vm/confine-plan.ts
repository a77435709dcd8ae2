import * as v from "valibot";

/**
 * What the confiner is told on its command line:
 * `hostler --confine <plan> <program> <argv…> <environment…>`. Its own environment holds the
 * invocation alone: in the VMM's may stand what changes what Bun or the C library do.
 */

/** Devices of the host that one VMM may have. */
export const MOST_DEVICES = 32;
/** Folders and files that one VMM may change. */
export const MOST_WRITABLE = 32;
/** Descriptors that one VMM may inherit. */
export const MOST_DESCRIPTORS = 64;
/** uid_t is wider, but setfsuid(2) and devpts take such numbers for negative ones. */
export const HIGHEST_USER = 2 ** 31 - 1;

/**
 * The parts of a confinement that a plan may mark optional: what a container or an old kernel
 * refuses. All others must succeed.
 */
export const optionalStages = [
  /** Its process in the cgroup of the plan. */
  "cgroup",
  /** Each resource limit by itself. */
  "limits",
  "oom-score",
  /** A mount namespace; without it neither of the next two. */
  "mounts",
  /** All mounts but the writable folders read-only, nowhere devices or set-user-id programs. */
  "read-only",
  /** A /dev with the devices of the plan alone. */
  "devices",
  /** No capability in any set, the bounding set included. */
  "capabilities",
  /** The user and the group of the plan, and no other groups. */
  "user",
] as const;
export type OptionalStage = (typeof optionalStages)[number];

/** Where a start can fail: exec has the program itself; confine is the confiner's own trouble. */
export type Stage = OptionalStage | "no-new-privileges" | "folder" | "exec" | "confine";

/** Those of src/units/linux-names.ts that concern a VMM. */
const limitNames = ["core", "memlock", "nofile", "nproc", "fsize", "as"] as const;

const wholeNumber = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const absolutePath = v.pipe(
  v.string(),
  v.maxLength(4095),
  v.regex(/^\/(?!.*(^|\/)\.\.?(\/|$))[^\0]*$/, "expected an absolute path without . and .."),
);
const devicePath = v.pipe(
  absolutePath,
  v.startsWith("/dev/"),
  v.regex(/[^/]$/, "expected the path of a node, not of a folder"),
);
/** Root is none: a VMM is exactly what must not be root. */
const account = v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(HIGHEST_USER));
/** null: unlimited. */
const limit = v.nullable(wholeNumber);

export const confinePlanSchema = v.strictObject({
  /** The cgroup folder of this VMM, which exists already; without it the worker's own stays. */
  cgroup: v.optional(absolutePath),
  user: account,
  group: account,
  limits: v.record(v.picklist(limitNames), v.strictObject({ soft: limit, hard: limit })),
  /** proc_pid_oom_score_adj(5): the higher, the sooner it is killed when memory is short. */
  oom_score: v.pipe(v.number(), v.safeInteger(), v.minValue(-1000), v.maxValue(1000)),
  /** Nodes of the host, made anew in a /dev of its own; nothing else is in there. */
  devices: v.pipe(v.array(devicePath), v.maxLength(MOST_DEVICES)),
  /** Folders and files that are there, and that its user may change; nothing there is run. */
  writable: v.pipe(v.array(absolutePath), v.maxLength(MOST_WRITABLE)),
  folder: absolutePath,
  umask: v.pipe(wholeNumber, v.maxValue(0o777)),
  /** What may be left out where the machine refuses it; it is reported then. */
  optional: v.array(v.picklist(optionalStages)),
  /** How many words of argv there are; the environment follows them. */
  arguments: v.pipe(wholeNumber, v.minValue(1)),
  /** The VMM's descriptors beside 0, 1 and 2; others end with the exec. */
  descriptors: v.pipe(v.array(v.pipe(wholeNumber, v.minValue(3))), v.maxLength(MOST_DESCRIPTORS)),
  /** The descriptor of reports; closed by a successful exec. */
  report: v.pipe(wholeNumber, v.minValue(3)),
});
export type ConfinePlan = v.InferOutput<typeof confinePlanSchema>;
export type ConfineLimits = ConfinePlan["limits"];

/**
 * A confiner that was started ahead is `hostler --confine ahead INVOCATION_ID=<zeros>`, with the
 * same variable in its environment, and waits for a line on a socket: an order, with descriptors on
 * its first byte. It takes the name of the start, says "named", and goes on when it is told to. A
 * worker that dies before that leaves nobody; after it, a VMM that the next one finds by its name.
 */
export const AHEAD = "ahead";
/** What stands where the invocation will, as long as it has none. */
export const NO_INVOCATION: string = "0".repeat(32);
/** Descriptors that it can pass on; a start with more has a confiner of its own. */
export const MOST_AHEAD_DESCRIPTORS = 16;
/**
 * Its socket, which is its report as well: above the places of what it passes on, which are taken
 * until then, so that nothing of the runtime stands there.
 */
export const AHEAD_SOCKET: number = 3 + MOST_AHEAD_DESCRIPTORS;
/** Bytes of an order: a command line with its paths and variables has some five thousand. */
export const LONGEST_ORDER = 131_072;
/** What it says when the order is understood, and it can be found by its name. */
export const NAMED = "named\n";
/** What it is told then. */
export const GO = "go\n";

export const confineOrderSchema = v.strictObject({
  invocation: v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/)),
  plan: confinePlanSchema,
  program: absolutePath,
  /** Those of argv, and then the environment. */
  words: v.array(v.string()),
  /** Where each descriptor that came with it belongs, in their order. */
  targets: v.pipe(
    v.array(v.pipe(wholeNumber, v.maxValue(AHEAD_SOCKET - 1))),
    v.maxLength(MOST_AHEAD_DESCRIPTORS + 2),
  ),
});
export type ConfineOrder = v.InferOutput<typeof confineOrderSchema>;

/**
 * What the confiner writes: one JSON object a line. Nothing, when all was done; "left-out" for
 * each optional part that the machine refused; at last "failed" when the program does not run.
 */
export const confineReportSchema = v.strictObject({
  kind: v.picklist(["left-out", "failed"]),
  stage: v.picklist([...optionalStages, "no-new-privileges", "folder", "exec", "confine"]),
  message: v.string(),
  /** The name of the error number: "EPERM". */
  code: v.optional(v.string()),
});
export type ConfineReport = v.InferOutput<typeof confineReportSchema>;

/** The first thing that is wrong with a plan, by its key. */
export function describeIssue(issue: v.BaseIssue<unknown>): string {
  return `${v.getDotPath(issue) ?? "the plan"}: ${issue.message}`;
}
