import { randomBytes } from "node:crypto";
import { faultHooks, killPoint } from "../../../ffi/fault-hooks.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { descriptorLimit } from "../../../ffi/process.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import {
  AUTOMATIC_GROUP,
  clearLeftGroups,
  InstanceGroups,
  sweepGroups,
} from "../../event-loop/instance-groups.ts";
import { ownCgroup } from "../../event-loop/own-cgroup.ts";
import { SocketPathError } from "../../messaging/listener.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { formatDuration, type Milliseconds, type MonotonicTime } from "../../units/units.ts";
import { degradedBy, EventBook } from "../event-book.ts";
import { groupPlace } from "../group-place.ts";
import { newInvocation } from "../invocation.ts";
import {
  type EffectKind,
  ENDING_LIMIT,
  type HistoryEntry,
  type Instance,
  nobodyTold,
  type ProcessEffect,
  type ProcessEvent,
  type Refusal,
} from "../lifecycle.ts";
import { LogBook } from "../log-book.ts";
import { QueueRoom } from "../log-queue.ts";
import type { Parking } from "../notice.ts";
import type { AgentIdentity } from "../partition-book.ts";
import type { Hello } from "../protocol.ts";
import { keptNames } from "../protocol-kept.ts";
import { CARRIED_LOG_BYTES, type OrchestratorState } from "../protocol-state.ts";
import type { ReloadStep } from "../reload-change.ts";
import {
  type Configuration,
  type LaunchConstraints,
  type PartitionSpecification,
  type ProcessSpecification,
  watchdogOf,
} from "../specification.ts";
import type { CrashJournal } from "./crash-journal.ts";
import { HoldenPartition } from "./holden-partition.ts";
import { type Keeper, type Keeping, keepsNothing } from "./keeping.ts";
import { formatLimit, limit } from "./limits.ts";
import { type LivenessWatch, watchLiveness } from "./liveness.ts";
import { LocalPartition } from "./local-partition.ts";
import { checkLogFile, LogFile } from "./log-file.ts";
import type { Luggage, Unpacking } from "./luggage.ts";
import { OutputPipes, type PipeEnds } from "./output-pipes.ts";
import { ParkedDescriptors } from "./parked-descriptors.ts";
import {
  encodeConstraints,
  environmentOf,
  type ManagedProcess,
  type Partition,
} from "./partition.ts";
import {
  type CommandHandlers,
  NotifySocket,
  type ReadinessWatch,
  watchReadiness,
} from "./readiness.ts";
import { type RemoteHandlers, RemotePartition } from "./remote-partition.ts";
import { MissingControllers, type ResourceResult, whyNotLimited } from "./resources.ts";
import { reschedule, ScheduledStarts } from "./scheduled-starts.ts";
import { StraySweep } from "./stray-sweep.ts";
import { pipeNames, type Survey } from "./survey.ts";

/** Where a fault test can kill the orchestrator: before and after each effect. */
export type OrchestratorKillPoint = `orchestrator:${EffectKind}:${"before" | "after"}`;

export const reloadKillPoint = (step: ReloadStep): void => killPoint(step);

interface Managed {
  process: ManagedProcess;
  partition: Partition;
  readonly book: LogBook;
  logFile: LogFile | undefined;
  /** What its newest start was made with; others are set when it runs. */
  limits: LaunchConstraints["limits"];
  notifyName: string | undefined;
  notify: NotifySocket | undefined;
  readiness: ReadinessWatch | undefined;
  liveness: LivenessWatch | undefined;
}

export interface PerformerHandlers {
  onEvent(name: string, event: ProcessEvent): void;
  onReachable(
    partition: string,
    reached: {
      readonly reachable: boolean;
      readonly detail: string;
      readonly agent?: AgentIdentity;
    },
  ): void;
  onMissed(partition: string, reason: string): void;
  onTrouble(message: string): void;
  /** What an operator who asks for more reads. */
  onChanged(message: string): void;
  /** New lines stand in the log book of this process. */
  onLines(name: string): void;
  /** The last check of readiness has ended. */
  onQuiet(): void;
  /** The instance of a process whose notices count now. */
  instanceOf(name: string): Instance | undefined;
  /** It is to run. */
  isWanted(name: string): boolean;
  /** Nobody has told how this instance, which is dead, ended. */
  isUntold(name: string, invocation: string): boolean;
  /** From when on the end of a process is answered by a start at once, whatever the end is. */
  restartsAtOnceFrom(name: string): MonotonicTime | undefined;
}

/** What the program before this one has packed. */
export interface Inherited {
  readonly state: OrchestratorState;
  readonly unpacking: Unpacking;
}

export type PackedPerformer = Pick<
  OrchestratorState,
  "journal" | "events" | "managed" | "strays" | "children" | "adopted" | "partitions" | "holden"
>;

/** A partition whose socket cannot be made is tried again. */
const OPEN_AGAIN_AFTER: Milliseconds = 1_000;

/** Descriptors of the daemon itself, and of each process: four ends of pipes, a pidfd, one more. */
const OWN_DESCRIPTORS = 48;
const DESCRIPTORS_A_PROCESS = 6;
/** Of what is kept for the orchestrator after this one it has a duplicate each. */
const KEPT_A_PROCESS = 6;

