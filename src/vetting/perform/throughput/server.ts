import { timingSafeEqual } from "node:crypto";
import * as v from "valibot";
import { setBlocking } from "../../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../../ffi/owned-descriptor.ts";
import { Errno, SystemCallError } from "../../../../ffi/system-call-error.ts";
import { boundPort, listenTcp, receiveBytes, sendBytes } from "../../../../ffi/tcp-socket.ts";
import { acceptConnection } from "../../../../ffi/unix-socket.ts";
import { monotonicNow } from "../../../event-loop/clock.ts";
import type { EventLoop, Watch } from "../../../event-loop/event-loop.ts";
import { LimitedLogger } from "../../../logging/limited-logger.ts";
import type { Logger } from "../../../logging/logger.ts";
import { describeIssues } from "../../../messaging/describe-issues.ts";
import type { Milliseconds } from "../../../units/units.ts";
import { join, leave, noTurns, type Turn } from "../../throughput/lifecycle-turns.ts";
import {
  HELLO_WITHIN,
  type ThroughputAnswer,
  type ThroughputHello,
  TURN_WITHIN,
  throughputHelloSchema,
  throughputLimits,
} from "../../throughput/protocol.ts";
import type { OwnProgram } from "../task-process.ts";
import { ownProgram } from "../task-runner.ts";
import { ServingChild } from "./serving-child.ts";

export interface ThroughputServerOptions {
  /** 4 or 16 bytes; port 0: any. */
  readonly listen: { readonly address: Uint8Array; readonly port: number };
  /** Whether this run is under way and its key is that one: compare by `isSameKey`. */
  readonly admit: (run: number, key: string) => boolean;
  /** Whether the spec of this run asks for a tool. */
  readonly asksForTool?: (run: number) => boolean;
  readonly logger: Logger;
  readonly loop: EventLoop;
  readonly limits?: Partial<Record<keyof typeof throughputLimits, number>>;
  readonly own?: OwnProgram;
  /** Until a line has come, and until a turn has. */
  readonly times?: { readonly hello: Milliseconds; readonly turn: Milliseconds };
}

/** In a time that does not depend on where they differ. */
export function isSameKey(one: string, other: string): boolean {
  const [a, b] = [Buffer.from(one), Buffer.from(other)];
  return a.length === b.length && timingSafeEqual(a, b);
}

type Phase =
  /** Its line has not come whole. */
  | { readonly kind: "greeting"; readonly text: string }
  | { readonly kind: "waiting"; readonly hello: ThroughputHello }
  | { readonly kind: "serving"; readonly child: ServingChild };

interface Connection {
  readonly id: number;
  readonly socket: OwnedDescriptor;
  run: number | undefined;
  phase: Phase;
  watch: Watch | undefined;
  deadline: Disposable | undefined;
}

/** Without descriptors, until connections are taken again. */
const REST: Milliseconds = 1_000;

const memory = new NativeMemory(throughputLimits.lineBytes + 1);

/** The orchestrator's end of the test of links. It moves no byte itself: a child does, for each. */
export class ThroughputServer implements Disposable {
  readonly port: number;
  readonly #options: ThroughputServerOptions;
  readonly #limits: Record<keyof typeof throughputLimits, number>;
  readonly #times: { readonly hello: Milliseconds; readonly turn: Milliseconds };
  readonly #listener: OwnedDescriptor;
  readonly #watch: Watch;
  readonly #logger: LimitedLogger;
  readonly #connections = new Map<number, Connection>();
  #turns: ReturnType<typeof noTurns>;
  #nextId = 1;
  #resting: Disposable | undefined;

