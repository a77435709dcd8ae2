/** /bin/true in a tight loop: no ending is lost, and nothing grows. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import type { ProcessEventRecord } from "../../src/process/protocol.ts";
import {
  allPlaces,
  begin,
  bothPlaces,
  type Place,
  type Running,
} from "../support/orchestrator-partition.ts";
import { onlyInAll } from "../support/rotation.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(600_000);

interface Usage {
  readonly descriptors: number;
  readonly anonymousKibibytes: number;
}

function usageOf(processId: number): Usage {
  const text = readFileSync(`/proc/${processId}/smaps_rollup`, "latin1");
  return {
    descriptors: readdirSync(`/proc/${processId}/fd`).length,
    anonymousKibibytes: Number(/^Anonymous:\s+(\d+) kB/m.exec(text)?.[1]),
  };
}

/** Kibibytes that a heap comes to vary by; 1.5 KiB leaked at each of 8,000 starts are more. */
const HEAP_SLACK = 12_000;
/** A descriptor or two may be on its way. */
const DESCRIPTOR_SLACK = 3;

/** The least of several looks: a heap grows and is swept, and a pidfd comes and goes. */
function least(looks: readonly Usage[]): Usage {
  return {
    descriptors: Math.min(...looks.map((look) => look.descriptors)),
    anonymousKibibytes: Math.min(...looks.map((look) => look.anonymousKibibytes)),
  };
}

/**
 * Between a fifth and two fifths of the way is where it was warm; the last fifth is after. What a
 * busy machine had no time to sweep by then is swept when the loop has ended; what leaks is not.
 */
async function expectNoGrowth(processId: number, looks: readonly Usage[]): Promise<void> {
  const fifth = Math.floor(looks.length / 5);
  const before = least(looks.slice(fifth, 2 * fifth));
  const after = least(looks.slice(-fifth));
  expect(after.descriptors).toBeLessThanOrEqual(before.descriptors + DESCRIPTOR_SLACK);
  const most = before.anonymousKibibytes + HEAP_SLACK;
  if (after.anonymousKibibytes <= most) return;
  const isSwept = () => usageOf(processId).anonymousKibibytes <= most;
  await waitFor(`at most ${most} KiB in process ${processId}`, isSwept, 60_000);
}

/** Every start that was made has ended exactly once, with status 0. */
function expectEveryEnding(events: readonly ProcessEventRecord[]): void {
  const endings = new Map<string, ProcessEventRecord[]>();
  for (const event of events) {
    if (event.what !== "ended") continue;
    const invocation = event.invocation ?? "";
    endings.set(invocation, [...(endings.get(invocation) ?? []), event]);
  }
  const started = events.filter((event) => event.what === "started");
  const stopped = events.find((event) => event.what === "stop-requested")?.invocation;
  const wrong = started.filter(({ invocation = "" }) => {
    const [ending, ...more] = endings.get(invocation) ?? [];
    // The last one was asked to stop, and may have died of that.
    if (invocation === stopped && more.length === 0) return ending === undefined;
    const zero = ending?.ending?.kind === "exited" && ending.ending.status === 0;
    return !zero || more.length > 0;
  });
  expect(wrong).toEqual([]);
  expect(endings.size).toBe(started.length);
}

async function loop(running: Running, starts: number): Promise<void> {
  const { orchestrator, agent } = running;
  const watched = [orchestrator.program.processId, ...(agent === 0 ? [] : [agent])];
  const looks = watched.map((): Usage[] => []);
  const LOOKS = 50;
  for (let look = 1; look <= LOOKS; look++) {
    await orchestrator.started("it", Math.ceil((starts * look) / LOOKS), 120_000);
    watched.forEach((processId, index) => {
      looks[index]?.push(usageOf(processId));
    });
  }
  await orchestrator.client.request("stop", { name: "it" });
  await orchestrator.client.request("wait", { name: "it", until: "stopped" });
  const { restarts } = await orchestrator.summary("it");
  for (const [index, seen] of looks.entries()) await expectNoGrowth(watched[index] ?? 0, seen);
  // The stop is answered on one connection, and events come on another. Where only its agent can
  // tell how a process ended, that may come later still.
  const count = (events: readonly ProcessEventRecord[], what: string) =>
    events.filter((event) => event.what === what).length;
  await orchestrator.events.until(
    "every ending",
    (events) => count(events, "started") > restarts && count(events, "ended") > restarts,
  );
  expectEveryEnding(orchestrator.events.items);
  expect(orchestrator.events.story("backing-off", "failed", "uncertain")).toEqual([]);
}

function loopTest(place: Place, count: number): void {
  test(`${count} starts of true: ${place.title}`, async () => {
    using folder = temporaryFolder();
    const lines = '[process.it]\n@here\ncommand = ["/bin/true"]\nbackoff = "none"\n';
    await using running = await begin(place, folder, lines);
    await loop(running, count);
  });
}

skipUnless("a tight loop", root, () => {
  for (const place of bothPlaces) loopTest(place, 1_000);
  onlyInAll(() => {
    for (const place of allPlaces) loopTest(place, 10_000);
  });
});
