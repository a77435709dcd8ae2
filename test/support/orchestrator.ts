/** Runs the compiled orchestrator in tests, hears all its events, and leaves nothing behind. */
import { readFileSync, writeFileSync } from "node:fs";
import * as v from "valibot";
import { type ControlClient, connectControl } from "../../src/messaging/control-client.ts";
import { findInvocation } from "../../src/process/perform/process-table.ts";
import {
  type LogLine,
  logLineSchema,
  type ProcessDetail,
  type ProcessEventRecord,
  type ProcessSummary,
  processDetailSchema,
  processEventSchema,
  processSummarySchema,
} from "../../src/process/protocol.ts";
import { hostler } from "./binary.ts";
import { endHolders } from "./holding.ts";
import { type Program, startProgram } from "./program.ts";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.ts";
import { DeadlineError, waitFor, withDeadline } from "./wait-for.ts";

export interface OrchestratorOptions {
  /** The configuration file's text. */
  readonly configuration: string;
  /** dist/hostler when not given. */
  readonly binary?: string;
  /** Words that run it, such as setpriv with its flags. */
  readonly before?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** Further words of its command line. */
  readonly words?: readonly string[];
  /** Where its files stand; when not given, a folder of its own. */
  readonly folder?: TemporaryFolder;
}

/** A list that grows, and that one can wait on. */
export class Growing<Item> {
  readonly items: Item[] = [];
  readonly #listeners = new Set<() => void>();
  #failure: Error | undefined;

