import type { EventLoop } from "../event-loop/event-loop.ts";
import type { Bytes, ProcessId } from "../units/units.ts";
import type { GuestState } from "./guest-state.ts";

export type { GuestState } from "./guest-state.ts";

/**
 * The seam between the worker and a hypervisor. A VMM is one process for one virtual machine; it
 * is started by the plan that a driver makes, and steered over a socket that outlives whoever
 * steers: every call can be made by a worker that did not start it.
 */

export type HypervisorName = "cloud-hypervisor" | "qemu";

/** What runs the guest's instructions: the processor, or a program that translates them. */
export type Accelerator = "kvm" | "tcg";

/** A virtual machine as a VMM is to make it: everything is decided, every path is absolute. */
export interface MachineSpecification {
  readonly name: string;
  /** Virtual processors at boot. */
  readonly processors: number;
  readonly memory: Bytes;
  readonly accelerator: Accelerator;
  /** Versioned: "pc-q35-7.2". undefined where the hypervisor has only one. */
  readonly machineType: string | undefined;
  /** Named: "qemu64-v1". undefined where the hypervisor has only one. */
  readonly processorModel: string | undefined;
  readonly boot: Boot;
  readonly disks: readonly Disk[];
  readonly networks: readonly NetworkCard[];
  /** A channel to the guest agent: virtio-serial, or vsock where this is a context id. */
  readonly agent: "virtio-serial" | { readonly vsock: number } | undefined;
}

export type Boot =
  | {
      readonly kind: "kernel";
      readonly kernel: string;
      readonly initramfs: string | undefined;
      readonly commandLine: string;
    }
  | { readonly kind: "firmware"; readonly code: string; readonly variables: string | undefined };

export interface Disk {
  /** A word of [a-z0-9-], unique in the machine. */
  readonly id: string;
  readonly path: string;
  readonly format: DiskFormat;
  readonly readOnly: boolean;
  /**
   * What a qcow2 file writes over, which is never written to. The name that the file itself says is
   * not believed: whoever made an image could have the host's files read by it.
   */
  readonly backing: { readonly path: string; readonly format: DiskFormat } | undefined;
}

export type DiskFormat = "raw" | "qcow2";

export interface NetworkCard {
  readonly id: string;
  /** A persistent TAP, by name: only such a card survives its VMM. */
  readonly tap: string;
  /** "52:54:00:…", lower case. */
  readonly macAddress: string;
}

/** Sockets and files of one VMM, all in the machine's own run folder. */
export interface MachineFiles {
  /** Where the VMM takes orders: QMP, or the REST API. */
  readonly control: string;
  /** The first serial port: a Unix socket that the VMM listens at. */
  readonly console: string;
  /** The guest agent's channel: a Unix socket that the VMM listens at. */
  readonly agent: string;
  /** Where the VMM tells what happens, where that is not the control socket. */
  readonly events: string;
}

/** How a VMM is started. The launcher adds user, cgroup and mount namespace. */
export interface VmmPlan {
  readonly program: string;
  /** Without the program's own name. */
  readonly arguments: readonly string[];
  /**
   * Inherited descriptors, by the number that the arguments speak of: 0, and 3 and up without
   * gaps. A listener is a Unix socket at `path`, which takes connections before the VMM is there,
   * and never blocks.
   */
  readonly descriptors: readonly (
    | { readonly number: number; readonly role: "memory" }
    | { readonly number: number; readonly role: "listener"; readonly path: string }
  )[];
  /**
   * Named pipes that have to be there before it starts, 0600 and its user's: it opens them to
   * write, and waits there until somebody reads, which is what `connect` does.
   */
  readonly pipes?: readonly string[];
  /** Devices of the host that it needs: "/dev/kvm", "/dev/net/tun", "/dev/urandom", "/dev/null". */
  readonly devices: readonly string[];
}

