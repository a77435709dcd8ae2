import * as v from "valibot";
import { EventLoop } from "../../event-loop/event-loop.ts";
import { startWorker } from "../../event-loop/worker-factory.ts";
import { createLogger, type Logger } from "../../logging/logger.ts";
import { describeIssues } from "../../messaging/describe-issues.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { hostlerVersion } from "../../units/version.ts";
import { type GuestFacts, machineFacts } from "../perform/guest-facts.ts";
import {
  choosePort,
  type GuestPort,
  openPort,
  type PortHandlers,
  PortRefused,
} from "../perform/guest-port.ts";
import { GuestProgram, type OutputStream } from "../perform/guest-program.ts";
import { shutDownMachine } from "../perform/guest-shutdown.ts";
import { type Framed, frameMessage, MessageReader } from "./framing.ts";
import {
  type Answer,
  argumentSize,
  type ExecRequest,
  limits,
  PROTOCOL_VERSION,
  type Request,
  requestSchema,
} from "./protocol.ts";

type Asked<Verb extends Request["verb"]> = Extract<Request, { readonly verb: Verb }>;

/**
 * The agent in a guest: answers whoever asks at its port, and runs programs for it. The last who
 * said hello is the asker; what an earlier one began ends then, unless it was to outlive it.
 */
export class GuestAgent implements Disposable {
  readonly #loop: EventLoop;
  readonly #log: Logger;
  readonly #facts: GuestFacts;
  readonly #port: GuestPort;
  readonly #reader = new MessageReader(limits.requestBytes);
  readonly #programs = new Map<number, GuestProgram>();
  /** Programs whose asker has gone. */
  readonly #orphans = new Set<GuestProgram>();
  #session: string | undefined;

  constructor(
    loop: EventLoop,
    options: {
      readonly log: Logger;
      readonly facts: GuestFacts;
      readonly open: (handlers: PortHandlers) => GuestPort;
      readonly onFailure: (reason: string) => void;
    },
  ) {
    this.#loop = loop;
    this.#log = options.log;
    this.#facts = options.facts;
    this.#port = options.open({
      onBytes: (bytes) => {
        for (const framed of this.#reader.push(bytes)) this.#take(framed);
      },
      onGone: () => {
        this.#reader.reset();
        this.#leave("the asker has gone");
      },
      onDrained: () => {
        for (const program of this.#programs.values()) program.resume();
      },
      onFailure: options.onFailure,
    });
  }

  /** Programs that run, whoever began them. */
  get programCount(): number {
    return this.#programs.size + this.#orphans.size;
  }

