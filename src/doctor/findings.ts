/** What the probes found on this host: plain values, which judgement.ts turns into advice. */

/** A feature that was really tried. */
export interface Trial {
  readonly outcome: "works" | "absent" | "untried";
  /** What was seen, or why it could not be tried; completes "found: …". */
  readonly detail: string;
}

/** The features that are tried by system calls. */
export const callFeatures = [
  "pidfd_open",
  "exit_information",
  "process_group_signal",
  "peer_process",
  "close_range",
] as const;

export type CallFeature = (typeof callFeatures)[number];

/** All that the doctor knows of a host. */
export interface Findings {
  /** As uname -r has it: "6.12.0-55.el10". */
  readonly kernelRelease: string;
  /** Undefined where /proc is not mounted, which most other findings need. */
  readonly ownStatus: OwnStatus | undefined;
  /** Undefined when libc could not be called, which `callRefusal` then explains. */
  readonly library:
    | { readonly name: "glibc" | "musl"; readonly version: string | undefined }
    | undefined;
  readonly callRefusal: string | undefined;
  readonly calls: Readonly<Record<CallFeature, Trial>>;
  readonly cgroup: CgroupFindings;
  /** Namespaces of the kernel, each with how many of it may be made. */
  readonly namespaces: Readonly<Record<string, number>>;
  readonly security: SecurityFindings;
  readonly limits: LimitFindings;
  /** The folders of the sockets that are used when none is named. */
  readonly socketFolders: readonly SocketFolder[];
  /** Names of environment variables that change what Bun does. */
  readonly bunVariables: readonly string[];
}

/** Of /proc/self/status. */
export interface OwnStatus {
  readonly user: number;
  /** Bit n stands for the capability with number n. */
  readonly effectiveCapabilities: bigint;
}

export interface CgroupFindings {
  /** Where cgroup v2 is mounted; undefined when it is not. */
  readonly mount: string | undefined;
  /** True when version 1 has the controllers and version 2 is mounted beside it. */
  readonly isHybrid: boolean;
  /** Our own cgroup's folder. */
  readonly folder: string | undefined;
  /** Controllers that children of our cgroup may use. */
  readonly controllers: readonly string[];
  /** A child cgroup was made, and has cgroup.kill. */
  readonly kill: Trial;
}

export interface SecurityFindings {
  /** Security modules in their order; undefined where the kernel does not tell. */
  readonly modules: readonly string[] | undefined;
  readonly selinux: "enforcing" | "permissive" | "absent";
  /** Our own label, such as an SELinux context. */
  readonly label: string | undefined;
}

export interface SocketFolder {
  /** Whose it is, such as "orchestrator". */
  readonly user: string;
  readonly path: string;
  /** Why no socket can be made in it, as the name of an error number; undefined when it can. */
  readonly refusal: string | undefined;
}

/** Undefined where the file in /proc is not there. */
export interface LimitFindings {
  /** The hard limit on open descriptors of this process. */
  readonly descriptors: number | undefined;
  readonly processNumbers: number | undefined;
  readonly threads: number | undefined;
  /** Datagrams that wait in a Unix socket. */
  readonly datagrams: number | undefined;
}
