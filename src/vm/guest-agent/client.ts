import * as v from "valibot";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { describeIssues } from "../../messaging/describe-issues.ts";
import { StreamConnection, type StreamHandlers } from "../../messaging/stream-connection.ts";
import type { Bytes, Milliseconds } from "../../units/units.ts";
import { dialUnix } from "../perform/unix-dial.ts";
import { VsockDial } from "../perform/vsock-dial.ts";
import { type Framed, frameMessage, MessageReader } from "./framing.ts";
import {
  type Answer,
  answerSchema,
  argumentSize,
  type ExecRequest,
  type GuestInformation,
  type GuestMemory,
  limits,
  PROTOCOL_VERSION,
  type ProgramEnding,
} from "./protocol.ts";

/** How long answers are waited for. */
export interface AnswerTimes {
  /** Until an agent has answered the hello: it may have to be started first. */
  readonly hello: Milliseconds;
  /** Between two hellos: the first may have been read by an agent that ended. */
  readonly helloAgain: Milliseconds;
  /** Until a request is answered. */
  readonly answer: Milliseconds;
  /** Beyond a program's own limit of time, which the guest holds. */
  readonly programGrace: Milliseconds;
}

export const answerTimes: AnswerTimes = {
  hello: 10_000,
  helloAgain: 1_000,
  answer: 5_000,
  programGrace: 10_000,
};

/** What may wait for a guest that does not read: a program's input, and some requests. */
const QUEUED_BYTES: Bytes = 2 * limits.inputBytes;
/** Requests that wait for their answers at once. */
const MOST_REQUESTS = 256;

/** The agent cannot be asked, or did not answer in time; the message has what to look at. */
export class AgentUnreachable extends Error {
  override readonly name = "AgentUnreachable";
}

/** The agent answered, and refused. */
export class AgentRefused extends Error {
  override readonly name = "AgentRefused";
  /** As the wire names it: "start", "limit", … */
  readonly kind: string;

  constructor(message: string, kind: string) {
    super(message);
    this.kind = kind;
  }
}

/** What a guest said is against the rules of the wire; its connection was ended for it. */
export class GuestBrokeRules extends Error {
  override readonly name = "GuestBrokeRules";
}

/** Where a VMM lets the agent be reached. */
export type AgentPlace =
  | {
      /** The Unix socket that the VMM listens at. */
      readonly path: string;
      /** The guest's port, where the socket leads to AF_VSOCK and has to be told one. */
      readonly vsockPort?: number;
    }
  /** By this host's kernel: AF_VSOCK. */
  | { readonly context: number; readonly port: number };

/** What carries the messages of one link. */
interface AgentStream {
  send(bytes: Uint8Array): void;
  close(): void;
}

/** A program to run in the guest. */
export interface GuestCommand {
  readonly argv: readonly string[];
  /** NAME=value, the whole environment; undefined for PATH, HOME and LANG alone. */
  readonly environment?: readonly string[];
  readonly workingDirectory?: string;
  /** Undefined: /dev/null. */
  readonly input?: Uint8Array;
  readonly timeLimit: Milliseconds;
  /** Of both streams together. What is more is counted, and the program goes on. */
  readonly outputLimit: Bytes;
  /** "together" keeps the order of what was written to both; all of it comes as stdout then. */
  readonly streams: "apart" | "together";
  /** Whether it goes on when we have gone. */
  readonly outlives: boolean;
}

export interface CommandHandlers {
  /** As the guest numbers it. */
  onStarted?(processId: number): void;
  onOutput(stream: "stdout" | "stderr", bytes: Uint8Array): void;
}

export interface CommandEnd {
  readonly ending: ProgramEnding;
  /** Bytes of output beyond the limit. */
  readonly leftOut: Bytes;
  readonly killed: "time-limit" | "asker" | undefined;
}

export interface RunningCommand {
  /** @throws AgentUnreachable, AgentRefused or GuestBrokeRules */
  readonly ended: Promise<CommandEnd>;
  /** Its output waits in the guest, or comes again: whoever it is for takes no more now. */
  hold(held: boolean): void;
  /** Kills it and its process group. */
  end(): void;
}

