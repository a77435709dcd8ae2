import { posix } from "node:path";
import type { GroupPlace } from "../event-loop/instance-groups.ts";
import type { OwnCgroup } from "../event-loop/own-cgroup.ts";

/** Where processes have their cgroups that name no folder (`cgroup = "auto"`). Pure. */

/** The daemon's own subgroup, as our units ask systemd for (DelegateSubgroup=). */
export const SUPERVISOR_SUBGROUP = "supervisor";
/** Of all processes, beside it. */
const PROCESSES_GROUP = "processes";
/** Of all processes where nothing was delegated to the daemon, at the root of the hierarchy. */
const ROOT_GROUP = "hostler";

/**
 * An orchestrator that nothing was delegated to takes a group at the root of its host; an agent
 * stays in its partition.
 */
export function groupPlace(role: "orchestrator" | "agent", { mount, own }: OwnCgroup): GroupPlace {
  if (mount === undefined) return { refusal: "cgroup v2 is not mounted" };
  if (own === undefined) return { refusal: "it is in no cgroup of version 2" };
  // A path that leads out of the namespace begins with "/..".
  if (own.startsWith("/..")) return { refusal: "its cgroup is outside of its cgroup namespace" };
  if (posix.basename(own) === SUPERVISOR_SUBGROUP) {
    return { parent: posix.join(mount, posix.dirname(own), PROCESSES_GROUP) };
  }
  if (role === "orchestrator" || own === "/") return { parent: posix.join(mount, ROOT_GROUP) };
  return {
    refusal:
      `its cgroup, ${own}, is not its to divide: Delegate=yes and ` +
      `DelegateSubgroup=${SUPERVISOR_SUBGROUP} in its unit (systemd 254), or a cgroup namespace ` +
      "of its partition's own",
  };
}
