import { randomBytes } from "node:crypto";
import { monotonicNow } from "../event-loop/clock.ts";
import { EventLoop } from "../event-loop/event-loop.ts";
import { InstanceGroups } from "../event-loop/instance-groups.ts";
import { ownCgroup } from "../event-loop/own-cgroup.ts";
import { startWorker } from "../event-loop/worker-factory.ts";
import { ignoreSignals } from "../logging/ignored-signals.ts";
import { LimitedLogger } from "../logging/limited-logger.ts";
import { createLogger, type Logger } from "../logging/logger.ts";
import { SaidOnce } from "../logging/said-once.ts";
import { Dialler } from "../messaging/dialler.ts";
import { KeptListener } from "../messaging/kept-listener.ts";
import { inheritedListener, Listener, makeSocketFolder } from "../messaging/listener.ts";
import {
  givesLabels,
  identifyPeer,
  type PeerPolicy,
  refusePeer,
  withoutLabels,
} from "../messaging/peer.ts";
import { outwaitPredecessor } from "../messaging/predecessor.ts";
import { ServiceNotifier } from "../messaging/service-notify.ts";
import { StreamConnection } from "../messaging/stream-connection.ts";
import type { Ending } from "../units/ending.ts";
import { ExitCode } from "../units/exit-code.ts";
import { hostlerVersion } from "../units/version.ts";
import { groupPlace } from "./group-place.ts";
import { changesBun } from "./launch-plan.ts";
import { AgentSession, ANSWER_AFTER, agentKillPoint } from "./perform/agent-session.ts";
import { type ChildHandlers, Children } from "./perform/children.ts";
import { defaultAgentSocket, type Hello, limits, PROTOCOL_VERSION } from "./protocol.ts";

export interface AgentOptions {
  readonly endpoint: { readonly kind: "listen" | "connect"; readonly path: string };
  readonly allowUsers: readonly number[];
  readonly allowGroups: readonly number[];
  readonly allowLabels: readonly string[];
  readonly allowCgroups: readonly string[];
  /** Whoever asks must be outside of the agent's own PID namespace. */
  readonly otherProcessNamespace: boolean;
  /** Called as holden-agent. */
  readonly holdenNames: boolean;
}

/** The folder of the default socket is ours to make; who names another has its folder. */
function makeDefaultFolder(path: string): void {
  if (path === defaultAgentSocket) makeSocketFolder(path);
}

type Connection = Parameters<typeof identifyPeer>[0];

/**
 * The agent: takes requests, starts children, passes their pidfds on and forgets them. What it
 * keeps is what the kernel makes a parent's duty: it reaps, and tells whoever asked.
 */
class Agent {
  readonly #options: AgentOptions;
  readonly #logger: Logger;
  /** For what a peer can cause as often as it likes. */
  readonly #limited: LimitedLogger;
  readonly #loop: EventLoop;
  readonly #policy: PeerPolicy;
  readonly #notifier = new ServiceNotifier();
  readonly #hello: Hello;
  readonly #holdenEnvironment: readonly string[];
  readonly #sessions = new Set<AgentSession>();
  /** Who is told how an instance ended; forgotten with the session or the instance. */
  readonly #askers = new Map<string, AgentSession>();
  readonly #children: Children;
  /** Sessions whose peer has said hello. */
  readonly #greeted = new Set<AgentSession>();
  readonly #timers: Disposable[] = [];
  #listener: Listener | KeptListener | undefined;
  #dialler: Dialler | undefined;
  /** How the dialling stands, as it was said last. */
  readonly #standing = new SaidOnce(1);

