import {
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { InstanceGroup, sweepGroups } from "../../event-loop/instance-groups.ts";
import { ownCgroup } from "../../event-loop/own-cgroup.ts";
import { placeOf } from "../cgroup-place.ts";
import {
  type Controller,
  controllers,
  type LimitLine,
  linesOf,
  type MachineLimits,
} from "../machine-limits.ts";

/** What the worker has of cgroups. */
export type CgroupStatus =
  | {
      readonly kind: "on";
      readonly parent: string;
      readonly controllers: readonly Controller[];
      /** Why some are not there; undefined where all are. */
      readonly lacking: string | undefined;
    }
  | { readonly kind: "off"; readonly reason: string };

/** What a VMM and all that is in its cgroup has used; null where nobody can tell. */
export interface CgroupUse {
  readonly processorSeconds: number | null;
  /** In which it would have run, and was held back by cpu.max. */
  readonly throttledSeconds: number | null;
  readonly memory: number | null;
  /** By the kernel, because it was at its limit of memory. */
  readonly outOfMemoryKills: number | null;
}

/** Limits that were declared cannot be kept on this host, or as it is now. */
export class LimitsRefused extends Error {
  override readonly name = "LimitsRefused";
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

export interface GroupWish {
  readonly limits: MachineLimits | undefined;
  /** The folder whose device ioMax is about. */
  readonly disks: string;
  readonly onTrouble: (message: string) => void;
}

/** The cgroups of all VMMs of a worker: one folder for each, named by its invocation. */
export class MachineCgroups {
  readonly status: CgroupStatus;

  private constructor(status: CgroupStatus) {
    this.status = status;
  }

  /** @param configured "auto", "off", or the folder in which each VMM gets one */
  static open(configured: string): MachineCgroups {
    const place = placeOf(configured, ownCgroup());
    if (place.kind === "off") return new MachineCgroups(place);
    const { parent, base, obstacle } = place;
    try {
      mkdirSync(parent, { recursive: true, mode: 0o755 });
      if (!existsSync(`${parent}/cgroup.kill`)) {
        const reason = `${parent} has no cgroup.kill, which is of Linux 5.14`;
        return new MachineCgroups({ kind: "off", reason });
      }
    } catch (error) {
      const reason = `cannot make ${parent}: ${messageOf(error)}`;
      return new MachineCgroups({ kind: "off", reason });
    }
    const refused = obstacle ?? enable(base) ?? enable(parent);
    const usable = enabledIn(parent);
    const missing = controllers.filter((one) => !usable.includes(one));
    const lacking =
      missing.length === 0
        ? undefined
        : `${missing.join(", ")}: ${refused ?? `this kernel does not offer them in ${parent}`}`;
    sweepGroups(parent);
    return new MachineCgroups({ kind: "on", parent, controllers: usable, lacking });
  }

  /**
   * A folder for a VMM that is about to be started; undefined where there are none, and none is
   * needed. It stays locked until `inhabited` or `remove`.
   * @throws LimitsRefused where declared limits cannot be kept: it does not start without them
   */
  make(invocation: string, { limits, disks, onTrouble }: GroupWish): InstanceGroup | undefined {
    const { status } = this;
    if (status.kind === "off") {
      if (limits === undefined) return undefined;
      throw new LimitsRefused(`It has limits, and no cgroup to keep them: ${status.reason}`);
    }
    const group = makeGroup(status.parent, invocation, { limits, onTrouble });
    if (group === undefined) return undefined;
    try {
      const declared = linesFor(limits ?? {}, disks).filter(({ isDeclared }) => isDeclared);
      for (const line of declared) writeLine(group.path, line, status);
      return group;
    } catch (error) {
      group.remove();
      throw error;
    }
  }

  /**
   * Other limits for a VMM that runs.
   * @throws LimitsRefused where one cannot be kept; the others stand
   */
  adjust(
    invocation: string,
    { limits, disks }: { readonly limits: MachineLimits | undefined; readonly disks: string },
  ): void {
    const { status } = this;
    const path = this.pathOf(invocation);
    if (path === undefined || status.kind === "off") {
      if (limits === undefined) return;
      throw new LimitsRefused("It has limits, and its VMM no cgroup: they are kept from its next");
    }
    let refused: unknown;
    for (const line of linesFor(limits ?? {}, disks)) {
      if (!line.isDeclared && !existsSync(join(path, line.file))) continue;
      try {
        writeLine(path, line, status);
      } catch (error) {
        if (line.isDeclared) refused ??= error;
      }
    }
    if (refused !== undefined) throw refused;
  }

  /** The worker's, where its VMMs have their own; undefined where they have none. */
  get own(): string | undefined {
    const { mount, own } = ownCgroup();
    const isHidden = mount === undefined || own === undefined || own.startsWith("/..");
    return this.status.kind === "off" || isHidden ? undefined : join(mount, own);
  }

  /** Of a VMM that has one. */
  pathOf(invocation: string): string | undefined {
    if (this.status.kind === "off") return undefined;
    const path = join(this.status.parent, invocation);
    return existsSync(path) ? path : undefined;
  }

  /** Kills whoever a dead VMM has left in its cgroup, and removes that. */
  clear(loop: EventLoop, invocation: string, onGone: () => void): void {
    const path = this.pathOf(invocation);
    if (path === undefined) onGone();
    else InstanceGroup.left(dirname(path), invocation).clear(loop, onGone);
  }

  measure(invocation: string): CgroupUse | undefined {
    const path = this.pathOf(invocation);
    if (path === undefined) return undefined;
    const used = numberAfter(readText(join(path, "cpu.stat")), "usage_usec");
    const throttled = numberAfter(readText(join(path, "cpu.stat")), "throttled_usec");
    const memory = readText(join(path, "memory.current"));
    return {
      processorSeconds: used === null ? null : used / 1e6,
      throttledSeconds: throttled === null ? null : throttled / 1e6,
      memory: memory === undefined ? null : Number(memory),
      outOfMemoryKills: numberAfter(readText(join(path, "memory.events")), "oom_kill"),
    };
  }

  /** Takes the machines' folder down where nobody is in it. */
  close(): void {
    if (this.status.kind === "off" || basename(this.status.parent) !== "machines") return;
    try {
      rmdirSync(this.status.parent);
    } catch {
      // EBUSY: machines run on in it.
    }
  }
}

/** Without limits a machine may run where no folder can be made for it, which is told. */
function makeGroup(
  parent: string,
  invocation: string,
  { limits, onTrouble }: Pick<GroupWish, "limits" | "onTrouble">,
): InstanceGroup | undefined {
  try {
    return InstanceGroup.make(parent, invocation);
  } catch (error) {
    if (limits !== undefined) throw error;
    onTrouble(`its VMM has no cgroup of its own: ${messageOf(error)}`);
    return undefined;
  }
}

function linesFor(limits: MachineLimits, disks: string): LimitLine[] {
  const device = blockDeviceOf(disks);
  if (typeof device === "string") return linesOf(limits, device);
  if (limits.ioMax !== undefined) throw new LimitsRefused(`limits.ioMax: ${device.reason}`);
  return linesOf(limits, undefined);
}

/** @throws LimitsRefused with the key */
function writeLine(
  path: string,
  { controller, key, file, text }: LimitLine,
  status: Extract<CgroupStatus, { kind: "on" }>,
): void {
  if (!status.controllers.includes(controller)) {
    throw new LimitsRefused(`${key}: there is no controller ${controller}: ${status.lacking}`);
  }
  const place = join(path, file);
  if (!existsSync(place)) throw new LimitsRefused(`${key}: this kernel has no ${file}`);
  try {
    writeFileSync(place, text);
  } catch (error) {
    const message = `${key}: cannot write "${text}": ${messageOf(error)}`;
    throw new LimitsRefused(message, { cause: error });
  }
}

/** The number of the disk that a folder is on, as the kernel takes it: of the whole, not a part. */
function blockDeviceOf(folder: string): string | { readonly reason: string } {
  try {
    const { dev } = statSync(folder, { bigint: true });
    // makedev(3): what glibc does with the parts of a dev_t.
    const major = ((dev >> 32n) & 0xffff_f000n) | ((dev >> 8n) & 0xfffn);
    const minor = ((dev >> 12n) & 0xffff_ff00n) | (dev & 0xffn);
    const place = `/sys/dev/block/${major}:${minor}`;
    if (!existsSync(place))
      return { reason: `${folder} is on no block device (${major}:${minor})` };
    const found = realpathSync(place);
    const whole = existsSync(join(found, "partition")) ? dirname(found) : found;
    return readFileSync(join(whole, "dev"), "latin1").trim();
  } catch (error) {
    return { reason: `the device of ${folder} is not known: ${messageOf(error)}` };
  }
}

/** Gives what is below a group all the controllers that it has. @returns why not all were given */
function enable(group: string): string | undefined {
  const offered = (readText(join(group, "cgroup.controllers")) ?? "").trim().split(" ");
  let refusal: string | undefined;
  for (const controller of controllers) {
    if (!offered.includes(controller)) continue;
    try {
      // Each by itself: one that is refused must not take the others along.
      writeFileSync(join(group, "cgroup.subtree_control"), `+${controller}`);
    } catch (error) {
      refusal ??= `cannot enable ${controller} in ${group}: ${messageOf(error)}`;
    }
  }
  return refusal;
}

function enabledIn(group: string): Controller[] {
  const enabled = (readText(join(group, "cgroup.subtree_control")) ?? "").trim().split(" ");
  return controllers.filter((one) => enabled.includes(one));
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return undefined;
  }
}

function numberAfter(text: string | undefined, word: string): number | null {
  const found = new RegExp(`^${word} (\\d+)$`, "m").exec(text ?? "")?.[1];
  return found === undefined ? null : Number(found);
}
