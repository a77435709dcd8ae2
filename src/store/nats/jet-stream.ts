import {
  headers,
  type Msg,
  type NatsConnection,
  NoRespondersError,
  PermissionViolationError,
} from "@nats-io/transport-node";
import * as v from "valibot";
import { describeIssues } from "../../messaging/describe-issues.ts";
import type { Milliseconds } from "../../units/units.ts";
import { type Entry, type Revision, StoreError, type StoreProblem } from "../store.ts";
import { type StreamConfig, streamOf, subjectOf } from "./bucket-stream.ts";

/**
 * JetStream's own messages, as ADR-1, ADR-8 and ADR-31 of nats-architecture have them. The packages
 * of the client for them do not let a header of ours through, and a write id is one.
 */

/** What a write is known by; the server itself refuses to do one twice within two minutes. */
export const writeIdHeader = "Nats-Msg-Id";
const operationHeader = "KV-Operation";
const expectHeader = "Nats-Expected-Last-Subject-Sequence";

/** Error codes of JetStream: errors.json of nats-server. */
const codes = {
  wrongLastSequence: [10071, 10164],
  notFound: [10037, 10059],
  noRoom: [10002, 10023, 10028, 10047, 10077],
} as const;

const whole = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const failure = v.object({
  code: v.optional(v.number(), 0),
  err_code: v.optional(v.number(), 0),
  description: v.optional(v.string(), ""),
});
type Failure = v.InferOutput<typeof failure>;

const writtenSchema = v.object({ error: v.optional(failure), seq: v.optional(whole) });
const createdSchema = v.object({
  error: v.optional(failure),
  num_pending: v.optional(whole),
  delivered: v.optional(v.object({ consumer_seq: v.optional(whole, 0) })),
});
const streamSchema = v.object({
  error: v.optional(failure),
  config: v.optional(v.record(v.string(), v.unknown())),
  state: v.optional(
    v.object({ first_seq: v.optional(whole, 0), last_seq: v.optional(whole, 0), bytes: whole }),
  ),
  cluster: v.optional(v.object({ leader: v.optional(v.string()) })),
});

export interface StreamInfo {
  readonly config: Readonly<Record<string, unknown>>;
  readonly first: Revision;
  readonly last: Revision;
  readonly leader: string | undefined;
}

/** What became of a write: its revision, or the one that the key has instead. */
export type Written = { readonly revision: Revision } | { readonly conflict: true };

/** One account's JetStream over one connection. */
export class JetStream {
  readonly #connection: NatsConnection;
  readonly #deadline: Milliseconds;
  /** Of the requests that are not answered. */
  readonly #open = new Set<(reason: Error) => void>();

  constructor(connection: NatsConnection, deadline: Milliseconds) {
    this.#connection = connection;
    this.#deadline = deadline;
  }

  /** @throws StoreError conflict is a value here */
  async write(
    { bucket, key }: { readonly bucket: string; readonly key: string },
    value: string | undefined,
    options: { readonly writeId: string; readonly expect?: Revision | undefined },
  ): Promise<Written> {
    const head = headers();
    head.set(writeIdHeader, options.writeId);
    if (options.expect !== undefined) head.set(expectHeader, `${options.expect}`);
    if (value === undefined) head.set(operationHeader, "DEL");
    const what = `${value === undefined ? "delete" : "put"} ${bucket} ${key}`;
    const answer = await this.#ask(subjectOf(bucket, key), value ?? "", { what, head });
    const { error, seq } = read(writtenSchema, answer, what);
    if (error === undefined && seq !== undefined) return { revision: seq };
    if (isOneOf(codes.wrongLastSequence, error)) return { conflict: true };
    throw refusalOf(what, error);
  }

  /** @throws StoreError unavailable, denied */
  async get(bucket: string, key: string): Promise<Entry | undefined> {
    const subject = `$JS.API.DIRECT.GET.${streamOf(bucket)}.${subjectOf(bucket, key)}`;
    const what = `get ${bucket} ${key}`;
    const answer = await this.#ask(subject, "", { what });
    if (answer.headers?.code === 404) return undefined;
    if (answer.headers !== undefined && answer.headers.code >= 400) {
      const { code, description } = answer.headers;
      throw refusalOf(what, { code, err_code: 0, description });
    }
    return directEntryOf(answer, { bucket, key });
  }

  /** @returns undefined when there is no such stream */
  async info(bucket: string): Promise<StreamInfo | undefined> {
    const what = `look at the bucket ${bucket}`;
    const answer = await this.#ask(`$JS.API.STREAM.INFO.${streamOf(bucket)}`, "", { what });
    return streamInfoOf(read(streamSchema, answer, what), what);
  }

  async create(config: StreamConfig): Promise<void> {
    await this.#manage("CREATE", config);
  }

  async update(config: StreamConfig): Promise<void> {
    await this.#manage("UPDATE", config);
  }

