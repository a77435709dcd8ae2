import * as v from "valibot";
import type { EventLoop } from "../event-loop/event-loop.ts";
import { describeIssues } from "../messaging/describe-issues.ts";
import { Dialler } from "../messaging/dialler.ts";
import { LineConnection, type LineHandlers } from "../messaging/line-connection.ts";
import type { Milliseconds } from "../units/units.ts";
import { hostlerVersion } from "../units/version.ts";
import {
  type ClientEvent,
  clientEventSchema,
  limits,
  PROTOCOL_VERSION,
  type WireError,
} from "./protocol.ts";

/** A claim that is refused, as by a kernel that is busy, is made again after this. */
const CLAIM_AGAIN: Milliseconds = 1_000;

/** Lines that carry a session may come in one read; more than these at once are nobody's need. */
const DESCRIPTORS_AT_ONCE = 16;

/** A session as it came; its owner closes it. */
export type SessionDescriptor = NonNullable<ReturnType<Parameters<LineHandlers["onLine"]>[1]>>;

/** What an update asks for. */
export interface PreservationRequest {
  readonly update: string;
  readonly deadline: Milliseconds | undefined;
  readonly dryRun: boolean;
}

export interface UpdateClientOptions {
  /** Where luod listens for clients. */
  readonly socket: string;
  readonly id: string;
  /** For people: who this is. */
  readonly program: string;
  /** To take part in updates; undefined for one that only claims. */
  readonly subscription:
    | { readonly required: boolean; readonly deadline: Milliseconds }
    | undefined;
}

export interface UpdateClientHandlers {
  /** Preserve, then call `ready` or `abort`. The session is the handler's to close. */
  onStart(request: PreservationRequest, session: SessionDescriptor): void;
  /** Nothing that was preserved is kept; go on as before. */
  onAborted(reason: string): void;
  /** What the last kernel left; told once. The session is the handler's to close. */
  onClaimed(session: SessionDescriptor): void;
  /** Nothing waits to be claimed; told once, and not after `onClaimed`. */
  onNothing(why: string): void;
  /** It waits, and cannot be had now: it is asked for again. */
  onClaimRefused(error: WireError): void;
  /**
   * luod serves this id on no connection of ours: it is tried again. `isFinal`: until its operator
   * changes something.
   */
  onRefused(error: WireError, isFinal: boolean): void;
  /** luod will let go of what was claimed: `finished` was taken. */
  onSettled(): void;
  onTrouble(message: string): void;
}

/** Refusals that no time mends: of this user, of this version, of what was asked. */
const finalRefusals: ReadonlySet<string> = new Set(["refused", "version", "request"]);

/** What the claim came to, until it is known that this id takes part. */
interface Outcome {
  tell(): void;
  forget(): void;
}

/** How far the claim of an earlier update is; "held" until `finished` was called. */
type Claim = "wanted" | "held" | "finishing" | "settled";

/**
 * One id at luod: subscribes, is asked, claims, and does it again after luod was away. What was
 * begun on a connection that ended is over; what was claimed is claimed again by itself.
 */
export class UpdateClient implements Disposable {
  readonly #loop: EventLoop;
  readonly #options: UpdateClientOptions;
  readonly #handlers: UpdateClientHandlers;
  readonly #dialler: Dialler;
  /** Each is called once; without an answer when the connection ended before it came. */
  readonly #answers = new Map<number, (event: ClientEvent | undefined) => void>();
  #connection: LineConnection | undefined;
  /** It said hello, and was greeted. */
  #isGreeted = false;
  /** luod has taken the subscription, or none is wanted, or it may be missed. */
  #takesPart = false;
  /** Of a program that must take part nothing is begun before that. */
  #outcome: Outcome | undefined;
  #claim: Claim = "wanted";
  /** The update that it takes part in. */
  #update: string | undefined;
  /** One whose end was not told, because its connection ended before. */
  #unknownUpdate: string | undefined;
  #claimTimer: Disposable | undefined;
  #nextRequest = 1;
  #lastTrouble = "";

