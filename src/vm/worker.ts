import { readdirSync } from "node:fs";
import { monotonicNow } from "../event-loop/clock.ts";
import { EventLoop } from "../event-loop/event-loop.ts";
import { startWorker } from "../event-loop/worker-factory.ts";
import { HolderClient, holderCommand } from "../holding/holder-client.ts";
import {
  type Choice,
  chooseHypervisor,
  type HypervisorObservations,
  noWish,
} from "../hypervisor/choose.ts";
import { makeCloudHypervisorDriver } from "../hypervisor/cloud-hypervisor/driver.ts";
import { observationLimits, observeHypervisors } from "../hypervisor/observe.ts";
import { qemuDriver } from "../hypervisor/qemu/driver.ts";
import { ImageStore } from "../image/image-store.ts";
import { ignoreSignals } from "../logging/ignored-signals.ts";
import { LimitedLogger } from "../logging/limited-logger.ts";
import { createLogger, type Logger } from "../logging/logger.ts";
import { ControlServer, defaultControlLimits } from "../messaging/control-server.ts";
import {
  checkSocketPath,
  isListenedAt,
  listenedAt,
  makeSocketFolder,
  SocketPathError,
} from "../messaging/listener.ts";
import { allowUsers } from "../messaging/peer.ts";
import { ServiceNotifier } from "../messaging/service-notify.ts";
import { type BookedEvent, EventBook } from "../units/event-book.ts";
import { ExitCode } from "../units/exit-code.ts";
import type { Milliseconds } from "../units/units.ts";
import { chooseAgentChannel } from "./agent-channel.ts";
import { answerControl } from "./control.ts";
import { DesiredState } from "./desired-state.ts";
import { describeEntry } from "./event-words.ts";
import { newInvocation } from "./invocation.ts";
import { deadlineOf, step } from "./lifecycle.ts";
import {
  type HistoryEntry,
  initialState,
  type MachineEvent,
  type MachineRules,
  type MachineState,
} from "./lifecycle-state.ts";
import {
  type Assigned,
  type MachineRecord,
  newRecord,
  type RecordedChoice,
} from "./machine-record.ts";
import { Mastered } from "./mastered.ts";
import { masteredWorker } from "./mastered-worker.ts";
import { MigrationDesk, type UnallocatedRecord } from "./migration-desk.ts";
import { Captures } from "./perform/captures.ts";
import { ConfinersAhead } from "./perform/confiners-ahead.ts";
import { damagedText, removeDamaged } from "./perform/damaged-machine.ts";
import { DesiredFile } from "./perform/desired-file.ts";
import { ownerGenerationIn } from "./perform/disk-ownership.ts";
import { DiskPreparation } from "./perform/disk-preparation.ts";
import { Machine } from "./perform/machine.ts";
import { MachineCgroups } from "./perform/machine-cgroups.ts";
import { MachineFolders, type UnreadableRecord } from "./perform/machine-folders.ts";
import type { MachineTools } from "./perform/machine-tools.ts";
import { noteProcessor } from "./perform/measure.ts";
import { MemoryTidying } from "./perform/memory-tidying.ts";
import { Migrations } from "./perform/migrations.ts";
import { restoreSnapshot } from "./perform/restoration.ts";
import { type SnapshotProgress, Snapshots } from "./perform/snapshots.ts";
import { vsockRefusal } from "./perform/vhost-vsock.ts";
import { bootId } from "./perform/vmm-identity.ts";
import { takeBridges, type WorkerBridges } from "./perform/worker-bridges.ts";
import { WorkerLock } from "./perform/worker-lock.ts";
import { WorkerNetworks } from "./perform/worker-networks.ts";
import {
  type ControlRequest,
  controlRequestSchema,
  defaultControlSocket,
  limits,
  type VmmWish,
  type VmSpec,
} from "./protocol.ts";
import type { ObservedMachine } from "./reconcile.ts";
import { refuseSource } from "./single-files.ts";
import { chooseUser, defaultUserRange } from "./users.ts";
import type { WorkerConfiguration } from "./worker-configuration.ts";

export interface WorkerOptions {
  readonly configuration: WorkerConfiguration;
  /** What its configuration does, and is most likely not meant to. */
  readonly warnings: readonly string[];
}

/** Between two questions for a VMM that may be alive and cannot be told from another. */
const DOUBT_AGAIN_AFTER: Milliseconds = 1_000;

