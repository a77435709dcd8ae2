import * as v from "valibot";
import { formatBytes } from "../units/bytes.ts";
import { type Bytes, formatDuration, type Milliseconds } from "../units/units.ts";
import {
  HttpAddressRefused,
  HttpAnswerRefused,
  HttpRefusal,
  HttpUnreachable,
  isCertificateFailure,
  translateFailure,
} from "./client-error.ts";
import { Connections, type Way } from "./connections.ts";
import { EventReader, type RawEvent } from "./event-reader.ts";
import { isLoopback } from "./loopback.ts";
import { PinnedCertificates, type PinnedTls } from "./pinned-connection.ts";
import { kindOf, outputMismatch, type ProblemKind, problemSchema } from "./problem.ts";
import type { RouteDefinition, StreamDefinition, StreamEvent } from "./route.ts";
import { PROBLEM_EVENT } from "./stream.ts";

export interface HttpClientOptions {
  /** "https://host:port", "http://127.0.0.1:port" (loopback alone), or "unix:/run/x.sock". */
  readonly url: string;
  /** SHA-256 of the DER of certificates, in hex; one is enough of old and new. */
  readonly pins?: readonly string[];
  /** Certificates as PEM, where they are known already; they count as pinned. */
  readonly certificates?: readonly string[];
  /** Asked for each call: a session's token changes. */
  readonly token?: () => string | undefined;
  readonly limits?: Partial<HttpClientLimits>;
}

export interface HttpClientLimits {
  /** For one call, from the first byte sent to the last received. */
  readonly answerTime: Milliseconds;
  readonly answerBytes: Bytes;
  readonly eventBytes: Bytes;
  /** A stream that says nothing for so long, no heartbeat either, is taken for lost. */
  readonly streamSilence: Milliseconds;
  /**
   * A connection on which nothing was asked for so long is closed: sooner than the server does it,
   * also with what Bun adds, so that no call is sent into the server's closing.
   */
  readonly idleTime: Milliseconds;
  /** Between two tries to open a stream; doubled with each try that fails, up to the second. */
  readonly retryTime: Milliseconds;
  readonly longestRetryTime: Milliseconds;
}

export const defaultHttpClientLimits: HttpClientLimits = {
  answerTime: 30_000,
  answerBytes: 16 * 1024 * 1024,
  eventBytes: 1024 * 1024,
  streamSilence: 45_000,
  idleTime: 20_000,
  retryTime: 500,
  longestRetryTime: 30_000,
};

export interface StreamOptions {
  /** The id that was seen last; what follows it is told. */
  readonly after?: string;
  readonly signal: AbortSignal;
  /** Told when the stream is open, and each time that it was lost and why. */
  readonly onLink?: (state: "up" | { readonly down: Error }) => void;
}

/** What a stream is opened anew after; all other problems end it. */
const passingKinds: readonly (ProblemKind | undefined)[] = [
  "ended",
  "slow",
  "too-many",
  "unavailable",
];

type Method = "GET" | "POST" | "PUT" | "DELETE";

interface Ask {
  readonly method: Method;
  readonly path: string;
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  readonly mutates: boolean;
}

/**
 * A client of one server, which knows it by its certificate and not by its name. It keeps the
 * connections of calls that change nothing, and closes them when they have been idle, or when it
 * is disposed of; it can be used on after that.
 */
export class HttpClient implements Disposable {
  readonly #base: URL;
  readonly #unix: string | undefined;
  readonly #pinned: PinnedCertificates | undefined;
  readonly #options: HttpClientOptions;
  readonly #limits: HttpClientLimits;
  /** undefined: none yet with the certificates that are known now. */
  #connections: Connections | undefined;

  /** @throws HttpAddressRefused */
  constructor(options: HttpClientOptions) {
    this.#options = options;
    this.#limits = { ...defaultHttpClientLimits, ...options.limits };
    const { url, pins = [], certificates = [] } = options;
    this.#unix = /^unix:(\/.+)$/.exec(url)?.[1];
    this.#base = readUrl(this.#unix === undefined ? url : "http://localhost");
    if (this.#base.protocol === "https:") {
      this.#pinned = new PinnedCertificates(this.#base, { pins, certificates });
    } else if (this.#unix === undefined && !isLoopback(this.#host)) {
      throw new HttpAddressRefused(
        `Will not speak to ${this.#host} without TLS: expected https://, received http://`,
      );
    }
  }

