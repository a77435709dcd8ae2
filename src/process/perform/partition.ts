import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { PeerPolicy } from "../../messaging/peer.ts";
import { signalName } from "../../units/signals.ts";
import type { Instance, ProcessEvent } from "../lifecycle.ts";
import type { WireConstraints } from "../protocol.ts";
import {
  type LaunchConstraints,
  type PartitionSpecification,
  type ProcessSpecification,
  watchdogOf,
} from "../specification.ts";
import type { OutputPipes } from "./output-pipes.ts";
import type { ParkedDescriptors, Passed } from "./parked-descriptors.ts";
import { defaultSearchPath } from "./program-path.ts";

/** A process as the performing side keeps it: what outlives its instances. */
export interface ManagedProcess {
  readonly specification: ProcessSpecification;
  readonly constraints: WireConstraints | undefined;
  /** NAME=value, less INVOCATION_ID, which is the last and differs with each start. */
  readonly environment: readonly string[];
  /** Undefined for output = "inherit". */
  readonly output: OutputPipes | undefined;
  /** Undefined where it may park nothing. */
  readonly parked: ParkedDescriptors | undefined;
}

/** What every partition tells: events of its processes, by name. */
export type Emit = (name: string, event: ProcessEvent) => void;

/** A check of readiness that runs a command, under an invocation of its own. */
export interface CommandRequest {
  readonly command: readonly string[];
  readonly invocation: string;
}

/** A check of readiness that runs a command: its end, or why it could not run. */
export type CommandResult =
  | { readonly kind: "exited"; readonly status: number }
  | { readonly kind: "failed"; readonly reason: string };

/** An instance with its pidfd, which is the taker's. */
export interface LeftInstance {
  readonly invocation: string;
  readonly processId: number;
  readonly process: OwnedDescriptor;
}

/** Where processes run: this host itself, or behind an agent. */
export interface Partition {
  readonly loop: EventLoop;
  /** Somebody is there who can make a socket and run a command. */
  readonly canCheck: boolean;
  /** That one does not answer: what a check came to says nothing of the process. */
  readonly isSilent: boolean;
  start(process: ManagedProcess, invocation: string, replaces: string | undefined): void;
  /** The invocation that the next start must carry, where one is prepared already. */
  standbyOf(name: string): string | undefined;
  /**
   * Acts when no start of this process can be made that nobody asks for, until `renewed`; what was
   * made meanwhile is ended.
   */
  settle(name: string, act: () => void): void;
  /**
   * The process is another one from now on, by its rules alone where `launch` is the same.
   * Otherwise a start that was prepared is none of it any more: its invocation.
   */
  renewed(name: string, launch: "same" | "other"): string | undefined;
  /** The pidfd of an instance, which stays the partition's; undefined when it is known no more. */
  processOf(invocation: string): OwnedDescriptor | undefined;
  /** Looks for an instance whose start was never answered, and tells found or not-found. */
  find(process: ManagedProcess, invocation: string): void;
  /** Watches an instance that an orchestrator which was killed has left, dead or alive. */
  adopt(process: ManagedProcess, left: LeftInstance): void;
  signal(instance: Instance, signal: number): void;
  /** SIGKILL to the process and its whole group. */
  kill(process: ManagedProcess, instance: Instance): void;
  /** Ends what a dead instance left behind, then tells cleared. */
  clear(process: ManagedProcess, instance: Instance): void;
  /** A datagram socket in the partition with this abstract name, for sd_notify(3). */
  bindNotify(name: string, onSocket: (socket: OwnedDescriptor | undefined) => void): void;
  /** A stream socket of the partition; a Unix one comes connected to its path. */
  openSocket(
    target:
      | { readonly family: "unix"; readonly path: string }
      | { readonly family: "ipv4" | "ipv6" },
    onSocket: (socket: OwnedDescriptor | undefined) => void,
  ): void;
  /** Runs a command to its end, in the partition, as the process itself would be run. */
  runCommand(
    process: ManagedProcess,
    request: CommandRequest,
    onResult: (result: CommandResult) => void,
  ): void;
  /** Kills a command that has not come to its end; its result is told as that of any other. */
  endCommand(invocation: string): void;
}

/** Who the agent of a partition must be. */
export function policyOf(specification: PartitionSpecification): PeerPolicy {
  const { allowUsers, allowGroups, allowLabels, allowCgroups } = specification;
  const { otherProcessNamespace } = specification;
  const ids = { users: allowUsers, groups: allowGroups };
  return { ...ids, labels: allowLabels, cgroups: allowCgroups, otherProcessNamespace };
}

/** For the log: without the right to signal a process, a stop waits for it to end by itself. */
export function describeRefusedSignal(processId: number, signal: number): string {
  return (
    `may not send ${signalName(signal)} to process ${processId} (EPERM): it goes on until it ` +
    "ends by itself. Run hostler as its user, or with CAP_KILL"
  );
}

/**
 * The variables of a process: PATH, then what the configuration says, then NOTIFY_SOCKET, then the
 * one that says whose it is. What may go on when its process has ended has none of these: it is
 * nobody's then, and the next orchestrator leaves it alone.
 */
export function environmentOf(
  specification: ProcessSpecification,
  notifyName: string | undefined,
  ownerVariable: string,
): string[] {
  const variables = { PATH: defaultSearchPath, ...specification.environment };
  const list = Object.entries(variables).map(([name, value]) => `${name}=${value}`);
  if (notifyName !== undefined) list.push(`NOTIFY_SOCKET=${notifyName}`);
  const watchdog = watchdogOf(specification);
  if (watchdog !== undefined) list.push(`WATCHDOG_USEC=${watchdog * 1_000}`);
  if (specification.leftovers === "kill") list.push(ownerVariable);
  return list;
}

/** With what is parked: variables of the same names would come before these. */
export const withPassed = (environment: readonly string[], { variables }: Passed): string[] => [
  ...environment.filter((one) => !/^LISTEN_(?:FDS|FDNAMES|PID)=/.test(one)),
  ...variables,
];

export const invocationVariable = (invocation: string) => `INVOCATION_ID=${invocation}`;

/** The wire form of constraints; undefined when there are none, and no launcher is needed. */
export function encodeConstraints(constraints: LaunchConstraints): WireConstraints | undefined {
  const { user, group, groups, limits, capabilities, noNewPrivileges, cgroup } = constraints;
  const finite = (value: number) => (Number.isFinite(value) ? value : null);
  const wire: WireConstraints = {};
  if (user !== undefined) wire.user = user;
  if (group !== undefined) wire.group = group;
  if (groups !== undefined) wire.groups = [...groups];
  if (capabilities !== undefined) wire.capabilities = [...capabilities];
  if (noNewPrivileges !== undefined) wire.no_new_privileges = noNewPrivileges;
  if (cgroup !== undefined) wire.cgroup = cgroup;
  if (limits !== undefined) {
    wire.limits = Object.fromEntries(
      Object.entries(limits).map(([name, { soft, hard }]) => [
        name,
        { soft: finite(soft), hard: finite(hard) },
      ]),
    );
  }
  return Object.keys(wire).length === 0 ? undefined : wire;
}
