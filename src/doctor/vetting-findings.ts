/** What the probes found of this host as one that vets, or is vetted: plain values. */
import type { Bytes } from "../units/units.ts";
import type { OwnStatus } from "./findings.ts";
import type { FolderFindings, Opening } from "./vm-findings.ts";

/** Where an orchestrator is to be: as its flags say. */
export interface VettingPlace {
  readonly stateDirectory: string;
  /** "ADDRESS:PORT" */
  readonly listen: string;
  readonly bootDirectory: string;
  /** undefined: no host boots from here. */
  readonly bootInterface: string | undefined;
}

export interface OrchestratorFindings {
  readonly place: VettingPlace;
  readonly ownStatus: OwnStatus | undefined;
  /** Milliseconds since 1970. */
  readonly clock: number;
  readonly state: FolderFindings;
  /** Why nobody can listen there, as the name of an error number. */
  readonly listenRefusal: string | undefined;
  /** undefined: nobody boots from here. */
  readonly boot:
    | {
        /** Its addresses; undefined: there is no such interface. */
        readonly addresses: readonly string[] | undefined;
        readonly files: readonly { readonly path: string; readonly size: Bytes | string }[];
      }
    | undefined;
}

export interface LiveImageFindings {
  readonly ownStatus: OwnStatus | undefined;
  readonly clock: number;
  /** /dev/kmsg */
  readonly kernelLog: Opening;
  /** /dev/ipmi0 */
  readonly serviceProcessor: Opening;
  /** Disks that are hardware, by their names in /dev. */
  readonly disks: readonly { readonly name: string; readonly opening: Opening }[];
  /** Memory controllers whose errors the kernel counts: /sys/devices/system/edac/mc. */
  readonly memoryControllers: readonly string[];
  /** /sys/devices/system/machinecheck is there. */
  readonly hasMachineChecks: boolean;
  /** The kind of file system that is mounted at these; undefined: none is. */
  readonly mounts: { readonly run: string | undefined; readonly pstore: string | undefined };
}
