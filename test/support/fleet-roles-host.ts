/**
 * A host with a real systemd and real daemons of hostler, which run from two versions that were
 * really built: dist/hostler, and the build with kill points. Its agent is the real lifecycle.
 */
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Installation } from "../../src/fleet/perform/installation.ts";
import type { Build, RoleHealth } from "../../src/fleet/protocol.ts";
import { agentUnit, fleetUnits } from "../../src/fleet/units.ts";
import { unitTexts } from "../../src/install/roles.ts";
import { consoleLogOf } from "../../src/vm/console-log.ts";
import { readScrollback } from "../../src/vm/perform/console-scrollback.ts";
import { hostler } from "./binary.ts";
import { transactionOf } from "./fleet-agent/life.ts";
import { FleetHost, type HostStatus } from "./fleet-host.ts";
import { writeScript } from "./fleet-installation.ts";
import { buildVersion } from "./fleet-releases.ts";
import { buildOf } from "./fleet-swapped.ts";
import { numbersIn } from "./guest-numbers.ts";
import { makeTestImage } from "./vm-worker.ts";
import { waitFor } from "./wait-for.ts";

function storeVersion(place: string, version: string, program: string): Build {
  using installation = Installation.open(place, { make: true });
  return buildOf(place, installation.store(program, version).name);
}

/** A unit of images/systemd, as this host has it. */
export interface RoleUnit {
  readonly name: string;
  /** Without it, what `current` leads to. */
  readonly program?: string;
  /** Behind the words of its ExecStart=. */
  readonly words?: readonly string[];
  /** More lines of [Service]. */
  readonly lines?: readonly string[];
}

/** The version that an upgrade leads to: its own file says so. */
const NEXT = "1.1.0";

export class FleetRolesHost extends FleetHost {
  #nextProgram = "";
  #next: Build | undefined;

  static async withRoles(agent: string): Promise<FleetRolesHost> {
    const host = new FleetRolesHost(agent);
    host.#nextProgram = (await buildVersion(NEXT, { faults: true })).program;
    await host.boot();
    return host;
  }

  /** The version that an upgrade leads to. */
  get next(): Build {
    this.#next ??= storeVersion(this.place, NEXT, this.#nextProgram);
    return this.#next;
  }

  protected override storeOld(): Build {
    return storeVersion(this.place, "1.0.0", hostler());
  }

  /** The agent's unit, with the story in the place of the agent's own words. */
  protected override units() {
    const { place, store } = this;
    const kill = `${store}/kill-"$(basename "$(readlink ${place}/current)")"`;
    const agent = writeScript(
      this.folder,
      "agent",
      `echo "$(readlink ${place}/current)" >> ${store}/starts
if test -e ${kill}; then
  export HOSTLER_KILL_AT="$(cat ${kill})"
  mv ${kill} ${store}/armed
fi
export BUN_BE_BUN=1 HOSTLER_STORY_ROLES=host
exec ${place}/current/hostler run ${this.folder.file("story.js")} ${place} ${store}`,
    );
    return fleetUnits(place).map(({ name, text }) => ({
      name,
      text: text.replace(/^ExecStart=.*$/m, `ExecStart=${agent}`),
    }));
  }

  file(name: string, text?: string): string {
    const path = this.folder.file(name);
    if (text !== undefined) writeFileSync(path, text);
    return path;
  }

  /** Writes a role's unit, which leads through `current`, and starts it. */
  async startRole(unit: RoleUnit): Promise<void> {
    const { name } = unit;
    await this.systemd.writeUnit(name, this.#textOf(unit));
    const { exitCode, stderr } = await this.systemd.run(["systemctl", "start", name]);
    if (exitCode === 0) return;
    const { stdout } = await this.systemd.run(["systemctl", "status", name]);
    throw new Error(`${name}: ${stderr}${stdout}${await this.journal(name)}`);
  }

  #textOf({ name, program, words = [], lines = [] }: RoleUnit): string {
    const used = program ?? join(this.place, "current/hostler");
    return (
      (unitTexts[name] ?? "")
        .replaceAll("/usr/bin/hostler", used)
        .replaceAll("/usr/sbin/luod", `${used} live-update daemon`)
        .replace(/^(ExecStart=\S+ \S+ \S+).*$/m, ["$1", ...words].join(" "))
        // The root of this host is read-only, and nothing else can be mounted for a unit.
        .replaceAll(/^(StateDirectory|Private|Protect|Restrict|SystemCall|Lock).*\n/gm, "")
        .replace("[Service]", ["[Service]", ...lines].join("\n"))
    );
  }

  async startAuthority(changes: Partial<RoleUnit> = {}): Promise<void> {
    const words = ["--state-directory", this.file("authority"), "--listen", "127.0.0.1:0"];
    mkdirSync(this.file("authority"), { recursive: true, mode: 0o700 });
    await this.startRole({ name: "hostler-authority.service", words, ...changes });
  }

  /** Where the orchestrator of vetting takes requests when nobody says otherwise. */
  async startVetting(): Promise<void> {
    const words = ["--state-directory", this.file("vetting"), "--listen", "127.0.0.1:0"];
    mkdirSync(this.file("vetting"), { recursive: true, mode: 0o700 });
    await this.startRole({ name: "hostler-vetting-orchestrator.service", words });
  }

  /** What asks it. */
  vetting(...words: readonly string[]): string[] {
    return [hostler(), "vetting", ...words];
  }

  async startProcessAgent(): Promise<void> {
    await this.startRole({ name: "hostler-process-agent.service" });
  }

  async startLuod(): Promise<void> {
    await this.startRole({ name: "luod.service", words: ["--state-directory", this.file("luod")] });
  }

