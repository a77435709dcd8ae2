import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { monotonicNow } from "../event-loop/clock.ts";
import { describeReadingRefusal, refusalCode } from "../journal/file-refused.ts";
import { describeError } from "../logging/format.ts";
import { formatDuration, type Milliseconds, type MonotonicTime } from "../units/units.ts";
import { ArtifactRefused } from "./artifact-refused.ts";
import { patienceOf, type SourceEvent } from "./lifecycle-sources.ts";

/** Time, as whoever fetches needs it. */
export interface FetchClock {
  now(): MonotonicTime;
  /** Resolves after that time, and at once when the signal has come. */
  wait(time: Milliseconds, signal: AbortSignal): Promise<void>;
}

export const systemClock: FetchClock = {
  now: monotonicNow,
  wait: (time, signal) =>
    new Promise((resolve) => {
      const done = AbortSignal.any([signal, AbortSignal.timeout(Math.ceil(time))]);
      if (done.aborted) resolve();
      else done.addEventListener("abort", () => resolve(), { once: true });
    }),
};

export const transportLimits = {
  redirects: 5,
  /** A server that says nothing for so long is taken for away. */
  silence: 30_000 as Milliseconds,
} as const;

/** Bytes of a published file, as they come; or what the source did in their place. */
export type Opened =
  | {
      readonly kind: "body";
      /** Where in the file the first of them is. */
      readonly position: number;
      /** The file to its end, whatever was asked for. */
      readonly isWhole: boolean;
      readonly bytes: AsyncIterable<Uint8Array>;
    }
  | SourceEvent;

/** A folder that releases are published in. */
export interface Source {
  /** For people. */
  readonly address: string;
  /**
   * @param range without it, all of the file; a server may answer with all of it anyway
   * @throws the signal's reason
   */
  open(
    name: string,
    range: { readonly position: number; readonly bytes: number } | undefined,
    signal: AbortSignal,
  ): Promise<Opened>;
}

export interface SourceOptions {
  readonly clock?: FetchClock;
  /** PEM: whom https: servers are certified by; those that Bun brings without it. */
  readonly certificates?: readonly string[];
  readonly silence?: Milliseconds;
}

/** @throws ArtifactRefused for an address that is none */
export function openSource(address: string, options: SourceOptions = {}): Source {
  const url = URL.parse(address);
  const refuse = (received: string) =>
    new ArtifactRefused(`fetch from ${address.slice(0, 200)}`, {
      refusal: "bad-source",
      expected: "the address of a folder that begins with https:, http: or file:",
      received,
      mend: "Write it as https://example.org/hostler or file:///media/usb/hostler",
    });
  if (url === null) throw refuse("no address");
  if (url.username !== "" || url.password !== "") throw refuse("one with a user's name in it");
  if (url.search !== "" || url.hash !== "") throw refuse("one with ? or # in it");
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  switch (url.protocol) {
    case "https:":
    case "http:":
      return new HttpSource(url, options);
    case "file:":
      if (url.host !== "") throw refuse(`a file of the host ${url.host}`);
      return new FileSource(fileURLToPath(url));
    default:
      throw refuse(`one that begins with ${url.protocol}`);
  }
}

class FileSource implements Source {
  readonly address: string;
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
    this.address = `file://${folder}`;
  }

  async open(
    name: string,
    range: { readonly position: number; readonly bytes: number } | undefined,
    signal: AbortSignal,
  ): Promise<Opened> {
    signal.throwIfAborted();
    const path = `${this.#folder}${name}`;
    try {
      // Nothing that was put in its place is waited for, such as a FIFO.
      const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
      const status = await file.stat();
      if (!status.isFile()) {
        await file.close();
        return { kind: "absent", why: `${path}: expected a file, received something else` };
      }
      const { position = 0, bytes = status.size } = range ?? {};
      if (position + bytes > status.size) {
        await file.close();
        return { kind: "wrong", why: `${path}: the file is shorter` };
      }
      const pieces = piecesOf(file, position, position + bytes, signal);
      return { kind: "body", position, isWhole: range === undefined, bytes: pieces };
    } catch (error) {
      const code = refusalCode(error);
      if (code === undefined) throw error;
      const { why } = describeReadingRefusal(code);
      const kind = code === "ENOENT" || code === "ENOTDIR" ? "absent" : "failed";
      return { kind, why: `${path}: ${why}` };
    }
  }
}

