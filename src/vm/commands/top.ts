import { printJsonLine, printText } from "../../command-line/output.ts";
import { durationArgument, wholeNumber } from "../../command-line/parse.ts";
import { Screen } from "../../command-line/screen.ts";
import { monotonicNow, wallClock } from "../../event-loop/clock.ts";
import { EventLoop } from "../../event-loop/event-loop.ts";
import { startWorker } from "../../event-loop/worker-factory.ts";
import { escapeControls } from "../../logging/format.ts";
import { ExitCode } from "../../units/exit-code.ts";
import type { Milliseconds } from "../../units/units.ts";
import { WorkerClient, WorkerError } from "../client.ts";
import { renderTop, rowsOf, type Sample } from "./top-view.ts";

/** Looks that somebody may ask for, and how far apart: a worker has others to answer as well. */
const MOST_LOOKS = 1_000_000;
const LEAST_INTERVAL: Milliseconds = 100;
const USUAL_INTERVAL: Milliseconds = 2_000;

interface TopOptions {
  readonly "control-socket": string;
  readonly count: string | undefined;
  readonly interval: string | undefined;
  readonly json: boolean;
}

export async function runTop(options: TopOptions): Promise<number> {
  const range = { name: "--count", least: 1, most: MOST_LOOKS };
  const count = options.count === undefined ? undefined : wholeNumber(options.count, range);
  const interval = intervalOf(options.interval);
  using loop = new EventLoop(startWorker);
  using looks = new Looks(options["control-socket"]);
  const isLive = process.stdout.isTTY === true && !options.json;
  if (isLive) return await watch(loop, looks, { count, interval });
  await print(loop, looks, { count: count ?? 1, interval, json: options.json });
  return ExitCode.done;
}

function intervalOf(text: string | undefined): Milliseconds {
  if (text === undefined) return USUAL_INTERVAL;
  return durationArgument("--interval", text, { least: LEAST_INTERVAL });
}

/** Asks the worker, and connects anew after it did not answer. */
class Looks implements Disposable {
  readonly #path: string;
  #client: WorkerClient | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** @throws WorkerError */
  async take(): Promise<Sample> {
    try {
      this.#client ??= await WorkerClient.connect(this.#path);
      const [machines, metrics] = [
        await this.#client.list(),
        await this.#client.metrics(undefined),
      ];
      return { at: monotonicNow(), machines, metrics };
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#client?.[Symbol.dispose]();
    this.#client = undefined;
  }
}

function pause(loop: EventLoop, time: Milliseconds): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  loop.wakeAfter(time, resolve);
  return promise;
}

/** Rates are of the time between two looks: the first shows nothing yet, and is not printed. */
async function print(
  loop: EventLoop,
  looks: Looks,
  options: { readonly count: number; readonly interval: Milliseconds; readonly json: boolean },
): Promise<void> {
  let before = await looks.take();
  for (let number = 0; number < options.count; number += 1) {
    await pause(loop, options.interval);
    const now = await looks.take();
    if (options.json) {
      await printJsonLine({ time: wallClock(), machines: rowsOf(before, now) });
    } else {
      const gap = number === 0 ? "" : "\n";
      await printText(`${gap}${renderTop(before, now).join("\n")}\n`);
    }
    before = now;
  }
}

async function watch(
  loop: EventLoop,
  looks: Looks,
  { count, interval }: { readonly count: number | undefined; readonly interval: Milliseconds },
): Promise<number> {
  // Where nobody answers at the beginning, that is said, and nothing is taken over.
  let before: Sample | undefined;
  let now = await looks.take();
  using screen = new Screen();
  const left = screen.left.then(() => "left" as const);
  let notice = "q leaves";
  for (let number = 0; count === undefined || number <= count; number += 1) {
    screen.draw([...renderTop(before, now), "", notice]);
    if (number === count) break;
    if ((await Promise.race([left, pause(loop, interval)])) === "left") break;
    const next = await Promise.race([left, look(looks)]);
    if (next === "left") break;
    if ("refused" in next) {
      notice = `${next.refused}; q leaves`;
      continue;
    }
    notice = "q leaves";
    before = now;
    now = next;
  }
  return ExitCode.done;
}

/** @returns why there is none, for people, where nobody answers */
async function look(looks: Looks): Promise<Sample | { readonly refused: string }> {
  try {
    return await looks.take();
  } catch (error) {
    if (!(error instanceof WorkerError)) throw error;
    return { refused: `no answer, asked again: ${escapeControls(error.message)}` };
  }
}
