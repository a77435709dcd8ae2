import { monotonicNow, wallClock } from "../../event-loop/clock.ts";
import type { Milliseconds, MonotonicTime } from "../../units/units.ts";
import type { DeclaredCheck } from "../health-configuration.ts";
import type {
  HistoryEntry,
  Instance,
  MachineEffect,
  MachineEvent,
  Note,
} from "../lifecycle-state.ts";
import {
  type Assigned,
  type MachineRecord,
  noteFromRecord,
  noteToRecord,
} from "../machine-record.ts";
import type { VmSpec } from "../protocol.ts";
import type { DesiredMachine } from "../reconcile.ts";
import { removeDisks } from "./disk-ownership.ts";
import { passEffect, passStep } from "./kill-points.ts";
import type { MachineAgent } from "./machine-agent.ts";
import type { CgroupUse } from "./machine-cgroups.ts";
import { MachineHealth, type ToldTurn } from "./machine-health.ts";
import type { MachineParts, MachineTools, PreparationProgress } from "./machine-tools.ts";
import { MachineVmm } from "./machine-vmm.ts";
import { lastingRefusal, refusalOf } from "./refusal.ts";
import type { AttachedVmm } from "./vmm-seat.ts";

/** Between attempts to write a note that found no room: what follows it waits. */
const NOTE_AGAIN_AFTER: Milliseconds = 1_000;
/** A share of less time than this would be one of ticks. */
const LEAST_READING_AGE: Milliseconds = 500;

/** What a VMM had used of processors at a time. */
interface ProcessorReading {
  readonly processId: number;
  readonly seconds: number;
  readonly at: MonotonicTime;
}

export interface MachineHandlers {
  readonly onEvent: (event: MachineEvent) => void;
  readonly onHistory: (entry: HistoryEntry) => void;
  /** Something to be seen in `list` changed without an event: a preparation's progress. */
  readonly onProgress: () => void;
}

const isFarewell = (effect: MachineEffect): boolean =>
  effect.kind === "note" && effect.note.wanted === "absent";

/** Performs what was decided for one machine, in order; answers come back as events. */
export class Machine implements Disposable {
  readonly name: string;
  readonly #tools: MachineTools;
  readonly #handlers: MachineHandlers;
  readonly #vmm: MachineVmm;
  readonly health: MachineHealth;
  #record: MachineRecord;
  #parts: MachineParts | undefined;
  readonly #queue: MachineEffect[] = [];
  #noteRetry: Disposable | undefined;
  #whyWaiting: string | undefined;
  #preparing: AbortController | undefined;
  #progress: PreparationProgress | undefined;
  #readings: readonly ProcessorReading[] = [];
  /** Of the VMM whose card somebody removed. */
  #cutOff: string | undefined;
  #hasNoFolder = false;
  #isDisposed = false;

