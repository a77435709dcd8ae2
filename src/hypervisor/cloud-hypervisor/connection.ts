import { existsSync, readdirSync, readFileSync } from "node:fs";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { isListenedAt, listenerProcess } from "../../messaging/listener.ts";
import type { Milliseconds, ProcessId } from "../../units/units.ts";
import {
  type CapturedState,
  type GuestState,
  type MachineCounters,
  type MachineFiles,
  type MachineSpecification,
  type VmmConnection,
  VmmRefused,
  VmmUnreachable,
} from "../driver.ts";
import { countersSchema, infoSchema } from "./answers.ts";
import { AnswerLost, ApiRefused, type CloudHypervisorApi, NobodyListens } from "./api.ts";
import { decodeState, encodeState, placeConfig } from "./captured-state.ts";
import type { VmConfig } from "./config.ts";
import type { EventPipe } from "./event-pipe.ts";
import type { CloudHypervisorLimits } from "./limits.ts";
import { CloudHypervisorMigration } from "./migration.ts";
import {
  MigrationReceiver,
  NobodyReceives,
  type ReceivedMachine,
  removeSocket,
  sendMachine,
} from "./migration-peer.ts";

/** Sockets of migrations stand beside the control socket, whose path leaves room for it. */
export const MIGRATION_SUFFIX = ".move";

/** The status of what needs a machine, where there is none. */
const NOT_CREATED = 404;

/** Between two looks at whether the VMM has its machine again. */
const LOOK_AGAIN: Milliseconds = 2;

export interface ConnectionParts {
  readonly loop: EventLoop;
  readonly api: CloudHypervisorApi;
  readonly pipe: EventPipe;
  readonly version: string;
  readonly machine: MachineSpecification;
  readonly files: MachineFiles;
  readonly config: VmConfig;
  readonly limits: CloudHypervisorLimits;
  /** Ends with the connection. */
  readonly stop: AbortController;
}

/** A cloud-hypervisor that runs one machine. Whether it was started here makes no difference. */
export class CloudHypervisorConnection implements VmmConnection {
  readonly migration: CloudHypervisorMigration;
  readonly #parts: ConnectionParts;
  #isEnding = false;
  #hasPanicked = false;
  /** A machine that was captured, and that its VMM still has as well. */
  #held: MigrationReceiver | undefined;

  constructor(parts: ConnectionParts) {
    this.#parts = parts;
    const path = parts.files.control + MIGRATION_SUFFIX;
    this.migration = new CloudHypervisorMigration({
      ...parts,
      path,
      process: () => this.#process(),
      prepare: () => this.#removeOldSockets(),
    });
  }

  get version(): string {
    return this.#parts.version;
  }

  /** The VMM was told to end: the end of its guest is the host's doing. */
  get isEnding(): boolean {
    return this.#isEnding;
  }

  /** What the guest said of itself, which the API does not tell. */
  setPanicked(hasPanicked: boolean): void {
    this.#hasPanicked = hasPanicked;
  }