/** A request whose answer has not come. */
interface Open {
  /** @returns what is wrong with the answer; undefined when it is fine */
  onAnswer(answer: Exclude<Answer, { kind: "hello" | "unknown-session" }>): string | undefined;
  onLost(error: Error): void;
  timer: Disposable | undefined;
}

/**
 * Asks the agent in a guest. It connects when it is first asked, and again after a connection was
 * lost. The guest is not trusted: what it says is held against the wire and its limits, and one
 * that breaks them loses the connection, and nothing of ours.
 */
export class GuestAgentClient implements Disposable {
  readonly #loop: EventLoop;
  readonly place: AgentPlace;
  readonly #times: AnswerTimes;
  #link: AgentLink | undefined;

  constructor(loop: EventLoop, place: AgentPlace, times: Partial<AnswerTimes> = {}) {
    this.#loop = loop;
    this.place = place;
    this.#times = { ...answerTimes, ...times };
  }

  /** Whether an agent has answered on the connection that stands. */
  get isConnected(): boolean {
    return this.#link?.isReady ?? false;
  }

  /** @returns how long the answer took */
  async ping(): Promise<Milliseconds> {
    const link = await this.#reach();
    const begin = monotonicNow();
    await link.request({ verb: "ping" }, "done");
    return monotonicNow() - begin;
  }

