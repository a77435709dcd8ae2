import { printJsonLine, printText } from "../../command-line/output.ts";
import { Screen } from "../../command-line/screen.ts";
import { monotonicNow, wallClock } from "../../event-loop/clock.ts";
import { escapeControls } from "../../logging/format.ts";
import { ExitCode } from "../../units/exit-code.ts";
import type { Milliseconds } from "../../units/units.ts";
import { OrchestratorClient, OrchestratorError } from "../client.ts";
import type { ProcessSummary } from "../protocol.ts";
import { changesOf, changeText, type Look, renderWatch } from "./watch-view.ts";

/** Where nothing happens: what a process uses changes all the same. */
const LOOK_AGAIN_AFTER: Milliseconds = 1_000;
/** Between two looks: what happens meanwhile is drawn together. */
const LEAST_REST: Milliseconds = 100;
/** Shares of a processor are told of so long at least: a shorter time says little. */
const LEAST_SPAN: Milliseconds = 900;

interface WatchOptions {
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Shows processes live on a terminal until q; elsewhere prints what changes, until it is ended. */
export async function runWatch(options: WatchOptions): Promise<number> {
  const isLive = process.stdout.isTTY === true && !options.json;
  if (isLive) return await show(options["control-socket"]);
  await tellChanges(options);
  return ExitCode.done;
}

/** Wakes whoever waits when something has happened. */
class Bell {
  #has = false;
  #wake = Promise.withResolvers<void>();

  ring(): void {
    this.#has = true;
    this.#wake.resolve();
  }

  /** Resolves when it has rung since the last time, or the time is over. One waits at a time. */
  async heard(limit?: Milliseconds): Promise<void> {
    const over = limit === undefined ? [] : [pause(limit)];
    if (!this.#has) await Promise.race([this.#wake.promise, ...over]);
    this.#has = false;
    this.#wake = Promise.withResolvers<void>();
  }
}

/** Rings at every event that is to come. @throws OrchestratorError when the orchestrator is gone */
async function follow(client: OrchestratorClient, bell: Bell): Promise<never> {
  for await (const _event of client.events({ follow: true })) bell.ring();
  throw new OrchestratorError("The orchestrator ended the stream of its events");
}

async function tellChanges({ json, ...options }: WatchOptions): Promise<never> {
  using client = await OrchestratorClient.connect(options["control-socket"]);
  const bell = new Bell();
  bell.ring();
  const tell = async (): Promise<never> => {
    let before: readonly ProcessSummary[] | undefined;
    for (;;) {
      await bell.heard();
      const now = await client.list();
      const time = wallClock();
      for (const changed of changesOf(before, now)) {
        if (json) await printJsonLine({ time, ...changed });
        else await printText(changeText(time, changed));
      }
      before = now;
    }
  };
  return await Promise.race([follow(client, bell), tell()]);
}

/** Asks the orchestrator, and connects anew after it did not answer. */
class Looks implements Disposable {
  readonly #path: string;
  readonly #bell: Bell;
  #client: OrchestratorClient | undefined;

  constructor(path: string, bell: Bell) {
    this.#path = path;
    this.#bell = bell;
  }

  /** @throws OrchestratorError */
  async take(): Promise<Look> {
    try {
      this.#client ??= await this.#connect();
      const processes = await this.#client.list({ usage: true });
      return { at: monotonicNow(), processes };
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  async #connect(): Promise<OrchestratorClient> {
    const client = await OrchestratorClient.connect(this.#path);
    // Its end is told by the next look.
    follow(client, this.#bell).catch(() => this.#bell.ring());
    return client;
  }

  [Symbol.dispose](): void {
    this.#client?.[Symbol.dispose]();
    this.#client = undefined;
  }
}

async function show(path: string): Promise<number> {
  const bell = new Bell();
  using looks = new Looks(path, bell);
  // Where nobody answers at the beginning, that is said, and nothing is taken over.
  let now = await looks.take();
  const before: Look[] = [];
  using screen = new Screen();
  const left = screen.left.then(() => "left" as const);
  let notice = "q leaves";
  for (;;) {
    screen.draw([...renderWatch(before[0], now), "", notice]);
    const rest = pause(LEAST_REST).then(() => bell.heard(LOOK_AGAIN_AFTER));
    if ((await Promise.race([left, rest])) === "left") break;
    const next = await Promise.race([left, look(looks)]);
    if (next === "left") break;
    if ("refused" in next) {
      notice = `${next.refused}; q leaves`;
      continue;
    }
    notice = "q leaves";
    before.push(now);
    now = next;
    // The newest that is old enough: looks that events have made follow each other too quickly.
    while (now.at - (before[1]?.at ?? now.at) >= LEAST_SPAN) before.shift();
  }
  return ExitCode.done;
}

/** @returns why there is none, for people, where nobody answers */
async function look(looks: Looks): Promise<Look | { readonly refused: string }> {
  try {
    return await looks.take();
  } catch (error) {
    if (!(error instanceof OrchestratorError)) throw error;
    return { refused: `no answer, asked again: ${escapeControls(error.message)}` };
  }
}

function pause(time: Milliseconds): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  AbortSignal.timeout(time).addEventListener("abort", () => resolve());
  return promise;
}
