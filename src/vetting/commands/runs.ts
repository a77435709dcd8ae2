import * as v from "valibot";
import { printJson, printJsonLine, printText } from "../../command-line/output.ts";
import { durationArgument } from "../../command-line/parse.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { identityApi } from "../../identity/api.ts";
import { addressSchema } from "../../identity/protocol.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { bootParameters, type LogLine } from "../protocol.ts";
import { apiLimits, runApi, vettingStreams } from "../protocol-api.ts";
import type { RunView, Verdict } from "../protocol-operator.ts";
import {
  type ClientFlags,
  connect,
  macOf,
  pagesOf,
  type RunFlags,
  runNumber,
  show,
  stageArgument,
} from "./ask.ts";
import { renderDossier, renderLine, renderRuns } from "./words.ts";

/** What a command asks of runs. */

export async function runRuns(
  flags: ClientFlags & {
    readonly open: boolean;
    readonly host: string | undefined;
    readonly spec: string | undefined;
  },
): Promise<number> {
  using client = await connect(flags);
  const { host, spec, open } = flags;
  const wanted = {
    ...(host !== undefined && { mac: await macOf(client, host) }),
    ...(spec !== undefined && { spec }),
    ...(open && { open: "true" as const }),
  };
  const pages = await pagesOf(
    (before: number | undefined) =>
      client.call(runApi.runs, { ...wanted, ...(before !== undefined && { before }) }),
    ({ next }) => next,
  );
  const runs = pages.flatMap((page) => page.runs);
  if (flags.json) await printJson({ runs });
  else await printText(renderRuns(runs, process.stdout.columns));
  return ExitCode.done;
}

/** As `hostler vetting show --help` lists them. */
const exitCodes: Record<Verdict, number> = {
  passed: ExitCode.done,
  warned: 3,
  failed: 4,
  cancelled: 5,
  aborted: 5,
  lost: 5,
};

export function exitCodeOf({ verdict, state }: RunView): number {
  if (verdict !== null) return exitCodes[verdict];
  return state === "FailedHolding" ? exitCodes.failed : ExitCode.done;
}

export async function runShow(flags: RunFlags): Promise<number> {
  using client = await connect(flags);
  const dossier = await client.call(runApi.dossier, { run: runNumber(flags.run) });
  if (flags.json) await printJson(dossier);
  else await printText(renderDossier(dossier, process.stdout.columns));
  return exitCodeOf(dossier.view);
}

export async function runStart(
  flags: ClientFlags & {
    readonly host: string;
    readonly spec: string | undefined;
    readonly window: string | undefined;
  },
): Promise<number> {
  const { host, spec, window } = flags;
  const most = apiLimits.window;
  const lasts = window === undefined ? undefined : durationArgument("--window", window, { most });
  return await show(
    flags,
    async (client) =>
      await client.call(runApi.start, {
        mac: await macOf(client, host),
        ...(spec !== undefined && { spec }),
        ...(lasts !== undefined && { window_ms: lasts }),
      }),
    (view) => renderRuns([view], process.stdout.columns),
  );
}

export async function runToken(
  flags: RunFlags & { readonly address: string; readonly replace: boolean },
): Promise<number> {
  const { address, replace } = flags;
  if (!v.is(addressSchema, address)) {
    throw new UsageError(`Expected https://NAME:PORT after --address, received ${address}`);
  }
  const run = runNumber(flags.run);
  return await show(
    flags,
    async (client) => {
      const { shown } = await client.call(identityApi.certificatesList, {});
      const { mac, token } = await client.call(runApi.token, { run, replace });
      return { orchestrator: address, run, token, mac, pin: shown };
    },
    (boot) => {
      const names = Object.keys(bootParameters) as (keyof typeof bootParameters)[];
      return `${names.map((name) => `${bootParameters[name]}=${boot[name]}`).join(" ")}\n`;
    },
  );
}

export async function runLogs(
  flags: RunFlags & { readonly stage: string | undefined; readonly follow: boolean },
): Promise<number> {
  const run = runNumber(flags.run);
  const stage = flags.stage === undefined ? undefined : stageArgument(flags.stage);
  const asked = { run, ...(stage !== undefined && { stage }) };
  using client = await connect(flags);
  const tell = async (line: LogLine) => {
    if (flags.json) await printJsonLine(line);
    else await printText(renderLine(line));
  };
  if (flags.follow) {
    const { signal } = new AbortController();
    for await (const { data } of client.stream(vettingStreams.logs, asked, { signal })) {
      await tell(data);
    }
    return ExitCode.done;
  }
  let after: number | undefined;
  do {
    const at = after === undefined ? {} : { after };
    const { lines, next } = await client.call(runApi.log, { ...asked, ...at });
    for (const line of lines) await tell(line);
    after = next ?? undefined;
  } while (after !== undefined);
  return ExitCode.done;
}
