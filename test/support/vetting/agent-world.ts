/**
 * An agent and an orchestrator, both as they decide, between them a network from a seed that loses,
 * doubles and delays, with an agent that is killed at any moment. Time is false.
 */
import { begin, step } from "../../../src/vetting/agent/lifecycle.ts";
import type {
  AgentEffect,
  AgentEvent,
  AgentState,
  Kept,
} from "../../../src/vetting/agent/lifecycle-state.ts";
import { step as decide } from "../../../src/vetting/orchestrator/lifecycle.ts";
import type { RunAnswer, RunInput } from "../../../src/vetting/orchestrator/lifecycle-state.ts";
import type { Directive, ResultBody } from "../../../src/vetting/protocol.ts";
import type { SeededChance } from "../chance.ts";
import { claimInput, RunWorld, report } from "../vetting-orchestrator/runs.ts";
import { claimAnswer, failure, id, newKept } from "./agent-life.ts";

export interface AgentTrouble {
  readonly lost: number;
  readonly doubled: number;
  readonly late: number;
  readonly killed: number;
}

type Call = Extract<AgentEffect, { kind: `call-${string}` }>;

interface Process {
  state: AgentState;
  readonly instance: string;
  isAlive: boolean;
}

export class AgentWorld {
  readonly story = new RunWorld();
  readonly chance: SeededChance;
  trouble: AgentTrouble;
  now = 1_000_000;
  #queue: { readonly at: number; readonly act: () => void }[] = [];
  #drawn = 0x1000;
  #process: Process;
  /** What is in memory, and survives the process. */
  #kept: Kept;
  #result: ResultBody | undefined;
  /** The attempt whose children run. */
  #running: string | undefined;
  readonly #taken = new Set<string>();
  /** Results that were kept, and not dropped by an order. */
  readonly #owed = new Set<string>();
  power: string | undefined;
  isOver = false;
  kills = 0;

  constructor(chance: SeededChance, trouble: AgentTrouble) {
    this.chance = chance;
    this.trouble = trouble;
    this.story.boots();
    this.#kept = newKept({ instance: this.#draw() });
    this.#process = this.#start();
  }

  get phase(): string {
    return this.#process.state.phase.kind;
  }

