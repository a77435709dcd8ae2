/** An orchestrator whose holder has all that another one needs, and what becomes of it. */
import * as v from "valibot";
import { aboutSchema } from "../../src/process/protocol.ts";
import { holdersOf } from "./holding.ts";
import type { TestOrchestrator } from "./orchestrator.ts";
import { waitFor } from "./wait-for.ts";

/** A configuration that begins with this has no holder: a crash ends what runs. */
export const withoutHolder = "[orchestrator]\nholder = false\n";

/** Descriptors that are kept of a process that logs and runs: four ends of pipes, and its pidfd. */
const KEPT_A_PROCESS = 5;

/** Until its holder has a journal, and all of so many processes that log and run. */
export async function kept(orchestrator: TestOrchestrator, processes = 1): Promise<void> {
  await keptDescriptors(orchestrator, 1 + processes * KEPT_A_PROCESS);
}

/** Until its holder has so many descriptors. */
export async function keptDescriptors(orchestrator: TestOrchestrator, least: number) {
  await waitFor(`${least} kept descriptors`, async () => {
    const about = v.parse(aboutSchema, await orchestrator.client.request("about"));
    return (about.holder?.kept ?? 0) >= least;
  });
}

/** Ends it as nothing else does, and gives back when it is gone. */
export async function killOrchestrator({ program }: TestOrchestrator): Promise<void> {
  program.kill("SIGKILL");
  await program.ended();
}

/** Ends the holder, and with it all that it keeps. */
export async function killHolder(controlSocket: string): Promise<void> {
  for (const processId of holdersOf(controlSocket)) process.kill(processId, "SIGKILL");
  await waitFor("the end of the holder", () => holdersOf(controlSocket).length === 0);
}
