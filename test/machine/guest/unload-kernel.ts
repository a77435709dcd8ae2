/** Takes the loaded kernel back out, behind luod's back. */
import { unloadKernel } from "../../../ffi/kexec.ts";

process.exitCode = unloadKernel() === 0 ? 0 : 1;
