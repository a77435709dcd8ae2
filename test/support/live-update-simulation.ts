/**
 * A deterministic simulation of luod's decisions: a kernel, a holder and clients that get lost, are
 * late and refuse, luods that are killed between two effects, kexecs that return and that do not.
 * The same seed gives the same run. What must always be so is checked after every event.
 */
import { type Handlers, handlers, nextDeadline, step } from "../../src/live-update/lifecycle.ts";
import {
  preservedBy,
  restoredEvent,
  type SavedDecisions,
  savedDecisions,
} from "../../src/live-update/lifecycle-saved.ts";
import {
  type DaemonEffect,
  type DaemonEvent,
  type DaemonState,
  initialState,
  type Update,
} from "../../src/live-update/lifecycle-state.ts";
import { refuseUpdate } from "../../src/live-update/lifecycle-update.ts";
import { COMMITTING, OWN_SESSION } from "../../src/live-update/protocol.ts";
import { SeededChance } from "./chance.ts";
import { ClientActor } from "./live-update-actor.ts";
import { ours, type WorldClient, WorldKernel } from "./live-update-world.ts";
import { Agenda } from "./simulation/agenda.ts";

export interface SimulationOptions {
  readonly seed: number;
  /** Other decisions, to prove that the simulation notices. */
  readonly handlers?: Handlers;
  /** Effects that are not carried out. */
  readonly omits?: DaemonEffect["kind"];
}

export interface SimulationResult {
  events: number;
  kexecs: number;
  refused: number;
  aborted: number;
  crashes: number;
  claims: number;
}

const TROUBLE_TIME = 60_000;
const EVENTS_LIMIT = 100_000;
const TRACE_LENGTH = 120;

/** Runs one seed. @throws Error with the seed and what happened last, when something is broken. */
export function simulate(options: SimulationOptions): SimulationResult {
  const simulation = new Simulation(options);
  try {
    return simulation.run();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const trace = simulation.trace.slice(-TRACE_LENGTH).join("\n");
    const replay = `SIMULATION_SEED=${options.seed} replays it`;
    throw new Error(`${reason}\n${trace}\nseed ${options.seed}: ${reason}; ${replay}`, {
      cause: error,
    });
  }
}

/** The daemon is killed here. */
class Crash extends Error {}

/** What the registry's session has in it. */
type WorldRegistry = ReturnType<typeof preservedBy> & { readonly update: string };

export class Simulation {
  readonly trace: string[] = [];
  readonly chance: SeededChance;
  readonly agenda = new Agenda(5_000);
  readonly kernel = new WorldKernel();
  readonly clients: readonly WorldClient[];
  readonly result: SimulationResult;
  readonly #actor: ClientActor;
  readonly #options: SimulationOptions;
  readonly #unclaimedTime: number | undefined;
  /** How likely each trouble is; 0 in a kind world. */
  trouble: number;
  #state: DaemonState = initialState;
  #saved: SavedDecisions | undefined;
  #registry: WorldRegistry | undefined;
  /** Preserved in the session of the daemon's own. */
  #written: WorldRegistry | undefined;
  #queue: DaemonEvent[] = [];
  #isDeciding = false;
  #isDying = false;
  #isTakenBack = false;
  /** Grows with each daemon: what an older one asked for is answered to nobody. */
  #generation = 0;
  /** Requests to the holder that are under way. */
  readonly #pending = new Set<() => void>();
  readonly #leftOutSaid = new Set<string>();
  #committed: string | undefined;
  #ended: string | undefined;
  #updates = 0;
  #plannedDeadline: number | undefined;

  constructor(options: SimulationOptions) {
    this.#options = options;
    this.chance = new SeededChance(options.seed);
    this.trouble = this.chance.pick([0.02, 0.1, 0.25]);
    this.#unclaimedTime = this.chance.pick([undefined, undefined, 4_000]);
    this.#actor = new ClientActor(this);
    this.clients = this.#actor.make();
    this.result = { events: 0, kexecs: 0, refused: 0, aborted: 0, crashes: 0, claims: 0 };
  }

