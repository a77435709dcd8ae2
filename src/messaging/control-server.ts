import * as v from "valibot";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import { SaidOnce } from "../logging/said-once.ts";
import { describeIssues, firstFinding } from "./describe-issues.ts";
import { FrameConnection } from "./frame-connection.ts";
import { type InheritedListener, KeptListener } from "./kept-listener.ts";
import { identifyPeer, letsOthersIn, type Peer, type PeerPolicy, refusePeer } from "./peer.ts";
import { StreamConnection } from "./stream-connection.ts";

/** What a daemon says when it refuses a request. */
export interface ControlError {
  readonly kind: string;
  readonly message: string;
  readonly expected?: string;
  readonly received?: string;
  readonly hint?: string;
}

/** One request that is being answered: items first, if any, then one answer. */
export interface ControlCall {
  readonly peer: Peer;
  /** `later`: together with others, at the end of the turn or before the next frame. */
  item(item: unknown, options?: { readonly later: boolean }): void;
  done(answer: unknown): void;
  refuse(error: ControlError): void;
  /** Called when the client is gone before the answer: whatever serves it ends. */
  onGone(call: () => void): void;
  /** The client has yet to take much of what it was sent: what can wait should. */
  readonly isBehind: boolean;
  /**
   * How another program is asked for what is still to come, under the same number. Where nobody
   * says that of a request, its client's connection ends with this program.
   */
  resumeBy(ask: () => { readonly id: number }): void;
  /** Called each time when a client that was behind has taken all. */
  onDrained(call: () => void): void;
}

/** A client whom another program serves on, and what it has asked and was not answered. */
export interface CarriedClient<Request> {
  readonly socket: OwnedDescriptor;
  readonly requests: readonly Request[];
}

/** A request that is not answered yet, and what its handler wants to hear of. */
interface OpenCall {
  onGone: () => void;
  onDrained: () => void;
  resume: (() => { readonly id: number }) | undefined;
}

interface Client {
  readonly frames: FrameConnection;
  readonly open: Map<number, OpenCall>;
  readonly peer: Peer;
}

/** Limits of a control socket; going over one is a refusal. */
export interface ControlLimits {
  readonly connections: number;
  readonly requestBytes: number;
  /** Requests of one client that are not answered yet. */
  readonly openRequests: number;
  readonly queuedBytes: number;
}

export const defaultControlLimits: ControlLimits = {
  connections: 256,
  requestBytes: 65_536,
  openRequests: 64,
  queuedBytes: 8 * 1024 * 1024,
};

/** Refused clients that may take their time to leave, and how long that is in milliseconds. */
const REFUSED_LIMIT = 64;
const REFUSED_TIME = 1_000;

/** A client that has so many bytes to take is behind. */
const BEHIND_BYTES = 256 * 1024;

/** Asks nothing but whether somebody answers; every daemon does, whatever else it is asked. */
function isPing(body: unknown): body is { readonly id: number } {
  const { id, verb } = (body ?? {}) as { readonly id?: unknown; readonly verb?: unknown };
  return verb === "ping" && typeof id === "number" && Number.isSafeInteger(id) && id > 0;
}

interface Options<Request extends { readonly id: number }> {
  readonly path: string;
  readonly policy: PeerPolicy;
  readonly limits: ControlLimits;
  /** Refuses what is no request of this daemon. */
  readonly schema: v.GenericSchema<unknown, Request>;
  readonly onRequest: (request: Request, call: ControlCall) => void;
  readonly onTrouble: (message: string) => void;
  /** Called before a socket that was removed is made anew: what else was removed with it? */
  readonly onRemoved?: () => void;
  /** Listens already: the program before this one made it. */
  readonly inherited?: InheritedListener | undefined;
}

/**
 * The control socket of a daemon: credentials checked, JSON frames. It is 0600, and 0666 where the
 * policy names other users: connect(2) asks for leave to write, and only then are they known.
 */
export class ControlServer<Request extends { readonly id: number }> implements Disposable {
  readonly #loop: EventLoop;
  readonly #options: Options<Request>;
  readonly #listener: KeptListener;
  readonly #clients = new Map<FrameConnection, Client>();
  /** Clients that were told why they may not stay, and have not left yet. */
  readonly #refused = new Map<FrameConnection, Disposable>();
  /** Whom anybody can have refused again and again: the log is no place for all of them. */
  readonly #said = new SaidOnce(REFUSED_LIMIT);

