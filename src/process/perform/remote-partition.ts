import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { openProcess, signalProcess } from "../../../ffi/pidfd.ts";
import { receiveCredentials } from "../../../ffi/unix-socket.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { SaidOnce } from "../../logging/said-once.ts";
import { Dialler } from "../../messaging/dialler.ts";
import { FrameConnection } from "../../messaging/frame-connection.ts";
import { type InheritedListener, KeptListener } from "../../messaging/kept-listener.ts";
import { makeSocketFolder } from "../../messaging/listener.ts";
import { identifyPeer, refusePeer } from "../../messaging/peer.ts";
import { StreamConnection } from "../../messaging/stream-connection.ts";
import type { MonotonicTime } from "../../units/units.ts";
import { decodeEnding } from "../ending.ts";
import { newInvocation } from "../invocation.ts";
import type { Instance } from "../lifecycle.ts";
import type { AgentIdentity } from "../partition-book.ts";
import { type Hello, limits, PROTOCOL_VERSION, type Refused } from "../protocol.ts";
import type { CarriedPartition } from "../protocol-state.ts";
import type { PartitionSpecification } from "../specification.ts";
import { AgentLink, type PreparedAnswer, type StartAnswer } from "./agent-link.ts";
import type { Keeper } from "./keeping.ts";
import { clearInvocation, endUncertain } from "./leftovers.ts";
import type { Luggage, Unpacking } from "./luggage.ts";
import type { Passed } from "./parked-descriptors.ts";
import {
  type CommandRequest,
  type CommandResult,
  type Emit,
  invocationVariable,
  type LeftInstance,
  type ManagedProcess,
  type Partition,
  policyOf,
  withPassed,
} from "./partition.ts";
import { findInvocation, type ProcessStatus, statusOf } from "./process-table.ts";
import { RemoteInstances } from "./remote-instances.ts";
import { Standby } from "./standby.ts";

const SIGKILL = 9;

/** How often a search is repeated for a process in the middle of exec, and after how long. */
const SEARCHES = 100;
const SEARCH_AGAIN_AFTER = 10;
/** Milliseconds after a start when the next one is prepared: its first work is not disturbed. */
const PREPARE_AFTER = 2;
/** Milliseconds in which an agent must answer that an armed start is taken back. */
const WITHDRAWAL_LIMIT = 1_000;

/** Reasons why the agent is not there, or another one was refused, that are said once each. */
const SAID_REASONS = 16;

/** What the orchestrator hears of a partition. */
export interface RemoteHandlers {
  onReachable(reachable: boolean, detail: string, agent?: AgentIdentity): void;
  /** An attempt to reach it failed, or an agent was refused: told for each. */
  onMissed(reason: string): void;
  onTrouble(message: string): void;
}

/** A partition behind an agent. What it started is watched by pidfd, agent or no agent. */
export class RemotePartition implements Partition {
  readonly loop: EventLoop;
  readonly #specification: PartitionSpecification;
  readonly #hello: Hello;
  readonly #emit: Emit;
  readonly #onPrepared: (name: string, invocation: string) => void;
  readonly #onForgotten: (invocation: string) => void;
  readonly #handlers: RemoteHandlers;
  readonly #restartsAtOnceFrom: (name: string) => MonotonicTime | undefined;
  readonly #instances: RemoteInstances;
  /** The link on which an instance was started, for as long as that link stands. */
  readonly #startedOn = new Map<string, AgentLink>();
  /** The link on which a start was asked for, until it is answered. */
  readonly #owing = new Map<string, AgentLink>();
  /** Starts that the agent holds prepared, by the name of their process. */
  readonly #standby = new Map<string, Standby>();
  /** Instances whose armed restart is being taken back, and what waits for that. */
  readonly #withdrawals = new Map<string, (() => void)[]>();
  /** Searches that begin when a link that was left has ended on both sides. */
  readonly #searches = new Map<AgentLink, (() => void)[]>();
  /** Checks of readiness that have not come to their ends; `ended` when nobody asks any more. */
  readonly #commands = new Map<string, { ended: boolean }>();
  /** Why it is not connected, or another agent was refused; until one connects. */
  readonly #said = new SaidOnce(SAID_REASONS);
  /** Nothing is prepared and armed by itself: another program is to go on with this. */
  #isPaused = false;
  /** What listened for the program before this one. */
  #carriedListener: InheritedListener | undefined;
  /** The version of the wire in which it has said hello. */
  #carriedProtocol = PROTOCOL_VERSION;
  /** Starts that the agent held prepared for it. */
  #carriedStandby: CarriedPartition["standby"] = [];
  #link: AgentLink | undefined;
  #dialler: Dialler | undefined;
  #listener: KeptListener | undefined;

