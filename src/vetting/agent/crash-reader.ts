import * as v from "valibot";
import type { Milliseconds } from "../../units/units.ts";
import type { TaskRunner } from "../perform/task-runner.ts";
import { vettingLimits } from "../protocol.ts";
import { type Evidence, resultLimits } from "../protocol-result.ts";
import { CRASHES_TASK, type CrashesReport, crashesReportSchema } from "../tasks/crashes.ts";

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
    const options = { deadline: WITHIN, onLine: () => {} };
    const ending = await this.#runner.start({ task: CRASHES_TASK, input }, options).ended;
    const found = v.safeParse(crashesReportSchema, ending.kind === "report" && ending.report);
    const { onTrouble } = this.#options;
    if (!found.success) {
      onTrouble(`crashes of kernels before this one cannot be read: ${ending.kind}`);
      return undefined;
    }
    for (const refusal of found.output.refusals) onTrouble(`of crashes before: ${refusal}`);
    return found.output;
  }
}
