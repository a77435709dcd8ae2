import * as v from "valibot";
import { nameSchema } from "../identity/protocol.ts";
import { desiredMachineSchema, limits as machineLimits, phases, vmSpecSchema } from "./protocol.ts";

/**
 * The wire between a master and its workers, and between a master and its operators. Workers speak
 * in a session of their host's identity: the session says which worker it is, and nothing on the
 * wire does. Names and numbers are never used again for something else.
 *
 * What a worker owes its master, and what a master's decisions stand on:
 *
 * 1. It asks for its assignment (`assignment`), keeps to it while the master is away, or says
 *    "unchanged" before it ever said anything, and reports
 *    (`report`) at once when something changed, and every `reportEvery` otherwise. A report that
 *    was heard, and is not answered yet, is followed by the next one in the same way: it counts as
 *    no answer for duties 6 to 8.
 * 2. It removes a machine only when `removals` of an assignment names it with the owner generation
 *    that it holds. One that is in neither list is left alone: nobody has said that it may go.
 *    What a list says of a machine's `movable` and `fencing` counts, and is on the disk, before the
 *    worker reports that it follows that assignment.
 * 3. An assignment of the same `incarnation` that is older than the one it follows is dropped:
 *    neither `generation` nor `revision` of a later one is lower. A master that had forgotten the
 *    worker goes on above the revision that its report says it follows.
 * 4. A machine that it holds with an owner generation named in `stale` of a report's answer is
 *    another's, or may be soon: its VMM is killed before anything else is done, and it is not made
 *    again under that number, though the assignment that is followed names it still.
 * 5. An assigned machine with a higher owner generation than the one that it holds is stopped, and
 *    made anew under the higher one.
 * 6. After a boot, or without knowing that its host was not booted meanwhile, it starts no movable
 *    machine before a report of that boot was answered: another may have it by now. All others it
 *    starts by the assignment that it has, and so a master gives those to nobody else before the
 *    worker has said, following an assignment without them, that it has them no more.
 * 7. Where a machine's `fencing` is "watchdog", it feeds its watchdog, while it holds that machine,
 *    only within `leaseTime` after it SENT the last report that was answered. It may kill those
 *    machines itself and feed on. So whatever becomes of it, none of them runs later than
 *    `leaseTime` and the watchdog's own time after a report that its master received.
 *    It counts `leaseTime` by CLOCK_BOOTTIME, and such a host is not suspended.
 * 8. It says `watchdog: null` and has the answer before it disarms one, and the longer time before
 *    it lengthens one.
 */

/** The version of this wire: a peer with another one is refused. */
export const MASTER_PROTOCOL_VERSION = 1;

/** The limits of a master; going over one is a refusal that a test shows. */
export const masterLimits = {
  /** Workers that one master knows. */
  workers: 256,
  /** Machines of one declaration: of all workers. */
  machines: 10_000,
  /** Machines of one worker, those that are to go included. */
  machinesOfWorker: machineLimits.machines,
  /** Bytes of a declaration as JSON. */
  declarationBytes: 4 * 1024 * 1024,
  /** Bytes of a report: a worker leaves out metrics, and then drift, where it would be more. */
  reportBytes: 4 * 1024 * 1024,
  /** Labels of one worker, and labels that one machine asks for. */
  labels: 32,
  labelLength: 63,
  /** Keys of one machine that are told not to be as declared, and characters of each value. */
  drift: 16,
  driftLength: 256,
  /** Characters of a reason, from whoever. */
  textLength: machineLimits.textLength,
  /** Milliseconds for which a question for an assignment may wait for news. */
  longestWait: 20_000,
  /** Milliseconds between two reports of a worker at most. */
  reportEvery: 5_000,
  /** Milliseconds without a report after which a worker may count as lost: linkBackoff's bound. */
  leastLostAfter: 20_000,
  /** Milliseconds after a report was SENT within which its answer lets the watchdog be fed. */
  leaseTime: 30_000,
  /** Milliseconds of the longest watchdog. */
  watchdogTime: 3_600_000,
} as const;

