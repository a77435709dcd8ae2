/** A host on which an upgrade was committed, and not proven yet. */
import { readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { encodeJournal, type Journal } from "../../src/fleet/lifecycle-journal.ts";
import { readVerified } from "../../src/fleet/perform/layout-files.ts";
import type { Build } from "../../src/fleet/protocol.ts";
import { makeMarker } from "./fleet-agent/life.ts";

export function buildOf(place: string, name: string): Build {
  const record = readVerified(place, name);
  if (record === undefined) throw new Error(`${name} was never verified`);
  return { version: record.version, digest: record.digest };
}

/** Writes links and journal as an agent has them after the swap. @param place the installation */
export function writeSwapped(place: string, from: string, to: string): void {
  const [former, build] = [buildOf(place, from), buildOf(place, to)];
  const marker = makeMarker(1, { build });
  const journal: Journal = {
    format: 1,
    step: 7,
    boot: readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim(),
    floor: null,
    metadataVersion: 0,
    current: build,
    previous: former,
    seen: [],
    life: {
      phase: "swapped",
      ...{ marker, instance: null, from: former, before: null, lastWords: null },
      ...{ until: Number.MAX_SAFE_INTEGER, starts: 0, setbacks: 0, reason: null },
    },
  };
  writeFileSync(join(place, "journal.json"), encodeJournal(journal));
  symlinkSync(`versions/${to}`, join(place, "current"));
  symlinkSync(`versions/${from}`, join(place, "previous"));
}