  get state(): DaemonState {
    return this.#state;
  }

  /** Sessions that are finished by the clock are nobody's any more. */
  get forgets(): boolean {
    return this.#unclaimedTime !== undefined;
  }

  run(): SimulationResult {
    this.#boot();
    this.#operate();
    this.#runUntil(() => this.agenda.now >= TROUBLE_TIME);
    this.note("the world becomes kind");
    this.trouble = 0;
    this.#runUntil(() => false);
    this.#settleAll();
    const before = this.result.kexecs;
    if (!this.#order(false)) throw new Error("an update is refused when all is well");
    this.#runUntil(() => false);
    if (this.result.kexecs !== before + 1) throw new Error("the last update reached no new kernel");
    this.#settleAll();
    return this.result;
  }

  note(line: string): void {
    this.trace.push(`${this.agenda.now} ${line}`);
    if (this.trace.length > 4 * TRACE_LENGTH) this.trace.splice(0, 2 * TRACE_LENGTH);
  }

  #runUntil(isOver: () => boolean): void {
    while (!isOver() && this.agenda.advance()) {
      this.result.events += 1;
      if (this.result.events > EVENTS_LIMIT) throw new Error("it does not come to rest");
      this.#requireInvariants();
    }
  }

  /** Everything was claimed; the operator finishes what bare clients cannot. */
  #settleAll(): void {
    for (const { id, owed } of this.clients) {
      if (owed.size > 0) throw new Error(`${id} was ready, and cannot claim ${[...owed.keys()]}`);
    }
    for (const { id } of this.clients) this.handle({ kind: "operator-finishes", id });
    this.#runUntil(() => false);
    const { incoming } = this.kernel;
    if (incoming.size > 0) throw new Error(`${[...incoming.keys()]} came, and stay for ever`);
    if (this.#state.update !== undefined) throw new Error("an update does not end");
    if (this.#state.registryHeld) throw new Error("the registry is held for ever");
    for (const { connection, known, id } of this.clients) {
      if (connection === undefined || known !== undefined) throw new Error(`${id} waits for ever`);
      const [unfinished] = connection.finishing;
      if (unfinished !== undefined) throw new Error(`${id} waits for the end of ${unfinished}`);
      if (!this.#state.subscriptions.has(id)) throw new Error(`${id} is not subscribed`);
    }
  }

  #boot(): void {
    this.#generation += 1;
    this.note(`daemon ${this.#generation}`);
    this.#queue = [];
    this.#isTakenBack = false;
    this.#plannedDeadline = undefined;
    const { last, given = [] } = this.#saved ?? {};
    this.#state = { ...initialState, last: last ?? undefined, given };
    const saved = this.#saved ?? { settled: [], finishing: [] };
    const names = [...this.kernel.incoming.keys()];
    const held = this.kernel.incoming.get(OWN_SESSION);
    held?.holders.add(ours);
    this.handle(
      restoredEvent(this.#registry, {
        saved,
        retrieved: new Set(names.filter((name) => this.kernel.retrieved(name))),
        registryHeld: held !== undefined,
        offeredAt: undefined,
        unreadable: undefined,
      }),
    );
    this.handle({ kind: "kernel", loaded: true, device: true });
    const sessions = this.kernel.open;
    const update = this.#saved?.update ?? null;
    this.#isTakenBack = true;
    if (sessions.length > 0 || update !== null) {
      this.handle({ kind: "left-behind", update: update ?? "unknown", sessions });
    }
    this.#actor.begin();
  }

  /** It hears nothing any more. */
  get isDying(): boolean {
    return this.#isDying;
  }

