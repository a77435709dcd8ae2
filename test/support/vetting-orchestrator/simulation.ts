/**
 * A rack from a seed: agents as the wire says that they behave, one orchestrator with its real
 * database, and a network that loses, doubles and delays what either says.
 */
import { join } from "node:path";
import * as v from "valibot";
import { ProblemError } from "../../../src/http/problem.ts";
import { hashOf } from "../../../src/identity/secrets.ts";
import { VettingDatabase } from "../../../src/vetting/orchestrator/database.ts";
import { VettingOrchestrator } from "../../../src/vetting/orchestrator/orchestrator.ts";
import { VettingRecords } from "../../../src/vetting/orchestrator/records.ts";
import { type RunState, stageOf } from "../../../src/vetting/protocol.ts";
import { brokenLink } from "../../../src/vetting/protocol-chain.ts";
import { type Outcome, type Stage, stages } from "../../../src/vetting/protocol-result.ts";
import { type Spec, specSchema } from "../../../src/vetting/protocol-spec.ts";
import { validateSpec } from "../../../src/vetting/spec/validate.ts";
import type { SeededChance } from "../chance.ts";
import { falseTimers } from "../false-timers.ts";
import { ownIdentity, report } from "./runs.ts";

export const simulatedSpec: Spec = v.parse(specSchema, {
  name: "rack",
  stages: { GPU: { enabled: false }, CPUStress: { attempts: 2 } },
});

export interface Trouble {
  /** Of each message, one way. */
  readonly lost: number;
  readonly doubled: number;
  /** It comes when others have come meanwhile. */
  readonly late: number;
  /** Of each moment. */
  readonly agentRestart: number;
  readonly hostDeath: number;
  readonly orchestratorRestart: number;
  readonly fullDisk: number;
}

export interface Told {
  readonly results: number;
  readonly lost: number;
  readonly doubled: number;
  readonly restarts: number;
  readonly deaths: number;
  readonly refusedForRoom: number;
  readonly ended: Readonly<Record<string, number>>;
}

/** What was answered, and has to be there for ever. */
interface Answered {
  readonly result: string;
  readonly stage: Stage;
  readonly next: RunState;
}

interface Spooled {
  readonly id: string;
  readonly attempt: string;
  readonly stage: Stage;
  readonly outcome: Outcome;
}

const random = (chance: SeededChance) => (bytes: number) =>
  Uint8Array.from({ length: bytes }, () => chance.below(256));
const hex = (chance: SeededChance) => Buffer.from(random(chance)(16)).toString("hex");

/** The orchestrator, with what survives of it. */
export class SimulatedSite {
  readonly chance: SeededChance;
  readonly timers = falseTimers();
  readonly #folder: string;
  isFull = false;
  restarts = 0;
  refusedForRoom = 0;
  #database: VettingDatabase;
  orchestrator: VettingOrchestrator;

  readonly #fault: "forgets" | undefined;