const version = v.literal(MASTER_PROTOCOL_VERSION);
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const positive = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const reason = v.pipe(v.string(), v.maxLength(masterLimits.textLength));
const machineName = vmSpecSchema.pipe[0].entries.name;
/** /proc/sys/kernel/random/boot_id. */
const boot = v.pipe(
  v.string(),
  v.regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, "a boot id"),
);
const incarnation = v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/, "32 hexadecimal digits"));

const labelName = v.pipe(
  v.string(),
  v.regex(/^[a-z0-9](?:[a-z0-9._/-]{0,61}[a-z0-9])?$/, "a label of a-z, 0-9, ., _, / and -"),
);
const labelValue = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/, "1 to 63 of A-Z, a-z, 0-9, ., _, -"),
);
export const labelsSchema = v.pipe(
  v.record(labelName, labelValue),
  v.check(
    (labels) => Object.keys(labels).length <= masterLimits.labels,
    `at most ${masterLimits.labels} labels`,
  ),
);
export type Labels = v.InferOutput<typeof labelsSchema>;

/** Where a machine may run. */
export const placementSchema = v.strictObject({
  /** A worker must have all of these. */
  labels: v.optional(labelsSchema),
  /** Machines of one group are kept apart: on workers that differ, or whose label does. */
  spread: v.optional(v.strictObject({ group: machineName, by: v.optional(labelName) })),
  /**
   * It may run elsewhere when its worker is proven dead: all that it needs is in its image. Without
   * it the machine waits for its worker.
   */
  movable: v.optional(v.boolean()),
});
export type Placement = v.InferOutput<typeof placementSchema>;

const powers = ["off", "created", "running", "paused"] as const;

/** The file that is applied to a master: as for a worker, with where each machine may run. */
export const clusterSchema = v.strictObject({
  /** Of the declaration: a lower one than the last is refused. Without it, one more than that. */
  generation: v.optional(count),
  machine: v.pipe(
    v.array(desiredMachineSchema({ placement: v.optional(placementSchema) })),
    v.maxLength(masterLimits.machines),
  ),
});
export type ClusterRequest = v.InferOutput<typeof clusterSchema>;

/** Which assignment: of the declaration, and of what this worker has of it. Neither ever falls. */
const assignmentPlaceEntries = {
  /** Of the master's store: new when a backup was restored, and then any number may come. */
  incarnation,
  generation: count,
  revision: count,
};
export const assignmentPlaceSchema = v.strictObject(assignmentPlaceEntries);
export type AssignmentPlace = v.InferOutput<typeof assignmentPlaceSchema>;

export const assignmentRequestSchema = v.strictObject({
  version,
  /** The one that it follows; null when it follows none. */
  last_seen: v.nullable(assignmentPlaceSchema),
  /** Milliseconds to wait for another one; 0 asks how it is now. */
  wait_ms: v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(masterLimits.longestWait)),
});

/** One machine that a worker is to have. */
export const assignedMachineSchema = v.strictObject({
  spec: vmSpecSchema,
  power: v.picklist(powers),
  /** Never given twice, to nobody. It is written on the machine's writable disks. */
  owner_generation: positive,
  movable: v.boolean(),
  /** "watchdog": duty 7 counts for it, because its worker had one when it was given. */
  fencing: v.picklist(["none", "watchdog"]),
});
export type AssignedMachine = v.InferOutput<typeof assignedMachineSchema>;

const heldEntries = { name: machineName, owner_generation: positive };
const held = v.strictObject(heldEntries);
export type HeldMachine = v.InferOutput<typeof held>;

export const assignmentSchema = v.variant("kind", [
  v.strictObject({ kind: v.literal("unchanged"), version }),
  v.strictObject({
    kind: v.literal("assignment"),
    version,
    ...assignmentPlaceEntries,
    machines: v.pipe(v.array(assignedMachineSchema), v.maxLength(masterLimits.machinesOfWorker)),
    /** Machines that it is to remove, when it holds them under this owner generation or a lower. */
    removals: v.pipe(v.array(held), v.maxLength(masterLimits.machinesOfWorker)),
  }),
]);
export type AssignmentAnswer = v.InferOutput<typeof assignmentSchema>;
export type Assignment = Extract<AssignmentAnswer, { kind: "assignment" }>;