  async #manage(verb: "CREATE" | "UPDATE", config: StreamConfig): Promise<void> {
    const what = `${verb.toLowerCase()} the stream ${config.name}`;
    const subject = `$JS.API.STREAM.${verb}.${config.name}`;
    const answer = await this.#ask(subject, JSON.stringify(config), { what });
    const { error } = read(streamSchema, answer, what);
    if (error !== undefined) throw refusalOf(what, error);
  }

  /** Makes a consumer that delivers to a subject of ours. @returns how many messages it lists */
  async consume(
    bucket: string,
    config: Readonly<Record<string, unknown>> & { readonly name: string; filter_subject: string },
  ): Promise<number> {
    const stream = streamOf(bucket);
    const subject = `$JS.API.CONSUMER.CREATE.${stream}.${config.name}.${config.filter_subject}`;
    const what = `watch ${config.filter_subject}`;
    const request = JSON.stringify({ stream_name: stream, config });
    const { error, num_pending, delivered } = read(
      createdSchema,
      await this.#ask(subject, request, { what }),
      what,
    );
    if (error !== undefined || num_pending === undefined) throw refusalOf(what, error);
    // Some of them may be on their way already.
    return num_pending + (delivered?.consumer_seq ?? 0);
  }

  /** @throws StoreError ambiguous for a time-out: whoever only read knows better */
  async #ask(
    subject: string,
    data: string,
    { what, head }: { readonly what: string; readonly head?: ReturnType<typeof headers> },
  ): Promise<Msg> {
    const options = { timeout: this.#deadline, ...(head !== undefined && { headers: head }) };
    const { promise, resolve, reject } = Promise.withResolvers<Msg>();
    this.#open.add(reject);
    try {
      this.#connection.request(subject, data, options).then(resolve, reject);
      return await promise;
    } catch (error) {
      throw failureOf(what, error);
    } finally {
      this.#open.delete(reject);
    }
  }

  /** The connection is lost: what was asked has happened, or not. The client sends it no more. */
  lost(): void {
    for (const reject of [...this.#open]) reject(new Error("the connection was lost"));
  }
}

function streamInfoOf(
  { error, config, state, cluster }: v.InferOutput<typeof streamSchema>,
  what: string,
): StreamInfo | undefined {
  if (isOneOf(codes.notFound, error)) return undefined;
  if (error !== undefined || config === undefined || state === undefined) {
    throw refusalOf(what, error);
  }
  return { config, first: state.first_seq, last: state.last_seq, leader: cluster?.leader };
}

/** What came of a message in a stream, by its headers: ADR-31. */
function directEntryOf(
  message: Msg,
  { bucket, key }: { readonly bucket: string; readonly key: string },
): Entry {
  return {
    bucket,
    key,
    revision: Number(message.headers?.get("Nats-Sequence")),
    ...contentOf(message),
    time: Date.parse(message.headers?.get("Nats-Time-Stamp") ?? ""),
  };
}

/** A marker that the server wrote itself, for an entry whose age is over, is a deletion too. */
export function contentOf(message: Msg): Pick<Entry, "operation" | "value" | "writeId"> {
  const head = message.headers;
  const isPut =
    head === undefined || !(head.has(operationHeader) || head.has("Nats-Marker-Reason"));
  return {
    operation: isPut ? "put" : "delete",
    value: isPut ? message.string() : "",
    writeId: head?.get(writeIdHeader) ?? "",
  };
}

function read<Schema extends v.GenericSchema>(
  schema: Schema,
  message: Msg,
  what: string,
): v.InferOutput<Schema> {
  let body: unknown;
  try {
    body = message.json();
  } catch {
    body = undefined;
  }
  const result = v.safeParse(schema, body);
  if (result.success) return result.output;
  const said = `Cannot ${what}: of the server's answer, ${describeIssues(result.issues)}`;
  throw new StoreError(said, { kind: "ambiguous" });
}

function isOneOf(list: readonly number[], error: Failure | undefined): boolean {
  return error !== undefined && list.includes(error.err_code);
}

function refusalOf(what: string, error: Failure | undefined): StoreError {
  const { description = "an answer without content", code = 0 } = error ?? {};
  const isFull = isOneOf(codes.noRoom, error) || /maximum bytes|insufficient/.test(description);
  return new StoreError(`Cannot ${what}: ${description} (${error?.err_code ?? code})`, {
    kind: isFull ? "full" : "unavailable",
  });
}

function failureOf(what: string, error: unknown): StoreError {
  const message = `Cannot ${what}: ${reasonOf(error)}`;
  return new StoreError(message, problemOf(error), { cause: error });
}

/** A read that nobody answered: it is not ambiguous, as a write is. */
export function unanswered(error: unknown): unknown {
  if (!(error instanceof StoreError) || error.problem.kind !== "ambiguous") return error;
  return new StoreError(error.message, { kind: "unavailable" }, { cause: error });
}

function problemOf(error: unknown): StoreProblem {
  const reason = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  if (reason instanceof PermissionViolationError) return { kind: "denied" };
  // Nobody listens on the subject: it was not written.
  if (reason instanceof NoRespondersError) return { kind: "unavailable" };
  return { kind: "ambiguous" };
}

function reasonOf(error: unknown): string {
  const reason = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  if (reason instanceof NoRespondersError) return "no server keeps this bucket now";
  return reason instanceof Error ? reason.message : String(reason);
}
