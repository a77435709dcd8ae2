import * as v from "valibot";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import { FrameConnection } from "../messaging/frame-connection.ts";
import { StreamConnection } from "../messaging/stream-connection.ts";
import type { Milliseconds } from "../units/units.ts";
import { hostlerVersion } from "../units/version.ts";
import {
  answerSchema,
  type Hello,
  type HolderRefusal,
  type HolderRequest,
  helloSchema,
  limits,
  PROTOCOL_VERSION,
  refusedSchema,
} from "./protocol.ts";

type WithoutId<Request> = Request extends { id: number } ? Omit<Request, "id"> : never;

/** What a request was answered with, and what came with it, which is the taker's to close. */
export type LinkAnswer = { readonly descriptor?: OwnedDescriptor } & (
  | { readonly kind: "done" | "found" | "absent" }
  | { readonly kind: "names"; readonly names: readonly string[] }
  | { readonly kind: "error"; readonly error: HolderRefusal }
);

/** A request, until it is answered: by whichever holder then lives. */
export interface Asked {
  readonly request: WithoutId<HolderRequest>;
  /** What is sent with it. It stays the asker's. */
  readonly descriptor: OwnedDescriptor | undefined;
  readonly onAnswer: (answer: LinkAnswer) => void;
  /** Part of making both sides equal: asked anew on each connection, and not by the daemon. */
  readonly isEqualising: boolean;
  /** A connection ended after it was sent: the holder may have done it. */
  mayHaveBeenDone: boolean;
}

export interface LinkHandlers {
  onGreeted(): void;
  /** Something was answered: there is room for another request. */
  onRoom(): void;
  /** It owes an answer and has said nothing for the whole limit; told again after another. */
  onSilent(): void;
  /** It serves another daemon; the end of this connection follows. */
  onTaken(message: string): void;
  /** Called once when the connection is over. */
  onEnd(reason: string): void;
}

/**
 * Looks in the time of a silence. A process that was stopped itself takes what came between two of
 * them: it holds nobody for silent whom it did not listen to.
 */
const LOOKS = 4;

/** One connection to a holder. */
export class HolderLink {
  readonly #loop: EventLoop;
  readonly #frames: FrameConnection;
  readonly #handlers: LinkHandlers;
  readonly #silenceTime: Milliseconds;
  /** Pending while an answer is owed. */
  #look: Disposable | undefined;
  /** Looks in a row without a word between them. */
  #quietLooks = 0;
  /** In the order in which they were sent. */
  readonly #open = new Map<number, Asked>();
  #nextId = 1;
  #isGreeted = false;

  constructor(
    loop: EventLoop,
    socket: OwnedDescriptor,
    options: { readonly silenceTime: Milliseconds; readonly handlers: LinkHandlers },
  ) {
    this.#loop = loop;
    this.#handlers = options.handlers;
    this.#silenceTime = options.silenceTime;
    // An answer may carry the last descriptor of a session: none is lost with its sender.
    const stream = new StreamConnection(loop, socket, {
      queuedBytes: limits.queuedBytes,
      handlers: { onBytes: () => {}, onEnd: () => {} },
      takesRest: true,
    });
    // As many as there are open requests may come in one message; one belongs to each answer.
    const frameLimits = {
      frameBytes: limits.answerBytes,
      frameDescriptors: limits.openRequests,
    };
    this.#frames = new FrameConnection(stream, frameLimits, {
      onFrame: (body, [descriptor, ...more]) => {
        for (const surplus of more) surplus.close();
        this.#onFrame(body, descriptor);
      },
      onViolation: ({ expected, received }) => {
        this.#end(`expected ${expected}, received ${received}`);
      },
      onEnd: (reason) => this.#end(reason),
    });
    const hello: Hello = { kind: "hello", protocol: PROTOCOL_VERSION, version: hostlerVersion };
    this.#frames.send(hello);
    this.#lookLater();
  }

  /** Greeted or not, it owes something: its hello, or an answer. */
  #lookLater(): void {
    this.#look ??= this.#loop.wakeAfter(this.#silenceTime / LOOKS, () => {
      this.#look = undefined;
      if (this.#isGreeted && this.#open.size === 0) return;
      this.#quietLooks += 1;
      this.#lookLater();
      if (this.#quietLooks % LOOKS === 0) this.#handlers.onSilent();
    });
  }

  get isGreeted(): boolean {
    return this.#isGreeted && this.#frames.isOpen;
  }

  get hasRoom(): boolean {
    return this.isGreeted && this.#open.size < limits.openRequests;
  }

  get openCount(): number {
    return this.#open.size;
  }

  get unanswered(): readonly Asked[] {
    return [...this.#open.values()];
  }

  ask(asked: Asked): void {
    const id = this.#nextId++;
    if (this.#open.size === 0) this.#quietLooks = 0;
    this.#open.set(id, asked);
    this.#lookLater();
    const { request, descriptor } = asked;
    if (descriptor === undefined) this.#frames.sendLater({ id, ...request });
    else this.#frames.send({ id, ...request }, [descriptor.number]);
  }

  #onFrame(body: unknown, descriptor: OwnedDescriptor | undefined): void {
    this.#quietLooks = 0;
    if (!this.#isGreeted) {
      descriptor?.close();
      this.#onFirstFrame(body);
      return;
    }
    const parsed = v.safeParse(answerSchema, body);
    const asked = parsed.success ? this.#open.get(parsed.output.id) : undefined;
    const isFound = parsed.success && parsed.output.kind === "found";
    if (!parsed.success || asked === undefined || isFound !== (descriptor !== undefined)) {
      descriptor?.close();
      this.#end("it sent what is no answer");
      return;
    }
    const { id, ...answer } = parsed.output;
    this.#open.delete(id);
    asked.onAnswer(descriptor === undefined ? answer : { ...answer, descriptor });
    this.#handlers.onRoom();
  }

  #onFirstFrame(body: unknown): void {
    const refused = v.safeParse(refusedSchema, body);
    if (refused.success) {
      const { code, message } = refused.output.error;
      if (code === "EBUSY") this.#handlers.onTaken(message);
      this.#end(`it refused: ${message}`);
      return;
    }
    if (!v.safeParse(helloSchema, body).success) {
      this.#end("its hello is wrong");
      return;
    }
    this.#isGreeted = true;
    this.#handlers.onGreeted();
  }

  #end(reason: string): void {
    this.close();
    this.#handlers.onEnd(reason);
  }

  /** Closes at once; `onEnd` is not called. */
  close(): void {
    this.#look?.[Symbol.dispose]();
    this.#look = undefined;
    this.#frames.close();
  }
}
