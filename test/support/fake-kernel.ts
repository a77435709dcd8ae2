/**
 * A kernel for tests, as far as live updates and kexec go: the Live Update Orchestrator of Linux
 * 7.2 with its two name spaces, its refusals, and its rule that the end of a session's last
 * descriptor, in whatever process, ends the session. The build for fault tests asks it in place of
 * the machine's kernel when its environment has HOSTLER_LIVE_UPDATE_KERNEL (ffi/fault-kernel.ts).
 *
 * It runs in the test's own process, whose calls must then not block, or as a program:
 *
 *     bun test/support/fake-kernel.ts SOCKET
 *
 * which says "ready", then every call as a line of JSON, and takes lines such as
 * {"do":"refuse","call":"reboot","code":"EBUSY","times":1} and {"do":"boot"}.
 */
import { fstatSync } from "node:fs";
import { duplicate, linkTarget } from "../../ffi/descriptor.ts";
import { EpollWaiter, epollAdd, epollRemove, makeEpoll } from "../../ffi/epoll.ts";
import type {
  FaultKernelAnswer,
  FaultKernelCall,
  FaultKernelRequest,
} from "../../ffi/fault-kernel.ts";
import type { RebootTarget } from "../../ffi/kexec.ts";
import { cString, NativeMemory } from "../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { monotonicNanoseconds } from "../../ffi/process.ts";
import { Errno } from "../../ffi/system-call-error.ts";
import {
  acceptConnection,
  bindUnix,
  listen,
  makeSocketPair,
  makeUnixSocket,
  receiveMessage,
  sendMessage,
} from "../../ffi/unix-socket.ts";
import { EventLoop, type Watch } from "../../src/event-loop/event-loop.ts";

const BACKLOG = 4096;
/** How many ended sessions are seen in one look; looks are repeated until there are none. */
const ENDS_AT_ONCE = 64;

/** What can be refused: a call, or the opening of the device before creating and retrieving. */
export type RefusableCall = FaultKernelCall | "open";

/** A call that was made, by whom one cannot tell; nanoseconds of the monotonic clock. */
export interface RecordedCall {
  readonly request: FaultKernelRequest;
  readonly at: number;
}

/** A session as the tests see it. */
export interface SessionView {
  readonly name: string;
  readonly tokens: readonly bigint[];
  /** Whether anybody has a descriptor of it; a session that came waits until it is retrieved. */
  readonly open: boolean;
}

export interface LoadedKernel {
  readonly kernel: string;
  readonly initrd: string | undefined;
  readonly commandLine: string;
}

/** Where an older kernel has limits: Linux 6.19 had 744 sessions and 128 files in each. */
export interface FakeKernelLimits {
  readonly sessions?: number;
  readonly filesInSession?: number;
}

interface PreservedFile {
  readonly descriptor: OwnedDescriptor;
  readonly inode: number;
}

interface Session {
  readonly name: string;
  readonly files: Map<bigint, PreservedFile>;
  /**
   * Our end of a pair of sockets: whoever has a copy of the other end holds the session, and when
   * the last one is closed, ours hangs up. Absent for one that came and was not retrieved.
   */
  end?: { readonly ours: OwnedDescriptor; readonly inode: number };
}

interface Connection {
  readonly socket: OwnedDescriptor;
  readonly watch: Watch;
  text: string;
  descriptors: OwnedDescriptor[];
}

type SessionRequest = Extract<
  FaultKernelRequest,
  { call: "preserve" | "retrieve" } | { call: "finish" | "name" }
>;

type Answer = FaultKernelAnswer | "none";

const refusal = (errno: number): Answer => ({ result: -errno });
const done: Answer = { result: 0 };
const inodeOf = (descriptor: OwnedDescriptor) => fstatSync(descriptor.number).ino;
const preservedFile = (file: OwnedDescriptor): PreservedFile => ({
  descriptor: duplicate(file.number),
  inode: inodeOf(file),
});

/** Listens from the start; the end of it ends everything that it kept. */
export class FakeKernel implements Disposable {
  /** What a program's environment needs so that it asks this kernel. */
  readonly environment: Readonly<Record<string, string>>;
  readonly calls: RecordedCall[] = [];
  /** How many times a kernel was replaced by the one that was loaded. */
  liveUpdates = 0;
  /** What the kernel ended with; undefined while it runs. */
  ended: RebootTarget | undefined;
  loaded: LoadedKernel | undefined;
  /** Calls that came after one kernel and before the next. */
  unanswered = 0;
  /** Called for each call before it is carried out. */
  onCall: (call: RecordedCall) => void = () => {};

