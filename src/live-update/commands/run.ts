import { type ClientFlags, readClientFlags, sayBeside } from "./client-flags.ts";

interface RunFlags extends ClientFlags {
  readonly ready: "started" | "notify";
  readonly command: readonly string[];
}

/** Runs a program whose memfds are carried through changes of the kernel. */
export async function runRun(flags: RunFlags): Promise<number> {
  const { ready, command, json } = flags;
  const choices = readClientFlags(flags);
  const { runProgram } = await import("../run/run.ts");
  return await runProgram({ ...choices, ready, command }, sayBeside(choices.id, json));
}
