import { readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { openProcess, signalProcess } from "../../../ffi/pidfd.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { Signal } from "../../units/signals.ts";
import type { ProcessId } from "../../units/units.ts";
import { removeDisks } from "./disk-ownership.ts";
import type { MachineFolders, UnreadableRecord } from "./machine-folders.ts";

/** A machine whose record is damaged cannot be removed: what was expected, and the mend. */
export class RemovalRefused extends Error {
  override readonly name = "RemovalRefused";
}

/** Half a sentence: what is wrong with its record, and what to do. */
export function damagedText({ name, path, reason }: UnreadableRecord): string {
  return (
    `its record ${path} is not understood: ${reason}. Put that right and start the worker anew, ` +
    `or end its VMM and remove it by hostler vm delete ${name} --now`
  );
}

interface DamagedTools {
  readonly loop: EventLoop;
  readonly folders: MachineFolders;
  readonly network: {
    /** Of the TAPs that carry the machine's name. */
    ownersOf(name: string): readonly number[];
    abandon(name: string): Promise<void>;
  };
  readonly runFolder: string;
  /** Those of machines whose records are understood: none of them is this one's. */
  readonly knownUsers: ReadonlySet<number>;
}

/**
 * Removes a machine of which nobody knows more than its name: its VMM is known by its user, which
 * can be read in the record, or which has the TAPs of that name.
 * @throws RemovalRefused; DisksRefused; Error (EBUSY …)
 */
export async function removeDamaged(record: UnreadableRecord, tools: DamagedTools): Promise<void> {
  const { folders, network, runFolder } = tools;
  const users = usersOf(record, tools);
  for (const user of users) await endVmms(tools.loop, join(runFolder, String(user)), user);
  await network.abandon(record.name);
  for (const user of users) {
    rmSync(join(runFolder, String(user)), { recursive: true, force: true });
    rmSync(join(runFolder, `${user}.console`), { force: true });
  }
  // Whatever a master gave it with cannot be read: disks that one gave are somebody else's by now.
  if (removeDisks(folders.disksOf(record.name), 0)) folders.remove(record.name);
  else folders.removeAllBut(record.name, "disks");
}

function usersOf({ name, path, legible }: UnreadableRecord, tools: DamagedTools): number[] {
  const { network, runFolder, knownUsers } = tools;
  const own = [...new Set([...legible.users, ...network.ownersOf(name)])];
  const users = own.filter((user) => !knownUsers.has(user));
  if (users.length > 0) return users;
  const strays = readdirSync(runFolder)
    .filter((entry) => /^\d+$/.test(entry) && !knownUsers.has(Number(entry)))
    .filter((entry) => vmmsOf(join(runFolder, entry), Number(entry)).length > 0);
  // Nobody's VMM runs, and so it has none.
  if (strays.length === 0) return [];
  throw new RemovalRefused(
    `Cannot remove ${name}: expected a user of its VMM in ${path}, or a TAP of its name, ` +
      `received neither, while VMMs of nobody known run (of users ${strays.join(", ")}). End ` +
      "the one that is its own, and say it again.",
  );
}

/** SIGKILL, and their ends are waited for: a disk that is removed is nobody's any more. */
async function endVmms(loop: EventLoop, folder: string, user: number): Promise<void> {
  for (const processId of vmmsOf(folder, user)) {
    // Looked at again by the descriptor: the number alone may be another's by now.
    using process = openProcess(processId);
    if (process === undefined || !isVmm(processId, folder, user)) continue;
    const ended = Promise.withResolvers<void>();
    using _watch = loop.watch(process, "readable", () => ended.resolve());
    if (signalProcess(process, Signal.SIGKILL) !== "sent") continue;
    await ended.promise;
  }
}

function vmmsOf(folder: string, user: number): ProcessId[] {
  return readdirSync("/proc")
    .filter((entry) => /^\d+$/.test(entry))
    .map(Number)
    .filter((processId) => isVmm(processId, folder, user));
}

/** Another worker of this host gives out the same users; its VMMs have other folders. */
function isVmm(processId: ProcessId, folder: string, user: number): boolean {
  try {
    const isOwn = statSync(`/proc/${processId}`).uid === user;
    return isOwn && readFileSync(`/proc/${processId}/cmdline`, "latin1").includes(`${folder}/`);
  } catch {
    // It ended meanwhile.
    return false;
  }
}
