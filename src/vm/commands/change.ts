import { ExitCode } from "../../units/exit-code.ts";
import { type MachineVerb, WorkerClient } from "../client.ts";
import { awaitPhase } from "./await-phase.ts";
import { printSummary } from "./words.ts";

interface ChangeOptions {
  readonly name: string;
  readonly verb: MachineVerb;
  readonly now: boolean;
  readonly wait: boolean;
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Where each verb leads to. */
const aims = {
  boot: "running",
  pause: "paused",
  resume: "running",
  "replace-vmm": "running",
  shutdown: "off",
  delete: "removed",
} as const satisfies Readonly<Record<MachineVerb, string>>;

/** Says what is wanted of a machine; with `wait` returns when it is so. */
export async function runChange(options: ChangeOptions): Promise<number> {
  const { name, verb } = options;
  using client = await WorkerClient.connect(options["control-socket"]);
  const summary = await client.change(verb, name, options.now ? { now: true } : {});
  await printSummary(options.wait ? await awaitPhase(client, name, aims[verb]) : summary, options);
  return ExitCode.done;
}
