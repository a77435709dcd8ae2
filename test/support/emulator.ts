/** Running the arm64 files on another machine, under qemu's user emulation. */
import { file, program } from "./skips.ts";

const libraries = "/usr/aarch64-linux-gnu";

/** What a test of an arm64 file needs. */
export const emulatorFeatures = [
  program("qemu-aarch64-static", "qemu-user-static"),
  file(`${libraries}/lib/libc.so.6`, "libc6-arm64-cross"),
];

/**
 * The words before an arm64 file's own. JavaScriptCore's helper threads are off: they stop one
 * another by signals, of which qemu-user loses one in some tens of runs, and then the file dies of
 * SIGUSR2 or of a null pointer (2 of 40 runs with them, 0 of 40 without).
 */
export function emulated(binary: string): string[] {
  const calm = ["useConcurrentGC=0", "useConcurrentJIT=0", "numberOfGCMarkers=1"];
  const settings = calm.flatMap((setting) => ["-E", `BUN_JSC_${setting}`]);
  return [Bun.which("qemu-aarch64-static") ?? "", ...settings, "-L", libraries, binary];
}
