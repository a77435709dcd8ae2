import type * as v from "valibot";
import { AuthorityClient } from "../../authority/client.ts";
import {
  type ClientFlags,
  placeOf,
  show as showOf,
} from "../../authority/commands/client-flags.ts";
import { printJson, printText, tellText } from "../../command-line/output.ts";
import { renderTable } from "../../command-line/table.ts";
import { readConfigurationText } from "../../toml/configuration-file.ts";
import { formatErrors } from "../../toml/format-errors.ts";
import { formatBytes } from "../../units/bytes.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { formatDuration } from "../../units/units.ts";
import { type ClusterDeclarationOutcome, parseClusterDeclaration } from "../declaration.ts";
import {
  type ClusterChange,
  type ClusterMachine,
  type ClusterStatus,
  type ClusterWorker,
  masterApi,
  masterLimits,
} from "../protocol-master.ts";

/** What a command asks a master, and how it prints the answer. */

const master = { name: "master", start: "hostler vm master", flag: "--control-socket" };

const show: typeof showOf = async (flags, ask, render) =>
  await showOf({ ...flags, daemon: master }, ask, render);

/** Flags of those commands that ask this host's worker without them. */
export interface MasterFlags {
  readonly master: boolean;
  readonly "master-socket": string;
  readonly authority: string | undefined;
  readonly pin: readonly string[];
  readonly "token-file": string | undefined;
  readonly json: boolean;
}

type WorkerDetail = v.InferOutput<typeof masterApi.worker.output>;

/** What `diff` ends with when something would be done. */
export const differsExitCode = 1;

/** Whoever says where a master is means it. */
export const isForMaster = ({ master, authority }: MasterFlags) =>
  master || authority !== undefined;

export async function runClusterApply(
  options: MasterFlags & { readonly file: string; readonly verb: "apply" | "diff" },
): Promise<number> {
  const { file, verb, json } = options;
  const outcome = readDeclaration(file);
  if (outcome.kind === "refused") {
    if (json) await printJson({ file, ok: false, errors: outcome.errors });
    else tellText(formatErrors(outcome.errors));
    return ExitCode.usage;
  }
  const { desired } = outcome;
  const daemon = { ...master, flag: "--master-socket" };
  const place = placeOf({ ...options, "control-socket": options["master-socket"], daemon });
  using client = await AuthorityClient.connect(place);
  const answer =
    verb === "apply"
      ? await client.call(masterApi.apply, { desired })
      : await client.call(masterApi.diff, { desired });
  if (json) await printJson(answer);
  else await printText(renderChange(answer));
  return verb === "apply" || answer.changes.length === 0 ? ExitCode.done : differsExitCode;
}

function readDeclaration(file: string): ClusterDeclarationOutcome {
  const read = readConfigurationText(file, masterLimits.declarationBytes);
  return read.kind === "refused" ? read : parseClusterDeclaration(file, read.text);
}

export async function runStatus(flags: ClientFlags): Promise<number> {
  return await show(flags, (client) => client.call(masterApi.status, {}), renderStatus);
}

export async function runWorkers(
  flags: ClientFlags & { readonly worker: string | undefined },
): Promise<number> {
  const { worker } = flags;
  if (worker === undefined) {
    return await show(
      flags,
      (client) => client.call(masterApi.workers, {}),
      ({ workers }) => renderWorkers(workers),
    );
  }
  return await show(flags, (client) => client.call(masterApi.worker, { worker }), renderWorker);
}

export async function runCordon(
  flags: ClientFlags & { readonly worker: string },
  verb: "cordon" | "uncordon",
): Promise<number> {
  const { worker } = flags;
  const does = verb === "cordon" ? "gets no further machines" : "gets machines again";
  return await show(
    flags,
    (client) => client.call(masterApi[verb], { worker }),
    () => `${worker} ${does}\n`,
  );
}

export async function runFence(flags: ClientFlags & { readonly confirm: string }): Promise<number> {
  const { confirm } = flags;
  return await show(
    flags,
    (client) => client.call(masterApi.fence, { worker: confirm, confirm }),
    ({ machines }) => `${confirm} is off: its movable machines move; ${machines} wait for it\n`,
  );
}

