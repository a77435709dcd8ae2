import { release } from "node:os";
import { hostlerCommit, hostlerVersion } from "../units/version.ts";

/** What `--version` tells. */
export interface VersionReport {
  readonly version: string;
  readonly commit: string;
  readonly bun: string;
  readonly libc: string;
  readonly kernel: string;
}

export async function reportVersion(): Promise<VersionReport> {
  return {
    version: hostlerVersion,
    commit: hostlerCommit,
    bun: Bun.version,
    libc: await describeLibrary(),
    kernel: release(),
  };
}

/** "glibc 2.36"; where libc cannot be called, why. The version is told all the same. */
async function describeLibrary(): Promise<string> {
  try {
    const { cLibrary } = await import("../../ffi/c-library.ts");
    return [cLibrary.name, cLibrary.version].filter((word) => word !== undefined).join(" ");
  } catch (error) {
    return `none (${error instanceof Error ? error.message : String(error)})`;
  }
}
