import type { Backoff, StartLimit } from "../units/restarts.ts";
import type { Bytes, Milliseconds } from "../units/units.ts";
import type { Resource, Resources } from "./resources.ts";

/** Processors that a kernel may have, CONFIG_NR_CPUS: 8192 on x86-64, and less elsewhere. */
export const MOST_PROCESSORS = 8192;

/** When a process counts as ready, seen from its own partition. */
export type Readiness =
  | { readonly kind: "started" }
  | { readonly kind: "notify" }
  | { readonly kind: "command"; readonly command: readonly string[] }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "unix"; readonly path: string }
  | {
      readonly kind: "http";
      readonly at:
        | { readonly kind: "tcp"; readonly host: string; readonly port: number }
        | { readonly kind: "unix"; readonly path: string };
      /** With its query, as it stands in the request. */
      readonly path: string;
    };

/** How it is seen that a process which is ready still does its work. */
export interface Liveness {
  /** A check, seen from its own partition; or its own word, WATCHDOG=1 of sd_notify(3). */
  readonly check:
    | Exclude<Readiness, { kind: "started" | "notify" }>
    | { readonly kind: "watchdog" };
  /** Between two checks; of a watchdog, how long it may be silent. */
  readonly interval: Milliseconds;
  /** A check that takes longer has failed. */
  readonly timeout: Milliseconds;
  /** So many failures in a row are one too many. */
  readonly failures: number;
  readonly onFailure: "restart" | "degrade";
}

/** What must be so before the program's first instruction; needs the launcher. */
export interface LaunchConstraints {
  readonly user?: string | number;
  readonly group?: string | number;
  readonly groups?: readonly (string | number)[];
  /** Resource limits by their names in lower case, such as "nofile"; Infinity is unlimited. */
  readonly limits?: Readonly<Record<string, { readonly soft: number; readonly hard: number }>>;
  /** The only capabilities that remain, such as "CAP_NET_BIND_SERVICE". */
  readonly capabilities?: readonly string[];
  readonly noNewPrivileges?: boolean;
  /** A cgroup v2 folder that its own is made in, as its own partition sees it; or "auto". */
  readonly cgroup?: string;
}

/**
 * How a process is scheduled, by the orchestrator and from the moment on in which it is told of the
 * start; can be changed while it runs.
 */
export interface Scheduling {
  /** -20 to 19: setpriority(2). */
  readonly nice?: number;
  /** Processors by the kernel's numbers: sched_setaffinity(2). */
  readonly affinity?: readonly number[];
  /** sched(7); a priority of a real-time class is 1 to 99. */
  readonly policy?: SchedulingPolicy;
  /** -1000 to 1000: proc_pid_oom_score_adj(5). */
  readonly oomScoreAdjust?: number;
}

export type SchedulingPolicy =
  | { readonly name: "other" | "batch" | "idle" }
  | { readonly name: "fifo" | "round-robin"; readonly priority: number };

/**
 * What it may take of the host with all that it starts, by its own cgroup; set when it is told of a
 * start, and changed while it runs.
 */
export interface LimitedResources {
  readonly limits: Resources;
  /** Those that a host may be unable to keep. */
  readonly optional: readonly Resource[];
}

/** Commands that run to their ends around each instance, as the process itself would be run. */
export interface Hooks {
  /** One that fails is a start that is refused. */
  readonly beforeStart: readonly string[] | undefined;
  /** When all of an instance is gone; nothing is started before it has come to its end. */
  readonly afterStop: readonly string[] | undefined;
  readonly timeout: Milliseconds;
}

/** A file that a process's lines are written to, and turned over. */
export interface LogFileSpecification {
  readonly path: string;
  /** Over which the file is turned over. */
  readonly size: Bytes;
  /** Older files that are kept: PATH.1 is the newest of them. */
  readonly count: number;
  /** What stands before each line. */
  readonly time: boolean;
  readonly stream: boolean;
}

/** One process to look after, as the configuration says. */
export interface ProcessSpecification {
  readonly name: string;
  /** The name of a partition; undefined on the host itself. */
  readonly partition: string | undefined;
  readonly command: readonly string[];
  /** Added to PATH and INVOCATION_ID; nothing else is inherited. */
  readonly environment: Readonly<Record<string, string>>;
  readonly workingDirectory: string | undefined;
  readonly umask: number | undefined;
  readonly constraints: LaunchConstraints;
  readonly scheduling: Scheduling;
  readonly resources: LimitedResources;
  readonly restart: "always" | "on-failure" | "never";
  readonly backoff: Backoff | "none";
  readonly startLimit: StartLimit | "none";
  readonly after: readonly string[];
  /** What becomes of it when one that it comes after dies, or does its work no more. */
  readonly onDependencyFailure: "ignore" | "stop" | "restart";
  readonly hooks: Hooks;
  readonly readiness: Readiness;
  /** A process that is not ready this long after its start is killed and restarted. */
  readonly readyTimeout: Milliseconds;
  readonly liveness: Liveness | undefined;
  readonly stopSignal: number;
  readonly stopGrace: Milliseconds;
  readonly leftovers: "kill" | "keep";
  readonly output: "log" | "inherit";
  readonly logLimit: { readonly lines: number; readonly bytes: Bytes };
  readonly logFile: LogFileSpecification | undefined;
  /** So many descriptors it may park for its next instance; 0: none. */
  readonly descriptorStore: number;
  readonly autostart: boolean;
}

/** How an agent is reached, and who it must be. */
export interface PartitionSpecification {
  readonly name: string;
  /** Connect to the agent there, or listen there for an agent that dials out. */
  readonly endpoint: { readonly kind: "connect" | "listen"; readonly path: string };
  readonly allowUsers: readonly number[];
  readonly allowGroups: readonly number[];
  readonly allowLabels: readonly string[];
  /** Cgroup v2 paths that the agent must be in or below, as the host sees them. */
  readonly allowCgroups: readonly string[];
  /** The agent must be in another PID namespace than the orchestrator. */
  readonly otherProcessNamespace: boolean;
  /** "holden" speaks Holden v0.2 to a foreign agent. */
  readonly protocol: "hostler" | "holden";
}

/** A whole configuration, validated. */
export interface Configuration {
  /** So many may be on their way to readiness at once; undefined: any number. */
  readonly concurrentStarts: number | undefined;
  /** A process of its own keeps what a killed orchestrator must not take with it. */
  readonly holder: boolean;
  readonly partitions: readonly PartitionSpecification[];
  readonly processes: readonly ProcessSpecification[];
}

/** How long a process may be silent that tells that it lives: sd_watchdog_enabled(3). */
export function watchdogOf({ liveness }: ProcessSpecification): Milliseconds | undefined {
  return liveness?.check.kind === "watchdog" ? liveness.interval : undefined;
}
