import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Bytes, Milliseconds, MonotonicTime } from "../../units/units.ts";
import { StoreError } from "../store.ts";
import { limits, type ServerMessage } from "./protocol.ts";

export interface OpenRequest {
  readonly id: number;
  readonly isWrite: boolean;
  /** For messages: "put bucket key". */
  readonly what: string;
  readonly text: string;
}

interface Waiting extends OpenRequest {
  readonly answer: PromiseWithResolvers<ServerMessage>;
  readonly deadline: MonotonicTime;
  isSent: boolean;
}

/**
 * Requests that are not answered. One that was not sent yet waits for the link. When the link is
 * lost, or the deadline is over, a write that was sent is ambiguous: it may have landed.
 */
export class OpenRequests {
  readonly #loop: EventLoop;
  readonly #deadline: Milliseconds;
  readonly #transmit: (text: string) => boolean;
  /** In the order of their deadlines, which are all as long. */
  readonly #waiting = new Map<number, Waiting>();
  #bytes: Bytes = 0;
  #timer: Disposable | undefined;

  /** @param transmit sends now, or says false when there is no link */
  constructor(loop: EventLoop, deadline: Milliseconds, transmit: (text: string) => boolean) {
    this.#loop = loop;
    this.#deadline = deadline;
    this.#transmit = transmit;
  }

  /** @throws StoreError unavailable, ambiguous; refused when too many are open */
  add(request: OpenRequest): Promise<ServerMessage> {
    const { text, what } = request;
    if (this.#waiting.size >= limits.openRequests || this.#bytes + text.length > limits.openBytes) {
      const expected = `at most ${limits.openRequests} requests, ${limits.openBytes} bytes`;
      const problem = { kind: "refused", expected, received: "more" } as const;
      throw new StoreError(`Cannot ${what}: too many requests wait for an answer`, problem);
    }
    const answer = Promise.withResolvers<ServerMessage>();
    const deadline = monotonicNow() + this.#deadline;
    const waiting = { ...request, answer, deadline, isSent: this.#transmit(text) };
    this.#waiting.set(request.id, waiting);
    this.#bytes += text.length;
    if (this.#timer === undefined) this.#arm();
    return answer.promise;
  }

  /** The link stands: what was not sent goes out, in the order in which it was asked. */
  send(): void {
    for (const request of this.#waiting.values()) {
      if (!request.isSent) request.isSent = this.#transmit(request.text);
    }
  }

  /** The link is lost: what was read is read again, what was written is ambiguous. */
  lost(): void {
    for (const request of [...this.#waiting.values()]) {
      if (!request.isSent) continue;
      if (request.isWrite) this.#fail(request, "the connection was lost before its answer");
      else request.isSent = false;
    }
  }

  /** An answer that comes after the deadline finds nobody. */
  answer(id: number, message: ServerMessage): void {
    const request = this.#waiting.get(id);
    if (request === undefined) return;
    this.#remove(request);
    request.answer.resolve(message);
  }

  close(): void {
    for (const request of [...this.#waiting.values()]) this.#fail(request, "the store was closed");
  }

  #fail(request: Waiting, reason: string): void {
    this.#remove(request);
    const kind = request.isWrite && request.isSent ? "ambiguous" : "unavailable";
    request.answer.reject(new StoreError(`Cannot tell of ${request.what}: ${reason}`, { kind }));
  }

  #remove(request: Waiting): void {
    this.#waiting.delete(request.id);
    this.#bytes -= request.text.length;
    if (this.#waiting.size > 0) return;
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
  }

  #arm(): void {
    const [first] = this.#waiting.values();
    if (first === undefined) return;
    this.#timer = this.#loop.wakeAt(first.deadline, () => {
      this.#timer = undefined;
      const now = monotonicNow();
      for (const request of [...this.#waiting.values()]) {
        if (request.deadline > now) break;
        this.#fail(request, `no answer within ${this.#deadline} ms`);
      }
      if (this.#timer === undefined) this.#arm();
    });
  }
}