  constructor(record: MachineRecord, tools: MachineTools, handlers: MachineHandlers) {
    this.name = record.spec.name;
    this.#record = record;
    this.#tools = tools;
    this.#handlers = handlers;
    this.#vmm = new MachineVmm(this.name, tools, {
      onEvent: (event) => this.#tell(event),
      record: () => this.#record,
      parts: () => this.parts(),
      choose: (choice) => {
        this.#record = { ...this.#record, choice };
        tools.folders.write(this.name, this.#record);
      },
      // That its guest began anew a VMM tells by another socket, before the guest says a word: it
      // is heard first, or the new guest's words would be taken for the old one's.
      onLine: (line) => tools.loop.afterTurn(() => this.health.hear(line)),
    });
    this.health = this.#makeHealth(record);
  }

  #makeHealth({ spec, said = [] }: MachineRecord): MachineHealth {
    return new MachineHealth(this.#tools.loop, {
      declared: this.#checksOf(spec),
      said,
      handlers: {
        address: () => this.#record.allocation.cards[0]?.address,
        pingAgent: () => () => this.agent.ping(),
        onTurn: (told) => this.#onTurn(told),
        onSaid: (heard) => this.#noteSaid(heard),
      },
    });
  }

  /** What is declared, if only an empty list; else what its image brings. */
  #checksOf({ health }: VmSpec): readonly DeclaredCheck[] {
    if (health !== undefined) return health;
    // Of a new machine nobody knows its image yet.
    if (this.#record.image === null) return [];
    try {
      return this.parts().healthChecks;
    } catch {
      // Why its image cannot be used is told when its VMM is asked for.
      return [];
    }
  }

  #onTurn({ check, plan, turn, wasHealthy }: ToldTurn): void {
    const { invocation } = this.#vmm;
    if (invocation === undefined) return;
    if (turn.to === "healthy") {
      this.#handlers.onHistory({ what: "healthy", invocation, check });
      return;
    }
    const { failures, reason } = turn;
    this.#handlers.onHistory({ what: "unhealthy", invocation, check, failures, reason });
    if (plan.onUnhealthy === "tell") return;
    const why = `${check}: ${reason}`;
    this.#tell({ kind: "unhealthy", invocation, reason: why, wasHealthy, grace: plan.stopGrace });
  }

  #listenAnew(): void {
    this.health.listenAnew();
    if ((this.#record.said ?? []).length > 0) this.#noteSaid([]);
  }

  /** For the next worker: a line that was said once is not said again for it. */
  #noteSaid(said: readonly string[]): void {
    this.#record = { ...this.#record, said: [...said] };
    try {
      this.#tools.folders.write(this.name, this.#record);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      this.#tools.onTrouble(`${this.name}: what its console said cannot be noted: ${message}`);
    }
  }

  get record(): MachineRecord {
    return this.#record;
  }

  /** In which its guest must be off: written down with the note of the shutdown, which follows. */
  giveGrace(grace: Milliseconds | null): void {
    this.#record = { ...this.#record, shutdown_grace_ms: grace };
  }

  /**
   * Of the snapshot that follows: the public key that it is encrypted to. A worker that dies with
   * it leaves no snapshot, so that none is ever made without.
   */
  encryptSnapshot(publicKey: string | undefined): void {
    this.#vmm.encryptTo = publicKey;
  }

  /** Notes what it was declared to be. @throws Error (ENOSPC …): the former record stands */
  declare(power: NonNullable<MachineRecord["declared_power"]>): void {
    if (this.#record.declared_power === power) return;
    const record = { ...this.#record, declared_power: power };
    // Of a new one nothing is on the disk before its first note.
    if (this.#record.note.stage !== "absent") this.#tools.folders.write(this.name, record);
    this.#record = record;
  }

  /** Declared otherwise in what is not its VMM's. @throws Error (ENOSPC …): the former stands */
  adjust(spec: VmSpec): void {
    const { spec: former } = this.#record;
    const record = { ...this.#record, spec };
    if (this.#record.note.stage !== "absent") this.#tools.folders.write(this.name, record);
    this.#record = record;
    const isChanged = (key: "health" | "limits") => !Bun.deepEquals(former[key], spec[key]);
    if (isChanged("health")) this.health.declare(this.#checksOf(spec));
    if (isChanged("limits")) this.#vmm.keepLimits();
  }

  /** Of its VMM, where that has one of its own. */
  get cgroup(): string | undefined {
    const { invocation } = this.#vmm;
    return invocation === undefined ? undefined : this.#tools.cgroups.pathOf(invocation);
  }

  cgroupUse(): CgroupUse | undefined {
    const { invocation } = this.#vmm;
    return invocation === undefined ? undefined : this.#tools.cgroups.measure(invocation);
  }

  /**
   * It came from another host, and is declared as it is from now on.
   * @throws Error (ENOSPC …): the former record stands
   */
  takeUp({ spec, power }: DesiredMachine): void {
    const record = { ...this.#record, owner: "declared" as const, declared_power: power };
    this.#tools.folders.write(this.name, record);
    this.#record = record;
    this.adjust(spec);
  }

  /** Notes what a master gave it with. @throws Error (ENOSPC …): the former record stands */
  assign(assigned: Assigned): void {
    const record = { ...this.#record, assigned };
    if (this.#record.note.stage !== "absent") this.#tools.folders.write(this.name, record);
    this.#record = record;
  }

  /** Ends its VMM at once, whatever it does: what becomes of it is told as any death is. */
  kill(): void {
    this.#vmm.kill();
  }

  /** The same of one that was not taken up yet. @returns false where there is none */
  endUnadopted(): boolean {
    const note = noteFromRecord(this.#record.note);
    if (typeof note === "string" || note.instance === undefined) return false;
    if (this.#record.boot !== this.#tools.boot) return false;
    return this.#vmm.endUnadopted(note.instance);
  }

  /** The card of its VMM was removed by somebody: another VMM has it again. */
  cutOff(): void {
    this.#cutOff = this.#vmm.invocation;
    this.#handlers.onProgress();
  }

  get isCutOff(): boolean {
    return this.#cutOff !== undefined && this.#cutOff === this.#vmm.invocation;
  }

  /** Why its record cannot be written: all that was decided since waits for that. */
  get whyWaiting(): string | undefined {
    return this.#whyWaiting;
  }

  /** Of the preparation under way. */
  get progress(): PreparationProgress | undefined {
    return this.#progress;
  }

  get attached(): AttachedVmm | undefined {
    return this.#vmm.attached;
  }

  /** Who has it, as far as this worker knows. */
  get processId(): number | undefined {
    return this.#vmm.processId;
  }

  /** In its guest. */
  get agent(): MachineAgent {
    return this.#vmm.agent;
  }

  get consoleSocket(): string {
    return this.#vmm.viewerSocket;
  }

  /** What its VMM, or its last one, said on its standard output and error. */
  get vmmOutput(): string | undefined {
    return this.#vmm.output;
  }

  /** The last line of that: why a VMM gave up stands in its own words alone. */
  get lastWords(): string | undefined {
    return this.#vmm.lastWords;
  }

  get folder(): string {
    return this.#tools.folders.folderOf(this.name);
  }

  /** What it consists of, where that was looked at already. */
  get knownParts(): MachineParts | undefined {
    return this.#parts;
  }

  /**
   * Of one processor, since the newest reading of the worker's own that is half a second old;
   * null where there is none of the same VMM. Whoever asks disturbs nobody else.
   * @param seconds that its VMM has used so far
   */
  processorPercent(seconds: number | undefined): number | null {
    const { processId } = this;
    if (seconds === undefined || processId === undefined) return null;
    const now = monotonicNow();
    const before = this.#readings.findLast(({ at }) => now - at >= LEAST_READING_AGE);
    if (before === undefined || before.processId !== processId) return null;
    const percent = ((seconds - before.seconds) * 100_000) / (now - before.at);
    return Math.round(Math.max(0, percent) * 10) / 10;
  }

  /** A reading of the worker's own: the two newest are kept. */
  noteProcessor(seconds: number | undefined): void {
    const { processId } = this;
    if (seconds === undefined || processId === undefined) return;
    this.#readings = [...this.#readings.slice(-1), { processId, seconds, at: monotonicNow() }];
  }

  /** @throws as Preparation.describe */
  parts(): MachineParts {
    this.#parts ??= this.#tools.preparation.describe(this.#record);
    return this.#parts;
  }

  /**
   * Takes a machine up that an earlier worker left. "doubtful": its VMM may be alive, so nothing
   * is done about it; ask again.
   */
  adopt(): { readonly kind: "adopted" } | { readonly kind: "doubtful"; readonly reason: string } {
    const note = noteFromRecord(this.#record.note);
    if (typeof note === "string") throw new Error(`Bug: a note that was read before: ${note}`);
    const isThisBoot = this.#record.boot === this.#tools.boot;
    const { instance } = note;
    let alive: Instance | undefined;
    if (instance !== undefined && isThisBoot) {
      const verdict = this.#vmm.adopt(instance);
      if (verdict.kind === "doubtful") return verdict;
      if (verdict.kind === "adopted") alive = instance;
    }
    this.#tell({ kind: "adopted", note, alive });
    const { capture } = note;
    if (capture?.stage === "held" && !this.#tools.captures.isWhole(capture.id)) {
      const reason = isThisBoot ? "its holder is gone" : "the host has been booted since";
      this.#tell({ kind: "capture-lost", capture: capture.id, reason });
    }
    return { kind: "adopted" };
  }

  /** Has its VMM asked how the guest is, where one answers. */
  observe(): void {
    void this.#vmm.observe();
  }

  perform(effects: readonly MachineEffect[]): void {
    this.#queue.push(...effects);
    // Of one that is not on the disk yet, this may be what it waited for.
    if (effects.some(isFarewell)) this.#tryAgain();
    this.#work();
  }

  #tryAgain(): void {
    this.#noteRetry?.[Symbol.dispose]();
    this.#noteRetry = undefined;
  }

  /** In order, and nothing after a note that could not be written. */
  #work(): void {
    while (this.#noteRetry === undefined && !this.#isDisposed) {
      const effect = this.#queue.shift();
      if (effect === undefined) return;
      passEffect(effect.kind, "before");
      if (effect.kind === "note") this.#note(effect.note);
      else this.#perform(effect);
      passEffect(effect.kind, "after");
    }
  }

  #note(note: Note): void {
    // Its folder is gone, and with it the record.
    if (note.stage === "removed" || this.#hasNoFolder) return;
    const { boot } = this.#tools;
    // A guest that begins anew has said nothing yet; one that is given its state has.
    const isAnew = note.stage === "starting" && note.capture?.stage !== "held";
    const said = isAnew ? { said: [] } : {};
    const { given: _, ...former } = this.#record;
    const given = this.#givenWith(note);
    const { choice } = former;
    // What a new machine is to be goes down with its first start, before there is a VMM.
    const chosen = note.stage === "starting" ? (choice ?? this.#vmm.firstChoice()) : choice;
    const record = {
      ...{ ...former, ...said, note: noteToRecord(note), boot, choice: chosen },
      ...(given !== undefined && { given }),
    };
    try {
      this.#tools.folders.write(this.name, record);
      this.#record = record;
      this.#tellWaiting(undefined);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      if (this.#isForgottenAnyway(note)) return;
      this.#tools.onTrouble(`${this.name}: its record cannot be written, it waits: ${message}`);
      this.#queue.unshift({ kind: "note", note });
      this.#noteRetry = this.#tools.loop.wakeAfter(NOTE_AGAIN_AFTER, () => {
        this.#noteRetry = undefined;
        this.#work();
      });
      this.#tellWaiting(message);
    }
  }

  #tellWaiting(why: string | undefined): void {
    if (this.#whyWaiting === why) return;
    this.#whyWaiting = why;
    this.#handlers.onProgress();
  }

  /** It is to be removed, and nothing of it is on the disk that a next worker would find. */
  #isForgottenAnyway(note: Note): boolean {
    const isLeaving = note.wanted === "absent" || this.#queue.some(isFarewell);
    return isLeaving && !this.#tools.folders.hasRecord(this.name);
  }

  /** To whom it was given: in the same write as the note, and until it is taken back. */
  #givenWith({ stage, migration, wanted }: Note): MachineRecord["given"] {
    const { given } = this.#record;
    if (stage !== "given") return wanted === "absent" ? given : undefined;
    const to = this.#tools.migrations.destinationOf(migration ?? "") ?? "another host";
    return given ?? { to, time: wallClock() };
  }

  #perform(effect: Exclude<MachineEffect, { kind: "note" }>): void {
    switch (effect.kind) {
      case "prepare":
        void this.#prepare(effect.invocation);
        return;
      case "abandon":
        this.#preparing?.abort();
        return;
      case "connect-network":
        this.#tools.confiners.anticipate();
        void this.#connectNetwork(effect.invocation);
        return;
      case "forget-capture":
        void this.#forget(effect.capture);
        return;
      case "discard":
        void this.#discard();
        return;
      case "abandon-send":
        this.#tools.migrations.abandon(effect.migration, "it is not wanted any more");
        return;
      case "hand-over":
        this.#tools.migrations.handOver(effect.migration, this.name, effect.wanted);
        return;
      case "confirm":
        this.#tools.migrations.confirm(effect.migration, effect.what);
        return;
      case "record":
        if (effect.entry.what === "guest-reset") this.#listenAnew();
        this.#handlers.onHistory(effect.entry);
        return;
      default:
        if (effect.kind === "boot") this.health.listenAnew();
        this.#vmm.perform(effect);
    }
  }

  async #prepare(invocation: string): Promise<void> {
    const controller = new AbortController();
    this.#preparing = controller;
    try {
      const parts = await this.#tools.preparation.prepare(this.#record, {
        signal: controller.signal,
        onProgress: (progress) => {
          this.#progress = progress;
          this.#handlers.onProgress();
        },
      });
      this.#parts = parts;
      this.#record = { ...this.#record, image: parts.image };
      this.health.declare(this.#checksOf(this.#record.spec));
      for (const warning of parts.warnings) {
        this.#tools.onTrouble(`${this.name}: ${warning}`);
      }
      this.#tell({ kind: "prepared", invocation });
    } catch (error) {
      const isAbandoned = controller.signal.aborted;
      const refusal = lastingRefusal(error);
      this.#tell({
        kind: "prepare-refused",
        invocation,
        refusal: isAbandoned ? { ...refusal, code: "ECANCELED", lasts: false } : refusal,
      });
    } finally {
      this.#preparing = undefined;
      this.#progress = undefined;
    }
  }

  async #forget(capture: string): Promise<void> {
    await this.#tools.captures.forget(capture);
    this.#later({ kind: "forgotten", capture });
  }

  async #connectNetwork(invocation: string): Promise<void> {
    try {
      await this.#tools.network.connect(this.#record);
      this.#tell({ kind: "network-ready", invocation });
    } catch (error) {
      this.#tell({ kind: "network-refused", invocation, refusal: refusalOf(error) });
    }
  }

  async #discard(): Promise<void> {
    try {
      await this.#vmm.alone();
      this.#vmm.removeFiles();
      await this.#tools.network.disconnect(this.name);
      passStep("discard:network");
      const { given, owner } = this.#record;
      // What is declared would make it anew, once there is nothing of it.
      if (given !== undefined && owner === "declared") this.#tools.noteGiven(this.name, given);
      this.#removeFolder();
      // What is heard of it from now on, as of a capture that is forgotten, is noted nowhere.
      this.#hasNoFolder = true;
      passStep("discard:files");
      await this.#tools.preparation.forget(this.#record);
      this.#tell({ kind: "discarded" });
    } catch (error) {
      this.#tell({ kind: "discard-refused", refusal: refusalOf(error) });
    }
  }

  /** Disks that another worker was given since are its own: they are left where they are. */
  #removeFolder(): void {
    const { folders, onTrouble } = this.#tools;
    const generation = this.#record.assigned?.owner_generation ?? 0;
    const disks = folders.disksOf(this.name);
    if (removeDisks(disks, generation)) folders.remove(this.name);
    else {
      folders.removeAllBut(this.name, "disks");
      onTrouble(`${this.name}: its disks are another worker's by now, and stay at ${disks}`);
    }
  }

  /** After what is being performed: an event in the middle would be decided out of order. */
  #later(event: MachineEvent): void {
    this.#tools.loop.afterTurn(() => this.#tell(event));
  }

  #tell(event: MachineEvent): void {
    if (!this.#isDisposed) this.#handlers.onEvent(event);
  }

  /** Lets go of everything; a VMM lives on. */
  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#noteRetry?.[Symbol.dispose]();
    this.#preparing?.abort();
    this.health[Symbol.dispose]();
    this.#vmm[Symbol.dispose]();
  }
}