  constructor(loop: EventLoop, options: UpdateClientOptions, handlers: UpdateClientHandlers) {
    this.#loop = loop;
    this.#options = options;
    this.#handlers = handlers;
    const { socket: path } = options;
    this.#dialler = new Dialler(loop, path, {
      onConnection: (socket) => this.#take(socket),
      onFailure: (reason) =>
        this.#tellTrouble(`luod cannot be reached at ${path}: ${reason}; it is tried again`),
    });
  }

  start(): void {
    this.#dialler.dial();
  }

  /** The claimed session has served: what of it nobody retrieved may be freed. */
  finished(): void {
    if (this.#claim !== "held") return;
    this.#claim = "finishing";
    this.#sendFinished();
  }

  /** Everything is preserved. */
  ready(bytes: number): void {
    const { id } = this.#options;
    const update = this.#update;
    const words = { id, bytes, ...(update && { update }) };
    this.#ask({ cmd: "READY", ...words }, (answer) => {
      if (answer?.event === "ERROR") this.#endUpdate(answer.error.message);
    });
  }

  progress(report: { readonly percent: number; readonly bytes: number; readonly detail: string }) {
    const detail = report.detail.slice(0, limits.textLength);
    this.#send({ cmd: "PROGRESS", id: this.#options.id, ...report, detail });
  }

  /**
   * Takes no part any more in the update under way.
   * @param onAnswer called with "committing" when it is too late for that; else "aborted", also
   * when the connection ended
   */
  abort(reason: string, onAnswer: (what: "aborted" | "committing") => void = () => {}): void {
    const { id } = this.#options;
    const update = this.#update;
    this.#send({ cmd: "ABORT", id, reason: reason.slice(0, limits.textLength) });
    // Whatever follows from the ABORT was sent before the answer to this.
    this.#ask({ cmd: "HELLO", protocol: PROTOCOL_VERSION }, () => {
      const isCommitting = update !== undefined && this.#update === update;
      onAnswer(isCommitting ? "committing" : "aborted");
    });
  }

  [Symbol.dispose](): void {
    this.#dialler.stop();
    this.#claimTimer?.[Symbol.dispose]();
    this.#outcome?.forget();
    this.#outcome = undefined;
    this.#connection?.finish();
    this.#connection = undefined;
  }

  #take(socket: SessionDescriptor): void {
    const connection = new LineConnection(this.#loop, socket, {
      limits: {
        lineBytes: limits.lineBytes,
        queuedBytes: limits.queuedBytes,
        descriptors: DESCRIPTORS_AT_ONCE,
      },
      handlers: {
        onLine: (body, takeDescriptor) => this.#onLine(body, takeDescriptor),
        onEnd: (reason) => this.#onEnd(reason),
      },
      // luod says why it refuses, and closes: a hello that is too late must not hide that.
      takesRest: true,
    });
    this.#connection = connection;
    this.#isGreeted = false;
    this.#takesPart = this.#options.subscription?.required !== true;
    const { program } = this.#options;
    const words = `${program} ${hostlerVersion}`.slice(0, limits.textLength);
    this.#ask({ cmd: "HELLO", protocol: PROTOCOL_VERSION, program: words }, (answer) => {
      this.#isGreeted = answer?.event === "HELLO";
      if (this.#isGreeted) this.#introduce();
      else if (answer !== undefined) this.#leave(answer);
    });
  }

  /** luod knows who speaks: subscribe, and ask for what an earlier kernel left. */
  #introduce(): void {
    const { id, subscription } = this.#options;
    this.#askForClaim();
    if (subscription === undefined) {
      this.#dialler.succeed();
      return;
    }
    const { required, deadline } = subscription;
    const update = this.#unknownUpdate;
    const words = { id, required, deadline_ms: Math.round(deadline), ...(update && { update }) };
    this.#ask({ cmd: "SUBSCRIBE", ...words }, (answer) => {
      if (answer?.event !== "OK") {
        if (answer !== undefined) this.#leave(answer);
        return;
      }
      this.#unknownUpdate = undefined;
      this.#lastTrouble = "";
      this.#dialler.succeed();
      this.#takesPart = true;
      const outcome = this.#outcome;
      this.#outcome = undefined;
      outcome?.tell();
    });
  }

  #settleClaim(outcome: Outcome): void {
    if (this.#takesPart) outcome.tell();
    else this.#outcome = outcome;
  }

  #askForClaim(): void {
    this.#claimTimer?.[Symbol.dispose]();
    if (this.#claim === "settled") return;
    const { id } = this.#options;
    this.#ask({ cmd: "CLAIM", id }, (answer) => this.#onClaimRefused(answer));
  }

  /** Refused: it may be another's fault that passes. */
  #leave(answer: ClientEvent): void {
    const error: WireError =
      answer.event === "ERROR"
        ? answer.error
        : { kind: "answer", message: `It answers ${answer.event}` };
    this.#handlers.onRefused(error, finalRefusals.has(error.kind));
    this.#tellTrouble(
      `luod refuses ${this.#options.id}: ${describeError(error)}; it is tried again`,
    );
    this.#connection?.close();
    this.#onEnd("refused");
  }

  #onClaimRefused(answer: ClientEvent | undefined): void {
    if (answer?.event !== "ERROR" || this.#claim === "settled") return;
    const { error } = answer;
    const isGone = ["unknown", "lost", "finished"].includes(error.kind);
    if (!isGone) {
      this.#handlers.onClaimRefused(error);
      // After another connection this finds the claim settled, or asks once more.
      this.#claimTimer = this.#loop.wakeAfter(CLAIM_AGAIN, () => this.#askForClaim());
      return;
    }
    const before = this.#claim;
    const tell = () => {
      this.#claim = "settled";
      if (before === "wanted") this.#handlers.onNothing(error.message);
      else if (before === "finishing") this.#handlers.onSettled();
    };
    if (before === "wanted") this.#settleClaim({ tell, forget: () => {} });
    else tell();
  }

  #onLine(body: unknown, takeDescriptor: () => SessionDescriptor | undefined): void {
    const parsed = v.safeParse(clientEventSchema, body);
    if (!parsed.success) {
      this.#tellTrouble(`a line of luod is not understood: ${describeIssues(parsed.issues)}`);
      return;
    }
    const event = parsed.output;
    switch (event.event) {
      case "START_PRESERVATION":
        this.#onStart(event, takeDescriptor());
        break;
      case "CLAIMED":
        if (event.request !== undefined) this.#answers.delete(event.request);
        this.#onClaimed(takeDescriptor());
        break;
      case "ABORTED":
        if (event.update === this.#update) this.#endUpdate(event.reason);
        else this.#handlers.onTrouble(`update ${event.update} was aborted: ${event.reason}`);
        break;
      case "FINISHED":
        break;
      default:
        this.#onAnswer(event);
    }
  }

  #onAnswer(event: Extract<ClientEvent, { event: "HELLO" | "OK" | "ERROR" }>): void {
    const { request } = event;
    const onAnswer = request === undefined ? undefined : this.#answers.get(request);
    if (request !== undefined && onAnswer !== undefined) {
      this.#answers.delete(request);
      onAnswer(event);
    } else if (event.event === "ERROR" && !this.#isGreeted) {
      this.#leave(event);
    } else if (event.event === "ERROR") {
      this.#tellTrouble(`luod refuses: ${describeError(event.error)}`);
    }
  }

  #onStart(
    event: Extract<ClientEvent, { event: "START_PRESERVATION" }>,
    session: SessionDescriptor | undefined,
  ): void {
    if (session === undefined) {
      this.#tellTrouble("luod asks for preservation and gives no session");
      return;
    }
    this.#update = event.update ?? "";
    const { deadline_ms: deadline, dry_run: dryRun = false } = event;
    this.#handlers.onStart({ update: this.#update, deadline, dryRun }, session);
  }

  #onClaimed(session: SessionDescriptor | undefined): void {
    if (session === undefined) {
      this.#tellTrouble("luod says CLAIMED and gives no session");
      return;
    }
    if (this.#claim === "wanted") {
      const tell = () => {
        this.#claim = "held";
        this.#handlers.onClaimed(session);
      };
      this.#settleClaim({ tell, forget: () => session.close() });
      return;
    }
    // Claimed again by a new connection: what it held was retrieved by the first.
    session.close();
    if (this.#claim === "finishing") this.#sendFinished();
  }

  #sendFinished(): void {
    this.#ask({ cmd: "FINISHED", id: this.#options.id }, (answer) => {
      if (this.#claim !== "finishing" || answer === undefined) return;
      if (answer.event === "ERROR" && answer.error.kind !== "not-claimed") {
        this.#tellTrouble(`luod refuses FINISHED: ${describeError(answer.error)}`);
        return;
      }
      this.#claim = "settled";
      this.#handlers.onSettled();
    });
  }

  #endUpdate(reason: string): void {
    if (this.#update === undefined) return;
    this.#update = undefined;
    this.#handlers.onAborted(reason);
  }

  #onEnd(reason: string): void {
    this.#connection = undefined;
    this.#outcome?.forget();
    this.#outcome = undefined;
    const answers = [...this.#answers.values()];
    this.#answers.clear();
    if (this.#update !== undefined) {
      this.#unknownUpdate = this.#update;
      this.#endUpdate(`the connection to luod ended: ${reason}`);
    } else if (reason !== "refused") this.#tellTrouble(`luod went away: ${reason}`);
    for (const onAnswer of answers) onAnswer(undefined);
    this.#dialler.redial();
  }

  #ask(
    words: Readonly<Record<string, unknown>>,
    onAnswer: (event: ClientEvent | undefined) => void,
  ): void {
    const request = this.#nextRequest++;
    this.#answers.set(request, onAnswer);
    if (!this.#send({ ...words, request }) && this.#answers.delete(request)) onAnswer(undefined);
  }

  #send(words: Readonly<Record<string, unknown>>): boolean {
    return this.#connection?.send(words) ?? false;
  }

  /** Once for each kind, until all is well again. */
  #tellTrouble(message: string): void {
    if (message === this.#lastTrouble) return;
    this.#lastTrouble = message;
    this.#handlers.onTrouble(message);
  }
}

/** In one line, with what can be done about it. */
export function describeError({ message, expected, received, hint }: WireError): string {
  const parts = [
    ...(expected === undefined ? [] : [`expected ${expected}`]),
    ...(received === undefined ? [] : [`received ${received}`]),
  ];
  const found = parts.length === 0 ? "" : ` (${parts.join(", ")})`;
  return `${message}${found}${hint === undefined ? "" : `. ${hint}`}`;
}
