import type { Milliseconds } from "../../units/units.ts";
import type { TaskRunner } from "../perform/task-runner.ts";
import { vettingLimits } from "../protocol.ts";
import { type Evidence, resultLimits } from "../protocol-result.ts";
import { CRASHES_TASK, type CrashesReport, crashesReportSchema } from "../tasks/crashes.ts";
import { askTask } from "./ask-task.ts";

const WITHIN: Milliseconds = 30_000;

/**
 * What kernels before this one wrote as they died, for the claim, which counts that a host died in
 * a stage. It is removed when the orchestrator has it: no later death is told by it.
 */
export class CrashReader {
  readonly #runner: Pick<TaskRunner, "start">;
  readonly #options: { readonly removes: boolean; readonly onTrouble: (why: string) => void };
  #found: CrashesReport | undefined;

  /** @param options.removes false: by hand, on a host whose own services look after it */
  constructor(
    runner: Pick<TaskRunner, "start">,
    options: { readonly removes: boolean; readonly onTrouble: (why: string) => void },
  ) {
    this.#runner = runner;
    this.#options = options;
  }

  async read(): Promise<readonly Evidence[]> {
    this.#found ??= await this.#ask({ action: "read" });
    const { crashes = [] } = this.#found ?? {};
    return crashes.slice(-vettingLimits.evidence).map(({ reason, text }) => ({
      ...{ name: "pstore", component: "host" },
      text: `${reason}\n${text}`.slice(-resultLimits.evidence),
    }));
  }

  forget(): void {
    const files = this.#found?.crashes.flatMap((crash) => crash.files) ?? [];
    this.#found = { crashes: [], refusals: [] };
    if (files.length > 0 && this.#options.removes) void this.#ask({ action: "remove", files });
  }

  async #ask(input: unknown): Promise<CrashesReport | undefined> {
    const asked = { within: WITHIN, schema: crashesReportSchema };
    const answer = await askTask(this.#runner, { task: CRASHES_TASK, input }, asked);
    const { onTrouble } = this.#options;
    if ("ending" in answer) {
      onTrouble(`crashes of kernels before this one cannot be read: ${answer.ending.kind}`);
      return undefined;
    }
    for (const refusal of answer.found.refusals) onTrouble(`of crashes before: ${refusal}`);
    return answer.found;
  }
}