  constructor(
    loop: EventLoop,
    specification: PartitionSpecification,
    options: {
      readonly hello: Hello;
      readonly emit: Emit;
      readonly handlers: RemoteHandlers;
      /** Told before a prepared start can be made, so that it is written down by then. */
      readonly onPrepared: (name: string, invocation: string) => void;
      /** Told when a prepared start can never be made any more. */
      readonly onForgotten: (invocation: string) => void;
      /** From when on the end of the instance that runs is answered by a start, whatever it is. */
      readonly restartsAtOnceFrom: (name: string) => MonotonicTime | undefined;
      readonly keeper: Keeper;
    },
  ) {
    this.#restartsAtOnceFrom = options.restartsAtOnceFrom;
    this.#onPrepared = options.onPrepared;
    this.#onForgotten = options.onForgotten;
    this.loop = loop;
    this.#specification = specification;
    this.#hello = options.hello;
    this.#emit = options.emit;
    this.#handlers = options.handlers;
    this.#instances = new RemoteInstances(loop, {
      emit: options.emit,
      onTrouble: (message) => options.handlers.onTrouble(message),
      onGone: (invocation) => this.#startedOn.delete(invocation),
      keeper: options.keeper,
    });
  }

  /** Begins to dial, or to listen. @throws SocketPathError when it cannot listen. */
  open(): void {
    const { endpoint } = this.#specification;
    if (endpoint.kind === "connect") {
      this.#dialler = new Dialler(this.loop, endpoint.path, {
        onConnection: (socket) => this.#take(socket, true),
        onFailure: (reason) => {
          this.#handlers.onMissed(`cannot reach its agent at ${endpoint.path}: ${reason}`);
          this.#sayOnce(`cannot reach the agent at ${endpoint.path}: ${reason}`);
        },
      });
      if (this.#link === undefined) this.#dialler.dial();
      this.#goOnWithLink();
      return;
    }
    makeSocketFolder(endpoint.path);
    this.#listener = new KeptListener(this.loop, endpoint.path, {
      // Connections inherit it: the first message of an agent comes before we could ask for it.
      prepare: receiveCredentials,
      onConnection: (socket) => this.#take(socket, false),
      onExhausted: (error) => this.#handlers.onTrouble(error.message),
      onRemoved: () => makeSocketFolder(endpoint.path),
      onTrouble: this.#handlers.onTrouble,
      inherited: this.#carriedListener,
    });
    this.#goOnWithLink();
  }

  #goOnWithLink(): void {
    const link = this.#link;
    if (link === undefined) return;
    if (this.#carriedProtocol !== PROTOCOL_VERSION) {
      // Both sides would have to say hello once more.
      link.close(`it was greeted in version ${this.#carriedProtocol} of the wire`);
      return;
    }
    for (const { name, invocation, replaces } of this.#carriedStandby) {
      const standby = new Standby(link, invocation, replaces);
      this.#standby.set(name, standby);
      this.#armWhenDecided(name, standby);
    }
    this.#carriedStandby = [];
  }

  /** Takes back what would happen by itself; what has begun comes to its end. */
  pause(): void {
    this.#isPaused = true;
    for (const standby of this.#standby.values()) standby.rest();
  }

  resume(): void {
    this.#isPaused = false;
    for (const [name, standby] of this.#standby) {
      if (!standby.isArmed) this.#armWhenDecided(name, standby);
    }
  }

  get canCheck(): boolean {
    return this.#link?.isUp === true;
  }

  get isSilent(): boolean {
    return this.#link?.isUp !== true || this.#link.owes;
  }

  get underWay(): string | undefined {
    if (this.#owing.size > 0) return "the answer to a start";
    if (this.#withdrawals.size > 0) return "the answer to a start that is taken back";
    if (this.#searches.size > 0) return "the end of a connection";
    if (this.#commands.size > 0) return "a check of readiness";
    const isMade = [...this.#standby.values()].some(
      (standby) => standby.isAnswered && !standby.isVoid,
    );
    if (isMade) return "a start that the agent has made";
    const isArmed = [...this.#standby.values()].some((standby) => standby.isArmed);
    if (isArmed) return "the answer to a start that is taken back";
    if (this.#link?.isUp === true && !this.#link.isIdle) return "an answer of the agent";
    return undefined;
  }

  /**
   * Ends a connection that does not come to rest, so that its agent is reached again; but not one
   * by which a start may still be made: only its end on both sides proves that none will be.
   */
  dropUnsettled(): void {
    const link = this.#link;
    if (link?.isUp !== true || link.isIdle || this.#withdrawals.size > 0) return;
    const owes = [...this.#owing.values()].includes(link);
    const isArmed = [...this.#standby.values()].some(
      (standby) => standby.link === link && standby.isArmed,
    );
    if (!owes && !isArmed) link.close("it does not come to rest, and another program goes on");
  }

  /** Invocations of starts that were prepared, and will not be made. */
  get drawn(): readonly string[] {
    return [...this.#standby.values()].flatMap(({ isVoid, invocation }) =>
      isVoid ? [invocation] : [],
    );
  }

  pack(luggage: Luggage): CarriedPartition {
    // One that has not said hello yet is made anew; so is one that was left.
    const link = this.#link?.isUp === true ? this.#link : undefined;
    const standby = [...this.#standby].filter(
      ([, { link: other, isVoid }]) => other === link && !isVoid,
    );
    return {
      name: this.#specification.name,
      listener: luggage.packListener(this.#listener?.carried),
      link: link?.pack(luggage),
      instances: this.#instances.pack(luggage),
      startedOn: [...this.#startedOn].flatMap(([invocation, startedOn]) =>
        startedOn === link ? [invocation] : [],
      ),
      standby: standby.map(([name, { invocation, replaces }]) => ({ name, invocation, replaces })),
    };
  }

  /** Watches what the program before this one watched, before `open`. @throws WrongLuggage */
  unpack(carried: CarriedPartition, unpacking: Unpacking): void {
    const { listener, link } = carried;
    this.#carriedListener = listener && unpacking.takeListener(listener);
    this.#instances.unpack(carried.instances, unpacking);
    if (link === undefined) return;
    const socket = unpacking.take(link.socket);
    this.#link = this.#makeLink(socket, link.dialled);
    this.#link.goOn(link);
    for (const invocation of carried.startedOn) this.#startedOn.set(invocation, this.#link);
    this.#carriedStandby = carried.standby;
    this.#carriedProtocol = link.protocol;
  }

  #take(socket: OwnedDescriptor, dialled: boolean): void {
    const refusal = this.#refuse(socket);
    if (refusal !== undefined) {
      const { what, expected, received } = refusal;
      const message = `refused ${what}: expected ${expected}; received ${received}`;
      if (dialled) socket.close();
      else this.#tellRefused(socket, { kind: "refused", expected, received });
      this.#handlers.onMissed(message);
      this.#sayOnce(message);
      this.#dialler?.redial();
      return;
    }
    this.#link = this.#makeLink(socket, dialled);
    this.#link.begin();
  }

  #makeLink(socket: OwnedDescriptor, dialled: boolean): AgentLink {
    const link: AgentLink = new AgentLink(this.loop, socket, {
      hello: this.#hello,
      dialled,
      handlers: {
        onUp: (hello, processId) => {
          this.#dialler?.succeed();
          this.#said.forget();
          const detail = `agent ${hello.version}, process ${processId}`;
          this.#handlers.onReachable(true, detail, { version: hello.version, processId });
        },
        onExited: (invocation, ending) =>
          this.#instances.get(invocation)?.notice(decodeEnding(ending)),
        isReaped: (invocation) => this.#instances.get(invocation)?.isReaped ?? true,
        onDown: (reason) => this.#onDown(link, reason),
      },
    });
    return link;
  }

  #refuse(
    socket: OwnedDescriptor,
  ): { readonly what: string; readonly expected: string; readonly received: string } | undefined {
    if (this.#link !== undefined) {
      return {
        what: "a second agent",
        expected: "one agent",
        received: "another one while it is connected",
      };
    }
    const { name } = this.#specification;
    const refusal = refusePeer(identifyPeer(socket), policyOf(this.#specification));
    return refusal === undefined ? undefined : { what: `the agent of ${name}`, ...refusal };
  }

  /** An agent that dialled out tries for ever, and its log is where its operator looks. */
  #tellRefused(socket: OwnedDescriptor, refused: Refused): void {
    const handlers = { onBytes: () => {}, onEnd: () => {} };
    const { queuedBytes } = limits;
    const stream = new StreamConnection(this.loop, socket, { queuedBytes, handlers });
    const helloLimits = { frameBytes: limits.helloBytes, frameDescriptors: 0 };
    const frames = new FrameConnection(stream, helloLimits, {
      onFrame: () => {},
      onViolation: () => {},
      onEnd: () => {},
    });
    frames.send(refused);
    // Its buffer is empty and takes all of this; who does not read has been refused in any case.
    frames.close();
  }

  /** Who is refused tries again: each reason is said once, until an agent connects. */
  #sayOnce(message: string): void {
    if (this.#said.isNew(message)) this.#handlers.onTrouble(message);
  }

  #onDown(link: AgentLink, reason: string): void {
    for (const [name, standby] of this.#standby) {
      if (standby.link !== link || this.#withdrawals.has(standby.replaces)) continue;
      if (!standby.isArmed || this.#cannotBeMade(standby)) this.#forget(name, standby);
    }
    for (const [invocation, startedOn] of this.#startedOn) {
      if (startedOn !== link) continue;
      this.#startedOn.delete(invocation);
      this.#instances.get(invocation)?.orphan();
    }
    if (this.#link === link) this.#leave(reason);
    const searches = this.#searches.get(link) ?? [];
    this.#searches.delete(link);
    for (const search of searches) search();
  }

  /** No more requests go to this link; another one may be made. */
  #leave(reason: string): void {
    this.#link = undefined;
    this.#handlers.onReachable(false, reason);
    this.#dialler?.redial();
  }

  start(managed: ManagedProcess, invocation: string, replaces: string | undefined): void {
    const { name, leftovers, command } = managed.specification;
    const standby = this.#standby.get(name);
    const isStandby = standby?.invocation === invocation;
    const link = isStandby ? standby.link : this.#link;
    if (link === undefined || !(link.isUp || (isStandby && standby.isArmed))) {
      // The request was never sent, so nothing can have come of it.
      const refusal = { message: "The agent is not connected", code: undefined };
      this.#emit(name, { kind: "start-refused", invocation, refusal });
      return;
    }
    this.#owing.set(invocation, link);
    const onAnswer = (answer: StartAnswer) => {
      this.#owing.delete(invocation);
      this.#onAnswer(link, managed, invocation, answer);
    };
    const startWhole = () => {
      const passed = managed.parked?.pass();
      const request = { managed, invocation, replaces, argv: command, leftovers, passed };
      this.#send(link, request, onAnswer);
    };
    this.#standby.delete(name);
    if (!isStandby) {
      if (standby !== undefined) this.#onForgotten(standby.invocation);
      startWhole();
      return;
    }
    standby.go(replaces, (answer) => {
      if (answer.kind === "not-prepared" || answer.kind === "disarmed") startWhole();
      else onAnswer(answer);
    });
  }

  /** The invocation of the start that the agent holds prepared, or may have made already. */
  standbyOf(name: string): string | undefined {
    const standby = this.#standby.get(name);
    if (standby === undefined) return undefined;
    const counts = standby.isArmed || (standby.link === this.#link && standby.link.isUp);
    return counts ? standby.invocation : undefined;
  }

  processOf(invocation: string): OwnedDescriptor | undefined {
    return this.#instances.processOf(invocation);
  }

  settle(name: string, act: () => void): void {
    const standby = this.#standby.get(name);
    const waiting = standby && this.#withdrawals.get(standby.replaces);
    if (waiting !== undefined) waiting.push(act);
    else if (standby?.isArmed === true) this.#withdraw(name, standby, act);
    else act();
  }

  renewed(name: string, launch: "same" | "other"): string | undefined {
    const standby = this.#standby.get(name);
    if (standby === undefined) return undefined;
    this.#standby.delete(name);
    if (launch === "other") return standby.invocation;
    // It is prepared as before, and armed by the rules that hold now.
    const { link, invocation, replaces } = standby;
    const same = new Standby(link, invocation, replaces);
    this.#standby.set(name, same);
    this.#armWhenDecided(name, same);
    return undefined;
  }

  /**
   * Of an armed start whose connection has ended, or to which we write no more. The agent makes it
   * after the reaping of what it replaces, and looks before that whether we have hung up.
   */
  #cannotBeMade(standby: Standby): boolean {
    return !standby.isAnswered && this.#instances.get(standby.replaces)?.isReaped === false;
  }

  /** The armed start that replaces this instance, with the name of its process. */
  #armedFor(invocation: string): readonly [name: string, standby: Standby] | undefined {
    return [...this.#standby].find(
      ([, standby]) => standby.isArmed && standby.replaces === invocation,
    );
  }

  #forget(name: string, standby: Standby): void {
    if (this.#standby.get(name) === standby) this.#standby.delete(name);
    this.#onForgotten(standby.invocation);
  }

  /**
   * Has the agent prepare the next start while the process runs, so that a restart asks it for
   * nothing but to go.
   */
  #prepareNext(link: AgentLink, managed: ManagedProcess, current: string): void {
    const { name, restart, hooks } = managed.specification;
    // What has to be done before a start, or after an end, no agent knows.
    const isAlone = hooks.beforeStart === undefined && hooks.afterStop === undefined;
    const isPlain = managed.constraints === undefined && managed.parked === undefined;
    const useful = restart !== "never" && isPlain && isAlone;
    if (!useful || !link.isUp || this.#standby.has(name) || this.#isPaused) return;
    // An instance that is gone already is being restarted by now.
    if (this.#instances.get(current)?.isDead !== false) return;
    const invocation = newInvocation();
    const { argv, ...fields } = this.#fieldsOf(managed, invocation, managed.specification.command);
    const size = [...argv, ...fields.environment].reduce((sum, text) => sum + text.length, 0);
    if (size > limits.preparedBytes) return;
    const { writers } = this.#pipesOf(managed);
    link.prepare({ argv, ...fields }, writers, (prepared) => {
      if (!prepared || link !== this.#link) return;
      this.#onPrepared(name, invocation);
      const standby = new Standby(link, invocation, current);
      this.#standby.set(name, standby);
      this.#armWhenDecided(name, standby);
    });
  }

  /** Has the agent make the next start by itself, once it is certain that one will follow. */
  #armWhenDecided(name: string, standby: Standby): void {
    const decidedFrom = this.#restartsAtOnceFrom(name);
    if (decidedFrom === undefined) return;
    const arm = () => {
      if (this.#standby.get(name) !== standby || !standby.link.isUp) return;
      if (this.#isPaused || standby.isArmed) return;
      // What was decided may have changed; and after the end it is asked for by name.
      if (this.#restartsAtOnceFrom(name) !== decidedFrom) return;
      if (this.#instances.get(standby.replaces)?.isDead === false) standby.arm();
    };
    if (decidedFrom <= monotonicNow()) arm();
    else this.loop.wakeAt(decidedFrom, arm);
  }

  /**
   * Does what may end an instance. Where the end shall not be answered by a start any more, an
   * armed one is taken back before.
   */
  #withdrawn(invocation: string, act: () => void): void {
    const waiting = this.#withdrawals.get(invocation);
    if (waiting !== undefined) {
      waiting.push(act);
      return;
    }
    const [name, standby] = this.#armedFor(invocation) ?? [];
    if (name === undefined || standby === undefined) act();
    else if (this.#restartsAtOnceFrom(name) !== undefined) act();
    else this.#withdraw(name, standby, act);
  }

  #withdraw(name: string, standby: Standby, act: () => void): void {
    const { replaces, invocation, link } = standby;
    const waiting = [act];
    this.#withdrawals.set(replaces, waiting);
    const settle = () => {
      this.#withdrawals.delete(replaces);
      for (const call of waiting) call();
    };
    const forget = () => {
      this.#forget(name, standby);
      settle();
    };
    let isOver = false;
    const onAnswer = (answer: PreparedAnswer) => {
      deadline[Symbol.dispose]();
      if (answer.kind === "started") {
        // Its end came before our word: what was started in its place is ended.
        signalProcess(answer.process, SIGKILL);
        answer.process.close();
      }
      if (isOver) return;
      isOver = true;
      if (answer.kind === "disarmed") settle();
      else if (answer.kind === "lost" && this.#cannotBeMade(standby)) forget();
      else endUncertain(this.loop, invocation, forget);
    };
    const deadline = this.loop.wakeAfter(WITHDRAWAL_LIMIT, () => {
      // Whoever waits for the end of a link that was left needs its end on both sides.
      if (link.isDraining) onAnswer({ kind: "lost" });
      else link.close(`it did not take back a start within ${WITHDRAWAL_LIMIT} ms`);
    });
    standby.withdraw(onAnswer);
  }

  /** What a child gets as its standard output and error, and under which numbers. */
  #pipesOf(managed: ManagedProcess): { readonly writers: number[]; readonly targets: number[] } {
    const inherited = [1, 2].map((number) => ({ source: number, target: number }));
    const pipes = managed.output?.writers ?? inherited;
    return {
      writers: pipes.map((pipe) => pipe.source),
      targets: pipes.map((pipe) => pipe.target),
    };
  }

  #fieldsOf(managed: ManagedProcess, invocation: string, argv: readonly string[]) {
    const { workingDirectory, umask, leftovers } = managed.specification;
    return {
      invocation,
      argv: [...argv],
      environment: [...managed.environment, invocationVariable(invocation)],
      descriptors: this.#pipesOf(managed).targets,
      leftovers,
      ...(workingDirectory === undefined ? {} : { working_directory: workingDirectory }),
      ...(umask === undefined ? {} : { umask }),
    };
  }

  #send(
    link: AgentLink,
    request: {
      readonly managed: ManagedProcess;
      readonly invocation: string;
      readonly replaces: string | undefined;
      readonly argv: readonly string[];
      readonly leftovers: "kill" | "keep";
      /** What the process has parked; no command around it gets it. */
      readonly passed?: Passed | undefined;
    },
    onAnswer: (answer: StartAnswer) => void,
  ): void {
    const { managed, invocation, replaces, argv, leftovers, passed } = request;
    const fields = this.#fieldsOf(managed, invocation, argv);
    const parked = passed?.descriptors ?? [];
    link.start(
      {
        ...fields,
        leftovers,
        ...(managed.constraints === undefined ? {} : { constraints: managed.constraints }),
        ...(replaces === undefined ? {} : { replaces }),
        ...(passed !== undefined && {
          environment: withPassed(fields.environment, passed),
          descriptors: [...fields.descriptors, ...parked.map(({ target }) => target)],
          listen: true,
        }),
      },
      [...this.#pipesOf(managed).writers, ...parked.map(({ source }) => source)],
      onAnswer,
    );
  }

  #onAnswer(
    link: AgentLink,
    managed: ManagedProcess,
    invocation: string,
    answer: StartAnswer,
  ): void {
    const { name } = managed.specification;
    if (answer.kind === "refused") {
      this.#emit(name, { kind: "start-refused", invocation, refusal: answer.refusal });
    } else if (answer.kind === "lost") {
      this.#emit(name, { kind: "answer-lost", invocation });
    } else {
      this.#startedOn.set(invocation, link);
      this.#instances.watch(name, { invocation, parentTells: true, ...answer });
      this.#emit(name, { kind: "started", invocation, processId: answer.processId });
      this.loop.wakeAfter(PREPARE_AFTER, () => this.#prepareNext(link, managed, invocation));
    }
  }

  find(managed: ManagedProcess, invocation: string): void {
    const search = () => this.#search(managed.specification.name, invocation, SEARCHES);
    const owing = this.#owing.get(invocation);
    if (owing === undefined) {
      search();
      return;
    }
    // An agent that hangs may still do what it was asked: another start must wait until it cannot.
    this.#searches.set(owing, [...(this.#searches.get(owing) ?? []), search]);
    owing.drain();
    if (this.#link === owing) this.#leave("it left a start unanswered");
  }

  /**
   * The connection's end proves that no child of the agent is between its birth and its exec: such
   * a child still holds the agent's socket. One in the exec itself may have no environment yet.
   */
  #search(name: string, invocation: string, left: number): void {
    // Its answer came after all, while its link was being left.
    if (this.#instances.get(invocation) !== undefined) return;
    const { found, unreadable } = findInvocation(invocation);
    // Every instance leads a session of its own; others that carry its id are what it left behind.
    const main = found.find((status) => status.session === status.processId);
    if (main !== undefined && this.#adopt(name, invocation, main)) return;
    if (unreadable.length > 0 && left > 0) {
      this.loop.wakeAfter(SEARCH_AGAIN_AFTER, () => this.#search(name, invocation, left - 1));
      return;
    }
    clearInvocation(this.loop, invocation, () =>
      this.#emit(name, { kind: "not-found", invocation }),
    );
  }

  /** Its agent, if it lives, has forgotten who had asked for it. */
  adopt({ specification }: ManagedProcess, left: LeftInstance): void {
    this.#instances.watch(specification.name, { ...left, parentTells: false });
  }

  /** Watches an instance that nobody told of; false when it has just died. */
  #adopt(name: string, invocation: string, found: ProcessStatus): boolean {
    const { processId, startTicks } = found;
    const process = openProcess(processId);
    if (process === undefined) return false;
    // With its pidfd in hand: is the number still the process that was found?
    if (statusOf(processId)?.startTicks !== startTicks) {
      process.close();
      return false;
    }
    this.#instances.watch(name, { invocation, processId, process, parentTells: false });
    this.#emit(name, { kind: "found", invocation, processId });
    return true;
  }

  signal(instance: Instance, signal: number): void {
    const { invocation } = instance;
    this.#withdrawn(invocation, () => this.#instances.get(invocation)?.signal(signal));
  }

  kill(_managed: ManagedProcess, instance: Instance): void {
    const { invocation } = instance;
    this.#withdrawn(invocation, () => this.#instances.get(invocation)?.kill());
  }

  clear(managed: ManagedProcess, instance: Instance): void {
    const { name, leftovers } = managed.specification;
    const { invocation } = instance;
    const tell = () => this.#emit(name, { kind: "cleared", invocation });
    const withdrawal = this.#withdrawals.get(invocation);
    const again = () => this.clear(managed, instance);
    if (withdrawal !== undefined) {
      withdrawal.push(again);
      return;
    }
    const armed = this.#armedFor(invocation)?.[1];
    if (armed !== undefined && !armed.link.isUp) {
      // Its partition is away, so nothing follows now that would ask what came of it.
      this.#withdraw(name, armed, again);
      return;
    }
    if (leftovers === "keep") {
      tell();
      return;
    }
    this.#instances.get(invocation)?.killGroup();
    const link = this.#startedOn.get(invocation);
    // Its agent is its parent and clears it, before it starts what replaces it.
    if (link?.isUp === true && link === this.#link) tell();
    // The number of its group may mean another one by now; its invocation cannot.
    else clearInvocation(this.loop, invocation, tell);
  }

  bindNotify(name: string, onSocket: (socket: OwnedDescriptor | undefined) => void): void {
    if (this.#link?.isUp !== true) onSocket(undefined);
    else this.#link.requestSocket({ kind: "notify", name }, onSocket);
  }

  openSocket(
    target: Parameters<Partition["openSocket"]>[0],
    onSocket: (socket: OwnedDescriptor | undefined) => void,
  ): void {
    if (this.#link?.isUp !== true) onSocket(undefined);
    else this.#link.requestSocket({ kind: "socket", ...target }, onSocket);
  }

  runCommand(
    managed: ManagedProcess,
    { command, invocation }: CommandRequest,
    onResult: (result: CommandResult) => void,
  ): void {
    const link = this.#link;
    if (link?.isUp !== true) {
      onResult({ kind: "failed", reason: "the agent is not connected" });
      return;
    }
    const running = { ended: false };
    this.#commands.set(invocation, running);
    const finish = (result: CommandResult) => {
      this.#commands.delete(invocation);
      onResult(result);
    };
    const request = { managed, invocation, replaces: undefined, argv: command };
    this.#send(link, { ...request, leftovers: "kill" }, (answer) => {
      if (answer.kind === "started") {
        const check = { name: managed.specification.name, invocation, ...answer };
        this.#watchCommand(link, check, finish);
        if (running.ended) this.#instances.get(invocation)?.kill();
      } else if (answer.kind === "lost") {
        // It may have been started, and nobody would end it.
        const result = { kind: "failed", reason: "the agent went away" } as const;
        clearInvocation(this.loop, invocation, () => finish(result));
      } else finish({ kind: "failed", reason: answer.refusal.message });
    });
  }

  endCommand(invocation: string): void {
    const running = this.#commands.get(invocation);
    if (running === undefined) return;
    // One whose start is not answered yet is killed when it is there.
    running.ended = true;
    this.#instances.get(invocation)?.kill();
  }

  #watchCommand(
    link: AgentLink,
    check: { name: string; invocation: string; processId: number; process: OwnedDescriptor },
    onResult: (result: CommandResult) => void,
  ): void {
    const { name, ...identity } = check;
    this.#startedOn.set(identity.invocation, link);
    this.#instances.watchCheck(name, { ...identity, parentTells: true }, (ending) => {
      const exited = ending.kind === "exited";
      onResult(
        exited
          ? { kind: "exited", status: ending.status }
          : { kind: "failed", reason: `its end: ${ending.kind}` },
      );
    });
  }

  close(): void {
    this.#dialler?.stop();
    this.#listener?.close();
    this.#link?.close("the orchestrator stops");
    for (const link of this.#searches.keys()) link.close("the orchestrator stops");
    this.#instances.close();
  }
}
