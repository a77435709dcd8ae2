/** The compiled operator, with devices that a test plays, and people by its commands. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { operatorWrites } from "../../src/fleet/perform/operator-steps.ts";
import { fleetBuckets } from "../../src/fleet/protocol.ts";
import { runHostler, saysDone } from "../support/authority.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { builds } from "../support/fleet-operator/device-life.ts";
import {
  type ScriptedDevice,
  type Shown,
  type ShownMarker,
  TestFleet,
} from "../support/fleet-operator/test-fleet.ts";
import { startProgram } from "../support/program.ts";
import { rotating } from "../support/rotation.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

const shown = (fleet: TestFleet, name: string, what: string, is: (one: Shown) => boolean) =>
  waitFor(`${name} ${what}`, async () => {
    const one = await fleet.show(name);
    return is(one) ? one : undefined;
  });

/** The marker of a rollout that it was told. */
async function toldBy(fleet: TestFleet, name: string, rollout: string): Promise<ShownMarker> {
  const { marker } = await shown(
    fleet,
    name,
    `is told by ${rollout}`,
    (one) => one.marker?.rollout?.name === rollout && one.marker.withdrawn === null,
  );
  if (marker === null) throw new Error("There is no marker");
  return marker;
}

/** Heard until it is committed: the operator listens for a while first. */
async function committed(fleet: TestFleet, device: ScriptedDevice, marker: ShownMarker) {
  return await waitFor(
    `${device.name} is committed`,
    async () => {
      await device.candidateBeats(marker);
      const { marker: next } = await fleet.show(device.name);
      return next?.commit ?? undefined;
    },
    60_000,
  );
}

