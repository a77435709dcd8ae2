import { formatDuration, type ProcessId } from "../../units/units.ts";
import {
  type MachineFiles,
  type MigrationArrival,
  type ReceiveRoute,
  type SendRoute,
  type VmmMigration,
  VmmUnreachable,
} from "../driver.ts";
import type { MonitorEvent } from "./events.ts";
import { type MoveParts, MoveReceiver } from "./move-receiver.ts";
import { MoveSender } from "./move-sender.ts";
import { STOPPED_SUFFIX, stopProcess } from "./stopped-process.ts";

interface Parts extends MoveParts {
  readonly files: MachineFiles;
  /** @throws NobodyListens */
  readonly process: () => ProcessId;
  /** What a VMM that was killed left, and this one would be refused by. */
  readonly prepare: () => void;
}

/** A cloud-hypervisor's machine to another host, by its own migration, through our hands. */
export class CloudHypervisorMigration implements VmmMigration, Disposable {
  readonly #parts: Parts;
  #sender: MoveSender | undefined;
  #receiver: MoveReceiver | undefined;
  /** It has ended, for the VMM: the machine is as it was, or gone. */
  #ended = Promise.withResolvers<void>();

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  /** While a machine comes the VMM answers nobody. */
  get isReceiving(): boolean {
    return this.#receiver?.isBusy === true;
  }

  hear({ source, event }: MonitorEvent): void {
    if (source !== "vm") return;
    if (event === "paused") this.#sender?.hearPaused();
    if (event === "migration-receive-ready") this.#receiver?.hearReady();
    if (event === "migration-memory-iteration") this.#sender?.hearRound();
    if (event === "migration-failed") this.#sender?.hearFailed();
    if (event === "migration-failed" || event === "migration-finished") this.#ended.resolve();
  }

  async send(route: SendRoute): Promise<void> {
    await this.abandon();
    this.#ended = Promise.withResolvers();
    const sender = new MoveSender(this.#parts, route);
    this.#sender = sender;
    await sender.run();
    // From here on its VMM must not let it run when we are gone, and it would: its guest ran.
    const { files, loop, process } = this.#parts;
    if (sender.wasRunning) await stopProcess(loop, process(), files.control + STOPPED_SUFFIX);
  }

  async abandon(): Promise<void> {
    const sender = this.#sender;
    this.#sender = undefined;
    if (sender === undefined) return;
    sender[Symbol.dispose]();
    if (!sender.isOrdered) return;
    const { loop, limits } = this.#parts;
    const time = limits.abandonTime;
    const late = Promise.withResolvers<never>();
    using _timer = loop.wakeAfter(time, () => {
      const waited = `cloud-hypervisor was waited for ${formatDuration(time)}`;
      late.reject(new VmmUnreachable(`${waited} to give its migration up`));
    });
    await Promise.race([this.#ended.promise, late.promise]);
  }

  async receive(route: ReceiveRoute): Promise<MigrationArrival> {
    this.#parts.prepare();
    const receiver = new MoveReceiver(this.#parts);
    this.#receiver = receiver;
    try {
      return await receiver.begin(route);
    } catch (error) {
      receiver[Symbol.dispose]();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#sender?.[Symbol.dispose]();
    this.#receiver?.[Symbol.dispose]();
  }
}
