import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { SystemCallError } from "../../../ffi/system-call-error.ts";
import { listenTcp } from "../../../ffi/tcp-socket.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { METRICS_TYPE } from "../../http/metrics.ts";
import { type InheritedListener, KeptListener } from "../../messaging/kept-listener.ts";
import { Listener } from "../../messaging/listener.ts";
import { StreamConnection } from "../../messaging/stream-connection.ts";
import { encodeHead, type HttpRequest, parseRequest } from "../../network-boot/protocol-http.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { whyNotListening } from "../../units/listen-failure.ts";
import type { Bytes, Milliseconds } from "../../units/units.ts";
import type { MetricsEndpoint } from "../metrics-endpoint.ts";
import { parseAddress } from "./readiness.ts";

/** Connections at once; one more is closed. */
export const MOST_SCRAPERS = 8;
/** From the connection to the whole request, and from there until the answer was taken. */
export const SCRAPE_TIME: Milliseconds = 10_000;
const LONGEST_REQUEST: Bytes = 8 * 1_024;
const BACKLOG = 16;
/** One part of the text waits at most. */
const QUEUED_BYTES: Bytes = 4 * 1_024 * 1_024;
const PIECE: Bytes = 256 * 1_024;

/** Nobody can listen there. */
class MetricsListenRefused extends Error {
  override readonly name = "MetricsListenRefused";
  readonly exitCode = ExitCode.refused;
}

export interface MetricsListenerOptions {
  readonly endpoint: MetricsEndpoint;
  /** The whole text, in parts. */
  readonly render: () => Promise<readonly string[]>;
  readonly onTrouble: (message: string) => void;
  /** Listens already: the program before this one made it. */
  readonly inherited?: InheritedListener | undefined;
}

/**
 * GET /metrics over plain HTTP, at an address of loopback or at a Unix socket with the mode 0600.
 * One request for each connection. Who asks while an answer is made gets the same one.
 */
export class MetricsListener implements Disposable {
  readonly #loop: EventLoop;
  readonly #options: MetricsListenerOptions;
  readonly #listener: KeptListener | Listener;
  readonly #scrapes = new Set<Scrape>();
  #rendering: Promise<readonly Uint8Array[]> | undefined;

  /** @throws MetricsListenRefused, SocketPathError */
  constructor(loop: EventLoop, options: MetricsListenerOptions) {
    this.#loop = loop;
    this.#options = options;
    const { endpoint, onTrouble, inherited } = options;
    const common = {
      onConnection: (socket: OwnedDescriptor) => this.#take(socket),
      onExhausted: (error: Error) => onTrouble(`cannot take a scraper: ${error.message}`),
    };
    if (endpoint.kind === "unix") {
      const onRemoved = () => {};
      const kept = { ...common, onRemoved, onTrouble, inherited };
      this.#listener = new KeptListener(loop, endpoint.path, kept);
    } else {
      const socket = inherited?.socket ?? listenTo(endpoint);
      this.#listener = new Listener(loop, socket, { path: undefined, ...common });
    }
  }

  /** For another program to go on with. */
  get carried(): InheritedListener | undefined {
    const listener = this.#listener;
    if (listener instanceof KeptListener) return listener.carried;
    return { socket: listener.socket, file: undefined };
  }

  #take(socket: OwnedDescriptor): void {
    if (this.#scrapes.size >= MOST_SCRAPERS) {
      socket.close();
      return;
    }
    const scrape = new Scrape(this.#loop, socket, {
      render: () => this.#render(),
      onEnd: () => this.#scrapes.delete(scrape),
    });
    this.#scrapes.add(scrape);
  }

  #render(): Promise<readonly Uint8Array[]> {
    this.#rendering ??= this.#options
      .render()
      .then((parts) => parts.map((part) => new TextEncoder().encode(part)))
      .finally(() => {
        this.#rendering = undefined;
      });
    return this.#rendering;
  }

  [Symbol.dispose](): void {
    this.#listener.close();
    for (const scrape of this.#scrapes) scrape.close();
    this.#scrapes.clear();
  }
}

