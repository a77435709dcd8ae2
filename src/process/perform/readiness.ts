import { isIP } from "node:net";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { Errno, errnoMessage } from "../../../ffi/system-call-error.ts";
import { connectTcp, pendingError, receiveMessage } from "../../../ffi/unix-socket.ts";
import type { Watch } from "../../event-loop/event-loop.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";
import { hostOf } from "../endpoint.ts";
import { newInvocation } from "../invocation.ts";
import type { Instance } from "../lifecycle.ts";
import { type Parking, readNotice } from "../notice.ts";
import type { Readiness } from "../specification.ts";
import { askHttp } from "./http-check.ts";
import type { ManagedProcess, Partition } from "./partition.ts";
import { type ProcessStatus, statusOf } from "./process-table.ts";

/** A check that failed is made again: first soon, then less and less often. */
const FIRST_INTERVAL: Milliseconds = 20;
const LONGEST_INTERVAL: Milliseconds = 1_000;
/** One that does not answer is asked again. */
const ANSWERED_WITHIN: Milliseconds = 3_000;
const NOTIFY_SIZE = 4_096;

const datagram = new NativeMemory(NOTIFY_SIZE);

/** Watches for the readiness of one instance until it comes, or nobody asks any more. */
export interface ReadinessWatch {
  cancel(): void;
}

/** The bytes of an IP address: 4 or 16. */
export function parseAddress(
  host: string,
): { readonly family: "ipv4" | "ipv6"; readonly address: Uint8Array } | undefined {
  const literal = host === "localhost" ? "127.0.0.1" : host;
  const kind = isIP(literal);
  if (kind === 4) {
    return { family: "ipv4", address: new Uint8Array(literal.split(".").map(Number)) };
  }
  if (kind !== 6) return undefined;
  // The parser of URLs writes every form of an IPv6 address in the same way.
  const text = new URL(`http://[${literal}]/`).hostname.slice(1, -1);
  const [head = "", tail] = text.split("::");
  const groups = (part: string) => (part === "" ? [] : part.split(":"));
  const first = groups(head);
  const last = tail === undefined ? [] : groups(tail);
  const middle = Array.from({ length: 8 - first.length - last.length }, () => "0");
  const bytes = [...first, ...middle, ...last].flatMap((group) => {
    const value = Number.parseInt(group, 16);
    return [value >> 8, value & 0xff];
  });
  return { family: "ipv6", address: new Uint8Array(bytes) };
}

/** What a look at a process came to: "ready", or why it is not. */
type CheckResult = "ready" | { readonly why: string };

/** One check: tells its result once, unless it is cancelled before. */
type Check = (onResult: (result: CheckResult) => void) => Cancel;
export type Cancel = () => void;

/** Repeats a check until it succeeds or is cancelled. */
class RepeatedCheck implements ReadinessWatch {
  readonly #partition: Partition;
  readonly #check: Check;
  readonly #onReady: () => void;
  #interval = FIRST_INTERVAL;
  #timer: Disposable | undefined;
  #cancelCheck: Cancel = () => {};
  #cancelled = false;

  constructor(partition: Partition, check: Check, onReady: () => void) {
    this.#partition = partition;
    this.#check = check;
    this.#onReady = onReady;
    this.#run();
  }

  #run(): void {
    this.#cancelCheck = this.#check((result) => {
      if (this.#cancelled) return;
      if (result === "ready") {
        this.#onReady();
        return;
      }
      this.#timer = this.#partition.loop.wakeAfter(this.#interval, () => this.#run());
      this.#interval = Math.min(LONGEST_INTERVAL, this.#interval * 1.5);
    });
  }

  cancel(): void {
    this.#cancelled = true;
    this.#timer?.[Symbol.dispose]();
    this.#cancelCheck();
  }
}

/** A connected socket, which is the taker's; or why there is none. */
type Connected = (socket: OwnedDescriptor | undefined, why: string) => void;

