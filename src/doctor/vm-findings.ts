/** What the probes found of this host as one for virtual machines: plain values. */
import type { HypervisorObservations } from "../hypervisor/choose.ts";
import type { ObservedNetwork } from "../network/observation.ts";
import type { Bytes, ProcessId } from "../units/units.ts";
import type { CgroupPlace } from "../vm/cgroup-place.ts";
import type { WorkerConfiguration } from "../vm/worker-configuration.ts";
import type { CgroupFindings, OwnStatus } from "./findings.ts";

export interface VmFindings {
  /** The worker's, which says what of this host it is going to use. */
  readonly configuration: WorkerConfiguration;
  readonly ownStatus: OwnStatus | undefined;
  readonly hypervisors: HypervisorObservations;
  /** /dev/net/tun */
  readonly tun: Opening;
  /** /dev/vhost-vsock */
  readonly vsock: Opening;
  readonly network: NetworkFindings;
  readonly cgroup: CgroupFindings;
  /** The worker that has the artifacts folder; undefined where none runs. */
  readonly worker: WorkerPlace | undefined;
  readonly artifacts: FolderFindings;
  readonly run: FolderFindings;
  readonly firmware: { readonly path: string; readonly opening: Opening };
}

/** A worker that runs, and where its machines' cgroups are. */
export interface WorkerPlace {
  readonly processId: ProcessId;
  readonly place: CgroupPlace;
  /** That the group above the machines' may give them. */
  readonly controllers: readonly string[];
}

/** A file that was opened and closed at once. */
export type Opening =
  | { readonly outcome: "opened" }
  /** As the name of an error number: "ENOENT". */
  | { readonly outcome: "refused"; readonly code: string };

/** What the kernel told over netlink, of links and of nftables, or why it did not. */
export type NetworkFindings =
  | {
      readonly outcome: "observed";
      readonly observed: ObservedNetwork;
      /** By bridge: the artifacts folder of another worker that has it. */
      readonly otherUsers?: ReadonlyMap<string, string>;
    }
  | { readonly outcome: "refused"; readonly reason: string };

/** A folder that the worker writes to, and makes where it is not there. */
export interface FolderFindings {
  readonly path: string;
  /** The folder itself, or the nearest above it that is there. */
  readonly found: string;
  /** Why nothing can be made in it, as the name of an error number; undefined when it can. */
  readonly refusal: string | undefined;
  /** That this user may still fill; undefined where the file system does not tell. */
  readonly freeBytes: Bytes | undefined;
}
