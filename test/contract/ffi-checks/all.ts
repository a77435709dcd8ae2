import type { Check } from "./check.ts";
import { datagramChecks } from "./datagrams.ts";
import { descriptorChecks } from "./descriptors.ts";
import { diskChecks } from "./disks.ts";
import { errorChecks } from "./errors.ts";
import { layoutChecks } from "./layouts.ts";
import { liveUpdateChecks } from "./live-update.ts";
import { mappedMemoryChecks } from "./mapped-memory.ts";
import { processChecks } from "./processes.ts";
import { socketChecks } from "./sockets.ts";
import { spawnChecks } from "./spawning.ts";
import { streamChecks } from "./streams.ts";

/** Every check, by what it is about. */
export const checkGroups: Readonly<Record<string, readonly Check[]>> = {
  layouts: layoutChecks,
  errors: errorChecks,
  descriptors: descriptorChecks,
  sockets: socketChecks,
  datagrams: datagramChecks,
  streams: streamChecks,
  disks: diskChecks,
  spawning: spawnChecks,
  mappedMemory: mappedMemoryChecks,
  processes: processChecks,
  liveUpdates: liveUpdateChecks,
};
