import { resolve } from "node:path";
import * as v from "valibot";
import { wholeNumber } from "../../command-line/parse.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { describeIssues } from "../../messaging/describe-issues.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { WorkerClient } from "../client.ts";
import { limits, type VmSpec, vmSpecSchema } from "../protocol.ts";
import { awaitPhase } from "./await-phase.ts";
import { printSummary } from "./words.ts";

interface CreateFlags {
  readonly name: string;
  readonly image: string;
  readonly hash: string;
  readonly cpu: string | undefined;
  readonly memory: string | undefined;
  readonly cmdline: string | undefined;
  readonly "machine-type": string | undefined;
  readonly "processor-model": string | undefined;
  readonly "allow-domain": readonly string[];
  readonly network: readonly string[];
  readonly forward: readonly string[];
  readonly start: boolean;
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Makes a machine; returns when it is there, with how far its image is on a terminal. */
export async function runCreate(flags: CreateFlags): Promise<number> {
  const spec = readSpec(flags);
  const wanted = flags.start ? "running" : "created";
  using client = await WorkerClient.connect(flags["control-socket"]);
  await client.create(spec, wanted);
  const summary = await awaitPhase(client, spec.name, wanted);
  await printSummary(summary, flags);
  return ExitCode.done;
}

/** @throws UsageError */
function readSpec(flags: CreateFlags): VmSpec {
  const { name, image, hash, cmdline, network, forward } = flags;
  const {
    "allow-domain": domains,
    "machine-type": machineType,
    "processor-model": processorModel,
  } = flags;
  const cpu = numberOf("--cpu", flags.cpu, { least: 1, most: limits.processors });
  const { leastMemoryMebibytes: least, memoryMebibytes: most } = limits;
  const memoryMb = numberOf("--memory", flags.memory, { least, most });
  const parsed = v.safeParse(vmSpecSchema, {
    name,
    imagePath: resolve(image),
    hash,
    ...(cpu !== undefined && { cpu }),
    ...(memoryMb !== undefined && { memoryMb }),
    ...(cmdline !== undefined && { cmdline }),
    ...(machineType !== undefined && { machineType }),
    ...(processorModel !== undefined && { processorModel }),
    ...(domains.length > 0 && { networkAllowedDomains: domains }),
    ...(network.length > 0 && { networks: network.map(cardOf) }),
    ...(forward.length > 0 && { forwards: forward }),
  });
  if (parsed.success) return parsed.output;
  throw new UsageError(describeIssues(parsed.issues));
}

/** "storage", or "storage=10.101.0.5". */
export function cardOf(
  written: string,
): string | { readonly network: string; readonly address: string } {
  const [, network, address] = /^([^=]*)=(.*)$/.exec(written) ?? [];
  return network === undefined || address === undefined ? written : { network, address };
}

function numberOf(
  name: string,
  text: string | undefined,
  range: { readonly least: number; readonly most: number },
): number | undefined {
  return text === undefined ? undefined : wholeNumber(text, { name, ...range });
}
