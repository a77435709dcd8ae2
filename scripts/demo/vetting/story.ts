/** The steps of the demo of vetting, in order, and the summary. */
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { dossierSchema, type RunView } from "../../../src/vetting/protocol-operator.ts";
import { faults, proverSpec } from "../../../src/vetting/prove/faults.ts";
import { type GuestChange, guestCards, hostAddress } from "../../../src/vetting/prove/guest.ts";
import { LaboratoryHost } from "../../../test/support/vetting-laboratory.ts";
import { waitFor } from "../../../test/support/wait-for.ts";
import { tryCommand } from "../../command.ts";
import type { LiveImage } from "../../live-image.ts";
import { Report } from "../checks.ts";
import { NotSeen } from "../deadline.ts";
import { Program } from "../program.ts";
import { tell } from "../telling.ts";

export interface StoryOptions {
  /** The compiled file. */
  readonly program: string;
  readonly image: LiveImage;
}

/** All the checks that the steps make. */
const checkCount = 9;
/** Milliseconds for all of it: two hosts, whose processors are emulated. */
const wholeTime = 20 * 60_000;
/** Milliseconds for one state of a run. */
const statePatience = 8 * 60_000;

/** Three faults of one host, found one after the other. */
const broken = ["wrong-dimm", "smart-warning", "sata-media-error"].map((name) => {
  const fault = faults.find((one) => one.name === name);
  if (fault === undefined) throw new Error(`Bug: there is no fault ${name}`);
  return fault;
});

/** Tells the story. @returns 0 when all of it was seen, 1 when not, 130 after Ctrl-C */
export async function tellStory(options: StoryOptions): Promise<number> {
  const report = new Report();
  const folder = mkdtempSync(join(tmpdir(), "hostler-demo-"));
  const story = new Story(report, options, folder);
  return await tell(report, {
    show: async (within) => {
      within(wholeTime);
      await story.tell();
    },
    checkCount: () => checkCount,
    diaries: () => story.diaries(),
    close: async () => {
      await story.close();
      rmSync(folder, { recursive: true, force: true });
    },
  });
}

class Story {
  readonly #report: Report;
  readonly #options: StoryOptions;
  readonly #folder: string;
  readonly #owned: AsyncDisposable[] = [];
  readonly #hosts = new Map<string, LaboratoryHost>();
  #orchestrator: Program | undefined;
  #address = "";

  constructor(report: Report, options: StoryOptions, folder: string) {
    this.#report = report;
    this.#options = options;
    this.#folder = folder;
  }

  async tell(): Promise<void> {
    await this.#startOrchestrator();
    await this.#vetHealthy();
    const run = await this.#vetBroken();
    await this.#end(run);
  }

  get #control(): string {
    return join(this.#folder, "control");
  }