/** Connects a socket of the partition to an address. */
function connectInternet(
  partition: Partition,
  target: { readonly host: string; readonly port: number },
  onConnected: Connected,
): Cancel {
  const where = hostOf(target);
  const parsed = parseAddress(target.host);
  if (parsed === undefined) {
    onConnected(undefined, `${where} is no address`);
    return () => {};
  }
  let cancelled = false;
  let cancelConnect: Cancel = () => {};
  partition.openSocket({ family: parsed.family }, (socket) => {
    if (socket === undefined || cancelled) {
      socket?.close();
      onConnected(undefined, `${where}: no socket was made`);
      return;
    }
    const tell = (errno: number) => {
      if (errno === 0) onConnected(socket, "");
      else {
        socket.close();
        onConnected(undefined, `${where}: ${errnoMessage(errno)}`);
      }
    };
    const result = connectTcp(socket, { ...parsed, port: target.port });
    if (result !== -Errno.EINPROGRESS) {
      tell(-result);
      return;
    }
    const watch = partition.loop.watch(socket, "writable", () => {
      watch[Symbol.dispose]();
      cancelConnect = () => {};
      tell(pendingError(socket));
    });
    cancelConnect = () => {
      watch[Symbol.dispose]();
      socket.close();
    };
  });
  return () => {
    cancelled = true;
    cancelConnect();
  };
}

function connectUnixIn(partition: Partition, path: string, onConnected: Connected): Cancel {
  let cancelled = false;
  partition.openSocket({ family: "unix", path }, (socket) => {
    if (cancelled) socket?.close();
    else onConnected(socket, `nobody takes a connection at ${path}`);
  });
  return () => {
    cancelled = true;
  };
}

/** Whether somebody listens there. */
const listens =
  (onResult: (result: CheckResult) => void): Connected =>
  (socket, why) => {
    socket?.close();
    onResult(socket === undefined ? { why } : "ready");
  };

/** Asks for a path, and is answered with 200 to 399 in time. */
function checkHttp(
  partition: Partition,
  { at, path }: Extract<Readiness, { kind: "http" }>,
  within: Milliseconds,
  onResult: (result: CheckResult) => void,
): Cancel {
  let cancel: Cancel = () => {};
  const end = (why: string | undefined) => {
    limit[Symbol.dispose]();
    onResult(why === undefined ? "ready" : { why });
  };
  const limit = partition.loop.wakeAfter(within, () => {
    cancel();
    end(`no answer within ${formatDuration(within)}`);
  });
  let isAsked = false;
  const onConnected: Connected = (socket, why) => {
    isAsked = true;
    if (socket === undefined) end(why);
    else {
      const host = at.kind === "tcp" ? hostOf(at) : "localhost";
      cancel = askHttp(partition.loop, socket, { host, path }, end);
    }
  };
  const cancelConnect =
    at.kind === "tcp"
      ? connectInternet(partition, at, onConnected)
      : connectUnixIn(partition, at.path, onConnected);
  if (!isAsked) cancel = cancelConnect;
  return () => {
    limit[Symbol.dispose]();
    cancel();
  };
}

/** Runs a command once; one that is cancelled is killed. */
function checkCommand(
  partition: Partition,
  check: {
    readonly managed: ManagedProcess;
    readonly command: readonly string[];
    readonly handlers: CommandHandlers;
  },
  onResult: (result: CheckResult) => void,
): Cancel {
  const { managed, command, handlers } = check;
  const invocation = newInvocation();
  handlers.onCommand(invocation);
  partition.runCommand(managed, { command, invocation }, (result) => {
    handlers.onCommandEnded(invocation);
    if (result.kind === "failed") onResult({ why: result.reason });
    else onResult(result.status === 0 ? "ready" : { why: `exit ${result.status}` });
  });
  return () => {
    handlers.onCommandKilled(invocation);
    partition.endCommand(invocation);
  };
}

