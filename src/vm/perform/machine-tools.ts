import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Choice } from "../../hypervisor/choose.ts";
import type { Boot, Disk, HypervisorDriver, HypervisorName } from "../../hypervisor/driver.ts";
import type { Bytes } from "../../units/units.ts";
import type { AgentChannel } from "../agent-channel.ts";
import type { DeclaredCheck } from "../health-configuration.ts";
import type { Given, MachineRecord, RecordedChoice } from "../machine-record.ts";
import type { VmmWish } from "../protocol.ts";
import type { Captures } from "./captures.ts";
import type { MachineCgroups } from "./machine-cgroups.ts";
import type { MachineFolders } from "./machine-folders.ts";
import type { Snapshots } from "./snapshots.ts";
import type { WaitingConfiners } from "./vmm-process.ts";
import type { AttachedVmm } from "./vmm-seat.ts";

/** What a machine consists of, as its image and its declaration say: every path is absolute. */
export interface MachineParts {
  readonly boot: Boot;
  readonly disks: readonly Disk[];
  readonly processors: number;
  readonly memory: Bytes;
  /** The image's key in the store; null for a machine of single files. */
  readonly image: string | null;
  /** Of the image. */
  readonly healthChecks: readonly DeclaredCheck[];
  /** What the image asks for, and nobody does. */
  readonly warnings: readonly string[];
}

export interface PreparationProgress {
  readonly what: string;
  readonly done: Bytes;
  readonly of: Bytes;
}

/** Images and disks. */
export interface Preparation {
  /**
   * Verifies and copies the image, makes the disks; safe to do again.
   * @throws ImageRefused, VmConfigRefused, Error (ENOSPC …)
   */
  prepare(
    record: MachineRecord,
    options: {
      readonly onProgress: (progress: PreparationProgress) => void;
      readonly signal: AbortSignal;
    },
  ): Promise<MachineParts>;
  /** What was prepared, without looking at the image's own place again. @throws as prepare */
  describe(record: MachineRecord): MachineParts;
  /** The image of a machine that is no more may be removed. */
  forget(record: MachineRecord): Promise<void>;
  /** Images that neither a machine nor a snapshot is made of. */
  removeUnused(): Promise<void>;
}

/** TAPs, addresses and rules of all machines. */
export interface MachineNetwork {
  /** Safe to do again. @throws Error with what was expected and received */
  connect(record: MachineRecord): Promise<void>;
  /** @throws Error; safe to do again */
  disconnect(name: string): Promise<void>;
}

/** Machines on their way to other hosts, and from them: what the lifecycle has done about it. */
export interface MachineMigrations {
  /** @throws when it was not sent: the guest may be paused then */
  send(migration: string, vmm: AttachedVmm, place: VmmPlace): Promise<void>;
  /** @throws when not all of it came */
  receive(migration: string, vmm: AttachedVmm, place: VmmPlace): Promise<void>;
  abandon(migration: string, reason: string): void;
  handOver(migration: string, name: string, wanted: "running" | "paused"): void;
  confirm(migration: string, what: "arrived" | "taken"): void;
  /** "10.77.0.2:40123"; undefined for one that this worker did not begin. */
  destinationOf(migration: string): string | undefined;
}

/** Where a VMM reaches sockets that are made for it, and as whom. */
export interface VmmPlace {
  readonly folder: string;
  readonly user: number;
}

/** What all machines of a worker share. */
export interface MachineTools {
  readonly loop: EventLoop;
  readonly folders: MachineFolders;
  readonly preparation: Preparation;
  readonly network: MachineNetwork;
  readonly captures: Captures;
  /** What becomes a VMM: one of them was started before anybody needs it. */
  readonly confiners: WaitingConfiners;
  readonly cgroups: MachineCgroups;
  readonly snapshots: Snapshots;
  readonly migrations: MachineMigrations;
  readonly drivers: Readonly<Record<HypervisorName, HypervisorDriver>>;
  /** Below it each VMM has a folder, by its user's number: paths of sockets are short. */
  readonly runFolder: string;
  /** random(4), boot_id */
  readonly boot: string;
  /** What a VMM is to be: as recorded, where the machine has been started before. */
  choose(recorded: RecordedChoice | null, wish?: VmmWish): Choice;
  /** How the agent of a new machine of QEMU's is to be reached. */
  agentChannel(): AgentChannel;
  /** Why a machine may have no VMM now; undefined where it may. */
  whyNotStarted(name: string): string | undefined;
  /** A declared machine is another host's from now on. @throws Error (ENOSPC …) */
  noteGiven(name: string, given: Given): void;
  readonly onTrouble: (message: string) => void;
}
