import { AuthorityClient, type AuthorityPlace } from "../../authority/client.ts";
import { type ClientFlags, placeOf } from "../../authority/commands/client-flags.ts";
import { printJsonLine, printText, tellText } from "../../command-line/output.ts";
import { durationArgument } from "../../command-line/parse.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import { escapeControls } from "../../logging/format.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";
import { fleetApi, type RolloutView } from "../protocol-operator.ts";
import { expectedOperator } from "./expected-operator.ts";
import { renderNamed, renderRollouts } from "./fleet-words.ts";

/** A rollout, until it has ended or waits for a person. */

export interface WatchFlags extends ClientFlags {
  readonly rollout: string;
  readonly timeout: string | undefined;
}

/** Between two looks. */
const LOOK_AGAIN_AFTER: Milliseconds = 1_000;
/** For so long an operator may be away, once it has answered: it is restarted, or another acts. */
const AWAY_TIME: Milliseconds = 60_000;

/**
 * Shows how far it is: one line of a terminal, a JSON line for each change, or nothing; then how it
 * ended.
 * @returns done when it is complete; refused when it is paused or aborted, others took its devices,
 *   or the time is over
 * @throws as AuthorityClient
 */
export async function runWatch(flags: WatchFlags): Promise<number> {
  const { rollout, json } = flags;
  const timeout = flags.timeout && durationArgument("--timeout", flags.timeout);
  const end = timeout ? monotonicNow() + timeout : Number.POSITIVE_INFINITY;
  using looks = new Looks(placeOf({ daemon: expectedOperator, ...flags }), rollout);
  using line = new RolloutLine(process.stderr.isTTY === true && !json);
  let told = "";
  let isSaid = false;
  for (;;) {
    const { view, isSettling } = await looks.take();
    const text = JSON.stringify(view);
    if (json && text !== told) await printJsonLine(view);
    told = text;
    line.show(view);
    // Elsewhere than at a terminal nothing is said until it ends, and this may never.
    const isStill = view.waits_for !== null && (isSettling || view.counts.members === 0);
    if (isStill && !isSaid && !json) {
      isSaid = true;
      if (!line.isTerminal) tellText(`${progressText(view)}\n`);
    }
    const isOver = monotonicNow() >= end;
    if (isOver || view.phase !== "running") {
      line[Symbol.dispose]();
      if (!json) await printText(renderRollouts([view]) + renderNamed(view));
      if (isOver && view.phase === "running") tellText(tooLong(rollout, timeout || 0));
      return endOf(view);
    }
    await pause(Math.min(LOOK_AGAIN_AFTER, end - monotonicNow()));
  }
}

/** One that is complete without its devices, because later ones took them, has not done it. */
export function endOf({ phase, reason }: RolloutView): number {
  return phase === "complete" && reason === null ? ExitCode.done : ExitCode.refused;
}

const tooLong = (rollout: string, time: Milliseconds) =>
  `${rollout} has not ended within ${formatDuration(time)}; it goes on\n`;

interface Look {
  readonly view: RolloutView;
  /** An older store was put back: for a while nothing is begun. */
  readonly isSettling: boolean;
}

/** Asks the operator, and connects anew where it was restarted meanwhile. */
class Looks implements Disposable {
  readonly #place: AuthorityPlace;
  readonly #rollout: string;
  #client: AuthorityClient | undefined;
  /** undefined before the first answer: who never answered is not waited for. */
  #answeredAt: number | undefined;

  constructor(place: AuthorityPlace, rollout: string) {
    this.#place = place;
    this.#rollout = rollout;
  }

  async take(): Promise<Look> {
    for (;;) {
      try {
        this.#client ??= await AuthorityClient.connect(this.#place);
        const answer = await this.#client.call(fleetApi.rollout, { rollout: this.#rollout });
        this.#answeredAt = monotonicNow();
        return { view: answer.rollout, isSettling: answer.settles_ms !== null };
      } catch (error) {
        this[Symbol.dispose]();
        const at = this.#answeredAt;
        if (at === undefined || isForGood(error) || monotonicNow() - at > AWAY_TIME) throw error;
      }
      await pause(LOOK_AGAIN_AFTER);
    }
  }

  [Symbol.dispose](): void {
    this.#client?.[Symbol.dispose]();
    this.#client = undefined;
  }
}

/** An answer that another look does not change: there is no such rollout, or no leave to look. */
function isForGood(error: unknown): boolean {
  const kind = error instanceof Error && "kind" in error ? error.kind : undefined;
  return kind !== undefined && kind !== "unavailable";
}

/** One line of a terminal, drawn anew; nothing of it is left at the end. */
class RolloutLine implements Disposable {
  readonly isTerminal: boolean;
  #isShown = false;

  constructor(isTerminal: boolean) {
    this.isTerminal = isTerminal;
  }

  show(view: RolloutView): void {
    if (!this.isTerminal) return;
    this.#isShown = true;
    const width = process.stderr.columns || 80;
    tellText(`\r\u001b[K${progressText(view).slice(0, width - 1)}`);
  }

  [Symbol.dispose](): void {
    if (this.#isShown) tellText("\r\u001b[K");
    this.#isShown = false;
  }
}

/** "spring: wave 1 of 2, 3 of 40 done, 4 under way, 0 failed; waits for a window". */
export function progressText({ name, wave, waves, counts, waits_for }: RolloutView): string {
  const { done, members, flight, failed, hindered, away } = counts;
  const words = [
    ...[`wave ${wave} of ${waves}`, `${done} of ${members} done`, `${flight} under way`],
    ...[`${failed} failed`, ...(hindered === 0 ? [] : [`${hindered} could not`])],
    ...(away === 0 ? [] : [`${away} away`]),
  ];
  const why = waits_for === null ? "" : `; waits for ${escapeControls(waits_for)}`;
  return `${name}: ${words.join(", ")}${why}`;
}

async function pause(time: Milliseconds): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  AbortSignal.timeout(Math.max(1, time)).addEventListener("abort", () => resolve());
  await promise;
}
