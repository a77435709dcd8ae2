import * as v from "valibot";
import { nearest } from "../units/nearest.ts";
import { ControlRefusal, ControlUnreachable } from "./control-client.ts";

/** How a daemon is spoken of to whoever asked it something. */
export interface DaemonWords {
  /** "orchestrator" */
  readonly daemon: string;
  /** How it is started: "hostler vm worker". */
  readonly start: string;
  /** Of a refusal that names all that there is in `expected`, with commas, and the wrong name. */
  readonly unknownName: string;
}

/** A refusal as it came: what it says of one value may be missing. */
export interface ToldRefusal {
  readonly kind: string;
  readonly message: string;
  readonly expected?: string | undefined;
  readonly received?: string | undefined;
  readonly hint?: string | undefined;
}

/** Makes what a daemon's client throws; the message has the mend. */
export type MakeError<ClientError> = (message: string, options?: ErrorOptions) => ClientError;

/** Answers and refusals of one daemon's control socket, in the words of its client. */
export class ControlAnswers<ClientError extends Error> {
  readonly #words: DaemonWords;
  readonly #makeError: MakeError<ClientError>;

  constructor(words: DaemonWords, makeError: MakeError<ClientError>) {
    this.#words = words;
    this.#makeError = makeError;
  }

  /** @throws the client's error for an answer that is not understood */
  validate<T>(schema: v.GenericSchema<unknown, T>, answer: unknown): T {
    const outcome = v.safeParse(schema, answer);
    if (outcome.success) return outcome.output;
    const [issue] = outcome.issues;
    const where = v.getDotPath(issue) ?? "the answer";
    throw this.#makeError(
      `The ${this.#words.daemon}'s answer is not understood: ${where}: expected ` +
        `${issue.expected}, received ${issue.received}. Are both of the same version?`,
    );
  }

  /** A refusal, with what the reader can do. */
  describeRefusal(refusal: ToldRefusal): ClientError {
    const { kind, message, expected, received, hint } = refusal;
    const known = kind === this.#words.unknownName ? (expected ?? "").split(", ") : [];
    const meant = nearest(received ?? "", known);
    const mend = meant === undefined ? hint : `Did you mean ${meant}?`;
    return this.#makeError(mend === undefined ? message : `${message}. ${mend}`);
  }

  /** What went wrong, with what the reader can do; what is none of the daemon's stays as it is. */
  translate(error: unknown, path?: string): unknown {
    if (error instanceof ControlRefusal) return this.describeRefusal(error.error);
    if (!(error instanceof ControlUnreachable)) return error;
    const { daemon, start } = this.#words;
    const { code } = error;
    if (path !== undefined && (code === "ENOENT" || code === "ECONNREFUSED")) {
      return this.#makeError(
        `The ${daemon} does not run, or its control socket is elsewhere: ${path} (${code}). ` +
          `Start it by ${start}, or give --control-socket PATH.`,
      );
    }
    if (path !== undefined && (code === "EACCES" || code === "EPERM")) {
      return this.#makeError(
        `The control socket ${path} is for the ${daemon}'s own user alone (${code}). ` +
          "Run this as that user.",
      );
    }
    return this.#makeError(error.message, { cause: error.cause });
  }
}