  private constructor(options: ThroughputServerOptions) {
    const { loop, listen } = options;
    this.#options = options;
    this.#limits = { ...throughputLimits, ...options.limits };
    this.#times = options.times ?? { hello: HELLO_WITHIN, turn: TURN_WITHIN };
    this.#turns = noTurns(this.#limits.atOnce);
    this.#logger = new LimitedLogger(options.logger, {
      now: monotonicNow,
      wakeAfter: (delay, call) => loop.wakeAfter(delay, call),
    });
    this.#listener = listenTcp(listen, { backlog: this.#limits.connections });
    this.port = boundPort(this.#listener);
    this.#watch = loop.watch(this.#listener, "readable", () => this.#accept());
  }

  /** @throws SystemCallError EADDRINUSE, EADDRNOTAVAIL */
  static start(options: ThroughputServerOptions): ThroughputServer {
    return new ThroughputServer(options);
  }

  /** Connections that are there, with those that wait. */
  get count(): number {
    return this.#connections.size;
  }

  #accept(): void {
    for (;;) {
      let socket: OwnedDescriptor | undefined;
      try {
        socket = acceptConnection(this.#listener);
      } catch (failure) {
        if (!(failure instanceof SystemCallError)) throw failure;
        this.#logger.warn(`cannot take a connection: ${failure.message}`);
        this.#rest();
        return;
      }
      if (socket === undefined) return;
      this.#open(socket);
    }
  }

  /** Out of descriptors: those that are there go on, and who waits is asked for again later. */
  #rest(): void {
    this.#watch.pause();
    this.#resting = this.#options.loop.wakeAfter(REST, () => this.#watch.change("readable"));
  }

  #open(socket: OwnedDescriptor): void {
    if (this.#connections.size >= this.#limits.connections) {
      socket.close();
      this.#logger.warn(`a connection too many: ${this.#connections.size} are there`);
      return;
    }
    const { loop } = this.#options;
    const id = this.#nextId++;
    const phase: Phase = { kind: "greeting", text: "" };
    const connection: Connection = {
      ...{ id, socket, phase, run: undefined, watch: undefined },
      deadline: loop.wakeAfter(this.#times.hello, () => this.#refuse(connection, "no line came")),
    };
    this.#connections.set(id, connection);
    connection.watch = loop.watch(socket, "readable", () => this.#read(connection));
  }

  #read(connection: Connection): void {
    const { phase, socket } = connection;
    if (!socket.isOpen || phase.kind === "serving") return;
    const length = receiveBytes(socket, memory.address, memory.size);
    if (length === -Errno.EAGAIN) return;
    if (length <= 0) {
      this.#forget(connection);
      return;
    }
    if (phase.kind === "waiting") {
      this.#refuse(connection, "nothing is to come before the test begins");
      return;
    }
    const text = phase.text + Buffer.from(memory.bytes.subarray(0, length)).toString("latin1");
    connection.phase = { kind: "greeting", text };
    const end = text.indexOf("\n");
    if (end < 0 && text.length <= this.#limits.lineBytes) return;
    if (end !== text.length - 1 || text.length > this.#limits.lineBytes + 1) {
      const expected = `expected one line of at most ${this.#limits.lineBytes} bytes`;
      this.#refuse(connection, expected);
      return;
    }
    this.#greet(connection, text);
  }

  #greet(connection: Connection, text: string): void {
    const hello = readHello(text);
    if (typeof hello === "string") {
      this.#refuse(connection, hello);
      return;
    }
    if (!this.#options.admit(hello.run, hello.key)) {
      this.#refuse(connection, `no test of run ${hello.run} is expected with this key`);
      return;
    }
    if (hello.tool !== undefined && this.#options.asksForTool?.(hello.run) !== true) {
      this.#refuse(connection, `the spec of run ${hello.run} does not ask for ${hello.tool}`);
      return;
    }
    const ofRun = [...this.#connections.values()].filter(({ run }) => run === hello.run);
    if (ofRun.length >= this.#limits.connectionsOfRun) {
      this.#refuse(connection, `run ${hello.run} has ${ofRun.length} connections already`);
      return;
    }
    connection.run = hello.run;
    connection.phase = { kind: "waiting", hello };
    connection.deadline?.[Symbol.dispose]();
    connection.deadline = this.#options.loop.wakeAfter(this.#times.turn, () => {
      this.#refuse(connection, "its turn did not come");
    });
    const joined = join(this.#turns, { id: connection.id, run: hello.run });
    this.#turns = joined.turns;
    this.#say(connection, { say: "wait" });
    this.#begin(joined.begin);
  }

  #begin(turns: readonly Turn[]): void {
    for (const { id } of turns) {
      const connection = this.#connections.get(id);
      if (connection?.phase.kind === "waiting") this.#serve(connection, connection.phase.hello);
    }
  }

  #serve(connection: Connection, hello: ThroughputHello): void {
    const { loop, own } = this.#options;
    connection.deadline?.[Symbol.dispose]();
    connection.watch?.[Symbol.dispose]();
    // The child waits by poll(2), and asks not to wait in each call.
    setBlocking(connection.socket);
    try {
      const child = new ServingChild({
        ...{ loop, own: own ?? ownProgram(), socket: connection.socket },
        test: this.#testOf(hello),
        onEnd: () => this.#forget(connection),
      });
      connection.phase = { kind: "serving", child };
    } catch (failure) {
      if (!(failure instanceof SystemCallError)) throw failure;
      this.#logger.warn(`cannot start a test: ${failure.message}`);
      this.#forget(connection);
    }
  }

  #testOf({ direction, seconds, tool }: ThroughputHello) {
    if (tool === undefined) return { direction, seconds };
    const { address } = this.#options.listen;
    const isOne = address.length === 4 && address.some((byte) => byte !== 0);
    return { direction, seconds, tool, ...(isOne && { address: address.join(".") }) };
  }

  #refuse(connection: Connection, reason: string): void {
    if (!this.#connections.has(connection.id)) return;
    this.#logger.warn(`refused a test of a link: ${reason}`);
    this.#say(connection, { say: "refused", reason: reason.slice(0, 256) });
    this.#forget(connection);
  }

  #say({ socket }: Connection, answer: ThroughputAnswer): void {
    const line = Buffer.from(`${JSON.stringify(answer)}\n`);
    memory.bytes.set(line);
    // Whoever does not take so few bytes reads nothing, and will see the end.
    sendBytes(socket, memory.address, line.length);
  }

  /** Whatever became of it, its turn is the next one's. */
  #forget(connection: Connection): void {
    if (!this.#connections.delete(connection.id)) return;
    connection.deadline?.[Symbol.dispose]();
    connection.watch?.[Symbol.dispose]();
    if (connection.phase.kind === "serving") connection.phase.child[Symbol.dispose]();
    connection.socket.close();
    const left = leave(this.#turns, connection.id);
    this.#turns = left.turns;
    this.#begin(left.begin);
  }

  /** Takes no more, and ends what is under way. */
  [Symbol.dispose](): void {
    this.#resting?.[Symbol.dispose]();
    this.#watch[Symbol.dispose]();
    this.#listener.close();
    this.#turns = noTurns(0);
    for (const connection of [...this.#connections.values()]) this.#forget(connection);
    this.#logger[Symbol.dispose]();
  }
}

/** @returns the line, or what is wrong with it */
function readHello(text: string): ThroughputHello | string {
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    return "expected a line of JSON";
  }
  const checked = v.safeParse(throughputHelloSchema, body);
  return checked.success ? checked.output : `expected a test: ${describeIssues(checked.issues)}`;
}