/**
 * Whether the VMM makes the machine anew, or waits to be given the state of another one. While it
 * waits it may stand beside that one, whose guest runs: it shares its memory and its disks, and
 * touches nothing of them, nor opens what one VMM alone can have.
 */
export type Beginning = "new" | "incoming";

/** A VMM program on this host. */
export interface HypervisorProgram {
  readonly hypervisor: HypervisorName;
  readonly path: string;
  /** As it says itself: "7.2.22". */
  readonly version: string;
}

export interface HypervisorDriver {
  readonly hypervisor: HypervisorName;
  /** Pure. @throws MachineRefused for what this hypervisor cannot do, naming key and mend */
  plan(
    machine: MachineSpecification,
    files: MachineFiles,
    program: HypervisorProgram,
    beginning: Beginning,
  ): VmmPlan;
  /**
   * Why the state of such a machine can be given to the same build of the VMM alone; empty where
   * another version takes it as well. Pure.
   */
  boundToBuild(machine: MachineSpecification): readonly string[];
  /**
   * Why such a machine cannot go to another host under this version of the VMM; undefined where it
   * can. Pure.
   */
  whyStays(machine: MachineSpecification, version: string): string | undefined;
  /**
   * Whether the VMM that gave a machine's state must have ended before another one takes it,
   * because something that the machine has can be opened by one of them alone. Pure.
   */
  takesAlone(machine: MachineSpecification): boolean;
  /** Connects to a VMM that runs. @throws VmmUnreachable when it does not answer in time */
  connect(files: MachineFiles, options: ConnectOptions): Promise<VmmConnection>;
}

export interface ConnectOptions {
  readonly loop: EventLoop;
  readonly machine: MachineSpecification;
  readonly onEvent: (event: VmmEvent) => void;
  /** The connection ended, and not by us. The process may live on. */
  readonly onLost: (reason: string) => void;
  readonly signal: AbortSignal;
}

/** What a VMM says of itself, in words that both hypervisors have. */
export type VmmEvent =
  | { readonly kind: "booted" | "paused" | "resumed" | "guest-reset" | "guest-panic" }
  /** The guest is off; the process may still be there. */
  | { readonly kind: "guest-off"; readonly by: "guest" | "host" }
  /** Nobody in the guest serves the agent's port any more: it ended, or its guest began anew. */
  | { readonly kind: "agent-left" }
  /** The host could not read or write: for want of room the machine is paused, and may resume. */
  | {
      readonly kind: "disk-error";
      readonly disk: string;
      readonly reason: string;
      readonly pauses: boolean;
    };

/** Counters since the VMM began; what a hypervisor does not tell is undefined. */
export interface MachineCounters {
  readonly disks: readonly {
    readonly id: string;
    readonly readBytes: Bytes;
    readonly writtenBytes: Bytes;
    readonly reads: number;
    readonly writes: number;
  }[];
  /** Memory that the guest has been given, with a balloon. */
  readonly memory: Bytes | undefined;
}

/** Each call has a limit of time, and its refusal is VmmRefused with the VMM's own words. */
export interface VmmConnection extends Disposable {
  /** The version that answers: one that was adopted may be older than the program on the disk. */
  readonly version: string;
  guestState(): Promise<GuestState>;
  /** Makes the machine, where the plan did not: afterwards it is created. */
  create(): Promise<void>;
  boot(): Promise<void>;
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Asks the guest to shut down, by ACPI's button. */
  pressPowerButton(): Promise<void>;
  /** Ends the VMM in an orderly way, whatever the guest does. Its process ends after it. */
  quit(): Promise<void>;
  counters(): Promise<MachineCounters>;
  /** Threads of virtual processors, for their time in /proc. */
  processorThreads(): Promise<readonly ProcessId[]>;
  /**
   * Pauses the machine and gives its devices' state, without its memory. Its disks are let go of:
   * another VMM may take them. `resume` takes all of it back, as long as no other one has.
   */
  captureState(): Promise<CapturedState>;
  /**
   * To a VMM that is "incoming", whose memory is there already or comes with the state: afterwards
   * it is paused. Descriptors stay the caller's.
   */
  restoreState(state: CapturedState): Promise<void>;
  /** Moves to another host while the guest runs. */
  readonly migration: VmmMigration;
}

