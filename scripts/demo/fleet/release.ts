/** Keys, a root set that devices pin, and releases that are signed and published. */
import { mkdirSync } from "node:fs";
import type { Report } from "../checks.ts";
import type { DemoVersion } from "../fleet.ts";
import type { FleetStage } from "./stage.ts";

/** Of zstd: smaller files are not worth the time here. */
const LEVEL = "1";

export class Releases {
  readonly #stage: FleetStage;
  readonly #report: Pick<Report, "command">;

  constructor(stage: FleetStage, report: Pick<Report, "command">) {
    this.#stage = stage;
    this.#report = report;
  }

  get #made(): string {
    return this.#stage.file("made");
  }

  /** Where devices fetch from. */
  get source(): string {
    return `file://${this.#stage.file("published")}`;
  }

  get root(): string {
    return this.#stage.file("made", "root-1.json");
  }

  manifestOf({ version }: DemoVersion): string {
    return this.#stage.file("published", `hostler-${version}.manifest.json`);
  }

  /** Shows a command, and runs it. @throws NotSeen when it does not end with 0 */
  async #does(...words: readonly string[]): Promise<string> {
    const shown = words.map((word) => word.replaceAll(`${this.#stage.folder}/`, ""));
    this.#report.command(`hostler ${shown.join(" ")}`);
    return await this.#stage.does(...words);
  }

  /** A root set of one key, and metadata that names the key of releases. */
  async makeTrust(): Promise<void> {
    mkdirSync(this.#made);
    mkdirSync(this.#stage.file("published"));
    const key = (name: string) => this.#stage.file(name);
    for (const name of ["root", "release"]) await this.#does("fleet", "key", "generate", key(name));
    const { root } = this;
    const metadata = this.#stage.file("made", "metadata.json");
    await this.#does("fleet", "root", "init", "--key", key("root.pub"), "--out", root);
    await this.#does("fleet", "root", "sign", root, "--key", key("root"));
    await this.#does("fleet", "root", "metadata", metadata, "--signer", key("release.pub"));
    await this.#does("fleet", "root", "sign", metadata, "--key", key("root"));
  }

  /** @param floor below it no device goes once it has this version */
  async publish({ version, program }: DemoVersion, floor: string): Promise<string> {
    const folder = this.#made;
    const artifact = (...words: readonly string[]) => this.#does("fleet", "artifact", ...words);
    const build = ["build", version, program, "--folder", folder];
    await artifact(...build, "--floor", floor, "--level", LEVEL);
    const manifest = this.#stage.file("made", `hostler-${version}.manifest.json`);
    await artifact("sign", manifest, "--key", this.#stage.file("release"));
    return await artifact("push", version, "--folder", folder, "--to", this.source);
  }

  /** Whether a device that pins this root set would take it. */
  async verify({ version }: DemoVersion): Promise<string> {
    const words = ["verify", version, "--at", this.source, "--root", this.root];
    return (await this.#does("fleet", "artifact", ...words)).trim();
  }
}
