/** How a demo is told: until its end, an interruption, or the time that it has. */
import { formatSeconds } from "../terminal.ts";
import type { Report } from "./checks.ts";
import { NotSeen } from "./deadline.ts";

export interface Telling {
  /**
   * Shows all of it.
   * @param within begins its time anew: it has so many milliseconds from now on
   */
  show(within: (milliseconds: number) => void): Promise<void>;
  /** All the checks that its steps make. */
  checkCount(): number;
  /** What was said by what it ran, for somebody who has to find out what went wrong. */
  diaries(): readonly string[];
  /** Ends whatever still runs, and removes its files. */
  close(): Promise<void>;
  /** Said at the end of one that was not interrupted. */
  readonly lastWords?: string;
}

class Interrupted extends Error {
  override readonly name = "Interrupted";
}

/** Tells a story. @returns 0 when all of it was seen, 1 when not, 130 after Ctrl-C */
export async function tell(report: Report, telling: Telling): Promise<number> {
  let begin = performance.now();
  let deadline: Timer | undefined;
  const interruption = Promise.withResolvers<never>();
  for (const signal of ["SIGINT", "SIGTERM"]) {
    process.on(signal, () => interruption.reject(new Interrupted(`Interrupted by ${signal}`)));
  }
  const within = (milliseconds: number) => {
    begin = performance.now();
    deadline = setTimeout(() => {
      interruption.reject(new NotSeen(`Not done in ${formatSeconds(milliseconds)}`));
    }, milliseconds);
  };
  let code = 1;
  try {
    await Promise.race([telling.show(within), interruption.promise]);
    code = 0;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    const expected = error instanceof NotSeen || error instanceof Interrupted;
    console.error(`\n${expected ? error.message : error.stack}`);
    if (error instanceof Interrupted) code = 130;
    else for (const line of telling.diaries()) console.error(`   ${line}`);
  } finally {
    clearTimeout(deadline);
    await telling.close();
  }
  if (code === 130) return code;
  const seen = report.summary(telling.checkCount());
  console.log(`Took ${formatSeconds(performance.now() - begin)}; nothing is left behind.`);
  if (telling.lastWords !== undefined) console.log(telling.lastWords);
  return seen ? code : 1;
}
