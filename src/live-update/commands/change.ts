import { printJson, printText } from "../../command-line/output.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { LiveUpdateClient } from "../client.ts";
import { limits } from "../protocol.ts";
import { streamLine } from "./words.ts";

interface ChangeOptions {
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Asks for a change, and says that it was made. */
async function change(
  options: ChangeOptions,
  ask: (client: LiveUpdateClient) => Promise<void>,
  done: { readonly fields: object; readonly words: string },
): Promise<number> {
  using client = await LiveUpdateClient.connect(options["control-socket"]);
  await ask(client);
  if (options.json) await printJson(done.fields);
  else await printText(streamLine([done.words]));
  return ExitCode.done;
}

export async function runUnload(options: ChangeOptions): Promise<number> {
  return await change(options, (client) => client.unload(), {
    fields: { loaded: false },
    words: "no kernel is loaded now",
  });
}

export async function runAbort(
  options: ChangeOptions & { readonly reason: string | undefined },
): Promise<number> {
  const { reason } = options;
  if (reason !== undefined && reason.length > limits.textLength) {
    const most = `at most ${limits.textLength} characters`;
    throw new UsageError(`Expected ${most} after --reason, received ${reason.length}`);
  }
  return await change(options, (client) => client.abort(reason), {
    fields: { aborting: true },
    words: "the update is being rolled back",
  });
}

export async function runFinish(options: ChangeOptions & { readonly id: string }): Promise<number> {
  const { id } = options;
  return await change(options, (client) => client.finish(id), {
    fields: { finished: id },
    words: `${id}: finished; what it had not retrieved is freed`,
  });
}
