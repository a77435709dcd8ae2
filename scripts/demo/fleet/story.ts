/** The steps of the demo of a fleet, in order, and the summary. */
import type { DeviceView } from "../../../src/fleet/protocol-operator.ts";
import { Report } from "../checks.ts";
import { NotSeen } from "../deadline.ts";
import type { DemoVersion, DemoVersions } from "../fleet.ts";
import { showNamespaces } from "../namespaces.ts";
import { tell } from "../telling.ts";
import type { Device } from "./device.ts";
import type { Happenings } from "./happenings.ts";
import { Releases } from "./release.ts";
import { FleetStage } from "./stage.ts";

export interface StoryOptions {
  readonly versions: DemoVersions;
  readonly namespaceFlags: readonly string[];
}

/** All the checks that the steps make. */
const checkCount = 24;
/** Of the story, on a machine that is busy with other things as well; building comes before it. */
const mostMilliseconds = 4 * 60_000;
const names = ["box-1", "box-2", "box-3", "box-4", "box-5"] as const;
/** One, then up to three in all, then all. */
const waves = ["--canaries", "1", "--wave", "3", "--max-unavailable", "2"];
const heartbeat = "2s";
/** Whichever of the two is heard first: a candidate's heartbeat, or its device's word. */
const isTried = ["ready", "observed"];
/** What a device takes, and as long again where the machine is busy. */
const swapMilliseconds = 60_000;

/** Tells the story. @returns 0 when all of it was seen, 1 when not, 130 after Ctrl-C */
export async function tellStory(options: StoryOptions): Promise<number> {
  const report = new Report();
  const stage = new FleetStage(options);
  return await tell(report, {
    show: async (within) => {
      within(mostMilliseconds);
      await new Story(report, stage, options).tell();
    },
    checkCount: () => checkCount,
    diaries: () => stage.diaries,
    close: () => stage.close(),
  });
}

class Story {
  readonly #report: Report;
  readonly #stage: FleetStage;
  readonly #versions: DemoVersions;
  readonly #releases: Releases;
  /** Since the rollout was asked for. */
  #begun = performance.now();

  constructor(report: Report, stage: FleetStage, { versions }: StoryOptions) {
    this.#report = report;
    this.#stage = stage;
    this.#versions = versions;
    this.#releases = new Releases(stage, report);
  }

