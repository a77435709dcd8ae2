import * as v from "valibot";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { describeIssues, firstFinding } from "../../messaging/describe-issues.ts";
import { KeptListener } from "../../messaging/kept-listener.ts";
import { LineConnection } from "../../messaging/line-connection.ts";
import { identifyPeer, type Peer, type PeerPolicy, refusePeer } from "../../messaging/peer.ts";
import { hostlerVersion } from "../../units/version.ts";
import type { DaemonEvent } from "../lifecycle-state.ts";
import {
  type ClientEvent,
  type ClientMessage,
  clientMessageSchema,
  limits,
  PROTOCOL_VERSION,
  refuseName,
  sessionNameOf,
  type WireError,
} from "../protocol.ts";

export interface ClientHandlers {
  onEvent(event: DaemonEvent): void;
  onTrouble(message: string): void;
  /** Whether this user may use this id. */
  mayUse(id: string, user: number): boolean;
}

/** Milliseconds in which a client that is hung up on may take what was sent to it. */
const LEAVING_TIME = 1_000;

interface Client {
  readonly number: number;
  readonly lines: LineConnection;
  readonly peer: Peer;
  /** It said HELLO. */
  greeted: boolean;
}

type Of<C extends ClientMessage["cmd"]> = Extract<ClientMessage, { cmd: C }>;

/** The clients' socket: lines of JSON, and sessions with them. */
export class ClientConnections {
  readonly #loop: EventLoop;
  readonly #policy: PeerPolicy;
  readonly #handlers: ClientHandlers;
  readonly #listener: KeptListener;
  readonly #clients = new Map<number, Client>();
  /** Sessions that wait for clients which do not read: duplicates that are ours as yet. */
  readonly #unsent = new Map<string, Set<number>>();
  #next = 1;

