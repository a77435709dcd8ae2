import { ProgressLine } from "../../command-line/progress.ts";
import type { WorkerClient } from "../client.ts";
import type { VmSummary } from "../protocol.ts";

/** Between two looks at how far a preparation is. */
const LOOK_AGAIN_AFTER = 200;

type Phase = "created" | "running" | "paused" | "off" | "removed";

/**
 * Returns when the machine is in that phase, and shows meanwhile how far its image is.
 * @throws WorkerError when it does not come there by itself
 */
export async function awaitPhase(
  client: WorkerClient,
  name: string,
  until: Phase,
): Promise<VmSummary | null> {
  const reached = client.wait(name, until);
  const progress = showProgress(client, name, reached);
  try {
    return await reached;
  } finally {
    await progress;
  }
}

async function showProgress(
  client: WorkerClient,
  name: string,
  over: Promise<unknown>,
): Promise<void> {
  if (process.stderr.isTTY !== true) return;
  using line = new ProgressLine("verifying the image");
  const isOver = over.then(
    () => true,
    () => true,
  );
  while (!(await Promise.race([isOver, later()]))) {
    const summary = (await client.list()).find((one) => one.name === name);
    const found = summary?.progress;
    if (found != null) line.show(found.done_bytes, found.all_bytes ?? found.done_bytes);
  }
}

const later = (): Promise<false> =>
  new Promise((resolve) => {
    AbortSignal.timeout(LOOK_AGAIN_AFTER).addEventListener("abort", () => resolve(false));
  });