/** As reconcile.ts says of each machine. */
export const standings = ["converged", "pending", "drifted", "failed", "left-alone"] as const;

/** What a machine used, as its worker measured it; null where nobody can tell. */
export const reportedMetricsSchema = v.strictObject({
  cpu_percent: v.nullable(v.number()),
  cpu_seconds: v.nullable(v.number()),
  memory_bytes: v.nullable(v.number()),
  network_received_bytes: v.nullable(v.number()),
  network_sent_bytes: v.nullable(v.number()),
  disk_read_bytes: v.nullable(v.number()),
  disk_written_bytes: v.nullable(v.number()),
});

const driftValue = v.pipe(v.string(), v.maxLength(masterLimits.driftLength));

/**
 * Every machine that a worker has, whoever made it; and each that it is to have and could not make,
 * which is absent, with the reason.
 */
export const reportedMachineSchema = v.strictObject({
  name: machineName,
  /** Under which it holds the machine; null for one that no master gave. */
  owner_generation: v.nullable(positive),
  phase: v.picklist(phases),
  standing: v.picklist(standings),
  reason: v.nullable(reason),
  /** Values as JSON, cut. */
  drift: v.pipe(
    v.array(
      v.strictObject({
        key: v.pipe(v.string(), v.maxLength(masterLimits.labelLength)),
        desired: driftValue,
        observed: driftValue,
      }),
    ),
    v.maxLength(masterLimits.drift),
  ),
  /** What it was made with; null while nobody knows. */
  processors: v.nullable(count),
  memory_bytes: v.nullable(count),
  metrics: v.nullable(reportedMetricsSchema),
});
export type ReportedMachine = v.InferOutput<typeof reportedMachineSchema>;

const resources = v.strictObject({ processors: count, memory_bytes: count });
export type Resources = v.InferOutput<typeof resources>;

/** A watchdog that is armed: whoever holds it feeds it, or the host is reset. */
export const watchdogSchema = v.strictObject({
  /** WDIOC_GETTIMEOUT, in milliseconds: from the last feeding to the reset. */
  timeout_ms: v.pipe(
    v.number(),
    v.safeInteger(),
    v.minValue(1),
    v.maxValue(masterLimits.watchdogTime),
  ),
  /** Not softdog or the like: it resets a host whose kernel hangs as well. */
  hardware: v.boolean(),
  /** It goes on when the worker is killed: WDIOF_MAGICCLOSE, or nowayout. */
  stays_armed: v.boolean(),
  identity: v.pipe(v.string(), v.maxLength(machineLimits.nameLength)),
});
export type Watchdog = v.InferOutput<typeof watchdogSchema>;

export const reportSchema = v.strictObject({
  version,
  boot,
  /** Chosen by the worker's process at its start; rises with each report of the process. */
  run: incarnation,
  sequence: positive,
  program: v.pipe(v.string(), v.maxLength(64)),
  /** The assignment that it follows; null when it follows none. */
  observed: v.nullable(assignmentPlaceSchema),
  /** Of that assignment. */
  convergence_percent: v.pipe(v.number(), v.minValue(0), v.maxValue(100)),
  total: resources,
  /**
   * What no machine of this worker was made with, whoever made it; what is left over of one that is
   * another worker's by now, and has ended, takes none of it.
   */
  free: resources,
  labels: labelsSchema,
  watchdog: v.nullable(watchdogSchema),
  /** All that it has, a machine that failed or is off too. */
  machines: v.pipe(v.array(reportedMachineSchema), v.maxLength(masterLimits.machinesOfWorker)),
});
export type Report = v.InferOutput<typeof reportSchema>;

