import * as v from "valibot";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { describeIssues } from "../../messaging/describe-issues.ts";
import { formatDuration, type Milliseconds, type MonotonicTime } from "../../units/units.ts";
import type { LinkState } from "../store.ts";
import {
  limits,
  PROTOCOL_VERSION,
  pingText,
  pongText,
  type ServerMessage,
  serverMessageSchema,
} from "./protocol.ts";

/** Waits between attempts: doubled each time up to the cap, each varied by a fifth. */
const FIRST_WAIT: Milliseconds = 50;
const LONGEST_WAIT: Milliseconds = 5_000;
const JITTER = 0.2;
/** From the credentials to a welcome: the connection, the handshake and the hello. */
const WELCOME_TIME: Milliseconds = 10_000;
/** Until credentials are there, where nobody says how long. */
const CREDENTIALS_TIME: Milliseconds = 10_000;
/** A connection that is stale for so many times `staleAfter` is given up for a new one. */
const GIVE_UP = 4;

export interface RemoteLinkOptions {
  /** "wss://host:port/v1/store", or "ws+unix:///run/x.sock:/v1/store". */
  readonly address: string;
  /** Credentials, asked for anew for each attempt. A rejection is a failed attempt. */
  readonly headers?: () => Promise<Readonly<Record<string, string>>>;
  /** How long to wait at least after such a rejection; undefined: as after any failure. */
  readonly waitAfter?: (error: unknown) => Milliseconds | undefined;
  /** How long they may take: an attempt that is given up was work for nothing, on both sides. */
  readonly credentialsTime?: Milliseconds;
  /** The pins of a server: of what it shows, and what must be found in it. */
  readonly tls?:
    | {
        readonly ca?: readonly string[];
        readonly checkServerIdentity?: (host: string, certificate: never) => Error | undefined;
      }
    | undefined;
  /** Said to the server, for its people. */
  readonly program?: string;
  /** Without a word for so long, the link is stale. A ping goes out at a third of it. */
  readonly staleAfter?: Milliseconds;
  /** Told of each failure, for the log, with the wait before the next attempt. */
  readonly onFailure?: (reason: string, wait: Milliseconds) => void;
}

export interface RemoteLinkHandlers {
  /** The link stands; what the last one was told is to be told again. */
  readonly onWelcome: (welcome: Extract<ServerMessage, { kind: "welcome" }>) => void;
  readonly onMessage: (message: Exclude<ServerMessage, { kind: "welcome" }>) => void;
  readonly onState: (state: LinkState) => void;
  /** A link that stood is lost. */
  readonly onLost: () => void;
}

const usualStaleAfter: Milliseconds = 15_000;

type Phase =
  | { readonly phase: "waiting" }
  /** Credentials are fetched, or the server has not said its welcome. */
  | { readonly phase: "greeting"; readonly attempt: number; socket?: WebSocket }
  | { readonly phase: "open"; readonly socket: WebSocket }
  | { readonly phase: "closed" };

/** One connection to a store's server after another, for ever. */
export class RemoteLink {
  readonly #loop: EventLoop;
  readonly #options: RemoteLinkOptions;
  readonly #handlers: RemoteLinkHandlers;
  readonly #staleAfter: Milliseconds;
  #state: Phase = { phase: "waiting" };
  #attempts = 0;
  #failures = 0;
  #timer: Disposable | undefined;
  #lastWord: MonotonicTime = 0;

  constructor(loop: EventLoop, options: RemoteLinkOptions, handlers: RemoteLinkHandlers) {
    this.#loop = loop;
    this.#options = options;
    this.#handlers = handlers;
    this.#staleAfter = options.staleAfter ?? usualStaleAfter;
  }

