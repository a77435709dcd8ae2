import { posix } from "node:path";
import type { OwnCgroup } from "../event-loop/own-cgroup.ts";

/** Where the cgroups of machines are: a folder of their own, beside the worker's. Pure. */

/** The worker's own subgroup, as our unit asks systemd for (DelegateSubgroup=). */
export const WORKER_SUBGROUP = "worker";
/** Of all machines, below the group that is the worker's to divide. */
export const MACHINES_GROUP = "machines";

export type CgroupPlace =
  | {
      readonly kind: "place";
      /** The folder in which each VMM gets one. */
      readonly parent: string;
      /** Whose controllers are to be given to what is below it. */
      readonly base: string;
      /** Why controllers are not to be enabled in it; undefined where they may be. */
      readonly obstacle: string | undefined;
    }
  | { readonly kind: "off"; readonly reason: string };

/**
 * @param configured "auto", "off", or the folder in which each VMM is to get one
 */
export function placeOf(configured: string, { mount, own }: OwnCgroup): CgroupPlace {
  if (configured === "off") return { kind: "off", reason: "the configuration says off" };
  if (mount === undefined) return { kind: "off", reason: "cgroup v2 is not mounted" };
  if (configured !== "auto") {
    const base = posix.dirname(configured);
    if (configured.startsWith(`${mount}/`)) {
      return { kind: "place", parent: configured, base, obstacle: undefined };
    }
    return { kind: "off", reason: `${configured} is not below ${mount}, where cgroup v2 is` };
  }
  if (own === undefined) return { kind: "off", reason: "the worker is in no cgroup v2" };
  // A path that leads out of the namespace begins with "/..".
  if (own.startsWith("/..")) {
    return { kind: "off", reason: "the worker's cgroup is outside of its cgroup namespace" };
  }
  const isSubgroup = posix.basename(own) === WORKER_SUBGROUP;
  const base = posix.join(mount, isSubgroup ? posix.dirname(own) : own).replace(/\/$/, "");
  // Where controllers are enabled no process may be (the root is an exception): systemd could not
  // start the unit again in a group that had them.
  const obstacle =
    isSubgroup || own === "/"
      ? undefined
      : `the worker is in ${base} itself: DelegateSubgroup=${WORKER_SUBGROUP} in its unit ` +
        "(systemd 254) gives it a group of its own";
  return { kind: "place", parent: `${base}/${MACHINES_GROUP}`, base, obstacle };
}
