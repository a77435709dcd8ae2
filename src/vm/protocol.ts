import * as v from "valibot";
import { healthSchema } from "./health-configuration.ts";
import { machineLimitsSchema, VMM_OVERHEAD_MEBIBYTES } from "./machine-limits.ts";
import { execEntries } from "./protocol-exec.ts";
import {
  domainSchema,
  forwardsNeedCardRule,
  forwardsSchema,
  hasCardForForwards,
  networkLimits,
  networksSchema,
} from "./protocol-network.ts";

/**
 * The worker's control socket: the command line, and the worker's own tests, speak the house's
 * control frames over it. Names are snake_case; those of a machine's declaration are Procurator's
 * VmSpec, in its own spelling. Numbers and names are never reused.
 */

/** A peer with another version is refused in its hello. */
export const PROTOCOL_VERSION = 1;

export const defaultControlSocket = "/run/hostler/vm.sock";

/** The limits of the wire; going over one is a refusal that a test shows. */
export const limits = {
  /** Bytes of one frame: a list of as many machines as there may be is smaller. */
  frameBytes: 4 * 1024 * 1024,
  /** Bytes before the peer has said a valid hello. */
  helloBytes: 4096,
  /** Milliseconds in which a connection must say its hello. */
  helloTime: 10_000,
  /** Connections at once. */
  connections: 1024,
  /** Bytes that wait for a peer that does not read, before it is let go. */
  queuedBytes: 8 * 1024 * 1024,
  /** Machines of one worker: a bridge has at most 1,023 ports. */
  machines: 1000,
  /** A label of DNS (RFC 1035): the name is that of the guest as well. */
  nameLength: 63,
  /** Bytes of a path; PATH_MAX of Linux, with its zero. */
  pathBytes: 4095,
  /** Bytes of a kernel's command line: COMMAND_LINE_SIZE of x86, with its zero. */
  commandLineBytes: 2047,
  /** Virtual processors of one machine. */
  processors: 255,
  /** Mebibytes of one machine: 4 TiB; and the least with which a kernel is unpacked. */
  memoryMebibytes: 4 * 1024 * 1024,
  leastMemoryMebibytes: 4,
  /** Characters of a reason, from whoever. */
  textLength: 1024,
  /** Milliseconds of a grace. */
  longestGrace: 3_600_000,
} as const;

/** How a machine, and a snapshot, may be called. */
export const namePattern = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

const nameRule = "1 to 63 characters of a-z, 0-9 and -, with a letter or a digit at each end";

/** Why a name cannot be one; undefined when it can. */
export function refuseName(
  name: string,
): { readonly expected: string; readonly received: string } | undefined {
  if (namePattern.test(name)) return undefined;
  const MOST_SHOWN = 80;
  const isLong = name.length > limits.nameLength;
  const received = isLong ? `${name.length} characters` : JSON.stringify(name.slice(0, MOST_SHOWN));
  return { expected: nameRule, received };
}

const byteCount = (value: string) => new TextEncoder().encode(value).length;

const text = v.pipe(
  v.string(),
  v.check((value) => !value.includes("\0"), "Expected text without a zero byte"),
);
const identifier = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
export const machineNameSchema = v.pipe(
  v.string(),
  v.check(
    (value) => refuseName(value) === undefined,
    ({ input }) => `${nameRule}, instead of ${refuseName(String(input))?.received ?? ""}`,
  ),
);
const name = machineNameSchema;
const path = v.pipe(
  text,
  v.startsWith("/", "Expected an absolute path"),
  v.check(
    (value) => byteCount(value) <= limits.pathBytes,
    `Expected a path of at most ${limits.pathBytes} bytes`,
  ),
);

/** What `nix hash path` prints: the SHA-256 of a path's NAR serialisation. */
const hash = v.pipe(
  v.string(),
  v.regex(/^sha256-[A-Za-z0-9+/]{43}=$/, 'Expected "sha256-" and 44 characters of base64'),
);

const machineTypeRule = 'Expected "pc-q35-N.M" or "microvm", as qemu-system-x86_64 -machine help';
const processorModelRule = "Expected a model, as qemu-system-x86_64 -cpu help lists them";

/**
 * A machine as somebody declares it: by an image with its hash (vm-config.json is in it), or by
 * its kernel and disk.
 */