/** The name in NOTIFY_SOCKET of a process that tells how it is; the one that it has stays. */
function notifyNameFor(
  specification: ProcessSpecification,
  known: string | undefined,
): string | undefined {
  const { readiness, descriptorStore } = specification;
  const tells = readiness.kind === "notify" || descriptorStore > 0;
  if (!tells && watchdogOf(specification) === undefined) return undefined;
  return known ?? `@hostler-notify-${randomBytes(12).toString("hex")}`;
}

/** Nothing at all, where nothing is parked: see the state's schema. */
function packParked({ process }: Managed, luggage: Luggage) {
  const parked = process.parked?.pack(luggage) ?? [];
  return parked.length === 0 ? {} : { parked };
}

/** Fewer descriptors than the configuration needs, said before anything starts. */
export class TooFewDescriptors extends Error {
  override readonly name = "TooFewDescriptors";
  readonly exitCode = ExitCode.refused;
}

/** @throws TooFewDescriptors */
function refuseTooFewDescriptors(
  specifications: readonly ProcessSpecification[],
  isKept: boolean,
): void {
  const processes = specifications.length;
  const files = specifications.filter(({ logFile }) => logFile !== undefined).length;
  const each = DESCRIPTORS_A_PROCESS + (isKept ? KEPT_A_PROCESS : 0);
  const parked = specifications.reduce((sum, { descriptorStore }) => sum + descriptorStore, 0);
  const ofParked = isKept ? 2 * parked : parked;
  const needed = OWN_DESCRIPTORS + processes * each + files + ofParked;
  const limit = descriptorLimit()?.soft ?? needed;
  if (limit >= needed) return;
  throw new TooFewDescriptors(
    `Expected room for ${needed} open descriptors for ${processes} processes, received a limit ` +
      `of ${limit}. Raise it: LimitNOFILE= in the unit, or ulimit -n.`,
  );
}

/** @throws MissingControllers */
function refuseMissingControllers(specifications: readonly ProcessSpecification[]): void {
  const why = whyNotLimited(specifications);
  if (why !== undefined) throw new MissingControllers(why);
}

/** Does what was decided: every effect becomes calls, and what comes of them becomes events. */
export class Performer {
  readonly #loop: EventLoop;
  readonly #hello: Hello;
  readonly #handlers: PerformerHandlers;
  readonly #journal: CrashJournal;
  readonly #strays: StraySweep;
  readonly #keeping: Keeping | undefined;
  readonly #keeper: Keeper;
  readonly #survey: Survey;
  readonly #groups: InstanceGroups;
  readonly #local: LocalPartition;
  readonly #remote = new Map<string, RemotePartition>();
  readonly #holden = new Map<string, HoldenPartition>();
  readonly #managed = new Map<string, Managed>();
  /** Files of lines that nobody writes to any more, until all that waits is in them. */
  readonly #closing = new Set<LogFile>();
  /** Commands that look for readiness and have not ended. */
  readonly #checks = new Set<string>();
  readonly #queueRoom = new QueueRoom();
  readonly #scheduled = new ScheduledStarts((name, result) => this.#tellResources(name, result));
  readonly events = new EventBook();