/** Between two looks whether what was ordered still waits for a note. */
const WAITING_AGAIN_AFTER: Milliseconds = 2_000;

/** In which a guest that was asked to shut down must be off. */
const SHUTDOWN_GRACE: Milliseconds = 60_000;

/** What an operator reads without asking for more. */
const tellings: Readonly<Record<string, "warn" | "info">> = {
  "prepare-refused": "warn",
  "network-refused": "warn",
  "start-refused": "warn",
  "call-refused": "warn",
  "discard-refused": "warn",
  "capture-lost": "warn",
  "guest-panic": "warn",
  detached: "warn",
  failed: "warn",
  uncertain: "warn",
  unhealthy: "warn",
  healthy: "info",
  adopted: "info",
  "backing-off": "info",
  booted: "info",
  off: "info",
  removed: "info",
};

/** A machine, and how it is. */
export interface Entry {
  readonly machine: Machine;
  state: MachineState;
  timer: { readonly at: number; readonly wake: Disposable } | undefined;
  /** Why its VMM could not be taken up yet; undefined once it was. */
  doubt: string | undefined;
}

/** The driver: waits, decides by `step`, and has what was decided performed. */
export class MachineWorker {
  readonly startedAt: number = monotonicNow();
  readonly configuration: WorkerConfiguration;
  readonly events = new EventBook<HistoryEntry>();
  readonly machines = new Map<string, Entry>();
  readonly desired: DesiredState;
  /** undefined where no master declares. */
  readonly mastered: Mastered | undefined;
  readonly snapshots: Snapshots;
  readonly cgroups: MachineCgroups;
  readonly migrations: Migrations;
  readonly migrationDesk: MigrationDesk;
  /** Names of machines that are being made of snapshots, or come from another host. */
  readonly #restoring = new Set<string>();
  readonly #logger: Logger;
  readonly #limited: LimitedLogger;
  readonly #loop: EventLoop;
  readonly #notifier = new ServiceNotifier();
  readonly #turnListeners = new Set<() => void>();
  readonly #queue: { readonly name: string; readonly event: MachineEvent }[] = [];
  readonly #holderReady = Promise.withResolvers<void>();
  readonly #holder: HolderClient;
  readonly #lock: WorkerLock;
  readonly #bridges: WorkerBridges;
  readonly #images: ImageStore;
  readonly #tools: MachineTools;
  readonly #network: WorkerNetworks;
  readonly #hypervisors: HypervisorObservations;
  readonly #confiners: ConfinersAhead;
  readonly #tidying: MemoryTidying;
  readonly #unreadable: UnreadableRecord[];
  #control: ControlServer<ControlRequest> | undefined;
  #isDeciding = false;
  #isAnnounced = false;
  #told = 0;
  #lastUser: number | undefined;
  #pollTimer: Disposable | undefined;
  #watchdog: Disposable | undefined;

