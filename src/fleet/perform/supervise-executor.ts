import * as v from "valibot";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import {
  type ControlClient,
  ControlRefusal,
  ControlUnreachable,
  connectControl,
} from "../../messaging/control-client.ts";
import {
  type CandidateOutcome,
  type CandidateStart,
  type Executor,
  ExecutorRefused,
} from "../executor.ts";
import { type LastWords, lastWordsSchema } from "../protocol.ts";
import { runPlainly } from "./prove.ts";

const outcomeSchema = v.variant("kind", [
  v.strictObject({ kind: v.literal("ready") }),
  v.strictObject({ kind: v.literal("ended"), lastWords: lastWordsSchema }),
]);

/** Loose, because a later supervisor may say more. */
const statusSchema = v.looseObject({
  candidate: v.nullable(v.looseObject({ instance: v.string() })),
});

/**
 * How often, and how many times, a supervisor that is not there is looked for before it is asked
 * for a candidate, or for the canonical agent. One that is started again ends this agent, and the
 * next one goes on with the upgrade: that a supervisor was killed says nothing against a version.
 */
export const supervisorLooks = { every: 1_000, most: 60 } as const;

/** Candidates are children of the supervisor, whose child the agent is as well. */
export class SuperviseExecutor implements Executor {
  readonly kind = "supervise";
  /** What a container lets its processes do cannot be taken from one of them alone. */
  readonly runConfined = runPlainly;
  /** The supervisor's control socket. */
  readonly socket: string;

  readonly #loop: Pick<EventLoop, "wakeAfter">;

  constructor(socket: string, loop: Pick<EventLoop, "wakeAfter">) {
    this.socket = socket;
    this.#loop = loop;
  }

  async startCandidate(start: CandidateStart): Promise<CandidateOutcome> {
    const { instance, program, words, environment } = start;
    await this.#awaitSupervisor();
    return await this.#ask(outcomeSchema, "start-candidate", {
      ...{ instance, program, words, environment },
      ends_after_ms: Math.ceil(start.endsAfter),
      ready_within_ms: Math.ceil(start.readyWithin),
    });
  }

  async findCandidate(instance: string): Promise<boolean> {
    return await this.#ask(v.boolean(), "find-candidate", { instance });
  }

  async candidateEnd(instance: string): Promise<LastWords> {
    return await this.#ask(lastWordsSchema, "candidate-end", { instance });
  }

  async stopCandidate(instance: string): Promise<LastWords> {
    return await this.#ask(lastWordsSchema, "stop-candidate", { instance });
  }

  /**
   * A supervisor that is killed while it is asked leaves an agent without an answer, and says as
   * little against the version: the next one is asked, unless it has ended this agent before.
   */
  async restartCanonical(): Promise<void> {
    for (let look = 0; ; look += 1) {
      try {
        await this.#ask(v.null(), "restart-canonical", {});
        return;
      } catch (error) {
        const isGone = (error as Error).cause instanceof ControlUnreachable;
        if (!isGone || look >= supervisorLooks.most) throw error;
      }
      await this.#wait();
    }
  }

  #wait(): Promise<void> {
    return new Promise((resolve) => {
      this.#loop.wakeAfter(supervisorLooks.every, resolve);
    });
  }

  /** Its output goes where the supervisor's goes, and is not kept: how it ended is known. */
  async formerCanonicalEnd(): Promise<LastWords | null> {
    return await this.#ask(v.nullable(lastWordsSchema), "canonical-end", {});
  }

  /**
   * Has the supervisor itself go on as what `current` leads to: the agent stays. A candidate would
   * be nobody's then, and is ended before: from the swap on it is needed no more.
   * @throws ExecutorRefused
   */
  async renewSupervisor(): Promise<void> {
    const { candidate } = await this.#ask(statusSchema, "status", {});
    if (candidate !== null) await this.stopCandidate(candidate.instance);
    await this.#ask(v.null(), "renew", {});
  }

  /** Until it listens; what is asked after the last look is refused. */
  async #awaitSupervisor(): Promise<void> {
    for (let look = 0; look < supervisorLooks.most; look += 1) {
      try {
        (await connectControl(this.socket)).close();
        return;
      } catch (error) {
        if (!(error instanceof ControlUnreachable)) throw error;
      }
      await this.#wait();
    }
  }

  /** A connection for each question: an agent that is ended leaves nothing open. */
  async #ask<Schema extends v.GenericSchema>(
    schema: Schema,
    verb: string,
    fields: Readonly<Record<string, unknown>>,
  ): Promise<v.InferOutput<Schema>> {
    let client: ControlClient | undefined;
    try {
      client = await connectControl(this.socket);
      const parsed = v.safeParse(schema, await client.request(verb, fields));
      if (parsed.success) return parsed.output;
      throw new ExecutorRefused(
        `Cannot understand the supervisor at ${this.socket}: expected the answer to ${verb}, ` +
          "received something else. Restart it: it is of another version.",
      );
    } catch (error) {
      if (error instanceof ControlRefusal || error instanceof ControlUnreachable) {
        throw new ExecutorRefused(error.message, { cause: error });
      }
      throw error;
    } finally {
      client?.close();
    }
  }
}