const answered = v.strictObject({
  kind: v.literal("answered"),
  version,
  /** Machines that it holds under an owner generation that counts no more: duty 4. */
  stale: v.pipe(v.array(held), v.maxLength(masterLimits.machinesOfWorker)),
  /** It holds these under an owner generation, and this master has never heard of it: duty 2. */
  unknown: v.pipe(v.array(held), v.maxLength(masterLimits.machinesOfWorker)),
  /** Where its assignment is now: a worker that follows another one asks for it. */
  assignment: assignmentPlaceSchema,
  /** `leaseTime` of this master, which is that of the wire: duty 7. */
  lease_ms: count,
});
export type ReportAnswer = v.InferOutput<typeof answered>;

/** After a restored backup nobody is told what may run before all others have been heard. */
const heard = v.strictObject({
  kind: v.literal("heard"),
  version,
  /** What is waited for. */
  reason,
});

export const reportReplySchema = v.variant("kind", [answered, heard]);
export type ReportReply = v.InferOutput<typeof reportReplySchema>;

/** silent: no report lately. lost: none for long. unheard: none yet since the master's start. */
export const workerStandings = ["healthy", "silent", "lost", "unheard"] as const;

/** How a worker that was lost was proven dead. */
export const proofs = ["hook", "watchdog", "confirmed"] as const;

/**
 * How a machine of the cluster is: while all is as declared, as its declaration says. unknown: its
 * worker is lost, and may have it as it was, or not.
 */
export const machineStatuses = [
  "pending",
  "running",
  "paused",
  "created",
  "off",
  "stopping",
  "failed",
  "drifted",
  "unknown",
] as const;
export type MachineStatus = (typeof machineStatuses)[number];

const driftEntries = v.array(
  v.strictObject({ key: v.string(), desired: v.string(), observed: v.string() }),
);

export const clusterMachineSchema = v.strictObject({
  name: machineName,
  status: v.picklist(machineStatuses),
  worker: v.nullable(nameSchema),
  owner_generation: v.nullable(positive),
  movable: v.boolean(),
  phase: v.nullable(v.picklist(phases)),
  reason: v.nullable(v.string()),
  drift: driftEntries,
});
export type ClusterMachine = v.InferOutput<typeof clusterMachineSchema>;

export const clusterWorkerSchema = v.strictObject({
  name: nameSchema,
  standing: v.picklist(workerStandings),
  /** Milliseconds since its last report, or since the master's start. */
  silent_ms: count,
  cordoned: v.boolean(),
  /** How it was proven dead, since which it has not reported; null for one that was not. */
  fenced: v.nullable(v.picklist(proofs)),
  /** Why it is not fenced yet, or what went wrong with it. */
  reason: v.nullable(v.string()),
  boot: v.nullable(boot),
  program: v.nullable(v.string()),
  observed: v.nullable(assignmentPlaceSchema),
  assignment: assignmentPlaceSchema,
  convergence_percent: v.nullable(v.number()),
  total: v.nullable(resources),
  /** What may be given to further machines. */
  free: v.nullable(resources),
  labels: labelsSchema,
  watchdog: v.nullable(watchdogSchema),
  machines: count,
});
export type ClusterWorker = v.InferOutput<typeof clusterWorkerSchema>;

export const clusterStatusSchema = v.strictObject({
  /** Of the declaration; 0 when nothing was ever applied. */
  generation: count,
  convergence_percent: v.number(),
  workers: v.array(clusterWorkerSchema),
  machines: v.array(clusterMachineSchema),
  /** What somebody should see to. */
  warnings: v.array(v.string()),
});
export type ClusterStatus = v.InferOutput<typeof clusterStatusSchema>;

/** What an application does, or would: of each machine that it touches, one line. */
export const clusterChangeSchema = v.strictObject({
  generation: count,
  /** Nothing differs: nothing is written. */
  unchanged: v.boolean(),
  changes: v.array(
    v.strictObject({
      name: machineName,
      /** recreate: it is deleted, its disks too, and made anew as it is declared. */
      kind: v.picklist(["add", "change", "recreate", "remove"]),
      /** Where it is, or would go as things stand; null where it fits nowhere. */
      worker: v.nullable(nameSchema),
      detail: v.string(),
    }),
  ),
});
export type ClusterChange = v.InferOutput<typeof clusterChangeSchema>;

const named = v.strictObject({ worker: nameSchema });
const nothing = v.object({});