/**
 * A machine on its way to another VMM, on whatever host: this one connects to Unix sockets behind
 * which the other one listens. Nothing here decides which of both may run on.
 */
export interface VmmMigration {
  /**
   * Copies disks and memory while the guest runs, then stops it and sends the rest. Afterwards it
   * is paused, or stands still with its VMM, and a connection that is made anew takes the machine
   * back, as long as the other one does not run.
   * @throws VmmRefused, VmmUnreachable, the signal's reason; the guest may be paused then, and
   *   `abandon` is to be called
   */
  send(route: SendRoute): Promise<void>;
  /** Ends what is under way of it, an earlier worker's too; whether the guest runs stays. */
  abandon(): Promise<void>;
  /**
   * To a VMM that is "incoming". Returns when it listens at the sockets of the route.
   * @throws VmmRefused, VmmUnreachable
   */
  receive(route: ReceiveRoute): Promise<MigrationArrival>;
}

export interface SendRoute {
  readonly memory: string;
  /** Those that the machine writes to. */
  readonly disks: readonly { readonly id: string; readonly socket: string }[];
  readonly signal: AbortSignal;
  readonly onProgress: (progress: MigrationProgress) => void;
  /** The guest stands still from now on; told once. */
  readonly onStopped: () => void;
  /** The guest stands still, and all that it wrote is with the other one, which is to let go. */
  readonly onDisksSent: () => Promise<void>;
}

export interface ReceiveRoute {
  readonly memory: string;
  /** One socket for all of them, by their ids. */
  readonly disks: { readonly ids: readonly string[]; readonly socket: string };
}

export interface MigrationArrival {
  /** Lets go of the disks: whoever sent them is done. */
  endDisks(): Promise<void>;
  /** All is here, and the machine is paused. @throws VmmRefused, VmmUnreachable */
  readonly arrived: Promise<void>;
}

/** How far a machine is on its way. */
export interface MigrationProgress {
  readonly stage: "disks" | "memory";
  readonly done: Bytes;
  readonly of: Bytes;
  /** How often its memory was gone through: what the guest changes is sent again. */
  readonly rounds: number;
}

/** What a machine is besides its memory. */
export interface CapturedState {
  readonly hypervisor: HypervisorName;
  /** Of the VMM that gave it. */
  readonly version: string;
  readonly bytes: Uint8Array;
  /**
   * Guest memory that came with the state, in the order that the bytes speak of; absent where a
   * machine's memory is a descriptor that its VMM inherited. Whoever has the state closes them.
   */
  readonly memory?: readonly MemoryDescriptor[];
}

/** A descriptor of guest memory that somebody owns: an OwnedDescriptor. */
export interface MemoryDescriptor extends Disposable {
  readonly number: number;
  readonly isOpen: boolean;
  close(): void;
}

/** What a refusal says of one value. */
export interface Finding {
  /** Where it stands: "disks.root.path". */
  readonly key: string;
  readonly expected: string;
  readonly received: string;
  /** What the reader can do. */
  readonly mend: string;
}

/** The hypervisor cannot make such a machine. */
export class MachineRefused extends Error {
  override readonly name = "MachineRefused";
  readonly finding: Finding;

  constructor(finding: Finding) {
    const { key, expected, received, mend } = finding;
    super(`${key}: expected ${expected}, received ${received}: ${mend}`);
    this.finding = finding;
  }
}

/** The VMM answered, and refused. */
export class VmmRefused extends Error {
  override readonly name = "VmmRefused";
}

/** The VMM did not answer: it hangs, ended, or is none. */
export class VmmUnreachable extends Error {
  override readonly name = "VmmUnreachable";
}
