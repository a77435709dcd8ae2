/**
 * Upgrades of a host with a real systemd, by the agent's own units: the real lifecycle, links,
 * journal, guard and candidates. The test is the operator, and has files in the place of a store.
 */
import { afterEach, beforeAll, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { folderOf, linked } from "../../src/fleet/layout.ts";
import { checkVersion } from "../../src/fleet/perform/installation.ts";
import { readLayout } from "../../src/fleet/perform/layout-files.ts";
import type { Build, DeviceStatus, Marker } from "../../src/fleet/protocol.ts";
import { agentUnit, fleetUnits } from "../../src/fleet/units.ts";
import { hostler } from "../support/binary.ts";
import { makeMarker, transactionOf } from "../support/fleet-agent/life.ts";
import { storeScript } from "../support/fleet-installation.ts";
import { buildOf } from "../support/fleet-swapped.ts";
import {
  type IsolatedSystemd,
  isolatedSystemdFeatures,
  startIsolatedSystemd,
} from "../support/isolated-systemd.ts";
import { skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(180_000);

type Status = DeviceStatus & { readonly version: string };

skipUnless("an upgrade of a host with systemd", isolatedSystemdFeatures, () => {
  let text: string;
  let folder: TemporaryFolder;
  let place: string;
  let store: string;
  let systemd: IsolatedSystemd;
  let old: Build;

  beforeAll(async () => {
    const built = await Bun.build({
      entrypoints: [join(import.meta.dirname, "../support/fleet-agent-story.ts")],
      target: "bun",
    });
    text = await (built.outputs[0] as Blob).text();
  });

  beforeEach(async () => {
    folder = temporaryFolder();
    [place, store] = [folder.file("fleet"), folder.file("store")];
    mkdirSync(store);
    writeFileSync(folder.file("story.js"), text);
    old = buildOf(place, version("1.0.0", {}));
    symlinkSync(`versions/${folderOf(old)}`, join(place, "current"));
    await boot();
    await waitFor("the first status", () => status());
  });
  afterEach(async () => {
    await systemd[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  /** Units, and all that runs, are gone; the disk stays: as after a power cut. */
  async function boot(): Promise<void> {
    systemd = await startIsolatedSystemd(folder);
    for (const unit of fleetUnits(place)) await systemd.writeUnit(unit.name, unit.text);
    await systemd.run(["systemctl", "--no-block", "start", agentUnit]);
  }

  /** A version: a script that is all that the units and an upgrade ask of a program. */
  function version(
    name: string,
    { canonical = "", candidate = "" }: { canonical?: string; candidate?: string },
  ): string {
    const run = `BUN_BE_BUN=1 exec ${hostler()} run ${folder.file("story.js")}`;
    const words = `${place} ${store} ${name}`;
    return storeScript(
      folder,
      name,
      `case "$1 $2 $3" in
"fleet guard "*) exec ${hostler()} "$@" ;;
"fleet agent --candidate") ${candidate}
${run} ${words} "$4" ;;
"fleet agent "*) echo ${name} >> ${store}/starts; ${canonical}
${run} ${words} ;;
"--self-test "*) echo '{"ok":true,"checks":[]}' ;;
esac`,
    );
  }

  const read = (name: string) => {
    const path = join(store, name);
    return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : undefined;
  };
  const status = (): Status | undefined => read("status.json");
  const current = () => linked(readLayout(place), "current");

  function order(build: Build, changes: Partial<Marker> = {}): Marker {
    const marker = makeMarker(1, { build, ...changes });
    writeFileSync(join(store, "marker.new"), JSON.stringify(marker));
    rmSync(join(store, "marker.json"), { force: true });
    symlinkSync("marker.new", join(store, "marker.json"));
    return marker;
  }

  async function inPhase(phase: DeviceStatus["phase"]): Promise<Status> {
    return await waitFor(
      `phase ${phase}`,
      () => {
        const said = status();
        return said?.transaction === transactionOf(1) && said.phase === phase ? said : undefined;
      },
      60_000,
    );
  }

  /** As the operator does: it has itself heard the candidate that the device names. */
  async function commit(build: Build): Promise<void> {
    const instance = await waitFor("a candidate that is heard", () => {
      const said = status()?.candidate?.instance;
      return said !== null && said === read("candidate.json")?.instance ? said : undefined;
    });
    order(build, { observed: instance, commit: { transaction: transactionOf(1), instance } });
  }

  const starts = () => readFileSync(join(store, "starts"), "utf8").split("\n").filter(Boolean);

  test("a good version becomes canonical, and is proven", async () => {
    const next = buildOf(place, version("1.1.0", {}));
    order(next);
    await inPhase("cutover-ready");
    expect(current()).toBe(folderOf(old));
    await commit(next);
    const done = await inPhase("done");
    expect(done).toMatchObject({ version: "1.1.0", current: next, previous: old });
    expect(current()).toBe(folderOf(next));
    expect(starts()).toEqual(["1.0.0", "1.1.0"]);
    expect(
      readLayout(place).versions.find(({ build }) => build?.digest === next.digest),
    ).toMatchObject({
      isProven: true,
    });
    const { stdout } = await systemd.run(["systemctl", "list-units", "--plain", "hostler-*"]);
    expect(stdout).not.toContain("candidate");
  });

  test("a candidate that crashes ends it, with its last words; nothing has changed", async () => {
    const next = buildOf(place, version("1.1.0", { candidate: "echo no configuration; exit 3" }));
    order(next);
    expect(await inPhase("aborted")).toMatchObject({
      ...{ version: "1.0.0", cause: "candidate" },
      last_words: { ending: "exited with 3", log: "no configuration\n" },
    });
    expect(current()).toBe(folderOf(old));
    expect(starts()).toEqual(["1.0.0"]);
  });

  test("a canonical version that fails after the commit goes back by itself", async () => {
    const next = buildOf(place, version("1.1.0", { canonical: "exit 1" }));
    order(next);
    await commit(next);
    expect(await inPhase("rolled-back")).toMatchObject({
      ...{ version: "1.0.0", cause: "canonical", current: old },
      reason: expect.stringContaining("1.1.0 was started 3 times"),
    });
    expect(starts()).toEqual(["1.0.0", "1.1.0", "1.1.0", "1.1.0", "1.0.0"]);
  });

  test("an agent that is killed in probation goes on with the candidate that it has", async () => {
    const next = buildOf(place, version("1.1.0", {}));
    order(next);
    const before = await inPhase("cutover-ready");
    await systemd.run(["systemctl", "kill", "--signal=KILL", agentUnit]);
    await waitFor("the next agent", () => starts().length === 2);
    const after = await waitFor("its status", () => {
      const said = status();
      return said !== undefined && said.step > before.step ? said : undefined;
    });
    expect(after.candidate).toEqual(before.candidate);
    await commit(next);
    expect(await inPhase("done")).toMatchObject({ version: "1.1.0" });
    expect(starts()).toEqual(["1.0.0", "1.0.0", "1.1.0"]);
  });

  test("power that goes in probation leaves the old version, and the upgrade goes on", async () => {
    const next = buildOf(place, version("1.1.0", {}));
    order(next);
    await inPhase("cutover-ready");
    await systemd[Symbol.asyncDispose]();
    expect(current()).toBe(folderOf(old));
    rmSync(join(store, "candidate.json"));
    await boot();
    await waitFor("the old version", () => starts().length === 2);
    expect(starts()).toEqual(["1.0.0", "1.0.0"]);
    await commit(next);
    expect(await inPhase("done")).toMatchObject({ version: "1.1.0" });
    expect(checkVersion(place, current() ?? "").kind).toBe("whole");
  });
});