  constructor(
    loop: EventLoop,
    configuration: Configuration,
    options: {
      readonly hello: Hello;
      readonly journal: CrashJournal;
      readonly handlers: PerformerHandlers;
      readonly inherited?: Inherited | undefined;
      /** Undefined where nothing is kept for the orchestrator after this one. */
      readonly keeping: Keeping | undefined;
      /** What an orchestrator that was killed has left, and is gone on with. */
      readonly survey: Survey;
    },
  ) {
    const { keeping } = options;
    refuseTooFewDescriptors(configuration.processes, keeping !== undefined);
    refuseMissingControllers(configuration.processes);
    this.#keeping = keeping;
    this.#keeper = keeping ?? keepsNothing;
    this.#survey = options.survey;
    const keeper = this.#keeper;
    this.#loop = loop;
    this.#handlers = options.handlers;
    this.#journal = options.journal;
    this.#strays = new StraySweep(loop, (name, count) => {
      if (!this.#managed.has(name)) return;
      this.events.add(name, { what: "strays-ended", count }, monotonicNow());
      this.#handlers.onLines(name);
    });
    const emit = this.#emitter;
    const onPrepared = this.#onPrepared;
    const { onTrouble } = options.handlers;
    const { journal } = options;
    const place = groupPlace("orchestrator", ownCgroup());
    const made = (path: string) => journal.made(path);
    this.#groups = new InstanceGroups(place, journal.madeFolders, made);
    this.#local = new LocalPartition(loop, { emit, onPrepared, onTrouble, keeper }, this.#groups);
    this.#hello = options.hello;
    for (const specification of configuration.partitions) this.#addAgent(specification);
    const { inherited } = options;
    for (const specification of configuration.processes) this.#manage(specification, inherited);
    if (inherited !== undefined) this.#unpack(inherited);
  }

  readonly #emitter = (name: string, event: ProcessEvent) => this.#emit(name, event);
  readonly #onPrepared = (name: string, invocation: string) =>
    this.#journal.starting(invocation, name);

  #addAgent(specification: PartitionSpecification): RemotePartition | HoldenPartition {
    const { name } = specification;
    // One that is no partition any more says that it is away, of which nobody wants to hear.
    const isOurs = () => this.#isOurs(partition);
    const handlers: RemoteHandlers = {
      onReachable: (reachable, detail, agent) => {
        if (!isOurs()) return;
        const reached = { reachable, detail, ...(agent !== undefined && { agent }) };
        this.#handlers.onReachable(name, reached);
      },
      onMissed: (reason) => {
        if (isOurs()) this.#handlers.onMissed(name, reason);
      },
      onTrouble: (message) => this.#handlers.onTrouble(`partition ${name}: ${message}`),
    };
    const partition: RemotePartition | HoldenPartition = this.#makeAgent(specification, handlers);
    if (partition instanceof HoldenPartition) this.#holden.set(name, partition);
    else this.#remote.set(name, partition);
    return partition;
  }

  #makeAgent(
    specification: PartitionSpecification,
    handlers: RemoteHandlers,
  ): RemotePartition | HoldenPartition {
    const common = { emit: this.#emitter, handlers, keeper: this.#keeper };
    if (specification.protocol === "holden") {
      return new HoldenPartition(this.#loop, specification, common);
    }
    return new RemotePartition(this.#loop, specification, {
      ...common,
      hello: this.#hello,
      onPrepared: this.#onPrepared,
      onForgotten: (invocation) => this.#journal.ended(invocation),
      restartsAtOnceFrom: (process) => this.#handlers.restartsAtOnceFrom(process),
    });
  }

  /** Behind agents, of both kinds. */
  get #agents(): readonly (readonly [name: string, RemotePartition | HoldenPartition])[] {
    return [...this.#remote, ...this.#holden];
  }

  #partitionOf({ partition: agent }: ProcessSpecification): Partition {
    const partition =
      agent === undefined ? this.#local : (this.#remote.get(agent) ?? this.#holden.get(agent));
    if (partition === undefined) throw new Error(`Bug: no partition ${agent}`);
    return partition;
  }

  #makeLogFile({ name, logFile }: ProcessSpecification): LogFile | undefined {
    if (logFile === undefined) return undefined;
    const handlers = { onTrouble: this.#handlers.onTrouble };
    return new LogFile(this.#loop, logFile, { name, room: this.#queueRoom, handlers });
  }

  #makeProcess(
    specification: ProcessSpecification,
    notifyName: string | undefined,
    { output, parked }: Pick<ManagedProcess, "output" | "parked">,
  ): ManagedProcess {
    const owner = this.#journal.variableOf(specification.name);
    return {
      specification,
      constraints: encodeConstraints(specification.constraints),
      environment: environmentOf(specification, notifyName, owner),
      output,
      parked,
    };
  }

  #makePipes(name: string, book: LogBook, ends: readonly PipeEnds[] | undefined): OutputPipes {
    const pipes = new OutputPipes(this.#loop, book, () => this.#handlers.onLines(name), ends);
    const names = pipeNames(name);
    pipes.ends
      .flatMap(({ read, write }) => [read, write])
      .forEach((end, index) => {
        this.#keeper.keep(names[index] ?? "", end);
      });
    return pipes;
  }

  #makeParked({ name, descriptorStore }: ProcessSpecification): ParkedDescriptors | undefined {
    if (descriptorStore === 0) return undefined;
    const { onTrouble } = this.#handlers;
    const options = { capacity: descriptorStore, keeper: this.#keeper, onTrouble };
    return new ParkedDescriptors(this.#loop, name, options);
  }

  #manage(
    specification: ProcessSpecification,
    inherited: Inherited | undefined,
    logFile = this.#makeLogFile(specification),
  ): void {
    const { name, output, logLimit } = specification;
    const partition = this.#partitionOf(specification);
    const book = new LogBook(logLimit, (line) => this.#managed.get(name)?.logFile?.push(line));
    const carried = inherited?.state.managed.find((managed) => managed.name === name);
    if (inherited !== undefined && carried?.logFile !== undefined) {
      logFile?.unpack(carried.logFile, inherited.unpacking);
    }
    if (carried !== undefined) book.restore(carried.book);
    const ends =
      carried?.pipes?.map(({ read, write }) => ({
        read: inherited?.unpacking.take(read) as OwnedDescriptor,
        write: inherited?.unpacking.take(write) as OwnedDescriptor,
      })) ?? this.#keptPipes(specification);
    // It stands in the environment of who runs already.
    const known = carried?.notifyName ?? this.#survey.get(name)?.notifyName;
    const notifyName = notifyNameFor(specification, known);
    const pipes = output === "log" ? this.#makePipes(name, book, ends) : undefined;
    const parked = this.#makeParked(specification);
    if (inherited !== undefined) parked?.unpack(carried?.parked ?? [], inherited.unpacking);
    else if (this.#keeping !== undefined) parked?.fetch(this.#keeping);
    const process = this.#makeProcess(specification, notifyName, { output: pipes, parked });
    const { limits } = specification.constraints;
    const managed = { process, partition, book, logFile, notifyName, limits };
    const unwatched = { notify: undefined, readiness: undefined, liveness: undefined };
    this.#managed.set(name, { ...managed, ...unwatched });
  }

  /**
   * What a configuration needs before anything of it is put in: room for descriptors, and files of
   * lines that can be written to.
   * @throws TooFewDescriptors, FileRefused
   */
  async prepareFor(
    { processes }: Configuration,
    isOther: (name: string) => boolean,
  ): Promise<ReadonlyMap<string, LogFile>> {
    refuseTooFewDescriptors(processes, this.#keeping !== undefined);
    refuseMissingControllers(processes);
    const files = new Map<string, LogFile>();
    try {
      for (const specification of processes) {
        const file = isOther(specification.name) ? this.#makeLogFile(specification) : undefined;
        if (file === undefined) continue;
        files.set(specification.name, file);
        await file.begin();
      }
    } catch (error) {
      for (const file of files.values()) file.close();
      throw error;
    }
    return files;
  }

  /**
   * Whether a configuration could be put in, without making anything.
   * @throws TooFewDescriptors, FileRefused
   */
  async checkFor({ processes }: Configuration, isOther: (name: string) => boolean): Promise<void> {
    refuseTooFewDescriptors(processes, this.#keeping !== undefined);
    refuseMissingControllers(processes);
    for (const { name, logFile } of processes) {
      if (logFile !== undefined && isOther(name)) await checkLogFile(logFile.path);
    }
  }

  /** Where it cannot listen for its agent, it tries again, for as long as it is there. */
  addPartition(specification: PartitionSpecification): void {
    const partition = this.#addAgent(specification);
    const open = () => {
      if (!this.#isOurs(partition)) return;
      try {
        partition.open();
      } catch (error) {
        if (!(error instanceof SocketPathError)) throw error;
        this.#handlers.onTrouble(`partition ${specification.name}: ${error.message}`);
        this.#loop.wakeAfter(OPEN_AGAIN_AFTER, open);
      }
    };
    open();
  }

  #isOurs(partition: Partition): boolean {
    return this.#agents.some(([, one]) => one === partition);
  }

  /** Nothing of it runs any more. */
  removePartition(name: string): void {
    const partition = this.#remote.get(name) ?? this.#holden.get(name);
    this.#remote.delete(name);
    this.#holden.delete(name);
    partition?.close();
  }

  /** Acts when no start of this process can be made that nobody asks for. */
  settle(name: string, act: () => void): void {
    this.#managed.get(name)?.partition.settle(name, act);
  }

  add(specification: ProcessSpecification, logFile: LogFile | undefined): void {
    this.#manage(specification, undefined, logFile);
  }

  /**
   * The process is another one from now on; where `launch` is "other", nothing of the former one
   * lives. Why what runs cannot have what it is to have; undefined when it has it.
   */
  renew(
    specification: ProcessSpecification,
    {
      launch,
      logFile,
    }: { readonly launch: "same" | "other"; readonly logFile: LogFile | undefined },
  ): string | undefined {
    const { name, output, logLimit } = specification;
    const managed = this.#managed.get(name);
    if (managed === undefined) throw new Error(`Bug: no process ${name}`);
    managed.book.limit = logLimit;
    if (!Bun.deepEquals(specification.logFile, managed.process.specification.logFile)) {
      this.#changeLogFile(managed, logFile);
    } else logFile?.close();
    let pipes = managed.process.output;
    const { constraints } = managed.process;
    let { parked } = managed.process;
    if (parked !== undefined) parked.capacity = specification.descriptorStore;
    if (launch === "other") {
      if (specification.descriptorStore === 0) {
        parked?.release();
        parked = undefined;
      } else parked ??= this.#makeParked(specification);
      this.#forgetPrepared(managed, name);
      if (output !== "log") pipes = this.#closePipes(managed, name);
      else pipes ??= this.#makePipes(name, managed.book, undefined);
      this.#forgetNotices(managed, name);
      managed.notifyName = notifyNameFor(specification, managed.notifyName);
      managed.partition = this.#partitionOf(specification);
    }
    managed.process = this.#makeProcess(specification, managed.notifyName, {
      ...{ output: pipes, parked },
    });
    if (launch === "other") return undefined;
    // What was prepared without a limit is no start of one that has some.
    const isPrepared = constraints === undefined && managed.process.constraints !== undefined;
    if (isPrepared) this.#forgetPrepared(managed, name);
    else managed.partition.renewed(name, "same");
    const instance = this.#handlers.instanceOf(name);
    if (instance === undefined) return undefined;
    const refusals = [this.#limit(managed, instance), this.#reschedule(managed, instance)];
    return refusals.find((refusal) => refusal !== undefined);
  }

  /** What it was started with may not be what it is to have by now. */
  #limit(
    managed: Managed,
    { invocation, processId }: Pick<Instance, "invocation" | "processId">,
  ): string | undefined {
    const { name, constraints } = managed.process.specification;
    const { limits } = constraints;
    if (limits === managed.limits) return undefined;
    const process = managed.partition.processOf(invocation);
    if (process === undefined) return undefined;
    const { changed, refusal } = limit({ processId, process }, managed.limits, limits);
    managed.limits = limits;
    for (const { name: resource, before, after } of changed) {
      const said = `${formatLimit(before)} → ${formatLimit(after)}`;
      this.#handlers.onChanged(`${name}: limits.${resource}: ${said}`);
    }
    return this.#tellRefusal(name, refusal);
  }

  /** As the configuration says now, which may be another than when it was started. */
  #reschedule(
    managed: Managed,
    instance: Pick<Instance, "invocation" | "processId">,
  ): string | undefined {
    const refusal = reschedule(managed, instance, this.#tellResources);
    return this.#tellRefusal(managed.process.specification.name, refusal);
  }

  #tellRefusal(name: string, refusal: Refusal | undefined): string | undefined {
    if (refusal === undefined) return undefined;
    this.#handlers.onTrouble(`${name}: cannot change it while it runs: ${refusal.message}`);
    return refusal.message;
  }

  /** What a start sets is as its configuration says; what changes meanwhile is worth a line. */
  readonly #tellResources = (name: string, { changed, left }: ResourceResult): void => {
    for (const why of left) this.#handlers.onTrouble(`${name}: goes on without: ${why}`);
    for (const { file, before, after } of changed) {
      this.#handlers.onChanged(`${name}: ${file}: ${before} → ${after}`);
    }
  };

  /** A start that is laid out is written down as one that may have been made. */
  #forgetPrepared({ partition }: Managed, name: string): void {
    const invocation = partition.renewed(name, "other");
    if (invocation !== undefined) this.#journal.ended(invocation);
  }

  #forgetNotices(managed: Managed, name: string): void {
    managed.notify?.[Symbol.dispose]();
    managed.notify = undefined;
    this.#keeper.forget(keptNames.notices(name));
  }

  #closePipes({ process }: Managed, name: string): undefined {
    process.output?.settle();
    process.output?.[Symbol.dispose]();
    for (const pipe of pipeNames(name)) this.#keeper.forget(pipe);
  }

  /** What waits for the former file is written before anything is written to the next one. */
  #changeLogFile(managed: Managed, next: LogFile | undefined): void {
    const former = managed.logFile;
    managed.logFile = next;
    if (former === undefined) return;
    next?.pause();
    this.#closing.add(former);
    const onClosed = async () => {
      await former.finish();
      former.close();
      this.#closing.delete(former);
      // It may be the same path, turned over meanwhile.
      await next?.reopen().catch(() => undefined);
      next?.resume();
    };
    onClosed().catch((failure) => this.#loop.fail(failure));
  }

  /** Nothing of it lives, and nothing follows. */
  remove(name: string): void {
    const managed = this.#managed.get(name);
    if (managed === undefined) return;
    managed.readiness?.cancel();
    managed.liveness?.cancel();
    this.#forgetPrepared(managed, name);
    this.#closePipes(managed, name);
    this.#forgetNotices(managed, name);
    managed.process.parked?.release();
    this.#changeLogFile(managed, undefined);
    this.#managed.delete(name);
    this.#keeping?.forgetLine(name);
    this.events.forget(name);
  }

  /** Both ends of both log pipes, as an orchestrator that was killed had them. */
  #keptPipes({ name, output }: ProcessSpecification): PipeEnds[] | undefined {
    const keeping = this.#keeping;
    const names = pipeNames(name);
    if (output !== "log" || !names.every((pipe) => keeping?.has(pipe) === true)) return undefined;
    const take = (index: number) => keeping?.take(names[index] ?? "") as OwnedDescriptor;
    return [0, 2].map((index) => ({ read: take(index), write: take(index + 1) }));
  }

  /** Watches what an orchestrator that was killed has left, and its sockets of notices. */
  adopt(): void {
    for (const [name, { adoption, instances, notifyName }] of this.#survey) {
      const managed = this.#managed.get(name);
      if (managed === undefined) continue;
      if (managed.notifyName !== undefined && managed.notifyName === notifyName) {
        const socket = this.#keeping?.take(keptNames.notices(name));
        if (socket !== undefined) managed.notify = this.#listenForNotices(managed, socket);
      }
      for (const [invocation, { processId, process }] of instances) {
        const { state } = adoption;
        const known = state !== undefined && "instance" in state ? state.instance : undefined;
        const number = known?.invocation === invocation ? known.processId : processId;
        managed.partition.adopt(managed.process, { invocation, processId: number, process });
        this.#reschedule(managed, { invocation, processId: number });
      }
    }
  }

  /** @throws WrongLuggage */
  #unpack({ state, unpacking }: Inherited): void {
    this.events.restore(state.events);
    this.#local.unpack(state.children, unpacking);
    this.#local.unpackAdopted(state.adopted, unpacking);
    for (const carried of state.partitions) {
      this.#remote.get(carried.name)?.unpack(carried, unpacking);
    }
    for (const carried of state.holden) this.#holden.get(carried.name)?.unpack(carried, unpacking);
    for (const { name, notify } of state.managed) {
      const managed = this.#managed.get(name);
      if (managed === undefined || notify === undefined) continue;
      const socket = unpacking.take(notify.socket);
      managed.notify = this.#listenForNotices(managed, socket, notify.early);
    }
    for (const { invocation, name, rounds } of state.strays) {
      this.#strays.add(invocation, name, rounds);
    }
  }

  /** Takes back what would happen by itself, so that all that has begun comes to its end. */
  pause(): void {
    for (const managed of this.#managed.values()) {
      managed.readiness?.cancel();
      managed.readiness = undefined;
      managed.liveness?.cancel();
      managed.liveness = undefined;
      managed.logFile?.pause();
    }
    for (const partition of this.#remote.values()) partition.pause();
  }

  /** Nobody goes on with it after all; checks of readiness are begun anew by their effect. */
  resume(): void {
    for (const { logFile } of this.#managed.values()) logFile?.resume();
    for (const partition of this.#remote.values()) partition.resume();
  }

  /** What has begun and has not come to its end, in words; undefined when all has. */
  get underWay(): string | undefined {
    if (this.#checks.size > 0) return "a check of readiness";
    if (this.#scheduled.isBusy) return "the end of a start that is refused";
    for (const [name, partition] of this.#agents) {
      const what = partition.underWay;
      if (what !== undefined) return `${what}, partition ${name}`;
    }
    for (const [name, { logFile }] of this.#managed) {
      if (logFile?.isBusy === true) return `a write to the log of ${name}`;
    }
    if (this.#closing.size > 0) return "a write to the log of a process that is no more";
    return this.#local.underWay;
  }

  /** Opens the files that lines are written to. @throws FileRefused */
  async openLogs(): Promise<void> {
    for (const { logFile } of this.#managed.values()) await logFile?.begin();
  }

  logFileOf(name: string): LogFile | undefined {
    return this.#managed.get(name)?.logFile;
  }

  /** Resolves when what waits has been written, or cannot be. */
  async finishLogs(): Promise<void> {
    const current = [...this.#managed.values()].flatMap(({ logFile }) => logFile ?? []);
    const files = [...current, ...this.#closing];
    await Promise.all(files.map((file) => file.finish()));
  }

  /** Ends connections to agents that do not come to rest. */
  dropUnsettled(): void {
    for (const partition of this.#remote.values()) partition.dropUnsettled();
  }

  /** For another program to go on with. */
  pack(luggage: Luggage): PackedPerformer {
    const most = Math.floor(CARRIED_LOG_BYTES / Math.max(1, this.#managed.size));
    const managed = [...this.#managed].map(([name, one]) => ({
      name,
      pipes: one.process.output?.ends.map(({ read, write }) => ({
        read: luggage.pack(read),
        write: luggage.pack(write),
      })),
      book: one.book.save(most),
      notifyName: one.notifyName,
      notify: one.notify && {
        socket: luggage.pack(one.notify.socket),
        early: [...one.notify.early],
      },
      logFile: one.logFile?.pack(luggage),
      ...packParked(one, luggage),
    }));
    const { newest, older, all } = this.events.save();
    return {
      journal: this.#journal.pack(luggage, [
        ...this.#local.drawn,
        ...[...this.#remote.values()].flatMap((partition) => partition.drawn),
      ]),
      events: { newest, older: [...older], all: [...all] },
      managed,
      strays: this.#strays.save(),
      children: this.#local.pack(luggage),
      adopted: this.#local.packAdopted(luggage),
      partitions: [...this.#remote.values()].map((partition) => partition.pack(luggage)),
      holden: [...this.#holden.values()].map((partition) => partition.pack(luggage)),
    };
  }

  /** Endings that somebody was about to be told of are waited for as long as before. */
  awaitEndings(name: string, invocations: readonly string[]): void {
    const history = this.events.historyOf(name);
    for (const invocation of invocations) {
      const own = history.filter(
        ({ entry }) => "invocation" in entry && entry.invocation === invocation,
      );
      const death = own.find(({ entry }) => entry.what === "died");
      if (death === undefined || own.some(({ entry }) => entry.what === "ended")) continue;
      this.#awaitEnding(name, invocation, death.at + ENDING_LIMIT);
    }
  }

  /**
   * Ends whoever an orchestrator that was killed left in cgroups of this host, whatever they made
   * of their environment, and removes the empty folders of instances.
   */
  endLeftGroups(left: ReadonlyMap<string, string>, onDone: () => void): void {
    const parents = new Map<string, string>();
    for (const [name, { process }] of this.#managed) {
      const { partition, constraints } = process.specification;
      const parent = this.#groups.parentOf(constraints.cgroup);
      if (partition === undefined && parent !== undefined) parents.set(name, parent);
    }
    const groups = [...left].flatMap(([invocation, name]) => {
      const parent = parents.get(name);
      return parent === undefined ? [] : [{ parent, invocation }];
    });
    clearLeftGroups(this.#loop, groups, () => {
      for (const parent of new Set(parents.values())) sweepGroups(parent);
      onDone();
    });
  }

  /** Begins to reach the agents. @throws SocketPathError when a listening path cannot be used. */
  open(): void {
    for (const [, partition] of this.#agents) partition.open();
  }

  /** True when no check of readiness runs, or is about to be started by an agent. */
  get isQuiet(): boolean {
    return this.#checks.size === 0;
  }

  /** The cgroup of an instance of this host; undefined where it has none of its own. */
  cgroupOf(name: string, invocation: string): string | undefined {
    const specification = this.#managed.get(name)?.process.specification;
    const parent = this.#groups.parentOf(specification?.constraints.cgroup);
    if (parent === undefined || specification?.partition !== undefined) return undefined;
    return `${parent}/${invocation}`;
  }

  logOf(name: string): LogBook | undefined {
    return this.#managed.get(name)?.book;
  }

  /** Takes what stands in the pipes of a process that died, and tells the orchestrator. */
  #emit(name: string, event: ProcessEvent): void {
    // It may be another process, or gone, when the event has been handled.
    const managed = this.#managed.get(name);
    const told = managed === undefined ? event : this.#scheduled.pass(managed, event);
    if (told === undefined) return;
    const isThere = told.kind === "started" || told.kind === "found";
    if (managed !== undefined && isThere) this.#limit(managed, told);
    const { specification } = managed?.process ?? {};
    const { afterStop } = specification?.hooks ?? {};
    if (managed === undefined || told.kind !== "cleared" || afterStop === undefined) {
      this.#tell(name, told, specification);
      return;
    }
    this.#runHook(managed, { what: "after_stop", command: afterStop }, (refusal) => {
      if (refusal !== undefined) this.#handlers.onTrouble(`${name}: ${refusal.message}`);
      this.#tell(name, told, specification);
    });
  }

  /** Runs a command to its end, or to the end of its time; undefined when it succeeded. */
  #runHook(
    managed: Managed,
    hook: { readonly what: "before_start" | "after_stop"; readonly command: readonly string[] },
    onEnd: (refusal: Refusal | undefined) => void,
  ): void {
    const { process, partition } = managed;
    const { name, hooks } = process.specification;
    const { what, command } = hook;
    const invocation = newInvocation();
    const { onCommand, onCommandEnded, onCommandKilled } = this.#commandHandlers(name);
    let isLate = false;
    const limit = this.#loop.wakeAfter(hooks.timeout, () => {
      isLate = true;
      onCommandKilled(invocation);
      partition.endCommand(invocation);
    });
    onCommand(invocation);
    partition.runCommand(process, { command, invocation }, (result) => {
      limit[Symbol.dispose]();
      onCommandEnded(invocation);
      if (result.kind === "exited" && result.status === 0) onEnd(undefined);
      else {
        const late = `it took longer than ${formatDuration(hooks.timeout)}`;
        const ended = result.kind === "exited" ? `exit ${result.status}` : result.reason;
        const message = `its ${what} has failed: ${isLate ? late : ended}`;
        onEnd({ message, code: undefined });
      }
    });
  }

  #tell(name: string, event: ProcessEvent, specification: ProcessSpecification | undefined): void {
    this.#handlers.onEvent(name, event);
    if (event.kind === "started" || event.kind === "found") {
      const instance = this.#handlers.instanceOf(name);
      if (instance !== undefined) this.#managed.get(name)?.notify?.settle(instance);
    }
    if (event.kind === "died") {
      // After the restart, which is decided in this turn: lines can wait, a restart cannot.
      this.#loop.afterTurn(() => {
        this.#managed.get(name)?.process.output?.settle();
        if (event.ending === undefined) {
          this.#awaitEnding(name, event.invocation, monotonicNow() + ENDING_LIMIT);
        }
        if (specification !== undefined) this.#sweepAfter(specification, event.invocation);
      });
    }
  }

  /** A cgroup holds whoever flees; where there may be none, they are looked for after a restart. */
  #sweepAfter({ name, leftovers, constraints }: ProcessSpecification, invocation: string): void {
    if (leftovers !== "kill") return;
    const { cgroup } = constraints;
    if (cgroup === undefined || cgroup === AUTOMATIC_GROUP) this.#strays.add(invocation, name);
  }

  /** Says that an ending is unknown which nobody told in time; a later one is noted as well. */
  #awaitEnding(name: string, invocation: string, until: MonotonicTime): void {
    this.#loop.wakeAt(until, () => {
      if (!this.#handlers.isUntold(name, invocation)) return;
      this.events.add(name, { what: "ended", invocation, ending: nobodyTold }, monotonicNow());
      this.#handlers.onLines(name);
    });
  }

  perform(name: string, effect: ProcessEffect): void {
    const managed = this.#managed.get(name);
    if (managed === undefined) throw new Error(`Bug: no process ${name}`);
    if (faultHooks) killPoint(`orchestrator:${effect.kind}:before`);
    this.#perform(managed, name, effect);
    if (faultHooks) killPoint(`orchestrator:${effect.kind}:after`);
  }

  #perform(managed: Managed, name: string, effect: ProcessEffect): void {
    const { process, partition } = managed;
    switch (effect.kind) {
      case "start":
        this.#journal.starting(effect.invocation, name);
        this.#start(managed, effect.invocation, effect.replaces);
        break;
      case "find":
        partition.find(process, effect.invocation);
        break;
      case "signal":
        partition.signal(effect.instance, effect.signal);
        break;
      case "kill":
        partition.kill(process, effect.instance);
        break;
      case "clear":
        partition.clear(process, effect.instance);
        break;
      case "watch-readiness":
        this.#watchReadiness(managed, name, effect.instance);
        break;
      case "forget-readiness":
        managed.readiness?.cancel();
        managed.readiness = undefined;
        break;
      case "watch-liveness":
        this.#watchLiveness(managed, name, effect.instance);
        break;
      case "forget-liveness":
        managed.liveness?.cancel();
        managed.liveness = undefined;
        break;
      case "record":
        this.events.add(name, effect.entry, monotonicNow());
        break;
    }
  }

  #start(managed: Managed, invocation: string, replaces: string | undefined): void {
    const { name, hooks } = managed.process.specification;
    const command = hooks.beforeStart;
    if (command === undefined) {
      this.#startNow(managed, invocation, replaces);
      return;
    }
    this.#runHook(managed, { what: "before_start", command }, (refusal) => {
      const notWanted = { message: "it is not wanted any more", code: undefined };
      const why = refusal ?? (this.#handlers.isWanted(name) ? undefined : notWanted);
      if (why === undefined) this.#startNow(managed, invocation, replaces);
      else this.#emit(name, { kind: "start-refused", invocation, refusal: why });
    });
  }

  /** A process that tells its readiness needs its socket before it starts. */
  #startNow(managed: Managed, invocation: string, replaces: string | undefined): void {
    const { process, partition, notifyName } = managed;
    managed.limits = process.specification.constraints.limits;
    if (notifyName === undefined || managed.notify !== undefined) {
      partition.start(process, invocation, replaces);
      return;
    }
    const { name } = process.specification;
    partition.bindNotify(notifyName, (socket) => {
      if (socket === undefined) {
        const refusal = { message: "Cannot make its notify socket", code: undefined };
        this.#emit(name, { kind: "start-refused", invocation, refusal });
        return;
      }
      managed.notify = this.#listenForNotices(managed, socket);
      partition.start(process, invocation, replaces);
    });
  }

  /** What it comes to is an event of the process; or, where it is left running, a word of it. */
  #watchLiveness(managed: Managed, name: string, { invocation }: Instance): void {
    managed.liveness?.cancel();
    const note = (entry: HistoryEntry) => {
      this.events.add(name, entry, monotonicNow());
      this.#handlers.onLines(name);
    };
    const isLeft = managed.process.specification.liveness?.onFailure === "degrade";
    const wasUnhealthy = isLeft && degradedBy(this.events.historyOf(name)) !== undefined;
    managed.liveness = watchLiveness(managed.partition, managed.process, {
      wasUnhealthy,
      ...this.#commandHandlers(name),
      hearNotices: () => managed.notify?.hear(),
      onUnhealthy: (reason) => {
        if (isLeft) note({ what: "degraded", invocation, reason });
        else this.#emit(name, { kind: "unhealthy", invocation, reason });
      },
      onHealthy: () => {
        if (isLeft) note({ what: "recovered", invocation });
      },
    });
  }

  /** Written down like a start: an orchestrator that is killed leaves no check behind. */
  #commandHandlers(name: string): CommandHandlers {
    return {
      onCommand: (check) => {
        this.#checks.add(check);
        this.#journal.checking(check, name);
      },
      onCommandEnded: (check) => {
        this.#checks.delete(check);
        this.#journal.ended(check);
        if (this.isQuiet) this.#handlers.onQuiet();
      },
      onCommandKilled: (check) => this.#strays.add(check, name),
    };
  }

  #listenForNotices(
    { partition, process }: Managed,
    socket: OwnedDescriptor,
    early?: ConstructorParameters<typeof NotifySocket>[3],
  ): NotifySocket {
    const { name } = process.specification;
    const handlers: ConstructorParameters<typeof NotifySocket>[2] = {
      instance: () => this.#handlers.instanceOf(name),
      onReady: (instance) =>
        this.#emit(name, { kind: "became-ready", invocation: instance.invocation }),
      onBeat: () => this.#managed.get(name)?.liveness?.beat(),
      onParking: (parking, descriptors) => this.#park(name, parking, descriptors),
      onForeign: (what, sender, instance) =>
        this.#handlers.onTrouble(
          `${name}: ${what} of process ${sender} does not count: expected it from the main ` +
            `process${instance === undefined ? "" : `, ${instance.processId}`}`,
        ),
    };
    this.#keeper.keep(keptNames.notices(name), socket);
    return new NotifySocket(partition, socket, handlers, early);
  }

  #park(name: string, parking: Parking, descriptors: readonly OwnedDescriptor[]): void {
    const parked = this.#managed.get(name)?.process.parked;
    if (parking.kind === "remove") parked?.remove(parking.name);
    else if (parked !== undefined) parked.park(descriptors, parking);
    else {
      for (const descriptor of descriptors) descriptor.close();
      const mend = "give it a descriptor_store";
      this.#handlers.onTrouble(`${name}: FDSTORE=1: it may park nothing: ${mend}`);
    }
  }

  /** It has come to rest: nothing follows that would be given what it had parked. */
  releaseParked(name: string): void {
    this.#managed.get(name)?.process.parked?.release();
  }

  /** What a process has parked, by the names that it gave. */
  parkedOf(name: string): ParkedDescriptors["all"] {
    return this.#managed.get(name)?.process.parked?.all ?? [];
  }

  #watchReadiness(managed: Managed, name: string, instance: Instance): void {
    const { invocation } = instance;
    managed.readiness?.cancel();
    const onReady = () => this.#emit(name, { kind: "became-ready", invocation });
    managed.readiness = watchReadiness(managed.partition, managed.process, {
      onReady,
      ...this.#commandHandlers(name),
    });
    // The notice of a quick program overtakes the answer to its start.
    if (managed.notify?.wasEarly(instance) === true) onReady();
  }

  /** The invocation that the next start of a process must carry, if one is prepared. */
  standbyOf(name: string): string | undefined {
    return this.#managed.get(name)?.partition.standbyOf(name);
  }

  /** The name in the NOTIFY_SOCKET of a process, where it has one. */
  notifyNameOf(name: string): string | undefined {
    return this.#managed.get(name)?.notifyName;
  }

  /** The rest of an instance is gone for good: the journal may forget it. */
  forget(invocation: string): void {
    this.#journal.ended(invocation);
  }

  close(): void {
    this.#strays[Symbol.dispose]();
    for (const managed of this.#managed.values()) {
      managed.readiness?.cancel();
      managed.liveness?.cancel();
      managed.notify?.[Symbol.dispose]();
      managed.process.output?.[Symbol.dispose]();
      managed.process.parked?.close();
      managed.logFile?.close();
    }
    this.#local.close();
    for (const [, partition] of this.#agents) partition.close();
  }
}
