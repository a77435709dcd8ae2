/** A host whose worker follows a master: a real one, or one that says what the test tells it. */
import { join } from "node:path";
import type {
  AssignedMachine,
  AssignmentPlace,
  HeldMachine,
  Report,
} from "../../src/vm/protocol-master.ts";
import { hostler } from "./binary.ts";
import { childOf } from "./partition.ts";
import { type Program, runProgram, startProgram } from "./program.ts";
import type { TestImage, VmHost, WorkerOptions } from "./vm-worker.ts";
import { waitFor } from "./wait-for.ts";

/** What the master of a test answers with. */
export interface WireMasterState {
  readonly assignment:
    | (AssignmentPlace & {
        readonly machines: readonly AssignedMachine[];
        readonly removals: readonly HeldMachine[];
      })
    | null;
  readonly stale: readonly HeldMachine[];
  readonly unknown: readonly HeldMachine[];
  readonly lease_ms: number;
  /** Answered in place of an assignment, whatever it is. */
  readonly raw: unknown;
  /** Nothing is answered. */
  readonly mute: boolean;
  /** Reports are heard, and not answered, because of this. */
  readonly waits: string | null;
}

const ADDRESS = "127.0.0.1:7443";
const INCARNATION = "ab".repeat(16);

/** A test's own master, on a host of VmHost. */
export class WireMaster implements AsyncDisposable {
  readonly reports: Report[] = [];
  readonly #host: VmHost;
  readonly #programs: Program[] = [];
  #socket: { write(text: string): unknown; end(): unknown } | undefined;
  #done = 0;

  constructor(host: VmHost) {
    this.#host = host;
  }

  get #program(): Program {
    const program = this.#programs.at(-1);
    if (program === undefined) throw new Error("No master was started");
    return program;
  }

  get folder(): string {
    return this.#host.folder.file("identity");
  }

  get #controlSocket(): string {
    return this.#host.folder.file("master.sock");
  }

  async start(): Promise<void> {
    const { folder, enter } = this.#host;
    const double = join(import.meta.dirname, "vm-wire-master.ts");
    const socketPath = folder.file(`wire-${this.#programs.length}.sock`);
    const places = [ADDRESS, folder.file("master"), this.#controlSocket, socketPath];
    this.#programs.push(startProgram([...enter, process.execPath, double, ...places]));
    await this.#program.said(/listening at https/);
    let rest = "";
    const hear = (bytes: Uint8Array) => {
      const lines = (rest + new TextDecoder().decode(bytes)).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) this.#hear(JSON.parse(line));
    };
    this.#socket = await Bun.connect({
      unix: socketPath,
      socket: { data: (_socket, bytes) => hear(bytes) },
    });
  }

  #hear(line: { readonly report?: Report; readonly done?: true }): void {
    if (line.report !== undefined) this.reports.push(line.report);
    if (line.done === true) this.#done += 1;
  }

  /** What it answers from now on. */
  async says(state: Partial<WireMasterState>): Promise<void> {
    const before = this.#done;
    this.#socket?.write(JSON.stringify(state));
    await waitFor("the master to take it", () => this.#done > before);
  }

  /** An assignment with the next revision. */
  async assigns(
    machines: readonly AssignedMachine[],
    more: {
      readonly generation?: number;
      readonly revision: number;
      readonly removals?: readonly HeldMachine[];
      readonly incarnation?: string;
    },
  ): Promise<void> {
    const { generation = 1, revision, removals = [], incarnation = INCARNATION } = more;
    await this.says({ assignment: { incarnation, generation, revision, machines, removals } });
  }

  /** The first report from now on that is so. */
  async hears(what: string, isSo: (report: Report) => boolean): Promise<Report> {
    const seen = this.reports.length;
    return await waitFor(`a report: ${what} (${JSON.stringify(this.reports.at(-1))})`, () =>
      this.reports.slice(seen).find(isSo),
    );
  }

  /** SIGKILL, and it is gone. */
  async dies(): Promise<void> {
    this.#socket?.end();
    // Itself, and not what it was started through.
    const { processId } = this.#program;
    process.kill(childOf(processId) ?? processId, "SIGKILL");
    await this.#program.ended();
  }

  /** Lets this host in. */
  async enrol(): Promise<void> {
    const { enter } = this.#host;
    const words = ["identity", "token", "create", "web-1", "--control-socket", this.#controlSocket];
    const { stdout, stderr, exitCode } = await runProgram([...enter, hostler(), ...words]);
    if (exitCode !== 0) throw new Error(`No token: ${stderr}`);
    const enrol = ["identity", "enrol", "--directory", this.folder];
    const enrolled = await runProgram([...enter, hostler(), ...enrol], { input: stdout });
    if (enrolled.exitCode !== 0) throw new Error(`Not enrolled: ${enrolled.stderr}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const program of this.#programs) await program[Symbol.asyncDispose]();
  }
}

/** Lines of the worker's configuration. */
export const masterLines = (master: WireMaster, more: readonly string[] = []): string[] => [
  "[master]",
  `identity = ${JSON.stringify(master.folder)}`,
  'report_interval = "500ms"',
  ...more,
];

/** The worker of that host, which follows that master. */
export async function startMastered(
  host: VmHost,
  master: WireMaster,
  options: Omit<WorkerOptions, "configuration"> & { readonly lines?: readonly string[] } = {},
): Promise<Program> {
  const { lines, ...rest } = options;
  return await host.start({ ...rest, configuration: masterLines(master, lines) });
}

export function assigned(
  host: VmHost,
  image: TestImage,
  options: Partial<Omit<AssignedMachine, "spec">> & { readonly name?: string } = {},
): AssignedMachine {
  const { name = "web", ...more } = options;
  return {
    spec: host.specOf(name, image),
    power: "running",
    owner_generation: 10,
    movable: false,
    fencing: "none",
    ...more,
  };
}
