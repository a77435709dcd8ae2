import type { Inventory } from "../../hardware/inventory.ts";
import { ProblemError } from "../../http/problem.ts";
import type { Authenticated } from "../../http/request-handler.ts";
import { hashOf, isSameHash, newSecret, type Random } from "../../identity/secrets.ts";
import type { Logger } from "../../logging/logger.ts";
import type { Milliseconds } from "../../units/units.ts";
import {
  type ClaimAnswer,
  type Directive,
  HEARTBEAT_EVERY,
  LOG_EVERY,
  SENSORS_EVERY,
  vettingLimits,
} from "../protocol.ts";
import { apiLimits } from "../protocol-api.ts";
import { chainHash, chainStart } from "../protocol-chain.ts";
import type { HostView, LiveEvent, RunView } from "../protocol-operator.ts";
import type { Evidence } from "../protocol-result.ts";
import type { RuleFinding, Spec } from "../protocol-spec.ts";
import { BatchWriter, LATER } from "./batch.ts";
import { LiveEventBook } from "./event-book.ts";
import { newRun, step } from "./lifecycle.ts";
import type { Run, RunAnswer, RunContext, RunInput, RunStep } from "./lifecycle-state.ts";
import { type Presence, runView, unheard } from "./lifecycle-view.ts";
import type { HostRecord, RunRow, SpecRecord, VettingRecords } from "./records.ts";

export interface OrchestratorParts {
  readonly records: VettingRecords;
  /** Milliseconds since 1970, on a clock that never jumps while this process runs. */
  readonly now: () => Milliseconds;
  /** For people: RFC 3339 in UTC. */
  readonly time: (at?: Milliseconds) => string;
  readonly random: Random;
  readonly wakeAfter: (wait: Milliseconds, call: () => void) => Disposable;
  readonly logger: Pick<Logger, "info" | "warn">;
  readonly validate: (spec: Spec, inventory: Inventory) => readonly RuleFinding[];
  /** Where hosts reach the throughput test; null: there is none. */
  readonly networkTest: () => { readonly host: string; readonly port: number } | null;
  readonly version: string;
}

/** Beside the hosts that were taken in: those that asked for a boot script, and are not known. */
const UNKNOWN_HOSTS = 1_000;
/** Between two looks at what time has brought. */
const TICK: Milliseconds = 1_000;
/** An agent tells its log each LOG_EVERY: after so long its last lines about a run are there. */
const LAST_LINES_FOR: Milliseconds = 2 * LOG_EVERY + 1_000;
/** What was not heard for so long is told as silent: two heartbeats and the third are late. */
const SILENT_AFTER: Milliseconds = 30_000;
/** Lines of a host's log that tell how it died. */
const LAST_LINES = 60;

const tokenPattern = /^hostler-run-([bs])-([1-9]\d{0,14})-([\w-]{43})$/;
const tokenOf = (kind: "b" | "s", run: number, secret: string) =>
  `hostler-run-${kind}-${run}-${secret}`;

/** A run in memory: what it is, where its chain stands, and what ends with its session. */
interface Entry extends RunRow {
  readonly spec: Spec;
}

interface Gate {
  readonly hash: string;
  readonly controller: AbortController;
}

/** A MAC that may not boot into a run, and what there is to do. */
export interface BootRefusal {
  readonly reason: "unknown" | "not-enrolled" | "no-run" | "no-window" | "unavailable";
  readonly message: string;
}

/** All that an orchestrator knows; what is decided, the machine of a run decides. */
export class VettingOrchestrator {
  readonly book: LiveEventBook;
  readonly records: VettingRecords;
  readonly #parts: OrchestratorParts;
  readonly #batch: BatchWriter;
  readonly #hosts = new Map<string, HostRecord>();
  readonly #specs = new Map<string, SpecRecord>();
  readonly #entries = new Map<number, Entry>();
  /** The open run of each host. */
  readonly #open = new Map<string, number>();
  readonly #presences = new Map<number, Presence>();
  /** Runs that were told as silent. */
  readonly #silent = new Set<number>();
  readonly #sessions = new Map<number, Gate>();
  readonly #tokens = new Map<number, Gate>();
  /** Of runs that something is being written of. */
  readonly #pending = new Map<number, Promise<void>>();
  readonly #testSecret: string;
  #lastRun: number;
  #timer: Disposable | undefined;
  #isStopped = false;