  async guestState(): Promise<GuestState> {
    // It serves one order after the other, and this one lasts until the machine is here.
    if (this.migration.isReceiving) return "empty";
    let state: string;
    try {
      state = (await this.#parts.api.get("vm.info", infoSchema)).state;
    } catch (failure) {
      if (failure instanceof ApiRefused && failure.status === NOT_CREATED) return "empty";
      throw failure;
    }
    switch (state) {
      case "Running":
        return this.#hasPanicked ? "panicked" : "running";
      case "Paused":
      case "BreakPoint":
        return "paused";
      case "Shutdown":
        return "off";
      default:
        // It says so as well of a machine that has ended; its console went with that.
        return existsSync(this.#parts.files.console) ? "created" : "off";
    }
  }

  async create(): Promise<void> {
    this.#removeOldSockets();
    await this.#parts.api.put("vm.create", this.#parts.config);
  }

  /** One that was killed leaves them, and the VMM takes no path where something stands. */
  #removeOldSockets(): void {
    const { console, agent } = this.#parts.files;
    for (const path of [console, agent]) if (!isListenedAt(path)) removeSocket(path);
  }

  async boot(): Promise<void> {
    await this.#parts.api.put("vm.boot");
  }

  async pause(): Promise<void> {
    await this.#whenItHasIt("vm.pause");
  }

  async resume(): Promise<void> {
    this.#giveBack();
    await this.#whenItHasIt("vm.resume");
  }

  /** A migration that was given up lasts for a moment yet, in which nothing else is taken. */
  async #whenItHasIt(endpoint: string): Promise<void> {
    const { api, limits, loop } = this.#parts;
    const end = monotonicNow() + limits.answerTime;
    for (;;) {
      try {
        await api.put(endpoint);
        return;
      } catch (failure) {
        const isOnItsWay = failure instanceof VmmRefused && isMoving(failure);
        if (!isOnItsWay || monotonicNow() >= end) throw failure;
      }
      const again = Promise.withResolvers<void>();
      loop.wakeAfter(LOOK_AGAIN, again.resolve);
      await again.promise;
    }
  }

