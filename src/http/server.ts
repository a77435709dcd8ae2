import { readFileSync, statSync, unlinkSync } from "node:fs";
import { monotonicNow } from "../event-loop/clock.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import { LimitedLogger } from "../logging/limited-logger.ts";
import type { Logger } from "../logging/logger.ts";
import { ExitCode } from "../units/exit-code.ts";
import { whyNotListening } from "../units/listen-failure.ts";
import type { Milliseconds } from "../units/units.ts";
import { Dispatcher, type DispatcherOptions } from "./dispatch.ts";
import { Front } from "./front.ts";
import { defaultHttpLimits, type HttpLimits } from "./limits.ts";
import { isLoopback } from "./loopback.ts";
import { MetricsRegistry } from "./metrics.ts";
import {
  type BrowserSessions,
  browserRoutes,
  healthPage,
  metricsPage,
  openApiPage,
  type Page,
} from "./pages.ts";
import type { Permission } from "./principal.ts";
import { ProblemError } from "./problem.ts";
import {
  type Admitted,
  type Authenticate,
  type Origin,
  problemResponse,
  RequestHandler,
  type Served,
} from "./request-handler.ts";
import type { Route, StreamRoute } from "./route.ts";
import { closeCodes, type WebSocketHandlers, type WebSocketRoute } from "./web-socket.ts";

export type ListenAddress =
  | { readonly hostname: string; readonly port: number }
  | { readonly unix: string };

/** PEM; more certificates than one are a chain. */
export interface ServerCertificate {
  readonly certificate: string;
  readonly key: string;
}

export interface HttpServerOptions {
  readonly listen: ListenAddress;
  /** Off loopback and Unix sockets there is no other way; TLS 1.3 alone. */
  readonly certificate?: ServerCertificate;
  readonly routes: readonly Route[];
  readonly streams?: readonly StreamRoute[];
  readonly webSockets?: readonly WebSocketRoute[];
  /** Further pages, such as a dashboard's. */
  readonly pages?: readonly Page[];
  readonly authenticate: Authenticate;
  /** Absent: no browser can log in. */
  readonly browserSessions?: BrowserSessions;
  readonly admit?: DispatcherOptions["admit"];
  readonly onRecord: DispatcherOptions["onRecord"];
  readonly translate?: DispatcherOptions["translate"];
  readonly limits?: Partial<HttpLimits>;
  /** What is wrong with this role; nothing: it is well. */
  readonly health?: () => Promise<readonly string[]> | readonly string[];
  readonly metrics?: MetricsRegistry;
  /** Who may read /metrics: view unless it is told. */
  readonly metricsPermission?: Permission;
  /** Of the OpenAPI document. */
  readonly title: string;
  readonly version: string;
  readonly logger: Logger;
  readonly loop: EventLoop;
}

/** It cannot listen there, or must not. */
export class ListenRefused extends Error {
  override readonly name = "ListenRefused";
  readonly exitCode = ExitCode.refused;
}

/** TLS 1.3, as BoringSSL has it: SSL_CTX_set_min_proto_version takes the number of the wire. */
const TLS_1_3 = 0x0304;

/** Time for what was on its way to a listener when another one took its place. */
const RETIRE_DELAY: Milliseconds = 1_000;

interface SocketData {
  readonly admitted: Admitted;
  handlers: WebSocketHandlers | undefined;
}

type Listener = Bun.Server<SocketData>;

/** One address of a networked role: routes, streams and WebSockets over HTTP. */
export class HttpServer implements AsyncDisposable {
  readonly #options: HttpServerOptions;
  readonly #limits: HttpLimits;
  readonly #log: LimitedLogger;
  readonly #stopping = new AbortController();
  readonly #handler: RequestHandler;
  readonly dispatcher: Dispatcher;
  readonly metrics: MetricsRegistry;
  #listener: Listener | undefined;
  /** Before every listener with TLS. */
  #front: Front | undefined;
  readonly #retiring = new Map<Listener, Disposable>();
  /** Listeners that take nobody new, and end with their last request. */
  readonly #retired = new Set<Listener>();

  /** @throws ListenRefused */
  static start(options: HttpServerOptions): HttpServer {
    const server = new HttpServer(options);
    const { listen, certificate } = options;
    const isFronted = certificate !== undefined && !("unix" in listen);
    const behind = { hostname: "127.0.0.1", port: 0 };
    server.#listener = server.#listen(isFronted ? behind : listen, certificate);
    if (isFronted) server.#openFront(listen);
    return server;
  }