  readonly #loop: EventLoop;
  readonly #listener = makeUnixSocket("stream");
  readonly #connections = new Set<Connection>();
  readonly #incoming = new Map<string, Session>();
  readonly #outgoing = new Map<string, Session>();
  /** Open ones by the inode of the other end, by which they are known when they come in a call. */
  readonly #byInode = new Map<number, Session>();
  /** Everything that is in an outgoing session, by its inode, and in which. */
  readonly #preserved = new Map<number, Session>();
  readonly #ends = makeEpoll();
  readonly #endWaiter = new EpollWaiter(this.#ends.number, ENDS_AT_ONCE);
  readonly #refusals = new Map<RefusableCall, { errno: number; times: number }>();
  readonly #held = new Map<FaultKernelCall, (() => void)[]>();
  readonly #limits: FakeKernelLimits;
  readonly #memory = new NativeMemory(65_536);

  /** @param path of the socket to listen on; it must not be there yet */
  constructor(path: string, limits: FakeKernelLimits = {}) {
    this.#limits = limits;
    this.environment = { HOSTLER_LIVE_UPDATE_KERNEL: path };
    this.#loop = new EventLoop(() => {
      throw new Error("The fake kernel needs a kernel with IOCB_CMD_POLL.");
    });
    const bound = bindUnix(this.#listener, path);
    if (bound < 0) throw new Error(`Cannot listen on ${path}: error number ${-bound}`);
    listen(this.#listener, BACKLOG);
    this.#loop.watch(this.#listener, "readable", () => this.#accept());
  }

  /** The next calls of this kind are refused; once, unless more is said. */
  refuse(call: RefusableCall, code: keyof typeof Errno, times = 1): void {
    this.#refusals.set(call, { errno: Errno[code], times });
  }

  /** Calls of this kind take until the result is disposed of, and then happen. */
  hold(call: FaultKernelCall): Disposable & { readonly waiting: number } {
    const waiting: (() => void)[] = [];
    this.#held.set(call, waiting);
    return {
      get waiting() {
        return waiting.length;
      },
      [Symbol.dispose]: () => {
        this.#held.delete(call);
        for (const carryOut of waiting.splice(0)) carryOut();
      },
    };
  }

  /** Those to be preserved, as they are now. */
  get outgoing(): SessionView[] {
    return this.#view(this.#outgoing);
  }

  /** Those that came, retrieved or not, as they are now. */
  get incoming(): SessionView[] {
    return this.#view(this.#incoming);
  }

  #view(sessions: ReadonlyMap<string, Session>): SessionView[] {
    this.#endAbandoned();
    return [...sessions.values()].map(({ name, files, end }) => ({
      name,
      tokens: [...files.keys()],
      open: end !== undefined,
    }));
  }

  /** Puts a session there, as if it had come from a former kernel; the files stay the caller's. */
  bring(name: string, files: Readonly<Record<string, OwnedDescriptor>> = {}): void {
    const copies = Object.entries(files).map(
      ([token, file]) => [BigInt(token), preservedFile(file)] as const,
    );
    this.#incoming.set(name, { name, files: new Map(copies) });
  }

  /**
   * The next kernel runs, and answers. Whoever asked the former one must have been killed before;
   * who was not is told EIO.
   */
  boot(): void {
    this.#accept();
    for (const connection of [...this.#connections]) this.#forget(connection);
    this.ended = undefined;
  }

  #accept(): void {
    for (;;) {
      const socket = acceptConnection(this.#listener);
      if (socket === undefined) return;
      const watch = this.#loop.watch(socket, "readable", () => this.#read(connection));
      const connection: Connection = { socket, watch, text: "", descriptors: [] };
      this.#connections.add(connection);
    }
  }

  #forget(connection: Connection): void {
    if (!this.#connections.delete(connection)) return;
    connection.watch[Symbol.dispose]();
    connection.socket.close();
    for (const descriptor of connection.descriptors.splice(0)) descriptor.close();
  }

  #read(connection: Connection): void {
    if (!connection.socket.isOpen) return;
    const message = receiveMessage(connection.socket, this.#memory);
    if (message.length === -Errno.EAGAIN) return;
    connection.descriptors.push(...message.descriptors);
    if (message.length <= 0) {
      this.#forget(connection);
      return;
    }
    connection.text += new TextDecoder().decode(this.#memory.bytes.subarray(0, message.length));
    if (!connection.text.endsWith("\n")) return;
    const request = JSON.parse(connection.text) as FaultKernelRequest;
    connection.text = "";
    const descriptors = connection.descriptors.splice(0);
    const carryOut = () => this.#carryOut(connection, request, descriptors);
    const waiting = this.#held.get(request.call);
    if (waiting === undefined) carryOut();
    else waiting.push(carryOut);
  }

  /** A caller that was killed meanwhile has made its call nevertheless, as in a kernel. */
  #carryOut(
    connection: Connection,
    request: FaultKernelRequest,
    descriptors: readonly OwnedDescriptor[],
  ): void {
    const runs = this.ended === undefined;
    if (!runs) this.unanswered += 1;
    const answer = runs ? this.#answer(request, descriptors) : "none";
    for (const descriptor of descriptors) descriptor.close();
    if (answer === "none") return;
    const { descriptor, ...rest } = answer;
    if (connection.socket.isOpen) {
      const memory = cString(`${JSON.stringify(rest)}\n`);
      const given = descriptor === undefined ? [] : [descriptor.number];
      sendMessage(connection.socket, memory, { offset: 0, length: memory.size - 1 }, given);
    }
    descriptor?.close();
  }

  #answer(request: FaultKernelRequest, descriptors: readonly OwnedDescriptor[]): Answer {
    const recorded = { request, at: monotonicNanoseconds() };
    this.calls.push(recorded);
    this.onCall(recorded);
    this.#endAbandoned();
    switch (request.call) {
      case "create":
        return this.#refused("open", "create") ?? this.#create(request.name);
      case "retrieve-session":
        return this.#refused("open", "retrieve-session") ?? this.#retrieveSession(request.name);
      case "load":
        return this.#refused("load") ?? this.#load(request.command_line, descriptors);
      case "unload":
        return this.#refused("unload") ?? this.#unload();
      case "loaded":
        return { result: this.loaded === undefined ? 0 : 1 };
      case "sync":
        return done;
      case "reboot":
        return this.#reboot(request.what as RebootTarget);
      default:
        return this.#answerSession(request, descriptors);
    }
  }

  #answerSession(request: SessionRequest, [descriptor, file]: readonly OwnedDescriptor[]): Answer {
    const session = descriptor && this.#byInode.get(inodeOf(descriptor));
    if (session === undefined) return refusal(Errno.ENOTTY);
    const refused = this.#refused(request.call);
    if (refused !== undefined) return refused;
    switch (request.call) {
      case "preserve":
        return this.#preserve(session, BigInt(request.token), file);
      case "retrieve":
        return this.#retrieve(session, BigInt(request.token));
      case "finish":
        return this.#finish(session);
      case "name":
        return { result: 0, name: session.name };
    }
  }

  #refused(...calls: readonly RefusableCall[]): Answer | undefined {
    for (const call of calls) {
      const refused = this.#refusals.get(call);
      if (refused === undefined) continue;
      refused.times -= 1;
      if (refused.times <= 0) this.#refusals.delete(call);
      return refusal(refused.errno);
    }
    return undefined;
  }

  /** The kernel does this as the last descriptor closes; here it is seen before the next look. */
  #endAbandoned(): void {
    for (;;) {
      const ready = this.#endWaiter.poll();
      if (ready.length === 0) return;
      for (let index = 0; index < ready.length; index += 2) {
        const session = this.#byInode.get(ready[index] as number);
        if (session === undefined) throw new Error("Bug: a session that is gone has ended");
        (this.#isOutgoing(session) ? this.#outgoing : this.#incoming).delete(session.name);
        this.#destroy(session);
      }
    }
  }

  #destroy(session: Session): void {
    this.#close(session);
    this.#free(session);
  }

  /** From now on nobody's descriptor is this session's. */
  #close(session: Session): void {
    if (session.end === undefined) return;
    // Closing alone leaves it there while a program that is being started has it a moment longer.
    epollRemove(this.#ends, session.end.ours);
    session.end.ours.close();
    this.#byInode.delete(session.end.inode);
    delete session.end;
  }

  #free(session: Session): void {
    for (const { descriptor, inode } of session.files.values()) {
      descriptor.close();
      if (this.#preserved.get(inode) === session) this.#preserved.delete(inode);
    }
    session.files.clear();
  }

  #open(session: Session): OwnedDescriptor {
    const [ours, given] = makeSocketPair();
    const inode = inodeOf(given);
    session.end = { ours, inode };
    this.#byInode.set(inode, session);
    // Nothing but the hang-up is watched for.
    epollAdd(this.#ends, ours, { events: 0, key: inode });
    return given;
  }

  #isOutgoing(session: Session): boolean {
    return this.#outgoing.get(session.name) === session;
  }

  #create(name: string): Answer {
    const bytes = new TextEncoder().encode(name).length;
    if (bytes === 0 || bytes > 63) return refusal(Errno.EINVAL);
    if (this.#outgoing.has(name)) return refusal(Errno.EEXIST);
    const most = this.#limits.sessions ?? Number.POSITIVE_INFINITY;
    if (this.#outgoing.size >= most) return refusal(Errno.ENOMEM);
    const session: Session = { name, files: new Map() };
    this.#outgoing.set(name, session);
    return { result: 0, descriptor: this.#open(session) };
  }

  #retrieveSession(name: string): Answer {
    const session = this.#incoming.get(name);
    if (session === undefined) return refusal(Errno.ENOENT);
    if (session.end !== undefined) return refusal(Errno.EINVAL);
    return { result: 0, descriptor: this.#open(session) };
  }

  #preserve(session: Session, token: bigint, file: OwnedDescriptor | undefined): Answer {
    if (!this.#isOutgoing(session)) return refusal(Errno.EINVAL);
    if (file === undefined) return refusal(Errno.EBADF);
    if (session.files.has(token)) return refusal(Errno.EEXIST);
    const most = this.#limits.filesInSession ?? Number.POSITIVE_INFINITY;
    if (session.files.size >= most) return refusal(Errno.ENOSPC);
    // Linux 7.2 knows how to preserve memfds alone.
    if (!linkTarget(file).startsWith("/memfd:")) return refusal(Errno.ENOENT);
    const kept = preservedFile(file);
    if (this.#preserved.has(kept.inode)) {
      kept.descriptor.close();
      return refusal(Errno.EBUSY);
    }
    this.#preserved.set(kept.inode, session);
    session.files.set(token, kept);
    return done;
  }

  #retrieve(session: Session, token: bigint): Answer {
    if (this.#isOutgoing(session)) return refusal(Errno.EINVAL);
    const file = session.files.get(token);
    if (file === undefined) return refusal(Errno.ENOENT);
    return { result: 0, descriptor: duplicate(file.descriptor.number) };
  }

  #finish(session: Session): Answer {
    if (this.#isOutgoing(session)) return refusal(Errno.EINVAL);
    this.#free(session);
    return done;
  }

  #load(commandLine: string, [kernel, initrd]: readonly OwnedDescriptor[]): Answer {
    if (kernel === undefined) return refusal(Errno.EBADF);
    this.loaded = {
      kernel: linkTarget(kernel),
      initrd: initrd && linkTarget(initrd),
      commandLine,
    };
    return done;
  }

  #unload(): Answer {
    this.loaded = undefined;
    return done;
  }

  /** A refused one leaves all as it is; else what is preserved comes, and the rest is lost. */
  #reboot(what: RebootTarget): Answer {
    if (what === "kexec" && this.loaded === undefined) return refusal(Errno.EINVAL);
    const refused = this.#refused("reboot");
    if (refused !== undefined) return refused;
    for (const session of this.#incoming.values()) this.#destroy(session);
    this.#incoming.clear();
    for (const session of this.#outgoing.values()) {
      if (what === "kexec") {
        this.#close(session);
        this.#incoming.set(session.name, session);
      } else this.#destroy(session);
    }
    this.#outgoing.clear();
    this.#preserved.clear();
    this.loaded = undefined;
    if (what === "kexec") this.liveUpdates += 1;
    this.ended = what;
    return "none";
  }

  [Symbol.dispose](): void {
    for (const connection of [...this.#connections]) this.#forget(connection);
    for (const session of this.#outgoing.values()) this.#destroy(session);
    for (const session of this.#incoming.values()) this.#destroy(session);
    this.#loop[Symbol.dispose]();
    this.#listener.close();
    this.#ends.close();
  }
}

type Order =
  | { do: "refuse"; call: RefusableCall; code: keyof typeof Errno; times?: number }
  | { do: "boot" };

/** As a program, until its standard input ends. */
async function main([path]: readonly string[]): Promise<number> {
  if (path === undefined) {
    console.error("usage: bun test/support/fake-kernel.ts SOCKET");
    return 100;
  }
  using kernel = new FakeKernel(path);
  kernel.onCall = ({ request, at }) => console.log(JSON.stringify({ ...request, at }));
  console.log("ready");
  for await (const line of console) {
    if (line === "") continue;
    const order = JSON.parse(line) as Order;
    if (order.do === "boot") kernel.boot();
    else kernel.refuse(order.call, order.code, order.times);
    console.log(JSON.stringify({ done: order.do }));
  }
  return 0;
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2));
