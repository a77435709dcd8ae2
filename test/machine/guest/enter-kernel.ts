/** Enters the guest's own kernel once more, with the same command line. Ends only when refused. */
import { rebootInto } from "../../../ffi/kexec.ts";
import { loadOwnKernel } from "./load-kernel.ts";

loadOwnKernel();
console.log(`HOSTLER-NOTE the kexec was refused: error ${-rebootInto("kexec")}`);
process.exitCode = 1;
