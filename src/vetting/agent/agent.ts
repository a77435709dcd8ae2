import { randomBytes } from "node:crypto";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Inventory } from "../../hardware/inventory.ts";
import type { Reading } from "../../hardware/samples.ts";
import type { Logger } from "../../logging/logger.ts";
import { ExitCode } from "../../units/exit-code.ts";
import type { MonotonicTime } from "../../units/units.ts";
import { hostlerVersion } from "../../units/version.ts";
import { passAgentEffect, passAgentKeep } from "../perform/agent-steps.ts";
import type { TaskRunner } from "../perform/task-runner.ts";
import {
  HEARTBEAT_EVERY,
  type LogLine,
  type ResultBody,
  SENSORS_EVERY,
  VETTING_PROTOCOL_VERSION,
  vettingLimits,
} from "../protocol.ts";
import { agentApi } from "../protocol-api.ts";
import type { Evidence, Stage } from "../protocol-result.ts";
import type { StageDefinition } from "../stages/stage.ts";
import type { IdentityReport } from "../tasks/identity.ts";
import type { BootParameters } from "./boot-parameters.ts";
import { begin, step } from "./lifecycle.ts";
import {
  type AgentEffect,
  type AgentEvent,
  type AgentState,
  activityOf,
  agentPace,
  type Kept,
  type PowerChange,
} from "./lifecycle-state.ts";
import { failureOf, type OrchestratorLink } from "./orchestrator-link.ts";
import { Reporter } from "./reporter.ts";
import { SampleBook } from "./sample-book.ts";
import { SamplerSidecar } from "./sampler-sidecar.ts";
import { StageWork } from "./stage-work.ts";

/** What is kept in memory for the next process. */
export interface AgentStore {
  readKept(): Kept | undefined;
  writeKept(kept: Kept): void;
  readResult(): ResultBody | undefined;
  writeResult(body: ResultBody): void;
  dropResult(): void;
  readInventory(): Inventory | undefined;
  writeInventory(inventory: Inventory): void;
}

export interface AgentParts {
  readonly loop: EventLoop;
  readonly logger: Logger;
  readonly parameters: BootParameters;
  readonly bootId: string;
  readonly store: AgentStore;
  /** @param token the session's, or the run's while there is none */
  readonly link: (token: () => string | undefined) => OrchestratorLink;
  readonly runner: TaskRunner;
  readonly definitions: Readonly<Partial<Record<Stage, StageDefinition>>>;
  /** What the host is known by. */
  readonly identity: () => Promise<IdentityReport>;
  readonly crashes: {
    /** What kernels before this one wrote as they died. */
    read(): Promise<readonly Evidence[]>;
    /** The orchestrator has it. */
    forget(): void;
  };
  readonly hold: {
    install(key: string): Promise<void>;
    remove(): Promise<number>;
    hostKey(): string | null;
  };
  /** @returns why not */
  readonly changePower: (how: PowerChange) => Promise<string>;
  readonly now: () => MonotonicTime;
}

const draw = (): string => randomBytes(16).toString("hex");

/** The agent of one run: waits, has the lifecycle decide, and carries that out. */
export class VettingAgent implements Disposable {
  readonly ended: Promise<number>;
  readonly #parts: AgentParts;
  readonly #end = Promise.withResolvers<number>();
  readonly #link: OrchestratorLink;
  readonly #reporter: Reporter;
  readonly #samples = new SampleBook();
  readonly #work: StageWork;
  readonly #sampler: SamplerSidecar;
  readonly #instance: string;
  #state: AgentState;
  #keptText = "";
  #events: AgentEvent[] = [];
  #isDeciding = false;
  #isOver = false;
  #lastBeat: Promise<void> = Promise.resolve();
  /** It has not begun: whoever wants one has this one. */
  #waitingBeat: Promise<void> | undefined;
  #timers = new Map<string, Disposable>();

