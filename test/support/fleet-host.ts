/**
 * A host with a real systemd, whose agent is the real lifecycle with files in the place of a store.
 * Its versions are scripts that are all that the units and an upgrade ask of a program.
 */
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { folderOf, linked } from "../../src/fleet/layout.ts";
import { readLayout } from "../../src/fleet/perform/layout-files.ts";
import type { Build, DeviceStatus, Marker } from "../../src/fleet/protocol.ts";
import { agentUnit, fleetUnits } from "../../src/fleet/units.ts";
import { hostler } from "./binary.ts";
import { makeMarker, transactionOf } from "./fleet-agent/life.ts";
import { storeScript } from "./fleet-installation.ts";
import { buildOf } from "./fleet-swapped.ts";
import { type IsolatedSystemd, startIsolatedSystemd } from "./isolated-systemd.ts";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.ts";
import { waitFor } from "./wait-for.ts";

export type HostStatus = DeviceStatus & { readonly version: string };

/** The agent as one file, with its kill points. */
export async function buildFleetAgent(): Promise<string> {
  const built = await Bun.build({
    entrypoints: [join(import.meta.dirname, "fleet-agent-story.ts")],
    target: "bun",
    define: { HOSTLER_FAULTS: "true" },
  });
  return await (built.outputs[0] as Blob).text();
}

export class FleetHost implements AsyncDisposable {
  readonly place: string;
  readonly store: string;
  readonly old: Build;
  protected readonly folder: TemporaryFolder = temporaryFolder();
  #systemd: IsolatedSystemd | undefined;

  protected constructor(agent: string) {
    this.place = this.folder.file("fleet");
    this.store = this.folder.file("store");
    mkdirSync(this.store);
    writeFileSync(this.folder.file("story.js"), agent);
    this.old = this.storeOld();
    symlinkSync(`versions/${folderOf(this.old)}`, join(this.place, "current"));
  }

  /** @param agent of buildFleetAgent */
  static async make(agent: string): Promise<FleetHost> {
    const host = new FleetHost(agent);
    await host.boot();
    return host;
  }

  protected storeOld(): Build {
    return this.version("1.0.0");
  }

  protected units(): readonly { readonly name: string; readonly text: string }[] {
    return fleetUnits(this.place);
  }

  get systemd(): IsolatedSystemd {
    if (this.#systemd === undefined) throw new Error("This host has no power");
    return this.#systemd;
  }

  async boot(): Promise<void> {
    const systemd = await startIsolatedSystemd(this.folder);
    this.#systemd = systemd;
    for (const unit of this.units()) await systemd.writeUnit(unit.name, unit.text);
    await systemd.run(["systemctl", "--no-block", "start", agentUnit]);
    await waitFor("a status", () => this.status());
  }

  /** All that runs is gone, and what is not on the disk. */
  async cutPower(): Promise<void> {
    await this.#systemd?.[Symbol.asyncDispose]();
    this.#systemd = undefined;
  }

  /**
   * Stores a version.
   * @param does what it does before it is a canonical agent or a candidate, in words of a shell
   */
  version(name: string, does: { canonical?: string; candidate?: string } = {}): Build {
    const { canonical = "", candidate = "" } = does;
    const run = `BUN_BE_BUN=1 exec ${hostler()} run ${this.folder.file("story.js")}`;
    const words = `${this.place} ${this.store} ${name}`;
    const kill = `${this.store}/kill-${name}`;
    const text = `case "$1 $2 $3" in
"fleet guard "*) exec ${hostler()} "$@" ;;
"fleet agent --candidate") ${candidate}
${run} ${words} "$4" ;;
"fleet agent "*) echo ${name} >> ${this.store}/starts; ${canonical}
if test -e ${kill}; then
  export HOSTLER_KILL_AT="$(cat ${kill})"
  mv ${kill} ${this.store}/armed
fi
${run} ${words} ;;
"--self-test "*) echo '{"version":"${name}","ok":true,"checks":[]}' ;;
esac`;
    return buildOf(this.place, storeScript(this.folder, name, text, this.place));
  }

  /** Has the next agent of this version killed at a place. */
  killNext(version: string, place: string): void {
    writeFileSync(join(this.store, `kill-${version}`), place);
  }

  read(name: string) {
    const path = join(this.store, name);
    return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : undefined;
  }

  status(): HostStatus | undefined {
    return this.read("status.json");
  }

  get current(): string | undefined {
    return linked(readLayout(this.place), "current");
  }

  /** The versions of the canonical agents that were started. */
  get starts(): string[] {
    const path = join(this.store, "starts");
    return existsSync(path) ? readFileSync(path, "utf8").split("\n").filter(Boolean) : [];
  }

  order(build: Build, changes: Partial<Marker> = {}): void {
    const marker = makeMarker(1, { build, ...changes });
    writeFileSync(join(this.store, "marker.new"), JSON.stringify(marker));
    renameSync(join(this.store, "marker.new"), join(this.store, "marker.json"));
  }

  async inPhase(phase: DeviceStatus["phase"]): Promise<HostStatus> {
    const look = () => {
      const said = this.status();
      return said?.transaction === transactionOf(1) && said.phase === phase ? said : undefined;
    };
    return await waitFor(`phase ${phase}`, look, 60_000);
  }

  /** The candidate that the device names, when it is heard: what an operator has to see itself. */
  heardCandidate(): string | undefined {
    const said = this.status()?.candidate?.instance;
    return said != null && said === this.read("candidate.json")?.instance ? said : undefined;
  }

  commitTo(build: Build, instance: string): void {
    this.order(build, { observed: instance, commit: { transaction: transactionOf(1), instance } });
  }

  async commit(build: Build): Promise<void> {
    this.commitTo(build, await waitFor("a candidate that is heard", () => this.heardCandidate()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cutPower();
    this.folder[Symbol.dispose]();
  }
}
