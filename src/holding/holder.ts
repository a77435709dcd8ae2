import { writeSync } from "node:fs";
import { setCloseOnExec } from "../../ffi/descriptor.ts";
import { createSession, retrieveSession } from "../../ffi/live-update.ts";
import { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { descriptorLimit } from "../../ffi/process.ts";
import { Errno, errnoMessage, errnoName } from "../../ffi/system-call-error.ts";
import { monotonicNow } from "../event-loop/clock.ts";
import { EventLoop } from "../event-loop/event-loop.ts";
import { startWorker } from "../event-loop/worker-factory.ts";
import { KeptListener } from "../messaging/kept-listener.ts";
import { allowUsers, identifyPeer, refusePeer } from "../messaging/peer.ts";
import { ExitCode } from "../units/exit-code.ts";
import type { ProcessId } from "../units/units.ts";
import { type Answer, DaemonSession, holderKillPoint, refuseConnection } from "./daemon-session.ts";
import { DescriptorStore } from "./descriptor-store.ts";
import { usersOf } from "./device-users.ts";
import { HolderLock, refusalOf } from "./holder-place.ts";
import {
  type HolderRefusal,
  type HolderRequest,
  holderSocketOf,
  limits,
  refuseName,
} from "./protocol.ts";
import { RequestQueue } from "./request-queue.ts";

const DEVICE = "/dev/liveupdate";

/** Milliseconds after a request in which garbage is collected: it stays for as long as the host. */
const TIDY_AFTER = 1_000;

/** Beside frames there is nobody to tell: no logger, which would be more memory. */
function say(message: string): void {
  try {
    writeSync(2, `hostler holder: ${message}\n`);
  } catch {
    // A reader that is gone must not hurt the one who only tells.
  }
}

type SessionRequest = Extract<HolderRequest, { session: string }>;

const isForSession = (request: HolderRequest): request is SessionRequest => "session" in request;

function describeBusy(): HolderRefusal {
  const users = usersOf(DEVICE);
  const found = users.length === 0 ? "nobody whom /proc shows now" : users.join(", ");
  const message =
    `${DEVICE} was held open by another for ${limits.deviceTime} ms: ${found}. It may be ` +
    "systemd (while it starts or shuts down), or another orchestrator of live updates: stop it";
  return { code: "EBUSY", message };
}

function describeErrno(request: SessionRequest, errno: number): HolderRefusal {
  const verb = request.kind === "create-session" ? "make" : "retrieve";
  const subject = `session ${JSON.stringify(request.session)}`;
  const message = `Cannot ${verb} ${subject} by ${DEVICE}: ${errnoMessage(errno)}`;
  return { code: errnoName(errno), message };
}

/** How many descriptors this process can keep: the limit, or less where the system says so. */
function mostKept(): number {
  const soft = descriptorLimit()?.soft ?? 0;
  return Math.max(0, Math.min(limits.descriptors, soft - limits.ownDescriptors));
}

/** Keeps descriptors by name for one daemon, and makes its sessions. */
class Holder {
  readonly #loop: EventLoop;
  readonly #store = new DescriptorStore(mostKept());
  readonly #queue = new RequestQueue();
  readonly #ended = Promise.withResolvers<number>();
  #daemon: DaemonSession | undefined;
  /** Its process; 0 for one that cannot be seen from here. */
  #daemonProcess: ProcessId = 0;
  #retry: Disposable | undefined;
  #tidy: Disposable | undefined;
  #refusedCount = 0;

  constructor(loop: EventLoop) {
    this.#loop = loop;
  }

  get whenEnded(): Promise<number> {
    return this.#ended.promise;
  }

  /** A bug of ours: what is kept is lost, and filled again from the daemon's duplicates. */
  fail(failure: unknown): void {
    say(`stopped by a bug: ${failure instanceof Error ? failure.stack : String(failure)}`);
    this.#ended.resolve(ExitCode.bug);
  }

  /** SIGTERM and its like: what is kept is worth more than an order to end. */
  onSignal(signal: string): void {
    const { size } = this.#store;
    if (size === 0) {
      this.#ended.resolve(ExitCode.done);
      return;
    }
    say(
      `received ${signal} and goes on: it keeps ${size} descriptors that would be lost. ` +
        "It ends by itself when they are dropped and its daemon is gone; SIGKILL ends it now",
    );
  }

  take(socket: OwnedDescriptor): void {
    const refusal = refusePeer(identifyPeer(socket), allowUsers([process.geteuid?.() ?? 0]));
    if (refusal !== undefined) {
      const { expected, received } = refusal;
      const message = `Expected a daemon of ${expected}, received one of ${received}`;
      this.#refuse(socket, { code: "EPERM", message });
      return;
    }
    // The end of the daemon before is in this turn, where that was killed and came again.
    if (this.#daemon === undefined) this.#greet(socket);
    else this.#loop.afterTurn(() => this.#takeLate(socket));
  }

  #takeLate(socket: OwnedDescriptor): void {
    if (this.#daemon === undefined) {
      this.#greet(socket);
      return;
    }
    const known = this.#daemonProcess;
    const first = known === 0 ? "the first" : `the first, process ${known},`;
    const message = `Expected one daemon at a time, received a second one while ${first} lives`;
    this.#refuse(socket, { code: "EBUSY", message });
  }

  #refuse(socket: OwnedDescriptor, error: HolderRefusal): void {
    say(`refused a connection: ${error.message}`);
    if (this.#refusedCount >= limits.refusedConnections) {
      socket.close();
      return;
    }
    this.#refusedCount += 1;
    const onGone = () => {
      this.#refusedCount -= 1;
    };
    refuseConnection(this.#loop, socket, { error, onGone });
  }

  #greet(socket: OwnedDescriptor): void {
    const session: DaemonSession = new DaemonSession(this.#loop, socket, {
      onRequest: (request, descriptor) => this.#onRequest(session, request, descriptor),
      onEnd: (reason) => this.#onEnd(reason),
    });
    this.#daemon = session;
    this.#daemonProcess = identifyPeer(socket).processId;
  }

  #onEnd(reason: string): void {
    this.#daemon = undefined;
    this.#queue.clear();
    this.#retry?.[Symbol.dispose]();
    const { size } = this.#store;
    if (size === 0) this.#ended.resolve(ExitCode.done);
    else
      say(`the daemon's connection ended (${reason}): ${size} descriptors are kept for the next`);
  }

  #onRequest(
    session: DaemonSession,
    request: HolderRequest,
    descriptor: OwnedDescriptor | undefined,
  ): void {
    if (this.#queue.length >= limits.openRequests) {
      descriptor?.close();
      const message = `Expected at most ${limits.openRequests} open requests, received one more`;
      session.answer(request, { kind: "error", error: { code: "EAGAIN", message } });
      return;
    }
    this.#queue.add({
      name: request.kind === "list" ? undefined : request.name,
      until: isForSession(request) ? monotonicNow() + limits.deviceTime : undefined,
      serve: (isLast) => {
        const answer = this.#perform(request, { descriptor, isLast });
        if (answer === "busy") return "busy";
        holderKillPoint(`holder:${request.kind}:performed`);
        session.answer(request, answer);
        return "served";
      },
      abandon: () => descriptor?.close(),
    });
    this.#serve();
  }

  #serve(): void {
    this.#tidy ??= this.#loop.wakeAfter(TIDY_AFTER, () => {
      this.#tidy = undefined;
      Bun.gc(true);
    });
    this.#retry?.[Symbol.dispose]();
    const again = this.#queue.run(monotonicNow());
    if (again !== undefined) this.#retry = this.#loop.wakeAt(again, () => this.#serve());
  }

  #perform(
    request: HolderRequest,
    given: { readonly descriptor: OwnedDescriptor | undefined; readonly isLast: boolean },
  ): Answer | "busy" {
    switch (request.kind) {
      case "put":
        return this.#put(request.name, given.descriptor);
      case "get": {
        const descriptor = this.#store.get(request.name);
        return descriptor === undefined ? { kind: "absent" } : { kind: "found", descriptor };
      }
      case "drop":
        // An answer that waits to be sent may have what is closed here.
        this.#daemon?.flush();
        return { kind: this.#store.drop(request.name) ? "done" : "absent" };
      case "list":
        return { kind: "names", names: this.#store.names };
      case "create-session":
      case "retrieve-session":
        return this.#performSession(request, given.isLast);
    }
  }

  #put(name: string, descriptor: OwnedDescriptor | undefined): Answer {
    if (descriptor === undefined) throw new Error("Bug: a put came without its descriptor");
    const error = this.#store.refuse(name);
    if (error === undefined) {
      this.#store.keep(name, descriptor);
      return { kind: "done" };
    }
    descriptor.close();
    return { kind: "error", error };
  }

  #performSession(request: SessionRequest, isLast: boolean): Answer | "busy" {
    const { kind, session, name } = request;
    const error = refuseName(session, limits.sessionBytes) ?? this.#store.refuse(name);
    if (error !== undefined) return { kind: "error", error };
    const made = kind === "create-session" ? createSession(session) : retrieveSession(session);
    if (made instanceof OwnedDescriptor) {
      this.#store.keep(name, made);
      return { kind: "found", descriptor: made };
    }
    if (made !== -Errno.EBUSY) return { kind: "error", error: describeErrno(request, -made) };
    return isLast ? { kind: "error", error: describeBusy() } : "busy";
  }
}