  get #host(): string {
    return this.#base.hostname.replace(/^\[|\]$/g, "");
  }

  /** As it is shown to people. */
  get url(): string {
    return this.#unix === undefined ? this.#base.origin : `unix:${this.#unix}`;
  }

  /**
   * SHA-256 of the certificate that the server showed last, in hex: what the host signs into its
   * session. undefined before the first call, and without TLS.
   */
  get certificateHash(): string | undefined {
    return this.#pinned?.seen;
  }

  /** What Bun's own WebSocket takes to trust the same certificates; known after `connect`. */
  get tls(): PinnedTls | undefined {
    return this.#pinned?.tls;
  }

  /**
   * Learns the server's certificate where a pin alone is known.
   * @throws HttpPinRefused, HttpUnreachable
   */
  async connect(): Promise<void> {
    if (this.#pinned?.hasKnown === false) await this.#learn(this.#pinned);
  }

  /** What is open was checked against the certificates that were known; new ones are, by all. */
  async #learn(pinned: PinnedCertificates): Promise<void> {
    await pinned.learn(this.#limits.answerTime);
    this[Symbol.dispose]();
  }

  /** Closes connections that are idle. */
  [Symbol.dispose](): void {
    this.#connections?.[Symbol.dispose]();
    this.#connections = undefined;
  }

  /**
   * Calls a route; the answer is what its schema says.
   * @param options.answerTime in place of the client's limit
   * @throws HttpRefusal, HttpUnreachable, HttpPinRefused, HttpAnswerRefused
   */
  async call<Input extends v.GenericSchema, Output extends v.GenericSchema>(
    route: RouteDefinition<Input, Output>,
    input: v.InferInput<Input>,
    options: { readonly signal?: AbortSignal; readonly answerTime?: Milliseconds } = {},
  ): Promise<v.InferOutput<Output>> {
    const { answerBytes } = this.#limits;
    const { answerTime = this.#limits.answerTime } = options;
    const limit = AbortSignal.timeout(answerTime);
    const signal = options.signal === undefined ? limit : AbortSignal.any([limit, options.signal]);
    const { method, mutates } = route;
    const ask = { ...placeInput(route, input), method, mutates, signal };
    const bytes = await this.#within({ limit, answerTime }, ask, async () => {
      const response = await this.#fetch(ask);
      const read = await readAnswer(response, answerBytes);
      if (!response.ok) throw refusalOf(response, read);
      return read;
    });
    const checked = v.safeParse(route.output, parseAnswer(bytes));
    if (checked.success) return checked.output;
    throw new HttpAnswerRefused(`${this.url} answered what is no answer`, {
      cause: outputMismatch(route.name, checked.issues),
    });
  }

  /**
   * Asks without a schema, and gives whatever status it has.
   * @throws HttpUnreachable, HttpPinRefused, HttpAnswerRefused
   */
  async exchange(asked: {
    readonly method: "GET" | "POST";
    readonly path: string;
    /** JSON. */
    readonly body?: unknown;
  }): Promise<{ readonly status: number; readonly body: unknown }> {
    const { answerTime, answerBytes } = this.#limits;
    const signal = AbortSignal.timeout(answerTime);
    const { method, path, body } = asked;
    const sent = body === undefined ? {} : { body: JSON.stringify(body) };
    const ask: Ask = { method, path, ...sent, mutates: method !== "GET", signal };
    return await this.#within({ limit: signal, answerTime }, ask, async () => {
      const response = await this.#fetch(ask);
      const bytes = await readAnswer(response, answerBytes);
      return { status: response.status, body: parseAnswer(bytes) };
    });
  }

  /**
   * Events of a stream, as they come. A connection that is lost is opened anew, after the event
   * that was seen last; it ends with its signal, when the server has no more, or by a refusal.
   * @throws HttpRefusal, HttpPinRefused, HttpAnswerRefused
   */
  async *stream<Input extends v.GenericSchema, Output extends v.GenericSchema>(
    route: StreamDefinition<Input, Output>,
    input: v.InferInput<Input>,
    options: StreamOptions,
  ): AsyncGenerator<StreamEvent & { readonly data: v.InferOutput<Output> }> {
    const { signal, onLink } = options;
    let { after } = options;
    let wait = this.#limits.retryTime;
    while (!signal.aborted) {
      try {
        for await (const event of this.#streamOnce(route, input, { ...options, after })) {
          wait = this.#limits.retryTime;
          after = event.id === "" ? after : event.id;
          yield { ...event, data: readEvent(route, event) };
        }
        return;
      } catch (failure) {
        if (signal.aborted) return;
        if (!isPassing(failure)) throw failure;
        onLink?.({ down: failure as Error });
      }
      await passed(wait, signal);
      wait = Math.min(wait * 2, this.#limits.longestRetryTime);
    }
  }

  async *#streamOnce(
    route: StreamDefinition<v.GenericSchema, v.GenericSchema>,
    input: unknown,
    options: Omit<StreamOptions, "after"> & { readonly after: string | undefined },
  ): AsyncGenerator<RawEvent> {
    const { after, onLink } = options;
    const cut = new AbortController();
    const signal = AbortSignal.any([options.signal, cut.signal]);
    const ask: Ask = {
      ...placeInput(route, input),
      method: "GET",
      mutates: false,
      signal,
      headers: {
        accept: "text/event-stream",
        ...(after !== undefined && { "last-event-id": after }),
      },
    };
    try {
      const response = await this.#quiet(this.#fetch(ask));
      if (!response.ok || response.body === null) {
        throw refusalOf(response, await readAnswer(response, this.#limits.answerBytes));
      }
      onLink?.("up");
      const events = new EventReader(this.#limits.eventBytes);
      const reader = response.body.getReader();
      for (;;) {
        const { done, value } = await this.#quiet(reader.read());
        if (done) return;
        for (const event of events.push(value)) {
          if (event.event === PROBLEM_EVENT) throw problemOf(event.data);
          yield event;
        }
      }
    } catch (failure) {
      throw isOurs(failure) ? failure : translateFailure(failure, { ...ask, url: this.url });
    } finally {
      cut.abort();
    }
  }

  /** What a stream is waited for; silence is a loss. @throws HttpUnreachable */
  async #quiet<T>(work: Promise<T>): Promise<T> {
    const { streamSilence } = this.#limits;
    const silence = AbortSignal.timeout(streamSilence);
    const late = Promise.withResolvers<never>();
    late.promise.catch(() => {});
    const onLate = () => {
      const said = `${this.url} said nothing for ${formatDuration(streamSilence)}`;
      late.reject(new HttpUnreachable(said, { ambiguous: false }));
    };
    silence.addEventListener("abort", onLate, { once: true });
    work.catch(() => {});
    try {
      return await Promise.race([work, late.promise]);
    } finally {
      silence.removeEventListener("abort", onLate);
    }
  }

  /**
   * Opens a WebSocket; its events tell the rest.
   * @param path with its query
   * @throws HttpPinRefused, HttpUnreachable
   */
  async webSocket(path: string): Promise<WebSocket> {
    await this.connect();
    const { token } = this.#options;
    const sent = token?.();
    const headers = sent === undefined ? {} : { authorization: `Bearer ${sent}` };
    const scheme = this.#pinned === undefined ? "ws:" : "wss:";
    const url =
      this.#unix === undefined
        ? `${scheme}//${this.#base.host}${path}`
        : `ws+unix://${this.#unix}:${path}`;
    const tls = this.#pinned?.tls;
    return new WebSocket(url, {
      headers,
      ...(tls !== undefined && { tls }),
    } as Bun.WebSocketOptions);
  }

  async #within<T>(
    { limit, answerTime }: { readonly limit: AbortSignal; readonly answerTime: Milliseconds },
    ask: Ask,
    work: () => Promise<T>,
  ): Promise<T> {
    try {
      return await work();
    } catch (failure) {
      if (isOurs(failure)) throw failure;
      if (limit.aborted) {
        const time = formatDuration(answerTime);
        throw new HttpUnreachable(`No answer at ${this.url} within ${time}`, {
          cause: failure,
          ambiguous: ask.mutates,
        });
      }
      throw translateFailure(failure, { url: this.url, mutates: ask.mutates });
    }
  }

  async #fetch(ask: Ask): Promise<Response> {
    await this.connect();
    const way: Way = ask.mutates ? "own" : "kept";
    try {
      return await this.#fetchOnce(ask, way);
    } catch (failure) {
      const code = (failure as { readonly code?: unknown }).code;
      if (this.#pinned !== undefined && isCertificateFailure(failure)) {
        await this.#learn(this.#pinned);
        return await this.#fetchOnce(ask, way);
      }
      // A connection that was kept may have been closed at the moment when it was used again.
      if (ask.mutates || code !== "ECONNRESET" || ask.signal.aborted) throw failure;
      return await this.#fetchOnce(ask, "own");
    }
  }

  #fetchOnce({ method, path, body, headers = {}, signal }: Ask, way: Way): Promise<Response> {
    const token = this.#options.token?.();
    this.#connections ??= new Connections({
      tls: this.#pinned?.tls,
      unix: this.#unix,
      idleTime: this.#limits.idleTime,
    });
    return this.#connections.fetch(way, new URL(path, this.#base), {
      method,
      signal,
      redirect: "error",
      headers: {
        ...headers,
        ...(token !== undefined && { authorization: `Bearer ${token}` }),
        ...(body !== undefined && { "content-type": "application/json" }),
      },
      ...(body !== undefined && { body }),
    });
  }
}

function readUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isRight =
    url !== undefined &&
    (url.protocol === "https:" || url.protocol === "http:") &&
    url.pathname === "/" &&
    url.username === "" &&
    url.search === "";
  if (isRight) return url;
  throw new HttpAddressRefused(
    `Expected https://HOST:PORT or unix:/PATH, received ${JSON.stringify(text.slice(0, 200))}`,
  );
}

/** Puts an input where the server looks for it: path, then query for GET, body for the others. */
function placeInput(
  route: { readonly method: Method; readonly path: string },
  input: unknown,
): { readonly path: string; readonly body?: string } {
  const rest = new Map(Object.entries((input ?? {}) as Readonly<Record<string, unknown>>));
  const path = route.path.replaceAll(/:(\w+)/g, (_word, name: string) => {
    const value = rest.get(name);
    rest.delete(name);
    return encodeURIComponent(String(value ?? ""));
  });
  if (route.method !== "GET") {
    return { path, ...(rest.size > 0 && { body: JSON.stringify(Object.fromEntries(rest)) }) };
  }
  const query = new URLSearchParams();
  for (const [name, value] of rest) if (value !== undefined) query.set(name, String(value));
  return { path: query.size > 0 ? `${path}?${query}` : path };
}

/** @throws HttpAnswerRefused over the limit: nothing of it is held */
async function readAnswer(response: Response, limit: Bytes): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  const reader = response.body?.getReader();
  for (;;) {
    const next = await reader?.read();
    if (next === undefined || next.done) return Buffer.concat(chunks);
    size += next.value.length;
    if (size > limit) {
      reader?.cancel().catch(() => {});
      throw new HttpAnswerRefused(
        `Expected an answer of at most ${formatBytes(limit)}, received more`,
      );
    }
    chunks.push(next.value);
  }
}

