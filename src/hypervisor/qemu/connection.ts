import * as v from "valibot";
import { connectUnix, makeUnixSocket } from "../../../ffi/unix-socket.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { describeIssues } from "../../messaging/describe-issues.ts";
import { formatDuration, type ProcessId } from "../../units/units.ts";
import {
  type CapturedState,
  type ConnectOptions,
  type GuestState,
  type MachineCounters,
  type MachineFiles,
  type VmmConnection,
  VmmRefused,
  VmmUnreachable,
} from "../driver.ts";
import {
  balloonSchema,
  blockStatisticsSchema,
  channelsSchema,
  diskCountersOf,
  eventOf,
  guestStateOf,
  isConsoleAlone,
  migrationEnd,
  migrationSchema,
  processorsSchema,
  statusSchema,
} from "./answers.ts";
import { QemuMigration } from "./migration.ts";
import { isMadeAlone, tapOf } from "./plan.ts";
import { QmpClient, type QmpEvent, type QmpLimits } from "./qmp.ts";
import { receiveState, sendState } from "./state-channel.ts";

/** What a descriptor is called in QEMU while it has it. A second one of this name replaces it. */
const STATE_NAME = "hostler-state";

/**
 * What the state is made without and with: guest memory that is shared stays where it is, and the
 * end is told as an event.
 */
const stateCapabilities = [
  { capability: "x-ignore-shared", state: true },
  { capability: "events", state: true },
  // A migration that was given up may have left it.
  { capability: "pause-before-switchover", state: false },
];

/** @throws VmmUnreachable when no QEMU answers there in time */
export async function connectQemu(
  files: MachineFiles,
  options: ConnectOptions,
  limits: QmpLimits,
): Promise<VmmConnection> {
  const connection = new QemuConnection(files, options, limits);
  await connection.open();
  return connection;
}

class QemuConnection implements VmmConnection {
  readonly #files: MachineFiles;
  readonly #loop: EventLoop;
  readonly #options: ConnectOptions;
  readonly #limits: QmpLimits;
  #client: QmpClient | undefined;
  #version = "";
  #hasRun = false;
  #hasEnded = false;
  /** Made, and since it said so neither ordered nor heard of: nothing else lets a guest begin. */
  #isUntouched = false;
  /** QEMU was told to end, so that its end is no loss. */
  #isQuitting = false;
  /** The state that it gave, as long as it is the machine's. */
  #given: CapturedState | undefined;
  readonly #migrationWaiters = new Set<(end: "completed" | "failed") => void>();
  readonly migration: QemuMigration;

  constructor(files: MachineFiles, options: ConnectOptions, limits: QmpLimits) {
    this.#files = files;
    this.#loop = options.loop;
    this.#options = options;
    this.#limits = limits;
    this.migration = new QemuMigration(options.loop, options.machine, {
      execute: (command, words) => this.#execute(command, words),
      ask: (command, schema) => this.#ask(command, schema),
      complete: () => this.#completeMachine(),
    });
  }

  async open(): Promise<void> {
    const { client, version, first } = await QmpClient.connect(this.#loop, this.#files.control, {
      // Sent with what makes the connection, so that neither waits for the other's answer.
      first: "query-status",
      limits: this.#limits,
      signal: this.#options.signal,
      onEvent: (event) => this.#onEvent(event),
      onLost: (reason) => {
        this.migration.lose(reason);
        if (!this.#isQuitting) this.#options.onLost(reason);
      },
    });
    this.#client = client;
    this.#version = version;
    try {
      const state = stateOf(answerOf("query-status", statusSchema, await first));
      this.#isUntouched = state === "created";
      this.#hasRun ||= state !== "created";
      this.#hasEnded ||= state === "off" || state === "panicked";
    } catch (error) {
      this.#client = undefined;
      client.close();
      throw error;
    }
  }

  get version(): string {
    return this.#version;
  }

  async guestState(): Promise<GuestState> {
    return stateOf(await this.#ask("query-status", statusSchema));
  }

  /** The same, where it cannot have changed since it was asked last. */
  async #stateForOrder(): Promise<GuestState> {
    return this.#isUntouched ? "created" : await this.guestState();
  }

  /** The machine was made with the process; this sees that it is. */
  async create(): Promise<void> {
    const state = await this.#stateForOrder();
    if (state === "created") return;
    throw new VmmRefused(`Expected a machine that never ran, and QEMU says that it is ${state}`);
  }

