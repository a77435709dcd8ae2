/** Where the demo's fleet lives: a folder, and namespaces that take all with them at the end. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import {
  type DeviceView,
  deviceViewSchema,
  type RolloutView,
  rolloutViewSchema,
} from "../../../src/fleet/protocol-operator.ts";
import { type CommandResult, tryCommand } from "../../command.ts";
import { NotSeen } from "../deadline.ts";
import type { DemoVersions } from "../fleet.ts";
import { Namespaces } from "../namespaces.ts";
import { Program } from "../program.ts";
import { Device } from "./device.ts";
import { Happenings } from "./happenings.ts";

export class FleetStage {
  readonly folder: string = mkdtempSync(join(tmpdir(), "hostler-demo-"));
  readonly #versions: DemoVersions;
  readonly #namespaces: Namespaces;
  readonly devices: Device[] = [];
  readonly #programs: Program[] = [];
  #happenings: Happenings | undefined;

  constructor(options: {
    readonly versions: DemoVersions;
    readonly namespaceFlags: readonly string[];
  }) {
    this.#versions = options.versions;
    this.#namespaces = new Namespaces(options.namespaceFlags);
  }

  /** @returns their first process, as the host numbers it */
  async makeNamespaces(): Promise<number> {
    return await this.#namespaces.make("ip link set lo up");
  }

  file(...names: readonly string[]): string {
    return join(this.folder, ...names);
  }

  get #socket(): readonly string[] {
    return ["--control-socket", this.file("operator.sock")];
  }

  #inside(words: readonly string[]): string[] {
    return [...this.#namespaces.enter, this.#versions.installed.program, ...words];
  }

  /** Runs `hostler …` in there to its end. */
  async run(...words: readonly string[]): Promise<CommandResult> {
    return await tryCommand(this.#inside(words));
  }

  /** Asks the operator. @throws NotSeen when it refuses */
  async ask(...words: readonly string[]): Promise<string> {
    return await this.does(...words, ...this.#socket);
  }

  /** @throws NotSeen when it does not end with 0 */
  async does(...words: readonly string[]): Promise<string> {
    const { exitCode, output } = await this.run(...words);
    if (exitCode === 0) return output;
    throw new NotSeen(`hostler ${words.join(" ")} ended with ${exitCode}\n${output}`);
  }

  /** @returns its address */
  async startOperator(): Promise<string> {
    const state = ["--state-directory", this.file("operator"), ...this.#socket];
    const words = ["fleet", "operator", "--listen", "127.0.0.1:0", ...state];
    const operator = this.#start("the operator", words);
    const [, address = ""] = await operator.said(/listening at (https:\S+)/);
    return address;
  }

  /** What happens from now on. */
  follow(tell: (text: string) => void): Happenings {
    const happenings = new Happenings(tell);
    this.#happenings = happenings;
    const words = ["fleet", "events", "--follow", "--json", ...this.#socket];
    this.#start("events", words, (line) => happenings.hear(line));
    return happenings;
  }

  #start(name: string, words: readonly string[], onLine?: (line: string) => void): Program {
    const program = new Program(name, this.#inside(words), {}, onLine);
    this.#programs.push(program);
    return program;
  }

  /** Installed, enrolled and started. */
  async makeDevice(name: string, root: string): Promise<Device> {
    mkdirSync(this.file("devices"), { recursive: true });
    const { program } = this.#versions.installed;
    const place = { folder: this.file("devices"), namespaces: this.#namespaces, program };
    const device = new Device(name, place);
    const places = ["--folder", device.installation, "--prefix", join(device.folder, "usr")];
    await this.does("fleet", "install", ...places, "--without-units", "--volatile", "--root", root);
    const token = await this.ask("identity", "token", "create", name);
    const file = join(device.folder, "token");
    writeFileSync(file, token, { mode: 0o600 });
    const where = ["--directory", device.identity, "--token-file", file];
    await this.does("identity", "enrol", ...where);
    device.boot();
    this.devices.push(device);
    return device;
  }

  async list(): Promise<readonly DeviceView[]> {
    const answer = JSON.parse(await this.ask("fleet", "devices", "--json"));
    return v.parse(v.object({ devices: v.array(deviceViewSchema) }), answer).devices;
  }

  async history(rollout: string): Promise<RolloutView> {
    const answer = JSON.parse(await this.ask("fleet", "history", rollout, "--json"));
    return v.parse(v.object({ rollout: rolloutViewSchema }), answer).rollout;
  }

  /** Ends the namespaces by ending what their first process reads. @returns unshare's exit code */
  async endNamespaces(): Promise<number> {
    return await this.#namespaces.end();
  }

  /** What was said in there, for somebody who has to find out what went wrong. */
  get diaries(): string[] {
    const programs = [...this.#programs, ...this.devices];
    return programs.flatMap(({ name, lines }) =>
      lines.slice(-30).map((line) => `${name}: ${line}`),
    );
  }

  /** Ends whatever still runs, and removes the folder. */
  async close(): Promise<void> {
    this.#happenings?.end("the demo has ended");
    await this.#namespaces.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
