/** Where the demo's machines run: namespaces of their own, which take all with them at the end. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as v from "valibot";
import { type VmSummary, vmSummarySchema } from "../../../src/vm/protocol.ts";
import { type CommandResult, tryCommand } from "../../command.ts";
import { NotSeen } from "../deadline.ts";
import { onlyChildOf } from "../kernel.ts";
import { Program } from "../program.ts";
import { reaper } from "../stage.ts";

/** Time that somebody has to end before the namespaces are taken down around it. */
const endMilliseconds = 5_000;

/** Below /run, which is the demo's own there: images, disks and sockets are in memory. */
const artifactsFolder = "/run/vms";

export const workerConfiguration = `vm_artifacts_dir = "${artifactsFolder}"
vm_subnet_base = "10.100.0.0/16"
auto_restart = true
`;

export class VmStage {
  readonly folder: string = mkdtempSync(join(tmpdir(), "hostler-demo-"));
  readonly #program: string;
  readonly #namespaceFlags: readonly string[];
  readonly #consoles: Program[] = [];
  #namespaces: Program | undefined;
  #first: number | undefined;
  #worker: { readonly program: Program; readonly processId: number } | undefined;
  #isClosed = false;

  constructor(options: { readonly program: string; readonly namespaceFlags: readonly string[] }) {
    this.#program = options.program;
    this.#namespaceFlags = options.namespaceFlags;
  }

  /**
   * Makes the namespaces. Their first process reads our pipe: when the demo ends in whatever way,
   * it ends, and the kernel ends everybody else in there.
   * @returns that process, as the host numbers it
   */
  async makeNamespaces(): Promise<number> {
    this.#refuseClosed();
    const script = `mount -t tmpfs tmpfs /run && echo made; ${reaper}`;
    const words = [...this.#namespaceFlags, "--kill-child", "sh", "-c", script];
    const namespaces = new Program("unshare", ["unshare", ...words]);
    this.#namespaces = namespaces;
    await namespaces.said(/^made$/);
    this.#first = onlyChildOf(namespaces.processId);
    return this.#first;
  }

  get #enter(): readonly string[] {
    return ["nsenter", "--target", `${this.#first}`, "--pid", "--mount", "--net", "--ipc"];
  }

  /** Runs `hostler vm …` in there to its end. */
  async run(...words: readonly string[]): Promise<CommandResult> {
    this.#refuseClosed();
    return await tryCommand([...this.#enter, this.#program, "vm", ...words]);
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
    this.#refuseClosed();
    const argv = [...this.#enter, this.#program, "vm", "worker", "--config", configuration];
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
    this.#refuseClosed();
    const argv = [...this.#enter, this.#program, "vm", "console", name];
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
    const folder = `/proc/${this.#first}/root/proc/${processId}`;
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
    const text = readFileSync(`/proc/${this.#first}/net/dev`, "latin1");
    const names = text.split("\n").flatMap((line) => /^\s*([^\s:]+):/.exec(line)?.[1] ?? []);
    return names.filter((name) => name !== "lo").toSorted();
  }

  /** What is in a folder of the worker's: "images", "machines". */
  kept(name: "images" | "machines"): string[] {
    return readdirSync(`/proc/${this.#first}/root${artifactsFolder}/${name}`);
  }

  /** Ends the namespaces by ending what their first process reads. @returns unshare's exit code */
  async endNamespaces(): Promise<number> {
    this.#namespaces?.endInput();
    return (await this.#namespaces?.ended()) ?? -1;
  }

  /** What was said in there, for somebody who has to find out what went wrong. */
  get diaries(): string[] {
    const programs = [this.#worker?.program, this.#namespaces, ...this.#consoles];
    return programs.flatMap((program) =>
      program === undefined
        ? []
        : program.lines.slice(-30).map((line) => `${program.name}: ${JSON.stringify(line)}`),
    );
  }

  /** Ends whatever still runs, and removes the folder. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.#namespaces?.endInput();
    if (this.#namespaces !== undefined) {
      try {
        await this.#namespaces.ended(endMilliseconds);
      } catch {
        // --kill-child: with unshare its first process ends, and with that everybody in there.
        this.#namespaces.kill("SIGKILL");
      }
    }
    rmSync(this.folder, { recursive: true, force: true });
  }

  #refuseClosed(): void {
    if (this.#isClosed) throw new NotSeen("The demo was interrupted");
  }
}
