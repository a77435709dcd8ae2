/**
 * The store between a compiled operator and its devices: parted from them in the middle of a write,
 * and put back to what it was before an upgrade that it had acknowledged.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { EventLoop } from "../../src/event-loop/event-loop.ts";
import { startWorker } from "../../src/event-loop/worker-factory.ts";
import { DeviceLink } from "../../src/fleet/device-link.ts";
import { DeviceSession } from "../../src/fleet/perform/device-session.ts";
import { type DeviceStatus, fleetBuckets } from "../../src/fleet/protocol.ts";
import { type Store, StoreError } from "../../src/store/store.ts";
import { saysDone } from "../support/authority.ts";
import { builds, heartbeatOf, hex, statusOf } from "../support/fleet-operator/device-life.ts";
import { TestFleet } from "../support/fleet-operator/test-fleet.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

/** From a write to its ambiguous end: the store's own deadline, on a machine that others use. */
const DEADLINE = 60_000;

/** The steps of the statuses that came into the store, in order. */
async function listen(store: Store, steps: number[], signal: AbortSignal): Promise<void> {
  for await (const event of store.watch(fleetBuckets.statuses, "box", { signal })) {
    if (event.kind !== "entry") continue;
    steps.push((JSON.parse(event.entry.value) as DeviceStatus).step);
  }
}

test("a status whose answer is lost to a partition is read back: it is there once", async () => {
  await using fleet = await TestFleet.start();
  const { directory } = await fleet.authority.enrolled("box");
  using loop = new EventLoop(startWorker);
  await using session = new DeviceSession(loop, directory, {
    ...{ onOpen: () => {}, onFailure: () => {}, onTrouble: () => {} },
  });
  const problems: string[] = [];
  const steps: number[] = [];
  const end = new AbortController();
  const listening = listen(session.store, steps, end.signal);
  // It is the device's own client; what its writes end with is looked at as well.
  const store = new Proxy<Store>(session.store, {
    get: (inner, name) => {
      const value = Reflect.get(inner, name) as unknown;
      if (name !== "put") return typeof value === "function" ? value.bind(inner) : value;
      return async (...words: Parameters<Store["put"]>) => {
        try {
          return await inner.put(...words);
        } catch (error) {
          if (error instanceof StoreError && words[0] === fleetBuckets.statuses) {
            problems.push(error.problem.kind);
          }
          throw error;
        }
      };
    },
  });
  const troubles: string[] = [];
  using link = new DeviceLink({
    ...{ store, loop, device: session.device, heartbeat: () => heartbeatOf() },
    ...{ onHeard: () => {}, onMarker: () => {}, onCandidateHeard: () => {} },
    onTrouble: (message) => troubles.push(message),
  });
  link.tellStatus(statusOf({ step: 1 }));
  await waitFor("the first status", () => steps.includes(1));
  const { daemon } = fleet.authority;
  daemon.kill("SIGSTOP");
  link.tellStatus(statusOf({ step: 2, transaction: hex("1", 32), phase: "staging" }));
  await waitFor("nobody knows what became of it", () => problems.includes("ambiguous"), DEADLINE);
  daemon.kill("SIGCONT");
  await waitFor("it is there", () => steps.includes(2), DEADLINE);
  link.tellStatus(statusOf({ step: 3, transaction: hex("1", 32), phase: "verifying" }));
  await waitFor("what is said next", () => steps.includes(3), DEADLINE);
  expect(steps).toEqual([1, 2, 3]);
  expect(troubles).toEqual([]);
  const { device } = await fleet.show("box");
  expect(device.upgrade).toBe("foreign");
  end.abort();
  await listening;
});

test("a store that lost what it had acknowledged: the device's journal is right", async () => {
  await using fleet = await TestFleet.start();
  const { authority } = fleet;
  const box = await fleet.device("box");
  await box.arrives();
  const backup = authority.folder.file("backup");
  const socket = ["--control-socket", authority.controlSocket];
  await saysDone(["store", "backup", backup, ...socket]);
  await fleet.ask(...fleet.rollout("--name", "spring", "--heartbeat", "1s"));
  const marker = await waitFor(
    "its marker",
    async () => (await fleet.show("box")).marker ?? undefined,
  );
  await box.isReady(marker);
  const commit = await waitFor(
    "the commit",
    async () => {
      await box.candidateBeats(marker);
      return (await fleet.show("box")).marker?.commit ?? undefined;
    },
    DEADLINE,
  );
  expect(commit.transaction).toBe(marker.transaction);
  await authority.stop();
  await saysDone(["store", "restore", backup, "--state-directory", authority.stateDirectory]);
  await fleet.start();
  const forgotten = await fleet.show("box");
  expect([forgotten.marker, (await fleet.tries("history", "spring")).exitCode]).toEqual([
    null,
    111,
  ]);
  // It has the commit in its journal, and goes on; what it tells is taken up.
  await box.connect();
  const { transaction } = marker;
  const candidate = { ...builds.new, instance: hex("c", 32) };
  const swapped = { transaction, current: builds.new, previous: builds.old };
  await box.says({ ...swapped, phase: "canonical", candidate });
  await waitFor("it is seen", async () => (await fleet.show("box")).device.upgrade === "foreign");
  expect((await fleet.show("box")).marker).toBeNull();
  await box.says({ ...swapped, phase: "done" });
  const { device } = await waitFor("it is done", async () => {
    const shown = await fleet.show("box");
    return shown.device.upgrade === "foreign" ? undefined : shown;
  });
  expect(device).toMatchObject({
    current_version: builds.new.version,
    current_digest: builds.new.digest,
  });
});
