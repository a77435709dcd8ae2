import { chmodSync, chownSync, mkdirSync } from "node:fs";
import type { Choice } from "../../hypervisor/choose.ts";
import { newInvocation } from "../invocation.ts";
import { type MachineRecord, newRecord, type RecordedChoice } from "../machine-record.ts";
import type { SnapshotManifest } from "../snapshot-manifest.ts";
import type { Captures } from "./captures.ts";
import { passStep } from "./kill-points.ts";
import type { MachineFolders } from "./machine-folders.ts";
import { type SnapshotProgress, SnapshotRefused, type Snapshots } from "./snapshots.ts";
import type { WorkerNetworks } from "./worker-networks.ts";

interface Tools {
  readonly folders: MachineFolders;
  readonly snapshots: Snapshots;
  readonly captures: Captures;
  readonly network: WorkerNetworks;
  readonly boot: string;
  choose(recorded: RecordedChoice | null): Choice;
}

/** What a snapshot held, ready to be a machine's; undone when disposed, unless it was kept. */
export interface Restoration extends Disposable {
  readonly manifest: SnapshotManifest;
  /** Under which state and memory are held. */
  readonly capture: string;
  /** Gives the disks to the machine's user. @returns what is to be recorded of the machine */
  give(user: number): MachineRecord;
  /** Somebody else looks after all of it from now on. */
  keep(): void;
}

/**
 * Makes of a snapshot what a machine is made of: verifies all of its files, has memory and state
 * held, puts the disks back, and reserves the address. No machine's record speaks of it yet: when
 * the worker dies, the next one removes the folder and lets go of what is held.
 * @throws SnapshotRefused; Error (ENOSPC …); the signal's reason. Nothing of it is left then.
 */
export async function restoreSnapshot(
  tools: Tools,
  manifest: SnapshotManifest,
  options: {
    readonly key: string | undefined;
    readonly signal: AbortSignal;
    readonly onProgress: (progress: SnapshotProgress) => void;
  },
): Promise<Restoration> {
  const { folders, snapshots, captures, network, boot } = tools;
  const { machine, spec, cards, choice, image } = manifest;
  refuseUnfit(manifest, tools.choose(manifest.choice));
  const refusal = network.reserve(spec, cards);
  if (refusal !== undefined) throw new SnapshotRefused("unfit", refusal);
  const capture = newInvocation();
  let isKept = false;
  let isMade = false;
  const undo = () => {
    if (isKept) return;
    isKept = true;
    network.unreserve(machine);
    void captures.forget(capture);
    if (isMade) folders.remove(machine);
  };
  try {
    const folder = folders.folderOf(machine);
    const disksFolder = folders.disksOf(machine);
    for (const path of [folder, disksFolder]) {
      mkdirSync(path);
      isMade = true;
      chmodSync(path, 0o711);
    }
    using loaded = await snapshots.load(manifest, { ...options, disks: disksFolder });
    passStep("restoration:loaded");
    await captures.keep(capture, loaded.state, loaded.memory);
    passStep("restoration:held");
    const { disks } = loaded;
    return {
      manifest,
      capture,
      give: (user) => {
        for (const path of disks) chownSync(path, user, user);
        // Whoever restores a machine has made it by hand, whatever was declared before.
        return newRecord({ spec, allocation: { user, cards }, choice, image, boot });
      },
      keep: () => {
        isKept = true;
      },
      [Symbol.dispose]: undo,
    };
  } catch (error) {
    undo();
    throw error;
  }
}

/** @throws SnapshotRefused where no VMM of this host can take the state */
function refuseUnfit(manifest: SnapshotManifest, choice: Choice): void {
  const { machine, snapshot, vmm_version: version, same_build_only: bound } = manifest;
  const what = `The snapshot ${machine}/${snapshot}`;
  if (choice.kind === "refused") {
    throw new SnapshotRefused("unfit", `${what} cannot be restored here: ${choice.reason}`);
  }
  const { program } = choice;
  if (bound === null || program.version === version) return;
  throw new SnapshotRefused(
    "unfit",
    `${what}: expected ${program.hypervisor} ${version}, which made it, received ` +
      `${program.version}: ${bound}. Install that version, or have it named in the configuration.`,
  );
}
