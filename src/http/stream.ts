import type { LimiterClock } from "../logging/limited-logger.ts";
import type { Bytes, Milliseconds } from "../units/units.ts";
import { ProblemError } from "./problem.ts";
import type { StreamEvent } from "./route.ts";

/** The event by which a stream says why it ends; no route's own event has this name. */
export const PROBLEM_EVENT = "problem";
/** How long a browser waits before it connects again, told at the beginning. */
const RETRY_TIME: Milliseconds = 1_000;
/** Letters of an event's id, which a client sends back in a header. */
export const EVENT_ID_LENGTH = 200;

export interface EventStreamOptions {
  readonly clock: LimiterClock;
  readonly heartbeat: Milliseconds;
  /** What is encoded and not yet taken by the socket; beyond it the source is not asked. */
  readonly queueBytes: Bytes;
  /** A client that takes nothing for so long, while there is something for it, is dropped. */
  readonly stallTime: Milliseconds;
  /** Aborted: the stream ends, and says so. */
  readonly signal: AbortSignal;
  /** Called once, however it ended. */
  readonly onEnd: (why: "done" | "gone" | "dropped") => void;
}

/**
 * Events as text/event-stream (HTML, section 9.2). The source is asked for the next event when the
 * client has room for it: measured, Bun.serve asks a stream no further than its socket takes. So
 * a slow reader holds `queueBytes` at most, and its source waits; one that stands still is dropped,
 * and resumes by the id that it saw last.
 */
export function eventStream(
  events: AsyncIterable<StreamEvent>,
  options: EventStreamOptions,
): ReadableStream<Uint8Array> {
  const writer = new EventWriter(events[Symbol.asyncIterator](), options);
  const strategy: QueuingStrategy<Uint8Array> = {
    highWaterMark: options.queueBytes,
    size: (chunk) => chunk?.byteLength ?? 0,
  };
  return new ReadableStream<Uint8Array>(
    {
      start: (controller) => writer.start(controller),
      pull: () => writer.pull(),
      cancel: () => writer.end("gone"),
    },
    strategy,
  );
}

type Controller = ReadableStreamDefaultController<Uint8Array>;

class EventWriter {
  readonly #source: AsyncIterator<StreamEvent>;
  readonly #options: EventStreamOptions;
  readonly #encoder = new TextEncoder();
  readonly #onAbort = () => this.#onAborted();
  #controller: Controller | undefined;
  #heartbeat: Disposable | undefined;
  #stall: Disposable | undefined;
  #isEnded = false;

  constructor(source: AsyncIterator<StreamEvent>, options: EventStreamOptions) {
    this.#source = source;
    this.#options = options;
  }

  start(controller: Controller): void {
    this.#controller = controller;
    const { signal } = this.#options;
    this.#write(`retry: ${RETRY_TIME}\n\n`);
    if (signal.aborted) this.#onAborted();
    else signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  async pull(): Promise<void> {
    this.#stall?.[Symbol.dispose]();
    this.#stall = undefined;
    try {
      const next = await this.#source.next();
      if (this.#isEnded) return;
      if (next.done === true) this.#finish("done");
      else this.#write(encodeEvent(next.value));
    } catch (failure) {
      if (!this.#isEnded) this.#fail(failure);
    }
  }

  /** Takes what belongs to it back; the source learns that nobody listens. */
  end(why: "done" | "gone" | "dropped"): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#heartbeat?.[Symbol.dispose]();
    this.#stall?.[Symbol.dispose]();
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    // A source that is waiting returns when its own signal says so; nobody waits for that here.
    this.#source.return?.()?.then(undefined, () => {});
    this.#options.onEnd(why);
  }

  #write(text: string): void {
    const controller = this.#controller;
    if (controller === undefined) return;
    controller.enqueue(this.#encoder.encode(text));
    this.#rearm();
    if ((controller.desiredSize ?? 0) > 0 || this.#stall !== undefined || this.#isEnded) return;
    this.#stall = this.#options.clock.wakeAfter(this.#options.stallTime, () => {
      // It stands at the end of the queue, and tells a reader that goes on to come again; of one
      // that does not, the idle time of the connection ends it.
      this.#fail(slowReader(this.#options.stallTime), "dropped");
    });
  }

  /** A comment keeps proxies, and the idle time of the connection, from ending a quiet stream. */
  #rearm(): void {
    this.#heartbeat?.[Symbol.dispose]();
    this.#heartbeat = this.#options.clock.wakeAfter(this.#options.heartbeat, () => {
      if ((this.#controller?.desiredSize ?? 0) > 0) this.#write(":\n\n");
      else this.#rearm();
    });
  }

