/**
 * The compiled program as all of a small fleet: an operator, a site with releases that its commands
 * made, and one device, "box", that a supervisor runs.
 */
import { createHash } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import type { DeviceView } from "../../../src/fleet/protocol-operator.ts";
import type { AuthorityStart } from "../authority.ts";
import { hostler } from "../binary.ts";
import { buildVersion, PublishedReleases } from "../fleet-releases.ts";
import { type Program, runProgram, startProgram } from "../program.ts";
import { waitFor } from "../wait-for.ts";
import { TestFleet } from "./test-fleet.ts";

/** From the fetch, over probation and commit, to thirty seconds of the new version. */
export const UPGRADE_TIME = 180_000;

type Environment = Readonly<Record<string, string>>;

export const digestOf = (path: string): string =>
  createHash("sha256").update(readFileSync(path)).digest("hex");

export class UpgradedHost implements AsyncDisposable {
  readonly fleet = new TestFleet();
  readonly #releases = new PublishedReleases(this.fleet.authority.folder.path);
  /** What runs the device, when it was started. */
  supervisor: Program | undefined;

  static async start(options: Omit<AuthorityStart, "role"> = {}): Promise<UpgradedHost> {
    const host = new UpgradedHost();
    try {
      await host.fleet.start(options);
      return host;
    } catch (error) {
      await host[Symbol.asyncDispose]();
      throw error;
    }
  }

  file(name: string): string {
    return this.fleet.authority.folder.file(name);
  }

  /** Where releases are published. */
  get site(): string {
    return this.#releases.site;
  }

  /** The device's installation. */
  get place(): string {
    return this.file("fleet");
  }

  /** What `current` leads to. */
  get current(): string {
    return readlinkSync(join(this.place, "current"));
  }

  get source(): readonly [string, string] {
    return ["--source", `file://${this.site}`];
  }

  /** Keys, a root set that devices pin, and metadata that names one key for releases. */
  async trust(): Promise<void> {
    await this.#releases.makeTrust("thief");
  }

  /** The next metadata. */
  async metadata(...flags: readonly string[]): Promise<void> {
    await this.#releases.metadata(...flags);
  }

  /**
   * Makes a release of this source, which says that version.
   * @param faults whether with kill points; with them without it @param key its name
   * @returns the path of its manifest
   */
  async release(
    version: string,
    { faults = true, key = "release" }: { readonly faults?: boolean; readonly key?: string } = {},
  ): Promise<string> {
    const built = await buildVersion(version, { faults });
    return await this.#releases.publish(built, { floor: "0.0.1", key });
  }

  /** Installs and enrols it, and has a supervisor run it. @param options.program which it runs */
  async startDevice(
    options: { readonly program?: string; readonly environment?: Environment } = {},
  ): Promise<void> {
    const { program = hostler(), environment = {} } = options;
    const host = await this.fleet.authority.enrolled("box");
    const places = ["--folder", this.place, "--prefix", this.file("usr"), "--without-units"];
    const pinned = ["--volatile", "--root", join(this.site, "root-1.json")];
    const installed = await runProgram([program, "fleet", "install", ...places, ...pinned]);
    if (installed.exitCode !== 0) throw new Error(`It is not installed: ${installed.stderr}`);
    const socket = ["--control-socket", this.file("supervise.sock"), "--volatile"];
    const words = ["fleet", "supervise", "--folder", this.place, ...socket];
    const agent = ["--", "--identity", host.directory];
    this.supervisor = startProgram([program, ...words, ...agent], { environment });
    await this.device("is there", (box) => box.standing === "alive" && box.executor !== null);
  }

  /** Waits until the operator shows the device so. */
  async device(
    what: string,
    is: (view: DeviceView) => boolean,
    time?: number,
  ): Promise<DeviceView> {
    return await waitFor(
      `box ${what}`,
      async () => {
        const { device: view } = await this.fleet.show("box");
        if (is(view)) return view;
        throw new Error(`${JSON.stringify(view)}: ${this.supervisor?.output.stderr}`);
      },
      time,
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.supervisor?.kill("SIGTERM");
    await this.supervisor?.ended();
    await this.fleet[Symbol.asyncDispose]();
  }
}
