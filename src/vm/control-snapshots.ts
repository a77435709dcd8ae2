import { statSync } from "node:fs";
import { join } from "node:path";
import type { ControlCall } from "../messaging/control-server.ts";
import { whyRefused } from "./lifecycle.ts";
import { type SnapshotProgress, SnapshotRefused, snapshotTaken } from "./perform/snapshots.ts";
import type { ControlRequest, ErrorKind, SnapshotSummary, VmSummary } from "./protocol.ts";
import type { SnapshotManifest } from "./snapshot-manifest.ts";
import type { Entry, MachineWorker } from "./worker.ts";

type Of<Verb extends ControlRequest["verb"]> = Extract<ControlRequest, { verb: Verb }>;
type SnapshotRequest = Of<"snapshot" | "restore" | "snapshots" | "delete-snapshot">;

/** What a refusal of a snapshot is called on the wire. */
const errorKindOf = {
  unknown: "unknown-snapshot",
  taken: "name-taken",
  damaged: "snapshot-damaged",
  unfit: "machine-refused",
  system: "system",
} as const satisfies Readonly<Record<SnapshotRefused["kind"], ErrorKind>>;

/** Answers what is asked about snapshots; with `snapshot` and `restore` it tells how far it is. */
export async function answerSnapshots(
  worker: MachineWorker,
  request: SnapshotRequest,
  call: ControlCall,
  summarize: (entry: Entry) => VmSummary,
): Promise<void> {
  try {
    switch (request.verb) {
      case "snapshots":
        call.done([
          ...worker.snapshots.list(request.name).map((one) => describe(worker, one)),
          ...worker.snapshots.damaged(request.name),
        ]);
        return;
      case "delete-snapshot":
        await worker.removeSnapshot(request.name, request.snapshot);
        call.done(null);
        return;
      case "snapshot":
        take(worker, request, call, summarize);
        return;
      case "restore":
        await restore(worker, request, call, summarize);
        return;
    }
  } catch (error) {
    refuse(call, error);
  }
}

function refuse(call: ControlCall, error: unknown): void {
  const message = error instanceof Error ? error.message : String(error);
  const known = error instanceof SnapshotRefused ? error : undefined;
  const kind: ErrorKind = known === undefined ? "system" : errorKindOf[known.kind];
  call.refuse({ kind, message, ...(known?.code !== undefined && { code: known.code }) });
}

/** Once for each hundredth of the whole: nobody wants to read of every piece. */
function progressTo(call: ControlCall, what: string): (progress: SnapshotProgress) => void {
  let last = -1;
  return ({ done, of }) => {
    const percent = of === 0 ? 100 : Math.floor((done / of) * 100);
    if (percent === last || call.isBehind) return;
    last = percent;
    call.item({ what, done_bytes: done, all_bytes: of });
  };
}

/** Answered when the snapshot is there, or was refused; the machine goes on in either case. */
function take(
  worker: MachineWorker,
  request: Of<"snapshot">,
  call: ControlCall,
  summarize: (entry: Entry) => VmSummary,
): void {
  const { name, snapshot } = request;
  const entry = worker.machines.get(name);
  if (entry === undefined) throw new Error(`Bug: ${name} was there a moment ago`);
  const why = whyRefused(entry.state, "snapshot");
  if (why !== undefined) {
    const kind: ErrorKind = "wrong-phase";
    call.refuse({ kind, message: `${name} is ${entry.state.phase}: ${why}` });
    return;
  }
  if (worker.snapshots.has(name, snapshot)) throw snapshotTaken(name, snapshot);
  let heard = worker.events.newest;
  const ends = new DisposableStack();
  const look = () => {
    const events = worker.events.after(heard).filter((event) => event.name === name);
    heard = worker.events.newest;
    for (const { entry: told } of events) {
      if (told.what === "snapshotted") call.done(summarize(entry));
      else if (told.what === "call-refused") {
        const { message, code } = told.refusal;
        const kind: ErrorKind = code === undefined ? "vmm-refused" : "system";
        call.refuse({ kind, message, ...(code !== undefined && { code }) });
      } else continue;
      ends.dispose();
      return;
    }
    if (entry.state.phase === "snapshotting") return;
    const kind: ErrorKind = "wrong-phase";
    const reason = entry.state.reason ?? "it went elsewhere";
    call.refuse({
      kind,
      message: `No snapshot was made: ${name} is ${entry.state.phase}: ${reason}`,
    });
    ends.dispose();
  };
  ends.use(worker.snapshots.watch(name, progressTo(call, "writing")));
  ends.use(worker.onTurn(look));
  call.onGone(() => ends.dispose());
  entry.machine.encryptSnapshot(request.encrypt_to);
  worker.handle(name, { kind: "snapshot", snapshot });
}

async function restore(
  worker: MachineWorker,
  request: Of<"restore">,
  call: ControlCall,
  summarize: (entry: Entry) => VmSummary,
): Promise<void> {
  const { name, snapshot } = request;
  const gone = new AbortController();
  call.onGone(() => gone.abort(new Error("Whoever asked for it has left")));
  const refusal = await worker.restore(name, snapshot, {
    key: request.key,
    signal: gone.signal,
    onProgress: progressTo(call, "verifying"),
  });
  if (gone.signal.aborted) return;
  if (refusal !== undefined) {
    call.refuse({ kind: refusal.kind, message: refusal.message });
    return;
  }
  const entry = worker.machines.get(name);
  if (entry !== undefined) call.done(summarize(entry));
}

function describe(worker: MachineWorker, manifest: SnapshotManifest): SnapshotSummary {
  const { machine, snapshot, files, choice, spec } = manifest;
  const folder = worker.snapshots.folderOf(machine, snapshot);
  const blockBytes = 512;
  const stored = files.map(({ name }) => {
    const status = statSync(join(folder, name), { throwIfNoEntry: false });
    return (status?.blocks ?? 0) * blockBytes;
  });
  return {
    name: machine,
    snapshot,
    time: manifest.time,
    power: manifest.power,
    encrypted_to: manifest.encryption?.recipient ?? null,
    bytes: files.reduce((sum, { size }) => sum + size, 0),
    stored_bytes: stored.reduce((sum, size) => sum + size, 0),
    hypervisor: choice.hypervisor,
    version: manifest.vmm_version,
    accelerator: choice.accelerator,
    machine_type: choice.machine_type,
    processor_model: choice.processor_model,
    same_build_only: manifest.same_build_only,
    address: manifest.cards[0]?.address ?? null,
    image_hash: spec.hash ?? null,
    folder,
  };
}