  async memory(): Promise<GuestMemory> {
    return (await (await this.#reach()).request({ verb: "memory" }, "memory")).memory;
  }

  async info(): Promise<GuestInformation> {
    return (await (await this.#reach()).request({ verb: "info" }, "info")).information;
  }

  /** Has the guest shut itself down; answered when that is under way. */
  async shutdown(how: "power-off" | "reboot"): Promise<void> {
    await (await this.#reach()).request({ verb: "shutdown", how }, "done");
  }

  /**
   * Runs a program. It ends with this connection, unless it outlives it.
   * @throws AgentRefused for what is more than the wire takes, before anything is sent
   */
  exec(command: GuestCommand, handlers: CommandHandlers): RunningCommand {
    const request = toRequest(command);
    const run = Promise.withResolvers<CommandEnd>();
    let isEnded = false;
    let running: StartedRun | undefined;
    this.#reach().then((link) => {
      if (isEnded) run.reject(new AgentUnreachable("The program was ended before it began"));
      else running = link.run(request, { command, handlers, ...run });
    }, run.reject);
    return {
      ended: run.promise,
      hold: (held) => running?.hold(held),
      end: () => {
        isEnded = true;
        running?.end();
      },
    };
  }

  async #reach(): Promise<AgentLink> {
    if (this.#link?.isOpen !== true) {
      this.#link = AgentLink.open(this.#loop, this.place, this.#times);
    }
    const link = this.#link;
    await link.ready;
    return link;
  }

  /**
   * Whoever answered has ended, and only the channel stands. One that was not heard of yet may
   * still come.
   */
  leave(): void {
    if (!this.isConnected) return;
    this.#link?.fail(new AgentUnreachable("The guest agent has ended, or its guest began anew"));
  }

  /** What is waited for is lost; what runs in the guest and does not outlive us ends. */
  close(): void {
    this.#link?.fail(new AgentUnreachable("We have closed the connection to the agent"));
    this.#link = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

type ExecBody = Omit<ExecRequest, "session" | "id">;

function toRequest(command: GuestCommand): ExecBody {
  const { argv, environment, workingDirectory, input, outputLimit, timeLimit } = command;
  const request: ExecBody = {
    verb: "exec",
    argv: [...argv],
    ...(environment !== undefined && { environment: [...environment] }),
    ...(workingDirectory !== undefined && { working_directory: workingDirectory }),
    input: input !== undefined,
    time_limit: Math.ceil(timeLimit),
    output_limit: outputLimit,
    streams: command.streams,
    outlives: command.outlives,
  };
  refuseOver("arguments and variables in bytes", argumentSize(request), limits.argumentBytes);
  refuseOver("arguments", argv.length, limits.argumentCount);
  refuseOver("variables", environment?.length ?? 0, limits.variableCount);
  refuseOver("bytes of input", input?.length ?? 0, limits.inputBytes);
  refuseOver("bytes of output", outputLimit, limits.outputBytes);
  refuseOver("milliseconds", request.time_limit, limits.programTime);
  return request;
}

function refuseOver(what: string, received: number, most: number): void {
  if (received <= most) return;
  throw new AgentRefused(`Expected at most ${most} ${what}, received ${received}`, "limit");
}

interface Run {
  readonly command: GuestCommand;
  readonly handlers: CommandHandlers;
  readonly resolve: (end: CommandEnd) => void;
  readonly reject: (error: Error) => void;
}

/** What can be said of a program that was asked for. */
type StartedRun = Pick<RunningCommand, "hold" | "end">;

/** @throws AgentUnreachable when nobody listens there */
function openStream(loop: EventLoop, place: AgentPlace, handlers: StreamHandlers): AgentStream {
  const options = { queuedBytes: QUEUED_BYTES, handlers };
  if ("context" in place) {
    const dial = VsockDial.begin(place, loop, options);
    if (typeof dial !== "string") return dial;
    const { context, port } = place;
    throw new AgentUnreachable(
      `Cannot connect to the guest agent at AF_VSOCK, context ${context}, port ${port}: ${dial}`,
    );
  }
  const socket = dialUnix(place.path);
  if (typeof socket !== "string") return new StreamConnection(loop, socket, options);
  throw new AgentUnreachable(
    `Cannot connect to the guest agent's channel ${place.path}: ${socket}. ` +
      "Does the VMM run, and was it given this channel?",
  );
}

/** One connection with one session of its own. */
class AgentLink {
  readonly #loop: EventLoop;
  readonly #times: AnswerTimes;
  readonly #stream: AgentStream;
  readonly #reader = new MessageReader(limits.answerBytes);
  readonly #session: string;
  readonly #open = new Map<number, Open>();
  readonly #greeted = Promise.withResolvers<void>();
  #greeting: Disposable | undefined;
  #phase: "greeting" | "ready" | "over" = "greeting";
  #nextId = 1;
  /** Since the last message of this session. */
  #strayBytes = 0;

  private constructor(
    loop: EventLoop,
    stream: (link: AgentLink) => AgentStream,
    times: AnswerTimes,
  ) {
    this.#loop = loop;
    this.#times = times;
    this.#session = crypto.getRandomValues(new Uint8Array(16)).toHex();
    this.#stream = stream(this);
    // Whoever asked hears of it; a link that nobody waits for any more must not end the worker.
    this.#greeted.promise.catch(() => {});
  }

  /** @throws AgentUnreachable when nobody listens there */
  static open(loop: EventLoop, place: AgentPlace, times: AnswerTimes): AgentLink {
    const link = new AgentLink(loop, (made) => openStream(loop, place, made.#handlers), times);
    link.#greet("path" in place ? place.vsockPort : undefined);
    return link;
  }

  get #handlers(): StreamHandlers {
    return {
      onBytes: (bytes: Uint8Array, descriptors: readonly Disposable[]) => {
        for (const descriptor of descriptors) descriptor[Symbol.dispose]();
        this.#take(bytes);
      },
      onEnd: (reason: string) =>
        this.fail(new AgentUnreachable(`The connection to the guest agent ended: ${reason}`)),
    };
  }

  get ready(): Promise<void> {
    return this.#greeted.promise;
  }

  get isReady(): boolean {
    return this.#phase === "ready";
  }

  get isOpen(): boolean {
    return this.#phase !== "over";
  }

  #greet(vsockPort: number | undefined): void {
    // How cloud-hypervisor and Firecracker are told which port of the guest is meant. What they
    // answer stands before any message, and is skipped as such.
    if (vsockPort !== undefined) {
      this.#stream.send(new TextEncoder().encode(`CONNECT ${vsockPort}\n`));
    }
    const end = monotonicNow() + this.#times.hello;
    const say = () => {
      if (this.#phase !== "greeting") return;
      if (monotonicNow() >= end) {
        this.fail(
          new AgentUnreachable(
            `The guest agent did not answer within ${this.#times.hello} ms. Does the guest run ` +
              "hostler vm guest-agent, and has it booted so far?",
          ),
        );
        return;
      }
      const { helloAgain } = this.#times;
      this.#send({ verb: "hello", version: PROTOCOL_VERSION, session: this.#session });
      const wait = Math.min(helloAgain, Math.max(1, end - monotonicNow()));
      if (this.#phase === "greeting") this.#greeting = this.#loop.wakeAfter(wait, say);
    };
    say();
  }

  /** Asks, and waits for the one answer. */
  request<Kind extends "done" | "memory" | "info">(
    body: { readonly verb: string; readonly how?: string },
    kind: Kind,
  ): Promise<Extract<Answer, { kind: Kind }>> {
    const answered = Promise.withResolvers<Extract<Answer, { kind: Kind }>>();
    this.#ask(body, this.#times.answer, (id) => ({
      onAnswer: (answer) => {
        if (answer.kind === "refused") {
          this.#close(id);
          answered.reject(toError(answer.refusal));
          return undefined;
        }
        if (answer.kind !== kind) return `"${kind}", received "${answer.kind}"`;
        this.#close(id);
        answered.resolve(answer as Extract<Answer, { kind: Kind }>);
        return undefined;
      },
      onLost: answered.reject,
      timer: undefined,
    }));
    return answered.promise;
  }

  run(request: ExecBody, run: Run): StartedRun {
    let received = 0;
    let isStarted = false;
    const time = run.command.timeLimit + this.#times.programGrace;
    const asked = this.#ask(request, time, (id) => ({
      onAnswer: (answer) => {
        switch (answer.kind) {
          case "refused":
            this.#close(id);
            run.reject(toError(answer.refusal));
            return undefined;
          case "started":
            if (isStarted) return "one start, received another";
            isStarted = true;
            run.handlers.onStarted?.(answer.process_id);
            return undefined;
          case "output": {
            const bytes = Uint8Array.fromBase64(answer.data);
            received += bytes.length;
            if (!isStarted) return "a start before output";
            if (bytes.length === 0) return "output of at least a byte, received none";
            if (received > request.output_limit) {
              return `at most ${request.output_limit} bytes of output, received more`;
            }
            run.handlers.onOutput(answer.stream, bytes);
            return undefined;
          }
          case "ended":
            if (!isStarted) return "a start before an end";
            this.#close(id);
            run.resolve({
              ending: answer.ending,
              leftOut: answer.left_out,
              killed: answer.killed,
            });
            return undefined;
          default:
            return `what a program does, received "${answer.kind}"`;
        }
      },
      onLost: run.reject,
      timer: undefined,
    }));
    const tell = (body: object) => {
      if (asked !== undefined && this.#open.has(asked)) this.#sendTo(asked, body);
    };
    const { input } = run.command;
    if (asked !== undefined && input !== undefined) this.#feed(asked, input);
    return { hold: (held) => tell({ verb: "hold", held }), end: () => tell({ verb: "end" }) };
  }

  #feed(id: number, input: Uint8Array): void {
    let begin = 0;
    do {
      const piece = input.subarray(begin, begin + limits.inputPieceBytes);
      begin += limits.inputPieceBytes;
      const last = begin >= input.length;
      this.#sendTo(id, { verb: "input", data: piece.toBase64(), last });
    } while (begin < input.length);
  }

