import { EventLoop } from "../../event-loop/event-loop.ts";
import { startWorker } from "../../event-loop/worker-factory.ts";
import { ProgramRunner, type RunOptions } from "../perform/run-program.ts";
import type { Say } from "./words.ts";

/** Runs a program to its end. @returns its exit code */
export async function runProgram(options: RunOptions, say: Say): Promise<number> {
  using loop = new EventLoop(startWorker);
  using runner = new ProgramRunner(loop, options, say);
  loop.onFailure((failure) => runner.fail(failure));
  return await runner.run();
}