describe("an operator", () => {
  test("rolls out by waves, commits what it heard, and says so to whoever looks", async () => {
    await using fleet = await TestFleet.start();
    const [a, b] = [await fleet.device("a"), await fleet.device("b")];
    for (const device of [a, b]) await device.arrives();
    const flags = ["--canaries", "1", "--max-unavailable", "1", "--name", "spring"];
    const created = await fleet.ask(...fleet.rollout(...flags));
    expect(created).toContain("spring");
    const first = await waitFor("one is told", async () => {
      const told = await Promise.all(["a", "b"].map((name) => fleet.show(name)));
      return told.find(({ marker }) => marker !== null);
    });
    const device = first.device.name === "a" ? a : b;
    const other = first.device.name === "a" ? "b" : "a";
    const marker = await toldBy(fleet, device.name, "spring");
    await device.isReady(marker);
    const commit = await committed(fleet, device, marker);
    expect(commit.transaction).toBe(marker.transaction);
    expect((await fleet.show(other)).marker).toBeNull();
    await device.says({ transaction: marker.transaction, phase: "done", current: builds.new });
    await toldBy(fleet, other, "spring");
    const history = await fleet.history("spring");
    expect(history).toMatchObject({ phase: "running", wave: 2, waves: 2 });
    expect(history.counts).toMatchObject({ members: 2, done: 1, flight: 1, failed: 0 });
    const devices = await fleet.ask("devices");
    expect(devices).toMatch(new RegExp(`${device.name} +alive`));
    const events = await fleet.ask("events");
    expect(events).toContain(`committed ${device.name}: 1.1.0 committed`);
    expect(await fleet.ask("metrics")).toContain("hostler_fleet_upgrades_done 1");
    const records = (await fleet.authority.audit()).filter(({ verb }) => verb.startsWith("fleet."));
    expect(records.map(({ verb, object, result }) => [verb, object, result])).toEqual([
      ["fleet.rollout.create", "rollout spring", "done"],
    ]);
  });

  test("is paused, resumed and aborted; what is not committed is taken back", async () => {
    await using fleet = await TestFleet.start();
    const a = await fleet.device("a");
    await a.arrives();
    await fleet.ask(...fleet.rollout("--name", "spring"));
    const marker = await toldBy(fleet, "a", "spring");
    await a.says({ transaction: marker.transaction, phase: "staging" });
    expect(await fleet.ask("pause", "spring", "--reason", "a look")).toContain("spring: a look");
    const again = await fleet.tries("pause", "spring");
    expect([again.exitCode, again.stderr.includes("it is paused")]).toEqual([111, true]);
    await fleet.ask("resume", "spring");
    expect(await fleet.ask("abort", "spring", "--reason", "a mistake")).toContain("aborted");
    const { marker: next } = await shown(
      ...([fleet, "a", "is taken back"] as const),
      (one) => one.marker?.withdrawn != null,
    );
    expect(next?.withdrawn?.reason).toContain("aborted");
    await fleet.ask("label", "a", "--label", "site=lab");
    expect((await fleet.show("a")).device.labels).toEqual({ site: "lab" });
    expect((await fleet.tries("forget", "a")).stderr).toContain("it may be there");
    // One whose host was revoked is not waited for.
    const socket = ["--control-socket", fleet.authority.controlSocket];
    await saysDone(["identity", "host", "revoke", "a", ...socket]);
    expect(await fleet.ask("forget", "a")).toBe("a is forgotten\n");
  });

  test("a rollout is watched until it has ended, and how it ended is the exit code", async () => {
    await using fleet = await TestFleet.start();
    const a = await fleet.device("a");
    await a.arrives();
    const nobody = await fleet.tries("watch", "spring");
    expect([nobody.exitCode, nobody.stderr.includes("no rollout spring")]).toEqual([111, true]);
    const followed = startProgram([
      hostler(),
      ...fleet.words(...fleet.rollout("--name", "spring", "--follow")),
    ]);
    const marker = await toldBy(fleet, "a", "spring");
    const late = await fleet.tries("watch", "spring", "--timeout", "10ms");
    expect([late.exitCode, late.stderr.includes("has not ended within")]).toEqual([111, true]);
    const told = startProgram([hostler(), ...fleet.words("watch", "spring", "--json")]);
    await told.said(/"flight":1/);
    // The operator is started anew, and the watch goes on.
    await fleet.authority.stop();
    await fleet.start();
    // What was told before is there, and so is who has begun it, and when.
    expect(await fleet.ask("events")).toContain("rollout spring of 1.1.0 is running");
    const { changes } = await fleet.history("spring");
    const [begun] = changes;
    expect(begun).toMatchObject({ what: "begun", by: `local uid ${process.getuid?.()}` });
    expect(await fleet.ask("history")).toContain(
      `begun ${new Date(begun?.time ?? 0).toISOString().slice(0, 10)}`,
    );
    await a.connect();
    await a.beats();
    await a.isReady(marker);
    await committed(fleet, a, marker);
    await a.says({ transaction: marker.transaction, phase: "done", current: builds.new });
    const { exitCode, stdout } = await told.ended();
    expect(exitCode).toBe(0);
    const lines = stdout.trim().split("\n");
    expect(JSON.parse(lines.at(-1) ?? "")).toMatchObject({ phase: "complete" });
    expect(await followed.ended()).toMatchObject({
      ...{ exitCode: 0, stderr: expect.stringContaining("Devices check") },
      stdout: expect.stringContaining("complete"),
    });
    await fleet.ask(...fleet.rollout("--name", "summer", "--device", "nobody", "--allow-unknown"));
    await fleet.ask("pause", "summer", "--reason", "a look");
    const paused = await fleet.tries("watch", "summer");
    expect([paused.exitCode, paused.stdout.includes("summer: a look")]).toEqual([111, true]);
  });

  test("asks for a permission, and lets no device write what is not its own", async () => {
    await using fleet = await TestFleet.start();
    const [a, b] = [await fleet.device("a"), await fleet.device("b")];
    for (const device of [a, b]) await device.arrives();
    await shown(fleet, "b", "is heard", ({ device }) => device.standing === "alive");
    expect(await a.put(fleetBuckets.markers, "a", {})).toBe("denied");
    expect(await a.put(fleetBuckets.statuses, "b", {})).toBe("denied");
    expect(await a.put(fleetBuckets.heartbeats, "b.candidate", {})).toBe("denied");
    expect(await a.put(fleetBuckets.rollouts, "spring", {})).toBe("denied");
    const operator = await fleet.authority.operator("otto", "--role", "admin");
    const where = ["--authority", fleet.authority.address, "--pin", operator.pin];
    const may = async (...words: readonly string[]) =>
      await runHostler(["fleet", ...words, ...where, "--token-file", operator.file]);
    expect((await may("devices")).exitCode).toBe(0);
    const refused = await may(...fleet.rollout("--name", "spring"));
    expect(refused.exitCode).toBe(111);
    expect(refused.stderr).toContain("hostler identity operator add NAME --permit rollout");
    const label = await may("label", "b", "--label", "site=lab");
    expect([label.exitCode, label.stderr.includes("the permission rollout")]).toEqual([111, true]);
    expect((await fleet.show("b")).device.labels).toEqual({});
  });

  test("what a device says and is not understood is told, and given nothing", async () => {
    await using fleet = await TestFleet.start();
    const a = await fleet.device("a");
    await a.beats();
    await a.put(fleetBuckets.statuses, "a", { protocol: 9, phase: "transcending" });
    const { device } = await shown(
      ...([fleet, "a", "is not understood"] as const),
      (one) => one.device.reason !== null,
    );
    expect(device.reason).toContain("protocol");
    await fleet.ask(...fleet.rollout("--name", "spring"));
    await waitFor("it is looked at", async () => {
      const { counts } = await fleet.history("spring");
      return counts.unfit === 1 ? true : undefined;
    });
    expect((await fleet.show("a")).marker).toBeNull();
  });

  test("refuses a rollout that is none", async () => {
    await using fleet = await TestFleet.start();
    const refused = await fleet.tries(...fleet.rollout("--wave", "0%"));
    expect([refused.exitCode, refused.stderr.includes("--wave")]).toEqual([100, true]);
    await fleet.ask(...fleet.rollout("--name", "spring"));
    const twice = await fleet.tries(...fleet.rollout("--name", "spring"));
    expect([twice.exitCode, twice.stderr.includes("already")]).toEqual([111, true]);
    const unknown = await fleet.tries("show", "nobody");
    expect([unknown.exitCode, unknown.stderr.includes("no device nobody")]).toEqual([111, true]);
  });
});