  constructor(parts: AgentParts) {
    this.#parts = parts;
    this.ended = this.#end.promise;
    const { loop, runner, definitions, store, parameters, bootId } = parts;
    const kept = firstKept(parts);
    this.#instance = kept.instance;
    this.#link = parts.link(() => this.#state.kept.session ?? parameters.token ?? undefined);
    const result = store.readResult();
    const body = result?.run === parameters.run ? result : undefined;
    const first = begin(kept, body, { now: parts.now(), draw });
    this.#state = first.state;
    this.#reporter = new Reporter({
      loop,
      link: this.#link,
      run: parameters.run,
      instance: kept.instance,
      hasSession: () => this.#state.kept.session !== null,
      onTrouble: (text) => this.#parts.logger.warn(text),
    });
    this.#work = new StageWork({
      ...{ runner, definitions, samples: this.#samples },
      readSensors: (signal, within) => this.#sampler.readNow(signal, within),
      inventory: {
        read: () => store.readInventory(),
        write: (inventory) =>
          this.#tryTo("keep the inventory", () => store.writeInventory(inventory)),
      },
      onLine: ({ component }, line) => {
        if (line.kind === "log") this.#say(line.level, `${component}: ${line.text}`);
      },
      onEnd: (attempt, report, duration) => {
        this.#tell({ kind: "stage-ended", attempt, report, duration });
      },
    });
    this.#sampler = new SamplerSidecar(loop, runner, {
      every: SENSORS_EVERY,
      onReading: (reading) => this.#onReading(reading),
      onKernelLine: ({ level, microseconds, text }) => {
        const seconds = (microseconds / 1_000_000).toFixed(6);
        // The kernel stamps its lines by a clock that is the monotonic one, but for some drift.
        const at = microseconds / 1_000;
        const said = { stage: this.#stage, text: `<${level}>[${seconds}] ${text}` };
        this.#reporter.log({ level: "kernel", ...said }, at);
      },
      onLog: (level, text) => this.#say(level, text),
    });
    const { orchestrator, run } = parameters;
    this.#say(
      "info",
      `hostler ${hostlerVersion} for run ${run} of ${orchestrator}, boot ${bootId}`,
    );
    this.#keep();
    for (const effect of first.effects) this.#perform(effect);
    this.#beatAgain();
  }

  get #stage(): Stage | null {
    const { phase } = this.#state;
    return phase.kind === "running" ? phase.stage : null;
  }

  /** Without a word: the next process goes on. A key is removed, because nobody would time it. */
  async stop(): Promise<void> {
    this.#isOver = true;
    this.#work.cancel();
    this.#sampler[Symbol.dispose]();
    if (this.#state.kept.hold !== null) {
      this.#state = { ...this.#state, kept: { ...this.#state.kept, hold: null } };
      this.#keep();
      await this.#parts.hold.remove();
    }
    this.#end.resolve(ExitCode.done);
  }

  #say(level: LogLine["level"], text: string, stage: Stage | null = this.#stage): void {
    const { logger } = this.#parts;
    if (level === "error") logger.error(text);
    else if (level === "warn") logger.warn(text);
    else logger.info(text);
    this.#reporter.log({ level, stage, text });
  }

  #onReading(reading: Reading): void {
    this.#samples.take(reading);
    this.#reporter.reading(this.#stage, reading, this.#samples.sumsOf(reading));
  }

  /** Events are decided one after the other, also those that come of effects. */
  #tell(event: AgentEvent): void {
    if (this.#isOver) return;
    this.#events.push(event);
    if (this.#isDeciding) return;
    this.#isDeciding = true;
    try {
      for (let next = this.#events.shift(); next !== undefined; next = this.#events.shift()) {
        const { state, effects } = step(this.#state, next, { now: this.#parts.now(), draw });
        const wasClaimed = this.#state.claim;
        this.#state = state;
        passAgentKeep("before");
        this.#keep();
        passAgentKeep("after");
        if (state.claim !== wasClaimed) this.#setPace();
        for (const effect of effects) this.#perform(effect);
      }
    } finally {
      this.#isDeciding = false;
    }
  }

  #setPace(): void {
    const { claim } = this.#state;
    if (claim === null) return;
    this.#sampler.setEvery(claim.sensor_ms);
    this.#reporter.setPace({ log: claim.log_ms, sensors: claim.sensor_ms });
    this.#beatAgain();
  }

  /** Before anything is done. Where /run is full the agent goes on: a restart knows less then. */
  #keep(): void {
    const text = JSON.stringify(this.#state.kept);
    if (text === this.#keptText) return;
    this.#tryTo("keep what was done", () => {
      this.#parts.store.writeKept(this.#state.kept);
      this.#keptText = text;
    });
  }

  #tryTo(what: string, work: () => void): void {
    try {
      work();
    } catch (failure) {
      this.#say("error", `cannot ${what}, ignoring: ${wordsOf(failure)}`);
    }
  }

  #perform(effect: AgentEffect): void {
    passAgentEffect(effect.kind, "before");
    this.#carryOut(effect);
    passAgentEffect(effect.kind, "after");
  }

  #carryOut(effect: AgentEffect): void {
    switch (effect.kind) {
      case "call-hello":
      case "call-claim":
      case "call-attempt":
      case "call-result":
      case "call-hold":
        void this.#call(effect);
        break;
      case "wait":
        this.#wake("wait", effect.wait, () =>
          this.#tell({ kind: "retry-due", ticket: effect.ticket }),
        );
        break;
      case "start-stage":
        this.#startStage(effect);
        break;
      case "end-stage":
        this.#work.cancel();
        break;
      case "keep-result":
        this.#tryTo("keep a result", () => this.#parts.store.writeResult(effect.body));
        break;
      case "drop-result":
        this.#tryTo("drop a result", () => this.#parts.store.dropResult());
        break;
      default:
        this.#carryOutHostEffect(effect);
    }
  }

  #carryOutHostEffect(effect: HostEffect): void {
    switch (effect.kind) {
      case "install-key":
        void this.#installKey(effect.line);
        break;
      case "remove-key":
        void this.#removeKey();
        break;
      case "wake-for-key":
        this.#wake("key", effect.at - this.#parts.now(), () => this.#tell({ kind: "key-due" }));
        break;
      case "wake-to-leave":
        this.#wake("leave", effect.wait, () => this.#tell({ kind: "leave-due" }));
        break;
      case "beat":
        void this.#beat();
        break;
      case "say-farewell":
        void this.#sayFarewell();
        break;
      case "change-power":
        void this.#changePower(effect.how);
        break;
      case "end":
        this.#finish(effect.how === "done" ? ExitCode.done : ExitCode.refused);
        break;
      case "say":
        this.#say(effect.level, effect.text, effect.stage);
        break;
    }
  }

  #startStage({ stage, attempt, wipe }: Extract<AgentEffect, { kind: "start-stage" }>): void {
    const { claim } = this.#state;
    if (claim === null) throw new Error("Bug: a stage was begun before a claim");
    this.#work.start({ stage, attempt, wipe, claim });
  }

  async #installKey(key: string): Promise<void> {
    try {
      await this.#parts.hold.install(key);
    } catch (failure) {
      this.#say("error", `cannot install the hold's key: ${wordsOf(failure)}`);
    }
  }

  async #removeKey(): Promise<void> {
    try {
      const ended = await this.#parts.hold.remove();
      if (ended > 0) this.#say("info", `${ended} processes of the hold's sessions were ended`);
    } catch (failure) {
      this.#say("error", `cannot remove the hold's key: ${wordsOf(failure)}`);
    }
  }

  async #changePower(how: PowerChange): Promise<void> {
    const refusal = await this.#parts.changePower(how);
    if (refusal === "") this.#finish(ExitCode.done);
    else this.#tell({ kind: "power-refused", reason: refusal });
  }

  #finish(code: number): void {
    this.#isOver = true;
    this.#end.resolve(code);
  }

  #wake(name: string, wait: number, call: () => void): void {
    this.#timers.get(name)?.[Symbol.dispose]();
    this.#timers.set(name, this.#parts.loop.wakeAfter(Math.max(0, wait), call));
  }

  async #call(effect: CallEffect): Promise<void> {
    const { ticket } = effect;
    let event: AgentEvent;
    try {
      event = await this.#ask(effect);
    } catch (error) {
      event = { kind: "call-failed", ticket, failure: failureOf(error) };
    }
    this.#tell(event);
  }

  async #ask(effect: CallEffect): Promise<AgentEvent> {
    const { ticket } = effect;
    const who = { run: this.#parts.parameters.run, instance: this.#instance };
    switch (effect.kind) {
      case "call-hello":
        await this.#link.call(agentApi.hello, this.#about(), "call");
        return { kind: "hello-answered", ticket };
      case "call-claim": {
        const address = await this.#link.sourceAddress();
        const { macs, ...identity } = await this.#parts.identity();
        const known = { address, identity, macs: [...macs] };
        const evidence = [...(await this.#parts.crashes.read())];
        const about = { ...this.#about(), instance: this.#instance, ...known, evidence };
        const answer = await this.#link.call(agentApi.claim, about, "bulk");
        this.#parts.crashes.forget();
        return { kind: "claimed", ticket, answer };
      }
      case "call-attempt": {
        const asked = { ...who, attempt: effect.attempt, stage: effect.stage };
        const answer = await this.#link.call(agentApi.attempt, asked, "call");
        return { kind: "attempt-answered", ticket, answer };
      }
      case "call-result": {
        const { next_state } = await this.#link.call(agentApi.result, effect.body, "bulk");
        return { kind: "result-answered", ticket, next: next_state };
      }
      case "call-hold": {
        const address = await this.#link.sourceAddress();
        const asked = { ...who, address, host_key: this.#parts.hold.hostKey() };
        const { authorized_key, expires_in_ms } = await this.#link.call(
          agentApi.hold,
          asked,
          "call",
        );
        return { kind: "hold-answered", ticket, key: authorized_key, lasts: expires_in_ms };
      }
    }
  }

  #about() {
    const { parameters, bootId } = this.#parts;
    const { run, mac } = parameters;
    const [protocol, version] = [VETTING_PROTOCOL_VERSION, hostlerVersion.slice(0, 64)];
    return { run, protocol, version, boot_id: bootId, mac };
  }

  #beatAgain(): void {
    const every = this.#state.claim?.heartbeat_ms ?? HEARTBEAT_EVERY;
    this.#wake("beat", every, () => {
      void this.#beat();
      this.#beatAgain();
    });
  }

  /** One at a time; one that is wanted meanwhile follows, and tells what came meanwhile. */
  #beat(): Promise<void> {
    if (this.#waitingBeat !== undefined) return this.#waitingBeat;
    const before = this.#lastBeat;
    const next = before.then(async () => {
      this.#waitingBeat = undefined;
      await this.#beatOnce();
    });
    this.#waitingBeat = next;
    this.#lastBeat = next;
    return next;
  }

  async #beatOnce(): Promise<void> {
    const { phase, kept } = this.#state;
    const isMute = kept.session === null || phase.kind === "claiming" || phase.kind === "hello";
    if (isMute || this.#isOver) return;
    const acknowledged = kept.acknowledgements.slice(0, vettingLimits.directives);
    const asked = this.#parts.now();
    let event: AgentEvent;
    try {
      const answer = await this.#link.call(
        agentApi.heartbeat,
        {
          ...{ run: kept.run, instance: this.#instance, boot_id: kept.boot_id, acknowledged },
          activity: activityOf(this.#state, this.#work.progress),
          dropped: this.#reporter.dropped,
        },
        "beat",
      );
      const told = acknowledged.map(({ id }) => id);
      const { state: run, directives } = answer;
      event = { kind: "heard", run, directives, told, asked };
    } catch (error) {
      event = { kind: "unheard", failure: failureOf(error) };
    }
    this.#tell(event);
  }

  /** What was done, and the rest of the log; nothing of it keeps the host. */
  async #sayFarewell(): Promise<void> {
    const { loop } = this.#parts;
    const late = Promise.withResolvers<void>();
    using _limit = loop.wakeAfter(agentPace.farewell, () => late.resolve());
    await Promise.race([Promise.all([this.#beat(), this.#reporter.flushAll()]), late.promise]);
    this.#tell({ kind: "farewell-said" });
  }

  [Symbol.dispose](): void {
    this.#isOver = true;
    for (const timer of this.#timers.values()) timer[Symbol.dispose]();
    this.#reporter[Symbol.dispose]();
    this.#sampler[Symbol.dispose]();
  }
}

type CallEffect = Extract<AgentEffect, { kind: `call-${string}` }>;
type HostEffect = Exclude<
  AgentEffect,
  CallEffect | { kind: "wait" | "start-stage" | "end-stage" | "keep-result" | "drop-result" }
>;

/** What the process before this one left, where it was of this run and this boot. */
function firstKept({ store, parameters, bootId }: AgentParts): Kept {
  const { run } = parameters;
  const left = store.readKept();
  const isOurs = left?.run === run && left.boot_id === bootId;
  // Who claimed with the token and was killed before it could keep the answer may claim again.
  if (left !== undefined && isOurs) {
    return { ...left, instance: left.session === null ? left.instance : draw() };
  }
  return {
    ...{ run, boot_id: bootId, instance: draw(), session: null, attempt: null, intent: null },
    ...{ taken: [], acknowledgements: [], hold: null },
  };
}

const wordsOf = (failure: unknown): string =>
  failure instanceof Error ? failure.message : String(failure);