  #take(framed: Framed): void {
    if (framed.kind === "stray") {
      this.#log.debug("Bytes that are no message", { why: framed.why, bytes: framed.bytes });
      return;
    }
    const outcome = v.safeParse(requestSchema, framed.body);
    if (outcome.success) this.#answer(outcome.output);
    else this.#refuseUnread(framed.body, describeIssues(outcome.issues));
  }

  /** A request of another version may still say whose it is. */
  #refuseUnread(body: unknown, why: string): void {
    this.#log.warn("A request is not understood", { why });
    const heading = v.safeParse(v.object({ session: v.string(), id: v.number() }), body);
    if (!heading.success || heading.output.session !== this.#session) return;
    this.#refuse(heading.output.id, "request", why);
  }

  #answer(request: Request): void {
    if (request.verb === "hello") {
      this.#greet(request);
      return;
    }
    if (request.session !== this.#session) {
      this.#send({ kind: "unknown-session", session: request.session });
      return;
    }
    const { id, session } = request;
    switch (request.verb) {
      case "ping":
        this.#send({ kind: "done", session, id });
        break;
      case "memory":
        this.#send({ kind: "memory", session, id, memory: this.#facts.memory() });
        break;
      case "info":
        this.#send({ kind: "info", session, id, information: this.#facts.information() });
        break;
      case "exec":
        this.#execute(request);
        break;
      case "input":
        this.#input(request);
        break;
      case "hold":
        this.#programs.get(id)?.hold(request.held);
        break;
      case "end":
        this.#programs.get(id)?.kill("asker");
        break;
      case "shutdown":
        this.#shutDown(request);
        break;
    }
  }

  #greet({ version, session }: Asked<"hello">): void {
    if (version === PROTOCOL_VERSION && session !== this.#session) {
      this.#leave("another asker has come");
      this.#session = session;
      this.#log.info("A session begins", { session });
    }
    this.#send({ kind: "hello", session, version: PROTOCOL_VERSION, agent: hostlerVersion });
  }

  /** The asker of this session hears no more. */
  #leave(why: string): void {
    if (this.#session === undefined) return;
    this.#log.info("The session is over", { session: this.#session, why });
    this.#session = undefined;
    for (const program of this.#programs.values()) {
      this.#orphans.add(program);
      program.mute();
      if (!program.outlives) program.kill("asker");
    }
    this.#programs.clear();
  }

  #execute(request: ExecRequest): void {
    const { id, session, verb: _verb, ...plan } = request;
    const refusal = this.#refusalOf(request);
    if (refusal !== undefined) {
      this.#refuse(id, "limit", refusal);
      return;
    }
    const program = GuestProgram.start(this.#loop, plan, {
      onOutput: (stream, bytes) => this.#tellOutput({ id, session, stream, bytes }),
      onEnded: (end) => {
        const current = this.#programs.get(id);
        if (current !== undefined && current === program) this.#programs.delete(id);
        this.#orphans.delete(program as GuestProgram);
        if (session !== this.#session) return;
        const { ending, leftOut, killed } = end;
        const reason = killed === undefined ? {} : { killed };
        this.#send({ kind: "ended", session, id, ending, left_out: leftOut, ...reason });
      },
    });
    if (typeof program === "string") {
      this.#refuse(id, "start", program);
      return;
    }
    this.#programs.set(id, program);
    this.#send({ kind: "started", session, id, process_id: program.processId });
  }

  #refusalOf(request: ExecRequest): string | undefined {
    if (this.#programs.has(request.id)) return `expected a new id, received ${request.id} again`;
    if (this.programCount >= limits.programs) {
      return `expected at most ${limits.programs} programs at once, received one more`;
    }
    const size = argumentSize(request);
    if (size <= limits.argumentBytes) return undefined;
    return (
      `expected at most ${limits.argumentBytes} bytes of arguments and variables, ` +
      `received ${size}`
    );
  }

  #tellOutput(output: {
    readonly id: number;
    readonly session: string;
    readonly stream: OutputStream;
    readonly bytes: Uint8Array;
  }): void {
    const { id, session, stream, bytes } = output;
    if (session !== this.#session) return;
    this.#send({ kind: "output", session, id, stream, data: bytes.toBase64() });
    // The programs of an asker that reads slowly wait, as they would for a terminal.
    if (this.#port.queuedBytes <= limits.queuedBytes) return;
    for (const program of this.#programs.values()) program.pause();
  }

  #input({ id, data, last }: Asked<"input">): void {
    const program = this.#programs.get(id);
    // It may have ended while this was under way.
    if (program === undefined || program.takeInput(Uint8Array.fromBase64(data), last)) return;
    this.#log.warn("A program was killed: more input than the limit", { id });
  }

  #shutDown({ id, session, how }: Asked<"shutdown">): void {
    if (!this.#port.isMachine) {
      this.#refuse(id, "port", "expected a virtio-serial port or vsock, received a Unix socket");
      return;
    }
    this.#log.warn("The machine is shut down", { how });
    const refusal = shutDownMachine(this.#loop, how);
    if (refusal === undefined) this.#send({ kind: "done", session, id });
    else this.#refuse(id, "shutdown", refusal);
  }

  #refuse(id: number, kind: string, message: string): void {
    if (this.#session === undefined) return;
    const refusal = { kind, message: message.slice(0, limits.reasonLength) };
    this.#send({ kind: "refused", session: this.#session, id, refusal });
  }

  #send(answer: Answer): void {
    this.#port.send(frameMessage(answer));
  }

  /** Ends what was begun, unless it outlives its asker. */
  [Symbol.dispose](): void {
    this.#leave("the agent ends");
    this.#port[Symbol.dispose]();
  }
}

/**
 * Answers until a signal ends it, or the port is lost.
 * @param port what follows `--port`
 * @returns the exit code
 */
export async function runGuestAgent(port: string | undefined): Promise<number> {
  const log = createLogger("guest-agent");
  using loop = new EventLoop(startWorker);
  const over = Promise.withResolvers<number>();
  loop.onFailure((failure) => over.reject(failure));
  const end = () => over.resolve(ExitCode.done);
  process.on("SIGTERM", end);
  process.on("SIGINT", end);
  try {
    const place = choosePort(port);
    using _agent = new GuestAgent(loop, {
      ...{ log, facts: machineFacts },
      open: (handlers) => openPort(loop, place, handlers),
      onFailure: (reason) => {
        log.error("The port is lost", { reason });
        over.resolve(ExitCode.refused);
      },
    });
    log.info("The agent is there to be asked", { version: hostlerVersion, ...place });
    return await over.promise;
  } catch (error) {
    if (!(error instanceof PortRefused)) throw error;
    log.error(error.message);
    return ExitCode.refused;
  } finally {
    process.off("SIGTERM", end);
    process.off("SIGINT", end);
  }
}
