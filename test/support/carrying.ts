/** A host with luod and a kernel of the test's own, which can be replaced. */
import { spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { hostlerWithFaults, repositoryRoot } from "./binary.ts";
import { FakeKernel } from "./fake-kernel.ts";
import { endHolders, noHolder } from "./holding.ts";
import { type Program, type ProgramResult, runProgram, startProgram } from "./program.ts";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.ts";
import { waitFor } from "./wait-for.ts";

export class Host implements AsyncDisposable {
  readonly folder: TemporaryFolder = temporaryFolder();
  readonly kernel: FakeKernel;
  readonly socket: string;
  readonly #control: string;
  readonly #state: string;
  readonly #programs: Program[] = [];
  /** Process groups that may outlive the programs of the test. */
  readonly #groups = new Set<number>();
  luod!: Program;

  private constructor() {
    this.kernel = new FakeKernel(this.folder.file("kernel.sock"));
    this.socket = this.folder.file("clients.sock");
    this.#control = this.folder.file("control.sock");
    this.#state = this.folder.file("state");
  }

  static async start(): Promise<Host> {
    const host = new Host();
    await host.startLuod();
    return host;
  }

  async startLuod(...flags: readonly string[]): Promise<void> {
    mkdirSync(this.#state, { recursive: true });
    this.luod = this.startProgram([
      ...["daemon", "--socket", this.socket, "--control-socket", this.#control],
      ...["--state-directory", this.#state, ...flags],
    ]);
    await this.luod.said(/listening at/);
  }

  /** `hostler live-update` with these words; it asks this host's kernel. */
  startProgram(words: readonly string[], environment: Readonly<Record<string, string>> = {}) {
    const argv = [hostlerWithFaults(), "live-update", ...words];
    const program = startProgram(argv, {
      environment: { ...this.kernel.environment, ...environment },
    });
    this.#programs.push(program);
    return program;
  }

  /** `run` or `hold`, at this host's luod. */
  client(
    what: "run" | "hold",
    words: readonly string[],
    environment: Readonly<Record<string, string>> = {},
  ): Program {
    return this.startProgram([what, "--socket", this.socket, ...words], environment);
  }

  async luoctl(...words: readonly string[]): Promise<ProgramResult> {
    const argv = [hostlerWithFaults(), "live-update", ...words, "--control-socket", this.#control];
    return await runProgram(argv, { environment: this.kernel.environment });
  }

  /** The state of a client, such as "subscribed"; undefined when luod does not know it. */
  async stateOf(id: string): Promise<string | undefined> {
    const { stdout } = await this.luoctl("list", "--json");
    const clients = JSON.parse(stdout) as { id: string; state: string }[];
    return clients.find((client) => client.id === id)?.state;
  }

  async subscribed(id: string): Promise<void> {
    await waitFor(`${id} to be subscribed`, async () => (await this.stateOf(id)) === "subscribed");
  }

  /** What this program leaves in its group ends with the test. */
  noteGroup(group: number): void {
    this.#groups.add(group);
  }

  /** Orders a kexec, and gives what luoctl says of it when the kernel goes on. */
  beginKexec(): Program {
    this.kernel.loaded = { kernel: "next", initrd: undefined, commandLine: "" };
    const words = ["kexec", "--by", "reboot", "--control-socket", this.#control];
    return this.startProgram(words);
  }

  /** Everything that runs ends with its kernel, and luod runs on the next. */
  async enterNextKernel(): Promise<void> {
    this.beginKexec();
    await this.enteredNextKernel();
  }

  /** As `enterNextKernel`, when the kexec is under way already. */
  async enteredNextKernel(): Promise<void> {
    await waitFor("the kexec", () => this.kernel.ended === "kexec");
    await this.endProcesses();
    this.kernel.boot();
    await this.startLuod();
  }

  async endProcesses(): Promise<void> {
    for (const group of this.#groups) killGroup(group);
    this.#groups.clear();
    for (const program of this.#programs.splice(0)) await program[Symbol.asyncDispose]();
    endHolders(this.#control);
    await noHolder(this.#control);
    rmSync(this.#state, { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.endProcesses();
    this.kernel[Symbol.dispose]();
    this.folder[Symbol.dispose]();
  }
}

function killGroup(group: number): void {
  try {
    process.kill(-group, "SIGKILL");
  } catch {
    // It has ended.
  }
}

/** One letter of proc_pid_stat(5); undefined when the process is gone. */
export function stateOfProcess(processId: number): string | undefined {
  try {
    return /\) (\w) /.exec(readFileSync(`/proc/${processId}/stat`, "latin1"))?.[1];
  } catch {
    return undefined;
  }
}

/** Compiles test/support/programs/NAME.c into a folder. */
export function compileProgram(name: string, folder: string): string {
  const path = join(folder, name);
  const source = join(repositoryRoot, "test/support/programs", `${name}.c`);
  const gcc = spawnSync("gcc", ["-O1", "-o", path, source], { encoding: "utf8" });
  if (gcc.status !== 0) throw new Error(`gcc ${source}:\n${gcc.stderr}`);
  return path;
}