  /** @throws SocketPathError when the path cannot be used. */
  constructor(
    loop: EventLoop,
    options: {
      readonly path: string;
      readonly policy: PeerPolicy;
      readonly handlers: ClientHandlers;
    },
  ) {
    this.#loop = loop;
    this.#policy = options.policy;
    this.#handlers = options.handlers;
    this.#listener = new KeptListener(loop, options.path, {
      onConnection: (socket) => this.#take(socket),
      onExhausted: (error) => options.handlers.onTrouble(`cannot take a client: ${error.message}`),
      onRemoved: () => {},
      onTrouble: options.handlers.onTrouble,
    });
  }

  #take(socket: OwnedDescriptor): void {
    const number = this.#next++;
    const peer = identifyPeer(socket);
    const lines = new LineConnection(this.#loop, socket, {
      limits: { lineBytes: limits.lineBytes, queuedBytes: limits.queuedBytes, descriptors: 0 },
      handlers: {
        onLine: (body) => this.#onLine(client, body),
        onEnd: (reason, violation) => {
          if (violation) this.#handlers.onTrouble(`a client broke the protocol: ${reason}`);
          this.#gone(number);
        },
      },
    });
    const client: Client = { number, lines, peer, greeted: false };
    const refusal = this.#refusePeer(peer);
    if (refusal === undefined) {
      this.#clients.set(number, client);
      return;
    }
    const { expected, received } = refusal;
    this.#handlers.onTrouble(`refused a client: expected ${expected}; received ${received}`);
    lines.send({ event: "ERROR", error: refusal });
    this.#letGo(lines);
  }

  #refusePeer(peer: Peer): WireError | undefined {
    if (this.#clients.size >= limits.connections) {
      const expected = `at most ${limits.connections} clients`;
      return { kind: "limit", message: "Refused", expected, received: "one more" };
    }
    const refusal = refusePeer(peer, this.#policy);
    if (refusal === undefined) return undefined;
    const hint = `Run this as one of these, or start luod with --allow-uid ${peer.user} as well.`;
    return { kind: "refused", message: "luod is not for this user", ...refusal, hint };
  }

  #gone(number: number): void {
    if (!this.#clients.delete(number)) return;
    this.#handlers.onEvent({ kind: "disconnected", connection: number });
  }

  #onLine(client: Client, body: unknown): void {
    // What was sent before a refusal was read.
    if (!this.#clients.has(client.number)) return;
    const parsed = v.safeParse(clientMessageSchema, body);
    if (!parsed.success) {
      const message = `The request is wrong: ${describeIssues(parsed.issues)}`;
      const error = { kind: "request", message, ...firstFinding(parsed.issues) };
      this.#refuse(client, requestOf(body), error);
      return;
    }
    this.#onMessage(client, parsed.output);
  }

  #onMessage(client: Client, message: ClientMessage): void {
    const id = message.cmd === "HELLO" ? undefined : message.id;
    const { user } = client.peer;
    const isClaim = message.cmd === "CLAIM" || message.cmd === "FINISHED";
    const mayClaim = isClaim && user === 0;
    if (id !== undefined && !mayClaim && !this.#handlers.mayUse(id, user)) {
      const error = {
        kind: "refused",
        message: `User ${user} may not use the id ${id}`,
        hint: "The daemon's --allow-id says whose it is.",
      };
      this.#refuse(client, message.request, error);
      return;
    }
    const refusal = message.cmd === "SUBSCRIBE" ? refuseSubscription(message) : undefined;
    if (refusal !== undefined) this.#refuse(client, message.request, refusal);
    else if (message.cmd === "HELLO") this.#greet(client, message);
    else this.#handlers.onEvent(this.#eventOf(client, message));
  }

  #greet(client: Client, message: Of<"HELLO">): void {
    if (message.protocol !== PROTOCOL_VERSION) {
      const expected = `protocol ${PROTOCOL_VERSION}`;
      const received = `${message.protocol}`;
      const text = `Refused: expected ${expected}, received ${received}`;
      this.#refuse(client, message.request, { kind: "version", message: text, expected, received });
      return;
    }
    client.greeted = true;
    const { request } = message;
    const asked = request === undefined ? {} : { request };
    const words = { protocol: PROTOCOL_VERSION, version: hostlerVersion };
    this.#send(client, { event: "HELLO", ...asked, ...words });
  }

  #eventOf(client: Client, message: Exclude<ClientMessage, Of<"HELLO">>): DaemonEvent {
    const { number: connection, peer } = client;
    const { request } = message;
    switch (message.cmd) {
      case "SUBSCRIBE":
        return this.#subscribe(client, message);
      case "UNSUBSCRIBE":
        return { kind: "unsubscribe", connection, id: message.id, request };
      case "READY":
        return { kind: "ready", connection, request, ...wordsOfReady(message) };
      case "PROGRESS": {
        const { id, bytes } = message;
        const detail = describeProgress(message);
        return { kind: "progress", connection, id, request, bytes, detail };
      }
      case "ABORT": {
        const { id, reason = "it gives no reason" } = message;
        return { kind: "client-aborts", connection, id, request, reason };
      }
      case "CLAIM": {
        const { id, session: part = "" } = message;
        const claimer = { connection, request, bare: !client.greeted };
        return { kind: "claim", claimer, id, part, user: peer.user };
      }
      case "FINISHED":
        return {
          kind: "client-finished",
          connection,
          id: message.id,
          part: message.session,
          request,
        };
    }
  }

  /** A bare client knows one session, no deadline but the usual, and is required. */
  #subscribe(client: Client, message: Of<"SUBSCRIBE">): DaemonEvent {
    const { id, request, update } = message;
    const { number: connection, peer, greeted } = client;
    const parts = (greeted ? message.sessions : undefined) ?? [""];
    const subscription = {
      id,
      connection,
      user: peer.user,
      processId: peer.processId,
      bare: !greeted,
      required: greeted ? (message.required ?? message.optional !== true) : true,
      deadline: (greeted ? message.deadline_ms : undefined) ?? limits.deadline,
      sessions: [...new Set(parts.map((part) => sessionNameOf(id, part)))],
    };
    return { kind: "subscribe", subscription, request, update: greeted ? update : undefined };
  }

  #refuse(client: Client, request: number | undefined, error: WireError): void {
    const asked = request === undefined ? {} : { request };
    this.#send(client, { event: "ERROR", ...asked, error });
    // A bare client knows no errors: it understands the end of its connection.
    if (!client.greeted) this.hangUp(client.number);
  }

  #send(client: Client, message: ClientEvent): void {
    client.lines.send(message);
  }

  /** Sends a line. A client that is gone gets nothing. */
  send(connection: number, message: ClientEvent): void {
    const client = this.#clients.get(connection);
    if (client !== undefined) this.#send(client, message);
  }

  /** Sends a line with a session. */
  sendSession(
    connection: number,
    message: ClientEvent,
    session: { readonly direction: string; readonly name: string; descriptor: OwnedDescriptor },
  ): void {
    const client = this.#clients.get(connection);
    if (client === undefined) return;
    client.lines.send(message, session.descriptor);
    if (client.lines.queuedDescriptors === 0) return;
    const key = `${session.direction}/${session.name}`;
    this.#unsent.set(key, (this.#unsent.get(key) ?? new Set()).add(connection));
  }

  /**
   * A session is closed: what of it waits for a client that does not read must not keep it open.
   * Such a client is let go.
   */
  revoke(direction: string, name: string): void {
    const connections = this.#unsent.get(`${direction}/${name}`) ?? [];
    this.#unsent.delete(`${direction}/${name}`);
    for (const connection of connections) {
      const client = this.#clients.get(connection);
      if (client === undefined || client.lines.queuedDescriptors === 0) continue;
      this.#handlers.onTrouble("a client does not read, and is let go");
      client.lines.close();
      this.#gone(connection);
    }
  }

  /** Ends a connection after what was sent on it; one that does not read has a while. */
  hangUp(connection: number): void {
    const lines = this.#clients.get(connection)?.lines;
    if (lines === undefined) return;
    this.#letGo(lines);
    this.#gone(connection);
  }

  #letGo(lines: LineConnection): void {
    if (lines.queuedDescriptors > 0) lines.close();
    else lines.finish();
    if (lines.isOpen) this.#loop.wakeAfter(LEAVING_TIME, () => lines.close());
  }

  close(): void {
    this.#listener.close();
    for (const { lines } of this.#clients.values()) this.#letGo(lines);
    this.#clients.clear();
  }
}