const pieceBytes = 256 * 1024;

async function* piecesOf(
  file: Awaited<ReturnType<typeof open>>,
  position: number,
  end: number,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  try {
    for (let at = position; at < end; ) {
      signal.throwIfAborted();
      const memory = new Uint8Array(Math.min(pieceBytes, end - at));
      const { bytesRead } = await file.read(memory, 0, memory.length, at);
      if (bytesRead === 0) return;
      at += bytesRead;
      yield memory.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}

class HttpSource implements Source {
  readonly address: string;
  readonly #base: URL;
  readonly #options: SourceOptions;
  readonly #clock: FetchClock;

  constructor(base: URL, options: SourceOptions) {
    this.#base = base;
    this.address = base.href;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  async open(
    name: string,
    range: { readonly position: number; readonly bytes: number } | undefined,
    signal: AbortSignal,
  ): Promise<Opened> {
    const watch = new SilenceWatch(this.#clock, this.#options.silence ?? transportLimits.silence);
    const both = AbortSignal.any([signal, watch.signal]);
    let isOpen = false;
    try {
      const answered = await this.#follow(name, range, both);
      if (!(answered instanceof Response)) return answered;
      const event = this.#judge(answered, range);
      if (event !== undefined) {
        await answered.body?.cancel();
        return event;
      }
      isOpen = true;
      const isWhole = answered.status !== 206;
      const position = isWhole ? 0 : (range?.position ?? 0);
      const bytes = watched(answered, watch, (error) => this.#failure(error, signal, watch));
      return { kind: "body", position, isWhole, bytes };
    } catch (error) {
      return { kind: "failed", why: this.#failure(error, signal, watch).message };
    } finally {
      watch.rest();
      if (!isOpen) watch.close();
    }
  }

  async #follow(
    name: string,
    range: { readonly position: number; readonly bytes: number } | undefined,
    signal: AbortSignal,
  ): Promise<Response | SourceEvent> {
    let url = new URL(encodeURIComponent(name), this.#base);
    for (let count = 0; count <= transportLimits.redirects; count += 1) {
      const response = await this.#ask(url, range, signal);
      const location = response.headers.get("location");
      if (response.status < 300 || response.status > 399 || location === null) return response;
      await response.body?.cancel();
      const next = URL.parse(location, url.href);
      const refusal = refuseRedirect(url, next);
      if (refusal !== undefined) return { kind: "absent", why: `${url.href}: ${refusal}` };
      url = next as URL;
    }
    const expected = `at most ${transportLimits.redirects} redirects`;
    const why = `${url.href}: expected ${expected}, received more`;
    return { kind: "absent", why };
  }

  #ask(
    url: URL,
    range: { readonly position: number; readonly bytes: number } | undefined,
    signal: AbortSignal,
  ): Promise<Response> {
    const { certificates } = this.#options;
    const asked =
      range === undefined
        ? {}
        : { range: `bytes=${range.position}-${range.position + range.bytes - 1}` };
    return fetch(url, {
      signal,
      redirect: "manual",
      // The bytes as they are published: nothing on the way unpacks them.
      decompress: false,
      headers: { "accept-encoding": "identity", "cache-control": "no-transform", ...asked },
      ...(certificates !== undefined && { tls: { ca: [...certificates] } }),
    } as RequestInit);
  }

  /** @returns undefined for an answer whose body is the file's */
  #judge(
    response: Response,
    range: { readonly position: number; readonly bytes: number } | undefined,
  ): SourceEvent | undefined {
    const { status, headers } = response;
    const failed = (expected: string, received: string): SourceEvent => ({
      kind: "failed",
      why: `${response.url}: expected ${expected}, received ${received}`,
    });
    if (status === 429 || status === 503) {
      const wait = patienceOf(headers.get("retry-after"), headers.get("date"), Date.parse);
      return { kind: "patience", wait };
    }
    if (status === 416) return { kind: "wrong", why: `${response.url}: the file is shorter` };
    const encoding = headers.get("content-encoding") ?? "identity";
    if (status === 200 || status === 206) {
      if (encoding !== "identity") return failed("the bytes as they are", `${encoding} of them`);
      if (status === 200) return undefined;
      const [, start] =
        /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(headers.get("content-range") ?? "") ?? [];
      if (range !== undefined && Number(start) === range.position) return undefined;
      return failed(
        `bytes from ${range?.position ?? 0} on`,
        headers.get("content-range") ?? "none",
      );
    }
    if (status >= 400 && status < 500 && status !== 408) {
      return {
        kind: "absent",
        why: `${response.url}: expected the file, received status ${status}`,
      };
    }
    return failed("the file", `status ${status}`);
  }

  /** @throws the caller's signal's reason */
  #failure(error: unknown, signal: AbortSignal, watch: SilenceWatch): Error {
    if (signal.aborted) throw signal.reason;
    const why = watch.signal.aborted ? watch.describe() : describeError(error);
    return new Error(`${this.address}: ${why}`);
  }
}

function refuseRedirect(from: URL, to: URL | null): string | undefined {
  if (to === null) return "expected a redirect to an address, received something else";
  if (to.protocol !== "https:" && to.protocol !== "http:") {
    return `expected a redirect to https: or http:, received one to ${to.protocol}`;
  }
  if (from.protocol === "https:" && to.protocol === "http:") {
    return "expected a redirect to https:, received one to http:";
  }
  return undefined;
}

/** A body that breaks off, or that nothing comes of any more, ends with an error of ours. */
async function* watched(
  response: Response,
  watch: SilenceWatch,
  failure: (error: unknown) => Error,
): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  try {
    for (;;) {
      watch.begin();
      const { done, value } = await reader.read();
      watch.rest();
      if (done) return;
      yield value;
    }
  } catch (error) {
    throw failure(error);
  } finally {
    watch.close();
    // Who wants no more of it has the rest of it not sent.
    await reader.cancel().catch(() => undefined);
  }
}

/** Ends a request of which nothing comes for too long; time in which nobody asks does not count. */
class SilenceWatch {
  readonly #clock: FetchClock;
  readonly #silence: Milliseconds;
  readonly #over = new AbortController();
  readonly #closed = new AbortController();
  /** Since when something is waited for. */
  #since: MonotonicTime | undefined;

  /** It counts from the begin. */
  constructor(clock: FetchClock, silence: Milliseconds) {
    this.#clock = clock;
    this.#silence = silence;
    this.begin();
    void this.#look();
  }

  get signal(): AbortSignal {
    return this.#over.signal;
  }

  describe(): string {
    return `said nothing for ${formatDuration(this.#silence)}`;
  }

  begin(): void {
    this.#since = this.#clock.now();
  }

  rest(): void {
    this.#since = undefined;
  }

  close(): void {
    this.#closed.abort();
  }

  /** One timer for all of a request, however many pieces it comes in. */
  async #look(): Promise<void> {
    while (!this.#closed.signal.aborted) {
      const waited = this.#since === undefined ? 0 : this.#clock.now() - this.#since;
      if (waited >= this.#silence) {
        this.#over.abort(new Error(this.describe()));
        return;
      }
      await this.#clock.wait(this.#silence - waited, this.#closed.signal);
    }
  }
}

/**
 * Reads a small file whole.
 * @param most bytes; of a longer one no more than that is read
 */
export async function readWhole(
  source: Source,
  name: string,
  options: { readonly most: number; readonly signal: AbortSignal },
): Promise<{ readonly kind: "bytes"; readonly bytes: Uint8Array } | SourceEvent> {
  const { most, signal } = options;
  const opened = await source.open(name, undefined, signal);
  if (opened.kind !== "body") return opened;
  const pieces: Uint8Array[] = [];
  let count = 0;
  try {
    for await (const piece of opened.bytes) {
      count += piece.length;
      if (count > most) {
        const why = `${source.address}${name}: expected at most ${most} bytes, received more`;
        return { kind: "absent", why };
      }
      pieces.push(piece);
    }
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    return { kind: "failed", why: describeError(error) };
  }
  return { kind: "bytes", bytes: Buffer.concat(pieces) };
}
