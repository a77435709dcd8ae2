import {
  fstatSync,
  ftruncateSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  statSync,
  unlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { lockFile } from "../../ffi/flock.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { FileRefused, withFile } from "../journal/file-refused.ts";
import { hasOpen } from "../journal/lock-holder.ts";
import { readOwnership } from "./desired.ts";
import type { ObservedNetwork } from "./observation.ts";

/**
 * Whose a bridge is. Links and tables name the bridge alone, so that two workers with one bridge
 * would each take the other's for what is left over. One worker has a bridge, by a lock that lasts
 * as long as the worker; whose machines' cards are there stands in the lock's file, which outlives
 * it as they do. A file for each network namespace; all are gone with a boot, as the links are.
 */

/** Where these files are, whatever `run_dir` a worker has: all workers of a host look here. */
export const bridgeLocksFolder = "/run/hostler/vm-bridges";

const userSchema = v.object({
  /** The artifacts folder, by its canonical path. */
  folder: v.string(),
  process: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
});
export type BridgeUser = v.InferOutput<typeof userSchema>;

export interface BridgePlace {
  readonly bridge: string;
  /** What of the configuration names it: "network_bridge". */
  readonly key: string;
}

/** Whether there is something of this bridge's: links or tables that a hostler made. */
export function isBridgeInUse(bridge: string, observed: ObservedNetwork): boolean {
  const isOfIt = (alias: string | undefined) => readOwnership(alias)?.bridge === bridge;
  return (
    observed.links.some(({ alias }) => isOfIt(alias)) ||
    observed.tableNames.some(({ comment }) => isOfIt(comment))
  );
}

export class BridgeLock implements Disposable {
  readonly #path: string;
  readonly #file: OwnedDescriptor;

  private constructor(path: string, file: OwnedDescriptor) {
    this.#path = path;
    this.#file = file;
  }

  /**
   * @param folder of the worker's artifacts
   * @param observe asked where a worker with another folder had the bridge last
   * @throws FileRefused when that one lives, or cards of its machines are there
   */
  static take(
    { bridge, key }: BridgePlace,
    options: {
      readonly folder: string;
      readonly observe: () => ObservedNetwork;
      readonly locksFolder?: string;
    },
  ): BridgeLock {
    const { observe, locksFolder = bridgeLocksFolder } = options;
    const folder = realpathSync(options.folder);
    const path = pathOf(bridge, locksFolder);
    const refuse = (received: string, mend: string) =>
      new FileRefused(
        `Cannot make the network of ${bridge}: expected a bridge that no other worker uses, ` +
          `received ${received}. Name another one by ${key}, with a subnet of its own, or ${mend}.`,
      );
    const place = { what: "lock", path, otherwise: `name another bridge by ${key}` };
    const file = withFile(place, () => {
      mkdirSync(locksFolder, { recursive: true, mode: 0o755 });
      return lockAt(path);
    });
    const user = readUser(path);
    const whose = `that of the worker with ${user?.folder ?? "another folder"}`;
    if (file === "held") {
      const which = user === undefined ? "" : ` (process ${user.process})`;
      throw refuse(`${whose}${which}, which runs`, "stop that one and delete its machines");
    }
    if (user !== undefined && user.folder !== folder && isBridgeInUse(bridge, observe())) {
      file.close();
      const mend =
        "delete its machines by a worker with that folder; " +
        `if that folder was moved here, remove ${path}`;
      throw refuse(`${whose}, whose machines have cards there`, mend);
    }
    ftruncateSync(file.number);
    const own: BridgeUser = { folder, process: process.pid };
    writeSync(file.number, `${JSON.stringify(own)}\n`, 0);
    return new BridgeLock(path, file);
  }

  /** @param isInUse machines have cards there: it stays known whose these are */
  release({ isInUse }: { readonly isInUse: boolean }): void {
    if (!isInUse && isSameFile(this.#path, this.#file)) unlinkSync(this.#path);
    this.#file.close();
  }

  [Symbol.dispose](): void {
    this.release({ isInUse: true });
  }
}

/** Takes no file that somebody removed meanwhile: another one may have made one anew. */
function lockAt(path: string): OwnedDescriptor | "held" {
  for (;;) {
    const file = lockFile(path);
    if (file === "held" || isSameFile(path, file)) return file;
    file.close();
  }
}

function isSameFile(path: string, file: OwnedDescriptor): boolean {
  const found = statSync(path, { throwIfNoEntry: false });
  const own = fstatSync(file.number);
  return found?.ino === own.ino && found.dev === own.dev;
}

/** Network namespaces are known by their inode: namespaces(7). */
function pathOf(bridge: string, locksFolder: string): string {
  return join(locksFolder, `${statSync("/proc/self/ns/net").ino}-${bridge}`);
}

function readUser(path: string): BridgeUser | undefined {
  try {
    const parsed = v.safeParse(userSchema, JSON.parse(readFileSync(path, "utf8")));
    return parsed.success ? parsed.output : undefined;
  } catch {
    // It was never written, or is being written: then whoever writes it lives.
    return undefined;
  }
}

/**
 * The worker with another folder that has a bridge, for whoever only looks: it lives, or cards of
 * its machines are there. No lock is taken, which a worker that starts would meet.
 */
export function otherBridgeUser(
  bridge: string,
  options: {
    readonly folder: string;
    readonly observed: ObservedNetwork;
    readonly locksFolder?: string;
  },
): BridgeUser | undefined {
  const path = pathOf(bridge, options.locksFolder ?? bridgeLocksFolder);
  const user = readUser(path);
  if (user === undefined || user.folder === canonical(options.folder)) return undefined;
  const isThere = hasOpen(user.process, path) || isBridgeInUse(bridge, options.observed);
  return isThere ? user : undefined;
}

function canonical(folder: string): string {
  try {
    return realpathSync(folder);
  } catch {
    return folder;
  }
}
