import type { LimiterClock } from "../logging/limited-logger.ts";
import { joinInput, readJsonBody } from "./body.ts";
import { type Credentials, checkCrossSite, checkOrigin, credentialsOf } from "./credentials.ts";
import { type Caller, type Dispatcher, problemAt, refuseCaller } from "./dispatch.ts";
import type { HttpLimits } from "./limits.ts";
import type { Counter, Histogram, MetricsRegistry } from "./metrics.ts";
import { BROWSER_SESSION_PATH, type HttpCall, type Page } from "./pages.ts";
import { describePrincipal, type Principal } from "./principal.ts";
import { PROBLEM_TYPE, ProblemError } from "./problem.ts";
import { RateLimiter, rateKeyOf } from "./rate-limiter.ts";
import type { Route, StreamRoute } from "./route.ts";
import { type Place, Router } from "./router.ts";
import { type LinkedSignal, linkSignals } from "./signals.ts";
import { eventStream } from "./stream.ts";
import type { WebSocketRoute } from "./web-socket.ts";

/** Who it is, and how long that holds. */
export interface Authenticated {
  readonly principal: Principal;
  /** Aborted when the session ends: what is open ends with it at once. */
  readonly signal?: AbortSignal;
}

/** @throws ProblemError unauthenticated, for credentials that do not hold */
export type Authenticate = (
  credentials: Credentials,
  about: { readonly from: string },
) => Promise<Authenticated> | Authenticated;

/** What stands at a path, by kind. */
export type Served = Place &
  (
    | { readonly kind: "route"; readonly route: Route }
    | { readonly kind: "stream"; readonly route: StreamRoute }
    | { readonly kind: "socket"; readonly route: WebSocketRoute }
    | { readonly kind: "page"; readonly page: Page }
  );

/** Where a request came from. */
export interface Origin {
  /** undefined for a Unix socket. */
  readonly address: string | undefined;
  /** For logs and the audit log: "192.0.2.1:40112". */
  readonly from: string;
}

/** A WebSocket that may be opened; `end` belongs to it from here on. */
export interface Admitted {
  readonly route: WebSocketRoute;
  readonly caller: Caller;
  readonly input: unknown;
  readonly end: LinkedSignal;
  readonly release: () => void;
}

export interface HandlerOptions {
  readonly places: readonly Served[];
  readonly dispatcher: Dispatcher;
  readonly authenticate: Authenticate;
  readonly limits: HttpLimits;
  readonly metrics: MetricsRegistry;
  readonly clock: LimiterClock;
  /** Aborted when the server stops. */
  readonly stopping: AbortSignal;
  readonly onBug: (message: string, failure: unknown) => void;
}

interface Exchange {
  readonly request: Request;
  readonly url: URL;
  readonly origin: Origin;
  /** Hands a WebSocket over; false when the request is none. */
  readonly upgrade: (admitted: Admitted) => boolean;
}

/** Every response says it: nothing of a role is a cache's, and nothing is what it looks like. */
const commonHeaders = { "cache-control": "no-store", "x-content-type-options": "nosniff" };

/** From a request to its response: limits, credentials, and then the dispatcher. */
export class RequestHandler {
  readonly #options: HandlerOptions;
  readonly #router: Router<Served>;
  readonly #addresses: RateLimiter;
  readonly #principals: RateLimiter;
  readonly #open = new OpenCounts();
  readonly #requests: Counter;
  readonly #latency: Histogram;
  #running = 0;

