import * as v from "valibot";
import type { Milliseconds } from "../../units/units.ts";
import type { TaskRunner } from "../perform/task-runner.ts";
import type { TaskEnding, TaskOrder } from "../protocol-task.ts";

/**
 * What a task says that an agent asks beside its stages.
 * @returns how its child ended, where that said nothing that can be read
 */
export async function askTask<Schema extends v.GenericSchema>(
  runner: Pick<TaskRunner, "start">,
  order: TaskOrder,
  asked: { readonly within: Milliseconds; readonly schema: Schema },
): Promise<{ readonly found: v.InferOutput<Schema> } | { readonly ending: TaskEnding }> {
  const options = { deadline: asked.within, onLine: () => {} };
  const ending = await runner.start(order, options).ended;
  const found = v.safeParse(asked.schema, ending.kind === "report" && ending.report);
  return found.success ? { found: found.output } : { ending };
}

/** For people. */
export const wordsOfEnding = (ending: TaskEnding): string =>
  "how" in ending ? ending.how : ending.kind;
