/** What people are told of devices, members of a rollout, and numbers. */
import { describe, expect, test } from "bun:test";
import {
  renderBeginnings,
  renderChanges,
  renderDevice,
  renderDevices,
  renderMembers,
  renderMetrics,
  renderRollouts,
  SHOWN_MEMBERS,
} from "../../../src/fleet/commands/fleet-words.ts";
import { fleetMetrics, OperatorCounts, upgradeEnds } from "../../../src/fleet/operator/gauges.ts";
import { deviceView } from "../../../src/fleet/operator/lifecycle-view.ts";
import type { FleetOperator } from "../../../src/fleet/operator/operator.ts";
import { operatorLimits, type RolloutMember } from "../../../src/fleet/protocol-operator.ts";
import { hex } from "../../support/fleet-operator/device-life.ts";
import {
  FleetLife,
  names,
  operatorSettings,
  specOf,
} from "../../support/fleet-operator/fleet-life.ts";

function failed() {
  const fleet = new FleetLife().arrive("box-0").begin("spring").pass(2_000, "box-0");
  const reason = `the candidate exited with 1: ${"no room ".repeat(20)}\u001b[2J`;
  const previous = { version: "0.9.0", digest: hex("9", 64) };
  fleet.at("box-0", "aborted", { cause: "candidate", reason, previous, floor: "0.8.0" });
  return fleet.pass(2_000, "box-0");
}