export interface CommandHandlers {
  /** A command is about to be run under this invocation. */
  onCommand(invocation: string): void;
  onCommandEnded(invocation: string): void;
  /** It is killed before its end: whatever it has begun may not go on. */
  onCommandKilled(invocation: string): void;
}

export interface ReadinessHandlers extends CommandHandlers {
  /** Called at most once. */
  onReady(): void;
}

/** One look at a process from its own partition. */
export function checkFor(
  partition: Partition,
  managed: ManagedProcess,
  {
    check,
    within,
    handlers,
  }: {
    readonly check: Exclude<Readiness, { kind: "notify" | "started" }>;
    /** In which HTTP is answered. */
    readonly within: Milliseconds;
    readonly handlers: CommandHandlers;
  },
): Check {
  switch (check.kind) {
    case "tcp":
      return (onResult) => connectInternet(partition, check, listens(onResult));
    case "unix":
      return (onResult) => connectUnixIn(partition, check.path, listens(onResult));
    case "http":
      return (onResult) => checkHttp(partition, check, within, onResult);
    case "command": {
      const { command } = check;
      return (onResult) => checkCommand(partition, { managed, command, handlers }, onResult);
    }
  }
}

/** Begins to watch. */
export function watchReadiness(
  partition: Partition,
  managed: ManagedProcess,
  handlers: ReadinessHandlers,
): ReadinessWatch {
  const { readiness } = managed.specification;
  // A notice comes on the process's own socket, which outlives its instances.
  if (readiness.kind === "notify" || readiness.kind === "started") return { cancel: () => {} };
  const check = checkFor(partition, managed, {
    ...{ check: readiness, within: ANSWERED_WITHIN, handlers },
  });
  return new RepeatedCheck(partition, check, () => handlers.onReady());
}

/** Milliseconds after which the answer to a start has come, where it is to come. */
const TELL_FOREIGN_AFTER: Milliseconds = 100;

interface NotifyHandlers {
  /** The instance whose messages count now. */
  readonly instance: () => Instance | undefined;
  readonly onReady: (instance: Instance) => void;
  /** WATCHDOG=1 of the instance itself. */
  readonly onBeat: () => void;
  /** What the instance parks, with descriptors that are the taker's, or parks no more. */
  readonly onParking: (parking: Parking, descriptors: readonly OwnedDescriptor[]) => void;
  /** Somebody else said that it is ready, or would park something. */
  readonly onForeign: (what: string, sender: number, instance: Instance | undefined) => void;
}

/** What somebody parks whose start we are still to hear of. */
interface EarlyParking {
  readonly sender: ProcessStatus;
  readonly parking: Parking;
  readonly descriptors: readonly OwnedDescriptor[];
}

function closeAll(descriptors: readonly OwnedDescriptor[]): void {
  for (const descriptor of descriptors) descriptor.close();
}

/** Notices that came before their instance was known: so many senders are remembered. */
const EARLY_LIMIT = 16;

/**
 * The socket that a process tells its readiness to: sd_notify(3). A message counts when the kernel
 * says that it came from the instance itself, whatever PID namespace that is in.
 */
export class NotifySocket implements Disposable {
  readonly #socket: OwnedDescriptor;
  readonly #watch: Watch;
  readonly #loop: Partition["loop"];
  readonly #handlers: NotifyHandlers;
  /** One of them is about to be told; others that come meanwhile are not. */
  #foreign: Disposable | undefined;
  /** Who said READY=1 and was not the instance: an armed start may be made before we know it. */
  #early: ProcessStatus[];
  #parkings: EarlyParking[] = [];

  /** @param early whom the program before this one had heard too early */
  constructor(
    partition: Partition,
    socket: OwnedDescriptor,
    handlers: NotifyHandlers,
    early: readonly ProcessStatus[] = [],
  ) {
    this.#early = [...early];
    this.#socket = socket;
    this.#loop = partition.loop;
    this.#handlers = handlers;
    this.#watch = partition.loop.watch(socket, "readable", () => this.#receive());
  }

