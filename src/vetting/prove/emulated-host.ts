import { mkdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { QmpClient, qmpLimits } from "../../hypervisor/qemu/qmp.ts";
import { Companion } from "./companion.ts";
import type { Injection } from "./faults.ts";
import {
  type GuestChange,
  type GuestFiles,
  guestDiskBytes,
  guestObjects,
  guestWords,
} from "./guest.ts";
import { type CompactSensor, makeSensorRecords } from "./sensor-records.ts";

export interface EmulatedHostOptions {
  /** Of its own; its disks and sockets are made there. */
  readonly folder: string;
  readonly qemu: string;
  readonly image: Pick<GuestFiles, "kernel" | "initramfs">;
  readonly mac: string;
  readonly kernelWords: readonly string[];
  readonly change: GuestChange;
  readonly sensors: readonly CompactSensor[];
  readonly memoryMebibytes: number;
  /** Its console, as it comes. */
  readonly onConsole?: (text: string) => void;
}

/** A host in QEMU that boots the live image, and can be hurt. */
export class EmulatedHost implements AsyncDisposable {
  readonly #machine: Companion;
  readonly #qmp: QmpClient;

  private constructor(machine: Companion, qmp: QmpClient) {
    this.#machine = machine;
    this.#qmp = qmp;
  }

  /** Returns when QEMU takes commands. @throws CompanionFailed, VmmUnreachable */
  static async start(loop: EventLoop, options: EmulatedHostOptions): Promise<EmulatedHost> {
    mkdirSync(options.folder, { recursive: true });
    const file = (name: string) => join(options.folder, name);
    const files: GuestFiles = {
      ...options.image,
      nvme: file("nvme"),
      sata: file("sata"),
      errorRecords: file("records"),
      sensorRecords: file("sensors"),
      qmpSocket: file("qmp"),
    };
    for (const path of [files.nvme, files.sata]) makeEmpty(path, guestDiskBytes);
    makeEmpty(files.errorRecords, guestObjects.errorRecordBytes);
    writeFileSync(files.sensorRecords, makeSensorRecords(options.sensors));
    const words = guestWords({ ...options, files });
    await using owned = new AsyncDisposableStack();
    const argv = [options.qemu, ...words];
    const machine = owned.use(
      Companion.start(loop, "QEMU", {
        argv,
        ...(options.onConsole !== undefined && { onText: options.onConsole }),
      }),
    );
    const nobody = { onEvent: () => {}, onLost: () => {} };
    const { signal } = new AbortController();
    const connection = { ...nobody, limits: qmpLimits, signal };
    const { client } = await QmpClient.connect(loop, files.qmpSocket, connection);
    owned.move();
    return new EmulatedHost(machine, client);
  }

  get isGone(): boolean {
    return this.#machine.isEnded;
  }

  lastWords(): string {
    return this.#machine.lastWords();
  }

  /** @throws VmmRefused, VmmUnreachable */
  async inject({ command, words }: Injection): Promise<void> {
    await this.#qmp.execute(command, words);
  }

  /** At once, as by a power cut. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#qmp.close();
    await this.#machine[Symbol.asyncDispose]();
  }
}

function makeEmpty(path: string, bytes: number): void {
  writeFileSync(path, "");
  truncateSync(path, bytes);
}