  private constructor(options: HttpServerOptions) {
    refusePlain(options);
    this.#options = options;
    this.#limits = { ...defaultHttpLimits, ...options.limits };
    this.metrics = options.metrics ?? new MetricsRegistry();
    const { loop } = options;
    const clock = {
      now: monotonicNow,
      wakeAfter: (wait: Milliseconds, call: () => void) => loop.wakeAfter(wait, call),
    };
    this.#log = new LimitedLogger(options.logger, clock);
    const onBug = (message: string, failure: unknown) => this.#onBug(message, failure);
    const { admit, onRecord, translate } = options;
    this.dispatcher = new Dispatcher({
      ...(admit !== undefined && { admit }),
      onRecord,
      onBug,
      clock,
      ...(translate !== undefined && { translate }),
    });
    this.#handler = new RequestHandler({
      places: placesOf(options, this.metrics),
      dispatcher: this.dispatcher,
      authenticate: options.authenticate,
      limits: this.#limits,
      metrics: this.metrics,
      clock,
      stopping: this.#stopping.signal,
      onBug,
    });
  }

  #openFront(listen: { readonly hostname: string; readonly port: number }): void {
    const { loop } = this.#options;
    const innerPort = () => this.#listener?.port ?? 0;
    try {
      this.#front = new Front({ ...listen, limits: this.#limits, innerPort, loop });
    } catch (failure) {
      void this.#listener?.stop(true);
      throw cannotListen(listen, failure);
    }
    const front = this.#front;
    const { metrics } = this;
    const name = "hostler_http_connections";
    metrics.gauge({ name, help: "Connections over TLS that are open" }, () => front.open);
    metrics.gauge(
      {
        name: "hostler_http_connections_ended",
        help: "Connections that were ended to make room, or because nothing was asked in time",
      },
      () => front.ended,
    );
  }

  /** The port it listens at: the one that was chosen where 0 was asked for. */
  get port(): number {
    return this.#front?.port ?? this.#listener?.port ?? 0;
  }

  /** "https://127.0.0.1:8443", or "unix:/run/x.sock". */
  get url(): string {
    const { listen, certificate } = this.#options;
    if ("unix" in listen) return `unix:${listen.unix}`;
    const host = listen.hostname.includes(":") ? `[${listen.hostname}]` : listen.hostname;
    return `${certificate === undefined ? "http" : "https"}://${host}:${this.port}`;
  }

  /**
   * New connections get this certificate. What is open goes on with the one it began with, until
   * it ends by itself: a session is a token of the server's, and was proven to a certificate when
   * it was opened; ending sessions is revocation, and identity's. No connection is lost: what the
   * front passed to the old listener, that one still takes.
   * @throws Error for a server without TLS; whatever a wrong certificate gives: nothing changes
   */
  replaceCertificate(certificate: ServerCertificate): void {
    if (this.#front === undefined) throw new Error("There is no certificate to replace");
    const old = this.#listener;
    this.#listener = this.#listen({ hostname: "127.0.0.1", port: 0 }, certificate);
    if (old === undefined) return;
    const wake = this.#options.loop.wakeAfter(RETIRE_DELAY, () => {
      this.#retiring.delete(old);
      this.#retire(old);
    });
    this.#retiring.set(old, wake);
  }

  #retire(listener: Listener): void {
    this.#retired.add(listener);
    void listener.stop().then(() => this.#retired.delete(listener));
  }

  #listen(listen: ListenAddress, certificate: ServerCertificate | undefined): Listener {
    const limits = this.#limits;
    if ("unix" in listen) removeStale(listen.unix);
    // The mode counts from the first moment on, for who may connect to a Unix socket.
    const mask = process.umask(0o177);
    try {
      return Bun.serve<SocketData>({
        ...listen,
        ...(certificate !== undefined && { tls: tlsOptions(certificate) }),
        idleTimeout: Math.ceil(limits.idleTime / 1_000),
        // Ours counts, refuses in our words, and tells the audit log.
        maxRequestBodySize: Number.MAX_SAFE_INTEGER,
        development: false,
        fetch: (request, server) => this.#onRequest(request, server),
        error: (failure) => this.#onServeError(failure),
        websocket: this.#webSocketOptions(),
      } as Bun.Serve.Options<SocketData>);
    } catch (failure) {
      throw cannotListen(listen, failure);
    } finally {
      process.umask(mask);
    }
  }

  async #onRequest(request: Request, server: Listener): Promise<Response | undefined> {
    const upgrade = (admitted: Admitted) =>
      server.upgrade(request, { data: { admitted, handlers: undefined } });
    const origin = originOf(request, server, this.#front);
    return await this.#handler.handle({ request, origin, upgrade });
  }

  #onServeError(failure: Error): Response {
    this.#onBug("A request failed", failure);
    const request = new Request("http://server/");
    return problemResponse(new ProblemError("bug", "The server failed by a bug"), {
      request,
      path: "/",
    });
  }

  #webSocketOptions(): Bun.WebSocketHandler<SocketData> {
    const limits = this.#limits;
    return {
      maxPayloadLength: limits.webSocketMessageBytes,
      backpressureLimit: limits.webSocketQueueBytes,
      closeOnBackpressureLimit: true,
      idleTimeout: Math.ceil(limits.idleTime / 1_000),
      sendPings: true,
      perMessageDeflate: false,
      open: (socket) => this.#onOpen(socket),
      message: (socket, data) => {
        this.#guard(socket, () => socket.data.handlers?.message(data));
      },
      drain: (socket) => {
        this.#guard(socket, () => socket.data.handlers?.drain?.());
      },
      close: (socket, code, reason) => {
        const { admitted, handlers } = socket.data;
        admitted.end.abort(new ProblemError("ended", "The WebSocket was closed"));
        admitted.end[Symbol.dispose]();
        admitted.release();
        this.#guard(socket, () => handlers?.close(code, reason));
      },
    };
  }

  #onOpen(socket: Bun.ServerWebSocket<SocketData>): void {
    const { route, caller, input, end } = socket.data.admitted;
    const isStopping = () => this.#stopping.signal.aborted;
    const onEnd = () => {
      if (isStopping()) socket.close(closeCodes.goingAway, "the server stops");
      else socket.close(closeCodes.policy, "the session was ended");
    };
    if (end.signal.aborted) {
      onEnd();
      return;
    }
    end.signal.addEventListener("abort", onEnd, { once: true });
    const call = { ...caller, changed: () => {} };
    this.#guard(socket, () => {
      socket.data.handlers = route.open(
        {
          send: (data) => sendOn(socket, data),
          close: (code, reason) => socket.close(code, reason),
          get queuedBytes() {
            return socket.getBufferedAmount();
          },
        },
        call,
        input,
      );
    });
  }

  /** What a handler throws ends its own socket, and is logged. */
  #guard(socket: Bun.ServerWebSocket<SocketData>, work: () => void): void {
    try {
      work();
    } catch (failure) {
      this.#onBug(`The WebSocket ${socket.data.admitted.route.name} failed`, failure);
      socket.close(closeCodes.bug, "a bug of the server");
    }
  }

  #onBug(message: string, failure: unknown): void {
    const said = failure instanceof Error ? describeCauses(failure) : String(failure);
    this.#log.say("error", message, `${message}: ${said}`);
  }

  /**
   * Takes nobody new, ends streams and WebSockets, and waits for the requests that are being
   * answered; at the end of `grace` the connections are closed.
   */
  async stop(grace: Milliseconds = 5_000): Promise<void> {
    this.#front?.stopListening();
    for (const [listener, wake] of this.#retiring) {
      wake[Symbol.dispose]();
      this.#retire(listener);
    }
    this.#retiring.clear();
    if (this.#listener !== undefined) this.#retire(this.#listener);
    this.#listener = undefined;
    this.#stopping.abort(new ProblemError("ended", "The server stops", { retryAfter: 1_000 }));
    const late = Promise.withResolvers<"late">();
    using _deadline = this.#options.loop.wakeAfter(grace, () => late.resolve("late"));
    const ended = Promise.all([...this.#retired].map((listener) => listener.stop())).then(() =>
      this.#front?.drained(),
    );
    if ((await Promise.race([ended, late.promise])) === "late") {
      await Promise.all([...this.#retired].map((listener) => listener.stop(true)));
    }
    this.#front?.[Symbol.dispose]();
    await this.dispatcher.finish();
    this.#log[Symbol.dispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }
}

function placesOf(options: HttpServerOptions, metrics: MetricsRegistry): Served[] {
  const { browserSessions, streams = [], webSockets = [], pages = [] } = options;
  const routes = [
    ...options.routes,
    ...(browserSessions === undefined ? [] : browserRoutes(browserSessions)),
  ];
  const ownPages = [
    ...pages,
    healthPage(options.health ?? (() => [])),
    metricsPage(metrics, options.metricsPermission ?? "view"),
  ];
  const places = [...routes, ...streams, ...webSockets, ...ownPages];
  const described = [
    ...routes,
    ...streams.map((stream) => ({ ...stream, mediaType: "text/event-stream" })),
    ...webSockets.map((socket) => ({ ...socket, status: 101 })),
    ...ownPages,
  ];
  const { title, version } = options;
  const openApi = openApiPage({ title, version, places: described });
  const served = [
    ...routes.map((route) => ({ ...placeOf(route), kind: "route" as const, route })),
    ...streams.map((route) => ({ ...placeOf(route), kind: "stream" as const, route })),
    ...webSockets.map((route) => ({ ...placeOf(route), kind: "socket" as const, route })),
    ...[...ownPages, openApi].map((page) => ({ ...placeOf(page), kind: "page" as const, page })),
  ];
  if (served.length !== places.length + 1) throw new Error("A place is forgotten");
  return served;
}

function placeOf<From extends Omit<Served, "kind">>(from: From) {
  const { name, method, path, summary, permission } = from;
  return { name, method, path, summary, permission };
}

/** No flag turns this off: whoever wants plain HTTP has a Unix socket, or a loopback address. */
function refusePlain({ listen, certificate }: HttpServerOptions): void {
  if ("unix" in listen || certificate !== undefined || isLoopback(listen.hostname)) return;
  throw new ListenRefused(
    `Will not listen at ${listen.hostname} without TLS: expected a certificate, or a loopback ` +
      "address, received neither",
  );
}

function tlsOptions({ certificate, key }: ServerCertificate): Bun.TLSOptions {
  return { cert: certificate, key, minVersion: TLS_1_3 } as Bun.TLSOptions;
}

function originOf(request: Request, server: Listener, front: Front | undefined): Origin {
  const peer = server.requestIP(request);
  if (peer === null) return { address: undefined, from: "unix socket" };
  const fronted = front?.prove(peer.port);
  if (fronted !== undefined) return fronted;
  // A process of this host went around the front: it comes from where it seems to.
  return { address: peer.address, from: joinAddress(peer) };
}

function cannotListen(listen: ListenAddress, failure: unknown): ListenRefused {
  const where = "unix" in listen ? listen.unix : `${listen.hostname}:${listen.port}`;
  const why = "unix" in listen ? (failure as Error).message : whyNotListening(failure);
  return new ListenRefused(`Cannot listen at ${where}: ${why}`, { cause: failure });
}

function joinAddress({ address, port }: { readonly address: string; readonly port: number }) {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

function sendOn(
  socket: Bun.ServerWebSocket<SocketData>,
  data: string | Uint8Array,
): "sent" | "queued" | "closed" {
  const sent = socket.send(data as string | Bun.BufferSource);
  if (sent > 0) return "sent";
  return sent < 0 ? "queued" : "closed";
}

/**
 * A socket that nobody listens at is left over of a server that was killed.
 * @throws ListenRefused for one of a server that lives
 */
function removeStale(path: string): void {
  if (statSync(path, { throwIfNoEntry: false })?.isSocket() !== true) return;
  if (isListening(path)) {
    throw new ListenRefused(`Cannot listen at ${path}: somebody listens there`);
  }
  unlinkSync(path);
}

/** /proc/net/unix: unix(7); the fourth word has __SO_ACCEPTCON, 1 << 16, of a listener. */
function isListening(path: string): boolean {
  return readFileSync("/proc/net/unix", "utf8")
    .split("\n")
    .some((line) => {
      const [, , , flags = "0", , , , named] = line.trim().split(/\s+/);
      return named === path && (Number.parseInt(flags, 16) & 0x1_0000) !== 0;
    });
}

function describeCauses(failure: Error): string {
  const parts: string[] = [];
  for (let one: unknown = failure; one instanceof Error && parts.length < 8; one = one.cause) {
    parts.push(one.message);
  }
  return parts.join(": ");
}
