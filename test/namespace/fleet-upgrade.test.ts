/**
 * Upgrades of a host with a real systemd, by the agent's own unit: the real lifecycle, links,
 * journal, guard and candidates. The test is the operator, and has files in the place of a store.
 */
import { beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { folderOf } from "../../src/fleet/layout.ts";
import type { EffectKind } from "../../src/fleet/lifecycle-state.ts";
import { checkVersion } from "../../src/fleet/perform/installation.ts";
import { readLayout } from "../../src/fleet/perform/layout-files.ts";
import { agentUnit } from "../../src/fleet/units.ts";
import { buildFleetAgent, FleetHost } from "../support/fleet-host.ts";
import { isolatedSystemdFeatures } from "../support/isolated-systemd.ts";
import { rotating } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(180_000);

skipUnless("an upgrade of a host with systemd", isolatedSystemdFeatures, () => {
  let agent: string;
  beforeAll(async () => {
    agent = await buildFleetAgent();
  });

  test("a good version becomes canonical, and is proven", async () => {
    await using host = await FleetHost.make(agent);
    const next = host.version("1.1.0");
    host.order(next);
    await host.inPhase("cutover-ready");
    expect(host.current).toBe(folderOf(host.old));
    await host.commit(next);
    const done = await host.inPhase("done");
    expect(done).toMatchObject({ version: "1.1.0", current: next, previous: host.old });
    expect(host.current).toBe(folderOf(next));
    expect(host.starts).toEqual(["1.0.0", "1.1.0"]);
    const { versions } = readLayout(host.place);
    expect(versions.filter(({ isProven }) => isProven).map(({ build }) => build)).toEqual([next]);
    const { stdout } = await host.systemd.run(["systemctl", "list-units", "--plain", "hostler-*"]);
    expect(stdout).not.toContain("candidate");
  });

  test("a candidate that crashes ends it, with its last words; nothing has changed", async () => {
    await using host = await FleetHost.make(agent);
    host.order(host.version("1.1.0", { candidate: "echo no configuration; exit 3" }));
    expect(await host.inPhase("aborted")).toMatchObject({
      ...{ version: "1.0.0", cause: "candidate" },
      last_words: { ending: "exited with 3", log: "no configuration\n" },
    });
    expect(host.current).toBe(folderOf(host.old));
    expect(host.starts).toEqual(["1.0.0"]);
  });

  test("a canonical version that fails after the commit goes back by itself", async () => {
    await using host = await FleetHost.make(agent);
    const next = host.version("1.1.0", { canonical: "exit 1" });
    host.order(next);
    await host.commit(next);
    expect(await host.inPhase("rolled-back")).toMatchObject({
      ...{ version: "1.0.0", cause: "canonical", current: host.old },
      reason: expect.stringContaining("1.1.0 was started 3 times"),
    });
    expect(host.starts).toEqual(["1.0.0", "1.1.0", "1.1.0", "1.1.0", "1.0.0"]);
  });

  test("an agent that is killed in probation goes on with the candidate that it has", async () => {
    await using host = await FleetHost.make(agent);
    const next = host.version("1.1.0");
    host.order(next);
    const before = await host.inPhase("cutover-ready");
    await host.systemd.run(["systemctl", "kill", "--signal=KILL", agentUnit]);
    await waitFor("the next agent", () => host.starts.length === 2);
    const after = await waitFor("its status", () => {
      const said = host.status();
      return said !== undefined && said.step > before.step ? said : undefined;
    });
    expect(after.candidate).toEqual(before.candidate);
    await host.commit(next);
    expect(await host.inPhase("done")).toMatchObject({ version: "1.1.0" });
    expect(host.starts).toEqual(["1.0.0", "1.0.0", "1.1.0"]);
  });

  test("power that goes in probation leaves the old version, and it goes on", async () => {
    await using host = await FleetHost.make(agent);
    const next = host.version("1.1.0");
    host.order(next);
    await host.inPhase("cutover-ready");
    await host.cutPower();
    expect(host.current).toBe(folderOf(host.old));
    rmSync(join(host.store, "candidate.json"));
    await host.boot();
    await waitFor("the old version", () => host.starts.length === 2);
    expect(host.starts).toEqual(["1.0.0", "1.0.0"]);
    await host.commit(next);
    expect(await host.inPhase("done")).toMatchObject({ version: "1.1.0" });
    expect(checkVersion(host.place, host.current ?? "").kind).toBe("whole");
  });

  /** What each of the two versions orders in an upgrade that goes well. */
  const effects: readonly (readonly [version: string, effect: EffectKind])[] = [
    ["1.0.0", "note"],
    ["1.0.0", "check"],
    ["1.0.0", "fetch"],
    ["1.0.0", "prove"],
    ["1.0.0", "start-candidate"],
    ["1.0.0", "hash"],
    ["1.0.0", "swap"],
    ["1.0.0", "restart-canonical"],
    ["1.1.0", "hand-over"],
    ["1.1.0", "note"],
    ["1.1.0", "stop-candidate"],
    ["1.1.0", "collect"],
  ];
  const kills = effects.flatMap(([version, effect]) => [
    [version, `${effect}:before`] as const,
    [version, `${effect}:after`] as const,
  ]);

  test.each(rotating("fleet upgrade", kills, { outOf: 12 }))(
    "%s is killed at %s: the upgrade is done all the same, and one version is canonical",
    async (version, place) => {
      await using host = await FleetHost.make(agent);
      const next = host.version("1.1.0");
      host.killNext(version, `fleet:${place}`);
      // What runs already cannot be told where it is to die.
      if (version === "1.0.0") await host.systemd.run(["systemctl", "restart", agentUnit]);
      host.order(next);
      const done = await waitFor(
        "the upgrade to be done",
        () => {
          const said = host.status();
          if (said?.phase === "done") return said;
          const heard = host.heardCandidate();
          const isTried = ["cutover-ready", "observed", "held"].includes(said?.phase ?? "");
          if (heard !== undefined && isTried) host.commitTo(next, heard);
          return undefined;
        },
        90_000,
      );
      expect(done).toMatchObject({ version: "1.1.0", current: next });
      expect(existsSync(join(host.store, "armed"))).toBe(true);
      expect(host.current).toBe(folderOf(next));
      // It was killed: there is a start more than the upgrade needs, but where it was on its way.
      const needed = version === "1.0.0" ? 3 : 2;
      const isOnItsWay = /^(swap:after|restart-canonical)/.test(place);
      expect(host.starts.length).toBe(needed + (isOnItsWay ? 0 : 1));
      expect(host.starts.at(-1)).toBe("1.1.0");
    },
  );
});
