import type * as v from "valibot";
import { wallClock } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { Reading } from "../../hardware/samples.ts";
import type { Milliseconds, MonotonicTime } from "../../units/units.ts";
import {
  LOG_EVERY,
  type LogLine,
  SENSORS_EVERY,
  type sensorsSchema,
  vettingLimits,
} from "../protocol.ts";
import { agentApi } from "../protocol-api.ts";
import type { Stage } from "../protocol-result.ts";
import { agentPace, type CallFailure } from "./lifecycle-state.ts";
import { failureOf, type OrchestratorLink } from "./orchestrator-link.ts";
import { Outbox } from "./outbox.ts";

type ToldReading = v.InferInput<typeof sensorsSchema>["readings"][number];

export interface ReporterParts {
  readonly loop: EventLoop;
  readonly link: Pick<OrchestratorLink, "call">;
  readonly run: number;
  readonly instance: string;
  readonly hasSession: () => boolean;
  readonly onTrouble: (text: string) => void;
}

/** Of what the spool may hold, lines get three quarters, and readings the rest. */
const LINE_BYTES = (vettingLimits.spoolBytes / 4) * 3;
const READING_BYTES = vettingLimits.spoolBytes / 4;
/** Of one call, below `vettingLimits.requestBytes` also where JSON writes each letter as six. */
const BATCH_BYTES = 1024 ** 2;
const READINGS = 64;
/** Of one flush at the end: what is more than that is not waited for. */
const MOST_BATCHES = 64;

/** Lines and readings, told beside everything else; what is not answered is told again. */
export class Reporter implements Disposable {
  readonly #lines = new Outbox<LogLine>(LINE_BYTES);
  readonly #readings = new Outbox<ToldReading & { readonly sequence: number }>(READING_BYTES);
  readonly #channels: readonly Told[];

  constructor(parts: ReporterParts) {
    const { run, instance, link } = parts;
    this.#channels = [
      new Channel(parts, LOG_EVERY, this.#lines, vettingLimits.logLines, (lines) =>
        link.call(agentApi.log, { run, instance, lines: [...lines] }, "call"),
      ),
      new Channel(parts, SENSORS_EVERY, this.#readings, READINGS, (readings) =>
        link.call(agentApi.sensors, { run, instance, readings: [...readings] }, "call"),
      ),
    ];
  }

  /** Lines and readings that went unsaid. */
  get dropped(): number {
    return this.#lines.dropped + this.#readings.dropped;
  }

  setPace({ log, sensors }: { readonly log: Milliseconds; readonly sensors: Milliseconds }): void {
    this.#channels[0]?.setEvery(log);
    this.#channels[1]?.setEvery(sensors);
  }

  /** @param at when it was said, on the monotonic clock; usually now */
  log({ level, stage, text }: Omit<LogLine, "sequence" | "time">, at?: MonotonicTime): void {
    const time = wallClock(at);
    const cut = text.slice(0, vettingLimits.logText);
    this.#lines.push((sequence) => ({ sequence, time, level, stage, text: cut }));
  }

  reading(stage: Stage | null, reading: Reading, errors: Readonly<Record<string, number>>): void {
    const time = timeNow();
    const missing = reading.missing.map(({ key }) => key);
    const { sensors } = reading;
    this.#readings.push((sequence) => ({ sequence, time, stage, sensors, errors, missing }));
  }

  async flushAll(): Promise<void> {
    for (const channel of this.#channels) await channel.flush(MOST_BATCHES);
  }

  [Symbol.dispose](): void {
    for (const channel of this.#channels) channel[Symbol.dispose]();
  }
}

/** Milliseconds are what the wire's times have. */
const timeNow = (): string => wallClock();

interface Told extends Disposable {
  setEvery(every: Milliseconds): void;
  flush(calls: number): Promise<CallFailure | undefined>;
}

class Channel<Item extends { readonly sequence: number }> implements Told {
  readonly #parts: ReporterParts;
  readonly #outbox: Outbox<Item>;
  readonly #most: number;
  readonly #send: (items: readonly Item[]) => Promise<unknown>;
  #every: Milliseconds;
  #timer: Disposable;
  #sending: Promise<CallFailure | undefined> = Promise.resolve(undefined);
  #isQuiet = false;

  constructor(
    parts: ReporterParts,
    every: Milliseconds,
    outbox: Outbox<Item>,
    most: number,
    send: (items: readonly Item[]) => Promise<unknown>,
  ) {
    this.#parts = parts;
    this.#every = every;
    this.#outbox = outbox;
    this.#most = most;
    this.#send = send;
    this.#timer = this.#arm(every);
  }

  setEvery(every: Milliseconds): void {
    this.#every = every;
    this.#timer[Symbol.dispose]();
    this.#timer = this.#arm(every);
  }

  #arm(wait: Milliseconds): Disposable {
    return this.#parts.loop.wakeAfter(wait, () => void this.#tick());
  }

  async #tick(): Promise<void> {
    const failure = await this.flush(MOST_BATCHES);
    const asked = Math.min(failure?.retryAfter ?? 0, agentPace.longestAsked);
    this.#timer[Symbol.dispose]();
    this.#timer = this.#arm(Math.max(this.#every, asked));
  }

  /**
   * Tells what waits, after what is being told already.
   * @returns why it stopped; undefined when all is told, or so many calls were made
   */
  flush(calls: number): Promise<CallFailure | undefined> {
    this.#sending = this.#sending.then(() => this.#flush(calls));
    return this.#sending;
  }

  async #flush(calls: number): Promise<CallFailure | undefined> {
    if (!this.#parts.hasSession()) return undefined;
    for (let call = 0; call < calls && this.#outbox.waiting > 0; call++) {
      const failure = await this.#sendOne();
      if (failure !== undefined) return failure;
    }
    return undefined;
  }

  async #sendOne(): Promise<CallFailure | undefined> {
    const items = this.#outbox.first(this.#most, BATCH_BYTES);
    try {
      await this.#send(items);
      this.#outbox.settle(items, "answered");
      this.#isQuiet = false;
      return undefined;
    } catch (error) {
      const failure = failureOf(error);
      // It is on the console alone, once: a line about lines that cannot be told would be one more.
      if (!this.#isQuiet)
        this.#parts.onTrouble(`the log is not told, ignoring: ${failure.message}`);
      this.#isQuiet = true;
      if (failure.kind !== "refused") return failure;
      this.#outbox.settle(items, "refused");
      return undefined;
    }
  }

  [Symbol.dispose](): void {
    this.#timer[Symbol.dispose]();
  }
}