  handle(event: DaemonEvent): void {
    if (this.#isDying) return;
    this.#queue.push(event);
    if (this.#isDeciding) return;
    this.#isDeciding = true;
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        this.#decide(next);
      }
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
      this.#isDying = true;
      this.agenda.after(0, () => this.#crash());
    } finally {
      this.#isDeciding = false;
    }
    this.#planDeadline();
  }

  #decide(event: DaemonEvent): void {
    const context = {
      now: this.agenda.now,
      nextUpdate: `u${this.#updates + 1}`,
      unclaimedTime: this.#unclaimedTime,
    };
    const before = this.#state.update?.id;
    const { state, effects } = step(
      this.#state,
      event,
      context,
      this.#options.handlers ?? handlers,
    );
    this.#state = state;
    if (state.update !== undefined && state.update.id !== before) this.#updates += 1;
    this.note(`${describe(event)} → ${state.update?.phase ?? "-"}`);
    const decided = savedDecisions(state, this.#registry);
    const kept = this.#isTakenBack ? {} : { update: this.#saved?.update ?? null };
    this.#saved = { ...decided, ...kept };
    for (const effect of effects) {
      if (this.chance.happens(this.trouble / 100)) throw new Crash();
      if (effect.kind !== this.#options.omits) this.#perform(effect);
    }
    const isOver = before !== undefined && state.update?.id !== before;
    if (isOver && this.#ended !== before) throw new Error(`nobody was told that ${before} ended`);
  }

  #crash(): void {
    this.result.crashes += 1;
    this.#isDying = false;
    this.note("luod is killed");
    // The holder has done what it was asked for, or forgets it with the connection.
    const pending = [...this.#pending];
    this.#pending.clear();
    this.#generation += 1;
    for (const act of pending) if (this.chance.happens(0.5)) act();
    this.#actor.allCut();
    this.#boot();
  }

  /** Like a timer that is set anew after each decision. */
  #planDeadline(): void {
    const deadline = nextDeadline(this.#state);
    if (deadline === undefined || deadline === this.#plannedDeadline) return;
    this.#plannedDeadline = deadline;
    const generation = this.#generation;
    this.agenda.after(Math.max(0, deadline - this.agenda.now), () => {
      if (this.#plannedDeadline !== deadline || generation !== this.#generation) return;
      this.#plannedDeadline = undefined;
      this.handle({ kind: "time" });
      const next = nextDeadline(this.#state);
      if (generation === this.#generation && next !== undefined && next <= this.agenda.now) {
        throw new Error("a deadline stays");
      }
    });
  }

  /** After a while does something at the holder, and tells the daemon that asked for it. */
  #later(act: () => DaemonEvent | undefined): void {
    const generation = this.#generation;
    const whole = () => {
      const event = act();
      if (event !== undefined && generation === this.#generation) this.handle(event);
    };
    this.#pending.add(whole);
    this.agenda.after(1 + this.chance.below(40), () => {
      if (this.#pending.delete(whole)) whole();
    });
  }

  #perform(effect: DaemonEffect): void {
    switch (effect.kind) {
      case "create-session":
        this.#create(effect.session);
        break;
      case "drop-session":
        this.#later(() => {
          this.kernel.close(this.kernel.outgoing, effect.session, ours);
          return { kind: "session-dropped", session: effect.session };
        });
        break;
      case "preserve-registry":
        this.#preserveRegistry();
        break;
      case "prepare-kexec":
        this.#prepare(effect.update);
        break;
      case "enter-kernel":
        this.#enter();
        break;
      case "retrieve-session":
        this.#retrieve(effect.session);
        break;
      case "finish-session":
        this.#finish(effect.session, true);
        break;
      case "release-registry":
        this.#finish(OWN_SESSION, false);
        break;
      case "send":
        this.#actor.sent(effect);
        break;
      case "hang-up":
        this.#actor.hungUp(effect.connection);
        break;
      case "end-update":
        this.note(`ended: ${effect.outcome}, ${effect.reason}`);
        this.#ended = effect.update.id;
        this.#requireTold(effect.update);
        if (effect.outcome === "aborted") this.result.aborted += 1;
        break;
      case "record":
        if (effect.entry.what === "left-out") this.#leftOutSaid.add(effect.entry.client ?? "");
        if (effect.entry.what === COMMITTING) this.#committed = effect.entry.update;
        break;
    }
  }

  #refusal(): { readonly code: string; readonly message: string } | undefined {
    if (!this.chance.happens(this.trouble)) return undefined;
    return { code: this.chance.pick(["EBUSY", "ENOMEM"]), message: "refused" };
  }

  #create(session: string): void {
    this.#later(() => {
      const refusal = this.#refusal();
      if (refusal !== undefined) return { kind: "session-refused", session, refusal };
      if (this.kernel.create(session)) return { kind: "session-created", session };
      const taken = { code: "EEXIST", message: "taken" };
      return { kind: "session-refused", session, refusal: taken };
    });
  }