  /** The VMM is told that its machine was not taken. */
  #giveBack(): void {
    this.#held?.[Symbol.dispose]();
    this.#held = undefined;
  }

  async pressPowerButton(): Promise<void> {
    await this.#parts.api.put("vm.power-button");
  }

  async quit(): Promise<void> {
    this.#isEnding = true;
    if (this.#held?.isHeld === true) {
      // It ends by itself when it hears that its machine was taken.
      this.#held.release();
      return;
    }
    try {
      await this.#parts.api.put("vmm.shutdown");
    } catch (failure) {
      // It may be gone before its answer is out, or was gone before it was asked.
      if (failure instanceof NobodyListens || failure instanceof AnswerLost) return;
      this.#isEnding = false;
      throw failure;
    }
  }

  async counters(): Promise<MachineCounters> {
    const counters = await this.#parts.api.get("vm.counters", countersSchema);
    const disks = this.#parts.machine.disks.flatMap(({ id }) => {
      const found = counters[id];
      if (found === undefined) return [];
      return [
        {
          id,
          readBytes: found["read_bytes"] ?? 0,
          writtenBytes: found["write_bytes"] ?? 0,
          reads: found["read_ops"] ?? 0,
          writes: found["write_ops"] ?? 0,
        },
      ];
    });
    return { disks, memory: undefined };
  }

  async processorThreads(): Promise<readonly ProcessId[]> {
    return threadsNamed(this.#process(), /^vcpu(\d+)$/);
  }

  /** Who listens at the control socket, as the kernel says: the VMM may have a name space. */
  #process(): ProcessId {
    const { control } = this.#parts.files;
    const found = listenerProcess(control);
    if (found !== undefined) return found;
    throw new NobodyListens(`${control}: nobody listens there`);
  }

  async captureState(): Promise<CapturedState> {
    const { version } = this.#parts;
    if (this.#held?.isHeld === true) {
      throw new VmmRefused("The machine's state was captured already: resume it, or quit, first");
    }
    // Paused first, and not by the migration: a machine that it paused would run on when we are
    // gone, whoever else has its memory by then.
    const state = await this.guestState();
    if (state === "running" || state === "panicked") await this.pause();
    const { slots, config, state: devices } = await this.#receive();
    const decoder = new TextDecoder();
    const bytes = encodeState({
      slots: slots.map(({ slot }) => slot),
      config: decoder.decode(config),
      state: decoder.decode(devices),
    });
    const memory = slots.map(({ descriptor }) => descriptor);
    return { hypervisor: "cloud-hypervisor", version, bytes, memory };
  }

  async #receive(): Promise<ReceivedMachine> {
    const { api, files, limits, loop, stop } = this.#parts;
    const path = files.control + MIGRATION_SUFFIX;
    const sender = this.#process();
    // What a broken restoration left is the VMM's user's, and would be refused.
    removeSocket(path);
    const receiver = new MigrationReceiver(loop, { path, sender, limits, signal: stop.signal });
    this.#held = receiver;
    const order = { destination_url: `unix:${path}`, local: true };
    // It answers before anything is sent: what goes wrong later is told by the migration itself.
    api.put("vm.send-migration", order, limits.stateTime).catch((failure: Error) => {
      if (!receiver.isHeld) receiver.fail(failure);
    });
    return await receiver.received;
  }

  async restoreState(captured: CapturedState): Promise<void> {
    const machine = this.#readState(captured);
    const { api, files, limits, loop, stop } = this.#parts;
    this.#removeOldSockets();
    const path = files.control + MIGRATION_SUFFIX;
    // One that a killed worker left would refuse the VMM its own.
    removeSocket(path);
    const order = { receiver_url: `unix:${path}` };
    // It answers when all is over: a step that hangs is to be told as such before this is.
    const time = limits.stateTime + limits.answerTime;
    const answered = api.put("vm.receive-migration", order, time);
    // A VMM that refuses the order never listens: waiting for it is over then.
    const refused = new AbortController();
    answered.catch(() => refused.abort());
    try {
      const listening = AbortSignal.any([stop.signal, refused.signal]);
      await sendMachine(loop, machine, { path, limits, signal: stop.signal, listening });
    } catch (failure) {
      removeSocket(path);
      throw await this.#explain(failure, answered);
    }
    await answered;
  }

  /** A step that failed, with what the VMM says about all of it. */
  async #explain(failure: unknown, answered: Promise<void>): Promise<Error> {
    const words = await answered.then(
      () => undefined,
      (reason: unknown) => reason,
    );
    const reason = failure instanceof Error ? failure : new Error(String(failure));
    if (!(words instanceof VmmRefused)) return reason;
    // It refused the order itself, so that there was nobody to be reached.
    if (reason instanceof NobodyReceives) return words;
    return new VmmRefused(`${reason.message}. ${words.message}`, { cause: failure });
  }

  #readState(captured: CapturedState) {
    const { limits } = this.#parts;
    const { bytes, hypervisor, memory = [] } = captured;
    if (hypervisor !== "cloud-hypervisor") throw noState(`of cloud-hypervisor, not ${hypervisor}`);
    const read = decodeState(bytes, limits);
    if ("refusal" in read) throw noState(read.refusal);
    if (read.slots.length !== memory.length) {
      throw noState(`with ${read.slots.length} pieces of memory, received ${memory.length}`);
    }
    const config = placeConfig(read.config, this.#parts.config);
    if (typeof config === "object") throw noState(config.refusal);
    const encoder = new TextEncoder();
    return {
      slots: memory.map((descriptor, index) => ({ slot: read.slots[index] ?? 0, descriptor })),
      config: encoder.encode(config),
      state: encoder.encode(read.state),
    };
  }

  [Symbol.dispose](): void {
    this.#giveBack();
    this.migration[Symbol.dispose]();
    this.#parts.stop.abort();
    this.#parts.pipe[Symbol.dispose]();
  }
}

/** VmError::VmMigrating of vmm/src/vm.rs. */
const isMoving = ({ message }: VmmRefused) => message.includes("currently migrating");

const noState = (reason: string) => new VmmRefused(`This is no state to go on from: ${reason}`);

/** Threads of a process by name, in the order of the numbers in their names: proc_pid_task(5). */
function threadsNamed(process: ProcessId, name: RegExp): ProcessId[] {
  const folder = `/proc/${process}/task`;
  try {
    return readdirSync(folder)
      .flatMap((thread) => {
        const [, number] = name.exec(readFileSync(`${folder}/${thread}/comm`, "utf8").trim()) ?? [];
        return number === undefined ? [] : [{ number: Number(number), thread: Number(thread) }];
      })
      .sort((one, other) => one.number - other.number)
      .map(({ thread }) => thread);
  } catch (cause) {
    throw new VmmUnreachable(`Process ${process} ended while its threads were read`, { cause });
  }
}