  constructor(parts: OrchestratorParts) {
    this.#parts = parts;
    this.records = parts.records;
    this.book = new LiveEventBook(hashOf(parts.random(16)).slice(0, 16));
    this.#batch = new BatchWriter({
      transaction: (act) => parts.records.transaction(act),
      wakeAfter: parts.wakeAfter,
      onTold: (events) => this.book.add(events),
      onTrouble: (message) => parts.logger.warn(message),
    });
    for (const host of parts.records.hosts()) this.#hosts.set(host.mac, host);
    for (const spec of parts.records.specs()) this.#specs.set(spec.name, spec);
    for (const row of parts.records.liveRuns()) this.#place(this.#entryOf(row));
    this.#lastRun = parts.records.lastRun();
    this.#testSecret = parts.records.secret("throughput", () => newSecret(parts.random));
    for (const run of [...this.#entries.keys()]) void this.#post(run, { kind: "restart" });
    this.#wake();
  }

  get commits(): BatchWriter["commits"] {
    return this.#batch.commits;
  }

  // ---- what is there

  get hosts(): readonly HostRecord[] {
    return [...this.#hosts.values()].sort((left, right) => (left.mac < right.mac ? -1 : 1));
  }

  get specs(): readonly SpecRecord[] {
    return [...this.#specs.values()].sort((left, right) => (left.name < right.name ? -1 : 1));
  }

  get liveRuns(): readonly Run[] {
    return [...this.#entries.values()].map(({ run }) => run);
  }

  /** @throws ProblemError not-found */
  host(mac: string): HostRecord {
    const host = this.#hosts.get(mac);
    if (host !== undefined) return host;
    throw new ProblemError("not-found", `There is no host ${mac}`, {
      expected: "the card of a host that was added, or has asked for a boot script",
      received: mac,
      hint: "hostler vetting host list",
    });
  }

  /** @throws ProblemError not-found */
  spec(name: string, revision?: number): SpecRecord {
    const newest = this.#specs.get(name);
    if (revision === undefined || newest?.revision === revision) {
      if (newest !== undefined) return newest;
    } else {
      const older = this.records.spec(name, revision);
      if (older !== undefined) return older;
    }
    const words = revision === undefined ? "" : ` revision ${revision}`;
    throw new ProblemError("not-found", `There is no spec ${name}${words}`, {
      expected: "the name of a spec",
      received: name,
      hint: "hostler vetting spec list",
    });
  }

  /** @throws ProblemError not-found */
  entry(run: number): Entry {
    const entry = this.#entries.get(run);
    if (entry !== undefined) return entry;
    const row = this.records.run(run);
    if (row !== undefined) return this.#entryOf(row);
    throw new ProblemError("not-found", `There is no run ${run}`, {
      expected: "the number of a run that there is",
      received: String(run),
      hint: "hostler vetting runs lists them",
    });
  }

  /** @param run as it was read; one that something can happen to is told as it is now */
  view(read: Run): RunView {
    const run = this.#entries.get(read.run)?.run ?? read;
    const presence = this.#presences.get(run.run) ?? unheard;
    return runView(run, presence, this.#parts.now());
  }

  hostView(host: HostRecord): HostView {
    const run = this.#open.get(host.mac) ?? null;
    // One whose run has ended speaks until it is shut down.
    const heard = this.#entries.get(run ?? host.verdict?.run ?? 0)?.run.heardTime ?? null;
    const isOpen = host.windowUntil !== null && host.windowUntil > this.#parts.now();
    return {
      ...{ mac: host.mac, name: host.name, identity: host.identity, enrolled: host.enrolled },
      window_until: isOpen ? this.#parts.time(host.windowUntil ?? 0) : null,
      ...{ spec: host.spec, verdict: host.verdict, run, last_seen: heard ?? host.lastSeen },
    };
  }

  // ---- who speaks

  /**
   * Lets a host in by the token of its boot, or the secret of its session.
   * @returns undefined for a token that is none of ours
   * @throws ProblemError unauthenticated
   */
  authenticate(token: string): Authenticated | undefined {
    if (!token.startsWith("hostler-run-")) return undefined;
    const [, kind, number, secret = ""] = tokenPattern.exec(token) ?? [];
    const run = Number(number ?? 0);
    const gate = (kind === "s" ? this.#sessions : this.#tokens).get(run);
    if (gate === undefined || !isSameHash(gate.hash, hashOf(secret))) throw notOurs();
    const session = kind === "s" ? gate.hash : null;
    return { principal: { kind: "run", run, session }, signal: gate.controller.signal };
  }

  /**
   * A one-shot token for a host, which ends the session of its earlier boot.
   * @param by the operator that asked for it, and may give up a session that lives; undefined: the
   *   host's boot script
   * @returns durable
   * @throws ProblemError for an operator, whom its words are for
   */
  async mintBootToken(
    mac: string,
    by?: { readonly who: string; readonly replaces: boolean },
  ): Promise<{ run: number; token: string } | BootRefusal> {
    const host = this.#hosts.get(mac);
    if (host === undefined) await this.#noteUnknown(mac);
    const refusal = this.#refuseBoot(host, mac);
    if (refusal !== undefined) return refusal;
    const run = this.#open.get(mac) ?? 0;
    const secret = newSecret(this.#parts.random);
    try {
      const { who = null, replaces = false } = by ?? {};
      await this.post(run, { kind: "boot", token: hashOf(secret), who, replaces });
    } catch (error) {
      if (!(error instanceof ProblemError) || by !== undefined) throw error;
      return { reason: "unavailable", message: error.message };
    }
    return { run, token: tokenOf("b", run, secret) };
  }

  #refuseBoot(host: HostRecord | undefined, mac: string): BootRefusal | undefined {
    if (host === undefined || !host.enrolled) {
      const reason = host === undefined ? "unknown" : "not-enrolled";
      return { reason, message: `${mac} is not known: hostler vetting host add ${mac}` };
    }
    if (!this.#open.has(mac)) {
      const message = `${host.name} has no open run: hostler vetting start ${host.name}`;
      return { reason: "no-run", message };
    }
    if (host.windowUntil !== null && host.windowUntil > this.#parts.now()) return undefined;
    const message = `${host.name} may not boot now: hostler vetting host window ${host.name}`;
    return { reason: "no-window", message };
  }

  /** A card that nobody has named: it is shown, so that an operator can take it in. */
  async #noteUnknown(mac: string): Promise<void> {
    const unknown = this.hosts.filter(({ enrolled }) => !enrolled);
    const [oldest] = unknown.toSorted((left, right) =>
      (left.lastSeen ?? "") < (right.lastSeen ?? "") ? -1 : 1,
    );
    if (unknown.length >= UNKNOWN_HOSTS && oldest !== undefined) void this.#dropHost(oldest);
    const name = mac.replaceAll(":", "-");
    const fresh = { mac, name, enrolled: false, spec: null, identity: null, verdict: null };
    try {
      await this.#saveHost({ ...fresh, windowUntil: null, lastSeen: this.#parts.time() });
    } catch (error) {
      // It asks again, and a full disk is told to whoever does something.
      if (!(error instanceof ProblemError)) throw error;
    }
  }

  /** A new session's secret; the same process that has one keeps it. */
  newSession(run: number): { readonly secret: string; readonly token: string } {
    const secret = newSecret(this.#parts.random);
    return { secret, token: tokenOf("s", run, secret) };
  }

  claimAnswer({ run, spec }: Entry, token: string): ClaimAnswer {
    const place = this.#parts.networkTest();
    const stages = Object.entries(spec.stages) as [
      ClaimAnswer["stages"][number],
      { enabled: boolean },
    ][];
    return {
      session: token,
      current_state: run.state,
      stages: stages
        .filter(([name, { enabled }]) => enabled || name === "Inventory")
        .map(([name]) => name),
      settings: spec.stages,
      non_destructive: spec.stages.Storage.mode === "read",
      expected_disks: spec.expected_disks,
      network_test: place && { ...place, run: run.run, key: this.#testKey(run.run) },
      ...{ heartbeat_ms: HEARTBEAT_EVERY, log_ms: LOG_EVERY, sensor_ms: SENSORS_EVERY },
    };
  }

  /** The same after a restart: an agent was told it when it claimed. */
  #testKey(run: number): string {
    return hashOf(`${this.#testSecret} throughput ${run}`).slice(0, 32);
  }

  /** Whether a throughput test is that of a run which is under way. */
  admitsTest(run: number, key: string): boolean {
    const entry = this.#entries.get(run);
    const isOpen = entry !== undefined && entry.run.ended === null && entry.run.session !== null;
    return isOpen && isSameHash(key, this.#testKey(run));
  }

  asksForNetworkTool(run: number): boolean {
    return this.#entries.get(run)?.spec.stages.Network.engine === "tool";
  }

  /** As the answer to a heartbeat tells them. */
  directivesOf(run: Run): Directive[] {
    const now = this.#parts.now();
    return run.directives.map(({ id, kind, stage, until }) => ({
      ...{ id, kind, stage },
      expires_in_ms: Math.max(1, Math.round(until - now)),
    }));
  }

  /** So much later, for people. */
  timeAfter(wait: Milliseconds): string {
    return this.#parts.time(this.#parts.now() + wait);
  }

  /**
   * Calls when the log of a run that has ended has its last lines.
   * @returns undefined: it has not ended
   */
  afterLastLines(run: number, call: () => void): Disposable | undefined {
    const { endedAt } = this.entry(run).run;
    if (endedAt === null) return undefined;
    const rest = endedAt + LAST_LINES_FOR - this.#parts.now();
    return this.#parts.wakeAfter(Math.max(0, rest), call);
  }

  setPresence(run: number, presence: Presence): void {
    const before = this.#presences.get(run);
    this.#presences.set(run, presence);
    const entry = this.#entries.get(run);
    if (entry === undefined || JSON.stringify(before) === JSON.stringify(presence)) return;
    this.book.add([{ kind: "run", view: this.view(entry.run) }]);
  }

  // ---- what happens to a run

  /**
   * Has something happen to a run.
   * @returns the answer, when it is durable
   * @throws ProblemError for what is refused, and what could not be written
   */
  async post(run: number, input: RunInput): Promise<{ answer: RunAnswer; run: Run }> {
    const posted = this.#post(run, input);
    await posted.written;
    const { answer } = posted;
    if (answer.kind !== "refused") return posted;
    const { kind, message, ...words } = answer.refusal;
    throw new ProblemError(kind, message, words);
  }

  #post(number: number, input: RunInput): { answer: RunAnswer; run: Run; written: Promise<void> } {
    const entry = this.entry(number);
    const taken = step(entry.run, input, this.#context(entry));
    if (taken.writes.length === 0 && isUnchanged(entry.run, taken.run)) {
      const next = { ...entry, run: taken.run };
      if (this.#entries.has(number)) this.#entries.set(number, next);
      // It is answered by what may not be durable yet.
      const written = this.#pending.get(number) ?? Promise.resolve();
      return { answer: taken.answer, run: taken.run, written };
    }
    return { answer: taken.answer, run: taken.run, written: this.#apply(entry, taken) };
  }

  #context({ run, spec }: Pick<Entry, "run" | "spec">): RunContext {
    const { now, time, validate, random, version } = this.#parts;
    return {
      ...{ now: now(), time: time(), spec, version },
      validate: (inventory) => validate(spec, inventory),
      lastWords: () => this.#lastWords(run.run),
      draw: () => Buffer.from(random(16)).toString("hex"),
    };
  }

  #lastWords(run: number): Evidence[] {
    const lines = this.records.lastLines(run, LAST_LINES);
    const of = (isKernel: boolean) =>
      lines
        .filter(({ level }) => (level === "kernel") === isKernel)
        .map(({ time, text }) => `${time} ${text}`)
        .join("\n");
    const parts = [
      { name: "kernel-log", component: "host", text: of(true) },
      { name: "last-output", component: "host", text: of(false) },
    ];
    return parts.filter(({ text }) => text !== "");
  }

  /** Puts a step in memory, and writes it with what comes in the same moment. */
  #apply(before: Entry, { run, writes }: RunStep): Promise<void> {
    let { head, results } = before;
    const told: LiveEvent[] = [];
    const acts: (() => void)[] = [];
    for (const write of writes) {
      switch (write.kind) {
        case "result": {
          const hash = chainHash(write.result, head, hashOf);
          const result = { ...write.result, hash };
          const place = results;
          [head, results] = [hash, results + 1];
          acts.push(() => this.records.addResult(run.run, place, result));
          told.push({ kind: "result", run: run.run, result });
          break;
        }
        case "rules":
          acts.push(() => this.records.setRules(run.run, write.rules));
          break;
        case "event":
          acts.push(() => this.records.addEvent(run.run, write.event));
          told.push({ kind: "event", run: run.run, event: write.event });
          break;
        case "identity":
          void this.#changeHost(run.mac, { identity: write.identity });
      }
    }
    const entry = { ...before, run, head, results };
    this.#place(entry);
    this.#noteHeard(before.run, run);
    if (run.verdict !== null && before.run.verdict === null) {
      const { verdict, reason, ended } = run;
      const at = ended ?? this.#parts.time();
      void this.#changeHost(run.mac, { verdict: { verdict, run: run.run, at, reason } });
    }
    const written = this.#batch.add({
      write: () => {
        // The row first: what belongs to it counts there.
        this.records.saveRun(run, head);
        for (const act of acts) act();
      },
      undo: () => this.#place(before),
      tell: () => [...told, { kind: "run", view: this.view(run) }],
    });
    this.#await(entry, written);
    return written;
  }

  /** What a run alone knows stays with its host: the run ends, and goes from memory. */
  #noteHeard(before: Run, { mac, ended, session, heardTime }: Run): void {
    const isOver = before.ended === null && ended !== null;
    const isSilent = before.session !== null && session === null;
    if (heardTime !== null && (isOver || isSilent)) {
      void this.#changeHost(mac, { lastSeen: heardTime });
    }
  }

  #await({ run: { run } }: Entry, written: Promise<void>): void {
    this.#pending.set(run, written);
    const settle = () => {
      if (this.#pending.get(run) !== written) return;
      this.#pending.delete(run);
      const now = this.#entries.get(run);
      // Nothing more can happen to it: it is on the disk alone.
      if (now === undefined || isLive(now.run)) return;
      this.#entries.delete(run);
      this.#presences.delete(run);
      this.#silent.delete(run);
    };
    written.then(settle, settle);
  }

  #entryOf(row: RunRow): Entry {
    const { spec, specRevision } = row.run;
    return { ...row, spec: this.spec(spec, specRevision).content };
  }

  /** What can be decided about a run stands by it: who may speak, and whose open run it is. */
  #place(entry: Entry): void {
    const { run } = entry;
    this.#entries.set(run.run, entry);
    if (run.ended === null) this.#open.set(run.mac, run.run);
    else if (this.#open.get(run.mac) === run.run) this.#open.delete(run.mac);
    this.#guard(this.#sessions, run.run, run.session?.hash);
    this.#guard(this.#tokens, run.run, run.boot?.hash);
  }

  /** A secret that is not the run's any more ends what was begun with it, at once. */
  #guard(gates: Map<number, Gate>, run: number, hash: string | undefined): void {
    const gate = gates.get(run);
    if (gate?.hash === hash) return;
    gate?.controller.abort(notOurs());
    if (hash === undefined) gates.delete(run);
    else gates.set(run, { hash, controller: new AbortController() });
  }

  // ---- what an operator says

  /** @throws ProblemError conflict, not-found, full */
  async startRun(
    mac: string,
    asked: { readonly spec: string | undefined; readonly who: string; readonly window: number },
  ): Promise<Run> {
    const host = this.host(mac);
    if (!host.enrolled)
      throw conflict(`${mac} was not taken in`, `hostler vetting host add ${mac}`);
    const open = this.#open.get(mac);
    if (open !== undefined) {
      throw conflict(`${host.name} has an open run: ${open}`, this.#wayToEnd(open));
    }
    const name = asked.spec ?? host.spec;
    if (name === null) {
      throw conflict(`${host.name} has no spec of its own`, "Say one: --spec NAME");
    }
    if (this.#open.size >= vettingLimits.runsUnderWay) {
      throw new ProblemError("full", "As many runs are open as there may be", {
        expected: `at most ${vettingLimits.runsUnderWay} open runs`,
        received: "one more",
        hint: "Cancel some: hostler vetting runs --open lists them",
      });
    }
    const record = this.spec(name);
    const written = this.#begin(host, record, asked.who);
    if (asked.window > 0) void this.openWindow(mac, asked.window).catch(() => {});
    const { number, done } = written;
    await done;
    return this.entry(number).run;
  }

  #begin(host: HostRecord, record: SpecRecord, who: string) {
    const number = this.#lastRun + 1;
    this.#lastRun = number;
    const { mac, name, identity } = host;
    const { name: spec, revision: specRevision, content } = record;
    const beginning = { run: number, mac, host: name, spec, specRevision, identity };
    const created = this.#parts.time();
    const began = newRun({ ...beginning, created }, who, {
      ...this.#context({ run: { run: number } as Run, spec: content }),
    });
    const subject = { run: number, mac, created, spec_revision: specRevision, spec: content };
    const head = chainStart(subject, hashOf);
    const entry = { run: began.run, head, results: 0, spec: content };
    // Undone last: before this there was no such run.
    this.#batch
      .add({ write: () => {}, undo: () => this.#forgetEntry(number, mac) })
      .catch(() => {});
    return { number, done: this.#apply(entry, began) };
  }

  #forgetEntry(number: number, mac: string): void {
    this.#entries.delete(number);
    if (this.#open.get(mac) === number) this.#open.delete(mac);
  }

  /** @throws ProblemError full */
  async addHost(asked: {
    readonly mac: string;
    readonly name?: string | undefined;
    readonly spec?: string | undefined;
  }): Promise<HostRecord> {
    const { mac, name, spec } = asked;
    if (spec !== undefined) this.spec(spec);
    const known = this.#hosts.get(mac);
    if (known?.enrolled !== true && this.#hosts.size >= apiLimits.hosts + UNKNOWN_HOSTS) {
      throw new ProblemError("full", "There are as many hosts as there may be", {
        expected: `at most ${apiLimits.hosts} hosts`,
        received: "one more",
        hint: "Remove some: hostler vetting host remove",
      });
    }
    const others = this.hosts.filter((host) => host.mac !== mac && host.name === name);
    if (others.length > 0) throw conflict(`${name} is ${others[0]?.mac}`, "Give another name");
    const base = known ?? {
      ...{ mac, identity: null, verdict: null, windowUntil: null, lastSeen: null, spec: null },
      name: mac.replaceAll(":", "-"),
    };
    const host = {
      ...base,
      enrolled: true,
      ...(name !== undefined && { name }),
      ...(spec !== undefined && { spec }),
    };
    await this.#saveHost(host);
    return host;
  }

  async openWindow(mac: string, lasts: Milliseconds): Promise<HostRecord> {
    const host = this.host(mac);
    const windowUntil = lasts === 0 ? null : this.#parts.now() + lasts;
    const next = { ...host, windowUntil };
    await this.#saveHost(next);
    return next;
  }

  #wayToEnd(run: number): string {
    const isHolding = this.entry(run).run.state === "FailedHolding";
    return `hostler vetting ${isHolding ? "release" : "cancel"} ${run}`;
  }

  /** @throws ProblemError conflict where it has an open run */
  async removeHost(mac: string): Promise<void> {
    const host = this.host(mac);
    const open = this.#open.get(mac);
    if (open !== undefined) {
      throw conflict(`${host.name} has an open run: ${open}`, this.#wayToEnd(open));
    }
    await this.#dropHost(host);
  }

  /** @throws ProblemError conflict, full */
  async putSpec(content: Spec, expected: number | undefined): Promise<SpecRecord> {
    const { name } = content;
    const before = this.#specs.get(name);
    if (expected !== undefined && expected !== (before?.revision ?? 0)) {
      throw new ProblemError("conflict", `${name} has changed meanwhile`, {
        expected: `revision ${expected}`,
        received: `revision ${before?.revision ?? 0}`,
        hint: "Look at the newest one, and put yours again",
      });
    }
    if (before === undefined && this.#specs.size >= apiLimits.specs) {
      throw new ProblemError("full", "There are as many specs as there may be", {
        expected: `at most ${apiLimits.specs} specs`,
        received: "one more",
        hint: "Remove some that no host needs",
      });
    }
    const revision = (before?.revision ?? this.records.lastRevision(name)) + 1;
    const record = { name, revision, content, changed: this.#parts.time() };
    this.#specs.set(name, record);
    await this.#batch.add({
      write: () => this.records.addSpec(record, apiLimits.revisions),
      undo: () => this.#restoreSpec(name, before),
    });
    return record;
  }

  async removeSpec(name: string): Promise<void> {
    const before = this.spec(name);
    const user = this.hosts.find(({ spec }) => spec === name);
    if (user !== undefined) {
      throw conflict(`${user.name} is held to ${name}`, "Give its hosts another spec first");
    }
    this.#specs.delete(name);
    await this.#batch.add({
      write: () => this.records.removeSpec(name),
      undo: () => this.#restoreSpec(name, before),
    });
  }

  #restoreSpec(name: string, before: SpecRecord | undefined): void {
    if (before === undefined) this.#specs.delete(name);
    else this.#specs.set(name, before);
  }

  #changeHost(mac: string, part: Partial<HostRecord>): Promise<void> {
    const host = this.#hosts.get(mac);
    if (host === undefined) return Promise.resolve();
    const written = this.#saveHost({ ...host, ...part });
    // It is written with what it comes from, whose refusal says the same.
    written.catch(() => {});
    return written;
  }

  #saveHost(host: HostRecord): Promise<void> {
    const before = this.#hosts.get(host.mac);
    this.#hosts.set(host.mac, host);
    return this.#batch.add({
      write: () => this.records.saveHost(host),
      undo: () => this.#restoreHost(host.mac, before),
      tell: () => {
        const now = this.#hosts.get(host.mac);
        return now === undefined ? [] : [{ kind: "host", view: this.hostView(now) }];
      },
    });
  }

  #dropHost(host: HostRecord): Promise<void> {
    this.#hosts.delete(host.mac);
    return this.#batch.add({
      write: () => this.records.removeHost(host.mac),
      undo: () => this.#restoreHost(host.mac, host),
    });
  }

  #restoreHost(mac: string, before: HostRecord | undefined): void {
    if (before === undefined) this.#hosts.delete(mac);
    else this.#hosts.set(mac, before);
  }

  // ---- what is written beside

  /** @returns when it is durable, with what others write */
  async write(act: () => void, tell: () => readonly LiveEvent[]): Promise<void> {
    await this.#batch.add({ write: act, undo: () => {}, tell }, LATER);
  }

  /** All that whoever begins to follow has to know. */
  snapshot(): LiveEvent[] {
    return [
      ...this.hosts.map((host) => ({ kind: "host", view: this.hostView(host) }) as const),
      ...this.liveRuns.map((run) => ({ kind: "run", view: this.view(run) }) as const),
    ];
  }

  #wake(): void {
    if (this.#isStopped) return;
    this.#timer = this.#parts.wakeAfter(TICK, () => {
      this.tick();
      this.#wake();
    });
  }

  /** Looks at what time has brought, of every run. */
  tick(): void {
    for (const run of [...this.#entries.keys()]) {
      // What could not be written is looked at again.
      this.#post(run, { kind: "tick" }).written.catch(() => {});
      this.#tellSilence(run);
    }
  }

  /** Nothing else is told of a run whose host says nothing, or nothing new. */
  #tellSilence(number: number): void {
    const run = this.#entries.get(number)?.run;
    const heard = run?.ended === null ? run.heard : null;
    const isSilent = heard !== null && this.#parts.now() - heard >= SILENT_AFTER;
    if (run === undefined || isSilent === this.#silent.has(number)) return;
    if (isSilent) this.#silent.add(number);
    else this.#silent.delete(number);
    this.book.add([{ kind: "run", view: this.view(run) }]);
  }

  /** What was begun is written. */
  stop(): void {
    this.#isStopped = true;
    this.#timer?.[Symbol.dispose]();
    this.#batch.commit();
  }
}

const isLive = (run: Run) => run.ended === null || run.session !== null;

/** Whether nothing has changed but when it was heard, which is kept nowhere. */
function isUnchanged(before: Run, after: Run): boolean {
  const keys = Object.keys(after) as (keyof Run)[];
  return keys.every((key) => key === "heard" || key === "heardTime" || before[key] === after[key]);
}

function conflict(message: string, hint: string): ProblemError {
  return new ProblemError("conflict", message, { hint });
}

function notOurs(): ProblemError {
  return new ProblemError("unauthenticated", "This token of a run does not count, or no more", {
    expected: "the token of a boot that was not claimed, or the session of a run that is open",
    received: "another one",
    hint: "Boot the host anew inside its boot window: that gives a token",
  });
}
