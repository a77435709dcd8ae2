/**
 * A device of a real systemd, all of it compiled: installed by the command, with its own units, and
 * an operator beside it. It becomes a good version, and goes back from one whose canonical agent
 * fails.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Advice } from "../../src/doctor/judgement.ts";
import { linked } from "../../src/fleet/layout.ts";
import { readLayout } from "../../src/fleet/perform/layout-files.ts";
import { agentUnit } from "../../src/fleet/units.ts";
import { hostler } from "../support/binary.ts";
import {
  type BuiltVersion,
  badEntry,
  buildVersion,
  manifestOf,
  PublishedReleases,
} from "../support/fleet-releases.ts";
import {
  type IsolatedSystemd,
  isolatedSystemdFeatures,
  startIsolatedSystemd,
} from "../support/isolated-systemd.ts";
import { skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(180_000);

const operatorUnit = "hostler-fleet-operator.service";

/** One host, which is its own operator. */
class Host {
  readonly #folder: TemporaryFolder;
  readonly #systemd: IsolatedSystemd;
  readonly releases: PublishedReleases;

  constructor(folder: TemporaryFolder, systemd: IsolatedSystemd) {
    this.#folder = folder;
    this.#systemd = systemd;
    this.releases = new PublishedReleases(folder.file("releases"));
  }

  get place(): string {
    return this.#folder.file("fleet");
  }

  get #socket(): string[] {
    return ["--control-socket", "/run/hostler/authority.sock"];
  }

  async does(...argv: readonly string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await this.#systemd.run(argv);
    if (exitCode === 0) return stdout;
    throw new Error(`${argv.join(" ")} ended with ${exitCode}: ${stdout}${stderr}`);
  }

  async fleet(...words: readonly string[]): Promise<string> {
    return await this.does(hostler(), "fleet", ...words, ...this.#socket);
  }

  async begin(): Promise<void> {
    const state = ["--state-directory", this.#folder.file("operator"), "--listen", "127.0.0.1:0"];
    const operator = [hostler(), "fleet", "operator", ...state, ...this.#socket].join(" ");
    const text = `[Service]\nType=notify\nExecStart=${operator}\n`;
    await this.#systemd.writeUnit(operatorUnit, text);
    await this.does("systemctl", "start", operatorUnit);
    const [identity, token] = [this.#folder.file("identity"), this.#folder.file("token")];
    const words = ["identity", "token", "create", "box", ...this.#socket];
    writeFileSync(token, await this.does(hostler(), ...words), { mode: 0o600 });
    const enrol = ["--token-file", token, "--directory", identity];
    await this.does(hostler(), "identity", "enrol", ...enrol);
    await this.releases.makeTrust();
    const root = ["--volatile", "--root", join(this.releases.site, "root-1.json")];
    const units = ["--unit-directory", this.#folder.file("units")];
    const places = ["--folder", this.place, "--prefix", this.#folder.file("usr"), ...units];
    await this.does(hostler(), "fleet", "install", ...places, ...root);
    const folder = this.#folder.file(`units/${agentUnit}.d`);
    mkdirSync(folder);
    const agent = `${this.place}/current/hostler fleet agent --folder ${this.place}`;
    const other = `[Service]\nExecStart=\nExecStart=${agent} --identity ${identity}\n`;
    writeFileSync(join(folder, "identity.conf"), other);
    await this.does("systemctl", "daemon-reload");
    await this.does("systemctl", "start", agentUnit);
  }

  async rollOut({ version }: BuiltVersion): Promise<void> {
    const manifest = join(this.releases.site, manifestOf(version));
    const source = ["--source", `file://${this.releases.site}`, "--heartbeat", "1s"];
    await this.fleet("rollout", manifest, ...source);
  }

  /** Until its one device is there. */
  async is(upgrade: string): Promise<string> {
    return await waitFor(
      `box to be ${upgrade}`,
      async () => {
        const said = await this.fleet("show", "box", "--json");
        if (JSON.parse(said).device.upgrade === upgrade) return said;
        throw new Error(said);
      },
      120_000,
    );
  }

  /** As its doctor says, but for where it lies, which is a folder of a test. */
  async isWell(): Promise<void> {
    const places = ["--folder", this.place, "--identity", this.#folder.file("identity")];
    const { exitCode, stdout } = await this.#systemd.run([
      ...[hostler(), "doctor", "fleet", ...places, "--json"],
    ]);
    const advice = JSON.parse(stdout) as Advice[];
    const troubles = advice.filter(({ status }) => status !== "ok").map(({ check }) => check);
    expect(troubles.filter((check) => check !== "fleet_persistence")).toEqual(["fleet_unit"]);
    const found = (check: string) => advice.find((line) => line.check === check)?.found;
    expect(found("fleet_unit")).toMatch(/^active, disabled: in a session with its operator$/);
    expect(found("fleet_current")).toMatch(/^0\.2\.0, [0-9a-f]{12}, whole$/);
    expect(found("operator_answers")).toBe("it answers, for 1 devices");
    expect(exitCode).toBe(0);
  }

  get current(): string {
    return linked(readLayout(this.place), "current") ?? "nothing";
  }
}

async function withHost(story: (host: Host) => Promise<void>): Promise<void> {
  using folder = temporaryFolder();
  await using systemd = await startIsolatedSystemd(folder);
  try {
    const host = new Host(folder, systemd);
    await host.begin();
    await story(host);
  } catch (error) {
    const { stdout } = await systemd.run(["journalctl", "--no-pager", "--output=cat"]);
    (error as Error).message += `\n${stdout}`;
    throw error;
  }
}

skipUnless("a device of systemd, all compiled", isolatedSystemdFeatures, () => {
  test("becomes a good version, and goes back from one that fails after its commit", async () => {
    const good = await buildVersion("0.2.0");
    const bad = await buildVersion("0.4.0", { entry: badEntry });
    await withHost(async (host) => {
      for (const one of [good, bad]) await host.releases.publish(one);
      await host.rollOut(good);
      await host.is("done");
      expect(host.current).toStartWith("0.2.0-");
      const { versions } = readLayout(host.place);
      expect(versions.map(({ isProven }) => isProven)).toEqual([true, true]);
      await host.isWell();
      await host.rollOut(bad);
      const failed = await host.is("failed");
      expect(failed).toContain("0.4.0 was started 3 times, and was not proven");
      const said = await waitFor("what the bad version left to be told", async () => {
        const told = await host.fleet("show", "box");
        return told.includes("what the version that failed left: ") && told;
      });
      // The manager of this test does not log to the journal how a unit ended.
      expect(said).toContain("left: it is gone, and nobody saw how\n");
      expect(said).toContain("a mistake of this version: it cannot be the canonical agent");
      expect(host.current).toStartWith("0.2.0-");
      expect(await host.does("systemctl", "is-active", agentUnit)).toBe("active\n");
      // Its end is ordered when the way back is noted, and comes after that is told.
      await waitFor("the candidate's unit to be gone", async () => {
        const units = await host.does("systemctl", "list-units", "--plain", "hostler-fleet-*");
        return !units.includes("candidate");
      });
    });
  });
});
