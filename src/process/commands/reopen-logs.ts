import { printJson, printText, tellText } from "../../command-line/output.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { OrchestratorClient } from "../client.ts";
import { streamLine } from "./words.ts";

interface ReopenOptions {
  readonly name: string | undefined;
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Has files of lines opened anew, and says which could not be. */
export async function runReopenLogs({ name, json, ...options }: ReopenOptions): Promise<number> {
  using client = await OrchestratorClient.connect(options["control-socket"]);
  const reopened = await client.reopenLogs(name);
  const failed = reopened.filter(({ error }) => error !== null);
  if (json) await printJson(reopened);
  else {
    const done = reopened.filter(({ error }) => error === null);
    await printText(done.map((one) => streamLine([`${one.name}:`, one.path])).join(""));
    tellText(failed.map((one) => streamLine([`${one.name}:`, one.error ?? ""])).join(""));
  }
  return failed.length === 0 ? ExitCode.done : ExitCode.refused;
}