  push(item: Item): void {
    this.items.push(item);
    for (const listener of [...this.#listeners]) listener();
  }

  fail(failure: Error): void {
    this.#failure = failure;
    for (const listener of [...this.#listeners]) listener();
  }

  /** What `look` gives as soon as it gives something; it is asked after every new item. */
  async until<T>(
    description: string,
    look: (items: readonly Item[]) => T | undefined | false,
    deadlineMilliseconds = 20_000,
  ): Promise<T> {
    const found = Promise.withResolvers<T>();
    const listener = () => {
      const value = look(this.items);
      if (value !== undefined && value !== false) found.resolve(value);
      else if (this.#failure !== undefined) found.reject(this.#failure);
    };
    this.#listeners.add(listener);
    listener();
    try {
      return await withDeadline(description, found.promise, deadlineMilliseconds);
    } catch (error) {
      const last = this.items.slice(-12).map((item) => `  ${JSON.stringify(item)}`);
      if (error instanceof DeadlineError) error.message += `\nlast came:\n${last.join("\n")}`;
      throw error;
    } finally {
      this.#listeners.delete(listener);
    }
  }
}

/** The events of an orchestrator, all of them from its first. */
export class EventLog extends Growing<ProcessEventRecord> {
  of(name: string, what?: string): ProcessEventRecord[] {
    return this.items.filter(
      (event) => event.name === name && (what === undefined || event.what === what),
    );
  }

  /** The n-th event of this kind, from 1. */
  async nth(
    name: string,
    what: string,
    count = 1,
    deadlineMilliseconds?: number,
  ): Promise<ProcessEventRecord> {
    let left = count;
    let seen = 0;
    return await this.until(
      `${name}: ${what}, time ${count}`,
      (items) => {
        for (; seen < items.length; seen++) {
          const event = items[seen];
          if (event?.name === name && event.what === what) left -= 1;
          if (left === 0) return event;
        }
        return undefined;
      },
      deadlineMilliseconds,
    );
  }

  /** What happened, in order, as "name what": only of these kinds, when any are given. */
  story(...kinds: readonly string[]): string[] {
    return this.items
      .filter((event) => kinds.length === 0 || kinds.includes(event.what))
      .map((event) => `${event.name} ${event.what}`);
  }
}

/** One orchestrator, its client and its events. */
export class TestOrchestrator implements AsyncDisposable {
  readonly program: Program;
  readonly controlSocket: string;
  readonly client: ControlClient;
  readonly events = new EventLog();
  readonly #disposables: Disposable[];

  constructor(
    program: Program,
    client: ControlClient,
    options: { readonly controlSocket: string; readonly disposables: Disposable[] },
  ) {
    this.program = program;
    this.client = client;
    this.controlSocket = options.controlSocket;
    this.#disposables = options.disposables;
    void this.#follow();
  }

  async #follow(): Promise<void> {
    try {
      for await (const item of this.client.stream("subscribe", { after: 0, follow: true })) {
        this.events.push(v.parse(processEventSchema, item));
      }
    } catch (error) {
      const { stderr } = this.program.output;
      const message = `No more events: ${(error as Error).message}\n${stderr.slice(-4_000)}`;
      this.events.fail(new Error(message, { cause: error }));
    }
  }

  async list(): Promise<ProcessSummary[]> {
    return v.parse(v.array(processSummarySchema), await this.client.request("list"));
  }

  async summary(name: string): Promise<ProcessSummary> {
    return (await this.show(name)).summary;
  }

  async show(name: string): Promise<ProcessDetail> {
    return v.parse(processDetailSchema, await this.client.request("show", { name }));
  }

  async logs(fields: { readonly name?: string; readonly lines?: number } = {}): Promise<LogLine[]> {
    const lines: LogLine[] = [];
    for await (const item of this.client.stream("logs", fields)) {
      lines.push(v.parse(logLineSchema, item));
    }
    return lines;
  }

  /** Lines as they come, of one process or of all, with those that are there already. */
  followLogs(fields: { readonly name?: string; readonly lines?: number } = {}): Growing<LogLine> {
    const lines = new Growing<LogLine>();
    const follow = async () => {
      try {
        for await (const item of this.client.stream("logs", { ...fields, follow: true })) {
          lines.push(v.parse(logLineSchema, item));
        }
      } catch (error) {
        lines.fail(error as Error);
      }
    };
    void follow();
    return lines;
  }

  /** The process number of the n-th start, from 1. */
  async started(name: string, count = 1, deadlineMilliseconds?: number): Promise<number> {
    const event = await this.events.nth(name, "started", count, deadlineMilliseconds);
    if (event.pid === undefined) throw new Error("a started event without its process");
    return event.pid;
  }

  /** Ends it by SIGTERM and gives its exit code. */
  async stop(deadlineMilliseconds?: number): Promise<number | null> {
    this.program.kill("SIGTERM");
    const { exitCode } = await this.program.ended(deadlineMilliseconds);
    return exitCode;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The second one kills what does not stop. Two of one kind could arrive as one.
    this.program.kill("SIGTERM");
    this.program.kill("SIGINT");
    try {
      await this.program.ended(10_000);
    } catch {
      // Hung or dead already: what it left is ended here.
    }
    this.client.close();
    await this.program[Symbol.asyncDispose]();
    endHolders(this.controlSocket);
    killJournaled(this.controlSocket);
    for (const disposable of this.#disposables) disposable[Symbol.dispose]();
  }
}

/** Ends whatever carries an invocation that the journal of this control socket names. */
export function killJournaled(controlSocket: string): void {
  for (const invocation of journaled(controlSocket)) {
    for (const { processId } of findInvocation(invocation).found) {
      try {
        process.kill(processId, "SIGKILL");
      } catch {
        // It ended meanwhile.
      }
    }
  }
}

/** Every invocation whose start the journal names and whose end it does not. */
export function journaled(controlSocket: string): string[] {
  let text: string;
  try {
    text = readFileSync(`${controlSocket}.journal`, "utf8");
  } catch {
    return [];
  }
  const alive = new Set([...text.matchAll(/"start":"(\w+)"/g)].map((match) => match[1] ?? ""));
  for (const match of text.matchAll(/"end":"(\w+)"/g)) alive.delete(match[1] ?? "");
  return [...alive];
}

/** Writes the configuration and starts an orchestrator, whose events are heard from the first. */
export async function startOrchestrator(options: OrchestratorOptions): Promise<TestOrchestrator> {
  const disposables: Disposable[] = [];
  let { folder } = options;
  if (folder === undefined) {
    folder = temporaryFolder();
    disposables.push(folder);
  }
  const program = spawnOrchestrator({ ...options, folder });
  const controlSocket = folder.file("control.sock");
  try {
    const client = await reach(program, controlSocket);
    return new TestOrchestrator(program, client, { controlSocket, disposables });
  } catch (error) {
    await program[Symbol.asyncDispose]();
    throw error;
  }
}

/** The program alone, for tests in which it does not come to listen. */
export function spawnOrchestrator(
  options: OrchestratorOptions & { readonly folder: TemporaryFolder },
): Program {
  const { folder, configuration, binary = hostler(), environment = {}, before = [] } = options;
  const file = folder.file("process.toml");
  writeFileSync(file, configuration);
  const words = ["process", "orchestrator", "--config", file];
  const socket = ["--control-socket", folder.file("control.sock")];
  return startProgram([...before, binary, ...words, ...socket, ...(options.words ?? [])], {
    environment,
  });
}

/** Its socket is there only when it has taken its lock and can answer. */
async function reach(program: Program, controlSocket: string): Promise<ControlClient> {
  const ended = { value: false };
  const end = program.ended(60_000).then(
    () => {
      ended.value = true;
    },
    () => {},
  );
  return await waitFor("the orchestrator's control socket", async () => {
    if (ended.value) {
      await end;
      const { stderr } = program.output;
      return Promise.reject(new Error(`It ended before it listened:\n${stderr}`));
    }
    return await connectControl(controlSocket);
  });
}