  constructor(options: HandlerOptions) {
    this.#options = options;
    const { limits, metrics } = options;
    this.#router = new Router(options.places);
    this.#addresses = new RateLimiter(limits.addressRate, limits.rememberedCallers);
    this.#principals = new RateLimiter(limits.principalRate, limits.rememberedCallers);
    this.#requests = metrics.counter({
      name: "hostler_http_requests_total",
      help: "Requests that were answered, by route and status",
      labels: ["route", "status"],
    });
    this.#latency = metrics.histogram({
      name: "hostler_http_request_seconds",
      help: "From a request's headers to its answer's",
      labels: ["route"],
    });
    const gauges = {
      hostler_http_requests_running: ["Requests that are being answered", () => this.#running],
      hostler_http_streams: ["Event streams that are open", () => this.#open.total("stream")],
      hostler_http_web_sockets: ["WebSockets that are open", () => this.#open.total("socket")],
    } as const;
    for (const [name, [help, read]] of Object.entries(gauges)) metrics.gauge({ name, help }, read);
  }

  /** @returns undefined when the connection became a WebSocket */
  async handle(exchange: Omit<Exchange, "url">): Promise<Response | undefined> {
    const began = this.#options.clock.now();
    const { request } = exchange;
    const url = new URL(request.url);
    const found = this.#router.find(request.method, url.pathname);
    this.#running += 1;
    let response: Response | undefined;
    try {
      response = await this.#answer({ ...exchange, url }, found);
    } catch (failure) {
      response = this.#answerFailure(failure, { request, path: url.pathname });
    } finally {
      this.#running -= 1;
    }
    const route = found.kind === "found" ? found.place.name : "none";
    this.#requests.add({ route, status: String(response?.status ?? 101) });
    this.#latency.observe((this.#options.clock.now() - began) / 1_000, { route });
    return response;
  }

  #answerFailure(
    failure: unknown,
    asked: { readonly request: Request; readonly path: string },
  ): Response {
    if (failure instanceof ProblemError) return problemResponse(failure, asked);
    this.#options.onBug(`${asked.request.method} ${asked.path} failed`, failure);
    const hint = "The server's log has the reason";
    return problemResponse(new ProblemError("bug", "The server failed by a bug", { hint }), asked);
  }

  async #answer(
    exchange: Exchange,
    found: ReturnType<Router<Served>["find"]>,
  ): Promise<Response | undefined> {
    if (found.kind !== "found") {
      this.#admit(exchange.origin);
      throw refusePath(found, exchange);
    }
    const { place, parameters } = found;
    using end = linkSignals([exchange.request.signal, this.#options.stopping]);
    const anonymous: Caller = {
      principal: { kind: "anonymous" },
      from: exchange.origin.from,
      signal: end.signal,
    };
    let caller = anonymous;
    try {
      this.#admit(exchange.origin);
      const session = await this.#authenticate(exchange, place);
      caller = { ...anonymous, principal: session.principal };
      this.#admitPrincipal(session.principal);
      const denied = refuseCaller(session.principal, place.permission);
      if (denied !== undefined) throw denied;
      return await this.#serve(exchange, { place, parameters, caller, session, end });
    } catch (failure) {
      // What the dispatcher refused, it has recorded; what was refused before, it has not seen.
      if (failure instanceof ProblemError && place.kind === "route") {
        await this.#options.dispatcher.refuse(place.route, caller, {
          input: parameters,
          refusal: failure,
        });
      }
      throw failure;
    }
  }

  /** @throws ProblemError too-many, unavailable */
  #admit({ address }: Origin): void {
    const { limits, clock } = this.#options;
    if (this.#running > limits.concurrentRequests) {
      throw new ProblemError("unavailable", "The server is answering as many as it can", {
        expected: `at most ${limits.concurrentRequests} requests at once`,
        received: "one more",
        retryAfter: 1_000,
      });
    }
    if (address === undefined) return;
    const retryAfter = this.#addresses.take(rateKeyOf(address), clock.now());
    if (retryAfter > 0) throw tooMany(`from ${rateKeyOf(address)}`, retryAfter);
  }

  #admitPrincipal(principal: Principal): void {
    // Who is root here, or nobody in particular, is held by the other limits.
    if (principal.kind === "anonymous" || principal.kind === "local") return;
    const who = describePrincipal(principal);
    const retryAfter = this.#principals.take(who, this.#options.clock.now());
    if (retryAfter > 0) throw tooMany(`of ${who}`, retryAfter);
  }

  /** @throws ProblemError unauthenticated, cross-site */
  async #authenticate({ request, origin }: Exchange, place: Served): Promise<Authenticated> {
    const credentials = credentialsOf(request.headers);
    let session: Authenticated;
    try {
      session = await this.#options.authenticate(credentials, { from: origin.from });
    } catch (failure) {
      // A browser cannot leave its cookie out: one that is over must not keep it from the login.
      const isOver = failure instanceof ProblemError && failure.kind === "unauthenticated";
      if (!isOver || credentials.kind !== "cookie" || !leadsToLogin(place)) throw failure;
      return { principal: { kind: "anonymous" } };
    }
    if (credentials.kind === "cookie") {
      if (place.kind === "socket") checkOrigin(request);
      else if (request.method !== "GET") checkCrossSite(request, credentials.token);
    }
    return session;
  }

  async #serve(exchange: Exchange, found: Found): Promise<Response | undefined> {
    const { place } = found;
    switch (place.kind) {
      case "route":
        return await this.#serveRoute(exchange, { ...found, route: place.route });
      case "stream":
        return await this.#serveStream(exchange, { ...found, route: place.route });
      case "socket":
        return this.#serveSocket(exchange, { ...found, route: place.route });
      case "page": {
        refuseBody(exchange.request);
        const { caller, session, parameters } = found;
        using end = linkSignals([found.end.signal, session.signal]);
        const requestHeaders = exchange.request.headers;
        const call = { ...caller, signal: end.signal, parameters, requestHeaders };
        const response = await place.page.serve(call);
        for (const [name, value] of Object.entries(commonHeaders)) {
          response.headers.set(name, value);
        }
        return response;
      }
    }
  }

  async #serveRoute(
    { request, url }: Exchange,
    { route, parameters, caller, session, end }: Found & { readonly route: Route },
  ): Promise<Response> {
    const { limits, clock, dispatcher } = this.#options;
    using all = linkSignals([end.signal, session.signal]);
    using _deadline = clock.wakeAfter(limits.requestTime, () => {
      const detail = `The request took longer than ${limits.requestTime} ms`;
      all.abort(new ProblemError("slow", detail));
    });
    if (request.method === "GET") refuseBody(request);
    const body = await readJsonBody(request, { bodyBytes: limits.bodyBytes, signal: all.signal });
    const input = joinInput({ parameters, query: url.searchParams, body });
    const answerHeaders = new Headers(commonHeaders);
    const call: Omit<HttpCall, "changed"> = {
      ...caller,
      signal: all.signal,
      requestHeaders: request.headers,
      answerHeaders,
    };
    const outcome = await dispatcher.dispatch(route, call, input);
    if (outcome.kind === "done") {
      return Response.json(outcome.result ?? null, { headers: answerHeaders });
    }
    return problemResponse(outcome.refusal, { request, path: url.pathname });
  }

  async #serveStream(
    { request, url }: Exchange,
    found: Found & { readonly route: StreamRoute },
  ): Promise<Response> {
    const { route, parameters, caller, session } = found;
    const { limits, clock, dispatcher, stopping } = this.#options;
    refuseBody(request);
    const input = joinInput({ parameters, query: url.searchParams, body: undefined });
    const after = request.headers.get("last-event-id") ?? undefined;
    const release = this.#open.take("stream", caller.principal, {
      most: limits.streams,
      mostOfOne: limits.streamsPerPrincipal,
    });
    const end = linkSignals([request.signal, stopping, session.signal]);
    const close = () => {
      end.abort(new ProblemError("ended", "The stream was ended"));
      end[Symbol.dispose]();
      release();
    };
    const outcome = await dispatcher.openStream(
      route,
      { ...caller, signal: end.signal },
      { input, after },
    );
    if (outcome.kind === "refused") {
      close();
      throw outcome.refusal;
    }
    const body = eventStream(outcome.events, {
      clock,
      heartbeat: limits.streamHeartbeat,
      queueBytes: limits.streamQueueBytes,
      stallTime: limits.streamStallTime,
      signal: end.signal,
      onEnd: close,
    });
    const headers = { ...commonHeaders, "content-type": "text/event-stream" };
    return new Response(body, { headers });
  }

  #serveSocket(
    { request, url, upgrade }: Exchange,
    found: Found & { readonly route: WebSocketRoute },
  ): undefined {
    const { route, parameters, caller, session } = found;
    const { limits, stopping, dispatcher } = this.#options;
    const raw = joinInput({ parameters, query: url.searchParams, body: undefined });
    const input = dispatcher.parseInput(route.input, raw);
    const release = this.#open.take("socket", caller.principal, {
      most: limits.webSockets,
      mostOfOne: limits.webSocketsPerPrincipal,
    });
    // The request's own signal ends with the request; the socket lives on.
    const end = linkSignals([stopping, session.signal]);
    const admitted = { route, caller: { ...caller, signal: end.signal }, input, end, release };
    if (upgrade(admitted)) return undefined;
    end[Symbol.dispose]();
    release();
    throw new ProblemError("request", "A WebSocket stands here", {
      expected: "a request with Upgrade: websocket",
      received: request.headers.get("upgrade")?.slice(0, 100) ?? "no such header",
    });
  }
}

