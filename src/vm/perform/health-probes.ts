import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { Errno, errnoMessage, SystemCallError } from "../../../ffi/system-call-error.ts";
import {
  connectTcp,
  makeTcpSocket,
  pendingError,
  receiveMessage,
  sendMessage,
} from "../../../ffi/unix-socket.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { escapeControls } from "../../logging/format.ts";
import type { Bytes, Milliseconds } from "../../units/units.ts";
import type { HealthCheck, ProbeOutcome } from "../health.ts";
import { matchesPattern } from "../health-pattern.ts";

/** Of an answer over HTTP that are read: the rest of it is not looked at. */
export const PROBE_BYTES: Bytes = 64 * 1024;
/** Of what a machine said wrong that is told. */
const TOLD = 80;

/** What is asked. */
export interface ProbeTarget {
  /** Dotted, of the network of this host's that the machine is in. Undefined: it has none yet. */
  readonly address: string | undefined;
  /** Answers when the agent has. Undefined: nobody can ask an agent in this machine. */
  readonly pingAgent: (() => Promise<unknown>) | undefined;
  /**
   * Whether a line with this pattern came over the console since the boot. Undefined: it was not
   * heard, and not all was heard.
   */
  readonly hasSaid: (pattern: string) => boolean | undefined;
}

/**
 * Does one probe; `onOutcome` is called once, never during this call, and not after disposing. A
 * guest decides how it answers, so each has limits of time and of bytes.
 */
export function probeHealth(
  loop: EventLoop,
  check: HealthCheck,
  options: {
    readonly target: ProbeTarget;
    readonly timeout: Milliseconds;
    readonly onOutcome: (outcome: ProbeOutcome) => void;
  },
): Disposable {
  const { target, timeout, onOutcome } = options;
  const probe = new Probe(loop, timeout, onOutcome);
  switch (check.kind) {
    case "agent":
      if (target.pingAgent === undefined) {
        probe.settleLater({ kind: "unknown", reason: "this hypervisor has no agent" });
        break;
      }
      target.pingAgent().then(
        () => probe.settle({ kind: "passed" }),
        (error: unknown) => probe.fail(error instanceof Error ? error.message : String(error)),
      );
      break;
    case "serial":
      probe.settleLater(judgeSaid(check.pattern, target.hasSaid(check.pattern)));
      break;
    case "tcp":
    case "http":
      probeAddress(loop, check, target.address, probe);
      break;
  }
  return probe;
}

function judgeSaid(pattern: string, hasSaid: boolean | undefined): ProbeOutcome {
  if (hasSaid === true) return { kind: "passed" };
  const reason = `no line of the console has "${pattern}" so far`;
  if (hasSaid === false) return { kind: "failed", reason };
  return { kind: "unknown", reason: `${reason}, and some were heard by nobody` };
}

/** A probe under way: settled once, by whoever comes first. */
class Probe implements Disposable {
  readonly #loop: EventLoop;
  readonly #timer: Disposable;
  readonly #onOutcome: (outcome: ProbeOutcome) => void;
  readonly #owned: Disposable[] = [];
  #isOver = false;

  constructor(loop: EventLoop, timeout: Milliseconds, onOutcome: (outcome: ProbeOutcome) => void) {
    this.#loop = loop;
    this.#onOutcome = onOutcome;
    this.#timer = loop.wakeAfter(timeout, () => this.fail(`no answer within ${timeout} ms`));
  }

  /** Is disposed of with the probe. */
  own<T extends Disposable>(resource: T): T {
    this.#owned.push(resource);
    return resource;
  }

  fail(reason: string): void {
    this.settle({ kind: "failed", reason });
  }

  failLater(reason: string): void {
    this.settleLater({ kind: "failed", reason });
  }

  settleLater(outcome: ProbeOutcome): void {
    this.#loop.afterTurn(() => this.settle(outcome));
  }

  settle(outcome: ProbeOutcome): void {
    if (this.#isOver) return;
    this[Symbol.dispose]();
    this.#onOutcome(outcome);
  }

  [Symbol.dispose](): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#timer[Symbol.dispose]();
    for (const resource of this.#owned.toReversed()) resource[Symbol.dispose]();
  }
}

function parseAddress(text: string): Uint8Array | undefined {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text)?.slice(1).map(Number);
  return parts?.every((part) => part <= 255) === true ? Uint8Array.from(parts) : undefined;
}