const vmSpecEntries = {
  name,
  imagePath: v.optional(path),
  hash: v.optional(hash),
  /** The system that it was built from; for people. */
  toplevel: v.optional(path),
  kernelPath: v.optional(path),
  /** Of its contents, as `nix hash file` prints it; so of the next two. */
  kernelHash: v.optional(hash),
  initrdPath: v.optional(path),
  initrdHash: v.optional(hash),
  diskImagePath: v.optional(path),
  diskImageHash: v.optional(hash),
  cmdline: v.optional(
    v.pipe(
      text,
      v.check(
        (value) => byteCount(value) <= limits.commandLineBytes,
        `Expected at most ${limits.commandLineBytes} bytes`,
      ),
    ),
  ),
  cpu: v.optional(
    v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(limits.processors)),
  ),
  memoryMb: v.optional(
    v.pipe(
      v.number(),
      v.safeInteger(),
      v.minValue(limits.leastMemoryMebibytes),
      v.maxValue(limits.memoryMebibytes),
    ),
  ),
  /** Of QEMU, as it is recorded: else the newest that its host has when it is made. */
  machineType: v.optional(
    v.pipe(v.string(), v.regex(/^(pc-q35-\d{1,3}\.\d{1,3}|microvm)$/, machineTypeRule)),
  ),
  /** Of QEMU, by its name there: else what its host can give to others as well. */
  processorModel: v.optional(
    v.pipe(v.string(), v.regex(/^[A-Za-z0-9][\w.-]{0,63}$/, processorModelRule)),
  ),
  networkAllowedDomains: v.optional(
    v.pipe(v.array(domainSchema), v.maxLength(networkLimits.allowedDomains)),
  ),
  /** Cards, the first of which has the default route; without it one, in the default network. */
  networks: v.optional(networksSchema),
  /** Ports of the host that lead to its first card: "tcp:8080:80". */
  forwards: v.optional(forwardsSchema),
  /** How the worker looks whether the guest does what it is there for. */
  health: v.optional(healthSchema),
  /** What its processes may take of the host at most. */
  limits: v.optional(machineLimitsSchema),
};

/** An image by path with its hash, or single files. */
interface SpecSource {
  readonly imagePath?: string | undefined;
  readonly hash?: string | undefined;
  readonly kernelPath?: string | undefined;
  readonly memoryMb?: number | undefined;
  readonly limits?: { readonly memoryMaxMb?: number | undefined } | undefined;
}
const isPair = ({ imagePath, hash }: SpecSource) =>
  (imagePath === undefined) === (hash === undefined);
const hasSource = ({ imagePath, kernelPath }: SpecSource) =>
  imagePath !== undefined || kernelPath !== undefined;
const pairRule = "Expected imagePath and hash together";
const sourceRule = "Expected imagePath with hash, or kernelPath";

/** Where the image says how much memory it has, its start is refused. */
const isRoomy = ({ memoryMb, limits: given }: SpecSource) =>
  memoryMb === undefined || (given?.memoryMaxMb ?? Number.POSITIVE_INFINITY) >= leastMax(memoryMb);
const leastMax = (memoryMb: number) => memoryMb + VMM_OVERHEAD_MEBIBYTES;
const roomRule =
  "Expected limits.memoryMaxMb to be at least memoryMb and " +
  `${VMM_OVERHEAD_MEBIBYTES} more for its VMM`;

export const vmSpecSchema = v.pipe(
  v.strictObject(vmSpecEntries),
  v.check((spec) => isRoomy(spec), roomRule),
  v.check((spec) => isPair(spec), pairRule),
  v.check((spec) => hasSource(spec), sourceRule),
  v.check((spec) => hasCardForForwards(spec), forwardsNeedCardRule),
);
export type VmSpec = v.InferOutput<typeof vmSpecSchema>;
/** What of a machine's VMM its declaration says. */
export type VmmWish = Partial<Pick<VmSpec, "machineType" | "processorModel">>;

/** A machine as a file declares it, with keys of its reader's own. */
export const desiredMachineSchema = <Own extends v.ObjectEntries>(own: Own) =>
  v.pipe(
    v.strictObject({
      ...vmSpecEntries,
      /** running without it. */
      power: v.optional(v.picklist(["off", "created", "running", "paused"])),
      ...own,
    }),
    v.check((spec) => isRoomy(spec), roomRule),
    v.check((spec) => isPair(spec), pairRule),
    v.check((spec) => hasSource(spec), sourceRule),
    v.check((spec) => hasCardForForwards(spec), forwardsNeedCardRule),
  );