  /** Results that the agent had, and the orchestrator never answered. */
  get owed(): readonly string[] {
    const answered = this.story.run.answers.map(({ result }) => result);
    return [...this.#owed].filter((result) => !answered.includes(result));
  }

  /** Lets so much time pass. */
  pass(milliseconds: number): void {
    const until = this.now + milliseconds;
    for (;;) {
      this.#queue.sort((left, right) => left.at - right.at);
      const next = this.#queue[0];
      if (next === undefined || next.at > until) break;
      this.#queue.shift();
      this.now = next.at;
      next.act();
    }
    this.now = until;
  }

  order(input: RunInput): void {
    this.#orchestrate(input);
  }

  #draw = (): string => id(this.#drawn++);

  #start(): Process {
    const isClaimed = this.#kept.session !== null;
    const kept = { ...this.#kept, instance: isClaimed ? this.#draw() : this.#kept.instance };
    const first = begin(kept, this.#result, { now: this.now, draw: this.#draw });
    const process = { state: first.state, instance: kept.instance, isAlive: true };
    this.#running = undefined;
    this.#process = process;
    this.#carryOut(process, first.effects);
    this.#beatLater(process);
    return process;
  }

  /** SIGKILL: children end with it; whoever watches starts another. */
  #kill(): void {
    this.#process.isAlive = false;
    this.kills += 1;
    this.#running = undefined;
    this.#after(1_000, () => {
      if (this.power === undefined && !this.isOver) this.#start();
    });
  }

  #after(wait: number, act: () => void): void {
    this.#queue.push({ at: this.now + wait, act });
  }

  #tell(process: Process, event: AgentEvent): void {
    if (!process.isAlive || this.power !== undefined) return;
    const before = new Set(process.state.kept.taken);
    const next = step(process.state, event, { now: this.now, draw: this.#draw });
    process.state = next.state;
    for (const one of next.state.kept.taken) {
      if (before.has(one)) continue;
      if (this.#taken.has(one)) throw new Error(`Directive ${one} was taken up twice`);
      this.#taken.add(one);
    }
    this.#carryOut(process, next.effects);
  }

  #carryOut(process: Process, effects: readonly AgentEffect[]): void {
    if (this.#mayKill()) return;
    this.#kept = process.state.kept;
    for (const effect of effects) {
      if (this.#mayKill()) return;
      this.#do(process, effect);
    }
  }

  #mayKill(): boolean {
    const { chance, trouble } = this;
    if (!chance.happens(trouble.killed)) return false;
    this.#kill();
    return true;
  }

  #do(process: Process, effect: AgentEffect): void {
    switch (effect.kind) {
      case "wait":
        this.#after(effect.wait, () =>
          this.#tell(process, { kind: "retry-due", ticket: effect.ticket }),
        );
        break;
      case "start-stage":
        this.#startStage(process, effect.attempt);
        break;
      case "end-stage":
        this.#endStage(process);
        break;
      case "keep-result":
        this.#result = effect.body;
        this.#owed.add(effect.body.result);
        break;
      case "drop-result":
        this.#drop(process);
        break;
      case "beat":
        this.#beat(process);
        break;
      case "wake-to-leave":
        this.#after(effect.wait, () => this.#tell(process, { kind: "leave-due" }));
        break;
      case "say-farewell":
        this.#beat(process);
        this.#after(5_000, () => this.#tell(process, { kind: "farewell-said" }));
        break;
      case "change-power":
        this.power = effect.how;
        break;
      case "end":
        this.isOver = true;
        process.isAlive = false;
        break;
      default:
        if (effect.kind.startsWith("call-")) this.#send(process, effect as Call);
    }
  }

  #drop(process: Process): void {
    const { phase } = process.state;
    // An abort, or a run that does not know this host any more, gives it up.
    if (phase.kind === "aborted" || phase.kind === "over") {
      if (this.#result !== undefined) this.#owed.delete(this.#result.result);
    }
    this.#result = undefined;
  }

  #startStage(process: Process, attempt: string): void {
    if (this.#running !== undefined) throw new Error("Two stages at once");
    this.#running = attempt;
    this.#after(500 + this.chance.below(20_000), () => this.#endOf(process, attempt));
  }

  #endStage(process: Process): void {
    const attempt = this.#running;
    if (attempt === undefined) return;
    // Its children end in a moment; nothing is begun before.
    this.#running = undefined;
    this.#after(100, () => this.#report(process, attempt));
  }

  #endOf(process: Process, attempt: string): void {
    if (!process.isAlive || this.#running !== attempt) return;
    this.#running = undefined;
    this.#report(process, attempt);
  }

  #report(process: Process, attempt: string): void {
    const { phase } = process.state;
    const stage = phase.kind === "running" ? phase.stage : "SMART";
    const outcome = this.chance.happens(0.1) ? "FAIL" : "PASS";
    const told = report(outcome, stage);
    this.#tell(process, { kind: "stage-ended", attempt, report: told, duration: 1 });
  }

  /** To the orchestrator, which does it once, twice, later or never; and the answer back. */
  #send(process: Process, call: Call): void {
    const { chance, trouble } = this;
    const delay = chance.happens(trouble.late) ? 5_000 + chance.below(60_000) : chance.below(50);
    const input = this.#inputOf(process, call);
    const fail = () =>
      this.#tell(process, {
        ...{ kind: "call-failed", ticket: call.ticket, failure: failure("passing") },
      });
    if (chance.happens(trouble.doubled)) {
      this.#after(delay + chance.below(30_000), () => this.#ask(process, call, input));
    }
    if (chance.happens(trouble.lost)) {
      this.#after(10_000, fail);
      return;
    }
    const isAnswerLost = chance.happens(trouble.lost);
    this.#after(delay, () => {
      const answer = this.#ask(process, call, input);
      if (isAnswerLost || delay > 10_000) return;
      this.#after(chance.below(50), () => this.#tell(process, answer));
    });
    if (isAnswerLost || delay > 10_000) this.#after(10_000, fail);
  }

  #ask(process: Process, call: Call, input: RunInput): AgentEvent {
    const { ticket } = call;
    const { instance } = process;
    const answer = this.#orchestrate(input);
    if (answer.kind === "refused") {
      const { kind } = answer.refusal;
      const how = kind === "request" ? "refused" : "displaced";
      return { kind: "call-failed", ticket, failure: failure(how) };
    }
    const { state: run } = this.story.run;
    switch (call.kind) {
      case "call-hello":
        return { kind: "hello-answered", ticket };
      case "call-claim":
        return { kind: "claimed", ticket, answer: { ...claimAnswer(run), session: instance } };
      case "call-attempt":
        return answer.kind === "start"
          ? {
              ...{ kind: "attempt-answered", ticket },
              answer: { decision: "start", number: answer.number, wipe: [...answer.wipe] },
            }
          : { kind: "attempt-answered", ticket, answer: { decision: "go", next_state: run } };
      case "call-result":
        return {
          ...{ kind: "result-answered", ticket },
          next: answer.kind === "state" ? answer.state : run,
        };
      case "call-hold":
        return answer.kind === "key"
          ? { kind: "hold-answered", ticket, key: answer.line, lasts: answer.lasts }
          : { kind: "hold-answered", ticket, key: null, lasts: null };
    }
  }

  #inputOf(process: Process, call: Call): RunInput {
    const { instance, state } = process;
    switch (call.kind) {
      case "call-hello":
        return { kind: "spoke" };
      case "call-claim":
        return { ...claimInput, by: state.kept.session === null ? "token" : "session", instance };
      case "call-attempt":
        return { kind: "attempt", attempt: call.attempt, instance, stage: call.stage };
      case "call-result": {
        const { result, attempt, stage, cancelled, duration_ms, report: told } = call.body;
        return {
          ...{ kind: "result", result, attempt, stage, cancelled, report: told },
          duration: duration_ms,
        };
      }
      case "call-hold":
        return { kind: "hold-asked", instance, address: null, hostKey: null };
    }
  }

  #beatLater(process: Process): void {
    this.#after(10_000, () => {
      if (!process.isAlive) return;
      this.#beat(process);
      this.#orchestrate({ kind: "tick" });
      this.#beatLater(process);
    });
  }

  #beat(process: Process): void {
    const { kept, phase } = process.state;
    if (kept.session === null || phase.kind === "claiming" || phase.kind === "hello") return;
    const { chance, trouble } = this;
    const acknowledged = kept.acknowledgements.slice(0, 16);
    const asked = this.now;
    const lose = () => this.#tell(process, { kind: "unheard", failure: failure("passing") });
    const copies = chance.happens(trouble.doubled) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      if (chance.happens(trouble.lost)) {
        this.#after(5_000, lose);
        continue;
      }
      this.#after(chance.below(4_000), () => {
        const input = {
          kind: "heartbeat",
          instance: process.instance,
          bootId: claimInput.bootId,
        } as const;
        const answer = this.#orchestrate({ ...input, acknowledged });
        if (chance.happens(trouble.lost)) {
          this.#after(1_000, lose);
          return;
        }
        if (answer.kind === "refused") {
          this.#tell(process, { kind: "unheard", failure: failure("displaced") });
          return;
        }
        const { run } = this.story;
        const directives: Directive[] = run.directives.map(({ id: one, kind, stage, until }) => ({
          ...{ id: one, kind, stage },
          expires_in_ms: Math.max(1, Math.round(until - this.now)),
        }));
        const told = acknowledged.map(({ id: one }) => one);
        this.#tell(process, { kind: "heard", run: run.state, directives, told, asked });
      });
    }
  }

  #orchestrate(input: RunInput): RunAnswer {
    const { story } = this;
    const context = { ...story.context, now: this.now };
    const taken = decide(story.run, input, context);
    story.run = taken.run;
    story.steps.push(taken);
    return taken.answer;
  }
}
