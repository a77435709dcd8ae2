/** Where the demo's machines run: namespaces of their own, which take all with them at the end. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { type VmSummary, vmSummarySchema } from "../../../src/vm/protocol.ts";
import { type CommandResult, tryCommand } from "../../command.ts";
import { NotSeen } from "../deadline.ts";
import { onlyChildOf } from "../kernel.ts";
import { Namespaces } from "../namespaces.ts";
import { Program } from "../program.ts";

/** Below /run, which is the demo's own there: images, disks and sockets are in memory. */
const artifactsFolder = "/run/vms";

export const workerConfiguration = `vm_artifacts_dir = "${artifactsFolder}"
vm_subnet_base = "10.100.0.0/16"
auto_restart = true
`;

export class VmStage {
  readonly folder: string = mkdtempSync(join(tmpdir(), "hostler-demo-"));
  readonly #program: string;
  readonly #namespaces: Namespaces;
  readonly #consoles: Program[] = [];
  #worker: { readonly program: Program; readonly processId: number } | undefined;

  constructor(options: { readonly program: string; readonly namespaceFlags: readonly string[] }) {
    this.#program = options.program;
    this.#namespaces = new Namespaces(options.namespaceFlags);
  }

  /** @returns their first process, as the host numbers it */
  async makeNamespaces(): Promise<number> {
    return await this.#namespaces.make("mount -t tmpfs tmpfs /run");
  }

  /** Runs `hostler vm …` in there to its end. */
  async run(...words: readonly string[]): Promise<CommandResult> {
    return await tryCommand([...this.#namespaces.enter, this.#program, "vm", ...words]);
  }

  async list(): Promise<ReadonlyMap<string, VmSummary>> {
    const { exitCode, output } = await this.run("list", "--json");
    if (exitCode !== 0) throw new NotSeen(`vm list: exit code ${exitCode}\n${output}`);
    const machines = v.parse(v.array(vmSummarySchema), JSON.parse(output));
    return new Map(machines.map((machine) => [machine.name, machine]));
  }

  writeConfiguration(): string {
    const path = join(this.folder, "vm.toml");
    writeFileSync(path, workerConfiguration);
    return path;
  }

  /** Writes a file that declares machines of one image. */
  declare(
    names: readonly string[],
    image: { readonly imagePath: string; readonly hash: string },
  ): { readonly path: string; readonly text: string } {
    const path = join(this.folder, "machines.toml");
    const lines = [`imagePath = "${image.imagePath}"`, `hash = "${image.hash}"`];
    const tables = names.map((name) => ["[[machine]]", `name = "${name}"`, ...lines].join("\n"));
    const text = names.length === 0 ? "machine = []\n" : `${tables.join("\n\n")}\n`;
    writeFileSync(path, text);
    return { path, text };
  }

  /** Returns when there is no such machine. @throws NotSeen when it stays */
  async removed(name: string): Promise<void> {
    const looks = 200;
    for (let look = 0; look < looks; look += 1) if (!(await this.list()).has(name)) return;
    throw new NotSeen(`${name} is still there after ${looks} looks`);
  }

  /** @returns the worker, as the host numbers it */
  async startWorker(configuration: string): Promise<number> {
    const words = ["vm", "worker", "--config", configuration];
    const argv = [...this.#namespaces.enter, this.#program, ...words];
    const worker = new Program("the worker", argv);
    await worker.said(/takes requests at/);
    const processId = onlyChildOf(worker.processId);
    this.#worker = { program: worker, processId };
    return processId;
  }

  /** nsenter is its parent, and ends as it ends. @returns its exit code; 128 + N for a signal */
  async endWorker(signal: NodeJS.Signals): Promise<number> {
    if (this.#worker === undefined) return -1;
    process.kill(this.#worker.processId, signal);
    return await this.#worker.program.ended();
  }

  get workerLines(): readonly string[] {
    return this.#worker?.program.lines ?? [];
  }

  /** `hostler vm console NAME`, with a pipe in place of a terminal. */
  openConsole(name: string): Program {
    const argv = [...this.#namespaces.enter, this.#program, "vm", "console", name];
    const console = new Program(`the console of ${name}`, argv);
    this.#consoles.push(console);
    return console;
  }

  /**
   * When a process in there began, and whose it is.
   * @param processId as it is numbered in there
   * @returns undefined when there is no such process, or it is dead
   */
  lifeOf(processId: number): { readonly startTicks: string; readonly user: string } | undefined {
    const folder = `/proc/${this.#namespaces.first}/root/proc/${processId}`;
    try {
      const status = readFileSync(`${folder}/status`, "latin1");
      if (/^State:\s*[ZX]/m.test(status)) return undefined;
      const stat = readFileSync(`${folder}/stat`, "latin1");
      // The 22nd field of proc_pid_stat(5); the second may hold anything in parentheses.
      const startTicks = stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "";
      return { startTicks, user: /^Uid:\s*(\d+)/m.exec(status)?.[1] ?? "" };
    } catch {
      return undefined;
    }
  }

  /** The network interfaces in there, but for loopback. */
  interfaces(): string[] {
    const text = readFileSync(`/proc/${this.#namespaces.first}/net/dev`, "latin1");
    const names = text.split("\n").flatMap((line) => /^\s*([^\s:]+):/.exec(line)?.[1] ?? []);
    return names.filter((name) => name !== "lo").toSorted();
  }

  /** What is in a folder of the worker's: "images", "machines". */
  kept(name: "images" | "machines"): string[] {
    return readdirSync(`/proc/${this.#namespaces.first}/root${artifactsFolder}/${name}`);
  }

  /** Ends the namespaces by ending what their first process reads. @returns unshare's exit code */
  async endNamespaces(): Promise<number> {
    return await this.#namespaces.end();
  }

  /** What was said in there, for somebody who has to find out what went wrong. */
  get diaries(): string[] {
    const programs = [this.#worker?.program, this.#namespaces.program, ...this.#consoles];
    return programs.flatMap((program) =>
      program === undefined
        ? []
        : program.lines.slice(-30).map((line) => `${program.name}: ${JSON.stringify(line)}`),
    );
  }

  /** Ends whatever still runs, and removes the folder. */
  async close(): Promise<void> {
    await this.#namespaces.close();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
