/** The partition, the agent and the orchestrator of a story, all by the compiled file. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { type ControlClient, connectControl } from "../../../src/messaging/control-client.ts";
import type { ProcessDetail, ProcessSummary, WireEnding } from "../../../src/process/protocol.ts";
import { type Program, startProgram } from "../../support/program.ts";
import { waitFor } from "../../support/wait-for.ts";

export const hostlerPath = "/usr/bin/hostler";
const agentSocket = "/run/agent.sock";
const controlSocket = "/run/control.sock";
const configurationPath = "/run/process.toml";
/** Bun starts slowly where a processor is emulated. */
export const patienceMilliseconds = 120_000;

/**
 * The partition's first process. It reaps whatever becomes its child, and starts an agent anew
 * when the last one has died.
 */
const firstProcess = `while :; do ${hostlerPath} process agent --socket ${agentSocket}; done`;
const namespaces = ["--kill-child", "--fork", "--pid", "--mount", "--mount-proc", "--net", "--ipc"];

export class Stage implements AsyncDisposable {
  readonly partition: Program;
  readonly orchestrator: Program;
  readonly #client: ControlClient;

  private constructor(partition: Program, orchestrator: Program, client: ControlClient) {
    this.partition = partition;
    this.orchestrator = orchestrator;
    this.#client = client;
  }

  /** @param configuration the processes, as TOML; those of partition "qm" run behind the agent */
  static async open(configuration: string): Promise<Stage> {
    const partition = `[partition.qm]\nsocket = "${agentSocket}"\nother_pid_namespace = true\n`;
    writeFileSync(configurationPath, `${partition}\n${configuration}`);
    const inside = startProgram(["unshare", ...namespaces, "sh", "-c", firstProcess]);
    await inside.said(/listening at/, patienceMilliseconds);
    const words = ["--config", configurationPath, "--control-socket", controlSocket];
    const outside = startProgram([hostlerPath, "process", "orchestrator", ...words]);
    await outside.said(/partition qm is connected/, patienceMilliseconds);
    return new Stage(inside, outside, await connectControl(controlSocket));
  }

  async list(): Promise<ProcessSummary[]> {
    return (await this.#client.request("list")) as ProcessSummary[];
  }

  async summary(name: string): Promise<ProcessSummary> {
    return ((await this.#client.request("show", { name })) as ProcessDetail).summary;
  }

  async start(name: string): Promise<void> {
    await this.#client.request("start", { name });
  }

  async stop(name: string): Promise<void> {
    await this.#client.request("stop", { name });
  }

  async running(name: string): Promise<ProcessSummary & { pid: number }> {
    await this.#client.request("wait", { name, until: "ready" });
    return await this.until(name, "run", ({ pid }) => pid !== null).then((summary) => ({
      ...summary,
      pid: summary.pid ?? 0,
    }));
  }

  /** Starts what is not started by itself. @returns how it ended, once that is told */
  async endingOf(name: string): Promise<WireEnding> {
    await this.start(name);
    const told = await this.until(name, "end", ({ last_exit: exit }) => exit !== null);
    return told.last_exit ?? { kind: "unknown", reason: "it was never told" };
  }

  until(
    name: string,
    what: string,
    holds: (summary: ProcessSummary) => boolean,
  ): Promise<ProcessSummary> {
    const look = async () => {
      const summary = await this.summary(name);
      return holds(summary) ? summary : undefined;
    };
    return waitFor(`${name} to ${what}`, look, patienceMilliseconds);
  }

  /** The agent that answers at present, as the host numbers it. */
  agent(): Promise<number> {
    const look = () => agents()[0];
    return waitFor("an agent", look, patienceMilliseconds);
  }

  /** Until the orchestrator has found another agent than this one. */
  async agentAfter(processId: number, connections: number): Promise<void> {
    const look = () =>
      agents().some((found) => found !== processId) && this.connections > connections;
    await waitFor("a new agent", look, patienceMilliseconds);
  }

  /** How often the orchestrator has found an agent so far. */
  get connections(): number {
    const { stdout, stderr } = this.orchestrator.output;
    return [...`${stdout}${stderr}`.matchAll(/partition qm is connected/g)].length;
  }

  /** What the daemons have said, for somebody who has to find out what went wrong. */
  get diaries(): string {
    const both = [this.partition, this.orchestrator].map(({ output }) => output);
    return both.map(({ stdout, stderr }) => `${stdout}${stderr}`).join("\n");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.close();
    await this.orchestrator[Symbol.asyncDispose]();
    await this.partition[Symbol.asyncDispose]();
  }
}

/** Processes that are agents, by their command lines. */
function agents(): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((processId) => argumentsOf(processId).slice(0, 3).join(" ") === agentWords);
}
const agentWords = `${hostlerPath} process agent`;

function argumentsOf(processId: number): string[] {
  try {
    return readFileSync(`/proc/${processId}/cmdline`, "latin1").split("\0");
  } catch {
    return [];
  }
}
