/** Loads the guest's own kernel once more, with the same command line, for somebody to enter. */
import { readFileSync } from "node:fs";
import { loadKernel } from "../../../ffi/kexec.ts";
import { openFile } from "./open-file.ts";

/** @throws Error with the error's number */
export function loadOwnKernel(): void {
  using kernel = openFile("/boot/vmlinuz");
  const commandLine = readFileSync("/proc/cmdline", "utf8").trim();
  const loaded = loadKernel({ kernel, initrd: undefined, commandLine });
  if (loaded < 0) throw new Error(`the kernel was not loaded: error ${-loaded}`);
}

if (import.meta.main) loadOwnKernel();
