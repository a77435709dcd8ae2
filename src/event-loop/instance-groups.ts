import {
  constants,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname } from "node:path";
import { tryLock } from "../../ffi/flock.ts";
import { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import type { EventLoop } from "./event-loop.ts";

/** Cgroups of instances: a folder of its own for each, below a parent that the user names. */

const CLEAR_AGAIN_AFTER = 100;

/** How often a folder is made that somebody else takes for an empty leftover meanwhile. */
const ATTEMPTS = 10;

/** Names of our folders: an invocation. */
const INVOCATION = /^[0-9a-f]{32}$/;

/** What an open cgroup.events says now. */
function isPopulated(events: OwnedDescriptor): boolean {
  const bytes = new Uint8Array(256);
  try {
    const length = readSync(events.number, bytes, 0, bytes.length, 0);
    return new TextDecoder().decode(bytes.subarray(0, length)).includes("populated 1");
  } catch (error) {
    // Its folder was removed meanwhile, so nobody was in it.
    if ((error as { code?: string }).code === "ENODEV") return false;
    throw error;
  }
}

/** Removes an empty folder; one that somebody is in, or that is gone already, is left alone. */
function removeFolder(path: string): void {
  try {
    rmdirSync(path);
  } catch {
    // EBUSY: somebody is in it. ENOENT: gone already.
  }
}

/**
 * Opens a folder and takes its lock: whoever makes one holds it until somebody is in it, so that
 * nobody takes it for a leftover. The lock of a daemon that was killed is gone with it.
 */
function lockFolder(path: string): OwnedDescriptor | undefined {
  let folder: OwnedDescriptor;
  try {
    folder = new OwnedDescriptor(openSync(path, constants.O_RDONLY | constants.O_DIRECTORY));
  } catch {
    return undefined;
  }
  if (tryLock(folder) && isStill(path, folder)) return folder;
  folder.close();
  return undefined;
}

function isStill(path: string, folder: OwnedDescriptor): boolean {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false });
  return found?.ino === fstatSync(folder.number, { bigint: true }).ino;
}

/** One instance's cgroup v2 folder: made before its start, killed and removed after its end. */
export class InstanceGroup {
  readonly path: string;
  #lock: OwnedDescriptor | undefined;

  private constructor(path: string, lock: OwnedDescriptor | undefined) {
    this.path = path;
    this.#lock = lock;
  }

  /** One that an earlier daemon made. */
  static left(parent: string, invocation: string): InstanceGroup {
    return new InstanceGroup(`${parent}/${invocation}`, undefined);
  }

  /** @throws Error (EACCES, ENOENT …) when the parent is no cgroup folder that we may use. */
  static make(parent: string, invocation: string): InstanceGroup {
    const path = `${parent}/${invocation}`;
    for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
      mkdirSync(path, { recursive: true, mode: 0o755 });
      if (!existsSync(`${path}/cgroup.events`)) break;
      const lock = lockFolder(path);
      if (lock !== undefined) return new InstanceGroup(path, lock);
    }
    removeFolder(path);
    throw new Error(`expected a folder of cgroup v2, received ${parent}`);
  }

  /** Its process is in it, so that nobody can take it for a leftover. */
  inhabited(): void {
    this.#lock?.close();
    this.#lock = undefined;
  }

  /** Kills all of it (cgroup.kill, Linux 5.14); calls `onGone` when the kernel says it is empty. */
  clear(loop: EventLoop, onGone: () => void): void {
    let events: OwnedDescriptor;
    try {
      writeFileSync(`${this.path}/cgroup.kill`, "1");
      events = new OwnedDescriptor(openSync(`${this.path}/cgroup.events`, "r"));
    } catch (error) {
      // Removed by somebody: nobody was in it. Else no descriptor is left: one will be.
      if (["ENOENT", "ENODEV"].includes((error as { code?: string }).code ?? "")) onGone();
      else loop.wakeAfter(CLEAR_AGAIN_AFTER, () => this.clear(loop, onGone));
      return;
    }
    const finish = () => {
      events.close();
      this.remove();
      onGone();
    };
    const watch = loop.watch(events, "priority", () => {
      if (isPopulated(events)) return;
      watch[Symbol.dispose]();
      finish();
    });
    // Asked after the watch stands: an earlier change would not be told.
    if (!isPopulated(events)) {
      watch[Symbol.dispose]();
      finish();
    }
  }

  /** Removes the empty folder; one that is not empty stays. */
  remove(): void {
    removeFolder(this.path);
    this.inhabited();
  }
}

