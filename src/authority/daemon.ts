import { createPublicKey, randomBytes } from "node:crypto";
import { join } from "node:path";
import { AuditLog } from "../audit/log.ts";
import { monotonicNow } from "../event-loop/clock.ts";
import { EventLoop } from "../event-loop/event-loop.ts";
import { startWorker } from "../event-loop/worker-factory.ts";
import { defaultHttpLimits } from "../http/limits.ts";
import { MetricsRegistry } from "../http/metrics.ts";
import { ProblemError } from "../http/problem.ts";
import type { Authenticated } from "../http/request-handler.ts";
import type { CallRecord, Route, StreamRoute } from "../http/route.ts";
import { HttpServer } from "../http/server.ts";
import { Authority } from "../identity/authority.ts";
import type { IdentityEvent } from "../identity/event-book.ts";
import { checkFolder } from "../identity/host-key.ts";
import { ignoreSignals } from "../logging/ignored-signals.ts";
import { createLogger, type Logger } from "../logging/logger.ts";
import { ControlServer, defaultControlLimits } from "../messaging/control-server.ts";
import { makeSocketFolder } from "../messaging/listener.ts";
import { allowUsers } from "../messaging/peer.ts";
import { ServiceNotifier } from "../messaging/service-notify.ts";
import { machineClocks } from "../store/clocks.ts";
import { EmbeddedStore } from "../store/embedded-store.ts";
import { limits as storeWireLimits } from "../store/wire/protocol.ts";
import { ExitCode } from "../units/exit-code.ts";
import type { Bytes, Milliseconds } from "../units/units.ts";
import { hostlerVersion } from "../units/version.ts";
import type { AuthorityAddition, AuthorityExtension } from "./addition.ts";
import { AuditAdmission } from "./audit-admission.ts";
import { OperatorCookies } from "./browser-sessions.ts";
import { ControlRoutes } from "./control.ts";
import { type AuthorityOptions, addressOf, certificateNames, type ListenPlace } from "./options.ts";
import { passStep, readBootId } from "./perform.ts";
import { PresenceBook } from "./presence.ts";
import {
  type AuthorityRequest,
  controlRequestSchema,
  defaultControlSocket,
  places,
} from "./protocol.ts";
import { recordRefusedOpenings } from "./refused-openings.ts";
import { authorityRoutes } from "./routes.ts";
import { StoreService } from "./store-service.ts";
import { translateRefusal } from "./translate.ts";

/** How often what is too old or too much goes, and the growth is noted. */
const TEND_EVERY: Milliseconds = 60_000;

/** From what may have an end to the look at what ends. */
const PASS_TIME_AFTER: Milliseconds = 100;

/** Events that an operator should see without asking. */
const loud = new Set<IdentityEvent["kind"]>(["host-clone", "token-stolen"]);

/** After these nobody has the name, or somebody else. */
type PresenceEnd = Extract<
  IdentityEvent,
  { readonly kind: "host-enrolled" | "host-revoked" | "host-removed" }
>;
function endsPresence(event: IdentityEvent): event is PresenceEnd {
  return ["host-enrolled", "host-revoked", "host-removed"].includes(event.kind);
}

/** What the daemon is made of; each part is opened after the ones that it stands on. */
interface Parts {
  readonly store: EmbeddedStore;
  readonly authority: Authority;
  readonly audit: AuditLog;
  readonly service: StoreService;
  readonly addition: AuthorityAddition | undefined;
}

/** Serves identity, the store and the audit log by TLS, and by a control socket for this host. */
class AuthorityDaemon {
  readonly #options: AuthorityOptions;
  readonly #logger: Logger;
  readonly #loop: EventLoop;
  readonly #notifier = new ServiceNotifier();
  readonly #metrics = new MetricsRegistry();
  readonly #parts: Parts;
  readonly #cookies: OperatorCookies;
  readonly #presence: PresenceBook;
  readonly #admission: AuditAdmission;
  readonly #servers: HttpServer[] = [];
  readonly #timers = new Map<string, Disposable>();
  #isTimeDue = false;
  #control: ControlServer<AuthorityRequest> | undefined;
  #controlRoutes: ControlRoutes | undefined;
  /** Control calls that are being answered. */
  readonly #calls = new Set<Promise<void>>();

