import { UsageError } from "../../command-line/usage-error.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { type MachineVerb, WorkerClient, WorkerError } from "../client.ts";
import type { VmSummary } from "../protocol.ts";
import { awaitPhase } from "./await-phase.ts";
import { printSummary } from "./words.ts";

interface ChangeOptions {
  readonly name: string;
  readonly verb: MachineVerb;
  readonly now: boolean;
  readonly wait: boolean;
  /** Of a declared machine, to delete it all the same. */
  readonly recreate?: boolean;
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Where each verb leads to. */
const aims = {
  boot: "running",
  pause: "paused",
  resume: "running",
  "replace-vmm": "running",
  claim: "running",
  shutdown: "off",
  delete: "removed",
} as const satisfies Readonly<Record<MachineVerb, string>>;

/** Says what is wanted of a machine; with `wait` returns when it is so. */
export async function runChange(options: ChangeOptions): Promise<number> {
  const { name, verb, recreate = false } = options;
  if (recreate && options.wait) {
    throw new UsageError("Expected --recreate or --wait, received both: it is not gone in the end");
  }
  using client = await WorkerClient.connect(options["control-socket"]);
  const how = { ...(options.now && { now: true }), ...(recreate && { recreate: true }) };
  const summary = await client.change(verb, name, how);
  const isAwaited = options.wait && summary !== null;
  const reached = isAwaited ? await reach(client, summary, verb) : summary;
  await printSummary(reached, options);
  return ExitCode.done;
}

async function reach(
  client: WorkerClient,
  before: VmSummary,
  verb: MachineVerb,
): Promise<VmSummary | null> {
  const { name, pid, wanted } = before;
  if (verb !== "replace-vmm") return await awaitPhase(client, name, aims[verb]);
  const reached = await awaitPhase(client, name, wanted === "paused" ? "paused" : "running");
  if (reached === null || reached.pid !== pid) return reached;
  // It goes on as it was, in the VMM that was to be replaced.
  const { history } = await client.show(name);
  const told = history.findLast(({ what }) => what === "replacement-given-up")?.detail;
  const reason = told === undefined ? "" : `: ${told}`;
  throw new WorkerError(
    `The VMM of ${name} was not replaced, and its guest goes on in it${reason}. ` +
      `hostler vm show ${name} has what the new one said`,
  );
}