/** Removes the empty folders that instances of a daemon which was killed have left in a parent. */
export function sweepGroups(parent: string): void {
  let names: string[];
  try {
    names = readdirSync(parent);
  } catch {
    // Not there: nothing is left in it.
    return;
  }
  for (const name of names) {
    if (!INVOCATION.test(name)) continue;
    const path = `${parent}/${name}`;
    using lock = lockFolder(path);
    if (lock !== undefined && existsSync(`${path}/cgroup.events`)) removeFolder(path);
  }
}

/** The folder for cgroups of instances that name none; or why there is none. */
export type GroupPlace = { readonly parent: string } | { readonly refusal: string };

/** In the place of a folder: below the one that is the daemon's own, where it has one. */
export const AUTOMATIC_GROUP = "auto";

/** The cgroups that one daemon made. */
export class InstanceGroups {
  readonly #place: GroupPlace;
  /** Parents that were not there before, and what was made above them; the deepest last. */
  readonly #made: string[];
  readonly #onMade: (path: string) => void;

  /** @param left what a daemon before this one made and did not take down, the deepest last */
  constructor(
    place: GroupPlace,
    left: readonly string[] = [],
    onMade: (path: string) => void = () => {},
  ) {
    this.#place = place;
    this.#made = [...left];
    this.#onMade = onMade;
  }

  /** The folder that is meant by a name; undefined where it is nobody's. */
  parentOf(name: string | undefined): string | undefined {
    if (name !== AUTOMATIC_GROUP) return name;
    return "parent" in this.#place ? this.#place.parent : undefined;
  }

  /** Of an instance that goes on without where the daemon has no folder, or may not make it. */
  makeAutomatic(invocation: string): InstanceGroup | { readonly refusal: string } {
    if ("refusal" in this.#place) return this.#place;
    const { parent } = this.#place;
    try {
      return this.make(parent, invocation);
    } catch (error) {
      return { refusal: `cannot make one in ${parent}: ${(error as Error).message}` };
    }
  }

  /** @throws Error (EACCES, ENOENT …) when the parent is no cgroup folder that we may use. */
  make(parent: string, invocation: string): InstanceGroup {
    sweepGroups(parent);
    const missing: string[] = [];
    for (let path = parent; !existsSync(path); path = dirname(path)) missing.unshift(path);
    try {
      const group = InstanceGroup.make(parent, invocation);
      this.#made.push(...missing);
      for (const path of missing) this.#onMade(path);
      return group;
    } catch (error) {
      for (const path of missing.toReversed()) removeFolder(path);
      throw error;
    }
  }

  /** Takes down again what was made, where nobody is in it any more. */
  close(): void {
    for (const path of this.#made.toReversed()) {
      sweepGroups(path);
      removeFolder(path);
    }
    this.#made.length = 0;
  }
}

/** Kills whoever is still in cgroups of instances that an earlier daemon left. */
export function clearLeftGroups(
  loop: EventLoop,
  left: readonly { readonly parent: string; readonly invocation: string }[],
  onGone: () => void,
): void {
  const groups = left
    .map(({ parent, invocation }) => InstanceGroup.left(parent, invocation))
    .filter(({ path }) => existsSync(`${path}/cgroup.events`));
  let waiting = groups.length;
  if (waiting === 0) onGone();
  for (const group of groups) {
    group.clear(loop, () => {
      waiting -= 1;
      if (waiting === 0) onGone();
    });
  }
}
