/** Runs the cases of a story in a guest, one after another, and tells each over the serial line. */
import { writeCase } from "./story.ts";

/** Gives what was seen, in a few words. @throws Error when it is not as it should be */
export type Case = () => string | Promise<string>;

/** @returns how many did not go well; a later case is run all the same */
export async function tellCases(cases: Readonly<Record<string, Case>>): Promise<number> {
  let failures = 0;
  for (const [name, run] of Object.entries(cases)) {
    if (!(await tellCase(name, run))) failures += 1;
  }
  return failures;
}

/** @returns whether it went well */
export async function tellCase(name: string, run: Case): Promise<boolean> {
  const begin = performance.now();
  const finish = (outcome: "ok" | "not ok", detail: string) => {
    console.log(writeCase({ name, outcome, detail, milliseconds: performance.now() - begin }));
    return outcome === "ok";
  };
  try {
    return finish("ok", await run());
  } catch (error) {
    return finish("not ok", error instanceof Error ? error.message : String(error));
  }
}

/** @returns the value as text, for a case to tell. @throws Error when it is another */
export function requireEqual(seen: unknown, wanted: unknown): string {
  if (!Bun.deepEquals(seen, wanted)) {
    throw new Error(`expected ${JSON.stringify(wanted)}, received ${JSON.stringify(seen)}`);
  }
  return JSON.stringify(seen);
}
