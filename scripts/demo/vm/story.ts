/** The steps of the demo of virtual machines, in order, and the summary. */
import type { VmSummary } from "../../../src/vm/protocol.ts";
import { withStep } from "../../terminal.ts";
import { Report } from "../checks.ts";
import { NotSeen } from "../deadline.ts";
import { showNamespaces } from "../namespaces.ts";
import { tell } from "../telling.ts";
import { Guest, type Pulse } from "./guest.ts";
import { type GuestImage, makeGuestImage } from "./image.ts";
import { VmStage, workerConfiguration } from "./stage.ts";

export interface StoryOptions {
  /** The compiled file. */
  readonly program: string;
  readonly namespaceFlags: readonly string[];
  readonly small: boolean;
}

/** All the checks that the steps make; those about addresses and talking are of Linux alone. */
const checkCounts: Readonly<Record<GuestImage["kind"], number>> = { linux: 31, counter: 26 };

/** Of the story; fetching a kernel and building come before it. */
const mostMilliseconds = 90_000;

/** Tells the story. @returns 0 when all of it was seen, 1 when not, 130 after Ctrl-C */
export async function tellStory(options: StoryOptions): Promise<number> {
  const report = new Report();
  const stage = new VmStage(options);
  let kind: GuestImage["kind"] = "linux";
  return await tell(report, {
    show: async (within) => {
      const image = await withStep("the image", () =>
        makeGuestImage({ folder: stage.folder, ...options }),
      );
      kind = image.kind;
      within(mostMilliseconds);
      await new Story(report, stage, image).tell();
    },
    checkCount: () => checkCounts[kind],
    diaries: () => stage.diaries,
    close: () => stage.close(),
  });
}

const names = ["web", "db"] as const;

class Story {
  readonly #report: Report;
  readonly #stage: VmStage;
  readonly #image: GuestImage;
  readonly #web: Guest;
  readonly #db: Guest;
  #configuration = "";
  #declaration = "";
  #hash = "";

  constructor(report: Report, stage: VmStage, image: GuestImage) {
    this.#report = report;
    this.#stage = stage;
    this.#image = image;
    this.#web = new Guest(stage, "web", image.kind);
    this.#db = new Guest(stage, "db", image.kind);
  }

