/** A partition as the orchestrator's tests need it: namespaces, a reaper as PID 1, agents in it. */
import { readFileSync } from "node:fs";
import { hostler, hostlerWithFaults } from "./binary.ts";
import { startOrchestrator, type TestOrchestrator } from "./orchestrator.ts";
import { type Program, startProgram } from "./program.ts";
import type { TemporaryFolder } from "./temporary-folder.ts";
import { waitFor } from "./wait-for.ts";

/** Reaps everybody for ever; a child that never ends keeps waitpid from failing. */
const reaper = `
  use Socket;
  socket(S, PF_INET, SOCK_DGRAM, 0);
  my $up = pack("Z16 s x22", "lo", 0x41);
  ioctl(S, 0x8914, $up);
  if (!fork()) { sleep 1000000 while 1; }
  $| = 1;
  print "ready\\n";
  1 while $ARGV[0] and waitpid(-1, 0) > 0;
  sleep 1000000 while 1;
`;

export interface AgentOptions {
  readonly binary?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Words in place of --socket PATH. */
  readonly words?: readonly string[];
}

export class OrchestratorPartition implements AsyncDisposable {
  readonly #unshare: Program;
  readonly #programs: Program[] = [];
  /** PID 1 of the partition, as the host numbers it. */
  readonly processId: number;
  readonly socket: string;

  constructor(unshare: Program, processId: number, socket: string) {
    this.#unshare = unshare;
    this.processId = processId;
    this.socket = socket;
  }

  /** Runs a program in the partition's namespaces. */
  run(argv: readonly string[], environment: Readonly<Record<string, string>> = {}): Program {
    const enter = ["nsenter", "-t", String(this.processId), "-p", "-m", "-n", "-i", "--"];
    const program = startProgram([...enter, ...argv], { environment });
    this.#programs.push(program);
    return program;
  }

  /** Starts an agent, and gives its process as the host numbers it. */
  async startAgent(options: AgentOptions = {}): Promise<number> {
    const { binary = hostler(), environment = {}, words = ["--socket", this.socket] } = options;
    const program = this.run([binary, "process", "agent", ...words], environment);
    await program.said(/listening at|connecting to/);
    return childOf(program.processId);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // With its first process the kernel ends everything in the namespace.
    process.kill(this.processId, "SIGKILL");
    for (const program of this.#programs) await program[Symbol.asyncDispose]();
    await this.#unshare[Symbol.asyncDispose]();
  }
}

/** The only child of a process. */
function childOf(processId: number): number {
  const text = readFileSync(`/proc/${processId}/task/${processId}/children`, "latin1");
  const child = Number(text.trim().split(" ")[0]);
  if (!(child > 0)) throw new Error(`process ${processId} has no child`);
  return child;
}

export async function startPartition(
  folder: TemporaryFolder,
  options: { readonly reaps: boolean } = { reaps: true },
): Promise<OrchestratorPartition> {
  const namespaces = ["--pid", "--mount", "--net", "--ipc", "--fork", "--kill-child"];
  const first = ["perl", "-e", reaper, options.reaps ? "1" : "0"];
  const unshare = startProgram(["unshare", ...namespaces, "--mount-proc", ...first]);
  await unshare.said(/ready/);
  const processId = await waitFor("the partition's first process", () =>
    childOf(unshare.processId),
  );
  return new OrchestratorPartition(unshare, processId, folder.file("agent.sock"));
}

/** Where the processes of a test run, and what the kernel has. */
export interface Place {
  readonly title: string;
  readonly partition: boolean;
  /** Features that the kernel is made to lack. */
  readonly absent?: string;
}

const everythingNew = "pidfd_get_info,so_peerpidfd,pidfs";
export const localPlace: Place = { title: "local", partition: false };
export const partitionPlace: Place = { title: "in the partition", partition: true };
export const bothPlaces: readonly Place[] = [localPlace, partitionPlace];
export const oldPartitionPlace: Place = {
  title: "in the partition, on an old kernel",
  partition: true,
  absent: everythingNew,
};
export const allPlaces: readonly Place[] = [
  ...bothPlaces,
  { title: "local, on an old kernel", partition: false, absent: everythingNew },
  oldPartitionPlace,
];

/** What a test in some place has. */
export interface Running extends AsyncDisposable {
  readonly orchestrator: TestOrchestrator;
  /** The agent's process as the host numbers it; 0 when the place is local. */
  readonly agent: number;
  /** Undefined in a local place. */
  readonly partition: OrchestratorPartition | undefined;
}

/** What `begin` can be told beside the configuration. */
export interface BeginOptions {
  readonly orchestrator?: AgentOptions;
  readonly agent?: AgentOptions;
}

/**
 * An orchestrator, and where the place asks for it a partition "qm" with its agent. Of the
 * configuration each line "@here" becomes `partition = "qm"`, or nothing.
 */
export async function begin(
  place: Place,
  folder: TemporaryFolder,
  configuration: string,
  options: BeginOptions = {},
): Promise<Running> {
  const stack = new AsyncDisposableStack();
  const faults =
    place.absent === undefined
      ? {}
      : { binary: hostlerWithFaults(), environment: { HOSTLER_ABSENT: place.absent } };
  try {
    let partition: OrchestratorPartition | undefined;
    let agent = 0;
    let text = configuration.replaceAll("@here", place.partition ? 'partition = "qm"' : "");
    if (place.partition) {
      partition = stack.use(await startPartition(folder));
      agent = await partition.startAgent({ ...faults, ...options.agent });
      text += `\n[partition.qm]\nsocket = "${partition.socket}"\n`;
    }
    const settings = { ...faults, ...options.orchestrator, folder, configuration: text };
    const orchestrator = stack.use(await startOrchestrator(settings));
    return {
      orchestrator,
      agent,
      partition,
      [Symbol.asyncDispose]: () => stack.disposeAsync(),
    };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}