  async #startOrchestrator(): Promise<void> {
    this.#report.step("An orchestrator, and what its hosts are to be");
    const words = ["vetting", "orchestrator", "--listen", "127.0.0.1:0"];
    this.#report.command(`hostler ${words.join(" ")}`);
    const state = join(this.#folder, "state");
    const places = ["--state-directory", state, "--control-socket", this.#control];
    const daemon = new Program("orchestrator", [this.#options.program, ...words, ...places]);
    this.#orchestrator = daemon;
    const [, address = ""] = await daemon.said(/listening at (https:[^\s"]+)/, 0, 60_000);
    this.#address = address;
    this.#report.say(`Its page: ${address}/`);
    const spec = join(this.#folder, "spec.json");
    writeFileSync(spec, JSON.stringify(proverSpec));
    await this.#ask("spec", "put", spec);
    const { stdout } = await this.#run("spec", "list");
    this.#report.check("The spec is there", stdout.includes(proverSpec.name), proverSpec.name);
  }

  async #vetHealthy(): Promise<void> {
    this.#report.step("A host that is well boots the live image");
    const run = await this.#begin("healthy", guestCards.first, {});
    const view = await this.#settled(run);
    this.#tellStages(view);
    const isWell = view.verdict === "passed" || view.verdict === "warned";
    this.#report.check("It may serve", isWell, `${view.state}, ${view.verdict ?? "no verdict"}`);
    await this.#reports(run, "healthy");
    await this.#switchOff("healthy");
  }

  /** @returns the run, which holds */
  async #vetBroken(): Promise<number> {
    this.#report.step("A host with three faults");
    for (const { wrong } of broken) this.#report.say(`- ${wrong}`);
    const change = Object.assign({}, ...broken.map((fault) => fault.change ?? {}));
    const run = await this.#begin("broken", "52:54:00:76:65:03", change);
    for (const { atPower } of broken) {
      if (atPower !== undefined) {
        await this.#hosts.get("broken")?.command(atPower.command, atPower.words);
      }
    }
    for (const [index, { expected, wrong }] of broken.entries()) {
      const view = await this.#settled(run);
      const holds = view.state === "FailedHolding" && view.reason.startsWith(expected.by);
      this.#report.check(`Found: ${wrong}`, holds, `${view.state}: ${view.reason}`);
      if (!holds) throw new NotSeen(`The run is ${view.state}: ${view.reason}`);
      if (index < broken.length - 1) {
        await this.#ask("override", `${run}`, expected.by, "--reason", "the demo goes on");
        await this.#until(run, "the run to go on", ({ state }) => state !== "FailedHolding");
      }
    }
    this.#tellStages(await this.#view(run));
    await this.#reports(run, "broken");
    return run;
  }

  async #end(run: number): Promise<void> {
    this.#report.step("The host is let go");
    await this.#ask("release", `${run}`, "--after", "shutdown");
    const view = await this.#until(run, "the end of the run", ({ verdict }) => verdict !== null);
    this.#report.check("It may not serve", view.verdict === "failed", `${view.verdict}`);
    const host = this.#hosts.get("broken");
    await host?.switchedOff();
    this.#report.check("It has switched itself off", true, "sync, reboot(2)");
    const { stdout } = await this.#run("runs");
    this.#report.output(stdout);
    this.#report.say(`Its page, while it runs: ${this.#address}/`);
  }

  /** A run, its host's switch, and the agent's first word. */
  async #begin(name: string, mac: string, change: GuestChange): Promise<number> {
    await this.#ask("host", "add", mac, "--name", name, "--spec", proverSpec.name);
    const started = await this.#ask("start", name, "--window", "1h", "--json");
    const { run } = v.parse(v.object({ run: v.number() }), JSON.parse(started));
    const address = `https://${hostAddress}:${new URL(this.#address).port}`;
    const line = await this.#ask("token", `${run}`, "--address", address);
    const host = new LaboratoryHost({ image: this.#options.image, mac, change });
    this.#owned.push(host);
    this.#hosts.set(name, host);
    await host.boot(line.trim().split(" "));
    return run;
  }

  async #switchOff(name: string): Promise<void> {
    await this.#hosts.get(name)?.[Symbol.asyncDispose]();
    this.#hosts.delete(name);
  }

  /** It has ended, or holds. */
  async #settled(run: number): Promise<RunView> {
    let state = "";
    return await this.#until(run, "the end of the run", (view) => {
      if (view.state !== state) this.#report.say(`run ${run}: ${view.state}`);
      state = view.state;
      return view.state === "FailedHolding" || view.verdict !== null;
    });
  }

  async #until(run: number, what: string, is: (view: RunView) => boolean): Promise<RunView> {
    return await waitFor(
      what,
      async () => {
        const view = await this.#view(run);
        return is(view) ? view : undefined;
      },
      statePatience,
    );
  }

  async #view(run: number): Promise<RunView> {
    const { stdout } = await this.#run("show", `${run}`, "--json");
    return v.parse(dossierSchema, JSON.parse(stdout)).view;
  }

  #tellStages(view: RunView): void {
    const lines = view.stages.map(({ stage, outcome, summary }) => {
      return `${stage.padEnd(10)} ${(outcome ?? "-").padEnd(6)} ${summary}`;
    });
    this.#report.output(lines.join("\n"));
  }

  async #reports(run: number, name: string): Promise<void> {
    const folder = join(this.#folder, "reports");
    mkdirSync(folder, { recursive: true });
    const path = join(folder, `${name}.html`);
    await this.#ask("report", `${run}`, "--format", "html", "--out", path);
    this.#report.check("Its report is written", statSync(path).size > 10_000, `${name}.html`);
  }

  /** A command as a user would type it, which has to work. */
  async #ask(...words: readonly string[]): Promise<string> {
    this.#report.command(`hostler vetting ${words.join(" ")}`);
    const { exitCode, stdout } = await this.#run(...words);
    if (exitCode === 0) return stdout;
    throw new NotSeen(`hostler vetting ${words.join(" ")} ended with ${exitCode}:\n${stdout}`);
  }

  async #run(...words: readonly string[]) {
    const socket = ["--control-socket", this.#control];
    const argv = [this.#options.program, "vetting", ...words, ...socket];
    const { exitCode, output } = await tryCommand(argv);
    return { exitCode, stdout: output };
  }

  diaries(): readonly string[] {
    const hosts = [...this.#hosts].flatMap(([name, host]) =>
      host.console
        .split("\n")
        .slice(-40)
        .map((line) => `${name}: ${line}`),
    );
    return [...(this.#orchestrator?.lines ?? []).slice(-40), ...hosts];
  }

  async close(): Promise<void> {
    for (const owned of this.#owned) await owned[Symbol.asyncDispose]();
    this.#orchestrator?.kill("SIGTERM");
    await this.#orchestrator?.ended();
  }
}