function probeAddress(
  loop: EventLoop,
  check: Extract<HealthCheck, { kind: "tcp" | "http" }>,
  text: string | undefined,
  probe: Probe,
): void {
  const address = text === undefined ? undefined : parseAddress(text);
  if (text === undefined || address === undefined) {
    probe.failLater(text === undefined ? "it has no address yet" : `${text} is no IPv4 address`);
    return;
  }
  let socket: OwnedDescriptor;
  try {
    socket = probe.own(makeTcpSocket("ipv4"));
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    probe.failLater(error.message);
    return;
  }
  const result = connectTcp(socket, { family: "ipv4", address, port: check.port });
  if (result < 0 && result !== -Errno.EINPROGRESS) {
    probe.failLater(`port ${check.port}: ${errnoMessage(-result)}`);
    return;
  }
  let conversation: HttpConversation | undefined;
  const watch = probe.own(
    loop.watch(socket, "writable", () => {
      if (conversation !== undefined) {
        conversation.receive();
        return;
      }
      const errno = pendingError(socket);
      if (errno !== 0) probe.fail(`port ${check.port}: ${errnoMessage(errno)}`);
      else if (check.kind === "tcp") probe.settle({ kind: "passed" });
      else {
        conversation = new HttpConversation(socket, check, probe);
        if (conversation.ask(text)) watch.change("readable");
      }
    }),
  );
}

/** HTTP/1.0: the answer ends with the connection, and comes in no chunks. */
function requestText(path: string, host: string): string {
  return `GET ${path} HTTP/1.0\r\nHost: ${host}\r\nUser-Agent: hostler-health\r\n\r\n`;
}

const memory = new NativeMemory(PROBE_BYTES);

/** One request, and as much of its answer as is looked at. */
class HttpConversation {
  readonly #socket: OwnedDescriptor;
  readonly #check: Extract<HealthCheck, { kind: "http" }>;
  readonly #probe: Probe;
  #received: Uint8Array = new Uint8Array(0);

  constructor(
    socket: OwnedDescriptor,
    check: Extract<HealthCheck, { kind: "http" }>,
    probe: Probe,
  ) {
    this.#socket = socket;
    this.#check = check;
    this.#probe = probe;
  }

  /** False when the request was not taken, which has been told. */
  ask(host: string): boolean {
    const bytes = new TextEncoder().encode(requestText(this.#check.path, host));
    memory.bytes.set(bytes);
    // A request is far smaller than a new connection's room.
    const range = { offset: 0, length: bytes.length };
    const result = sendMessage(this.#socket, memory, range, []);
    if (result === bytes.length) return true;
    const reason = result < 0 ? errnoMessage(-result) : "half of it was";
    this.#probe.fail(`the request was not taken: ${reason}`);
    return false;
  }

  receive(): void {
    const message = receiveMessage(this.#socket, memory);
    if (message.length === -Errno.EAGAIN) return;
    const room = PROBE_BYTES - this.#received.length;
    const piece = memory.bytes.subarray(0, Math.min(room, Math.max(0, message.length)));
    this.#received = Buffer.concat([this.#received, piece]);
    // A peer that resets the connection after its answer has answered.
    const isComplete = message.length <= 0 || this.#received.length >= PROBE_BYTES;
    const outcome = judgeHttp(this.#check, this.#received, isComplete);
    if (outcome !== undefined) this.#probe.settle(outcome);
  }
}

/**
 * What an answer over HTTP says, as far as it came.
 * @returns undefined while it has to be waited for
 */
export function judgeHttp(
  check: Pick<Extract<HealthCheck, { kind: "http" }>, "status" | "body">,
  bytes: Uint8Array,
  isComplete: boolean,
): ProbeOutcome | undefined {
  const text = Buffer.from(bytes).toString("latin1");
  const head = text.indexOf("\r\n\r\n");
  if (head < 0 && !isComplete) return undefined;
  const [first = ""] = text.split("\r\n", 1);
  const status = Number(/^HTTP\/1\.[01] (\d{3})( |$)/.exec(first)?.[1] ?? Number.NaN);
  const failed = (reason: string): ProbeOutcome => ({ kind: "failed", reason });
  if (head < 0 || Number.isNaN(status)) {
    const said = escapeControls(first.slice(0, TOLD));
    return failed(`expected an answer of HTTP, received "${said}"`);
  }
  const { least, most } = check.status;
  if (status < least || status > most) {
    const expected = least === most ? `${least}` : `${least} to ${most}`;
    return failed(`expected the status ${expected}, received ${status}`);
  }
  if (check.body === undefined) return { kind: "passed" };
  const body = Buffer.from(text.slice(head + 4), "latin1").toString();
  if (matchesPattern(check.body, body)) return { kind: "passed" };
  return isComplete ? failed(`the body has no "${check.body}"`) : undefined;
}
