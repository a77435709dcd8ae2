/**
 * A partition as an agent's tests need it: namespaces of its own, whose first process reaps and
 * is not the agent, so that the agent can be killed and another one started.
 */
import { spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { statusOf } from "../../src/process/perform/process-table.ts";
import { hostler } from "./binary.ts";
import { type Program, type ProgramOptions, startProgram } from "./program.ts";
import type { TemporaryFolder } from "./temporary-folder.ts";
import { waitFor } from "./wait-for.ts";

const programNames = ["reaper", "probe", "escape", "activate"] as const;
export type ProgramName = (typeof programNames)[number];

/** Compiles the tests' C programs into a folder. @returns their paths */
export function compilePrograms(folder: TemporaryFolder): Readonly<Record<ProgramName, string>> {
  const place = folder.file("programs");
  mkdirSync(place);
  const file = join(place, "partition");
  const source = join(import.meta.dirname, "programs/partition.c");
  const compiler = spawnSync("gcc", ["-O1", "-Wall", "-o", file, source], { encoding: "utf8" });
  if (compiler.status !== 0) throw new Error(`Cannot compile ${source}:\n${compiler.stderr}`);
  for (const name of programNames) symlinkSync(file, join(place, name));
  const path = (name: ProgramName) => join(place, name);
  return {
    reaper: path("reaper"),
    probe: path("probe"),
    escape: path("escape"),
    activate: path("activate"),
  };
}

export interface AgentOptions extends ProgramOptions {
  readonly binary?: string;
  /** Words in place of --socket PATH. */
  readonly words?: readonly string[];
  /** Words before the agent's, such as a program that changes how it runs. */
  readonly before?: readonly string[];
}

/** An agent that runs. */
export interface Agent extends AsyncDisposable {
  readonly program: Program;
  /** The agent itself as the host numbers it, not what it was started through. */
  readonly processId: number;
  readonly socket: string;
}

/** The only child of a process. */
export function childOf(processId: number): number | undefined {
  return childrenOf(processId)[0];
}

/** The children of a process, of all its threads. */
export function childrenOf(processId: number): number[] {
  const tasks = `/proc/${processId}/task`;
  return readdirSync(tasks).flatMap((task) =>
    readFileSync(`${tasks}/${task}/children`, "latin1").split(" ").filter(Boolean).map(Number),
  );
}

/** True while a process runs; a zombie does not. */
export function isAlive(processId: number): boolean {
  const state = statusOf(processId)?.state;
  return state !== undefined && state !== "Z" && state !== "X";
}

/** Starts an agent, listening, in this process's own namespaces or by `enter` in others. */
export async function startAgent(
  folder: TemporaryFolder,
  options: AgentOptions & { readonly enter?: readonly string[] } = {},
): Promise<Agent> {
  const socket = folder.file("agent.sock");
  const { binary = hostler(), words = ["--socket", socket], before = [], enter = [] } = options;
  const argv = [...enter, ...before, binary, "process", "agent", "--verbose", ...words];
  const program = startProgram(argv, options);
  try {
    await program.said(/listening at|connecting to/);
    const processId =
      enter.length === 0
        ? program.processId
        : await waitFor("the agent's process", () => childOf(program.processId));
    const end = async () => {
      await program[Symbol.asyncDispose]();
    };
    return { program, processId, socket, [Symbol.asyncDispose]: end };
  } catch (error) {
    await program[Symbol.asyncDispose]();
    throw error;
  }
}

export class TestPartition implements AsyncDisposable {
  readonly #unshare: Program;
  readonly #folder: TemporaryFolder;
  readonly #agents: Agent[] = [];
  /** Its first process as the host numbers it. */
  readonly processId: number;

  constructor(unshare: Program, processId: number, folder: TemporaryFolder) {
    this.#unshare = unshare;
    this.#folder = folder;
    this.processId = processId;
  }

  /** Words that start a program in the partition, as its starter's child. */
  get enter(): string[] {
    return ["nsenter", "-t", String(this.processId), "-p", "-m", "-n", "-i", "--"];
  }

  async startAgent(options: AgentOptions = {}): Promise<Agent> {
    const agent = await startAgent(this.#folder, { ...options, enter: this.enter });
    this.#agents.push(agent);
    return agent;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // With its first process the kernel ends everything in the PID namespace.
    process.kill(this.processId, "SIGKILL");
    for (const agent of this.#agents) await agent[Symbol.asyncDispose]();
    await this.#unshare[Symbol.asyncDispose]();
  }
}

export async function makePartition(
  folder: TemporaryFolder,
  reaper: string,
): Promise<TestPartition> {
  const namespaces = ["--pid", "--mount", "--net", "--ipc", "--fork", "--kill-child"];
  const unshare = startProgram(["unshare", ...namespaces, "--mount-proc", reaper]);
  await unshare.said(/ready/);
  const first = await waitFor("the partition's first process", () => childOf(unshare.processId));
  return new TestPartition(unshare, first, folder);
}