  get #isLinux(): boolean {
    return this.#image.kind === "linux";
  }

  get #guests(): readonly Guest[] {
    return [this.#web, this.#db];
  }

  async tell(): Promise<void> {
    await showNamespaces(this.#report, this.#stage);
    this.#hash = await this.#hashImage();
    await this.#startWorker();
    await this.#createMachines();
    if (this.#isLinux) {
      await this.#waitForAddresses();
      await this.#talk();
    }
    const before = await this.#pulses();
    const machines = await this.#killWorker();
    await this.#adopt(machines, before);
    await this.#replaceVmm();
    await this.#deleteOne();
    await this.#deleteAll();
  }

  /** Runs a command, shows it and what it printed, and goes on only when it was obeyed. */
  async #command(...words: readonly string[]): Promise<string> {
    const { exitCode, output } = await this.#show(...words);
    if (exitCode !== 0) throw new NotSeen(`hostler vm ${words[0]} ended with ${exitCode}`);
    return output.trim();
  }

  async #show(...words: readonly string[]) {
    this.#report.command(`hostler vm ${words.join(" ")}`);
    const result = await this.#stage.run(...words);
    this.#report.output(result.output);
    return result;
  }

  async #hashImage(): Promise<string> {
    const report = this.#report;
    report.step("An image");
    report.say(`A folder with vm-config.json: ${this.#image.words}.`);
    const hash = await this.#command("hash", this.#image.folder);
    const isHash = /^sha256-[A-Za-z0-9+/]{43}=$/.test(hash);
    report.check("its hash is what nix hash path prints", isHash, hash);
    return hash;
  }

  async #startWorker(): Promise<void> {
    const report = this.#report;
    report.step("The worker");
    this.#configuration = this.#stage.writeConfiguration();
    report.command(`cat ${this.#configuration}`);
    report.output(workerConfiguration);
    report.command(`hostler vm worker --config ${this.#configuration} &`);
    const worker = await this.#stage.startWorker(this.#configuration);
    report.output(this.#stage.workerLines.join("\n"));
    await this.#command("status");
    report.check("it takes requests", true, `process ${worker}`);
  }

  async #createMachines(): Promise<void> {
    const report = this.#report;
    report.step("Two machines, declared in a file");
    await this.#apply(names);
    for (const name of names) await this.#until(name, "running");
    await this.#command("list");
    const machines = await this.#stage.list();
    for (const name of names) {
      const machine = machines.get(name);
      const seen = `${machine?.phase}, ${machine?.hypervisor} with ${machine?.accelerator}`;
      report.check(`${name} runs`, machine?.phase === "running", seen);
    }
    await this.#checkConvergence();
    const users = names.map((name) => this.#stage.lifeOf(pidOf(machines, name))?.user ?? "nobody");
    const apart = new Set(users).size === 2 && !users.includes("0") && !users.includes("nobody");
    report.check("each is a process under a user of its own", apart, users.join(", "));
    const taps = names.map((name) => machines.get(name)?.tap ?? "none");
    const links = this.#stage.interfaces();
    const linked = taps.every((tap) => links.includes(tap)) && links.includes("br-procurator");
    report.check("the worker made a bridge and a TAP for each", linked, links.join(", "));
  }

  /** Has the worker make what a file with these machines declares. */
  async #apply(declared: readonly string[]): Promise<void> {
    const { path, text } = this.#stage.declare(declared, {
      imagePath: this.#image.folder,
      hash: this.#hash,
    });
    this.#declaration = path;
    this.#report.command(`cat ${path}`);
    this.#report.output(text);
    await this.#command("apply", path);
  }

  async #checkConvergence(): Promise<void> {
    const { exitCode, output } = await this.#show("diff", this.#declaration);
    const isDone = exitCode === 0 && output.includes(": 100 % as declared");
    this.#report.check("all is as declared", isDone, output.split("\n")[0] ?? "");
  }

  async #waitForAddresses(): Promise<void> {
    const report = this.#report;
    report.step("They boot, and get addresses by DHCP");
    const machines = await this.#stage.list();
    for (const guest of this.#guests) guest.attach();
    for (const guest of this.#guests) {
      const given = `${machines.get(guest.name)?.address}/16`;
      const address = await guest.address();
      report.check(`${guest.name} has the address that list shows`, address === given, address);
    }
  }

  async #talk(): Promise<void> {
    const report = this.#report;
    report.step("They talk to each other");
    report.say("Typed at their serial consoles (hostler vm console NAME).");
    await this.#ping(this.#web, "db");
    await this.#ping(this.#db, "web");
  }

  async #ping(from: Guest, to: string): Promise<void> {
    const address = (await this.#stage.list()).get(to)?.address ?? "";
    this.#report.command(`ping -c 2 ${address}`);
    const seen = await from.ping(address);
    this.#report.check(`${from.name} reaches ${to}`, / 0% packet loss/.test(seen), seen);
  }

  async #pulses(): Promise<readonly Pulse[]> {
    return [await this.#web.pulse(), await this.#db.pulse()];
  }

  async #killWorker(): Promise<ReadonlyMap<string, VmSummary>> {
    const report = this.#report;
    report.step("The worker is killed");
    const machines = await this.#stage.list();
    const lives = this.#lives(machines);
    report.command("kill -KILL $(pidof hostler)    # the worker");
    await this.#stage.endWorker("SIGKILL");
    const { exitCode } = await this.#show("list");
    report.check("nobody answers", exitCode === 111, `exit code ${exitCode}`);
    const live = this.#lives(machines) === lives;
    report.check("the machines' processes go on", live, lives);
    return machines;
  }

  /** Which processes have the machines, with when those began: the same text, the same ones. */
  #lives(machines: ReadonlyMap<string, VmSummary>): string {
    const one = (name: string) => {
      const processId = pidOf(machines, name);
      const life = this.#stage.lifeOf(processId);
      const begun = life === undefined ? " is dead" : `, begun at ${life.startTicks}`;
      return `${name} ${processId}${begun}`;
    };
    return [...machines.keys()].map(one).join("; ");
  }

  async #adopt(before: ReadonlyMap<string, VmSummary>, pulses: readonly Pulse[]): Promise<void> {
    const report = this.#report;
    report.step("Another worker takes them up");
    report.command(`hostler vm worker --config ${this.#configuration} &`);
    await this.#stage.startWorker(this.#configuration);
    // It is there as soon as its new worker reaches its VMM.
    for (const name of names) await this.#until(name, "running");
    await this.#command("list");
    const now = await this.#stage.list();
    for (const name of names) {
      const [old, same] = [before.get(name), now.get(name)];
      const isSame = same?.pid === old?.pid && same?.invocation === old?.invocation;
      const runs = same?.phase === "running" && same.restarts === 0;
      const seen = `process ${same?.pid}, ${same?.phase}, ${same?.restarts} restarts`;
      report.check(`${name} was adopted`, isSame && runs, seen);
    }
    await this.#goOn(this.#web, pulses[0]);
    await this.#goOn(this.#db, pulses[1]);
  }

  /** Returns when it is in that phase. @throws NotSeen when it does not come there */
  async #until(name: string, phase: VmSummary["phase"]): Promise<void> {
    const looks = 100;
    for (let look = 0; look < looks; look += 1) {
      if ((await this.#stage.list()).get(name)?.phase === phase) return;
    }
    throw new NotSeen(`${name} is not ${phase} after ${looks} looks`);
  }

  /** Checks that its guest is the one of before, and further on. */
  async #goOn(guest: Guest, before: Pulse | undefined): Promise<void> {
    if (before === undefined) throw new NotSeen(`Nothing was read of ${guest.name}`);
    if (this.#isLinux) guest.attach();
    const pulse = await guest.later(before);
    const holds = pulse.boot === before.boot && pulse.count > before.count;
    const seen = `${before.words}; now ${pulse.words}`;
    this.#report.check(`the guest of ${guest.name} goes on`, holds, seen);
  }

  async #replaceVmm(): Promise<void> {
    const report = this.#report;
    report.step("The VMM of web is replaced under it");
    report.say("Its memory stays where it is; the device state goes from the old process to the");
    report.say("new one, which may be of a newer build.");
    const before = await this.#stage.list();
    const pulse = await this.#web.pulse();
    const lastEvent = await this.#lastEvent();
    await this.#command("survivable", "web");
    await this.#command("replace-vmm", "web", "--wait");
    report.output(await this.#eventsSince(lastEvent));
    const now = await this.#stage.list();
    const [old, fresh] = [pidOf(before, "web"), pidOf(now, "web")];
    const isOther = fresh !== old && this.#stage.lifeOf(old) === undefined;
    const lives = this.#stage.lifeOf(fresh) !== undefined;
    report.check("another process has web", isOther && lives, `process ${fresh} for ${old}`);
    await this.#goOn(this.#web, pulse);
    const undisturbed = now.get("db")?.invocation === before.get("db")?.invocation;
    report.check("db was not disturbed", undisturbed, `process ${pidOf(now, "db")}`);
    if (this.#isLinux) await this.#ping(this.#db, "web");
  }

  async #lastEvent(): Promise<number> {
    const { output } = await this.#stage.run("events", "web");
    return output.trimEnd().split("\n").length;
  }

  async #eventsSince(count: number): Promise<string> {
    this.#report.command("hostler vm events web");
    const { output } = await this.#stage.run("events", "web");
    return output.trimEnd().split("\n").slice(count).join("\n");
  }

  async #deleteOne(): Promise<void> {
    const report = this.#report;
    report.step("db is deleted from the file");
    const before = await this.#stage.list();
    const gone = before.get("db");
    await this.#apply(["web"]);
    report.say(
      "Its guest was asked to shut down, by its power button, and has a minute for it. It",
    );
    report.say("has nobody who hears that, and is switched off at its console.");
    this.#db.switchOff();
    await this.#stage.removed("db");
    await this.#command("list");
    await this.#checkConvergence();
    const now = await this.#stage.list();
    report.check("web alone is left", [...now.keys()].join() === "web", [...now.keys()].join());
    const isUndisturbed = now.get("web")?.invocation === before.get("web")?.invocation;
    report.check("web was not disturbed", isUndisturbed, `process ${pidOf(now, "web")}`);
    const dead = this.#stage.lifeOf(pidOf(before, "db")) === undefined;
    const folders = this.#stage.kept("machines");
    const isRemoved = dead && folders.join() === "web";
    report.check("its process and its disks are gone", isRemoved, `folders: ${folders.join()}`);
    const links = this.#stage.interfaces();
    const isUnlinked = !links.includes(gone?.tap ?? "") && links.length === 2;
    report.check("its TAP is gone, the bridge is there", isUnlinked, links.join(", "));
  }

  async #deleteAll(): Promise<void> {
    const report = this.#report;
    report.step("All is removed");
    await this.#apply([]);
    await this.#command("delete", "web", "--now", "--wait");
    const links = this.#stage.interfaces();
    report.check("no interface of the worker's is left", links.length === 0, `${links.length}`);
    const images = this.#stage.kept("images");
    report.check("no image is left", images.length === 0, `${images.length}`);
    report.command("kill $(pidof hostler)    # the worker");
    const code = await this.#stage.endWorker("SIGTERM");
    report.check("the worker ends", code === 0, `exit code ${code}`);
    const ended = await this.#stage.endNamespaces();
    report.check("and everybody else with the namespaces", ended === 0, `exit code ${ended}`);
  }
}

const pidOf = (machines: ReadonlyMap<string, VmSummary>, name: string) =>
  machines.get(name)?.pid ?? -1;