  /** @throws SocketPathError when the path cannot be used. */
  constructor(loop: EventLoop, options: Options<Request>) {
    this.#loop = loop;
    this.#options = options;
    this.#listener = new KeptListener(loop, options.path, {
      mode: letsOthersIn(options.policy) ? 0o666 : 0o600,
      onConnection: (socket) => this.#take(socket),
      onExhausted: (error) => options.onTrouble(`cannot take a client: ${error.message}`),
      onRemoved: () => options.onRemoved?.(),
      onTrouble: options.onTrouble,
      inherited: options.inherited,
    });
  }

  /** What listens, for another program to go on with. */
  get listener(): InheritedListener | undefined {
    return this.#listener.carried;
  }

  /** Clients of whom nothing is half read or half sent, for another program to serve on. */
  get carried(): readonly CarriedClient<{ readonly id: number }>[] {
    return [...this.#clients].flatMap(([frames, { open }]) => {
      const requests = [...open.values()].flatMap((call) => call.resume?.() ?? []);
      if (!frames.isIdle || requests.length < open.size) return [];
      return [{ socket: frames.stream.socket, requests }];
    });
  }

  /** Serves a client of the program before this one, which let it in. */
  goOn({ socket, requests }: CarriedClient<Request>): void {
    const client = this.#serve(socket);
    this.#clients.set(client.frames, client);
    for (const request of requests) {
      this.#options.onRequest(request, this.#open(request.id, client));
    }
  }

  /** A client's connection, whatever is to become of it. */
  #serve(socket: OwnedDescriptor): Client {
    const { limits, onTrouble } = this.#options;
    const peer = identifyPeer(socket);
    const stream = new StreamConnection(this.#loop, socket, {
      queuedBytes: limits.queuedBytes,
      handlers: { onBytes: () => {}, onEnd: () => {} },
    });
    const open = new Map<number, OpenCall>();
    const end = () => {
      this.#clients.delete(frames);
      this.#refused.get(frames)?.[Symbol.dispose]();
      this.#refused.delete(frames);
      for (const call of [...open.values()]) call.onGone();
      open.clear();
    };
    const frameLimits = { frameBytes: limits.requestBytes, frameDescriptors: 0 };
    const frames: FrameConnection = new FrameConnection(stream, frameLimits, {
      onFrame: (body) => {
        if (this.#clients.has(frames)) this.#onFrame(body, { frames, open, peer });
      },
      onViolation: ({ expected, received }) => {
        onTrouble(`a client broke the protocol: expected ${expected}, received ${received}`);
        end();
      },
      onEnd: end,
      onDrained: () => {
        for (const call of [...open.values()]) call.onDrained();
      },
    });
    return { frames, open, peer };
  }

  #take(socket: OwnedDescriptor): void {
    const { limits, policy, onTrouble } = this.#options;
    const client = this.#serve(socket);
    const { frames, peer } = client;
    const refusal = refusePeer(peer, policy);
    const full = this.#clients.size >= limits.connections;
    if (refusal === undefined && !full) {
      this.#clients.set(frames, client);
      return;
    }
    const reason = refusal ?? {
      expected: `at most ${limits.connections} clients`,
      received: "one more",
    };
    const trouble = `refused a client: expected ${reason.expected}; received ${reason.received}`;
    if (refusal === undefined || this.#said.isNew(trouble)) onTrouble(trouble);
    this.#refuse(frames, reason);
  }

  /**
   * Says why, and waits a little for the client to read it and to leave: to one whose connection
   * ends before it has seen that it stands, the kernel says "connection reset", and no reason.
   */
  #refuse(
    frames: FrameConnection,
    reason: { readonly expected: string; readonly received: string },
  ): void {
    const { expected, received } = reason;
    const message = `Refused: expected ${expected}, received ${received}`;
    frames.send({ id: 0, error: { kind: "refused", message, expected, received } });
    if (this.#refused.size >= REFUSED_LIMIT) {
      frames.finish();
      return;
    }
    const wake = this.#loop.wakeAfter(REFUSED_TIME, () => {
      frames.close();
      this.#refused.delete(frames);
    });
    this.#refused.set(frames, wake);
  }

  #onFrame(body: unknown, client: Client): void {
    const { frames, open } = client;
    if (isPing(body)) {
      frames.send({ id: body.id, ok: null });
      return;
    }
    const parsed = v.safeParse(this.#options.schema, body);
    if (!parsed.success) {
      const asked = (body as { id?: unknown } | null)?.id;
      const id = typeof asked === "number" && Number.isSafeInteger(asked) && asked >= 0 ? asked : 0;
      const message = `The request is wrong: ${describeIssues(parsed.issues)}`;
      const { expected, received } = firstFinding(parsed.issues);
      frames.send({ id, error: { kind: "request", message, expected, received } });
      return;
    }
    const request = parsed.output;
    const { id } = request;
    const most = this.#options.limits.openRequests;
    if (open.size >= most || open.has(id)) {
      const expected = open.has(id) ? "an id that is not in use" : `at most ${most} open requests`;
      const message = `Refused: expected ${expected}, received ${id}`;
      frames.send({ id, error: { kind: "request", message, expected, received: `${id}` } });
      return;
    }
    this.#options.onRequest(request, this.#open(id, client));
  }

  #open(id: number, { frames, open, peer }: Client): ControlCall {
    const call: OpenCall = { onGone: () => {}, onDrained: () => {}, resume: undefined };
    open.set(id, call);
    return {
      peer,
      item: (item, options) => {
        if (!open.has(id)) return;
        if (options?.later === true) frames.sendLater({ id, item });
        else frames.send({ id, item });
      },
      done: (ok) => {
        if (open.delete(id)) frames.send({ id, ok });
      },
      refuse: (error) => {
        if (open.delete(id)) frames.send({ id, error });
      },
      onGone: (gone) => {
        if (open.has(id)) call.onGone = gone;
        else if (!frames.isOpen) gone();
      },
      get isBehind() {
        return frames.queuedBytes > BEHIND_BYTES;
      },
      onDrained: (drained) => {
        call.onDrained = drained;
      },
      resumeBy: (ask) => {
        call.resume = ask;
      },
    };
  }

  /** Lets every client go and removes the socket. */
  [Symbol.dispose](): void {
    this.#listener.close();
    for (const frames of this.#clients.keys()) frames.finish();
    this.#clients.clear();
    for (const [frames, wake] of this.#refused) {
      wake[Symbol.dispose]();
      frames.finish();
    }
    this.#refused.clear();
  }
}