  async tell(): Promise<void> {
    await showNamespaces(this.#report, this.#stage);
    await this.#publish();
    await this.#startOperator();
    const happenings = this.#stage.follow((text) => {
      this.#report.moments(performance.now() - this.#begun, text);
    });
    await this.#startDevices();
    const canary = await this.#beginGood(happenings);
    const cutInProbation = await this.#cutInProbation(happenings, canary);
    const cutAtSwap = await this.#cutAtSwap(happenings);
    await this.#endGood(happenings, [cutInProbation, cutAtSwap]);
    await this.#rollOutBad(happenings);
    await this.#end();
  }

  get #good(): string {
    return this.#versions.good.version;
  }

  async #publish(): Promise<void> {
    const report = this.#report;
    const { installed, good, bad } = this.#versions;
    report.step("Keys, and two releases that are signed and published");
    report.say(
      `Devices were delivered with ${installed.version}. ${good.version} is good. There is`,
    );
    report.say(
      `a mistake in ${bad.version}: it proves itself, and its candidate is heard, but as the`,
    );
    report.say("canonical agent it ends at once.");
    await this.#releases.makeTrust();
    for (const one of [good, bad]) await this.#publishOne(one);
  }

  async #publishOne(version: DemoVersion): Promise<void> {
    await this.#releases.publish(version, this.#versions.installed.version);
    const said = await this.#releases.verify(version);
    const last = said.split("\n").at(-1) ?? "";
    this.#report.check(`a device would take ${version.version}`, last !== "", last);
  }

  async #startOperator(): Promise<void> {
    const report = this.#report;
    report.step("The operator");
    report.command("hostler fleet operator &");
    const address = await this.#stage.startOperator();
    report.check("it listens", address.startsWith("https://127.0.0.1:"), address);
  }

  async #startDevices(): Promise<void> {
    const report = this.#report;
    report.step("Five devices");
    report.say("Each is a container, whose first process is the supervisor of its agent.");
    report.command("hostler fleet install --without-units --root root-1.json");
    report.command("hostler identity token create box-1 | hostler identity enrol");
    report.command("hostler fleet supervise &    # and the same of box-2 to box-5");
    await Promise.all(names.map((name) => this.#stage.makeDevice(name, this.#releases.root)));
    const devices = await this.#until("five devices to be heard", (all) =>
      all.every(({ standing, executor }) => standing === "alive" && executor !== null),
    );
    await this.#showDevices();
    const versions = devices.map(({ current_version: version }) => version);
    const { version } = this.#versions.installed;
    const isRight = versions.length === 5 && versions.every((one) => one === version);
    report.check("all are heard, and run what they came with", isRight, versions.join(", "));
  }

  async #until(
    what: string,
    is: (devices: readonly DeviceView[]) => boolean,
  ): Promise<readonly DeviceView[]> {
    const looks = 200;
    for (let look = 0; look < looks; look += 1) {
      const devices = await this.#stage.list();
      if (devices.length === names.length && is(devices)) return devices;
    }
    throw new NotSeen(`Looked ${looks} times for ${what}`);
  }

  async #showDevices(): Promise<void> {
    this.#report.command("hostler fleet devices");
    this.#report.output(await this.#stage.ask("fleet", "devices"));
  }

  async #rollOut(version: DemoVersion): Promise<void> {
    const manifest = this.#releases.manifestOf(version);
    const flags = [...waves, "--heartbeat", heartbeat];
    const shown = `hostler fleet rollout hostler-${version.version}.manifest.json --source S`;
    this.#report.command(`${shown} \\\n       ${flags.join(" ")}`);
    this.#begun = performance.now();
    await this.#stage.ask(
      ...["fleet", "rollout", manifest, "--source", this.#releases.source, ...flags],
    );
  }

  /** @returns the canary, which is done */
  async #beginGood(happenings: Happenings): Promise<Device> {
    const report = this.#report;
    const version = this.#good;
    report.step(`${version} is rolled out: one canary`);
    report.say("With heartbeats every 2 s in place of every 10 s: what is counted in them goes as");
    report.say("much faster, and a device needs some 12 s from its turn to done, in place of 52.");
    await this.#rollOut(this.#versions.good);
    const { device } = await happenings.next("a canary", ({ what }) => what === "told");
    const canary = this.#deviceOf(device);
    await happenings.next("its candidate", ({ what }) => isTried.includes(what));
    const runs = canary.current;
    const isOld = runs.startsWith(`${this.#versions.installed.version}-`);
    report.check("while its candidate is tried, current is the old one", isOld, runs);
    await happenings.of(canary.name, "done", version);
    const others = happenings.begun(version).filter((name) => name !== canary.name);
    const seen = `${canary.name} alone was told`;
    report.check("nobody else was begun before the canary was done", others.length === 0, seen);
    report.check("it runs the new one", canary.current.startsWith(`${version}-`), canary.current);
    return canary;
  }

  #deviceOf(name: string | null): Device {
    const found = this.#stage.devices.find((device) => device.name === name);
    if (found === undefined) throw new NotSeen(`There is no device ${name}`);
    return found;
  }

  /** @returns the device that it was done to */
  async #cutInProbation(happenings: Happenings, canary: Device): Promise<Device> {
    const report = this.#report;
    const version = this.#good;
    report.step("The second wave, and the power of a device goes in its probation");
    const fits = (one: { what: string; device: string | null; rollout: string | null }) =>
      isTried.includes(one.what) && one.device !== canary.name && one.rollout === version;
    const { device: name } = await happenings.next("another candidate", fits);
    const device = this.#deviceOf(name);
    await this.#cut(device);
    const { current } = device;
    const isOld = current.startsWith(`${this.#versions.installed.version}-`);
    report.check("nothing had changed: current is the old one", isOld, current);
    this.#boot(device);
    await device.said(/ runs as the agent of /);
    return device;
  }

  async #cut(device: Device): Promise<void> {
    const report = this.#report;
    report.command(`kill -KILL …    # all of ${device.name}: supervisor, agent, candidate`);
    const { before, after } = await device.cutPower();
    report.moments(performance.now() - this.#begun, `${device.name} has no power`);
    const seen = `${before} processes before, ${after} after`;
    report.check(`${device.name} is dead at once`, before > 1 && after === 0, seen);
  }

  #boot(device: Device): void {
    device.boot();
    this.#report.moments(performance.now() - this.#begun, `${device.name} has power again`);
  }

  async #cutAtSwap(happenings: Happenings): Promise<Device> {
    const report = this.#report;
    const version = this.#good;
    await happenings.next("the third wave", ({ message }) => message.includes("wave 3 of 3"));
    report.step("The third wave, and the power of a device goes when its link has just changed");
    const already = happenings.begun(version);
    const rest = this.#stage.devices.filter(({ name }) => !already.includes(name));
    const device = await Promise.race(
      rest.map(async (one) => {
        await one.said(/upgrade: swapped/, swapMilliseconds);
        return one;
      }),
    );
    await this.#cut(device);
    const { current } = device;
    report.check("current is the new one", current.startsWith(`${version}-`), current);
    this.#boot(device);
    return device;
  }

  async #endGood(happenings: Happenings, cut: readonly Device[]): Promise<void> {
    const report = this.#report;
    const version = this.#good;
    await happenings.next("its end", ({ message }) => message.includes(`${version} is complete`));
    report.step(`All have ${version}`);
    await this.#showDevices();
    for (const { name, current, proven } of cut) {
      const isProven = current.startsWith(`${version}-`) && proven.includes(current);
      const seen = `${current}, which has proven itself there`;
      report.check(`${name} has one canonical version, after its cut`, isProven, seen);
    }
    const currents = new Set(this.#stage.devices.map(({ current }) => current));
    report.check("all five run it", currents.size === 1, [...currents].join(", "));
    const begun = happenings.begun(version);
    const places = (list: readonly string[], what: string) =>
      list.map((name) => happenings.placeOf(name, what, version));
    const secondDone = Math.max(...places(begun.slice(1, 3), "done"));
    const thirdTold = Math.min(...places(begun.slice(3), "told"));
    const seen = `${begun.slice(0, 1)}, then ${begun.slice(1, 3)}, then ${begun.slice(3)}`;
    report.check("a wave began when the one before was done", secondDone < thirdTold, seen);
    const most = happenings.mostUnderWay(version);
    report.check("no more than two were under way at once", most <= 2, `${most} at most`);
    const { phase, counts } = await this.#stage.history(version);
    const all = `${phase}: ${counts.done} of ${counts.members} done, ${counts.failed} failed`;
    report.check("the rollout says the same", phase === "complete" && counts.done === 5, all);
  }

  async #rollOutBad(happenings: Happenings): Promise<void> {
    const report = this.#report;
    const { version } = this.#versions.bad;
    report.step(`${version} is rolled out, and rolls itself back`);
    const before = this.#stage.devices.map(({ current }) => current);
    const from = happenings.position;
    await this.#rollOut(this.#versions.bad);
    const failed = await happenings.next("its failure", ({ what }) => what === "failed", from);
    await happenings.next("its pause", ({ what }) => what === "rollout-paused", from);
    const canary = this.#deviceOf(failed.device);
    const wasCommitted = happenings.placeOf(canary.name, "committed", version) >= from;
    report.check("its candidate was heard, and committed", wasCommitted, canary.name);
    const after = this.#stage.devices.map(({ current }) => current);
    const isBack = after.join() === before.join();
    report.check("the device went back by itself", isBack, `it runs ${canary.current} again`);
    report.command(`hostler fleet show ${canary.name}`);
    report.output(await this.#stage.ask("fleet", "show", canary.name));
    report.command(`hostler fleet history ${version}`);
    report.output(await this.#stage.ask("fleet", "history", version));
    const { phase, reason, counts } = await this.#stage.history(version);
    const isPaused = phase === "paused" && counts.failed === 1;
    report.check("the rollout paused by itself", isPaused, `${phase}: ${reason}`);
    const begun = happenings.begun(version);
    const untouched = names.length - begun.length;
    report.check("nobody else was told", begun.length === 1, `${untouched} were left alone`);
    const devices = await this.#stage.list();
    const well = devices.filter(
      (device) => device.healthy === true && device.current_version === this.#good,
    );
    report.check("all five are well", well.length === 5, `${well.length} run ${this.#good}`);
  }

  async #end(): Promise<void> {
    this.#report.step("All is ended");
    const code = await this.#stage.endNamespaces();
    this.#report.check("with the namespaces everybody in them", code === 0, `exit code ${code}`);
  }
}