  #preserveRegistry(): void {
    this.#later(() => {
      const refusal = this.#refusal();
      if (refusal !== undefined) return { kind: "registry-refused", refusal };
      if (!this.kernel.create(OWN_SESSION))
        throw new Error("the daemon's own session is left over");
      return { kind: "session-created", session: OWN_SESSION };
    });
    this.#later(() => this.#writeRegistry());
  }

  /** Both answers come one after the other: here the second may have to wait for the first. */
  #writeRegistry(): DaemonEvent | undefined {
    const { update } = this.#state;
    if (update?.commit !== "registry") return undefined;
    const stage = update.outgoing.get(OWN_SESSION);
    if (stage === "creating") {
      this.#later(() => this.#writeRegistry());
      return undefined;
    }
    if (stage !== "open") return undefined;
    const refusal = this.#refusal();
    if (refusal !== undefined) return { kind: "registry-refused", refusal };
    this.#written = { update: update.id, ...preservedBy(update, this.#state.given) };
    return { kind: "registry-preserved" };
  }

  /** Hooks may take longer than the update. */
  #prepare(update: string): void {
    const fails = this.chance.happens(this.trouble);
    const generation = this.#generation;
    this.agenda.after(this.chance.below(3_000), () => {
      if (generation !== this.#generation) return;
      this.handle(
        fails
          ? { kind: "preparation-failed", update, reason: "a hook failed" }
          : { kind: "prepared", update },
      );
    });
  }

  #enter(): void {
    const { update } = this.#state;
    if (update?.commit !== "kernel") throw new Error("the kernel is entered without an update");
    this.#requireWhole(update);
    const generation = this.#generation;
    this.agenda.after(this.chance.below(100), () => {
      if (generation !== this.#generation) return;
      if (this.chance.happens(this.trouble * 2)) {
        this.result.refused += 1;
        const refusal = { code: "EBUSY", message: "a handler fails" };
        this.handle({ kind: "kernel-refused", refusal });
      } else this.#kexec(update);
    });
  }

  #kexec(update: Update): void {
    this.note("a new kernel");
    this.result.kexecs += 1;
    this.#actor.promise(update);
    this.#pending.clear();
    this.kernel.replace();
    if (this.#written?.update !== update.id) throw new Error("the registry is of another update");
    this.#registry = this.#written;
    this.#written = undefined;
    this.#saved = undefined;
    this.#leftOutSaid.clear();
    this.#boot();
  }

  #retrieve(session: string): void {
    this.#later(() => {
      const found = this.kernel.incoming.get(session);
      if (found === undefined) {
        const refusal = { code: "ENOENT", message: "it did not come" };
        return { kind: "retrieve-refused", session, refusal };
      }
      const refusal = found.holders.has(ours) ? undefined : this.#refusal();
      if (refusal !== undefined) return { kind: "retrieve-refused", session, refusal };
      found.holders.add(ours);
      return { kind: "retrieved", session };
    });
  }

  #finish(session: string, isTold: boolean): void {
    this.#later(() => {
      this.kernel.incoming.delete(session);
      return isTold ? { kind: "session-finished", session } : undefined;
    });
  }

  /** Whoever is in it has preserved, and who is not has nothing open with us, and it was said. */
  #requireWhole(update: Update): void {
    if (this.#committed !== update.id) throw new Error("nobody was told of the commit");
    for (const { stage, subscription } of update.participants.values()) {
      for (const name of subscription.sessions) {
        const session = this.kernel.outgoing.get(name);
        const isOurs = session?.holders.has(ours) === true;
        if (stage === "ready" && (!isOurs || session?.content === undefined)) {
          throw new Error(`${name} is not preserved at the commit`);
        }
        if (stage !== "ready" && isOurs) throw new Error(`${name} was left out, and is open`);
      }
      if (stage === "left-out" && !this.#leftOutSaid.has(subscription.id)) {
        throw new Error(`nobody was told that ${subscription.id} is left out`);
      }
    }
  }

  /** An update that is over is over for everybody. */
  #requireTold(update: Update): void {
    for (const { id, connection } of this.clients) {
      if (connection?.begun === update.id && !connection.aborted.has(update.id)) {
        throw new Error(`${id} was not told that ${update.id} is over`);
      }
    }
  }

  #requireInvariants(): void {
    if (this.#isDying) return;
    const { open } = this.kernel;
    if (this.#state.update === undefined && open.length > 0) {
      throw new Error(`${open} stay open without an update`);
    }
    for (const { id, connection } of this.clients) {
      const requests = [...(connection?.unanswered.values() ?? [])];
      if (requests.includes("other")) throw new Error(`${id} was not answered`);
      if (connection?.mustEnd === true) throw new Error(`${id} does not know that it was refused`);
    }
    this.#requireKnown();
  }

  /** What the daemon says that it has, it has. */
  #requireKnown(): void {
    for (const [name, stage] of this.#state.update?.outgoing ?? []) {
      const isOpen = this.kernel.outgoing.get(name)?.holders.has(ours) === true;
      if (stage === "open" && !isOpen) throw new Error(`${name} is closed, and said to be open`);
    }
    for (const { name, stage } of this.#state.incoming.values()) {
      const isOpen = this.kernel.retrieved(name);
      if (stage === "claimed" && !isOpen) throw new Error(`${name} is closed, and claimed`);
    }
  }

  #abort(): void {
    const { update } = this.#state;
    this.handle({ kind: "operator-aborts", reason: "said so" });
    const isLate = update === undefined || update.commit === "kernel";
    const phase = this.#state.update?.id === update?.id ? this.#state.update?.phase : undefined;
    if (!isLate && !this.#isDying && phase !== undefined && phase !== "aborting") {
      throw new Error("an update goes on that the operator has aborted");
    }
  }

  /** For a while the daemon can write nothing of what it decides. */
  #fillDisk(): void {
    const { update } = this.#state;
    const isLate = update?.commit === "kernel";
    const generation = this.#generation;
    this.handle({ kind: "state-file", problem: "no room" });
    const now = this.#state.update;
    const goesOn = now !== undefined && now.id === update?.id && now.phase !== "aborting";
    if (goesOn && !isLate && !this.#isDying) throw new Error("an update goes on that is not saved");
    if (!this.#isDying && this.#order(true)) throw new Error("an update begins that is not saved");
    this.agenda.after(this.chance.below(500) + 1, () => {
      if (generation === this.#generation) this.handle({ kind: "state-file", problem: undefined });
    });
  }

  /** @returns false when it is refused */
  #order(dryRun: boolean): boolean {
    const order = { dryRun, includeBare: this.chance.happens(0.5), discardUnclaimed: false };
    if (refuseUpdate(this.#state, order) !== undefined) return false;
    this.handle({ kind: "update", order });
    return true;
  }

  #operate(): void {
    this.agenda.after(this.chance.below(3_000) + 1, () => {
      if (this.trouble === 0) return;
      const what = this.chance.random();
      if (what < this.trouble) this.#abort();
      else if (what < 2 * this.trouble) this.#crash();
      else if (what < 3 * this.trouble) this.#fillDisk();
      else this.#order(this.chance.happens(0.2));
      this.#operate();
    });
  }
}

function describe(event: DaemonEvent): string {
  return JSON.stringify(event, (key, value) => (key === "subscription" ? value.id : value));
}