  constructor(
    options: AuthorityOptions,
    parts: Parts & { readonly logger: Logger; readonly loop: EventLoop },
  ) {
    this.#options = options;
    this.#logger = parts.logger;
    this.#loop = parts.loop;
    this.#parts = parts;
    const { authority, store } = parts;
    this.#admission = new AuditAdmission(parts.audit, parts.logger);
    this.#presence = new PresenceBook(store, {
      isLive: (host) => authority.hosts.isLive(host),
      onTrouble: (message) => this.#logger.warn(message),
    });
    this.#cookies = new OperatorCookies((token) => authority.admit(token), monotonicNow);
    authority.onEvent((event) => this.#tell(event));
    authority.onServe((served) => {
      for (const server of this.#servers) server.replaceCertificate(served);
    });
  }

  /** How hosts reach it; known when it listens. */
  get address(): string {
    if (this.#options.address !== undefined) return this.#options.address;
    const [first] = this.#options.listen;
    if (first === undefined) throw new Error("An authority listens nowhere");
    return addressOf({ ...first, port: this.#servers[0]?.port ?? first.port });
  }

  /** @throws ListenRefused, SocketPathError */
  open(): void {
    for (const place of this.#options.listen) this.#servers.push(this.#serve(place));
    const [server] = this.#servers;
    if (server === undefined) throw new Error("An authority listens nowhere");
    const routes = this.#routes();
    const control = new ControlRoutes(server.dispatcher, { routes, streams: this.#streams() });
    this.#controlRoutes = control;
    this.#makeDefaultFolder();
    this.#control = new ControlServer(this.#loop, {
      path: this.#options.controlSocket,
      onRemoved: () => this.#makeDefaultFolder(),
      policy: allowUsers(this.#options.commandUsers),
      limits: {
        ...defaultControlLimits,
        requestBytes: Math.max(defaultControlLimits.requestBytes, this.#additionBytes),
      },
      schema: controlRequestSchema,
      onRequest: (request, call) => {
        const answer = control.answer(request, call).finally(() => this.#calls.delete(answer));
        this.#calls.add(answer);
      },
      onTrouble: (message) => this.#logger.warn(message),
    });
    this.#measure();
    this.#tend();
    this.#passTime();
    this.#keepWatchdog();
    for (const { url } of this.#servers) this.#logger.info(`listening at ${url}`);
    this.#notifier.tell("READY=1", `STATUS=listening at ${server.url}`);
  }

  /** The folder of another socket is its chooser's: a slip of the pen makes none. */
  #makeDefaultFolder(): void {
    const { controlSocket } = this.#options;
    if (controlSocket === defaultControlSocket) makeSocketFolder(controlSocket);
  }

  #serve(listen: ListenPlace): HttpServer {
    const { authority, audit, service } = this.#parts;
    return HttpServer.start({
      listen,
      certificate: authority.served,
      routes: this.#routes(),
      streams: this.#streams(),
      webSockets: [service.route()],
      pages: this.#parts.addition?.pages ?? [],
      authenticate: (credentials) => this.#authenticate(credentials),
      browserSessions: this.#cookies,
      admit: () => this.#admission.admit(),
      onRecord: async (record) => {
        await audit.append(record);
      },
      translate: translateRefusal,
      // A message of the store can be longer than what a browser would send.
      limits: {
        ...this.#parts.addition?.limits,
        webSocketMessageBytes: storeWireLimits.messageBytes,
        bodyBytes: Math.max(defaultHttpLimits.bodyBytes, this.#additionBytes),
      },
      health: () => this.#troubles(),
      // A daemon has one registry, and each server counts in its own.
      ...(this.#servers.length === 0 && { metrics: this.#metrics }),
      title: "hostler authority",
      version: hostlerVersion,
      logger: this.#logger,
      loop: this.#loop,
    });
  }

  /** A request of the addition stands in a frame, or a body, with some words around it. */
  get #additionBytes(): Bytes {
    const { addition } = this.#parts;
    return addition === undefined ? 0 : addition.requestBytes + 4_096;
  }

  #routes(): readonly Route[] {
    const { authority, store, audit, addition } = this.#parts;
    const { size } = this.#options.retention.audit;
    const auditUse = () => ({ bytes: audit.size, size });
    const backUp: AuthorityAddition["backUp"] = addition?.backUp?.bind(addition);
    const own = authorityRoutes({ store, presence: this.#presence, auditUse, backUp });
    const routes = [...authority.routes, ...own, ...(addition?.routes ?? [])];
    return recordRefusedOpenings(routes, () => this.#servers[0]?.dispatcher);
  }

  #streams(): readonly StreamRoute[] {
    const { authority, addition } = this.#parts;
    return [...authority.streams, ...(addition?.streams ?? [])];
  }

  #authenticate(credentials: { readonly kind: string; readonly token?: string }): Authenticated {
    const { kind, token = "" } = credentials;
    if (kind === "none") return { principal: { kind: "anonymous" } };
    const { authority, addition } = this.#parts;
    const added = kind === "bearer" ? addition?.authenticate?.(token) : undefined;
    if (added !== undefined) return added;
    const admitted = kind === "cookie" ? this.#cookies.find(token) : authority.admit(token);
    if (admitted !== undefined) return admitted;
    throw new ProblemError("unauthenticated", "This token counts for nobody, or no more", {
      expected: "the token of an operator, or of an open session",
      received: "another one",
      hint: "Log in again, or open a session anew",
    });
  }

  /** What keeps it from working, for /healthz. */
  #troubles(): readonly string[] {
    try {
      this.#admission.admit();
      return [];
    } catch (error) {
      return [(error as Error).message];
    }
  }

  #measure(): void {
    const { authority, store, audit } = this.#parts;
    const gauges = {
      hostler_identity_hosts: ["Hosts, revoked ones too", () => authority.hosts.list().length],
      hostler_identity_sessions: ["Open sessions", () => authority.sessions.of().length],
      hostler_store_database_bytes: ["Of the database", () => store.usage().database.bytes],
      hostler_audit_bytes: ["Of the audit log", () => audit.size],
    } as const;
    for (const [name, [help, read]] of Object.entries(gauges)) {
      this.#metrics.gauge({ name, help }, read);
    }
    this.#parts.addition?.measure(this.#metrics);
  }

  #tell(event: IdentityEvent): void {
    const { kind, sequence: _sequence, time: _time, ...words } = event;
    const said = Object.entries(words).map(([name, value]) => `${name} ${String(value)}`);
    const line = `${kind}: ${said.join(", ")}`;
    if (loud.has(kind)) this.#logger.warn(line);
    else this.#logger.debug(line);
    if (endsPresence(event)) this.#presence.forget(event.host);
    this.#passTimeSoon();
  }

  #wake(name: string, wait: Milliseconds, call: () => void): void {
    this.#timers.get(name)?.[Symbol.dispose]();
    this.#timers.set(name, this.#loop.wakeAfter(wait, call));
  }

  /**
   * What was just added may end before what was waited for. All of them are looked at, so those
   * that come in one go are looked at together.
   */
  #passTimeSoon(): void {
    if (this.#isTimeDue) return;
    this.#isTimeDue = true;
    this.#wake("time", PASS_TIME_AFTER, () => this.#passTime());
  }

  #passTime(): void {
    this.#isTimeDue = false;
    const next = this.#parts.authority.passTime();
    if (next === undefined) return;
    this.#wake("time", Math.max(0, next - monotonicNow()), () => this.#passTime());
  }

  #tend(): void {
    void this.#parts.store
      .tend()
      .catch((error: Error) => this.#logger.warn(`cannot tidy the store: ${error.message}`))
      .then(() => this.#wake("tend", TEND_EVERY, () => this.#tend()));
  }

  #keepWatchdog(): void {
    const interval = this.#notifier.watchdog;
    if (interval === undefined) return;
    this.#notifier.tell("WATCHDOG=1");
    this.#wake("watchdog", interval / 2, () => this.#keepWatchdog());
  }

  /** Nothing is taken any more; what is being answered is answered, and streams end. */
  async stop(): Promise<void> {
    this.#notifier.tell("STOPPING=1");
    for (const timer of this.#timers.values()) timer[Symbol.dispose]();
    this.#controlRoutes?.stop();
    await this.#parts.addition?.stop();
    await Promise.all(this.#calls);
    await this.#presence.settled();
    this.#control?.[Symbol.dispose]();
    for (const server of this.#servers) await server[Symbol.asyncDispose]();
    this.#logger.info("stopped");
  }
}

async function openParts(
  options: AuthorityOptions,
  around: {
    readonly loop: EventLoop;
    readonly logger: Logger;
    readonly owned: AsyncDisposableStack;
    readonly address: () => string;
    readonly onFailure: (failure: unknown) => void;
    readonly end: (reason: string) => void;
    readonly extension: AuthorityExtension | undefined;
  },
): Promise<Parts> {
  const { loop, logger, owned, address, onFailure, end, extension } = around;
  const folder = options.stateDirectory;
  // Identity sees to its own. Who could write in these would let in whom they like.
  for (const name of ["", places.store, places.audit]) checkFolder(join(folder, name));
  const store = owned.use(
    EmbeddedStore.open({
      folder: join(folder, places.store),
      buckets: options.retention.buckets,
      clocks: machineClocks,
    }),
  );
  // The service asks identity, and identity asks the service; neither serves before both are here.
  const onWord = (session: string) => authority.heard(session);
  let addition: AuthorityAddition | undefined;
  const service = new StoreService(store, {
    ...{ loop, onFailure, onWord },
    permitsMore: (principal, asked) => addition?.permits?.(principal, asked) === true,
    storeOf: (bucket) => addition?.storeOf?.(bucket),
  });
  const authority: Authority = owned.use(
    await Authority.open({
      folder: join(folder, places.identity),
      get address() {
        return address();
      },
      names: certificateNames(options),
      store,
      ledger: store.ledger,
      clock: { boot: readBootId(), monotonic: monotonicNow, wall: () => Date.now() },
      random: (bytes) => randomBytes(bytes),
      answersPing: (session) => service.answersPing(session),
      onStep: (step) => passStep("authority", step),
      onTrouble: (message) => logger.warn(message),
    }),
  );
  const { key } = authority.core;
  const publicKey = createPublicKey({
    key: Buffer.from(key.publicKey, "base64"),
    format: "der",
    type: "spki",
  });
  const audit = owned.use(
    await AuditLog.open({
      directory: join(folder, places.audit),
      ...options.retention.audit,
      signer: { publicKey, sign: (bytes) => key.signBytes(bytes) },
    }),
  );
  const record = async (call: CallRecord) => {
    await audit.append(call);
  };
  const pins = () => authority.certificates.pins;
  const isRevoked = (host: string) => authority.hosts.isRevoked(host);
  const ground = { store, loop, logger, key, address, pins, isRevoked, record, onFailure, end };
  addition = await extension?.open(ground);
  return { store, authority, audit, service, addition };
}

/**
 * Runs the daemon until SIGTERM or SIGINT.
 * @param extension what another system adds to it
 * @throws FileRefused, AuditError, ListenRefused, SocketPathError; whatever the extension throws
 */
export async function runAuthority(
  options: AuthorityOptions,
  extension?: AuthorityExtension,
): Promise<number> {
  const logger = createLogger(extension?.name ?? "authority");
  ignoreSignals((message) => logger.warn(message));
  await using owned = new AsyncDisposableStack();
  const loop = owned.use(new EventLoop(startWorker));
  const ended = Promise.withResolvers<number>();
  const onFailure = (failure: unknown) => {
    logger.error("stopped by a bug", { failure });
    ended.resolve(ExitCode.bug);
  };
  loop.onFailure(onFailure);
  let daemon: AuthorityDaemon | undefined;
  const address = () => daemon?.address ?? "";
  const end = (reason: string) => {
    logger.error(`${reason}: stopped, to be started anew`);
    ended.resolve(ExitCode.refused);
  };
  const around = { loop, logger, owned, address, onFailure, end, extension };
  const parts = await openParts(options, around);
  daemon = new AuthorityDaemon(options, { ...parts, logger, loop });
  owned.defer(() => daemon?.stop());
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.once(signal, () => ended.resolve(ExitCode.done));
  }
  daemon.open();
  const stopping = new AbortController();
  owned.defer(() => stopping.abort());
  void followStore(parts.store, stopping.signal).then((isLost) => {
    if (isLost) end("the disk refused to keep a write");
  });
  return await ended.promise;
}

/**
 * Whether the store was lost before the signal. After an fsync that failed nobody knows what is on
 * the disk (fsync(2), NOTES), and only what is opened anew is known.
 */
async function followStore(store: EmbeddedStore, signal: AbortSignal): Promise<boolean> {
  for await (const state of store.link(signal)) if (state === "down") return !signal.aborted;
  return false;
}