describe("an operator that is killed while it writes", () => {
  const places = operatorWrites.flatMap((write) =>
    ["before", "after"].map((when) => `fleet-operator:${write}:${when}`),
  );

  test.each(rotating("fleet operator kill points", places, { outOf: 2 }))("%s", async (place) => {
    await using fleet = await TestFleet.start();
    const a = await fleet.device("a");
    await a.arrives();
    await shown(fleet, "a", "is heard", ({ device }) => device.standing === "alive");
    await fleet.authority.stop();
    const environment = { HOSTLER_KILL_AT: place };
    await fleet.start({ program: hostlerWithFaults(), environment });
    await a.connect();
    await a.beats();
    // One of these is not answered.
    await fleet.tries("label", "a", "--label", "site=lab");
    await fleet.tries(...fleet.rollout("--name", "spring"));
    expect((await fleet.authority.daemon.ended()).signal).toBe("SIGKILL");
    await fleet.start();
    await a.connect();
    await a.beats();
    const kept = await fleet.tries(...fleet.rollout("--name", "spring"));
    // It was written before the kill, or it was not.
    expect(kept.exitCode === 0 || kept.stderr.includes("already")).toBe(true);
    const marker = await toldBy(fleet, "a", "spring");
    await a.isReady(marker);
    await a.candidateBeats(marker);
    await shown(fleet, "a", "was observed", (one) => one.marker?.observed != null);
    expect((await fleet.history("spring")).counts).toMatchObject({ members: 1, flight: 1 });
  });
});