function listenTo({ host, port }: Extract<MetricsEndpoint, { kind: "tcp" }>): OwnedDescriptor {
  const address = parseAddress(host)?.address;
  if (address === undefined) throw new Error(`Bug: ${host} is no address`);
  try {
    return listenTcp({ address, port }, { backlog: BACKLOG });
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    throw new MetricsListenRefused(
      `Cannot listen for scrapers at ${host} port ${port}: ${whyNotListening(error)}.`,
      { cause: error },
    );
  }
}

/** One connection, one request, one answer. */
class Scrape {
  readonly #stream: StreamConnection;
  readonly #loop: EventLoop;
  readonly #render: () => Promise<readonly Uint8Array[]>;
  readonly #onEnd: () => void;
  #head = new Uint8Array(0);
  #isAsked = false;
  /** What is still to be sent. */
  #rest: Uint8Array[] = [];
  #limit: Disposable;

  constructor(
    loop: EventLoop,
    socket: OwnedDescriptor,
    options: {
      readonly render: () => Promise<readonly Uint8Array[]>;
      readonly onEnd: () => void;
    },
  ) {
    this.#loop = loop;
    this.#render = options.render;
    this.#onEnd = options.onEnd;
    this.#limit = loop.wakeAfter(SCRAPE_TIME, () => this.close());
    this.#stream = new StreamConnection(loop, socket, {
      queuedBytes: QUEUED_BYTES,
      handlers: {
        onBytes: (bytes, descriptors) => {
          for (const descriptor of descriptors) descriptor.close();
          this.#hear(bytes);
        },
        onEnd: () => this.close(),
        onDrained: () => this.#send(),
      },
    });
  }

  #hear(bytes: Uint8Array): void {
    if (this.#isAsked) return;
    if (this.#head.length + bytes.length > 2 * LONGEST_REQUEST) {
      this.close();
      return;
    }
    const head = new Uint8Array(this.#head.length + bytes.length);
    head.set(this.#head);
    head.set(bytes, this.#head.length);
    this.#head = head;
    const parsed = parseRequest(head);
    if (parsed === undefined) return;
    this.#isAsked = true;
    this.#limit[Symbol.dispose]();
    this.#limit = this.#loop.wakeAfter(SCRAPE_TIME, () => this.close());
    if (parsed.ok) this.#serve(parsed.value);
    else {
      const { key, expected, received } = parsed.refusal;
      this.#answer(400, `${key}: expected ${expected}, received ${received}\n`);
    }
  }

  #serve({ method, path }: HttpRequest): void {
    if (method !== "GET" && method !== "HEAD") {
      this.#answer(405, `Expected GET, received ${method}\n`);
      return;
    }
    if (path !== "/metrics") {
      this.#answer(404, "Expected the path /metrics, received another one\n");
      return;
    }
    this.#render().then(
      (parts) => this.#sendAll(200, { type: METRICS_TYPE, parts, isHead: method === "HEAD" }),
      (failure: unknown) => this.#loop.fail(failure),
    );
  }

  #answer(status: number, text: string): void {
    const parts = [new TextEncoder().encode(text)];
    this.#sendAll(status, { type: "text/plain; charset=utf-8", parts, isHead: false });
  }

  #sendAll(
    status: number,
    body: {
      readonly type: string;
      readonly parts: readonly Uint8Array[];
      readonly isHead: boolean;
    },
  ): void {
    const { type, parts, isHead } = body;
    const head = encodeHead(status, {
      "Content-Type": type,
      "Content-Length": parts.reduce((sum, { length }) => sum + length, 0),
      Connection: "close",
    });
    this.#rest = [head, ...(isHead ? [] : parts.flatMap(inPieces))];
    this.#send();
  }

  /** As much as the other side takes; the rest when it has. */
  #send(): void {
    if (!this.#isAsked) return;
    while (this.#stream.isOpen && this.#stream.queuedBytes === 0) {
      const next = this.#rest.shift();
      if (next === undefined) {
        this.close();
        return;
      }
      this.#stream.send(next);
    }
  }

  /** What is queued has been sent, or is not wanted any more. */
  close(): void {
    this.#limit[Symbol.dispose]();
    this.#rest = [];
    this.#stream.close();
    this.#onEnd();
  }
}

function inPieces(bytes: Uint8Array): Uint8Array[] {
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += PIECE) pieces.push(bytes.subarray(at, at + PIECE));
  return pieces;
}