function parseAnswer(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (failure) {
    throw notJson(failure);
  }
}

function notJson(cause: unknown): HttpAnswerRefused {
  return new HttpAnswerRefused("Expected an answer of JSON, received something else", { cause });
}

function refusalOf(response: Response, bytes: Uint8Array): Error {
  try {
    return problemOf(new TextDecoder().decode(bytes), readRetryAfter(response));
  } catch (failure) {
    const said = `Expected an answer of a hostler role, received status ${response.status}`;
    return new HttpAnswerRefused(said, { cause: failure });
  }
}

/** @throws HttpAnswerRefused for what is no problem of ours */
function problemOf(text: string, retryAfter?: Milliseconds): HttpRefusal {
  const parsed = v.safeParse(problemSchema, parseAnswer(new TextEncoder().encode(text)));
  if (!parsed.success) throw new HttpAnswerRefused("Expected problem details");
  const { type, title, status, detail, ...optional } = parsed.output;
  const told = Object.entries(optional).filter(([, value]) => value !== undefined);
  return new HttpRefusal(
    { type, title, status, detail, ...Object.fromEntries(told) },
    { retryAfter },
  );
}

/** In seconds, RFC 9110, section 10.2.3; a date is not one of ours. */
function readRetryAfter(response: Response): Milliseconds | undefined {
  const seconds = /^\d{1,9}$/.exec(response.headers.get("retry-after") ?? "")?.[0];
  return seconds === undefined ? undefined : Number(seconds) * 1_000;
}

function readEvent<Output extends v.GenericSchema>(
  route: StreamDefinition<v.GenericSchema, Output>,
  event: RawEvent,
): v.InferOutput<Output> {
  const data = parseAnswer(new TextEncoder().encode(event.data));
  const checked = v.safeParse(route.output, data);
  if (checked.success) return checked.output;
  throw new HttpAnswerRefused("The stream told what is no event of it", {
    cause: outputMismatch(route.name, checked.issues),
  });
}

function isOurs(failure: unknown): boolean {
  return failure instanceof HttpRefusal || failure instanceof HttpAnswerRefused;
}

function isPassing(failure: unknown): boolean {
  if (failure instanceof HttpRefusal) return passingKinds.includes(kindOf(failure.problem));
  return failure instanceof HttpUnreachable;
}

/** A client has no event loop of its own; what it waits for here is nothing but time. */
function passed(wait: Milliseconds, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    AbortSignal.timeout(wait).addEventListener("abort", () => resolve(), { once: true });
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
