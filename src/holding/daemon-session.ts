import * as v from "valibot";
import { killPoint } from "../../ffi/fault-hooks.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import { FrameConnection } from "../messaging/frame-connection.ts";
import { StreamConnection } from "../messaging/stream-connection.ts";
import { hostlerVersion } from "../units/version.ts";
import {
  type HolderAnswer,
  type HolderRefusal,
  type HolderRequest,
  type HolderStep,
  helloSchema,
  limits,
  PROTOCOL_VERSION,
  requestSchema,
} from "./protocol.ts";

/** Milliseconds that a connection which may not stay has to read why. */
const REFUSED_TIME = 1_000;

export const holderKillPoint = (step: HolderStep): void => killPoint(step);

/** The answer of a request, without its id. */
export type Answer =
  | { readonly kind: "done" | "absent" }
  | { readonly kind: "found"; readonly descriptor: OwnedDescriptor }
  | { readonly kind: "names"; readonly names: readonly string[] }
  | { readonly kind: "error"; readonly error: HolderRefusal };

export interface SessionHandlers {
  /** A request with what came with it, which is the handler's to close. */
  onRequest(request: HolderRequest, descriptor: OwnedDescriptor | undefined): void;
  /** Called once, when the connection is over. */
  onEnd(reason: string): void;
}

function connect(loop: EventLoop, socket: OwnedDescriptor): StreamConnection {
  return new StreamConnection(loop, socket, {
    queuedBytes: limits.queuedBytes,
    handlers: { onBytes: () => {}, onEnd: () => {} },
    takesRest: true,
  });
}

/** Tells a connection why it may not stay, and gives it a little time to read that. */
export function refuseConnection(
  loop: EventLoop,
  socket: OwnedDescriptor,
  refusal: { readonly error: HolderRefusal; readonly onGone: () => void },
): void {
  const stream = connect(loop, socket);
  const wake = loop.wakeAfter(REFUSED_TIME, () => {
    stream.close();
    refusal.onGone();
  });
  const frames = new FrameConnection(
    stream,
    { frameBytes: limits.requestBytes, frameDescriptors: 0 },
    {
      onFrame: (_body, descriptors) => {
        for (const descriptor of descriptors) descriptor.close();
      },
      onViolation: () => {},
      onEnd: () => {
        wake[Symbol.dispose]();
        refusal.onGone();
      },
    },
  );
  frames.send({ kind: "refused", error: refusal.error });
}

/** The connection of the daemon, from its hello to its end. */
export class DaemonSession {
  readonly #frames: FrameConnection;
  readonly #handlers: SessionHandlers;
  readonly #deadline: Disposable;
  #isGreeted = false;

  constructor(loop: EventLoop, socket: OwnedDescriptor, handlers: SessionHandlers) {
    this.#handlers = handlers;
    this.#deadline = loop.wakeAfter(limits.helloTime, () => {
      this.#end(`it said no hello within ${limits.helloTime} ms`);
    });
    const frameLimits = { frameBytes: limits.requestBytes, frameDescriptors: 1 };
    this.#frames = new FrameConnection(connect(loop, socket), frameLimits, {
      onFrame: (body, descriptors) => this.#onFrame(body, descriptors),
      onViolation: ({ expected, received }) => {
        this.#end(`expected ${expected}, received ${received}`);
      },
      onEnd: (reason) => this.#end(reason),
    });
  }

  /** What was answered is sent: before anything of it is closed. */
  flush(): void {
    this.#frames.flush();
  }

  /**
   * Answers a request; what is sent stays the caller's. What a death of this process would not lose
   * is sent at the end of the turn, with all others, and stays open until then.
   */
  answer(request: HolderRequest, answer: Answer): void {
    const { id } = request;
    const send = request.kind === "retrieve-session" ? "send" : "sendLater";
    if (answer.kind === "found") {
      const { kind, descriptor } = answer;
      this.#frames[send]({ kind, id } satisfies HolderAnswer, [descriptor.number]);
    } else this.#frames[send]({ id, ...answer });
    holderKillPoint(`holder:${request.kind}:answered`);
  }

  #onFrame(body: unknown, descriptors: readonly OwnedDescriptor[]): void {
    const [descriptor] = descriptors;
    if (!this.#isGreeted) {
      descriptor?.close();
      this.#onHello(body);
      return;
    }
    const request = v.safeParse(requestSchema, body);
    const wanted = request.success && request.output.kind === "put" ? 1 : 0;
    if (!request.success || descriptors.length !== wanted) {
      descriptor?.close();
      this.#end("it sent no request");
      return;
    }
    holderKillPoint(`holder:${request.output.kind}:received`);
    this.#handlers.onRequest(request.output, descriptor);
  }

  #onHello(body: unknown): void {
    if (!v.safeParse(helloSchema, body).success) {
      const message = `Expected a hello of version ${PROTOCOL_VERSION}, received another`;
      this.#frames.send({ kind: "refused", error: { code: "EPROTO", message } });
      this.#end("its hello is wrong");
      return;
    }
    this.#isGreeted = true;
    this.#deadline[Symbol.dispose]();
    this.#frames.send({ kind: "hello", protocol: PROTOCOL_VERSION, version: hostlerVersion });
  }

  #end(reason: string): void {
    this.#deadline[Symbol.dispose]();
    this.#frames.close();
    this.#handlers.onEnd(reason);
  }
}