interface Found {
  readonly place: Served;
  readonly parameters: Readonly<Record<string, string>>;
  readonly caller: Caller;
  readonly session: Authenticated;
  readonly end: LinkedSignal;
}

type OpenKind = "stream" | "socket";

/** What is open for longer than a request, of all and of each principal. */
class OpenCounts {
  readonly #counts = new Map<string, number>();

  total(kind: OpenKind): number {
    return this.#counts.get(kind) ?? 0;
  }

  /**
   * @returns takes it back, once
   * @throws ProblemError too-many
   */
  take(
    kind: OpenKind,
    principal: Principal,
    limits: { readonly most: number; readonly mostOfOne: number },
  ): () => void {
    const who = describePrincipal(principal);
    const own = `${kind} ${who}`;
    const isAll = this.total(kind) >= limits.most;
    if (isAll || (this.#counts.get(own) ?? 0) >= limits.mostOfOne) {
      const name = kind === "stream" ? "event streams" : "WebSockets";
      const most = isAll ? `${limits.most} ${name}` : `${limits.mostOfOne} ${name} of ${who}`;
      throw new ProblemError("too-many", `Too many ${name} are open`, {
        expected: `at most ${most}`,
        received: "one more",
        retryAfter: 10_000,
      });
    }
    this.#add([kind, own], 1);
    let isOpen = true;
    return () => {
      if (isOpen) this.#add([kind, own], -1);
      isOpen = false;
    };
  }

  #add(keys: readonly string[], amount: number): void {
    for (const key of keys) {
      const count = (this.#counts.get(key) ?? 0) + amount;
      if (count === 0) this.#counts.delete(key);
      else this.#counts.set(key, count);
    }
  }
}

function tooMany(whose: string, retryAfter: number): ProblemError {
  const detail = `Too many requests ${whose}`;
  return new ProblemError("too-many", detail, { retryAfter, hint: "Wait, and ask again" });
}

/** What a browser needs that is to log in: pages that anybody may see, and the login. */
const leadsToLogin = ({ kind, permission, path }: Served) =>
  permission === "anyone" && (kind === "page" || path === BROWSER_SESSION_PATH);

/** @throws ProblemError request, for what has no use for a body */
function refuseBody(request: Request): void {
  if (request.body === null) return;
  const expected = `no body with ${request.method}`;
  throw new ProblemError("request", "The request has a body", { expected, received: "a body" });
}

function refusePath(
  found: { readonly kind: "method"; readonly allowed: readonly string[] } | { kind: "nothing" },
  { request, url }: Exchange,
): ProblemError {
  const path = url.pathname.slice(0, 200);
  if (found.kind === "nothing") return new ProblemError("not-found", `Nothing stands at ${path}`);
  return new ProblemError("method", `${path} does not take ${request.method.slice(0, 20)}`, {
    expected: found.allowed.join(", "),
    received: request.method.slice(0, 20),
  });
}

/** Problem details, and the headers that belong to them. */
export function problemResponse(
  refusal: ProblemError,
  asked: { readonly request: Request; readonly path: string },
): Response {
  const { request, path } = asked;
  const problem = problemAt(refusal, path.slice(0, 200));
  const headers = new Headers({ ...commonHeaders, "content-type": PROBLEM_TYPE });
  if (refusal.kind === "unauthenticated") headers.set("www-authenticate", "Bearer");
  if (refusal.kind === "method") headers.set("allow", problem.expected ?? "");
  if (refusal.retryAfter !== undefined) {
    headers.set("retry-after", String(Math.max(1, Math.ceil(refusal.retryAfter / 1_000))));
  }
  // Nobody reads what is still to come of a body: Bun closes the connection at once.
  if (request.body !== null) headers.set("connection", "close");
  return new Response(JSON.stringify(problem), { status: problem.status, headers });
}
