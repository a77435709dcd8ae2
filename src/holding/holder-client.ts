import { existsSync, realpathSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { duplicate } from "../../ffi/descriptor.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { SystemCallError } from "../../ffi/system-call-error.ts";
import { LONGEST_SOCKET_PATH } from "../../ffi/unix-socket.ts";
import { monotonicNow } from "../event-loop/clock.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import { makeSocketFolder, SocketPathError } from "../messaging/listener.ts";
import {
  formatDuration,
  type Milliseconds,
  type MonotonicTime,
  type ProcessId,
} from "../units/units.ts";
import { type Asked, HolderLink, type LinkAnswer } from "./holder-link.ts";
import { HolderReach } from "./holder-reach.ts";
import {
  type HolderRefusal,
  holderLockOf,
  holderSocketOf,
  limits,
  refuseName,
} from "./protocol.ts";

export type { HolderRefusal } from "./protocol.ts";

/** A connection that served for less than this many milliseconds did not succeed. */
const SHORT_SERVICE = 1_000;

/**
 * Refusals in a row after which the holder serves another daemon for certain: with the first one
 * the end of the daemon before this one may be on its way to it.
 */
const REFUSALS_WHEN_TAKEN = 3;

/**
 * What the live-update daemon and its like start as their holder: this very program; when run from
 * source, Bun and the entry file.
 */
export function holderCommand(): string[] {
  const source = Bun.main.startsWith("/$bunfs/") ? [] : [Bun.main];
  return [process.execPath, ...source, "--hold"];
}

/** True where a holder listens, or was killed: its socket is beside the control socket. */
export function isHolderLeft(controlSocket: string): boolean {
  return existsSync(holderSocketOf(controlSocket));
}

/** The one name of a control socket, whatever links lead to it. Its folder is made. */
function canonical(controlSocket: string): string {
  const path = resolve(controlSocket);
  makeSocketFolder(path);
  const found = join(realpathSync(dirname(path)), basename(path));
  const most = LONGEST_SOCKET_PATH - (holderLockOf("").length - ".lock".length);
  const size = new TextEncoder().encode(found).length;
  if (size <= most) return found;
  throw new SocketPathError(
    `Cannot hold for ${found}: expected at most ${most} bytes, received ${size}. ` +
      "Choose a shorter path.",
  );
}

/** A refusal where this process has no descriptor left; other failures are bugs. */
function refusalOf(error: unknown): HolderRefusal {
  if (!(error instanceof SystemCallError)) throw error;
  return { code: error.code, message: error.message };
}

function duplicateOf(descriptor: OwnedDescriptor): OwnedDescriptor | HolderRefusal {
  try {
    return duplicate(descriptor.number);
  } catch (error) {
    return refusalOf(error);
  }
}

const refusalIn = (answer: LinkAnswer): HolderRefusal | undefined =>
  answer.kind === "error" ? answer.error : undefined;

type OnSession = (result: OwnedDescriptor | HolderRefusal) => void;

interface Options {
  readonly controlSocket: string;
  /** The holder's program and its words; the control socket is added to them. */
  readonly command: readonly string[];
  /**
   * This process becomes other programs by execve(2): a holder that the one before started is its
   * child, to be reaped. False where nothing is said.
   */
  readonly goesOnByExec?: boolean;
  /** Without a word for so long a holder that owes one hangs. */
  readonly silenceTime?: Milliseconds;
  /** What an operator should read. */
  onTrouble(message: string): void;
  /** The holder serves another daemon, which lives. It is reached for again all the same. */
  onTaken?(message: string): void;
  /** Both sides are equal: at the beginning, and after each new connection. */
  onReady(): void;
}

/**
 * A daemon's side of its holder. It keeps a duplicate of all that the holder keeps, and fills a
 * new one when the holder dies; requests go on by themselves. Those about one name are served in
 * their order; a session that waits for the device holds up its own name alone.
 */
export class HolderClient implements Disposable {
  readonly #loop: EventLoop;
  readonly #options: Options;
  readonly #silenceTime: Milliseconds;
  readonly #reach: HolderReach;
  readonly #kept = new Map<string, OwnedDescriptor>();
  /** Names that a holder kept and this process did not know, as after a lost answer. */
  readonly #adopted = new Set<string>();
  /** Requests that are to be sent, in their order. */
  #waiting: Asked[] = [];
  /** The same for what makes both sides equal, before anything else. */
  #equalising: Asked[] = [];
  #link: HolderLink | undefined;
  #readySince: MonotonicTime | undefined;
  /** Of all that the holder's process can keep, this one has a duplicate, or the request. */
  #isKnown = false;
  /** What the holder kept when it was reached. */
  #found: readonly string[] = [];
  /** Asked of the holder's process, which may have taken them from the kernel: nobody else has. */
  readonly #retrieving = new Set<Asked>();
  #refusals = 0;
  #silence: string | undefined;
  #isDisposed = false;

  /** @throws SocketPathError for a path that is too long; FileRefused without its folder */
  constructor(loop: EventLoop, options: Options) {
    this.#loop = loop;
    this.#options = options;
    this.#silenceTime = options.silenceTime ?? limits.silenceTime;
    this.#reach = new HolderReach(loop, {
      controlSocket: canonical(options.controlSocket),
      command: options.command,
      findsChildren: options.goesOnByExec ?? false,
      onConnection: (socket) => this.#onConnection(socket),
      onProcess: ({ isChild }) => {
        // A child was given everything by us; another one had a daemon before this one.
        this.#isKnown = isChild;
        this.#retrieving.clear();
      },
      onTrouble: (message) => options.onTrouble(message),
    });
    this.#reach.reach();
  }

  /** Names that are kept, as far as is known now; all of them once it is ready. */
  get names(): string[] {
    return [...this.#kept.keys()];
  }

  /**
   * A duplicate of what is kept, as far as is known now, which is the caller's to close: at once,
   * and without asking the holder. Undefined when nothing is kept so.
   * @throws SystemCallError (EMFILE)
   */
  duplicate(name: string): OwnedDescriptor | undefined {
    const kept = this.#kept.get(name);
    return kept === undefined ? undefined : duplicate(kept.number);
  }

  /** The holder's process, which must outlive all others before a kexec; 0 for none. */
  get processId(): ProcessId {
    return this.#reach.processId;
  }

  /**
   * Kills the holder, whatever it keeps: for who can do without what only it has. Another one is
   * started, and filled with what is known here. False where it is not known, or out of reach.
   */
  kill(): boolean {
    return this.#reach.kill();
  }

  /** The holder hangs and is left alone: why, and what can be done; undefined when it answers. */
  get silence(): string | undefined {
    return this.#silence;
  }

  /** Has a duplicate kept. Refused: EEXIST for a name in use, EMFILE beyond the limit. */
  put(name: string, descriptor: OwnedDescriptor, onDone: (refusal?: HolderRefusal) => void): void {
    const copy = refuseName(name) ?? duplicateOf(descriptor);
    if ("code" in copy) {
      this.#loop.afterTurn(() => onDone(copy));
      return;
    }
    this.#ask({ kind: "put", name }, copy, (answer) => {
      const refusal = refusalIn(answer);
      if (refusal !== undefined || this.#kept.has(name)) copy.close();
      else this.#kept.set(name, copy);
      onDone(refusal);
    });
  }

  /** A duplicate, which is the caller's to close; undefined when nothing is kept so. */
  get(name: string, onDone: (found: OwnedDescriptor | undefined) => void): void {
    if (refuseName(name) !== undefined) this.#loop.afterTurn(() => onDone(undefined));
    else this.#ask({ kind: "get", name }, undefined, (answer) => onDone(answer.descriptor));
  }

  /** Closes what is kept. Refused: ENOENT when there is nothing. */
  drop(name: string, onDone: (refusal?: HolderRefusal) => void): void {
    const refusal = refuseName(name);
    if (refusal !== undefined) {
      this.#loop.afterTurn(() => onDone(refusal));
      return;
    }
    this.#ask({ kind: "drop", name }, undefined, (answer) => {
      this.#kept.get(name)?.close();
      // A holder that had no room for it may be without what we kept.
      const isDropped = this.#kept.delete(name) || answer.kind === "done";
      const message = `Nothing is kept under ${JSON.stringify(name)}`;
      onDone(isDropped ? undefined : { code: "ENOENT", message });
    });
  }

  list(onDone: (names: readonly string[]) => void): void {
    this.#ask({ kind: "list" }, undefined, (answer) => {
      onDone(answer.kind === "names" ? answer.names : []);
    });
  }

  /** Makes an outgoing session. The result is a duplicate, which is the caller's to close. */
  createSession(session: string, onDone: OnSession, as: { readonly name?: string } = {}): void {
    this.#askSession("create-session", { session, name: as.name ?? session }, onDone);
  }

  /**
   * Takes an incoming session. ESTALE: a holder died that may have taken it, and with that the
   * kernel has finished it.
   */
  retrieveSession(session: string, onDone: OnSession, as: { readonly name?: string } = {}): void {
    this.#askSession("retrieve-session", { session, name: as.name ?? session }, onDone);
  }

  #askSession(
    kind: "create-session" | "retrieve-session",
    subject: { readonly session: string; readonly name: string },
    onDone: OnSession,
  ): void {
    const { session, name } = subject;
    const refusal = refuseName(session, limits.sessionBytes) ?? refuseName(name);
    if (refusal !== undefined) {
      this.#loop.afterTurn(() => onDone(refusal));
      return;
    }
    const asked = this.#ask({ kind, session, name }, undefined, (answer) => {
      this.#retrieving.delete(asked);
      const kept = answer.descriptor ?? (answer.kind === "done" ? this.#kept.get(name) : undefined);
      if (kept === undefined) {
        onDone(this.#describeLoss(asked, answer));
        return;
      }
      if (answer.descriptor !== undefined) this.#kept.set(name, kept);
      onDone(duplicateOf(kept));
    });
  }

  #describeLoss(asked: Asked, answer: LinkAnswer): HolderRefusal {
    const refusal = refusalIn(answer) ?? { code: "EPROTO", message: "The holder answered nothing" };
    const { request, mayHaveBeenDone } = asked;
    if (request.kind !== "retrieve-session" || !mayHaveBeenDone) return refusal;
    if (refusal.code !== "ENOENT") return refusal;
    const message =
      `Session ${JSON.stringify(request.session)} was lost with the holder: it died while it ` +
      "retrieved, and the kernel has no such session any more";
    return { code: "ESTALE", message };
  }

  #ask(
    request: Asked["request"],
    descriptor: OwnedDescriptor | undefined,
    onAnswer: (answer: LinkAnswer) => void,
  ): Asked {
    const fresh = { isEqualising: false, mayHaveBeenDone: false };
    const asked: Asked = { request, descriptor, onAnswer, ...fresh };
    this.#waiting.push(asked);
    // Not now: whoever asks is told later than the call returns.
    this.#loop.afterTurn(() => this.#pump());
    return asked;
  }

  #onConnection(socket: OwnedDescriptor): void {
    const link: HolderLink = new HolderLink(this.#loop, socket, {
      silenceTime: this.#silenceTime,
      handlers: {
        onGreeted: () => {
          this.#refusals = 0;
          this.#hear();
          this.#equalise();
        },
        onRoom: () => {
          this.#hear();
          this.#pump();
        },
        onSilent: () => this.#onSilent(),
        onTaken: (message) => {
          this.#refusals += 1;
          if (this.#refusals >= REFUSALS_WHEN_TAKEN) this.#options.onTaken?.(message);
        },
        onEnd: (reason) => this.#onEnd(link, reason),
      },
    });
    this.#link = link;
  }

  /**
   * It hangs, or was stopped. Nothing is repeated before it is dead, and its death loses nothing
   * where all that it can have is here: then it is killed. Else it is left alone.
   */
  #onSilent(): void {
    const { processId } = this.#reach;
    const who = processId > 0 ? `the holder, process ${processId},` : "the holder";
    const time = formatDuration(this.#silenceTime);
    const said = `${who} has not answered for ${time}: it hangs, or was stopped`;
    if (this.#isKnown && this.#retrieving.size === 0 && this.#reach.kill()) {
      this.#options.onTrouble(`${said}. It is killed, and another one is filled`);
      return;
    }
    const target = processId > 0 ? `${processId}` : "of its process";
    this.#silence =
      `${said}. kill -CONT ${target} has it go on, when it was. It may have sessions that nobody ` +
      `else has, so it is left alone: kill -KILL ${target} ends it, and those are lost`;
    this.#options.onTrouble(this.#silence);
  }

  #hear(): void {
    if (this.#silence === undefined) return;
    this.#silence = undefined;
    this.#options.onTrouble("the holder answers again");
  }

  /** Fetches what this process does not have, and puts what the holder does not. */
  #equalise(): void {
    this.#askFirst({ kind: "list" }, undefined, (answer) => {
      this.#found = answer.kind === "names" ? answer.names : [];
      const there = new Set(this.#found);
      for (const name of there) {
        if (!this.#kept.has(name)) {
          this.#askFirst({ kind: "get", name }, undefined, (found) => this.#adopt(name, found));
        }
      }
      for (const [name, descriptor] of this.#kept) {
        if (there.has(name)) continue;
        this.#askFirst({ kind: "put", name }, descriptor, (done) => {
          const refusal = refusalIn(done);
          if (refusal === undefined) return;
          this.#options.onTrouble(`the holder does not keep ${name} again: ${refusal.message}`);
        });
      }
    });
    this.#pump();
  }

  #askFirst(
    request: Asked["request"],
    descriptor: OwnedDescriptor | undefined,
    onAnswer: (answer: LinkAnswer) => void,
  ): void {
    const fresh = { isEqualising: true, mayHaveBeenDone: false };
    this.#equalising.push({ request, descriptor, onAnswer, ...fresh });
  }

  #adopt(name: string, found: LinkAnswer): void {
    if (found.descriptor === undefined) return;
    this.#kept.set(name, found.descriptor);
    this.#adopted.add(name);
  }

  #pump(): void {
    const link = this.#link;
    if (link?.isGreeted !== true) return;
    while (link.hasRoom) {
      const next = this.#equalising.shift();
      if (next === undefined) break;
      link.ask(next);
    }
    if (this.#readySince === undefined) {
      // What makes both sides equal is all that was asked until now.
      if (this.#equalising.length > 0 || link.openCount > 0) return;
      this.#becomeReady();
    }
    while (link.hasRoom) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      if (next.request.kind === "retrieve-session") this.#retrieving.add(next);
      link.ask(next);
    }
  }

  #becomeReady(): void {
    this.#readySince = monotonicNow();
    this.#isKnown = this.#found.every((name) => this.#kept.has(name));
    const doubtful = this.#waiting;
    this.#waiting = [];
    const settled = doubtful.filter((asked) => {
      const { kind } = asked.request;
      const keeps = kind === "put" || kind === "create-session" || kind === "retrieve-session";
      const isSettled = keeps && asked.mayHaveBeenDone && this.#adopted.delete(asked.request.name);
      if (!isSettled) this.#waiting.push(asked);
      return isSettled;
    });
    this.#adopted.clear();
    for (const asked of settled) asked.onAnswer({ kind: "done" });
    this.#options.onReady();
  }

  #onEnd(link: HolderLink, reason: string): void {
    if (this.#isDisposed) return;
    this.#link = undefined;
    this.#silence = undefined;
    const open = link.unanswered.filter((asked) => !asked.isEqualising);
    for (const asked of open) asked.mayHaveBeenDone = true;
    this.#waiting.unshift(...open);
    this.#equalising = [];
    const served = this.#readySince === undefined ? 0 : monotonicNow() - this.#readySince;
    this.#readySince = undefined;
    this.#options.onTrouble(`the connection to the holder ended: ${reason}`);
    if (served > SHORT_SERVICE) this.#reach.reachAgain();
    else this.#reach.reachLater();
  }

  /** Ends the connection; the holder keeps what it keeps. What is open is answered no more. */
  [Symbol.dispose](): void {
    this.#isDisposed = true;
    this.#reach[Symbol.dispose]();
    this.#link?.close();
    for (const asked of [...(this.#link?.unanswered ?? []), ...this.#waiting]) {
      // What makes both sides equal is sent with what is kept, which is closed below.
      if (!asked.isEqualising) asked.descriptor?.close();
    }
    this.#link = undefined;
    this.#waiting = [];
    this.#equalising = [];
    for (const descriptor of this.#kept.values()) descriptor.close();
    this.#kept.clear();
  }
}