  async boot(): Promise<void> {
    await this.#continue();
  }

  /** QEMU takes `cont` before the state as well, and would run as soon as it has it. */
  async #continue(): Promise<void> {
    if ((await this.#stateForOrder()) === "incoming") {
      throw new VmmRefused("The machine waits for the state of another one: give it that first");
    }
    this.#given = undefined;
    await this.#execute("cont");
  }

  async pause(): Promise<void> {
    await this.#execute("stop");
  }

  async resume(): Promise<void> {
    await this.#continue();
  }

  async pressPowerButton(): Promise<void> {
    await this.#execute("system_powerdown");
  }

  async quit(): Promise<void> {
    this.#isQuitting = true;
    await this.#execute("quit");
  }

  async counters(): Promise<MachineCounters> {
    const statistics = await this.#ask("query-blockstats", blockStatisticsSchema);
    return { disks: diskCountersOf(statistics), memory: await this.#balloon() };
  }

  async #balloon(): Promise<number | undefined> {
    try {
      return (await this.#ask("query-balloon", balloonSchema)).actual;
    } catch (error) {
      // Until the guest has a driver for it, QEMU may say that there is none.
      if (error instanceof VmmRefused) return undefined;
      throw error;
    }
  }

  async processorThreads(): Promise<readonly ProcessId[]> {
    const processors = await this.#ask("query-cpus-fast", processorsSchema);
    return [...new Set(processors.map((processor) => processor["thread-id"]))];
  }

  async captureState(): Promise<CapturedState> {
    // QEMU gives it once until it has run again, and nothing of it has changed meanwhile.
    if (this.#given !== undefined) return this.#given;
    await this.#execute("stop");
    await this.#execute("migrate-set-capabilities", { capabilities: stateCapabilities });
    using source = receiveState(this.#loop, this.#limits.stateBytes);
    await this.#client?.execute("getfd", { fdname: STATE_NAME }, source.end);
    source.end.close();
    await this.#migrate("migrate", source.bytes);
    const bytes = await this.#withinStateTime("the end of the state", source.bytes);
    this.#given = { hypervisor: "qemu", version: this.#version, bytes };
    return this.#given;
  }

  async restoreState(state: CapturedState): Promise<void> {
    if (state.hypervisor !== "qemu") {
      throw new VmmRefused(`Expected the state of a QEMU, received that of a ${state.hypervisor}`);
    }
    await this.#completeMachine();
    using _listener = await this.#listenWhereNobodyDoes();
    await this.#execute("migrate-set-capabilities", { capabilities: stateCapabilities });
    using sink = sendState(this.#loop, state.bytes);
    await this.#client?.execute("getfd", { fdname: STATE_NAME }, sink.end);
    sink.end.close();
    await this.#migrate("migrate-incoming");
    const after = await this.guestState();
    if (after === "paused") return;
    throw new VmmRefused(`Expected a paused machine after the state, and QEMU says ${after}`);
  }

  /**
   * A serial port whose listener was behind has a letter left over. QEMU sends it when the listener
   * has room again, and looks for that from the moment on in which it takes the state: where nobody
   * listens then, it never looks, and the guest waits for its port for ever, also when somebody
   * listens later (serial_post_load in hw/char/serial.c, tcp_chr_add_watch in
   * chardev/char-socket.c). So somebody does for as long as the state comes; nobody reads the
   * letter, as nobody would have.
   */
  async #listenWhereNobodyDoes(): Promise<Disposable | null> {
    const channels = await this.#ask("query-chardev", channelsSchema);
    if (!channels.some(isConsoleAlone)) return null;
    const socket = makeUnixSocket("stream");
    // One that cannot be connected to has no listener that could be behind, or QEMU is gone.
    connectUnix(socket, this.#files.console);
    return { [Symbol.dispose]: () => socket.close() };
  }

  /**
   * Gives a machine that waits for its state what it could not have beside another VMM, and has it
   * made. Of one that was completed by a worker that died meanwhile nothing is left to be done.
   */
  async #completeMachine(): Promise<void> {
    const { machine } = this.#options;
    if (!isMadeAlone(machine) || !(await this.#isIncomplete())) return;
    for (const card of machine.networks) {
      const tap = tapOf(card);
      // One that was added before, without the rest.
      await this.#execute("netdev_del", { id: tap.id }).catch(ignoreRefusal);
      await this.#execute("netdev_add", tap);
    }
    await this.#execute("x-exit-preconfig");
  }

  /** Before its machine is made QEMU has no processors to tell of. */
  async #isIncomplete(): Promise<boolean> {
    return await this.#execute("query-cpus-fast").then(() => false, ignoreRefusal);
  }

  /** Lets the state go or come, and waits for QEMU's word that all of it went or came. */
  async #migrate(command: "migrate" | "migrate-incoming", bytes?: Promise<unknown>): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<"completed" | "failed">();
    this.#migrationWaiters.add(resolve);
    // A state that is too large, and QEMU's own end, are told by others than QEMU.
    bytes?.catch(reject);
    try {
      await this.#execute(command, { uri: `fd:${STATE_NAME}` });
      const lost = this.#client?.lost.then((reason): never => {
        const what = command === "migrate" ? "gave" : "took";
        throw new VmmUnreachable(
          `QEMU ended while it ${what} the state, and its output says why: ${reason}`,
        );
      });
      const first = Promise.race([promise, lost ?? promise]);
      const end = await this.#withinStateTime(`the end of "${command}"`, first);
      if (end === "completed") return;
    } catch (error) {
      if (error instanceof RangeError) throw new VmmRefused(error.message, { cause: error });
      throw error;
    } finally {
      this.#migrationWaiters.delete(resolve);
    }
    const told = await this.#ask("query-migrate", migrationSchema);
    const reason = told["error-desc"] ?? "it does not say why";
    throw new VmmRefused(`QEMU failed in "${command}": ${reason}`);
  }

  async #withinStateTime<T>(what: string, event: Promise<T>): Promise<T> {
    const limit = this.#limits.stateTime;
    const late = Promise.withResolvers<never>();
    using _timer = this.#loop.wakeAfter(limit, () => {
      late.reject(new VmmUnreachable(`QEMU did not tell ${what} within ${formatDuration(limit)}`));
    });
    return await Promise.race([event, late.promise]);
  }

  #onEvent(event: QmpEvent): void {
    this.#isUntouched = false;
    this.migration.hear(event);
    if (event.event === "MIGRATION") {
      const parsed = v.safeParse(migrationSchema, event.data);
      const end = parsed.success ? migrationEnd(parsed.output.status) : undefined;
      if (end !== undefined) for (const tell of this.#migrationWaiters) tell(end);
      return;
    }
    if (event.event === "RESUME" || event.event === "RESET") this.#given = undefined;
    const told = eventOf(event, { hasRun: this.#hasRun, hasEnded: this.#hasEnded });
    if (event.event === "RESUME") this.#hasRun = true;
    if (told === undefined) return;
    if (told.kind === "guest-off" || told.kind === "guest-panic") this.#hasEnded = true;
    if (told.kind === "guest-reset" || told.kind === "resumed") this.#hasEnded = false;
    this.#options.onEvent(told);
  }

  #execute(command: string, words: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    if (this.#client === undefined) return Promise.reject(new VmmUnreachable("It was closed"));
    this.#isUntouched &&= command.startsWith("query-");
    return this.#client.execute(command, words);
  }

  /** One command whose answer is read. @throws VmmUnreachable when the answer is none */
  async #ask<Schema extends v.GenericSchema>(
    command: string,
    schema: Schema,
  ): Promise<v.InferOutput<Schema>> {
    return answerOf(command, schema, await this.#execute(command));
  }

  [Symbol.dispose](): void {
    this.migration.lose("it was closed");
    this.#client?.close();
    this.#client = undefined;
  }
}

/** @throws VmmUnreachable when the answer is none */
function answerOf<Schema extends v.GenericSchema>(
  command: string,
  schema: Schema,
  answer: unknown,
): v.InferOutput<Schema> {
  const parsed = v.safeParse(schema, answer);
  if (parsed.success) return parsed.output;
  throw new VmmUnreachable(
    `QEMU's answer to "${command}" is none: ${describeIssues(parsed.issues)}`,
  );
}

/** @throws VmmRefused */
function stateOf({ status }: v.InferOutput<typeof statusSchema>): GuestState {
  const state = guestStateOf(status);
  if (state !== undefined) return state;
  throw new VmmRefused(`QEMU says of its machine what we do not know: ${JSON.stringify(status)}`);
}

/** @returns true for what QEMU refused @throws any other failure */
function ignoreRefusal(failure: unknown): true {
  if (failure instanceof VmmRefused) return true;
  throw failure;
}