  constructor(
    options: WorkerOptions,
    house: {
      readonly logger: Logger;
      readonly loop: EventLoop;
      readonly images: ImageStore;
      readonly hypervisors: HypervisorObservations;
      readonly lock: WorkerLock;
      readonly bridges: WorkerBridges;
    },
  ) {
    const { logger, loop, images, hypervisors, lock, bridges } = house;
    const { configuration } = options;
    this.configuration = configuration;
    this.#logger = logger;
    this.#loop = loop;
    this.#lock = lock;
    this.#bridges = bridges;
    this.#images = images;
    this.#hypervisors = hypervisors;
    this.#limited = new LimitedLogger(logger, {
      now: monotonicNow,
      wakeAfter: (delay, call) => loop.wakeAfter(delay, call),
    });
    const onTrouble = (message: string) => this.#limited.warn(message);
    this.#holder = new HolderClient(loop, {
      controlSocket: configuration.controlSocket,
      command: holderCommand(),
      onTrouble,
      onTaken: (message) => this.#holderReady.reject(takenBy(configuration, message)),
      onReady: () => this.#holderReady.resolve(),
    });
    const folders = new MachineFolders(configuration.artifactsFolder);
    const { records, unreadable } = folders.read();
    this.#unreadable = unreadable;
    const leftAlone = unreadable.map(({ name, legible: { addresses } }) => ({ name, addresses }));
    this.#network = new WorkerNetworks(loop, configuration, {
      ...{ leftAlone, onTrouble },
      onCutOff: (name) => this.machines.get(name)?.machine.cutOff(),
    });
    this.snapshots = new Snapshots(configuration.artifactsFolder);
    this.cgroups = MachineCgroups.open(configuration.cgroup);
    const { own: cgroup } = this.cgroups;
    this.#confiners = new ConfinersAhead(loop, { cgroup, onTrouble });
    this.#tidying = new MemoryTidying(loop);
    this.migrations = new Migrations(loop, (name, event) => this.handle(name, event));
    const preparation = new DiskPreparation(images, folders, {
      firmware: configuration.firmware,
      firmwareVariables: configuration.firmwareVariables,
      usedImages: () => this.#usedImages(),
    });
    this.migrationDesk = new MigrationDesk({
      worker: this,
      migrations: this.migrations,
      ...{ loop, images, preparation, network: this.#network },
      artifactsFolder: configuration.artifactsFolder,
      refuseName: (name) => this.#refuseName(name)?.message,
      hold: (name) => this.#restoring.add(name),
      release: (name) => this.#restoring.delete(name),
      add: (record) => this.#addWithUser(record),
    });
    this.#tools = {
      loop,
      cgroups: this.cgroups,
      folders,
      preparation,
      migrations: this.migrations,
      network: this.#network,
      captures: new Captures(this.#holder),
      confiners: this.#confiners,
      snapshots: this.snapshots,
      drivers: {
        qemu: qemuDriver,
        "cloud-hypervisor": makeCloudHypervisorDriver({ onTrouble }),
      },
      runFolder: configuration.runFolder,
      boot: bootId(),
      choose: (recorded, wish) => this.choose(recorded, wish),
      agentChannel: () => this.#agentChannel.channel,
      whyNotStarted: (name) => this.mastered?.whyNotStarted(name),
      noteGiven: (name, given) => this.desired.noteGiven(name, given),
      onTrouble,
    };
    this.desired = new DesiredState({
      file:
        configuration.master === undefined
          ? new DesiredFile(configuration.artifactsFolder)
          : undefined,
      observe: () => [...this.machines.values()].map(observed),
      refuse: (spec) => {
        const unfit = refuseSource(spec);
        if (unfit !== undefined) return { kind: "image", message: `${spec.name}: ${unfit}` };
        const unable = this.machines.has(spec.name) ? undefined : this.#refuseModel(spec);
        if (unable !== undefined) return unable;
        const message = this.#network.refuse(spec);
        return message === undefined ? undefined : { kind: "network", message };
      },
      create: ({ spec, power: wanted, assigned }) =>
        this.create(spec, { wanted, owner: "declared", ...(assigned && { assigned }) })?.message,
      declare: (name, power) => this.machines.get(name)?.machine.declare(power),
      adopt: (machine) => {
        this.machines.get(machine.spec.name)?.machine.takeUp(machine);
        // Its power may be another one than is declared, which is seen when it is looked at again.
        this.#announce();
      },
      adjust: (name, spec) => {
        this.machines.get(name)?.machine.adjust(spec);
        // It is as declared from now on, which is seen when it is looked at again.
        this.#announce();
      },
      handle: (name, event) => this.handle(name, event),
      kill: (name) => this.machines.get(name)?.machine.kill(),
      onTrouble,
    });
    for (const record of records.values()) this.#add(record);
    this.mastered = this.#follow();
  }

  /** Undefined where no master declares. */
  #follow(): Mastered | undefined {
    const { configuration } = this;
    if (configuration.master === undefined) return undefined;
    return new Mastered(configuration.master, masteredWorker(this, this.#loop, this.#limited));
  }

  get boot(): string {
    return this.#tools.boot;
  }

  get isTakingRequests(): boolean {
    return this.#control !== undefined;
  }

  /** What is another worker's by now, or may be, is ended before anything else is done. */
  #endForeign(): void {
    const held = this.mastered?.heldNow() ?? new Map<string, string>();
    for (const { machine } of this.machines.values()) {
      const reason = held.get(machine.name) ?? this.#laterOwner(machine);
      if (reason === undefined || !machine.endUnadopted()) continue;
      this.#logger.warn(`${machine.name}: its VMM is ended: ${reason}`);
    }
  }

  #laterOwner({ name, record }: Machine): string | undefined {
    const generation = record.assigned?.owner_generation ?? 0;
    try {
      const owner = ownerGenerationIn(this.#tools.folders.disksOf(name));
      return owner > generation ? `owner generation ${owner} beside its disks` : undefined;
    } catch (error) {
      // Nobody can say: its next start is refused, and what runs is not ended for a damaged file.
      this.#logger.warn(`${name}: ${error instanceof Error ? error.message : String(error)}`);
      return undefined;
    }
  }

  /** Takes up what an earlier worker left, and then its control socket. */
  async start(): Promise<void> {
    const { controlSocket } = this.configuration;
    this.#endForeign();
    for (const { path, reason, legible } of this.#unreadable) {
      const addresses = legible.addresses.join(", ");
      const kept =
        addresses === ""
          ? "No address can be read in it: another machine may be given the one that it has"
          : `Nobody else is given what reads as its address: ${addresses}`;
      this.#logger.error(
        `${path} is not understood, and its machine is left alone: ${reason}. ${kept}`,
      );
    }
    for (const warning of this.hypervisorWarnings) this.#logger.warn(warning);
    this.#tellCgroups();
    await this.#holderReady.promise;
    await this.#forgetUnknown();
    await this.#removeUnusedImages();
    await this.#network.start([...this.machines.values()].map(({ machine }) => machine.record));
    for (const entry of this.machines.values()) this.#adopt(entry);
    this.mastered?.begin();
    if (this.choose(null).kind !== "refused") this.#confiners.prepare();
    this.#control = new ControlServer(this.#loop, {
      path: controlSocket,
      policy: allowUsers([process.geteuid?.() ?? 0]),
      limits: { ...defaultControlLimits, connections: limits.connections },
      schema: controlRequestSchema,
      onRequest: (request, call) => answerControl(this, request, call),
      onTrouble: (message) => this.#limited.warn(message),
      onRemoved: () => makeDefaultFolder(controlSocket),
    });
    this.#poll();
    this.#keepWatchdog();
    this.#notifier.tell("READY=1");
  }

  #tellCgroups(): void {
    const { status } = this.cgroups;
    if (status.kind === "on") {
      if (status.lacking === undefined) return;
      this.#logger.warn(`limits of machines cannot all be kept, without ${status.lacking}`);
    } else if (this.configuration.cgroup !== "off") {
      this.#logger.warn(`machines have no cgroups of their own: ${status.reason}`);
    }
  }

  #keepWatchdog(): void {
    const interval = this.#notifier.watchdog;
    if (interval === undefined) return;
    this.#watchdog = this.#loop.wakeAfter(interval / 2, () => this.#keepWatchdog());
    this.#notifier.tell("WATCHDOG=1");
  }

  /** Asks every guest how it is: what a VMM did not tell is noticed. */
  #poll(): void {
    this.#pollTimer = this.#loop.wakeAfter(this.configuration.metricsPollInterval, () => {
      for (const { machine } of this.machines.values()) {
        machine.observe();
        noteProcessor(machine);
      }
      this.#poll();
    });
  }

  /** Of a machine whose removal an earlier worker did not end. */
  async #removeUnusedImages(): Promise<void> {
    const used = this.#usedImages();
    if (used === undefined) return;
    try {
      await this.#images.removeUnused(used);
    } catch (error) {
      this.#logger.warn("images that no machine uses cannot be removed", { failure: error });
    }
  }

  get now(): number {
    return monotonicNow();
  }

  get unreadable(): readonly UnreadableRecord[] {
    return this.#unreadable;
  }

  get hypervisors(): HypervisorObservations {
    return this.#hypervisors;
  }

  get network(): WorkerNetworks {
    return this.#network;
  }

  /** How the agent of a new machine of QEMU's is reached, and why not as was asked for. */
  get #agentChannel() {
    const { guestAgent } = this.configuration;
    // Asked for alone: to open the device has the kernel load its module.
    return chooseAgentChannel(guestAgent, guestAgent === "vsock" ? vsockRefusal() : undefined);
  }

  /** What everybody who looks at this host should know of its hypervisors. */
  get hypervisorWarnings(): readonly string[] {
    const choice = this.choose(null);
    if (choice.kind === "refused") return [`No machine can run: ${choice.reason}`];
    const { warning } = this.#agentChannel;
    return [choice.warning, warning].filter((one) => one !== undefined);
  }

  /**
   * What a machine's VMM is to be: as it was recorded, else as its declaration says, else what this
   * host does best.
   */
  choose(recorded: RecordedChoice | null, wish: VmmWish = {}): Choice {
    const refusal = recorded?.agent === "vsock" ? vsockRefusal() : undefined;
    if (refusal !== undefined) {
      const reason = `its agent is reached by vsock, and ${refusal}: modprobe vhost_vsock`;
      return { kind: "refused", reason };
    }
    const { hypervisor } = this.configuration;
    if (recorded === null) {
      const asked = hypervisor === "auto" ? undefined : hypervisor;
      const { machineType, processorModel } = wish;
      const all = { ...noWish, hypervisor: asked, machineType, processorModel };
      return chooseHypervisor(this.#hypervisors, all);
    }
    return chooseHypervisor(this.#hypervisors, {
      hypervisor: recorded.hypervisor,
      accelerator: recorded.accelerator,
      machineType: recorded.machine_type ?? undefined,
      processorModel: recorded.processor_model ?? undefined,
    });
  }

  /** Why its state can be given to the same build of its VMM alone. */
  boundToBuild({ attached }: Machine): readonly string[] {
    return attached === undefined ? [] : attached.driver.boundToBuild(attached.machine);
  }

  linkCounters() {
    return this.#network.counters();
  }

  /**
   * A new machine, of which nothing exists yet.
   * @returns why there can be none: of which kind, and in words
   */
  create(
    spec: VmSpec,
    options: {
      readonly wanted: "off" | "created" | "running" | "paused";
      readonly owner: MachineRecord["owner"];
      readonly assigned?: Assigned;
    },
  ):
    | {
        readonly kind: "name-taken" | "limit" | "network" | "image" | "machine-refused";
        readonly message: string;
      }
    | undefined {
    const { name } = spec;
    const refusal = this.#refuseName(name);
    if (refusal !== undefined) return refusal;
    const unfit = refuseSource(spec);
    if (unfit !== undefined) return { kind: "image", message: `${name}: ${unfit}` };
    const unable = this.#refuseModel(spec);
    if (unable !== undefined) return unable;
    const user = this.#newUser();
    if (typeof user === "string") return { kind: "limit", message: user };
    const allocated = this.#network.allocate(spec);
    if (allocated.kind === "refused") return { kind: allocated.why, message: allocated.message };
    this.#add(
      newRecord({
        spec,
        owner: options.owner,
        declared_power: options.owner === "declared" ? options.wanted : null,
        ...(options.assigned && { assigned: options.assigned }),
        allocation: { user, cards: allocated.cards },
        choice: null,
        image: null,
        boot: this.#tools.boot,
      }),
    );
    this.handle(name, { kind: "create", wanted: options.wanted });
    return undefined;
  }

  /** One whose record is not understood. */
  damaged(name: string): UnreadableRecord | undefined {
    return this.#unreadable.find((one) => one.name === name);
  }

  /**
   * Ends its VMM, and removes what there is of it.
   * @throws RemovalRefused; DisksRefused; Error (EBUSY …): it stays as it is
   */
  async removeDamaged(record: UnreadableRecord): Promise<void> {
    const { loop, folders, runFolder } = this.#tools;
    const records = [...this.machines.values()].map(({ machine }) => machine.record);
    const others = this.#unreadable.filter((one) => one !== record);
    const knownUsers = new Set([
      ...records.map(({ allocation }) => allocation.user),
      ...others.flatMap(({ legible }) => legible.users),
    ]);
    const network = this.#network;
    await removeDamaged(record, { loop, folders, network, runFolder, knownUsers });
    const at = this.#unreadable.indexOf(record);
    if (at >= 0) this.#unreadable.splice(at, 1);
    await this.#removeUnusedImages();
    this.#logger.info(`${record.name}: removed, whose record was not understood`);
    // Where it is declared, it can be made now.
    this.desired.lookAnew();
  }

  /** A machine type or a model that no hypervisor here has: it would be tried again for ever. */
  #refuseModel(spec: VmSpec) {
    if (spec.machineType === undefined && spec.processorModel === undefined) return undefined;
    // Where nothing could run any machine, one can be installed, and the start is tried again.
    const choice = this.choose(null).kind === "refused" ? undefined : this.choose(null, spec);
    if (choice?.kind !== "refused") return undefined;
    const message = `${spec.name}: no hypervisor here can be that: ${choice.reason}`;
    return { kind: "machine-refused", message } as const;
  }

  #refuseName(name: string) {
    const damaged = this.damaged(name);
    if (damaged !== undefined) {
      const message = `There is a machine ${name} already, and ${damagedText(damaged)}`;
      return { kind: "name-taken", message } as const;
    }
    if (this.machines.has(name) || this.#restoring.has(name)) {
      return { kind: "name-taken", message: `There is a machine ${name} already` } as const;
    }
    if (this.machines.size + this.#restoring.size < limits.machines) return undefined;
    const message = `Expected at most ${limits.machines} machines, received one more`;
    return { kind: "limit", message } as const;
  }

  /**
   * A machine as a snapshot has it: it goes on from there.
   * @returns why there can be none
   * @throws SnapshotRefused; Error (ENOSPC …); the signal's reason. Nothing of it is left.
   */
  async restore(
    name: string,
    snapshot: string,
    options: {
      /** The secret key of an encrypted one. */
      readonly key: string | undefined;
      readonly signal: AbortSignal;
      readonly onProgress: (progress: SnapshotProgress) => void;
    },
  ): Promise<{ readonly kind: "name-taken" | "limit"; readonly message: string } | undefined> {
    const refusal = this.#refuseName(name);
    if (refusal !== undefined) {
      const hint = `. Delete it first, by hostler vm delete ${name}`;
      return { ...refusal, message: refusal.message + (refusal.kind === "limit" ? "" : hint) };
    }
    const manifest = this.snapshots.read(name, snapshot);
    this.#restoring.add(name);
    try {
      const tools = { ...this.#tools, network: this.#network };
      using restoration = await restoreSnapshot(tools, manifest, options);
      const user = this.#newUser();
      if (typeof user === "string") return { kind: "limit", message: user };
      this.#add(restoration.give(user));
      restoration.keep();
      const { capture } = restoration;
      this.handle(name, { kind: "create", wanted: manifest.power, capture });
    } finally {
      this.#restoring.delete(name);
    }
    return undefined;
  }

  /** @returns why there can be no such machine */
  #addWithUser({ allocation, ...record }: UnallocatedRecord): string | undefined {
    const user = this.#newUser();
    if (typeof user === "string") return user;
    this.#add({ ...record, allocation: { ...allocation, user }, boot: this.#tools.boot });
    return undefined;
  }

  /** @throws SnapshotRefused when there is none */
  async removeSnapshot(name: string, snapshot: string): Promise<void> {
    await this.snapshots.remove(name, snapshot);
    await this.#tools.preparation.removeUnused();
  }

  /** What is held for no machine; while a record is not understood, nobody knows for which. */
  async #forgetUnknown(): Promise<void> {
    if (this.#unreadable.length > 0) return;
    const records = [...this.machines.values()].map(({ machine }) => machine.record);
    const known = records.flatMap(({ note }) => note.capture?.id ?? []);
    await this.#tools.captures.forgetOthers(new Set(known));
  }

  #newUser(): number | string {
    // A machine whose record is damaged may be known by its VMM's folder alone.
    const taken = new Set([
      ...[...this.machines.values()].map(({ machine }) => machine.record.allocation.user),
      ...this.#unreadable.flatMap(({ legible }) => legible.users),
      ...readdirSync(this.configuration.runFolder).map((name) => Number.parseInt(name, 10)),
    ]);
    const choice = chooseUser({ range: defaultUserRange, taken, last: this.#lastUser });
    if (choice.kind === "refused") return choice.message;
    this.#lastUser = choice.user;
    return choice.user;
  }

  /**
   * One that is being removed has no use for its own any more; a snapshot has; a damaged record
   * names none, so that nobody knows.
   */
  #usedImages(): Set<string> | undefined {
    if (this.#unreadable.length > 0) return undefined;
    const images = [...this.machines.values()]
      .filter(({ state }) => state.phase !== "removing")
      .map(({ machine }) => machine.record.image);
    return new Set([...images.filter((key) => key !== null), ...this.snapshots.images()]);
  }

  #add(record: MachineRecord): void {
    const { name } = record.spec;
    const machine = new Machine(record, this.#tools, {
      onEvent: (event) => this.handle(name, event),
      onHistory: (entry) => {
        this.events.add(name, entry, monotonicNow());
        // What its checks tell is no turn of its life.
        this.#announce();
      },
      onProgress: () => this.#announce(),
    });
    this.machines.set(name, {
      machine,
      state: initialState,
      timer: undefined,
      doubt: undefined,
    });
  }

  /** One that cannot be told from another is asked for again, and nothing else is done about it. */
  #adopt(entry: Entry): void {
    const adoption = entry.machine.adopt();
    entry.doubt = adoption.kind === "doubtful" ? adoption.reason : undefined;
    if (adoption.kind !== "doubtful") return;
    this.#limited.warn(`${entry.machine.name}: not taken up yet: ${adoption.reason}`);
    this.#loop.wakeAfter(DOUBT_AGAIN_AFTER, () => this.#adopt(entry));
  }

  /** One turn: decide and perform until nothing follows. */
  handle(name: string, event: MachineEvent): void {
    this.#queue.push({ name, event });
    if (this.#isDeciding) return;
    this.#isDeciding = true;
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        this.#decide(next.name, next.event);
      }
    } finally {
      this.#isDeciding = false;
    }
    this.#announce();
  }

  #decide(name: string, event: MachineEvent): void {
    const entry = this.machines.get(name);
    if (entry === undefined) return;
    const before = entry.state;
    const { state, effects } = step(before, event, {
      rules: this.#rules(entry),
      now: monotonicNow(),
      random: Math.random(),
      nextInvocation: newInvocation(),
    });
    entry.state = state;
    entry.machine.perform(effects);
    entry.machine.health.follow({ before, event, after: state });
    this.#setTimer(name, entry);
    if (state.phase === "removed") this.#forget(name, entry);
  }

  #rules({ machine }: Entry): MachineRules {
    const { autoRestart, backoff, startLimit } = this.configuration;
    const shutdownGrace = machine.record.shutdown_grace_ms ?? SHUTDOWN_GRACE;
    return { restart: autoRestart ? "on-failure" : "never", backoff, startLimit, shutdownGrace };
  }

  #setTimer(name: string, entry: Entry): void {
    const deadline = deadlineOf(entry.state);
    if (deadline === entry.timer?.at) return;
    entry.timer?.wake[Symbol.dispose]();
    entry.timer = undefined;
    if (deadline === undefined) return;
    this.#wakeAt(deadline, { name, entry, deadline });
  }

  #wakeAt(
    time: number,
    subject: { readonly name: string; readonly entry: Entry; readonly deadline: number },
  ): void {
    const { name, entry, deadline } = subject;
    const wake = this.#loop.wakeAt(time, () => {
      // Nobody was asked yet whose answer is late: the order waits for a note.
      if (entry.machine.whyWaiting !== undefined) {
        this.#wakeAt(monotonicNow() + WAITING_AGAIN_AFTER, subject);
        return;
      }
      entry.timer = undefined;
      this.handle(name, { kind: "deadline" });
    });
    entry.timer = { at: deadline, wake };
  }

  #forget(name: string, entry: Entry): void {
    entry.timer?.wake[Symbol.dispose]();
    entry.machine[Symbol.dispose]();
    this.machines.delete(name);
    this.events.forget(name);
  }

  /** Calls after every turn, until disposed. */
  onTurn(call: () => void): Disposable {
    this.#turnListeners.add(call);
    return { [Symbol.dispose]: () => this.#turnListeners.delete(call) };
  }

  #announce(): void {
    if (this.#isAnnounced) return;
    this.#isAnnounced = true;
    this.#loop.afterTurn(() => {
      this.#isAnnounced = false;
      this.desired.reconcile();
      const told = this.#told;
      for (const event of this.events.after(told)) this.#log(event);
      if (this.#told !== told) this.#tidying.later();
      for (const listener of [...this.#turnListeners]) listener();
    });
  }

  #log({ sequence, name, entry }: BookedEvent<HistoryEntry>): void {
    this.#told = sequence;
    const detail = describeEntry(entry);
    const kind = `${name}: ${entry.what}`;
    const message = detail === undefined ? kind : `${kind}: ${detail}`;
    const level = tellings[entry.what] ?? "debug";
    if (level === "debug") this.#logger.debug(message);
    else this.#limited.say(level, kind, message);
  }

  /** What has to be said before its end. */
  async leave(): Promise<void> {
    this.#notifier.tell("STOPPING=1");
    await this.mastered?.end();
  }

  /** Its machines run on. */
  close(): void {
    this.mastered?.[Symbol.dispose]();
    this.#control?.[Symbol.dispose]();
    this.#pollTimer?.[Symbol.dispose]();
    this.#watchdog?.[Symbol.dispose]();
    this.#tidying[Symbol.dispose]();
    this.#confiners[Symbol.dispose]();
    for (const { machine, timer } of this.machines.values()) {
      timer?.wake[Symbol.dispose]();
      machine[Symbol.dispose]();
    }
    this.cgroups.close();
    this.migrations[Symbol.dispose]();
    this.#network[Symbol.dispose]();
    this.#holder[Symbol.dispose]();
    this.#limited[Symbol.dispose]();
    const isInUse = this.machines.size + this.#unreadable.length > 0;
    this.#bridges.release({ isInUse });
    this.#lock[Symbol.dispose]();
  }
}