  /** @returns false when there is no link to send over */
  send(text: string): boolean {
    if (this.#state.phase !== "open") return false;
    this.#state.socket.send(text);
    return true;
  }

  dial(): void {
    if (this.#state.phase === "closed") return;
    const attempt = ++this.#attempts;
    this.#state = { phase: "greeting", attempt };
    const { credentialsTime = CREDENTIALS_TIME } = this.#options;
    const late = `no credentials within ${formatDuration(credentialsTime)}`;
    this.#wake(credentialsTime, () => this.#lose(attempt, late));
    const headers = this.#options.headers?.() ?? Promise.resolve({});
    headers.then(
      (given) => this.#open(attempt, given),
      (error: unknown) => {
        const least = this.#options.waitAfter?.(error);
        this.#lose(attempt, `no credentials: ${reasonOf(error)}`, least);
      },
    );
  }

  #open(attempt: number, headers: Readonly<Record<string, string>>): void {
    if (this.#state.phase !== "greeting" || this.#state.attempt !== attempt) return;
    this.#wake(WELCOME_TIME, () => this.#lose(attempt, "no welcome within 10 s"));
    const { address, tls, program } = this.#options;
    let socket: WebSocket;
    try {
      const options = { headers: { ...headers }, ...(tls !== undefined && { tls: { ...tls } }) };
      // Bun's own takes headers and pins, which the standard's types do not know.
      socket = new WebSocket(address, options as never);
    } catch (error) {
      this.#lose(attempt, reasonOf(error));
      return;
    }
    this.#state.socket = socket;
    socket.addEventListener("open", () => {
      socket.send(JSON.stringify({ kind: "hello", version: PROTOCOL_VERSION, program }));
    });
    socket.addEventListener("message", ({ data }) => this.#receive(attempt, socket, data));
    socket.addEventListener("error", (event) => {
      this.#lose(attempt, reasonOf("message" in event ? event.message : "refused"));
    });
    socket.addEventListener("close", ({ code, reason }) => {
      this.#lose(attempt, reason === "" ? `closed (${code})` : `closed: ${reason} (${code})`);
    });
  }

  #receive(attempt: number, socket: WebSocket, data: unknown): void {
    if (attempt !== this.#attempts || this.#state.phase === "closed") return;
    const message = parse(data);
    if ("refusal" in message) {
      this.#lose(attempt, message.refusal);
      return;
    }
    this.#lastWord = monotonicNow();
    if (this.#state.phase === "greeting") {
      if (message.kind !== "welcome") {
        this.#lose(attempt, `expected welcome, received ${message.kind}`);
        return;
      }
      this.#state = { phase: "open", socket };
      this.#failures = 0;
      this.#watchWords();
      // Requests and watches go out before anybody is told that it is up.
      this.#handlers.onWelcome(message);
      this.#handlers.onState("up");
    } else if (this.#state.phase === "open" && message.kind !== "welcome") {
      this.#handlers.onState("up");
      this.#handlers.onMessage(message);
    }
  }

  /** Pings, and says when no word comes. */
  #watchWords(): void {
    this.#wake(this.#staleAfter / 3, () => {
      const quiet = monotonicNow() - this.#lastWord;
      if (quiet >= GIVE_UP * this.#staleAfter) {
        this.#lose(this.#attempts, `no word for ${Math.round(quiet)} ms`);
        return;
      }
      if (quiet >= this.#staleAfter) this.#handlers.onState("stale");
      this.send(pingText);
      this.#watchWords();
    });
  }

  #lose(attempt: number, reason: string, least: Milliseconds = 0): void {
    const former = this.#state;
    if (attempt !== this.#attempts) return;
    if (former.phase !== "greeting" && former.phase !== "open") return;
    this.#state = { phase: "waiting" };
    former.socket?.terminate();
    this.#handlers.onState("down");
    if (former.phase === "open") this.#handlers.onLost();
    const wait = Math.max(this.#nextWait(), least);
    this.#options.onFailure?.(reason, wait);
    this.#wake(wait, () => this.dial());
  }

  #nextWait(): Milliseconds {
    const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#failures);
    this.#failures = Math.min(this.#failures + 1, 30);
    return wait * (1 + JITTER * (2 * Math.random() - 1));
  }

  #wake(wait: Milliseconds, onTime: () => void): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = this.#loop.wakeAfter(wait, onTime);
  }

  close(): void {
    const former = this.#state;
    this.#state = { phase: "closed" };
    this.#timer?.[Symbol.dispose]();
    if (former.phase === "greeting" || former.phase === "open") former.socket?.close(1000);
  }
}

function parse(data: unknown): ServerMessage | { readonly refusal: string } {
  if (typeof data !== "string") return { refusal: "expected text, received bytes" };
  if (data === pongText) return { kind: "pong" };
  if (data.length > limits.messageBytes) return { refusal: "expected a shorter message" };
  let body: unknown;
  try {
    body = JSON.parse(data);
  } catch {
    return { refusal: "expected JSON, received something else" };
  }
  const result = v.safeParse(serverMessageSchema, body);
  return result.success ? result.output : { refusal: describeIssues(result.issues) };
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
