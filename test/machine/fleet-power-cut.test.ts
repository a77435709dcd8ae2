/**
 * A device that is a whole machine, with the units that hostler fleet install makes and systemd as
 * its first process: its power goes at every phase of an upgrade between two really built versions,
 * and it ends with one canonical version that has proven itself. Then what is fetched is damaged,
 * what lies on its disk is, and a version fails after its commit.
 */
import { expect, test } from "bun:test";
import { hostler } from "../support/binary.ts";
import {
  badEntry,
  buildVersion,
  cutInHalf,
  flipBytes,
  manifestOf,
  PublishedReleases,
} from "../support/fleet-releases.ts";
import { FleetGuest } from "../support/guest/fleet-guest.ts";
import { liveUpdateFeatures } from "../support/guest/live-update-guest.ts";
import { runProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { file, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

const KIBIBYTE = 1_024;
const MEBIBYTE = 1_024 * KIBIBYTE;
/** So deep in a version's file that its self-test does not see it. */
const DEEP = 30 * MEBIBYTE;
/** Of a rollout to one device; a processor is emulated. */
const endTime = 480_000;

/** When the power goes, and which version is canonical when it is there again. */
const cuts = [
  ["staging", "first"],
  ["verifying", "first"],
  ["cutover-ready", "first"],
  ["observed", "first"],
  ["commit-seen", "first"],
  ["swapped", "second"],
  ["canonical", "second"],
] as const;

async function makeVersions() {
  const { stdout } = await runProgram([hostler(), "--version", "--json"]);
  return {
    first: { version: JSON.parse(stdout).version as string },
    second: await buildVersion("0.2.0"),
    third: await buildVersion("0.3.0"),
    bad: await buildVersion("0.4.0", { entry: badEntry }),
  };
}
type Versions = Awaited<ReturnType<typeof makeVersions>>;

onlyInAll(() => {
  const features = [...liveUpdateFeatures, file("/sbin/debugfs", "e2fsprogs")];
  skipUnless("power cuts of a device", features, () => {
    test(
      "leave one proven version at every phase, and so does what is damaged or fails",
      async () => {
        const versions = await makeVersions();
        await using device = await makeDevice(versions);
        await device.install();
        await device.runs(versions.first.version, [versions.first.version]);
        await cutAtEveryPhase(device, versions);
        await refuseWhatIsDamaged(device, versions);
        await goBackThroughACut(device, versions);
      },
      60 * 60_000,
    );
  });
});

async function makeDevice({ second, third, bad }: Versions): Promise<Device> {
  using folder = temporaryFolder();
  const releases = new PublishedReleases(folder.file("releases"));
  await releases.makeTrust();
  for (const one of [second, third, bad]) await releases.publish(one);
  const flip = (path: string) => flipBytes(path, 4 * KIBIBYTE);
  return new Device(
    await FleetGuest.make({
      "/good": releases.site,
      "/flipped": releases.damaged("flipped", third.version, flip),
      "/truncated": releases.damaged("truncated", third.version, cutInHalf),
    }),
  );
}

async function cutAtEveryPhase(device: Device, versions: Versions): Promise<void> {
  const { first, second } = versions;
  await device.rollOut(second.version, "good");
  for (const [phase, canonical] of cuts) {
    await device.cutIn(phase);
    const { current, running } = await device.look();
    expect(current, phase).toStartWith(`${versions[canonical].version}-`);
    expect(running, phase).toBe(current);
  }
  await device.guest.said(/upgrade: done/);
  await device.runs(second.version, [first.version, second.version]);
}

async function refuseWhatIsDamaged(device: Device, versions: Versions): Promise<void> {
  const { guest } = device;
  const [second, third] = [versions.second.version, versions.third.version];
  const stays = () => device.runs(second, [versions.first.version, second]);
  for (const source of ["flipped", "truncated"]) {
    await device.rollOut(third, source);
    // The version is not to blame for what a source has.
    await device.ends(source, "hindered", /expected .* received/);
    await stays();
  }
  // On the disk, while its candidate runs and the power is gone.
  const before = device.times("cutover-ready");
  await device.rollOut(third, "good", "rotten");
  await guest.said(/upgrade: cutover-ready/, before + 1);
  const folder = await guest.does("readlink /opt/hostler/candidate");
  expect(folder).toStartWith(`versions/${third}-`);
  await guest.cutPower();
  guest.flip(`/opt/hostler/${folder}/hostler`, DEEP);
  await device.boot();
  await device.ends("rotten", "failed", /expected .* received/);
  await stays();
}

async function goBackThroughACut(device: Device, versions: Versions): Promise<void> {
  const { first, second, bad } = versions;
  await device.rollOut(bad.version, "good");
  // Before each of its three starts the guard hashes all that is there.
  await device.guest.said(/upgrade: swapped/);
  await device.cutIn("reverting");
  await device.ends(bad.version, "failed", /was started 3 times, and was not proven/);
  await device.runs(second.version, [first.version, second.version]);
}

class Device implements AsyncDisposable {
  readonly guest: FleetGuest;

  constructor(guest: FleetGuest) {
    this.guest = guest;
  }

  /** As the README says it. */
  async install(): Promise<void> {
    const { guest } = this;
    await guest.boot();
    await guest.said(/listening at https/);
    await guest.does("(umask 077; hostler identity token create box >/run/token)");
    await guest.does("hostler identity enrol --token-file /run/token");
    await guest.does("hostler fleet install --root /site/good/root-1.json");
    await guest.does("systemctl enable --now hostler-fleet-agent");
    await guest.said(/runs as the agent of box/);
  }

  /** @param from a folder of /site */
  async rollOut(version: string, from: string, name?: string): Promise<void> {
    const called = name ?? (from === "good" ? version : from);
    const manifest = `/site/${from}/${manifestOf(version)}`;
    const flags = `--source file:///site/${from} --name ${called} --heartbeat 5s`;
    await this.guest.does(`hostler fleet rollout ${manifest} ${flags}`);
  }

  /** How often it was in that phase, in this boot. */
  times(phase: string): number {
    return [...this.guest.console.matchAll(new RegExp(`upgrade: ${phase}`, "g"))].length;
  }

  /** The power goes when the agent says that it is there, and comes again. */
  async cutIn(phase: string): Promise<void> {
    await this.guest.said(new RegExp(`upgrade: ${phase}`));
    await this.guest.cutPower();
    const begin = performance.now();
    await this.boot();
    console.log(
      `cut in ${phase}: its agent runs after ${Math.round(performance.now() - begin)} ms`,
    );
  }

  async boot(): Promise<void> {
    await this.guest.boot();
    await this.guest.said(/runs as the agent of box/);
  }

  /** Names of versions, such as 0.2.0-0123456789ab: what is canonical, and what runs. */
  async look(): Promise<{ readonly current: string; readonly running: string }> {
    const main = "$(systemctl show -P MainPID hostler-fleet-agent)";
    const links = `readlink /opt/hostler/current && readlink /proc/${main}/exe`;
    const [current = "", running = ""] = (await this.guest.does(links)).split("\n");
    const nameIn = (path: string) => /versions\/([^/]+)/.exec(path)?.[1] ?? path;
    return { current: nameIn(current), running: nameIn(running) };
  }

  /** One agent, of what `current` leads to, whose file is as it was verified; no candidate. */
  async runs(version: string, proven: readonly string[]): Promise<void> {
    const { guest } = this;
    const { current, running } = await this.look();
    expect(current).toStartWith(`${version}-`);
    expect(running).toBe(current);
    const digest = await guest.does("sha256sum /opt/hostler/current/hostler");
    expect(current).toEndWith(digest.slice(0, 12));
    const paths = await guest.does("ls -d /opt/hostler/versions/*/proven");
    const numbers = [...paths.matchAll(/versions\/([^/]+)-[0-9a-f]{12}\//g)].map(([, one]) => one);
    expect(numbers.toSorted()).toEqual([...proven]);
    const units = await guest.does("systemctl list-units --plain --no-legend 'hostler-*'");
    expect(units).not.toContain("candidate");
  }

  /** The rollout has its one device as one that ended so, for this reason. */
  async ends(rollout: string, standing: "failed" | "hindered", reason: RegExp): Promise<void> {
    const look = async () => {
      // As JSON: a table is cut to the width of the guest's terminal.
      const said = await this.guest.does(`hostler fleet history ${rollout} --json`);
      if (said.includes(`"standing": "${standing}"`)) return said;
      throw new Error(`history says: ${said}\nits agent: ${await this.#lastWords()}`);
    };
    expect(await waitFor(`${rollout}: ${standing}`, look, endTime)).toMatch(reason);
  }

  async #lastWords(): Promise<string> {
    return await this.guest.does("journalctl -u hostler-fleet-agent -n 20 -o cat --no-pager");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.guest[Symbol.asyncDispose]();
  }
}