/** A key of a snapshot, public or secret: 32 bytes in Base64. */
export const keyTextSchema = v.pipe(v.string(), v.regex(/^[A-Za-z0-9+/]{43}=$/));

/** All that is declared for one worker. */
export const desiredSchema = v.strictObject({
  /** Of the declaration: a lower one than the last is refused. Without it, one more than that. */
  generation: v.optional(count),
  machine: v.pipe(v.array(desiredMachineSchema({})), v.maxLength(limits.machines)),
});
export type DesiredRequest = v.InferOutput<typeof desiredSchema>;

/** The first frame of either side. */
export const helloSchema = v.strictObject({
  kind: v.literal("hello"),
  protocol: v.literal(PROTOCOL_VERSION),
  role: v.picklist(["worker", "client"]),
  /** The version of the program, for people. */
  version: v.string(),
});
export type Hello = v.InferOutput<typeof helloSchema>;

const grace = v.optional(
  v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(limits.longestGrace)),
);

/** What the command line asks of the worker. */
export const controlRequestSchema = v.variant("verb", [
  v.strictObject({
    id: identifier,
    verb: v.literal("create"),
    spec: vmSpecSchema,
    /** off: its disks are made. created: a VMM has it, and nothing of its guest has run. */
    wanted: v.optional(v.picklist(["off", "created", "running", "paused"])),
  }),
  /** Makes the machines as they are declared, and keeps to it; others that were declared go. */
  v.strictObject({ id: identifier, verb: v.literal("apply"), desired: desiredSchema }),
  /** What `apply` of it would do. */
  v.strictObject({ id: identifier, verb: v.literal("diff"), desired: desiredSchema }),
  v.strictObject({ id: identifier, verb: v.literal("boot"), name }),
  v.strictObject({ id: identifier, verb: v.literal("pause"), name }),
  v.strictObject({ id: identifier, verb: v.literal("resume"), name }),
  v.strictObject({
    id: identifier,
    verb: v.literal("shutdown"),
    name,
    /** Its VMM is killed, and its guest is not asked. */
    now: v.optional(v.boolean()),
    /** In place of the configured one, in milliseconds. */
    grace_ms: grace,
  }),
  v.strictObject({
    id: identifier,
    verb: v.literal("delete"),
    name,
    now: v.optional(v.boolean()),
    /** One that is declared, and is made anew, without its disks. */
    recreate: v.optional(v.boolean()),
  }),
  v.strictObject({ id: identifier, verb: v.literal("list") }),
  v.strictObject({ id: identifier, verb: v.literal("show"), name }),
  /** The kept events after a sequence number; with `follow` the coming ones too. */
  v.strictObject({
    id: identifier,
    verb: v.literal("events"),
    name: v.optional(name),
    after: v.optional(count),
    follow: v.optional(v.boolean()),
  }),
  v.strictObject({ id: identifier, verb: v.literal("metrics"), name: v.optional(name) }),
  /** Answered by the path of the console's socket. */
  v.strictObject({ id: identifier, verb: v.literal("console"), name }),
  /** Items tell how far it is; answered when the snapshot is there. */
  v.strictObject({
    id: identifier,
    verb: v.literal("snapshot"),
    ...{ name, snapshot: name },
    /** The public key that it is encrypted to: 32 bytes of X25519, in Base64. */
    encrypt_to: v.optional(keyTextSchema),
  }),
  /** Makes the machine that a snapshot holds, which must not be there. Items tell how far it is. */
  v.strictObject({
    id: identifier,
    verb: v.literal("restore"),
    ...{ name, snapshot: name },
    /** The secret key of an encrypted one; the socket is root's alone. */
    key: v.optional(keyTextSchema),
  }),
  v.strictObject({ id: identifier, verb: v.literal("snapshots"), name: v.optional(name) }),
  v.strictObject({ id: identifier, verb: v.literal("delete-snapshot"), name, snapshot: name }),
  /** Listens for a machine of another host; answered by the ticket that lets it in. */
  v.strictObject({
    id: identifier,
    verb: v.literal("receive"),
    name,
    host: v.pipe(v.string(), v.ip()),
    /** 0: any that is free. */
    port: v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(65_535)),
    time_ms: v.optional(
      v.pipe(v.number(), v.safeInteger(), v.minValue(1_000), v.maxValue(86_400_000)),
    ),
    /** Where it has another address: this one, or, where its own is taken, one that is free. */
    networks: v.optional(networksSchema),
  }),
  /** Takes a ticket back that nobody has used. */
  v.strictObject({ id: identifier, verb: v.literal("cancel-receive"), name }),
  /** Items tell how far it is; answered when the other host has it. It ends with this client. */
  v.strictObject({ id: identifier, verb: v.literal("migrate"), name, ticket: v.string() }),
  /** Says that a machine is this host's, of which nobody knows whose it is. */
  v.strictObject({ id: identifier, verb: v.literal("claim"), name }),
  /** A machine that is declared here, and was given to another host, may be made anew here. */
  v.strictObject({ id: identifier, verb: v.literal("forget-migrated"), name }),
  v.strictObject({ id: identifier, verb: v.literal("replace-vmm"), name }),
  v.strictObject({ id: identifier, verb: v.literal("survivable"), name }),
  /** Runs a program in its guest: output as items, then its ending. It ends with this client. */
  v.strictObject({ id: identifier, verb: v.literal("exec"), name, ...execEntries }),
  /** Answered when the agent in its guest has; "ping" asks whether the worker is there. */
  v.strictObject({ id: identifier, verb: v.literal("guest-ping"), name }),
  /** Of the worker itself. */
  v.strictObject({ id: identifier, verb: v.literal("status") }),
  /** Answered when the machine is in that phase, or will not come there by itself. */
  v.strictObject({
    id: identifier,
    verb: v.literal("wait"),
    name,
    until: v.picklist(["created", "running", "paused", "off", "removed"]),
  }),
]);
export type ControlRequest = v.InferOutput<typeof controlRequestSchema>;
export type Verb = ControlRequest["verb"];

