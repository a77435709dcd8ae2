/** A VMM that a test started by a driver's plan, and what its guest says on the serial port. */
import { ftruncateSync, mkdirSync, readFileSync, readSync } from "node:fs";
import { makeNamedPipe } from "../../../ffi/descriptor.ts";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { COUNTER_ADDRESS } from "../../../scripts/test-guest.ts";
import type { EventLoop } from "../../../src/event-loop/event-loop.ts";
import type {
  Beginning,
  HypervisorDriver,
  HypervisorProgram,
  MachineFiles,
  MachineSpecification,
  VmmConnection,
  VmmEvent,
} from "../../../src/hypervisor/driver.ts";
import { makeVmmListener } from "../../../src/vm/perform/vmm-listener.ts";
import { RawClient } from "../agent-client.ts";
import { suspend } from "../suspend.ts";
import { waitFor, withDeadline } from "../wait-for.ts";
import { filesIn } from "./machines.ts";

/** What is started, and how. */
export interface VmmStart {
  readonly driver: HypervisorDriver;
  readonly program: HypervisorProgram;
  readonly machine: MachineSpecification;
  /** Made here; a VMM has it for itself. */
  readonly folder: string;
  readonly beginning?: Beginning;
  /** The guest's memory, where the plan takes it; a new one else. */
  readonly memory?: OwnedDescriptor;
  /** Words before the program: to start it in another network. */
  readonly before?: readonly string[];
}

export function guestMemory(machine: MachineSpecification): OwnedDescriptor {
  const memory = makeMemoryFile("guest");
  ftruncateSync(memory.number, machine.memory);
  return memory;
}

export class TestVmm implements AsyncDisposable {
  readonly files: MachineFiles;
  readonly events: VmmEvent[] = [];
  readonly losses: string[] = [];
  readonly memory: OwnedDescriptor;
  readonly #start: VmmStart;
  readonly #child: Bun.Subprocess;
  readonly #abort = new AbortController();
  readonly #connections: VmmConnection[] = [];

  constructor(start: VmmStart) {
    mkdirSync(start.folder, { recursive: true });
    this.#start = start;
    this.files = filesIn(start.folder);
    const { driver, machine, program, beginning = "new" } = start;
    const plan = driver.plan(machine, this.files, program, beginning);
    for (const pipe of plan.pipes ?? []) makeNamedPipe(pipe, 0o600);
    this.memory = start.memory ?? guestMemory(machine);
    const output = Bun.file(`${start.folder}/output`);
    const control = plan.descriptors.find((one) => one.role === "listener");
    using listener = control === undefined ? null : makeVmmListener(control.path);
    const memories = plan.descriptors.filter(({ role }) => role === "memory");
    const input = listener?.number ?? "ignore";
    this.#child = Bun.spawn([...(start.before ?? []), plan.program, ...plan.arguments], {
      stdio: [input, output, output, ...memories.map(() => this.memory.number)],
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
    });
  }

  get processId(): number {
    return this.#child.pid;
  }

  /** What the program said. */
  get output(): string {
    return readFileSync(`${this.#start.folder}/output`, "utf8");
  }

  /** As the guest's memory has it now. */
  get counter(): number {
    const bytes = new DataView(new ArrayBuffer(4));
    readSync(this.memory.number, bytes, 0, 4, COUNTER_ADDRESS);
    return bytes.getUint32(0, true);
  }

  async connect(loop: EventLoop, driver = this.#start.driver): Promise<VmmConnection> {
    try {
      const connection = await driver.connect(this.files, {
        loop,
        machine: this.#start.machine,
        signal: this.#abort.signal,
        onEvent: (event) => this.events.push(event),
        onLost: (reason) => this.losses.push(reason),
      });
      this.#connections.push(connection);
      return connection;
    } catch (error) {
      if (error instanceof Error) error.message += `\nits output: ${this.output}`;
      throw error;
    }
  }

  async console(): Promise<GuestConsole> {
    const { socket } = await RawClient.connect(this.files.console);
    return new GuestConsole(socket);
  }

  /** @param listening its guest does something for it: it stands still while nobody reads */
  async heard(kind: VmmEvent["kind"], listening?: GuestConsole): Promise<VmmEvent> {
    return await waitFor(`the event ${kind}`, () => {
      listening?.look();
      return this.events.find((one) => one.kind === kind);
    });
  }

  kill(signal: NodeJS.Signals): void {
    if (signal === "SIGSTOP") suspend(this.#child.pid);
    else this.#child.kill(signal);
  }

  async ended(): Promise<number> {
    return await withDeadline(`the end of the VMM`, this.#child.exited);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort();
    for (const connection of this.#connections) connection[Symbol.dispose]();
    this.#child.kill("SIGKILL");
    await this.#child.exited;
    if (this.#start.memory === undefined) this.memory.close();
  }
}

/** The first serial port of the test guest: numbers that rise by one from line to line. */
export class GuestConsole extends RawClient {
  /** Numbers of whole lines, as they came. */
  readonly numbers: number[] = [];
  #rest = "";

  protected override take(bytes: Uint8Array<ArrayBuffer>): void {
    const lines = (this.#rest + new TextDecoder().decode(bytes)).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      const digits = /^T([0-9a-f]{8})$/.exec(line.trim())?.[1];
      if (digits !== undefined) this.numbers.push(Number.parseInt(digits, 16));
    }
  }

  /** The first number that comes after now. */
  async next(): Promise<number> {
    this.look();
    const seen = this.numbers.length;
    return await waitFor("a line of the guest", () => {
      this.look();
      return this.numbers[seen];
    });
  }

  /** The last number that has come: of a guest that stands still, the last that there was. */
  get last(): number {
    this.look();
    return this.numbers.at(-1) ?? 0;
  }
}
