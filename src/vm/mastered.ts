import { randomBytes } from "node:crypto";
import { bootClockNow, monotonicNow, wallClock } from "../event-loop/clock.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import type { Milliseconds } from "../units/units.ts";
import { hostlerVersion } from "../units/version.ts";
import type { DesiredState } from "./desired-state.ts";
import {
  type AssignmentEvent,
  type AssignmentState,
  desiredBy,
  type Holding,
  holdsOf,
  noAssignment,
  placeOf,
  stepAssignment,
} from "./lifecycle-assignment.ts";
import {
  initialLease,
  isHeard,
  type LeaseEffect,
  type LeaseEvent,
  type LeaseState,
  leaseDeadline,
  mayRunFenced,
  reportedTimeout,
  stepLease,
} from "./lifecycle-lease.ts";
import {
  type LinkEffect,
  type LinkEvent,
  type LinkState,
  linkDeadline,
  stepLink,
} from "./lifecycle-link.ts";
import type { Assigned } from "./machine-record.ts";
import { AssignmentFile } from "./perform/assignment-file.ts";
import { passStep } from "./perform/kill-points.ts";
import { LeaseFile } from "./perform/lease-file.ts";
import { MasterLink, type MasterSession } from "./perform/master-link.ts";
import { HeldWatchdog } from "./perform/watchdog.ts";
import type { MasterStatus } from "./protocol.ts";
import type { HeldMachine, ReportReply, Resources } from "./protocol-master.ts";
import { type Desired, type Hold, mayHaveVmm } from "./reconcile.ts";
import { type MachineFacts, makeReport } from "./report.ts";
import type { MasterConfiguration } from "./worker-configuration.ts";

/** What following a master needs of the worker. */
export interface MasteredWorker {
  readonly loop: EventLoop;
  readonly desired: DesiredState;
  readonly artifactsFolder: string;
  readonly runFolder: string;
  /** random(4), boot_id */
  readonly boot: string;
  readonly resources: Resources;
  holdings(): readonly (Holding & { readonly phase: MachineFacts["phase"] })[];
  /** A record is not understood: whose machine it is, and whether it runs, nobody knows. */
  readonly hasUnknown: boolean;
  /** Notes what a master gave a machine with. @throws Error (ENOSPC …) */
  assign(name: string, assigned: Assigned): void;
  /** Ends its VMM at once. */
  kill(name: string): void;
  facts(): readonly MachineFacts[];
  /** Looks at what the machines use, for the facts of later. */
  measure(time: string): void;
  onTurn(call: () => void): Disposable;
  say(level: "info" | "warn", message: string): void;
}

/** A last report, which says that the watchdog is going to be disarmed, is waited for so long. */
const FAREWELL_TIME: Milliseconds = 5_000;

const nothing: Desired = { generation: 0, machines: [], removals: new Map() };

/** Follows a master: asks what to have, reports what there is, and holds the lease. */
export class Mastered implements Disposable {
  readonly #worker: MasteredWorker;
  readonly #configuration: MasterConfiguration;
  readonly #assignmentFile: AssignmentFile;
  readonly #leaseFile: LeaseFile;
  readonly #masterLink: MasterLink;
  readonly #run = randomBytes(16).toString("hex");
  #sequence = 0;
  #assignment: AssignmentState = noAssignment;
  #desired: Desired = nothing;
  #holds: ReadonlyMap<string, Hold> = new Map();
  #unknown: readonly HeldMachine[] = [];
  /** Why the last report was heard, and not answered; undefined for one that was. */
  #unanswered: string | undefined;
  #lease: LeaseState = initialLease;
  #watchdog: HeldWatchdog | undefined;
  #link: LinkState = { phase: "closed" };
  #session: MasterSession | undefined;
  /** Of the session that is open or being opened. */
  #closing = new AbortController();
  #told = "";
  #farewell: PromiseWithResolvers<void> | undefined;
  #address: string | undefined;
  readonly #timers = new Map<
    "lease" | "link",
    { readonly at: number; readonly wake: Disposable }
  >();
  #turn: Disposable | undefined;