/** What a refusal is about; a program decides by it, a person reads the message. */
export const errorKinds = [
  /** The request is not one. */
  "invalid",
  /** There is no machine of this name. */
  "unknown-machine",
  "name-taken",
  /** There is one of this name, and its record is not understood. */
  "record-damaged",
  "unknown-snapshot",
  /** Its files are not what its manifest says. */
  "snapshot-damaged",
  /** The other host refused, or cannot be reached: the machine goes on here. */
  "migration",
  /** Nobody here knows whether the other host has the machine. */
  "undecided",
  /** In its phase, the machine cannot do that; the message says why. */
  "wrong-phase",
  /** A declaration is older than the last one. */
  "old-generation",
  /** A master declares what this worker has. */
  "has-master",
  /** A limit of this worker, or no address is free. */
  "limit",
  /** A network that is not there, an address or a port of the host that is another's. */
  "network",
  /** The image is not what its hash says, or not what a machine is made of. */
  "image",
  /** The hypervisor cannot make such a machine. */
  "machine-refused",
  /** The VMM answered, and refused. */
  "vmm-refused",
  /** The VMM does not answer. */
  "vmm-unreachable",
  /** The agent in the guest answered, and refused. */
  "agent-refused",
  /** The agent in the guest does not answer, or breaks the rules of its wire. */
  "agent-unreachable",
  /** The kernel refused: disk full, no permission. */
  "system",
] as const;
export type ErrorKind = (typeof errorKinds)[number];

export const errorSchema = v.strictObject({
  kind: v.picklist(errorKinds),
  message: v.string(),
  /** The name of the error number, where the kernel refused. */
  code: v.optional(v.string()),
  /** Of the declaration or the request. */
  key: v.optional(v.string()),
  expected: v.optional(v.string()),
  received: v.optional(v.string()),
  hint: v.optional(v.string()),
});
export type WireError = v.InferOutput<typeof errorSchema>;

export const phases = [
  "absent",
  "preparing",
  "preparing-network",
  "starting",
  "uncertain",
  "connecting",
  "creating",
  "created",
  "booting",
  "running",
  "pausing",
  "paused",
  "resuming",
  "replacing",
  "capturing",
  "snapshotting",
  "restoring",
  "sending",
  "given",
  "receiving",
  "arrived",
  "detached",
  "stopping",
  "clearing",
  "off",
  "failed",
  "backing-off",
  "removing",
  "removed",
] as const;