  /** With one process, which sleeps. */
  async startOrchestrator(): Promise<void> {
    const text = '[process.sleeper]\ncommand = ["/bin/sleep", "86399"]\nrestart = "always"\n';
    const words = ["--config", this.file("process.toml", text)];
    await this.startRole({ name: "hostler-process-orchestrator.service", words });
    await waitFor("the orchestrator's process", () => this.sleeper());
  }

  /** What the orchestrator has started, as its own namespace numbers it; undefined: nothing. */
  async sleeper(): Promise<string | undefined> {
    const { stdout } = await this.systemd.run(["pgrep", "--full", "/bin/sleep 86399"]);
    return stdout.trim() === "" ? undefined : stdout.trim();
  }

  /** A worker of virtual machines, and one that counts. @param lines of the worker's unit */
  async startMachine(name: string, lines: readonly string[] = []): Promise<void> {
    // VMMs have users of their own, which go through it, and TAPs.
    chmodSync(this.folder.path, 0o711);
    const device = "test -e /dev/net/tun || { mkdir -p /dev/net && mknod /dev/net/tun c 10 200; }";
    await this.must("sh", "-c", device);
    const text = [
      'hypervisor = "qemu"',
      `vm_artifacts_dir = ${JSON.stringify(this.file("artifacts"))}`,
      `run_dir = ${JSON.stringify(this.file("run"))}`,
      `control_socket = ${JSON.stringify(this.vmSocket)}`,
      "",
    ].join("\n");
    const words = ["--config", this.file("vm.toml", text)];
    await this.startRole({ name: "hostler-vm-worker.service", words, lines });
    const { path, hash } = await makeTestImage(this.file("image"));
    const create = ["create", name, "--image", path, "--hash", hash, "--start"];
    await this.must(hostler(), "vm", ...create, "--control-socket", this.vmSocket);
  }

  get vmSocket(): string {
    return this.file("vm.sock");
  }

  /** What the guest has counted, as far as a worker heard it. */
  numbers(name: string): number[] {
    const folder = join(this.file("artifacts"), "machines", name);
    return numbersIn(new TextDecoder().decode(readScrollback(consoleLogOf(folder))));
  }

  /** Waits for one more number. */
  async counts(name: string): Promise<void> {
    const seen = this.numbers(name).length;
    await waitFor(`${name} to count`, () => this.numbers(name).length > seen);
  }

  /** It never began anew; what it told while no worker was there to hear it is not missed. */
  isCountingOn(name: string): boolean {
    const numbers = this.numbers(name);
    return numbers.every((number, index) => index === 0 || number > (numbers[index - 1] ?? 0));
  }

  /** The one VMM, as its own namespace numbers it. */
  async vmm(): Promise<string> {
    return (await this.must("pidof", "qemu-system-x86_64")).trim();
  }

  /** Runs a program among its processes, which has to succeed. @returns what it printed */
  async must(...argv: readonly string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await this.systemd.run(argv);
    if (exitCode !== 0) throw new Error(`${argv.join(" ")}: ${exitCode}: ${stdout}${stderr}`);
    return stdout;
  }

  async show(unit: string, property: string): Promise<string> {
    const argv = ["systemctl", "show", `--property=${property}`, "--value", unit];
    return (await this.must(...argv)).trim();
  }

  /** The file that the main process of a unit runs, as the kernel says. */
  async programOf(unit: string): Promise<string> {
    return (await this.must("readlink", `/proc/${await this.show(unit, "MainPID")}/exe`)).trim();
  }

  async journal(unit: string): Promise<string> {
    await this.systemd.run(["journalctl", "--sync"]);
    const argv = ["journalctl", "--quiet", "--no-pager", "--output=cat", `_SYSTEMD_UNIT=${unit}`];
    return (await this.systemd.run(argv)).stdout;
  }

  /** Orders the upgrade, commits it, and waits for its end. */
  async upgrade(phase: "done" | "rolled-back", canonicalTime = 300_000): Promise<HostStatus> {
    const limits = { staging_ms: 600_000, commit_ms: 600_000, canonical_ms: canonicalTime };
    const { next } = this;
    this.order(next, { limits });
    const { candidate } = await this.inPhase("cutover-ready");
    const instance = candidate?.instance ?? "";
    const commit = { transaction: transactionOf(1), instance };
    this.order(next, { limits, observed: instance, commit });
    return await waitFor(`phase ${phase}`, () => this.#ended(phase), 120_000).catch(
      async (error: Error) => {
        const said = [this.status(), this.read("heartbeat.json"), this.expected()];
        const log = (await this.journal(agentUnit)).split("\n").slice(-20).join("\n");
        error.message += `\n${said.map((one) => JSON.stringify(one)).join("\n")}\n${log}`;
        throw error;
      },
    );
  }

  #ended(phase: string): HostStatus | undefined {
    const said = this.status();
    return said?.phase === phase ? said : undefined;
  }

  /** What the agent tells of its host. */
  heartbeat(): RoleHealth[] {
    return this.read("heartbeat.json") ?? [];
  }

  role(name: string): RoleHealth | undefined {
    return this.heartbeat().find(({ role }) => role === name);
  }

  /** What the agent expects of its host. */
  expected(): { readonly kind: string; readonly unit: string | null }[] {
    const path = join(this.place, "roles.json");
    return existsSync(path) ? JSON.parse(readFileSync(path, "utf8")).roles : [];
  }

  async expects(...kinds: readonly string[]): Promise<void> {
    await waitFor(`${kinds.join(", ")} to be expected`, () => {
      const known = this.expected().map(({ kind }) => kind);
      return kinds.every((kind) => known.includes(kind)) && known.length === kinds.length;
    });
  }
}
