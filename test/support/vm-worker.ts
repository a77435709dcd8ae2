/**
 * The compiled `hostler vm worker` on a host of its own: a network, processes and mounts that the
 * test makes, so that bridges, TAPs and rules are nobody else's, and that with the first process
 * everything ends that the worker and its VMMs are, whatever happened.
 */
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { makeTestGuest } from "../../scripts/test-guest.ts";
import { hashPath } from "../../src/image/nar.ts";
import { bridgeLocksFolder } from "../../src/network/bridge-lock.ts";
import { WorkerClient } from "../../src/vm/client.ts";
import { consoleLogOf } from "../../src/vm/console-log.ts";
import { readScrollback } from "../../src/vm/perform/console-scrollback.ts";
import type { VmEventRecord, VmSpec, VmSummary } from "../../src/vm/protocol.ts";
import { hostler } from "./binary.ts";
import { numbersIn } from "./guest-numbers.ts";
import { childOf, isAlive } from "./partition.ts";
import { type Program, type ProgramResult, runProgram, startProgram } from "./program.ts";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.ts";
import { waitFor } from "./wait-for.ts";

/** Turns of the guest between two lines: some tens of lines a second, not thousands. */
const GUEST_PAUSE = 3_000_000;
const MEBIBYTE = 1024 ** 2;

export interface WorkerOptions {
  /** The worker's program; dist/hostler without it. */
  readonly binary?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Lines of TOML beside the paths. */
  readonly configuration?: readonly string[];
}

export interface TestImage {
  readonly path: string;
  readonly hash: string;
}

/** One line of `ps`, as far as a test asks. */
interface TestVmm {
  /** The first digits of its invocation, as its folder has them. */
  readonly invocation: string;
  /** As this process numbers it. */
  readonly processId: number;
  readonly state: string;
}

/** Makes an image with the guest that counts. @param padding bytes beside it */
export async function makeTestImage(path: string, padding = 0): Promise<TestImage> {
  mkdirSync(path);
  writeFileSync(join(path, "vmlinux"), makeTestGuest({ pause: GUEST_PAUSE }));
  const configuration = {
    payload: { kernel: "vmlinux", cmdline: "" },
    cpus: { boot_vcpus: 1 },
    memory: { size: 32 * MEBIBYTE, shared: true },
    serial: { mode: "Socket" },
  };
  writeFileSync(join(path, "vm-config.json"), JSON.stringify(configuration));
  if (padding > 0) writeFileSync(join(path, "padding"), Buffer.alloc(padding, "padding"));
  return { path, hash: await hashPath(path) };
}

export class VmHost implements AsyncDisposable {
  readonly folder: TemporaryFolder;
  readonly controlSocket: string;
  readonly artifacts: string;
  readonly runFolder: string;
  readonly #owned: AsyncDisposableStack;
  readonly #first: number;
  readonly #workers: Program[] = [];

  private constructor(folder: TemporaryFolder, first: number, owned: AsyncDisposableStack) {
    this.folder = folder;
    this.controlSocket = folder.file("vm.sock");
    this.artifacts = folder.file("artifacts");
    this.runFolder = folder.file("run");
    this.#first = first;
    this.#owned = owned;
  }

  static async make(options: { readonly folder?: TemporaryFolder } = {}): Promise<VmHost> {
    await using owned = new AsyncDisposableStack();
    const folder = options.folder ?? owned.use(temporaryFolder());
    // VMMs have users of their own, and go through it.
    chmodSync(folder.path, 0o711);
    const spaces = ["--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"];
    // The shell waits for whoever has lost a parent, as the first process of a host does.
    const script = "ip link set lo up && echo ready && sleep infinity; :";
    const unshare = owned.use(startProgram(["unshare", ...spaces, "sh", "-c", script]));
    await unshare.said(/ready/);
    const first = await waitFor("the host's first process", () => childOf(unshare.processId));
    const { ino } = statSync(`/proc/${first}/ns/net`);
    owned.defer(() => forgetBridges(ino));
    owned.defer(() => endHost(first, folder.path));
    return new VmHost(folder, first, owned.move());
  }

  /** Its first process: who has its namespaces. */
  get processId(): number {
    return this.#first;
  }

