/** What the demo sets up and takes down again: a folder, a partition, the two daemons. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { connectControl } from "../../src/messaging/control-client.ts";
import { tryCommand } from "../command.ts";
import { NotSeen } from "./deadline.ts";
import { EventWatch } from "./event-watch.ts";
import { onlyChildOf } from "./kernel.ts";
import { Namespaces, reaper } from "./namespaces.ts";
import { Program } from "./program.ts";

export interface StageOptions {
  /** The compiled file. */
  readonly program: string;
  readonly namespaceFlags: readonly string[];
  /** Added to the daemons' environment. */
  readonly environment: Readonly<Record<string, string>>;
}

export class Stage {
  readonly folder: string = mkdtempSync(join(tmpdir(), "hostler-demo-"));
  readonly agentSocket: string = join(this.folder, "qm.sock");
  readonly controlSocket: string = join(this.folder, "control.sock");
  readonly configuration: string = join(this.folder, "process.toml");
  readonly #options: StageOptions;
  readonly #partition: Namespaces;
  #agent: { readonly program: Program; readonly processId: number } | undefined;
  #orchestrator: Program | undefined;
  #events: EventWatch | undefined;
  #closed = false;

  constructor(options: StageOptions) {
    this.#options = options;
    this.#partition = new Namespaces(options.namespaceFlags);
  }

  /** The program as a user would type it here. */
  get programName(): string {
    const path = relative(process.cwd(), this.#options.program);
    return path.startsWith("..") ? this.#options.program : path;
  }

  /** Makes the partition. @returns its first process, as the host numbers it */
  async makePartition(): Promise<number> {
    this.#refuseClosed();
    return await this.#partition.make();
  }

  /** How the partition is made and entered, as a user would type it. */
  get partitionCommand(): string {
    return `unshare ${this.#options.namespaceFlags.join(" ")} sh -c '${reaper}'`;
  }

  get agentCommand(): string {
    const enter = this.#partition.enter.join(" ");
    return `${enter} \\\n       ${this.programName} process agent --socket ${this.agentSocket}`;
  }

  /** Starts the agent in the partition. @returns the agent, as the host numbers it */
  async startAgent(): Promise<number> {
    this.#refuseClosed();
    const { program, environment } = this.#options;
    const { enter } = this.#partition;
    const argv = [...enter, program, "process", "agent", "--socket", this.agentSocket];
    const agent = new Program("the agent", argv, environment);
    await agent.said(/listening at/);
    const processId = onlyChildOf(agent.processId);
    this.#agent = { program: agent, processId };
    return processId;
  }

  /** Sends the agent a signal and waits for its end. @returns its exit code */
  async endAgent(signal: NodeJS.Signals): Promise<number> {
    this.#signalAgent(signal);
    return (await this.#agent?.program.ended()) ?? -1;
  }

  /** nsenter is its parent and ends as it ends; a signal to nsenter would not reach it. */
  #signalAgent(signal: NodeJS.Signals): void {
    if (this.#agent === undefined || this.#agent.program.hasEnded) return;
    process.kill(this.#agent.processId, signal);
  }

  /** Runs a command of the program to its end, and gives what it printed. */
  async run(...words: readonly string[]): Promise<{ exitCode: number; output: string }> {
    return await tryCommand([this.#options.program, ...words]);
  }

  writeConfiguration(text: string): void {
    writeFileSync(this.configuration, text);
  }

  get orchestratorCommand(): string {
    const control = `--control-socket ${this.controlSocket}`;
    const command = `${this.programName} process orchestrator`;
    return `${command} --config ${this.configuration} \\\n       ${control}`;
  }

  /** Starts the orchestrator, outside. Its events are there when the agent is connected. */
  async startOrchestrator(): Promise<EventWatch> {
    this.#refuseClosed();
    const { program, environment } = this.#options;
    const words = ["--config", this.configuration, "--control-socket", this.controlSocket];
    const argv = [program, "process", "orchestrator", ...words];
    this.#orchestrator = new Program("the orchestrator", argv, environment);
    await this.#orchestrator.said(/partition qm is connected/);
    this.#events = new EventWatch(await connectControl(this.controlSocket));
    return this.#events;
  }

  /** How much the orchestrator has said: what comes after it is new. */
  get said(): number {
    return this.#orchestrator?.lines.length ?? 0;
  }

  async orchestratorSaid(pattern: RegExp, after: number): Promise<string> {
    const match = await this.#orchestrator?.said(pattern, after);
    return match?.[0] ?? "";
  }

  get orchestratorProcessId(): number {
    return this.#orchestrator?.processId ?? -1;
  }

  /** Asks the orchestrator to stop everything. @returns its exit code */
  async stopOrchestrator(): Promise<number> {
    this.#orchestrator?.kill("SIGTERM");
    return (await this.#orchestrator?.ended()) ?? -1;
  }

  /** Ends the partition by ending what its first process reads. @returns unshare's exit code */
  async endPartition(): Promise<number> {
    return await this.#partition.end();
  }

  /** What the daemons have said, for somebody who has to find out what went wrong. */
  get diaries(): string[] {
    return [this.#orchestrator, this.#agent?.program, this.#partition.program].flatMap((program) =>
      program === undefined ? [] : program.lines.map((line) => `${program.name}: ${line}`),
    );
  }

  /** Ends whatever still runs, and removes the folder. */
  async close(): Promise<void> {
    this.#closed = true;
    // The second signal hurries: no grace for anybody.
    this.#orchestrator?.kill("SIGTERM");
    this.#orchestrator?.kill("SIGTERM");
    if ((await this.#orchestrator?.endsInTime()) === false) this.#killInstances();
    this.#events?.close();
    this.#signalAgent("SIGTERM");
    await this.#agent?.program.endsInTime();
    await this.#partition.close();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** The orchestrator did not end what it had started: done here, by what the kernel shows. */
  #killInstances(): void {
    for (const { pid, invocation, what } of this.#events?.events ?? []) {
      if (what !== "started" || pid === undefined || invocation === undefined) continue;
      if (environmentOf(pid).includes(`INVOCATION_ID=${invocation}`)) process.kill(pid, "SIGKILL");
    }
  }

  #refuseClosed(): void {
    if (this.#closed) throw new NotSeen("The demo was interrupted");
  }
}

function environmentOf(processId: number): string[] {
  try {
    return readFileSync(`/proc/${processId}/environ`, "latin1").split("\0");
  } catch {
    return [];
  }
}