/** How far a migration is. */
export const migrationProgressSchema = v.object({
  stage: v.picklist(["image", "disks", "memory"]),
  done_bytes: v.number(),
  all_bytes: v.number(),
  /** How often its memory was gone through. */
  rounds: v.number(),
});
export type MigrationProgressRecord = v.InferOutput<typeof migrationProgressSchema>;

/** The answer of `migrate`: the machine is another host's. */
export const migrationResultSchema = v.object({
  name: v.string(),
  migration: v.string(),
  /** "10.77.0.2:40123" */
  to: v.string(),
  bytes: v.number(),
  rounds: v.number(),
  /** Milliseconds from the guest's stop to the word that it runs there. */
  pause_ms: v.number(),
  time_ms: v.number(),
});
export type MigrationResultRecord = v.InferOutput<typeof migrationResultSchema>;

/** A preparation under way: what of how much is hashed and copied. */
export const progressSchema = v.object({
  what: v.string(),
  done_bytes: v.number(),
  all_bytes: v.nullable(v.number()),
});
export type Progress = v.InferOutput<typeof progressSchema>;

/** One line of `snapshots`. */
export const snapshotSummarySchema = v.object({
  name: v.string(),
  snapshot: v.string(),
  time: v.string(),
  /** How the machine was, and is again when it is restored. */
  power: v.picklist(["running", "paused"]),
  /** The public key that it is encrypted to; null for one that is not. */
  encrypted_to: v.nullable(v.string()),
  /** With holes, and without. */
  bytes: v.number(),
  stored_bytes: v.number(),
  hypervisor: v.picklist(["cloud-hypervisor", "qemu"]),
  version: v.string(),
  accelerator: v.picklist(["kvm", "tcg"]),
  machine_type: v.nullable(v.string()),
  processor_model: v.nullable(v.string()),
  /** Why the same build of its hypervisor alone can take it. */
  same_build_only: v.nullable(v.string()),
  address: v.nullable(v.string()),
  image_hash: v.nullable(v.string()),
  folder: v.string(),
});
export type SnapshotSummary = v.InferOutput<typeof snapshotSummarySchema>;

/** One whose manifest says nothing: it can be removed, and nothing can be made of it. */
export const damagedSnapshotSchema = v.object({
  name: v.string(),
  snapshot: v.string(),
  folder: v.string(),
  /** What is wrong with its manifest. */
  damaged: v.string(),
});
export type DamagedSnapshot = v.InferOutput<typeof damagedSnapshotSchema>;

/** resting: nothing is asked. starting: neither health nor the lack of it has been shown. */
const healthState = v.picklist(["resting", "starting", "healthy", "unhealthy"]);

/** How a machine stands to its checks: it is as the worst of them says. */
export const vmHealthSchema = v.object({
  state: healthState,
  checks: v.array(
    v.object({
      check: v.string(),
      state: healthState,
      /** Of the last probe, where it did not pass. */
      reason: v.nullable(v.string()),
      /** Milliseconds since the last answer; null before the first. */
      answered_ms: v.nullable(v.number()),
      /** Since this worker watches it. */
      probes: v.number(),
      failures: v.number(),
    }),
  ),
});
export type VmHealth = v.InferOutput<typeof vmHealthSchema>;

/** One line of `list`. */
export const vmSummarySchema = v.object({
  name: v.string(),
  phase: v.picklist(phases),
  wanted: v.picklist(["absent", "off", "created", "running", "paused"]),
  /** Why it is as it is: the last refusal, or how it came to be off; null otherwise. */
  reason: v.nullable(v.string()),
  /** Of the VMM, as the host sees it; null when none runs. */
  pid: v.nullable(v.number()),
  invocation: v.nullable(v.string()),
  /** Of its first network card. */
  address: v.nullable(v.string()),
  mac: v.nullable(v.string()),
  tap: v.nullable(v.string()),
  /** All of them, in the order of its declaration. */
  cards: v.array(
    v.object({ network: v.string(), address: v.string(), mac: v.string(), tap: v.string() }),
  ),
  /** Ports of the host that lead to it, as it was declared. */
  forwards: v.array(v.string()),
  hypervisor: v.nullable(v.picklist(["cloud-hypervisor", "qemu"])),
  /** Of the VMM that runs: one that was adopted may be older than the program on the disk. */
  version: v.nullable(v.string()),
  accelerator: v.nullable(v.picklist(["kvm", "tcg"])),
  processors: v.nullable(v.number()),
  memory_bytes: v.nullable(v.number()),
  /** Milliseconds since the VMM was started; null when none runs. */
  uptime_ms: v.nullable(v.number()),
  /** VMMs that came after another one by the rule; a replaced VMM is none. */
  restarts: v.number(),
  image_hash: v.nullable(v.string()),
  progress: v.nullable(progressSchema),
  /** Milliseconds that its VMM has not answered; null when it does, or there is none. */
  detached_ms: v.nullable(v.number()),
  /** The state that is held outside of a VMM, until a new one has it. */
  capture: v.nullable(v.string()),
  /** null for one without checks. */
  health: v.nullable(vmHealthSchema),
});
export type VmSummary = v.InferOutput<typeof vmSummarySchema>;

