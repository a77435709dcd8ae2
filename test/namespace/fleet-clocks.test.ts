/**
 * Wall clocks of a device and of its operator that stand at 1970 and at 2045, or jump in the middle
 * of an upgrade: the compiled program goes on, and believes no release for it.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { faketime, jumpingClock, saysDone, wallClockAt } from "../support/authority.ts";
import { UPGRADE_TIME, UpgradedHost } from "../support/fleet-operator/upgraded-host.ts";
import { runProgram } from "../support/program.ts";
import { rotating } from "../support/rotation.ts";
import { root, skipUnless } from "../support/skips.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(300_000);

const clocks = { early: "@1970-01-02 00:00:00", late: "@2045-01-01 00:00:00" } as const;

const stale = "the metadata is stale: its time is over";

type Clock = "early" | "late" | "right" | "jumping";

/** The device's, and its operator's. */
const cases: readonly { readonly device: Clock; readonly operator: Clock }[] = [
  { device: "early", operator: "late" },
  { device: "late", operator: "early" },
  { device: "jumping", operator: "right" },
  { device: "right", operator: "jumping" },
];

skipUnless("clocks of a fleet", [root, faketime], () => {
  test.each(rotating("clocks of a fleet", cases, { outOf: 4 }))(
    "$device of the device, $operator of the operator: an upgrade is done all the same",
    async ({ device, operator }) => {
      const host = new UpgradedHost();
      await using _host = host;
      const jumping = jumpingClock(host.file("clock"));
      const clockOf = (clock: Clock) => {
        if (clock === "right") return {};
        return clock === "jumping" ? jumping.environment : wallClockAt(clocks[clock]);
      };
      await host.fleet.start({ environment: clockOf(operator) });
      await host.trust();
      await host.startDevice({ environment: clockOf(device) });
      const good = await host.release("7.0.0");
      await host.fleet.ask("rollout", good, ...host.source, "--heartbeat", "1s");
      const isTried = (upgrade: string) => ["ready", "observed", "committed"].includes(upgrade);
      await host.device("is ready", ({ upgrade }) => isTried(upgrade), UPGRADE_TIME);
      jumping.set(clocks.late);
      await host.device("is on its way", ({ upgrade }) => upgrade === "swapping", UPGRADE_TIME);
      jumping.set(clocks.early);
      const options = { environment: jumping.environment };
      expect((await runProgram(["date", "+%Y"], options)).stdout).toBe("1970\n");
      const done = await host.device("is done", ({ upgrade }) => upgrade === "done", UPGRADE_TIME);
      expect(done).toMatchObject({ current_version: "7.0.0", healthy: true, standing: "alive" });
      expect(host.current).toStartWith("versions/7.0.0-");
      await waitFor("the rollout is done", async () => {
        const { phase } = await host.fleet.history("7.0.0");
        return phase === "complete" ? true : undefined;
      });
      // In 2045 everything has expired: it is said, and nothing ends for it.
      const said = host.supervisor?.output.stderr ?? "";
      expect(said.includes(stale)).toBe(device === "late");
    },
  );

  test("at 1970 old metadata is as old as it was: the journal knows better", async () => {
    await using host = await UpgradedHost.start();
    await host.trust();
    const metadata = join(host.site, "metadata.json");
    copyFileSync(metadata, host.file("first.json"));
    await host.metadata();
    await host.startDevice({ environment: wallClockAt(clocks.early) });
    const good = await host.release("7.0.0");
    // It is believed, and fetched slowly: the journal has seen the second metadata.
    await host.fleet.ask("rollout", good, ...host.source, "--rate", "1KiB", "--name", "slow");
    await host.device("fetches", (box) => box.progress_percent !== null);
    await host.fleet.ask("abort", "slow");
    await host.device("has gone back", ({ upgrade }) => upgrade === "returned");
    // Somebody puts back what the device trusts, and keeps it from news.
    copyFileSync(host.file("first.json"), metadata);
    rmSync(join(host.place, "trust/metadata.json"));
    await host.fleet.ask("rollout", good, ...host.source, "--name", "again");
    const refused = await host.device("refuses it", ({ upgrade }) => upgrade === "failed");
    expect(refused.reason).toContain("expected version 2 or later, which this device has seen");
  });

  test("a release is verified and fetched, and what is stale is said", async () => {
    await using host = await UpgradedHost.start();
    await host.trust();
    await host.release("7.0.0");
    const trusted = ["--root", join(host.site, "root-1.json")];
    for (const [name, time] of Object.entries(clocks)) {
      const options = { environment: wallClockAt(time) };
      const at = ["fleet", "artifact", "verify", "7.0.0", "--at", host.site];
      expect(await saysDone([...at, ...trusted], options)).toContain("7.0.0");
      const into = ["--from", host.site, "--into", host.file(`into-${name}`)];
      const fetched = await saysDone(
        ["fleet", "artifact", "fetch", "7.0.0", ...into, ...trusted],
        options,
      );
      expect(fetched.includes("The metadata is stale: its time is over.")).toBe(name === "late");
    }
  });
});
