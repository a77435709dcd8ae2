import { printJson, printText } from "../../command-line/output.ts";
import { ProgressLine } from "../../command-line/progress.ts";
import { renderTable } from "../../command-line/table.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { escapeControls } from "../../logging/format.ts";
import { formatBytes } from "../../units/bytes.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { WorkerClient } from "../client.ts";
import type { DamagedSnapshot, SnapshotSummary } from "../protocol.ts";
import { awaitPhase } from "./await-phase.ts";
import { readKeyFile } from "./snapshot-key.ts";
import { printSummary } from "./words.ts";

interface SnapshotOptions {
  readonly name: string | undefined;
  readonly snapshot: string | undefined;
  readonly list: boolean;
  readonly delete: boolean;
  readonly "encrypt-to": string | undefined;
  readonly "control-socket": string;
  readonly json: boolean;
}

/** Makes a snapshot, lists them, or removes one. */
export async function runSnapshot(options: SnapshotOptions): Promise<number> {
  const { name, snapshot, json } = options;
  if (options.list) {
    if (options.delete) throw new UsageError("--list and --delete exclude each other");
    using client = await WorkerClient.connect(options["control-socket"]);
    const all = await client.snapshots(name);
    const found = all.filter((one) => snapshot === undefined || one.snapshot === snapshot);
    if (json) await printJson(found);
    else await printText(renderSnapshots(found));
    return ExitCode.done;
  }
  if (name === undefined || snapshot === undefined) {
    throw new UsageError("Expected a virtual machine and the name of a snapshot, or --list");
  }
  const file = options["encrypt-to"];
  if (options.delete && file !== undefined) {
    throw new UsageError("--delete and --encrypt-to exclude each other");
  }
  const encryptTo = file === undefined ? undefined : readKeyFile("public", file);
  using client = await WorkerClient.connect(options["control-socket"]);
  if (options.delete) {
    await client.deleteSnapshot(name, snapshot);
    if (json) await printJson(null);
    else await printText(`${name}: snapshot ${snapshot} removed\n`);
    return ExitCode.done;
  }
  using line = new ProgressLine("writing the snapshot");
  const summary = await client.takeSnapshot(
    name,
    snapshot,
    ({ done_bytes: done, all_bytes: all }) => line.show(done, all ?? done),
    encryptTo,
  );
  if (json) await printJson(summary);
  else await printText(`${name}: snapshot ${snapshot} made\n`);
  return ExitCode.done;
}

/** Makes a machine of a snapshot, and returns when it is as it was. */
export async function runRestore(options: {
  readonly name: string;
  readonly snapshot: string;
  readonly key: string | undefined;
  readonly "control-socket": string;
  readonly json: boolean;
}): Promise<number> {
  const { name, snapshot } = options;
  const key = options.key === undefined ? undefined : readKeyFile("secret", options.key);
  using client = await WorkerClient.connect(options["control-socket"]);
  const { wanted } = await withProgress((show) => client.restore(name, snapshot, show, key));
  const phase = wanted === "paused" ? "paused" : "running";
  await printSummary(await awaitPhase(client, name, phase), options);
  return ExitCode.done;
}

type Show = Parameters<WorkerClient["restore"]>[2];

async function withProgress<T>(act: (show: Show) => Promise<T>): Promise<T> {
  using line = new ProgressLine("verifying the snapshot");
  return await act(({ done_bytes: done, all_bytes: all }) => line.show(done, all ?? done));
}

export function renderSnapshots(snapshots: readonly (SnapshotSummary | DamagedSnapshot)[]): string {
  const whole = snapshots.filter((one) => "time" in one);
  const damaged = snapshots.filter((one) => "damaged" in one);
  const told = damaged.map((one) => {
    const removal = `hostler vm snapshot --delete ${one.name} ${one.snapshot}`;
    const line = `${one.name} ${one.snapshot}: ${one.damaged}. Put it back, or remove all of it by`;
    return `${escapeControls(line)} ${removal}\n`;
  });
  const rows = whole.map((one) => [
    one.name,
    one.snapshot,
    one.time,
    one.power,
    formatBytes(one.bytes),
    formatBytes(one.stored_bytes),
    `${one.hypervisor} ${one.version} (${one.accelerator})`,
    one.same_build_only === null ? "-" : "yes",
    one.encrypted_to === null ? "-" : "yes",
  ]);
  const about = ["NAME", "SNAPSHOT", "WHEN", "POWER", "SIZE", "STORED", "HYPERVISOR"];
  return renderTable([...about, "SAME BUILD", "ENCRYPTED"], rows) + told.join("");
}
