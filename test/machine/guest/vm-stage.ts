/** The compiled worker in a guest that is a host of virtual machines, and one image for it. */
import { mkdirSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hashPath } from "../../../src/image/nar.ts";
import { WorkerClient } from "../../../src/vm/client.ts";
import { consoleLogOf } from "../../../src/vm/console-log.ts";
import { readScrollback } from "../../../src/vm/perform/console-scrollback.ts";
import type { VmSpec, VmSummary } from "../../../src/vm/protocol.ts";
import { expectContinuous, numbersIn } from "../../support/guest-numbers.ts";
import { type Program, startProgram } from "../../support/program.ts";
import { waitFor } from "../../support/wait-for.ts";
import { hostlerPath, patienceMilliseconds } from "./stage.ts";

const scenarioFolder = "/scenario";
const runFolder = "/run/vms";
const controlSocket = "/run/vm.sock";
const configuration = "/run/vm.toml";

export class VmStage implements AsyncDisposable {
  #worker: Program | undefined;
  #client: WorkerClient | undefined;
  #said = "";
  readonly #artifacts: string;

  /** @param options.artifacts a folder of the worker's; the disk of the scenario is small */
  constructor(options: { readonly artifacts?: string } = {}) {
    this.#artifacts = options.artifacts ?? join(scenarioFolder, "artifacts");
  }

  /** @param lines of the configuration, beside the paths */
  configure(lines: readonly string[]): void {
    const paths = [
      ...[`vm_artifacts_dir = "${this.#artifacts}"`, `run_dir = "${runFolder}"`],
      `control_socket = "${controlSocket}"`,
    ];
    writeFileSync(configuration, [...paths, ...lines, ""].join("\n"));
  }

  async start(): Promise<void> {
    this.#worker = startProgram([hostlerPath, "vm", "worker", "--config", configuration, "-v"]);
    await this.#worker.said(/takes requests at/, patienceMilliseconds);
    this.#client = await WorkerClient.connect(controlSocket, patienceMilliseconds);
  }

  /** SIGKILL to the worker alone. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async stop(): Promise<void> {
    await this.#end("SIGTERM");
  }

  async #end(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    this.#client?.[Symbol.dispose]();
    const worker = this.#running;
    worker.kill(signal);
    await worker.ended(patienceMilliseconds);
    this.#said += worker.output.stderr;
    this.#worker = undefined;
  }

  get #running(): Program {
    if (this.#worker === undefined) throw new Error("No worker runs");
    return this.#worker;
  }

  /** All that its workers have said. */
  get said(): string {
    return `${this.#said}${this.#worker?.output.stderr ?? ""}`;
  }

  get client(): WorkerClient {
    if (this.#client === undefined) throw new Error("No worker was started");
    return this.#client;
  }

  /** Runs it, and waits until it does. */
  async boot(name: string): Promise<VmSummary> {
    await this.client.change("boot", name);
    return await this.become(name, "running");
  }

  async become(name: string, until: "running" | "paused" | "off"): Promise<VmSummary> {
    const summary = await this.client.wait(name, until);
    if (summary === null) throw new Error(`${name} is not there: ${this.said}`);
    return summary;
  }

  /** What its guest has said on its console. */
  console(name: string): string {
    const folder = join(this.#artifacts, "machines", name);
    return new TextDecoder().decode(readScrollback(consoleLogOf(folder)));
  }

  /** The numbers that its guest has told, all of them. */
  numbers(name: string): number[] {
    return numbersIn(this.console(name));
  }

  /**
   * @param after how many of its numbers come before it at least
   * @returns the next number that is told from now on
   */
  async counts(name: string, after = 0): Promise<number> {
    const seen = Math.max(this.numbers(name).length, after);
    const look = () => this.numbers(name)[seen];
    return await waitFor(`${name} to count: ${this.said}`, look, patienceMilliseconds);
  }

  /**
   * Waits until it counts on.
   * @param from how many of its numbers are another matter
   * @throws Error when one was lost, or came twice
   */
  async countsOn(name: string, from = 0): Promise<string> {
    await this.counts(name, from + 1);
    const numbers = this.numbers(name).slice(from);
    expectContinuous(numbers);
    return `${numbers[0]} to ${numbers.at(-1)}`;
  }

  /** What is left of machines in this guest: all of it empty when there are none. */
  left(): Readonly<Record<string, readonly string[]>> {
    return {
      machines: readdirSync(join(this.#artifacts, "machines")),
      run: readdirSync(runFolder),
      vmms: readdirSync("/proc").filter((name) => /^\d+$/.test(name) && isVmm(name)),
      links: readdirSync("/sys/class/net").filter((name) => /^(tap-|br-)/.test(name)),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client?.[Symbol.dispose]();
    await this.#worker?.[Symbol.asyncDispose]();
  }
}

function isVmm(processId: string): boolean {
  try {
    return readlinkSync(`/proc/${processId}/exe`).includes("qemu");
  } catch {
    return false;
  }
}

/** What a process has open, as /proc shows it. */
export function openFilesOf(processId: number): string[] {
  const folder = `/proc/${processId}/fd`;
  return readdirSync(folder).map((name) => readlinkSync(join(folder, name)));
}

/** How often the guest of a process has left its processor, as KVM counts it. */
export function exitsOf(processId: number): number {
  const folder = "/sys/kernel/debug/kvm";
  const machine = readdirSync(folder).find((name) => name.startsWith(`${processId}-`));
  if (machine === undefined) throw new Error(`KVM has no machine of ${processId}`);
  return Number(readFileSync(join(folder, machine, "exits"), "latin1"));
}

/** @returns its arguments, as the kernel has them */
export function argumentsOf(processId: number): string[] {
  return readFileSync(`/proc/${processId}/cmdline`, "latin1").split("\0");
}

/** Makes an image of these files. */
export async function makeImage(
  files: Readonly<Record<string, Uint8Array>>,
  vmConfig: unknown,
): Promise<Pick<VmSpec, "imagePath" | "hash">> {
  const imagePath = join(scenarioFolder, "image");
  mkdirSync(imagePath);
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(imagePath, name), bytes);
  writeFileSync(join(imagePath, "vm-config.json"), JSON.stringify(vmConfig));
  return { imagePath, hash: await hashPath(imagePath) };
}