function requestOf(body: unknown): number | undefined {
  const request = (body as { request?: unknown } | null)?.request;
  const isNumber = typeof request === "number" && Number.isSafeInteger(request) && request >= 0;
  return isNumber ? request : undefined;
}

function refuseSubscription(message: Of<"SUBSCRIBE">): WireError | undefined {
  const { required, optional } = message;
  if (required !== undefined && required === optional) {
    const expected = "required or optional, or one as the other's opposite";
    const received = `${required} for both`;
    const text = `The request is wrong: expected ${expected}, received ${received}`;
    return { kind: "request", message: text, expected, received };
  }
  return refuseSessions(message);
}

/** Every session needs a name that the kernel takes, and a registry can tell apart. */
function refuseSessions({ id, sessions = [""] }: Of<"SUBSCRIBE">): WireError | undefined {
  for (const part of sessions) {
    const refusal = refuseName(sessionNameOf(id, part));
    if (refusal !== undefined) {
      const wanted = `expected ${refusal.expected}`;
      const message = `The session ${sessionNameOf(id, part)} cannot be: ${wanted}`;
      return { kind: "request", message, ...refusal };
    }
  }
  return undefined;
}

const wordsOfReady = ({ id, bytes, update }: Of<"READY">) => ({ id, bytes, update });

function describeProgress({ percent, detail }: Of<"PROGRESS">): string {
  const parts = [percent === undefined ? "" : `${Math.round(percent)} %`, detail ?? ""];
  return parts.filter((part) => part !== "").join(", ") || "it goes on";
}