  constructor(configuration: MasterConfiguration, worker: MasteredWorker) {
    this.#configuration = configuration;
    this.#worker = worker;
    this.#assignmentFile = new AssignmentFile(worker.artifactsFolder);
    this.#leaseFile = new LeaseFile(worker.runFolder, worker.boot);
    const warn = (message: string) => worker.say("warn", message);
    this.#masterLink = new MasterLink(configuration, warn);
    const found = this.#assignmentFile.read();
    if (typeof found === "string") {
      warn(`${this.#assignmentFile.path} is not understood, and nothing is assigned: ${found}`);
    } else this.#assignment = found;
    this.#desired = desiredBy(this.#assignment) ?? nothing;
    const wanted = configuration.watchdog?.device;
    this.#stepLease({ kind: "begun", wanted, note: this.#leaseFile.read() });
  }

  /** Machines that may not run by what the last worker knew, and why. */
  heldNow(): ReadonlyMap<string, string> {
    const holds = [...this.#holdsNow()].filter(([, { kind }]) => kind === "ends");
    return new Map(holds.map(([name, { reason }]) => [name, reason]));
  }

  /** Why a VMM of it may not be started now; undefined where it may. */
  whyNotStarted(name: string): string | undefined {
    return this.#holdsNow().get(name)?.reason;
  }

  /** When all machines were taken up. */
  begin(): void {
    this.#follow();
    this.#turn = this.#worker.onTurn(() => this.#look());
    this.#stepLink({ kind: "begin" });
    this.#look();
  }

  /** Before the worker ends: its machines run on, so that its watchdog must not fire. */
  async end(): Promise<void> {
    const { state } = this.#stepLease({ kind: "ending" });
    const isEnding = state.watchdog.phase === "armed" && state.watchdog.isEnding;
    if (isEnding && this.#link.phase === "open") {
      this.#farewell = Promise.withResolvers();
      const late = this.#worker.loop.wakeAfter(FAREWELL_TIME, () => this.#farewell?.resolve());
      this.#stepLink({ kind: "changed" });
      await this.#farewell.promise;
      late[Symbol.dispose]();
    }
    this.#stepLink({ kind: "end" });
    this.#leaveWatchdog();
  }

  /** One that a master may still count on: it goes on counting while anything is at stake. */
  #leaveWatchdog(): void {
    const { watchdog } = this.#lease;
    if (watchdog.phase !== "armed" || this.#watchdog === undefined) return;
    const isAtStake = this.#isAtStake();
    if (isAtStake || !watchdog.canStop) {
      const seconds = Math.round(watchdog.timeout / 1000);
      const why = watchdog.canStop
        ? "the master has not heard that it is to be disarmed, and may give machines to others"
        : "it was made never to stop (nowayout)";
      const reset = `this host is RESET within ${seconds} s unless a worker is started`;
      this.#worker.say("warn", `${this.#lease.device}: ${why}: ${reset}`);
      return;
    }
    // Nothing runs; the next worker reads that a master counts on it, and starts nothing unheard.
    this.#watchdog.disarm();
    this.#watchdog = undefined;
  }

  status(): MasterStatus {
    const link = this.#link;
    const place = placeOf(this.#assignment);
    const { watchdog, device, heardAt } = this.#lease;
    return {
      address: this.#address ?? this.#configuration.address ?? null,
      state: link.phase === "open" ? "connected" : "disconnected",
      since_ms: link.phase === "closed" ? null : Math.round(monotonicNow() - link.since),
      reason: this.#whyNotAnswered() ?? null,
      generation: place?.generation ?? null,
      revision: place?.revision ?? null,
      heard_ms: heardAt === undefined ? null : Math.round(bootClockNow() - heardAt),
      watchdog:
        device === undefined
          ? null
          : { device, phase: watchdog.phase, timeout_ms: this.#watchdog?.timeout ?? null },
      held: [...this.#holds].map(([name, { reason }]) => ({ name, reason })),
      unmade: this.#worker.desired.unmade.map(({ name, reason }) => ({ name, reason })),
      unknown: this.#unknown.map(({ name }) => name),
    };
  }

  #whyNotAnswered(): string | undefined {
    const link = this.#link;
    if (link.phase === "open") return this.#unanswered;
    return link.phase === "closed" ? undefined : link.reason;
  }

  #holdsNow(): Map<string, Hold> {
    const now = bootClockNow();
    return holdsOf(this.#assignment, this.#holdings(), {
      isHeard: isHeard(this.#lease),
      mayRunFenced: mayRunFenced(this.#lease, now),
    });
  }

  #isAtStake(): boolean {
    if (this.#worker.hasUnknown) return true;
    return this.#holdings().some(
      ({ assigned, phase }) => assigned?.fencing === "watchdog" && mayHaveVmm(phase),
    );
  }

  /** What the assignment says of a machine counts, also where its record found no room for it. */
  #holdings(): ReturnType<MasteredWorker["holdings"]> {
    const { machines } = this.#desired;
    const given = new Map(machines.map(({ spec, assigned }) => [spec.name, assigned]));
    return this.#worker.holdings().map((holding) => {
      const assigned = given.get(holding.name);
      const isSame = assigned?.owner_generation === holding.assigned?.owner_generation;
      return assigned !== undefined && isSame ? { ...holding, assigned } : holding;
    });
  }

  /** Something happened, or time has passed. */
  #look(): void {
    this.#stepLease({ kind: "look" });
    const holds = this.#holdsNow();
    if (!isSame(holds, this.#holds)) this.#follow(holds);
    // A machine that has no VMM any more gives the watchdog back.
    this.#stepLease({ kind: "look" });
    const told = JSON.stringify(
      this.#worker.facts().map(({ name, phase, standing }) => [name, phase, standing?.status]),
    );
    if (told === this.#told) return;
    this.#told = told;
    this.#stepLink({ kind: "changed" });
  }

  #follow(holds: ReadonlyMap<string, Hold> = this.#holdsNow()): void {
    this.#holds = holds;
    this.#noteAssigned();
    this.#worker.desired.follow(this.#desired, holds);
  }

  /** What a machine is held with may change while it is held under the same owner generation. */
  #noteAssigned(): void {
    const held = new Map(this.#worker.holdings().map((one) => [one.name, one.assigned]));
    for (const { spec, assigned } of this.#desired.machines) {
      const before = held.get(spec.name);
      if (assigned === undefined || before?.owner_generation !== assigned.owner_generation)
        continue;
      if (before.movable === assigned.movable && before.fencing === assigned.fencing) continue;
      try {
        this.#worker.assign(spec.name, assigned);
      } catch (error) {
        this.#worker.say("warn", `${spec.name}: as assigned: ${wordsOf(error)}`);
      }
    }
  }

  // The assignment.

  /** What could not be kept is not followed: it is asked for again. */
  #stepAssignment(event: AssignmentEvent): void {
    const { state, effects } = stepAssignment(this.#assignment, event);
    for (const effect of effects) {
      switch (effect.kind) {
        case "end":
          for (const name of effect.names) {
            this.#worker.say("warn", `${name}: it is another worker's by now: its VMM is ended`);
            this.#worker.kill(name);
          }
          passStep("held:ended");
          // Whether or not it can be kept: it may not be started again.
          this.#assignment = state;
          break;
        case "keep":
          if (!this.#keep(state) && event.kind === "answered") return;
          break;
        case "follow":
          this.#assignment = state;
          this.#desired = desiredBy(state) ?? nothing;
          this.#follow();
          break;
        case "dropped":
          this.#worker.say("warn", `an assignment was dropped: ${effect.reason}`);
          break;
      }
    }
  }

  #keep(state: AssignmentState): boolean {
    try {
      this.#assignmentFile.write(state);
      return true;
    } catch (error) {
      const { path } = this.#assignmentFile;
      this.#worker.say("warn", `what the master says cannot be kept in ${path}: ${wordsOf(error)}`);
      return false;
    }
  }

  // The lease.

  #stepLease(event: LeaseEvent) {
    const context = { now: bootClockNow(), isAtStake: this.#isAtStake() };
    const outcome = stepLease(this.#lease, event, context);
    this.#lease = outcome.state;
    for (const effect of outcome.effects) if (!this.#performLease(effect)) break;
    const deadline = leaseDeadline(this.#lease, { ...context, now: bootClockNow() });
    const at = deadline === undefined ? undefined : deadline - bootClockNow() + monotonicNow();
    this.#setTimer("lease", at, () => this.#look());
    return outcome;
  }

  /** @returns false where what follows must not be done */
  #performLease(effect: LeaseEffect): boolean {
    try {
      switch (effect.kind) {
        case "note":
          this.#leaseFile.write(effect.note);
          return true;
        case "arm":
          this.#arm(effect.device);
          return true;
        case "feed":
          this.#watchdog?.feed();
          return true;
        case "disarm":
          this.#watchdog?.disarm();
          this.#watchdog = undefined;
          this.#worker.say("info", "the watchdog is disarmed");
          return true;
      }
    } catch (error) {
      this.#worker.say("warn", `the lease: ${wordsOf(error)}`);
      if (effect.kind === "note") this.#later({ kind: "arm-refused" });
      if (effect.kind === "feed") {
        this.#watchdog?.[Symbol.dispose]();
        this.#watchdog = undefined;
        this.#later({ kind: "feed-refused" });
      }
      return false;
    }
  }

  #arm(device: string): void {
    const { watchdog } = this.#configuration;
    try {
      this.#watchdog = HeldWatchdog.arm(device, watchdog?.timeout ?? LONGEST_LEFT);
      const { timeout, canStop } = this.#watchdog;
      this.#worker.say("info", `the watchdog ${device} is armed: ${timeout / 1000} s`);
      this.#later({ kind: "armed", timeout, canStop });
    } catch (error) {
      const why = wordsOf(error);
      this.#worker.say(
        "warn",
        `master.watchdog: expected a watchdog that nobody else has open, received ${why}`,
      );
      this.#later({ kind: "arm-refused" });
    }
  }

  /** After what is being decided. */
  #later(event: LeaseEvent): void {
    this.#worker.loop.afterTurn(() => {
      this.#stepLease(event);
      if (event.kind === "armed") this.#stepLink({ kind: "changed" });
    });
  }

  // The link.

  #stepLink(event: LinkEvent): void {
    const { state, effects } = stepLink(this.#link, event, {
      now: monotonicNow(),
      random: Math.random(),
      reportEvery: this.#configuration.reportInterval,
    });
    this.#link = state;
    for (const effect of effects) this.#performLink(effect);
    this.#setTimer("link", linkDeadline(this.#link), () => this.#stepLink({ kind: "deadline" }));
  }

  #performLink(effect: LinkEffect): void {
    const { signal } = this.#closing;
    switch (effect.kind) {
      case "say":
        this.#worker.say(effect.level, effect.message);
        return;
      case "open":
        this.#during(signal, this.#open(signal));
        return;
      case "ask":
        this.#during(signal, this.#ask(signal));
        return;
      case "report":
        this.#during(signal, this.#report(signal));
        return;
      case "close":
        this.#closing.abort();
        this.#closing = new AbortController();
        this.#session = undefined;
        this.#farewell?.resolve();
        return;
    }
  }

  /** What fails after its session was closed is nobody's any more. */
  #during(signal: AbortSignal, call: Promise<void>): void {
    call.catch((error: unknown) => {
      if (!signal.aborted) this.#stepLink({ kind: "broken", reason: wordsOf(error) });
    });
  }

  async #open(signal: AbortSignal): Promise<void> {
    const session = await this.#masterLink.open();
    if (signal.aborted) return;
    this.#address = this.#masterLink.address;
    this.#session = session;
    this.#stepLink({ kind: "opened" });
  }

  async #ask(signal: AbortSignal): Promise<void> {
    const answer = await this.#session?.ask(placeOf(this.#assignment), signal);
    if (answer === undefined || signal.aborted) return;
    const held = new Set(this.#worker.holdings().map(({ name }) => name));
    this.#stepAssignment({ kind: "answered", answer, held });
    this.#stepLink({ kind: "assigned" });
  }

  async #report(signal: AbortSignal): Promise<void> {
    this.#worker.measure(wallClock());
    this.#sequence += 1;
    const watchdog = reportedTimeout(this.#lease) === null ? undefined : this.#watchdog?.reported;
    const { boot, resources } = this.#worker;
    const percent = this.#worker.desired.convergencePercent;
    const report = makeReport({
      boot,
      run: this.#run,
      sequence: this.#sequence,
      program: hostlerVersion,
      assignment: this.#assignment,
      convergencePercent: placeOf(this.#assignment) === null ? 0 : (percent ?? 0),
      total: resources,
      labels: this.#configuration.labels,
      watchdog: watchdog ?? null,
      machines: this.#worker.facts(),
    });
    const sentAt = bootClockNow();
    const answer = await this.#session?.report(report, signal);
    if (answer === undefined || signal.aborted) return;
    this.#hear(answer, { sentAt, saidNone: report.watchdog === null });
    await this.#session?.refresh();
  }

  #hear(answer: ReportReply, sent: { readonly sentAt: number; readonly saidNone: boolean }): void {
    const unanswered = answer.kind === "heard" ? answer.reason : undefined;
    if (unanswered !== undefined && unanswered !== this.#unanswered) {
      this.#worker.say("warn", `reports are heard, and not answered yet: ${unanswered}`);
    }
    this.#unanswered = unanswered;
    if (answer.kind === "heard") {
      // The next one goes out as after an answer; the lease, and what may run, wait for one.
      this.#stepLink({ kind: "reported" });
      return;
    }
    if (answer.stale.length > 0) this.#stepAssignment({ kind: "stale", machines: answer.stale });
    this.#unknown = answer.unknown;
    this.#stepLease({ kind: "answered", ...sent, leaseTime: answer.lease_ms });
    if (sent.saidNone && this.#lease.watchdog.phase !== "armed") this.#farewell?.resolve();
    this.#stepLink({ kind: "reported" });
    this.#look();
  }

  #setTimer(name: "lease" | "link", at: number | undefined, call: () => void): void {
    const before = this.#timers.get(name);
    if (before !== undefined && before.at === at) return;
    before?.wake[Symbol.dispose]();
    this.#timers.delete(name);
    if (at === undefined) return;
    const wake = this.#worker.loop.wakeAt(at, () => {
      this.#timers.delete(name);
      call();
    });
    this.#timers.set(name, { at, wake });
  }

  [Symbol.dispose](): void {
    this.#stepLink({ kind: "end" });
    this.#turn?.[Symbol.dispose]();
    for (const { wake } of this.#timers.values()) wake[Symbol.dispose]();
    // It counts on, as it does when this process is killed: the next worker takes it over.
    this.#watchdog?.[Symbol.dispose]();
  }
}

/** Of a watchdog that the configuration names no more, until it is disarmed. */
const LONGEST_LEFT: Milliseconds = 60_000;

const wordsOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

function isSame(one: ReadonlyMap<string, Hold>, other: ReadonlyMap<string, Hold>): boolean {
  if (one.size !== other.size) return false;
  return [...one].every(([name, { kind, reason }]) => {
    const found = other.get(name);
    return found?.kind === kind && found.reason === reason;
  });
}