/** What a master can be asked: names, paths and schemas. What is done, master/routes.ts says. */
export const masterApi = {
  assignment: {
    name: "vm.assignment.get",
    method: "POST",
    path: "/v1/vm/assignment",
    summary: "What a worker is to have; waits for another assignment than the one it knows",
    permission: "host",
    mutates: false,
    input: assignmentRequestSchema,
    output: assignmentSchema,
  },
  report: {
    name: "vm.report.push",
    method: "POST",
    path: "/v1/vm/report",
    summary: "What a worker has, and how it is; the answer says what is its no more",
    permission: "host",
    // It comes every few seconds: what follows from it is logged, and what was decided is recorded.
    mutates: false,
    input: reportSchema,
    output: reportReplySchema,
  },
  apply: {
    name: "vm.desired.apply",
    method: "POST",
    path: "/v1/vm/desired",
    summary: "Declares all machines of the cluster",
    permission: "operate",
    mutates: true,
    input: v.strictObject({
      desired: clusterSchema,
      /** Refused when another one was applied meanwhile. */
      expect_generation: v.optional(count),
    }),
    output: clusterChangeSchema,
  },
  diff: {
    name: "vm.desired.diff",
    method: "POST",
    path: "/v1/vm/desired/diff",
    summary: "What applying a declaration would do",
    permission: "view",
    mutates: false,
    input: v.strictObject({ desired: clusterSchema }),
    output: clusterChangeSchema,
  },
  desired: {
    name: "vm.desired.get",
    method: "GET",
    path: "/v1/vm/desired",
    summary: "What was declared last",
    permission: "view",
    mutates: false,
    input: nothing,
    output: v.strictObject({ desired: v.nullable(clusterSchema) }),
  },
  status: {
    name: "vm.status",
    method: "GET",
    path: "/v1/vm/status",
    summary: "All workers and all machines, and how far they are as declared",
    permission: "view",
    mutates: false,
    input: nothing,
    output: clusterStatusSchema,
  },
  workers: {
    name: "vm.worker.list",
    method: "GET",
    path: "/v1/vm/workers",
    summary: "All workers",
    permission: "view",
    mutates: false,
    input: nothing,
    output: v.strictObject({ workers: v.array(clusterWorkerSchema) }),
  },
  worker: {
    name: "vm.worker.show",
    method: "GET",
    path: "/v1/vm/workers/:worker",
    summary: "One worker, and all that it last said of its machines",
    permission: "view",
    mutates: false,
    input: named,
    output: v.strictObject({
      worker: clusterWorkerSchema,
      machines: v.array(clusterMachineSchema),
      reported: v.array(reportedMachineSchema),
    }),
  },
  cordon: {
    name: "vm.worker.cordon",
    method: "POST",
    path: "/v1/vm/workers/:worker/cordon",
    summary: "Gives a worker no further machines",
    permission: "operate",
    mutates: true,
    input: named,
    output: clusterWorkerSchema,
  },
  uncordon: {
    name: "vm.worker.uncordon",
    method: "POST",
    path: "/v1/vm/workers/:worker/uncordon",
    summary: "Gives a worker machines again",
    permission: "operate",
    mutates: true,
    input: named,
    output: clusterWorkerSchema,
  },
  forget: {
    name: "vm.worker.forget",
    method: "POST",
    path: "/v1/vm/workers/:worker/forget",
    summary: "Forgets a worker that is lost and has no machines, or never comes back",
    permission: "operate",
    mutates: true,
    /** for_good: it never starts anything again, and its machines are made anew elsewhere. */
    input: v.strictObject({ worker: nameSchema, for_good: v.optional(v.boolean()) }),
    output: nothing,
  },
  fence: {
    name: "vm.fence",
    method: "POST",
    path: "/v1/vm/workers/:worker/fence",
    summary: "Says that somebody has seen to it that none of a worker's machines runs",
    permission: "operate",
    mutates: true,
    input: v.strictObject({
      worker: nameSchema,
      /** Its name once more: whoever is wrong here has two machines write to one disk. */
      confirm: nameSchema,
    }),
    output: clusterWorkerSchema,
  },
} as const;