export async function runForget(
  flags: ClientFlags & { readonly worker: string; readonly "for-good": boolean },
): Promise<number> {
  const { worker, "for-good": forGood } = flags;
  return await show(
    flags,
    (client) => client.call(masterApi.forget, { worker, for_good: forGood }),
    () => `${worker} is forgotten\n`,
  );
}

export function renderChange({ generation, unchanged, changes }: ClusterChange): string {
  const head = unchanged
    ? `generation ${generation}: nothing differs\n`
    : `generation ${generation}: differs in ${changes.length}\n`;
  if (changes.length === 0) return head;
  const rows = changes.map(({ name, kind, worker, detail }) => [name, kind, worker ?? "-", detail]);
  return head + renderTable(["NAME", "DOES", "WORKER", "WHAT"], rows);
}

/** One worker: what it was given, and what else it has. */
export function renderWorker(shown: WorkerDetail): string {
  const { worker, machines, reported } = shown;
  const given = machines.length === 0 ? "nothing is given to it\n" : renderMachines(machines);
  const owners = new Map(machines.map((one) => [one.name, one.owner_generation]));
  const others = reported.filter(
    ({ name, owner_generation, phase }) =>
      phase !== "absent" && (owner_generation === null || owners.get(name) !== owner_generation),
  );
  const head = `${renderWorkers([worker])}\n${given}`;
  if (others.length === 0) return head;
  const rows = others.map(({ name, phase, owner_generation: owner, reason }) => [
    name,
    phase,
    String(owner ?? "-"),
    reason ?? (owner === null ? "made there, by no master" : "this master did not give it"),
  ]);
  return `${head}\n${renderTable(["ALSO THERE", "PHASE", "OWNER", "WHY"], rows)}`;
}

export function renderStatus(status: ClusterStatus): string {
  const { generation, convergence_percent: percent, workers, machines, warnings } = status;
  const head = `generation ${generation}: ${percent} % as declared\n`;
  const told = warnings.map((warning) => `warning: ${warning}\n`).join("");
  return `${head}${told}\n${renderWorkers(workers)}\n${renderMachines(machines)}`;
}

export function renderWorkers(workers: readonly ClusterWorker[]): string {
  if (workers.length === 0) return "no worker has reported yet\n";
  const columns = ["WORKER", "STANDING", "HEARD", "MACHINES", "CPU FREE", "MEMORY FREE", "LABELS"];
  const rows = workers.map((worker) => [
    worker.name,
    standingText(worker),
    worker.boot === null ? "-" : `${formatDuration(worker.silent_ms)} ago`,
    String(worker.machines),
    worker.free === null || worker.total === null
      ? "-"
      : `${worker.free.processors} of ${worker.total.processors}`,
    worker.free === null || worker.total === null
      ? "-"
      : `${formatBytes(worker.free.memory_bytes)} of ${formatBytes(worker.total.memory_bytes)}`,
    Object.entries(worker.labels)
      .map(([key, value]) => `${key}=${value}`)
      .join(",") || "-",
  ]);
  const why = workers
    .filter(({ reason }) => reason !== null)
    .map(({ name, reason }) => `${name}: ${reason}\n`);
  return renderTable(columns, rows) + why.join("");
}

function standingText({ standing, cordoned, fenced }: ClusterWorker): string {
  return [
    standing,
    ...(cordoned ? ["cordoned"] : []),
    ...(fenced === null ? [] : [`fenced (${fenced})`]),
  ].join(", ");
}

export function renderMachines(machines: readonly ClusterMachine[]): string {
  if (machines.length === 0) return "nothing is declared\n";
  const rows = machines.map(({ name, status, worker, phase, owner_generation, reason, drift }) => {
    const differs = drift.map(({ key, desired, observed }) => `${key} ${observed} → ${desired}`);
    const why = [...differs, ...(reason === null ? [] : [reason])].join("; ");
    return [name, status, worker ?? "-", phase ?? "-", String(owner_generation ?? "-"), why];
  });
  return renderTable(["NAME", "STATUS", "WORKER", "PHASE", "OWNER", "WHY"], rows);
}