  #fail(failure: unknown, why: "done" | "dropped" = "done"): void {
    const refusal =
      failure instanceof ProblemError
        ? failure
        : new ProblemError("bug", "The stream failed by a bug", { cause: failure });
    this.#write(`event: ${PROBLEM_EVENT}\ndata: ${JSON.stringify(refusal.problem)}\n\n`);
    this.#finish(why);
  }

  #onAborted(): void {
    if (this.#isEnded) return;
    const { reason } = this.#options.signal;
    this.#fail(
      reason instanceof ProblemError ? reason : new ProblemError("ended", "The stream was ended"),
    );
  }

  #finish(why: "done" | "dropped"): void {
    this.end(why);
    this.#controller?.close();
  }
}

function slowReader(stallTime: Milliseconds): ProblemError {
  return new ProblemError("slow", "The client took nothing of the stream, and was dropped", {
    expected: `a client that takes something within ${stallTime} ms`,
    hint: "Connect again with Last-Event-ID",
  });
}

/** @throws Error for an id or a name that would break the lines: a bug of the source */
export function encodeEvent({ id, event, data }: StreamEvent): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what breaks a line
  const breaking = /[\r\n\u0000]/;
  if (breaking.test(id) || id === "" || id.length > EVENT_ID_LENGTH) {
    throw new Error(`An event has an id that is none: ${JSON.stringify(id.slice(0, 100))}`);
  }
  if (breaking.test(event) || event === "" || event === PROBLEM_EVENT) {
    throw new Error(`An event has a name that is none: ${JSON.stringify(event.slice(0, 100))}`);
  }
  return `id: ${id}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}

/**
 * A queue between who tells events as they happen and the stream of one client. It holds so many
 * events; who falls further behind is cut off, and comes back with the id that it saw last.
 */
export class EventQueue implements AsyncIterable<StreamEvent> {
  readonly #limit: number;
  readonly #events: StreamEvent[] = [];
  #wake: (() => void) | undefined;
  #state: "open" | "closed" | "overrun" = "open";

  /** @param options.limit events that wait at once; `signal` closes the queue */
  constructor(options: { readonly limit: number; readonly signal: AbortSignal }) {
    this.#limit = options.limit;
    if (options.signal.aborted) this.close();
    else options.signal.addEventListener("abort", () => this.close(), { once: true });
  }

  /** @returns false when the queue takes nothing any more */
  push(event: StreamEvent): boolean {
    if (this.#state !== "open") return false;
    if (this.#events.length >= this.#limit) {
      this.#state = "overrun";
      this.#events.splice(0);
    } else {
      this.#events.push(event);
    }
    this.#wake?.();
    return this.#state === "open";
  }

  /** Nothing follows what is in it. */
  close(): void {
    if (this.#state === "open") this.#state = "closed";
    this.#wake?.();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<StreamEvent> {
    for (;;) {
      const event = this.#events.shift();
      if (event !== undefined) {
        yield event;
        continue;
      }
      if (this.#state === "closed") return;
      if (this.#state === "overrun") {
        throw new ProblemError("slow", "The client fell behind and was cut off", {
          expected: `at most ${this.#limit} events that wait`,
          hint: "Connect again with Last-Event-ID",
        });
      }
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await promise;
      this.#wake = undefined;
    }
  }
}