/** A machine as the reconciler sees it. */
function observed({ machine, state, doubt }: Entry): ObservedMachine {
  const { spec, owner, declared_power: declaredPower, assigned } = machine.record;
  return {
    name: machine.name,
    // Of one that was not taken up yet nobody knows how it is.
    phase: doubt === undefined ? state.phase : "uncertain",
    wanted: state.wanted,
    declaredPower: declaredPower ?? undefined,
    spec,
    owner,
    ownerGeneration: assigned?.owner_generation,
    reason: doubt ?? state.reason,
  };
}

function makeDefaultFolder(path: string): void {
  if (path === defaultControlSocket) makeSocketFolder(path);
}

/** What is held for a machine is beside the control socket: two workers cannot have one. */
function takenBy({ controlSocket }: WorkerConfiguration, message: string): SocketPathError {
  return new SocketPathError(
    `Cannot take requests at ${controlSocket}: expected a control_socket that no other worker ` +
      `uses, received one whose holder says: ${message}. Stop that worker, or name another one.`,
  );
}

/** Runs the worker until SIGTERM or SIGINT. Its machines run on. */
export async function runWorker(options: WorkerOptions): Promise<number> {
  const logger = createLogger("hostler vm worker");
  for (const warning of options.warnings) logger.warn(warning);
  ignoreSignals((message) => logger.warn(message));
  const { configuration } = options;
  const { artifactsFolder, runFolder, controlSocket } = configuration;
  makeDefaultFolder(controlSocket);
  checkSocketPath(controlSocket);
  using loop = new EventLoop(startWorker);
  const failed = Promise.withResolvers<number>();
  loop.onFailure((failure) => {
    logger.error("stopped by a bug", { failure });
    failed.resolve(ExitCode.bug);
  });
  const asked = Promise.withResolvers<number>();
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => asked.resolve(ExitCode.done));
  }
  const lock = await WorkerLock.take(loop, { folder: artifactsFolder, runFolder, controlSocket });
  if (isListenedAt(controlSocket)) throw listenedAt(controlSocket);
  const bridges = takeBridges(configuration);
  const images = await ImageStore.open(artifactsFolder);
  const hypervisors = await Promise.race([asked.promise, askPrograms(options, loop, logger)]);
  if (typeof hypervisors === "number") return hypervisors;
  const worker = new MachineWorker(options, { logger, loop, images, hypervisors, lock, bridges });
  // What it waits for may never come: its holder may hang.
  const ended = Promise.race([asked.promise, failed.promise]);
  await Promise.race([ended, worker.start()]);
  if (worker.isTakingRequests) logger.info(`takes requests at ${controlSocket}`);
  const code = await ended;
  if (code === ExitCode.done) await worker.leave();
  worker.close();
  return code;
}

/** What this host's hypervisors are. A slow one keeps the worker waiting, and that is told. */
async function askPrograms(
  { configuration: { programs } }: WorkerOptions,
  loop: EventLoop,
  logger: Logger,
): Promise<HypervisorObservations> {
  using _slow = loop.wakeAfter(observationLimits.slowTime, () => {
    logger.warn("still waits for the hypervisors' programs to tell their versions");
  });
  return await observeHypervisors({ programs });
}
