/** Enters the guest's own kernel once more, with the same command line. Ends only when refused. */
import { readFileSync } from "node:fs";
import { loadKernel, rebootInto } from "../../../ffi/kexec.ts";
import { openFile } from "./open-file.ts";

using kernel = openFile("/boot/vmlinuz");
const commandLine = readFileSync("/proc/cmdline", "utf8").trim();
const loaded = loadKernel({ kernel, initrd: undefined, commandLine });
const refusal = loaded < 0 ? loaded : rebootInto("kexec");
console.log(`HOSTLER-NOTE the kexec was refused: error ${-refusal}`);
process.exitCode = 1;