  /** Words that run a program on this host. */
  get enter(): readonly string[] {
    return ["nsenter", "-t", String(this.#first), "-p", "-m", "-n", "--"];
  }

  /** @returns the configuration's path */
  configure(lines: readonly string[] = []): string {
    const path = this.folder.file("vm.toml");
    const paths = [
      `vm_artifacts_dir = ${JSON.stringify(this.artifacts)}`,
      `run_dir = ${JSON.stringify(this.runFolder)}`,
      `control_socket = ${JSON.stringify(this.controlSocket)}`,
    ];
    const own = lines.some((line) => line.startsWith("hypervisor")) ? [] : ['hypervisor = "qemu"'];
    writeFileSync(path, [...paths, ...own, ...lines, ""].join("\n"));
    return path;
  }

  /** One that may end before it takes requests. */
  spawn(options: WorkerOptions = {}): Program {
    const { binary = hostler(), environment = {}, configuration = [] } = options;
    const words = [binary, "vm", "worker", "--config", this.configure(configuration), "-v"];
    const worker = startProgram([...this.enter, ...words], { environment });
    this.#workers.push(worker);
    return worker;
  }

  async start(options: WorkerOptions = {}): Promise<Program> {
    const worker = this.spawn(options);
    await worker.said(/takes requests at/);
    return worker;
  }

  get worker(): Program {
    const worker = this.#workers.at(-1);
    if (worker === undefined) throw new Error("No worker was started");
    return worker;
  }

  /** The worker itself, not what it was started through. */
  get workerProcessId(): number {
    return childOf(this.worker.processId) ?? this.worker.processId;
  }

  /** SIGKILL to the worker alone. */
  async kill(): Promise<void> {
    process.kill(this.workerProcessId, "SIGKILL");
    await this.worker.ended();
  }

  /** Nobody answers any more; a worker that was not yet reaped has died as well. */
  get hasDied(): boolean {
    try {
      return !isAlive(this.workerProcessId);
    } catch {
      // Not even what it was started through is there.
      return true;
    }
  }

  /** All that its workers have said. */
  get said(): string {
    return this.#workers.map(({ output }) => output.stderr).join("");
  }

  client(): Promise<WorkerClient> {
    return WorkerClient.connect(this.controlSocket);
  }

  /** Runs `hostler vm …` against the worker. */
  async run(...words: readonly string[]): Promise<ProgramResult> {
    const [verb = "", ...rest] = words;
    const argv = [hostler(), "vm", verb, "--control-socket", this.controlSocket, ...rest];
    return await runProgram(argv).catch((error: Error) => {
      error.message += `\nthe worker: ${this.said}`;
      throw error;
    });
  }

  /** As `run`, of what must succeed. @returns what it printed */
  async say(...words: readonly string[]): Promise<string> {
    const { exitCode, signal, stdout, stderr } = await this.run(...words);
    if (exitCode === 0) return stdout;
    const how = `${exitCode ?? signal}`;
    throw new Error(`vm ${words.join(" ")}: ${how}: ${stdout}${stderr}\nthe worker: ${this.said}`);
  }

  /** Runs a program on this host. @returns what it printed */
  async on(...words: readonly string[]): Promise<string> {
    const { exitCode, stdout, stderr } = await runProgram([...this.enter, ...words]);
    if (exitCode !== 0) throw new Error(`${words.join(" ")}: ${stderr}`);
    return stdout;
  }

  /** Makes an image with the guest that counts. */
  async image(
    options: { readonly name?: string; readonly padding?: number } = {},
  ): Promise<TestImage> {
    const { name = "image", padding = 0 } = options;
    return await makeTestImage(this.folder.file(name), padding);
  }

  specOf(name: string, image: TestImage): VmSpec {
    return { name, imagePath: image.path, hash: image.hash };
  }

  async summary(name: string): Promise<VmSummary> {
    using client = await this.client();
    return (await client.show(name)).summary;
  }

  async summaries(): Promise<readonly VmSummary[]> {
    return JSON.parse(await this.say("list", "--json")) as VmSummary[];
  }

  async history(name: string): Promise<readonly VmEventRecord[]> {
    using client = await this.client();
    return (await client.show(name)).history;
  }

  /** Waits for a phase, and looks meanwhile that no machine has two VMMs. */
  async reaches(name: string, phase: VmSummary["phase"]): Promise<VmSummary> {
    let last = "";
    const look = async () => {
      this.expectOneVmm();
      const summary = await this.summary(name);
      last = `${summary.phase}: ${summary.reason}`;
      return summary.phase === phase && summary;
    };
    return await waitFor(`${name} to be ${phase}`, look).catch((error: Error) => {
      error.message += ` (${last}; ${this.said})`;
      throw error;
    });
  }

  /** Of all machines of this host: processes that have a folder of a VMM, or are to have it. */
  vmms(): ReadonlyMap<string, readonly TestVmm[]> {
    const found = new Map<string, TestVmm[]>();
    for (const entry of readdirSync("/proc")) {
      const vmm = /^\d+$/.test(entry) ? vmmOf(Number(entry), this.runFolder) : undefined;
      if (vmm !== undefined) found.set(vmm.user, [...(found.get(vmm.user) ?? []), vmm.process]);
    }
    return found;
  }

  /** Process numbers of all VMMs, as this process has them. */
  vmmProcesses(): number[] {
    return [...this.vmms().values()].flat().map(({ processId }) => processId);
  }

  /** The only VMM of this host. */
  get vmm(): number {
    const [first, ...others] = this.vmmProcesses();
    if (first === undefined || others.length > 0) throw new Error("Expected one VMM");
    return first;
  }

  /** One for each machine, beside those that its record says are to be, or to be ended. */
  expectOneVmm(): void {
    const noted = this.#beside();
    const found = this.vmms();
    const known = [...noted, ...this.#beside()];
    for (const [user, processes] of found) {
      const own = processes.filter(
        ({ invocation }) => !known.some((one) => one.startsWith(invocation)),
      );
      if (own.length <= 1) continue;
      throw new Error(`User ${user} has ${own.length} VMMs: ${JSON.stringify(own)}`);
    }
  }

  /** Waits until no machine is listed. @throws Error when something of one is left */
  async expectNoMachines(): Promise<void> {
    await waitFor("nothing to be left", async () => (await this.summaries()).length === 0);
    const left = { vmms: this.vmmProcesses(), machines: this.kept().machines };
    if (left.vmms.length + left.machines.length > 0) throw new Error(JSON.stringify(left));
  }

  /** Invocations of VMMs that are noted not to have a machine. */
  #beside(): string[] {
    return namesIn(join(this.artifacts, "machines")).flatMap((name) => {
      try {
        const text = readFileSync(join(this.machineFolder(name), "machine.json"), "utf8");
        const { note } = JSON.parse(text) as { note: { beside?: string } };
        return note.beside ?? [];
      } catch {
        // It is being made, or was removed.
        return [];
      }
    });
  }

  machineFolder(name: string): string {
    return join(this.artifacts, "machines", name);
  }

  /** What the guest has said, as far as a worker heard it. */
  console(name: string): string {
    return new TextDecoder().decode(readScrollback(consoleLogOf(this.machineFolder(name))));
  }

  /** What the guest has counted, as far as a worker heard it. */
  numbers(name: string): number[] {
    return numbersIn(this.console(name));
  }

  /** The next number that is heard from now on. */
  async counts(name: string): Promise<number> {
    const seen = this.numbers(name).length;
    return await waitFor(`${name} to count (${this.said})`, () => this.numbers(name)[seen]);
  }

  /** Types one letter on the machine's console. */
  async type(name: string, letter: string): Promise<void> {
    using client = await this.client();
    const path = await client.console(name);
    const opened = Promise.withResolvers<void>();
    const socket = await Bun.connect({
      unix: path,
      // What it has shown came after the viewer was taken, and what was typed with it.
      socket: { data: () => opened.resolve(), error: (_socket, error) => opened.reject(error) },
    });
    socket.write(`w${letter}`);
    await opened.promise;
    socket.end();
  }

  /** Links of this host but the loopback, and tables of nftables with a chain. */
  async network(): Promise<{ readonly links: string[]; readonly tables: string[] }> {
    const stage = join(import.meta.dirname, "network-stage.ts");
    const seen = JSON.parse(await this.on(process.execPath, stage, "observe")) as {
      readonly links: readonly { readonly name: string }[];
      readonly chains: readonly { readonly family: string; readonly table: string }[];
    };
    const links = seen.links.map(({ name }) => name).filter((name) => name !== "lo");
    const tables = new Set(seen.chains.map(({ family, table }) => `${family} ${table}`));
    return { links, tables: [...tables] };
  }

  /** Names of folders of machines and of images that are there. */
  kept(): { readonly machines: string[]; readonly images: string[]; readonly run: string[] } {
    return {
      machines: namesIn(join(this.artifacts, "machines")),
      images: namesIn(join(this.artifacts, "images")),
      run: namesIn(this.runFolder),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const worker of this.#workers) await worker[Symbol.asyncDispose]();
    await this.#owned.disposeAsync();
  }
}

/** Of workers that were killed: what says whose a bridge is goes with the host. */
function forgetBridges(namespace: number): void {
  if (!isThere(bridgeLocksFolder)) return;
  for (const name of namesIn(bridgeLocksFolder)) {
    if (name.startsWith(`${namespace}-`)) rmSync(join(bridgeLocksFolder, name), { force: true });
  }
}

const namesIn = (folder: string) => readdirSync(folder).toSorted();

/** With its first process the kernel ends all others of the host; each is waited for. */
async function endHost(first: number, folder: string): Promise<void> {
  if (isAlive(first)) process.kill(first, "SIGKILL");
  await waitFor("the end of all VMMs", () => {
    return readdirSync("/proc").every(
      (entry) => !/^\d+$/.test(entry) || vmmOf(Number(entry), `${folder}/run`) === undefined,
    );
  });
}

function vmmOf(
  processId: number,
  runFolder: string,
): { readonly user: string; readonly process: TestVmm } | undefined {
  try {
    const words = readFileSync(`/proc/${processId}/cmdline`, "latin1");
    const begin = words.indexOf(`${runFolder}/`);
    if (begin < 0) return undefined;
    const status = readFileSync(`/proc/${processId}/stat`, "latin1");
    const state = status.slice(status.lastIndexOf(")") + 2).charAt(0);
    if (state === "Z" || state === "X") return undefined;
    const place = words.slice(begin + runFolder.length + 1);
    const [, user = "", invocation = "?"] = /^(\d+)\/([0-9a-f]*)/.exec(place) ?? [];
    return { user, process: { processId, state, invocation } };
  } catch {
    // It ended while it was looked at.
    return undefined;
  }
}

/** True when the path is there. */
export const isThere = (path: string): boolean => statSync(path, { throwIfNoEntry: false }) != null;
