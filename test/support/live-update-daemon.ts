/**
 * The compiled luod with a kernel of the test's own, clients that write their lines by themselves,
 * and the ways into the next kernel. Nothing of it is left behind.
 */
import {
  fstatSync,
  ftruncateSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  writeSync,
} from "node:fs";
import { makeMemoryFile } from "../../ffi/memory-file.ts";
import { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import type { KexecResult, Status } from "../../src/live-update/protocol.ts";
import { type ControlClient, connectControl } from "../../src/messaging/control-client.ts";
import { RawClient } from "./agent-client.ts";
import { hostlerWithFaults } from "./binary.ts";
import { FakeKernel } from "./fake-kernel.ts";
import { endHolders, holdersOf } from "./holding.ts";
import { type Program, startProgram } from "./program.ts";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.ts";
import { waitFor } from "./wait-for.ts";

/** What luod says to a client; more than a test looks at. */
export interface ClientLine {
  readonly event: string;
  readonly id?: string;
  readonly request?: number;
  readonly session?: string;
  readonly update?: string;
  readonly reason?: string;
  readonly deadline_ms?: number;
  readonly dry_run?: boolean;
  readonly error?: { readonly kind: string; readonly message: string };
}

/** A client: what it says is a test's, word for word. */
export class LineClient extends RawClient {
  readonly lines: ClientLine[] = [];
  #rest = "";
  #request = 0;

  static override async connect(path: string): Promise<LineClient> {
    return new LineClient((await RawClient.connect(path)).socket);
  }

  protected override take(bytes: Uint8Array<ArrayBuffer>): void {
    const words = (this.#rest + new TextDecoder().decode(bytes)).split("\n");
    this.#rest = words.pop() ?? "";
    this.lines.push(...words.map((line) => JSON.parse(line) as ClientLine));
  }

  /** One line. @returns false when luod has closed */
  say(message: object | string, descriptors: readonly number[] = []): Promise<boolean> {
    const text = typeof message === "string" ? message : JSON.stringify(message);
    return this.sendBytes(new TextEncoder().encode(`${text}\n`), descriptors);
  }

  /** The next line with this event, out of the order in which they come. */
  async heard(event: string): Promise<ClientLine> {
    return await this.#next(event, (line) => line.event === event);
  }

  async #next(what: string, wanted: (line: ClientLine) => boolean): Promise<ClientLine> {
    const found = await waitFor(`${what} (have ${JSON.stringify(this.lines)})`, () => {
      this.look();
      const index = this.lines.findIndex(wanted);
      if (index >= 0) return this.lines.splice(index, 1)[0];
      return this.ended ? ("ended" as const) : undefined;
    });
    if (found === "ended") throw new Error(`luod closed the connection before ${what}`);
    return found;
  }

  async hello(): Promise<void> {
    await this.say({ cmd: "HELLO", protocol: 1, program: "test" });
    await this.heard("HELLO");
  }

  /** Asks with a number, and gives what it is answered with. */
  async ask(message: object): Promise<ClientLine> {
    const request = ++this.#request;
    await this.say({ ...message, request });
    return await this.#next(JSON.stringify(message), (line) => line.request === request);
  }

  /** A line with a session, and the session. */
  async given(event: string): Promise<{ line: ClientLine; session: OwnedDescriptor }> {
    const line = await this.heard(event);
    const session = this.descriptors.shift();
    if (session === undefined) throw new Error(`${event} came without a session`);
    return { line, session };
  }
}

/** Calls of a client to the test's kernel, which lives in this very process: they do not block. */
async function call(
  kernel: FakeKernel,
  request: object,
  descriptors: readonly OwnedDescriptor[],
): Promise<{ readonly result: number; readonly descriptor: OwnedDescriptor | undefined }> {
  const path = kernel.environment["HOSTLER_LIVE_UPDATE_KERNEL"] ?? "";
  const asked = await RawClient.connect(path);
  const numbers = descriptors.map(({ number }) => number);
  await asked.sendBytes(new TextEncoder().encode(`${JSON.stringify(request)}\n`), numbers);
  const text = await waitFor("the kernel's answer", () => {
    asked.look();
    const said = new TextDecoder().decode(asked.received);
    return said.endsWith("\n") && said;
  });
  const descriptor = asked.descriptors.shift();
  asked[Symbol.dispose]();
  return { result: (JSON.parse(text) as { result: number }).result, descriptor };
}

/** Preserves a file with this content, and closes what it was given, as a client does. */
export async function preserve(
  kernel: FakeKernel,
  session: OwnedDescriptor,
  content: string,
): Promise<number> {
  using file = makeMemoryFile("content");
  ftruncateSync(file.number, content.length);
  writeSync(file.number, content, 0);
  return (await call(kernel, { call: "preserve", token: "1" }, [session, file])).result;
}

/** What was preserved. @throws Error when it is not there */
export async function restore(kernel: FakeKernel, session: OwnedDescriptor): Promise<string> {
  const { result, descriptor } = await call(kernel, { call: "retrieve", token: "1" }, [session]);
  if (descriptor === undefined) throw new Error(`Nothing is preserved: ${result}`);
  using file = descriptor;
  const bytes = new Uint8Array(fstatSync(file.number).size);
  readSync(file.number, bytes, 0, bytes.length, 0);
  return new TextDecoder().decode(bytes);
}

export interface MachineOptions {
  /** Words behind `live-update daemon`. */
  readonly flags?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
}

/** One host: its kernel, its luod, and the clients that a test connects. */
export class Machine implements AsyncDisposable {
  readonly folder: TemporaryFolder = temporaryFolder();
  readonly kernel = new FakeKernel(this.folder.file("kernel.sock"));
  readonly controlSocket: string = this.folder.file("control.sock");
  readonly clientSocket: string = this.folder.file("clients.sock");
  readonly stateDirectory: string = this.folder.file("state");
  #luod: Program | undefined;
  #control: ControlClient | undefined;
  readonly #clients: LineClient[] = [];

  get luod(): Program {
    if (this.#luod === undefined) throw new Error("luod was not started");
    return this.#luod;
  }

  /** The words that start a luod of this host. */
  words(flags: readonly string[] = []): string[] {
    return [
      ...[hostlerWithFaults(), "live-update", "daemon", "--socket", this.clientSocket],
      ...["--control-socket", this.controlSocket, "--state-directory", this.stateDirectory],
      ...["--by", "reboot", "-v", ...flags],
    ];
  }

  async start(options: MachineOptions = {}): Promise<void> {
    this.spawn(options);
    await this.listening();
  }

  /** As `start`, for one that may die before it listens. */
  spawn({ flags = [], environment = {} }: MachineOptions = {}): Program {
    this.#control?.close();
    this.#control = undefined;
    const all = { ...this.kernel.environment, ...environment };
    const luod = startProgram(this.words(flags), { environment: all });
    this.#luod = luod;
    return luod;
  }

  async listening(): Promise<void> {
    await this.luod.said(/listening at/);
  }

  async kill(): Promise<void> {
    this.luod.kill("SIGKILL");
    await this.luod.ended();
  }

  async control(): Promise<ControlClient> {
    this.#control ??= await connectControl(this.controlSocket);
    return this.#control;
  }

  /** A request to one that dies must not be waited for. */
  get isAlive(): boolean {
    try {
      return !/\) Z /.test(readFileSync(`/proc/${this.luod.processId}/stat`, "latin1"));
    } catch {
      return false;
    }
  }

  async ask<T>(verb: string, fields: object = {}): Promise<T> {
    return (await (await this.control()).request(verb, { ...fields })) as T;
  }

  async status(): Promise<Status> {
    return await this.ask<Status>("status");
  }

  /** A client that said hello. */
  async client(): Promise<LineClient> {
    const client = await this.bareClient();
    await client.hello();
    return client;
  }

  async bareClient(): Promise<LineClient> {
    const client = await LineClient.connect(this.clientSocket);
    this.#clients.push(client);
    return client;
  }

  /** Orders an update; the answer comes only when it ends in this kernel. */
  async kexec(fields: object = {}): Promise<{ readonly ended: Promise<KexecResult> }> {
    const control = await connectControl(this.controlSocket);
    const order = { dry_run: false, include_bare: false, discard_unclaimed: false, by: "reboot" };
    const ended = control.request("kexec", { ...order, ...fields }) as Promise<KexecResult>;
    void ended.catch(() => undefined).then(() => control.close());
    return { ended };
  }

  /** Has somebody load a kernel. */
  async load(): Promise<void> {
    using file = new OwnedDescriptor(openSync("/proc/self/exe", "r"));
    await call(this.kernel, { call: "load", command_line: "kho=on" }, [file]);
  }

  /** Every client ends, and what it has with it. */
  disconnect(): void {
    for (const client of this.#clients.splice(0)) client[Symbol.dispose]();
  }

  /** Every process of the former kernel ends, and nothing but what is on disks stays. */
  async boot(): Promise<void> {
    await waitFor("the new kernel", () => this.kernel.ended === "kexec");
    await this.kill();
    endHolders(this.controlSocket);
    await waitFor("the holder's end", () => holdersOf(this.controlSocket).length === 0);
    this.disconnect();
    // What is in /run is gone.
    rmSync(this.stateDirectory, { recursive: true, force: true });
    this.kernel.boot();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#control?.close();
    this.disconnect();
    await this.#luod?.[Symbol.asyncDispose]();
    endHolders(this.controlSocket);
    await waitFor("the holder's end", () => holdersOf(this.controlSocket).length === 0);
    this.kernel[Symbol.dispose]();
    this.folder[Symbol.dispose]();
  }
}