  get socket(): OwnedDescriptor {
    return this.#socket;
  }

  get early(): readonly ProcessStatus[] {
    return this.#early;
  }

  /** Takes what waits. */
  hear(): void {
    if (this.#socket.isOpen) this.#receive();
  }

  #receive(): void {
    const handlers = this.#handlers;
    const MESSAGES_A_TURN = 64;
    for (let count = 0; count < MESSAGES_A_TURN; count++) {
      const { descriptors, ...message } = receiveMessage(this.#socket, datagram);
      if (message.length < 0) return;
      const sender = message.credentials?.processId ?? 0;
      const text = new TextDecoder().decode(datagram.bytes.subarray(0, message.length));
      const { isReady, isBeat, parking } = readNotice(text);
      const instance = handlers.instance();
      const isOwn = sender !== 0 && sender === instance?.processId;
      // BARRIER=1 waits for its descriptor to be closed, when all before it was heard.
      if (parking === undefined || sender === 0) closeAll(descriptors);
      else if (isOwn) this.#park(parking, descriptors);
      else this.#parkEarly({ sender, parking, descriptors }, instance);
      if (isOwn && isBeat) handlers.onBeat();
      if (sender === 0 || !isReady) continue;
      if (sender === instance?.processId) handlers.onReady(instance);
      else {
        this.#remember(sender);
        this.#tellForeign(sender);
      }
    }
  }

  #park(parking: Parking, descriptors: readonly OwnedDescriptor[]): void {
    if (parking.kind === "remove") closeAll(descriptors);
    this.#handlers.onParking(parking, parking.kind === "store" ? descriptors : []);
  }

  /** A quick program parks before the answer to its start has come. */
  #parkEarly(
    early: Omit<EarlyParking, "sender"> & { readonly sender: number },
    instance: Instance | undefined,
  ): void {
    const { sender, parking, descriptors } = early;
    const status = instance === undefined ? statusOf(sender) : undefined;
    if (status !== undefined && this.#parkings.length < EARLY_LIMIT) {
      this.#parkings.push({ sender: status, parking, descriptors });
      return;
    }
    closeAll(descriptors);
    this.#handlers.onForeign("FDSTORE", sender, instance);
  }

  /** Who runs is known now: what it has parked before that counts. */
  settle(instance: Instance): void {
    const parkings = this.#parkings;
    this.#parkings = [];
    for (const { sender, parking, descriptors } of parkings) {
      const isIt = sender.startTicks === statusOf(instance.processId)?.startTicks;
      if (isIt && sender.processId === instance.processId) this.#park(parking, descriptors);
      else {
        closeAll(descriptors);
        this.#handlers.onForeign("FDSTORE", sender.processId, instance);
      }
    }
  }

  /** Not before it is certain that it is no instance whose start we are still to hear of. */
  #tellForeign(sender: number): void {
    if (this.#foreign !== undefined) return;
    this.#foreign = this.#loop.wakeAfter(TELL_FOREIGN_AFTER, () => {
      this.#foreign = undefined;
      const instance = this.#handlers.instance();
      if (sender !== instance?.processId) this.#handlers.onForeign("READY=1", sender, instance);
    });
  }

  #remember(sender: number): void {
    const status = statusOf(sender);
    if (status !== undefined) this.#early = [...this.#early, status].slice(-EARLY_LIMIT);
  }

  /** True when the instance was ready before anybody knew its number. */
  wasEarly(instance: Instance): boolean {
    // The number alone may have been another's before.
    const status = statusOf(instance.processId);
    const isIt = ({ processId, startTicks }: ProcessStatus) =>
      processId === instance.processId && startTicks === status?.startTicks;
    return this.#early.some(isIt);
  }

  [Symbol.dispose](): void {
    this.#foreign?.[Symbol.dispose]();
    for (const { descriptors } of this.#parkings) closeAll(descriptors);
    this.#watch[Symbol.dispose]();
    this.#socket.close();
  }
}