/** One thing that happened, as `events` and `show` print it. */
export const vmEventSchema = v.object({
  sequence: v.number(),
  /** Wall clock, RFC 3339 with microseconds, UTC. */
  time: v.string(),
  /** CLOCK_MONOTONIC in microseconds. */
  monotonic_us: v.number(),
  name: v.string(),
  what: v.string(),
  invocation: v.optional(v.string()),
  pid: v.optional(v.number()),
  /** For people: the rest in words. */
  detail: v.optional(v.string()),
});
export type VmEventRecord = v.InferOutput<typeof vmEventSchema>;

/** The answer of `survivable`: whether its VMM can be replaced under it, else exactly why not. */
export const survivableSchema = v.object({
  name: v.string(),
  survivable: v.boolean(),
  /** Each with the key of the configuration that it comes from. */
  obstacles: v.array(v.object({ key: v.string(), message: v.string() })),
  /** Survivable, but by the same build of the VMM alone; why. */
  same_build_only: v.nullable(v.string()),
});
export type Survivable = v.InferOutput<typeof survivableSchema>;

/** The answer of `show`. */
export const vmDetailSchema = v.object({
  summary: vmSummarySchema,
  spec: v.unknown(),
  machine_type: v.nullable(v.string()),
  processor_model: v.nullable(v.string()),
  console: v.nullable(v.string()),
  /** What its VMM, or the last one, said itself: why it gave up; null for nothing. */
  vmm_output: v.nullable(v.string()),
  folder: v.string(),
  /** Of its VMM; null where it has none of its own. */
  cgroup: v.nullable(v.string()),
  survivable: survivableSchema,
  history: v.array(vmEventSchema),
});
export type VmDetail = v.InferOutput<typeof vmDetailSchema>;

/** What one machine has used; null where nobody can tell. */
export const vmMetricsSchema = v.object({
  name: v.string(),
  /** Of one processor: 250 is two and a half. */
  cpu_percent: v.nullable(v.number()),
  cpu_seconds: v.nullable(v.number()),
  /** Of the VMM: what its guest uses is in it. */
  memory_bytes: v.nullable(v.number()),
  /** What its cgroup is charged with, files that the kernel keeps for it included. */
  cgroup_memory_bytes: v.nullable(v.number()),
  /** In which it was held back by its limit of processor time. */
  cpu_throttled_seconds: v.nullable(v.number()),
  /** By the kernel, at its limit of memory. */
  oom_kills: v.nullable(v.number()),
  /** Of all its cards together. */
  network_received_bytes: v.nullable(v.number()),
  network_sent_bytes: v.nullable(v.number()),
  /** Those that there are; what the machine received its TAP has sent. */
  cards: v.array(
    v.object({
      network: v.string(),
      tap: v.string(),
      received_bytes: v.number(),
      sent_bytes: v.number(),
    }),
  ),
  disk_read_bytes: v.nullable(v.number()),
  disk_written_bytes: v.nullable(v.number()),
  /** 1: healthy, 0: unhealthy; null where neither has been shown. */
  healthy: v.nullable(v.picklist([0, 1])),
  /** When it was measured: wall clock, RFC 3339, UTC. */
  time: v.nullable(v.string()),
});
export type VmMetrics = v.InferOutput<typeof vmMetricsSchema>;