  /** @returns the id; undefined when it cannot be asked, which has been told */
  #ask(body: object, time: Milliseconds, make: (id: number) => Open): number | undefined {
    const id = this.#nextId;
    const open = make(id);
    if (this.#phase !== "ready") {
      open.onLost(new AgentUnreachable("The connection to the guest agent is over"));
      return undefined;
    }
    if (this.#open.size >= MOST_REQUESTS) {
      open.onLost(new AgentRefused(`Expected at most ${MOST_REQUESTS} requests at once`, "limit"));
      return undefined;
    }
    this.#nextId += 1;
    open.timer = this.#loop.wakeAfter(time, () => {
      this.#open.delete(id);
      // Only a program is still there to be ended; anything else has no such id in the guest.
      this.#sendTo(id, { verb: "end" });
      open.onLost(new AgentUnreachable(`The guest agent did not answer within ${time} ms`));
    });
    this.#open.set(id, open);
    this.#sendTo(id, body);
    return this.#open.has(id) ? id : undefined;
  }

  #close(id: number): void {
    this.#open.get(id)?.timer?.[Symbol.dispose]();
    this.#open.delete(id);
  }

  #sendTo(id: number, body: object): void {
    this.#send({ ...body, session: this.#session, id });
  }

  #send(body: object): void {
    this.#stream.send(frameMessage(body));
  }

  #take(bytes: Uint8Array): void {
    for (const framed of this.#reader.push(bytes)) {
      if (this.#phase === "over") return;
      const broken = this.#takeFramed(framed);
      if (broken === undefined) continue;
      this.fail(
        new GuestBrokeRules(`The guest agent broke the rules of the wire: expected ${broken}`),
      );
    }
  }

  /** @returns what was expected and what was received, when the guest broke the rules */
  #takeFramed(framed: Framed): string | undefined {
    if (framed.kind === "stray") return this.#stray(framed.bytes);
    const outcome = v.safeParse(answerSchema, framed.body);
    if (!outcome.success)
      return `an answer, received another message (${describeIssues(outcome.issues)})`;
    const answer = outcome.output;
    // It was meant for whoever asked before.
    if (answer.session !== this.#session) return this.#stray(framed.bytes);
    if (answer.kind === "hello") return this.#welcome(answer.version, framed.bytes);
    if (answer.kind === "unknown-session") {
      this.fail(new AgentUnreachable("The guest agent was started anew, or another asked it"));
      return undefined;
    }
    const open = this.#open.get(answer.id);
    if (open !== undefined) {
      this.#strayBytes = 0;
      const wanted = open.onAnswer(answer);
      return wanted === undefined ? undefined : `${wanted}`;
    }
    if (answer.id >= this.#nextId) return `an answer to a request, received one to ${answer.id}`;
    // It comes late: nobody waits for it any more.
    return this.#stray(framed.bytes);
  }

  #welcome(version: number, bytes: Bytes): string | undefined {
    if (this.#phase !== "greeting") return this.#stray(bytes);
    this.#strayBytes = 0;
    if (version !== PROTOCOL_VERSION) {
      const message =
        `The guest agent speaks version ${version} of the wire, and this hostler version ` +
        `${PROTOCOL_VERSION}. Put the same hostler into the guest.`;
      this.fail(new AgentRefused(message, "version"));
      return undefined;
    }
    this.#greeting?.[Symbol.dispose]();
    this.#phase = "ready";
    this.#greeted.resolve();
    return undefined;
  }

  #stray(bytes: Bytes): string | undefined {
    this.#strayBytes += bytes;
    if (this.#strayBytes <= limits.strayBytes) return undefined;
    return `at most ${limits.strayBytes} bytes that are no answer, received more`;
  }

  /** Ends the connection, and tells everybody who waits. */
  fail(error: Error): void {
    if (this.#phase === "over") return;
    this.#phase = "over";
    this.#greeting?.[Symbol.dispose]();
    this.#stream.close();
    this.#reader.reset();
    this.#greeted.reject(error);
    for (const [id, open] of [...this.#open]) {
      this.#close(id);
      open.onLost(error);
    }
  }
}

function toError({ kind, message }: { readonly kind: string; readonly message: string }) {
  return new AgentRefused(`The guest agent refused: ${message}`, kind);
}