describe("a device", () => {
  const fleet = failed();
  const device = fleet.device("box-0");
  const view = deviceView(device, { now: fleet.now, settings: operatorSettings });
  const status = device.status?.value ?? null;
  const told = { status, heartbeat: device.canonical?.heartbeat ?? null };

  test("is shown with all that it says, within the terminal", () => {
    const text = renderDevice(view, { ...told, width: 80 });
    for (const line of text.split("\n")) expect(line.length).toBeLessThanOrEqual(80);
    for (const fact of [
      ...[/^PREVIOUS +0\.9\.0 9{20}/m, /^FLOOR +0\.8\.0$/m, /^EXECUTOR +systemd$/m],
      ...[/^MACHINE +x64, glibc$/m, /^BOOT +[0-9a-f-]{36}$/m, /^ROLLOUT +spring$/m],
      ...[/^UPGRADE +failed: the candidate exited with 1: no room/m, /no room \\u001b\[2J$/m],
    ]) {
      expect(text).toMatch(fact);
    }
  });

  test("whose host could not, or whose metadata is stale, is told apart", () => {
    const host = renderDevices([{ ...view, cause: "host", reason: "no room" }]);
    expect(host).toMatch(/could not: no room/);
    const stale = { version: 3, expires: "2026-05-31T00:00:00Z" };
    expect(renderDevices([{ ...view, stale_since: stale.expires }])).toContain(
      "alive, stale metadata",
    );
    const one = status === null ? null : { ...status, stale_metadata: stale };
    const text = renderDevice(view, { ...told, status: one, width: 80 });
    expect(text).toMatch(/^METADATA +3 is stale since 2026-05-31T00:00:00Z: publish a later one$/m);
  });

  test("what was fetched says whether a delta worked", () => {
    const progress = { bytes: 100, of_bytes: 1_048_576, fetched_bytes: 2_048, again_bytes: 0 };
    const one = status === null ? null : { ...status, progress };
    const text = renderDevice(view, { ...told, status: one, width: 80 });
    expect(text).toMatch(/^FETCHED +2 KiB for 1 MiB$/m);
  });

  test("in a list is no wider than the terminal, and whole elsewhere", () => {
    for (const line of renderDevices([view], 80).split("\n")) {
      expect(Bun.stringWidth(line)).toBeLessThanOrEqual(80);
    }
    expect(renderDevices([view])).toContain("no room no room");
  });
});

describe("a rollout", () => {
  const one = (device: string, change: Partial<RolloutMember> = {}): RolloutMember => ({
    ...{ device, standing: "done", reason: null, superseded_by: null },
    ...change,
  });

  test("names its devices: those that failed first, with the reason", () => {
    const text = renderMembers([
      one("a"),
      one("b", { superseded_by: "summer" }),
      one("c", { standing: "failed", reason: "exited with 1\u001b[2J" }),
      one("d", { standing: "flight", reason: "preparing" }),
      one("e", { standing: "superseded", reason: "it was free", superseded_by: "summer" }),
    ]);
    expect(text.split("\n").map((line) => line.replace(/ {2,}/g, " | "))).toEqual([
      "",
      "DEVICE | STANDING | WHY",
      "c | failed | exited with 1\\u001b[2J",
      "d | under way | preparing",
      "a | done | -",
      "b | done | rollout summer has it now",
      "e | superseded | it was free; rollout summer has it now",
      "",
    ]);
    expect(renderMembers([])).toBe("");
  });

  test("tells when it was begun, paused and resumed, and by whom", () => {
    const fleet = new FleetLife().arrive("box-0");
    fleet.tell({ kind: "create", name: "spring", spec: specOf(), by: "operator ada" });
    fleet.tell({ kind: "pause", rollout: "spring", reason: "a look\u001b[2J", by: "local uid 0" });
    const view = fleet.view("spring");
    const rows = (text: string) => text.split("\n").map((line) => line.replace(/ {2,}/g, " | "));
    expect(rows(renderChanges(view))).toEqual([
      ...["", "WHEN (UTC) | WHAT | BY | WHY"],
      "1970-01-01 12:00:00 | begun | operator ada | -",
      "1970-01-01 12:00:00 | paused | local uid 0 | a look\\u001b[2J",
      "",
    ]);
    expect(rows(renderBeginnings([view]))).toEqual([
      ...["", "ROLLOUT | BEGUN (UTC) | BY | LAST | BY"],
      "spring | 1970-01-01 12:00:00 | operator ada | paused 1970-01-01 12:00:00 | local uid 0",
      "",
    ]);
    expect(renderChanges({ ...view, changes: [] })).toBe("");
    expect(renderBeginnings([{ ...view, changes: [] }])).toBe("");
  });

  test(`people are told ${SHOWN_MEMBERS} of one standing, and how many more there are`, () => {
    const all = names(SHOWN_MEMBERS).map((name) => one(name));
    expect(renderMembers(all)).not.toContain("more");
    expect(renderMembers([...all, one("z")])).toContain("1 more done: --json has all");
  });

  test("says that it waits for somebody to come", () => {
    const fleet = new FleetLife().begin("spring").pass(2_000);
    expect(renderRollouts([fleet.view("spring")])).toContain(
      "spring waits for a device: there is none; it goes on when one comes",
    );
  });
});

describe("numbers of a fleet", () => {
  function numbersOf(fleet: FleetLife, counts = new OperatorCounts()) {
    const context = { now: fleet.now, settings: operatorSettings };
    const operator = { state: fleet.state, context, counts } as unknown as FleetOperator;
    return renderMetrics(
      fleetMetrics.flatMap(({ name, help, type, read }) =>
        read(operator).map((sample) => ({ name, help, type, ...sample })),
      ),
    );
  }

  test("a rollout that is paused, versions, standings and silence", () => {
    const fleet = failed();
    fleet.pass(200_000);
    const lines = numbersOf(fleet).split("\n");
    expect(lines).toContain('hostler_fleet_rollout_paused{rollout="spring"} 1');
    expect(lines).toContain('hostler_fleet_rollouts_by_phase{phase="paused"} 1');
    expect(lines).toContain('hostler_fleet_rollouts_by_phase{phase="running"} 0');
    expect(lines).toContain('hostler_fleet_rollout_devices{rollout="spring",standing="failed"} 1');
    expect(lines).toContain('hostler_fleet_devices_by_version{version="1.0.0"} 1');
    expect(lines).toContain('hostler_fleet_devices_by_upgrade{upgrade="failed"} 1');
    expect(lines).toContain('hostler_fleet_devices_by_standing{standing="lost"} 1');
    expect(lines).toContain("hostler_fleet_longest_silence_seconds 200");
  });

  test("each end by its cause, and the operator's own writes", () => {
    const fleet = failed();
    const counts = new OperatorCounts();
    counts.ended(fleet.device("box-0"));
    counts.ended(undefined);
    counts.wrote("marker", 0.25);
    const text = numbersOf(fleet, counts);
    expect(text).toContain('hostler_fleet_upgrades_ended_total{cause="candidate"} 1');
    expect(text).toContain('hostler_fleet_upgrades_ended_total{cause="unknown"} 1');
    expect(text.match(/upgrades_ended_total\{/g)).toHaveLength(upgradeEnds.length);
    expect(text).toContain('hostler_fleet_store_write_seconds_total{write="marker"} 0.25');
    expect(text).toContain("# TYPE hostler_fleet_store_writes_total counter");
  });

  test(`at most ${operatorLimits.measured} rollouts have numbers of their own`, () => {
    const fleet = new FleetLife();
    for (const name of names(operatorLimits.measured + 1)) fleet.begin(name);
    const text = numbersOf(fleet);
    expect(text.match(/rollout_paused\{/g)).toHaveLength(operatorLimits.measured);
  });

  test("a name is one of Prometheus: with its unit, and _total for a counter", () => {
    for (const { name, type } of fleetMetrics) {
      expect(name).toMatch(/^hostler_fleet_[a-z_]+$/);
      expect([name, name.endsWith("_total")]).toEqual([name, type === "counter"]);
    }
  });
});