/** How a worker stands to its master. */
export const masterStatusSchema = v.object({
  /** null while this host is not enrolled. */
  address: v.nullable(v.string()),
  state: v.picklist(["connected", "disconnected"]),
  /** Milliseconds for which it has been so. */
  since_ms: v.nullable(v.number()),
  /** Why it is not reached. */
  reason: v.nullable(v.string()),
  /** Of the assignment that is followed. */
  generation: v.nullable(v.number()),
  revision: v.nullable(v.number()),
  /** Milliseconds since the last report was sent that was answered. */
  heard_ms: v.nullable(v.number()),
  watchdog: v.nullable(
    v.object({
      device: v.string(),
      phase: v.picklist(["off", "unheld", "arming", "armed"]),
      timeout_ms: v.nullable(v.number()),
    }),
  ),
  /** Machines that may not run now, and why. */
  held: v.array(v.object({ name: v.string(), reason: v.string() })),
  /** Machines that are assigned, and could not be made, and why. */
  unmade: v.array(v.object({ name: v.string(), reason: v.string() })),
  /** Machines that are held under an owner generation of which the master never heard. */
  unknown: v.array(v.string()),
});
export type MasterStatus = v.InferOutput<typeof masterStatusSchema>;

/** The answer of `status`. */
export const workerStatusSchema = v.object({
  version: v.string(),
  pid: v.number(),
  uptime_ms: v.number(),
  machines: v.number(),
  machine_limit: v.number(),
  /** How many are in each phase. */
  phases: v.record(v.string(), v.number()),
  /** Of those with checks: how many are in each state. */
  health: v.record(v.string(), v.number()),
  hypervisors: v.array(
    v.object({
      hypervisor: v.string(),
      path: v.string(),
      version: v.string(),
      accelerator: v.picklist(["kvm", "tcg"]),
      /** New machines are made with it. */
      chosen: v.boolean(),
    }),
  ),
  bridge: v.nullable(v.string()),
  subnet: v.nullable(v.string()),
  free_addresses: v.nullable(v.number()),
  /** All networks, the default one first. */
  networks: v.array(
    v.object({
      name: v.string(),
      bridge: v.string(),
      subnet: v.string(),
      vlan: v.nullable(v.number()),
      free_addresses: v.number(),
      /** Cards of machines. */
      cards: v.number(),
    }),
  ),
  /** In which each VMM has a cgroup of its own; null where there are none. */
  cgroup: v.nullable(v.string()),
  cgroup_controllers: v.array(v.string()),
  /** Why there is no cgroup, or not every controller; null where all is there. */
  cgroup_lacking: v.nullable(v.string()),
  /** Of what was applied last; null when nothing ever was. */
  generation: v.nullable(v.number()),
  convergence_percent: v.nullable(v.number()),
  /** Whom it follows; null for a worker that has what is declared here. */
  master: v.nullable(masterStatusSchema),
  /** Machines whose records are not understood, beside `machines`. */
  damaged: v.optional(
    v.array(v.object({ name: v.string(), path: v.string(), reason: v.string() })),
    [],
  ),
  /** What is not as it should be, such as a host without KVM. */
  warnings: v.array(v.string()),
});
export type WorkerStatus = v.InferOutput<typeof workerStatusSchema>;

/** The answer of `apply` and of `diff`. */
export const reconciliationSchema = v.object({
  generation: v.number(),
  convergence_percent: v.number(),
  /** What is done, or would be, now; what follows from it comes by itself. */
  commands: v.array(v.object({ kind: v.string(), name: v.string(), detail: v.string() })),
  machines: v.array(
    v.object({
      name: v.string(),
      status: v.picklist(["converged", "pending", "drifted", "failed", "left-alone"]),
      reason: v.nullable(v.string()),
      drift: v.array(v.object({ key: v.string(), desired: v.unknown(), observed: v.unknown() })),
    }),
  ),
});
export type ReconciliationAnswer = v.InferOutput<typeof reconciliationSchema>;

/** The answer of `console`. */
export const consoleSchema = v.object({ name: v.string(), path: v.string() });

/**
 * Answers of the control socket: {id, ok: …} once per request; before it, for events, any number
 * of {id, item: …}; or {id, error}. With `follow`, items go on until the client leaves.
 */
export const controlReplySchema = v.union([
  v.strictObject({ id: identifier, ok: v.unknown() }),
  v.strictObject({ id: identifier, item: v.unknown() }),
  v.strictObject({ id: identifier, error: errorSchema }),
]);
export type ControlReply = v.InferOutput<typeof controlReplySchema>;
