import { EventLoop } from "../../event-loop/event-loop.ts";
import { startWorker } from "../../event-loop/worker-factory.ts";
import { FileHolder, type HoldOptions } from "../perform/hold-files.ts";
import type { Say } from "../run/words.ts";

/** Holds files until SIGTERM or SIGINT, or restores them once. @returns the exit code */
export async function holdFiles(options: HoldOptions, say: Say): Promise<number> {
  using loop = new EventLoop(startWorker);
  using holder = new FileHolder(loop, options, say);
  loop.onFailure((failure) => holder.fail(failure));
  return await holder.run();
}