  constructor(folder: string, chance: SeededChance, fault?: "forgets") {
    this.#fault = fault;
    this.#folder = folder;
    this.chance = chance;
    [this.#database, this.orchestrator] = this.#open();
  }

  #open(): [VettingDatabase, VettingOrchestrator] {
    const database = VettingDatabase.open(join(this.#folder, "vetting.db"));
    const records = new VettingRecords(database);
    const transaction = records.transaction.bind(records);
    records.transaction = (act) => {
      if (this.isFull) throw Object.assign(new Error("no room"), { code: "SQLITE_FULL" });
      if (this.#fault === "forgets" && this.chance.happens(0.05)) return;
      transaction(act);
    };
    const generation = this.restarts;
    const orchestrator = new VettingOrchestrator({
      ...{ records, now: () => this.now, random: random(this.chance), version: "1.0.0" },
      time: (at = this.now) => new Date(at).toISOString(),
      // Timers of a killed process call nobody.
      wakeAfter: (wait, call) =>
        this.timers.loop.wakeAfter(wait, () => {
          if (generation === this.restarts) call();
        }),
      logger: { info: () => {}, warn: () => {} },
      validate: validateSpec,
      networkTest: () => null,
    });
    return [database, orchestrator];
  }

  get now(): number {
    return 1_700_000_000_000 + this.timers.now();
  }

  /** kill -9: what was not committed is gone, with who waited for it. */
  restart(): void {
    this.restarts += 1;
    this.#database[Symbol.dispose]();
    [this.#database, this.orchestrator] = this.#open();
  }

  /** Lets what waits for a moment have it. */
  async pass(milliseconds: number): Promise<void> {
    this.timers.advance(milliseconds);
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }

  close(): void {
    this.#database[Symbol.dispose]();
  }
}

/** One call of an agent, as the network brings it. */
type Call<Answer> = (orchestrator: VettingOrchestrator) => Promise<Answer>;

export class SimulatedHost {
  readonly mac: string;
  readonly answered: Answered[] = [];
  /** Directives that it took up, each by its id. */
  readonly taken = new Map<string, number>();
  readonly wipes: { readonly attempt: string; readonly serials: readonly string[] }[] = [];
  deaths = 0;
  lost = 0;
  doubled = 0;
  run = 0;
  #site: SimulatedSite;
  #trouble: Trouble;
  #token: string | undefined;
  #session: string | undefined;
  #boot = 0;
  #instance = "";
  #state: RunState | undefined;
  #attempt: { readonly id: string; readonly stage: Stage } | undefined;
  #attemptAsked: { readonly id: string; readonly stage: Stage } | undefined;
  /** In memory of the host: it outlives the agent, and not the host. */
  #spool: Spooled[] = [];
  #late: (() => Promise<unknown>)[] = [];
  #acknowledged: { readonly id: string; readonly result: "done"; readonly reason: null }[] = [];

  constructor(site: SimulatedSite, mac: string, trouble: Trouble) {
    this.#site = site;
    this.mac = mac;
    this.#trouble = trouble;
  }

  calm(trouble: Trouble): void {
    this.#trouble = trouble;
  }

  get #chance(): SeededChance {
    return this.#site.chance;
  }

  /** @returns undefined where no answer came */
  async #send<Answer>(call: Call<Answer>): Promise<Answer | undefined> {
    const { lost, doubled, late } = this.#trouble;
    const deliver = async () => {
      try {
        const waiting = call(this.#site.orchestrator);
        waiting.catch(() => {});
        await this.#site.pass(20);
        // Who was killed meanwhile answers nobody.
        return await Promise.race([waiting, nextMoment()]);
      } catch (error) {
        if (!(error instanceof ProblemError)) throw error;
        if (error.kind === "full") this.#site.refusedForRoom += 1;
        else if (error.kind !== "unavailable") this.#refused(error);
        return undefined;
      }
    };
    if (this.#chance.happens(lost)) {
      this.lost += 1;
      return undefined;
    }
    if (this.#chance.happens(late)) {
      this.#late.push(deliver);
      return undefined;
    }
    const answer = await deliver();
    if (this.#chance.happens(doubled)) {
      this.doubled += 1;
      this.#late.push(deliver);
    }
    // The answer is lost on its way back.
    return this.#chance.happens(lost) ? undefined : answer;
  }

  /** Its session is not what it was: the agent claims again, or waits for a boot. */
  #refused({ kind }: ProblemError): void {
    if (kind === "conflict") this.#state = undefined;
    if (kind === "unauthenticated" || kind === "gone") {
      [this.#session, this.#token, this.#state] = [undefined, undefined, undefined];
    }
  }

  #restartAgent(): void {
    this.#instance = hex(this.#chance);
    this.#state = undefined;
    this.#attempt = undefined;
    this.#attemptAsked = undefined;
  }

  async step(): Promise<void> {
    const { agentRestart, hostDeath } = this.#trouble;
    const late = this.#late.shift();
    if (late !== undefined && this.#chance.happens(0.5)) await late();
    else if (late !== undefined) this.#late.push(late);
    if (this.#chance.happens(hostDeath)) this.#die();
    if (this.#chance.happens(agentRestart)) this.#restartAgent();
    if (this.#session === undefined && this.#token === undefined) await this.#fetchScript();
    else if (this.#state === undefined) await this.#claim();
    else await this.#work();
  }

  #die(): void {
    this.deaths += 1;
    this.#restartAgent();
    [this.#session, this.#token] = [undefined, undefined];
    this.#spool = [];
    this.#acknowledged = [];
  }

  async #fetchScript(): Promise<void> {
    const minted = await this.#send((orchestrator) => orchestrator.mintBootToken(this.mac));
    if (minted === undefined || !("token" in minted)) return;
    this.#boot += 1;
    this.#restartAgent();
    [this.run, this.#token] = [minted.run, minted.token];
  }

  /** As the routes do it: who the token is of, and then what it asks. */
  #admit(orchestrator: VettingOrchestrator, token: string | undefined): string | null {
    const { principal } = orchestrator.authenticate(token ?? "hostler-run-none") ?? {};
    if (principal?.kind !== "run") throw new Error("It is no run's token");
    return principal.session;
  }

  async #claim(): Promise<void> {
    const token = this.#session ?? this.#token;
    const instance = this.#instance;
    const bootId = `boot-${this.#boot}`;
    const answer = await this.#send(async (orchestrator) => {
      const held = this.#admit(orchestrator, token);
      const fresh = orchestrator.newSession(this.run);
      const { run } = await orchestrator.post(this.run, {
        ...{ kind: "claim", by: held === null ? "token" : "session", instance, bootId },
        ...{ session: held ?? hashOf(fresh.secret), mac: this.mac, address: null },
        ...{ version: "1.0.0", identity: ownIdentity, macs: [this.mac] },
      });
      return { state: run.state, session: held === null ? fresh.token : (token ?? ""), instance };
    });
    if (answer === undefined || answer.instance !== this.#instance) return;
    [this.#session, this.#token, this.#state] = [answer.session, undefined, answer.state];
  }

  async #work(): Promise<void> {
    const [waiting] = this.#spool;
    if (waiting !== undefined) return await this.#tellResult(waiting);
    if (this.#attempt !== undefined) {
      if (this.#chance.happens(0.5)) return await this.#beat();
      return this.#finish(this.#attempt);
    }
    const stage = stageOf(this.#state ?? "Queued");
    if (stage === undefined || this.#chance.happens(0.2)) return await this.#beat();
    await this.#begin(stage);
  }

  #finish({ id, stage }: { readonly id: string; readonly stage: Stage }): void {
    const outcome = this.#chance.happens(0.12) ? "FAIL" : this.#chance.pick(["PASS", "WARN"]);
    this.#spool.push({ id: hex(this.#chance), attempt: id, stage, outcome });
    this.#attempt = undefined;
  }

  async #begin(stage: Stage): Promise<void> {
    const asked =
      this.#attemptAsked?.stage === stage ? this.#attemptAsked : { id: hex(this.#chance), stage };
    this.#attemptAsked = asked;
    const [session, instance] = [this.#session, this.#instance];
    const answer = await this.#send(async (orchestrator) => {
      this.#admit(orchestrator, session);
      const { id: attempt } = asked;
      return await orchestrator.post(this.run, { kind: "attempt", attempt, instance, stage });
    });
    if (answer === undefined || instance !== this.#instance) return;
    this.#attemptAsked = undefined;
    if (answer.answer.kind !== "start") {
      this.#state = answer.run.state;
      return;
    }
    const { wipe } = answer.answer;
    if (wipe.length > 0) this.wipes.push({ attempt: asked.id, serials: wipe });
    this.#attempt = asked;
  }

  async #tellResult(told: Spooled): Promise<void> {
    const [session, instance] = [this.#session, this.#instance];
    const { id: result, attempt, stage, outcome } = told;
    const answer = await this.#send(async (orchestrator) => {
      this.#admit(orchestrator, session);
      return await orchestrator.post(this.run, {
        ...{ kind: "result", result, attempt, stage, cancelled: false, duration: 1 },
        report: report(outcome, stage),
      });
    });
    if (answer === undefined) return;
    this.#spool = this.#spool.filter(({ id }) => id !== result);
    if (answer.answer.kind === "state") {
      this.answered.push({ result, stage, next: answer.answer.state });
      if (instance === this.#instance) this.#state = answer.answer.state;
    }
  }

  async #beat(): Promise<void> {
    const [session, instance, bootId] = [this.#session, this.#instance, `boot-${this.#boot}`];
    const acknowledged = [...this.#acknowledged];
    const answer = await this.#send(async (orchestrator) => {
      this.#admit(orchestrator, session);
      const { run } = await orchestrator.post(this.run, {
        ...{ kind: "heartbeat", instance, bootId, acknowledged },
      });
      return { state: run.state, directives: orchestrator.directivesOf(run) };
    });
    if (answer === undefined || instance !== this.#instance) return;
    this.#acknowledged = this.#acknowledged.filter((one) => !acknowledged.includes(one));
    for (const { id, kind } of answer.directives) {
      if (this.taken.has(id)) continue;
      this.taken.set(id, (this.taken.get(id) ?? 0) + 1);
      if (kind === "cancel" || kind === "abort") this.#attempt = undefined;
      this.#acknowledged.push({ id, result: "done", reason: null });
    }
    if (this.#attempt === undefined) this.#state = answer.state;
  }
}

/** An answer that has not come when all has had its turn comes never: its asker goes on. */
export async function nextMoment(): Promise<undefined> {
  for (let turn = 0; turn < 3; turn += 1) {
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
  }
  return undefined;
}

export class InvariantBroken extends Error {
  override readonly name = "InvariantBroken";
}

/** What has to be so of a run, whatever has happened. @throws InvariantBroken */
export function checkRun(site: SimulatedSite, host: SimulatedHost, run: number): void {
  const { orchestrator } = site;
  const broken = (why: string) => {
    throw new InvariantBroken(`run ${run}: ${why}`);
  };
  const entry = orchestrator.entry(run);
  const results = orchestrator.records.results(run);
  const { created, mac, specRevision, verdict, state, stages: progress } = entry.run;
  const subject = { run, mac, created, spec_revision: specRevision, spec: entry.spec };
  if (brokenLink(subject, results, hashOf) !== undefined) broken("its chain does not hold");
  if (results.length !== entry.results) broken("its chain has another length");
  const events = orchestrator.records.events(run);
  if (events.some(({ sequence }, place) => sequence !== place + 1)) broken("an event is missing");
  if (state === "Completed" && verdict === null) broken("it is completed without a verdict");
  if (state === "Completed") {
    for (const stage of stages) {
      const last = results.findLast((result) => result.stage === stage);
      const isWell = last !== undefined && !["FAIL", "ERROR"].includes(last.report.outcome);
      if (!isWell && progress[stage]?.isOverridden !== true) broken(`${stage} did not pass`);
      if (!isWell && verdict === "passed")
        broken(`${stage} was accepted, and the verdict is silent`);
    }
  }
  for (const { result } of host.answered) {
    const kept = entry.run.answers.filter((answer) => answer.result === result);
    if (kept.length > 1) broken(`result ${result} was taken twice`);
  }
  const attempts = results
    .filter(({ source }) => source === "agent")
    .map(({ stage, attempt }) => `${stage} ${attempt}`);
  if (new Set(attempts).size !== attempts.length) broken("an attempt has two results");
}
