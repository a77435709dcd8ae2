/** What the probes found of this host's live update: plain values, to be judged apart. */
import type { KernelConfiguration } from "../units/linux-kernel.ts";
import type { OwnStatus } from "./findings.ts";

/** Undefined is what the host does not tell. */
export interface LiveUpdateFindings {
  /** As uname -r has it. */
  readonly kernelRelease: string;
  readonly configuration: FoundConfiguration | undefined;
  /** Of the running kernel: /proc/cmdline. */
  readonly commandLine: string | undefined;
  readonly device: DeviceFindings;
  /** What the kernel said of live update and kexec handover since it was booted, the last lines. */
  readonly kernelMessages: readonly string[] | undefined;
  readonly kexec: KexecFindings;
  readonly ownStatus: OwnStatus | undefined;
  /** Whether reboot(2) reaches the kernel, and does not merely end a container. */
  readonly isInitialPidNamespace: boolean | undefined;
  readonly init: InitFindings;
}

export interface FoundConfiguration {
  readonly options: KernelConfiguration;
  /** The file that it was read from. */
  readonly source: string;
}

export interface DeviceFindings {
  /** The number that the kernel gave it, in /proc/misc. "absent" where that does not list it. */
  readonly minor: number | "absent" | undefined;
  readonly node: DeviceNode;
  readonly opening: DeviceOpening;
}

export type DeviceNode =
  | { readonly kind: "absent" }
  | { readonly kind: "no device" }
  | {
      readonly kind: "device";
      readonly major: number;
      readonly minor: number;
      /** Permissions alone: 0o600. */
      readonly mode: number;
      readonly user: number;
    };

export type DeviceOpening =
  | { readonly outcome: "opened" }
  | { readonly outcome: "untried" }
  | {
      readonly outcome: "refused";
      /** "EBUSY". */
      readonly code: string;
      /** Who has it open; looked for after EBUSY alone. */
      readonly holders: HolderSearch | undefined;
    };

export interface HolderSearch {
  readonly holders: readonly { readonly process: number; readonly name: string }[];
  /** False when there were more descriptors than are looked at, or some that we may not see. */
  readonly isComplete: boolean;
}

export interface KexecFindings {
  readonly isLoadDisabled: boolean | undefined;
  /** How often a kernel may still be loaded or unloaded; -1 for no limit. */
  readonly loadLimit: number | undefined;
  /** "none", "integrity" or "confidentiality". */
  readonly lockdown: string | undefined;
}

export interface InitFindings {
  /** The name of PID 1. */
  readonly name: string | undefined;
  readonly systemdVersion: number | undefined;
}