  constructor(options: AgentOptions, logger: Logger, loop: EventLoop) {
    this.#options = options;
    this.#logger = logger;
    this.#limited = new LimitedLogger(logger, {
      now: monotonicNow,
      wakeAfter: (delay, call) => loop.wakeAfter(delay, call),
    });
    this.#loop = loop;
    this.#policy = {
      users: options.allowUsers,
      groups: options.allowGroups,
      labels: options.allowLabels,
      cgroups: options.allowCgroups,
      otherProcessNamespace: options.otherProcessNamespace,
    };
    this.#hello = {
      kind: "hello",
      protocol: PROTOCOL_VERSION,
      role: "agent",
      version: hostlerVersion,
      instance: randomBytes(8).toString("hex"),
    };
    this.#holdenEnvironment = Object.entries(process.env)
      .map(([name, value]) => `${name}=${value ?? ""}`)
      .filter((variable) => !changesBun(variable) && !variable.startsWith("HOLDEN_"));
    const handlers: ChildHandlers = {
      onDeath: (invocation, ending) => this.#onDeath(invocation, ending),
      onCleared: () => {},
      onTrouble: (message) => this.#logger.warn(message),
    };
    const groups = new InstanceGroups(groupPlace("agent", ownCgroup()));
    this.#children = new Children(loop, handlers, groups);
  }

  start(): void {
    const { kind, path } = this.#options.endpoint;
    if (kind === "listen") this.#listener = this.#listen(path);
    const verb = kind === "connect" ? "connecting to" : "listening at";
    this.#notifier.tell("READY=1", `STATUS=${verb} ${path}`);
    this.#keepWatchdog();
    this.#logger.info(`${verb} ${path}`);
    if (kind === "connect") this.#dial(path);
  }

  #dial(path: string): void {
    this.#dialler = new Dialler(this.#loop, path, {
      onConnection: (socket) => this.#take(socket, true),
      onFailure: (reason, wait) => {
        const what = `cannot connect to ${path}`;
        const again = `again in ${Math.round(wait)} ms, and so on`;
        this.#sayStanding("warn", what, { reason, detail: again });
      },
    });
    this.#dialler.dial();
  }

  /** Says how the dialling stands, once for each state: it is tried for ever. */
  #sayStanding(
    level: "info" | "warn",
    what: string,
    { reason, detail }: { readonly reason?: string; readonly detail?: string } = {},
  ): void {
    const state = reason === undefined ? what : `${what}: ${reason}`;
    const message = detail === undefined ? state : `${state}; ${detail}`;
    this.#limited.say(this.#standing.isNew(state) ? level : "debug", what, message);
  }

  /** At a path of its own, whose socket is made anew when it is removed; or at systemd's. */
  #listen(path: string): Listener | KeptListener {
    const handlers = {
      onConnection: (socket: Connection) => this.#take(socket, false),
      onExhausted: (error: Error) =>
        this.#limited.warn(`cannot take a connection: ${error.message}`),
    };
    const inherited = inheritedListener();
    if (inherited !== undefined) {
      return new Listener(this.#loop, inherited, { ...handlers, path: undefined });
    }
    makeDefaultFolder(path);
    return new KeptListener(this.#loop, path, {
      ...handlers,
      onRemoved: () => makeDefaultFolder(path),
      onTrouble: (message) => this.#limited.warn(message),
    });
  }

  #keepWatchdog(): void {
    const interval = this.#notifier.watchdog;
    if (interval === undefined) return;
    const beat = () => {
      this.#notifier.tell("WATCHDOG=1");
      this.#timers.push(this.#loop.wakeAfter(interval / 2, beat));
      if (this.#timers.length > 1) this.#timers.shift();
    };
    beat();
  }

  #take(socket: Connection, dialled: boolean): void {
    const refusal = this.#refuse(socket);
    if (refusal !== undefined) {
      if (dialled) this.#sayStanding("warn", "refused a connection", { reason: refusal });
      else this.#limited.warn(`refused a connection: ${refusal}`);
      socket.close();
      this.#dialler?.redial();
      return;
    }
    const handlers = { onBytes: () => {}, onEnd: () => {} };
    const stream = new StreamConnection(this.#loop, socket, {
      queuedBytes: limits.queuedBytes,
      handlers,
    });
    const session = new AgentSession(stream, {
      loop: this.#loop,
      children: this.#children,
      hello: this.#hello,
      dialled,
      holdenEnvironment: this.#holdenEnvironment,
      onEnd: (reason) => this.#forget(session, reason),
      onGreeted: () => {
        this.#dialler?.succeed();
        if (dialled) this.#sayStanding("info", `connected to ${this.#options.endpoint.path}`);
        // It may have gone while it was greeted.
        if (!this.#sessions.has(session)) return;
        this.#greeted.add(session);
        // By design; but two with the same configuration start everything twice.
        const { size } = this.#greeted;
        if (size > 1)
          this.#limited.say("info", "several orchestrators", `${size} orchestrators are connected`);
      },
      onStarted: (invocation) => this.#askers.set(invocation, session),
    });
    this.#sessions.add(session);
    session.begin();
  }

  #refuse(socket: Connection): string | undefined {
    if (this.#sessions.size >= limits.connections) {
      return `expected at most ${limits.connections} connections, received one more`;
    }
    const refusal = refusePeer(identifyPeer(socket), this.#policy);
    if (refusal === undefined) return undefined;
    return `expected ${refusal.expected}; received ${refusal.received}. Allow it by --allow-uid`;
  }

  #forget(session: AgentSession, reason: string): void {
    this.#sessions.delete(session);
    const wasGreeted = this.#greeted.delete(session);
    if (this.#dialler === undefined) {
      this.#limited.say("debug", "a connection ended", `a connection ended: ${reason}`);
    } else {
      const { path } = this.#options.endpoint;
      const what = wasGreeted ? `the connection to ${path} ended` : `not connected to ${path}`;
      this.#sayStanding(wasGreeted ? "info" : "warn", what, { reason });
    }
    for (const [invocation, asker] of this.#askers) {
      if (asker === session) this.#askers.delete(invocation);
    }
    this.#dialler?.redial();
  }

  /**
   * Telling waits until the turn is over: the start of what replaces it may be in this turn. Where
   * that is certain it waits a little longer, so that the child need not share its processor.
   */
  #onDeath(invocation: string, ending: Ending): void {
    agentKillPoint("agent:exit:noticed");
    const asker = this.#askers.get(invocation);
    const tell = () => {
      asker?.tellExit(invocation, ending);
      this.#askers.delete(invocation);
      agentKillPoint("agent:exit:told");
    };
    if (asker?.isArmedFor(invocation) === true) this.#loop.wakeAfter(ANSWER_AFTER, tell);
    else this.#loop.afterTurn(tell);
  }

  /** Leaves the children alone: they belong to whoever holds their pidfds. */
  stop(): void {
    this.#notifier.tell("STOPPING=1");
    this.#listener?.close();
    this.#dialler?.stop();
    for (const timer of this.#timers) timer[Symbol.dispose]();
    for (const session of [...this.#sessions]) session.close();
    this.#children.close();
    this.#limited[Symbol.dispose]();
    this.#logger.info(`stopped; ${this.#children.count} children go on without this agent`);
  }
}

/** Runs the agent until SIGTERM or SIGINT. */
export async function runAgent(options: AgentOptions): Promise<number> {
  const logger = createLogger(options.holdenNames ? "holden-agent" : "hostler process agent");
  using loop = new EventLoop(startWorker);
  const agent = new Agent(options, logger, loop);
  const ended = Promise.withResolvers<number>();
  loop.onFailure((failure) => {
    logger.error("stopped by a bug", { failure });
    ended.resolve(ExitCode.bug);
  });
  ignoreSignals((message) => logger.warn(message));
  if (options.allowLabels.length > 0 && !givesLabels()) {
    logger.warn(`--allow-label: ${withoutLabels}`);
  }
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => ended.resolve(ExitCode.done));
  }
  // A socket that systemd opened is there already, and nobody else's.
  const { kind, path } = options.endpoint;
  if (kind === "listen" && process.env["LISTEN_FDS"] === undefined) {
    await outwaitPredecessor(loop, path);
  }
  agent.start();
  const code = await ended.promise;
  agent.stop();
  return code;
}
