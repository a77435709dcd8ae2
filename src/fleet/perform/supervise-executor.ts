import * as v from "valibot";
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

/** Candidates are children of the supervisor, whose child the agent is as well. */
export class SuperviseExecutor implements Executor {
  readonly kind = "supervise";
  /** What a container lets its processes do cannot be taken from one of them alone. */
  readonly runConfined = runPlainly;
  /** The supervisor's control socket. */
  readonly socket: string;

  constructor(socket: string) {
    this.socket = socket;
  }

  async startCandidate(start: CandidateStart): Promise<CandidateOutcome> {
    const { instance, program, words, environment } = start;
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

  async restartCanonical(): Promise<void> {
    await this.#ask(v.null(), "restart-canonical", {});
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