interface Place {
  readonly controlSocket: string;
  /** The connection of the daemon that starts this holder, if it is started by one. */
  readonly connection: OwnedDescriptor | undefined;
}

function readWords(words: readonly string[]): Place | undefined {
  const [controlSocket, connection, ...others] = words;
  if (controlSocket?.startsWith("/") !== true || others.length > 0) return undefined;
  if (connection === undefined) return { controlSocket, connection };
  if (!/^\d{1,9}$/.test(connection) || Number(connection) < 3) return undefined;
  return { controlSocket, connection: new OwnedDescriptor(Number(connection)) };
}

/** Takes its place beside the control socket, and takes it again when somebody removes it. */
function listen(loop: EventLoop, controlSocket: string, holder: Holder): KeptListener {
  const lock = new HolderLock(controlSocket);
  return new KeptListener(loop, holderSocketOf(controlSocket), {
    onConnection: (socket) => holder.take(socket),
    onExhausted: (error) => say(`cannot take a connection: ${error.message}`),
    onRemoved: () => lock.restore(),
    onTrouble: say,
  });
}

async function refuse(loop: EventLoop, place: Place, error: HolderRefusal): Promise<number> {
  say(error.message);
  if (place.connection !== undefined) {
    const gone = Promise.withResolvers<void>();
    refuseConnection(loop, place.connection, { error, onGone: gone.resolve });
    await gone.promise;
  }
  return ExitCode.refused;
}

async function serve(loop: EventLoop, place: Place): Promise<number> {
  const { controlSocket, connection } = place;
  const holder = new Holder(loop);
  let listener: KeptListener;
  try {
    listener = listen(loop, controlSocket, holder);
  } catch (error) {
    return await refuse(loop, place, refusalOf(error));
  }
  loop.onFailure((failure) => holder.fail(failure));
  const signals = ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM"] as const;
  for (const signal of signals) {
    process.on(signal, () => holder.onSignal(signal));
  }
  if (connection !== undefined) holder.take(connection);
  const code = await holder.whenEnded;
  listener.close();
  return code;
}

/**
 * The holder's whole life: `--hold CONTROL_SOCKET [DESCRIPTOR]`, where the descriptor is the
 * connection of the daemon that starts it. Without one it waits for a daemon for ever.
 */
export async function runHolder(words: readonly string[]): Promise<number> {
  const place = readWords(words);
  if (place === undefined) {
    say("hostler --hold is for hostler's own use: it expects a control socket and a descriptor");
    return ExitCode.usage;
  }
  if (place.connection !== undefined) setCloseOnExec(place.connection.number);
  using loop = new EventLoop(startWorker);
  return await serve(loop, place);
}
