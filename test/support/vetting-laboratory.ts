/**
 * The laboratory of vetting: the real live image in an emulated host with disks, cards, a
 * management controller and firmware that keeps what a crash said.
 * QEMU's own network leads to this machine.
 */
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { packArchive } from "../../scripts/guest/initramfs.ts";
import { type LiveImage, makeLiveImage } from "../../scripts/live-image.ts";
import { cacheFolder } from "../../scripts/setup.ts";
import { healthySensors } from "../../src/vetting/prove/faults.ts";
import {
  type GuestChange,
  type GuestFiles,
  guestCards,
  guestDiskBytes,
  guestObjects,
  guestWords,
} from "../../src/vetting/prove/guest.ts";
import { type CompactSensor, makeSensorRecords } from "../../src/vetting/prove/sensor-records.ts";
import { hostler } from "./binary.ts";
import { type Program, startProgram } from "./program.ts";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.ts";
import { waitFor } from "./wait-for.ts";

/**
 * For one host, from its switch to the end of its run. A processor is emulated, on a machine that
 * may have much else to do: a minute and a half where it has not, five where it has.
 */
export const laboratoryPatience = 10 * 60_000;
const memoryMebibytes = 1_536;

/**
 * The live image of this build, which is made once and kept while the file is the same.
 * @param options.tools with Debian's tools
 */
export async function laboratoryImage({ tools = false } = {}): Promise<LiveImage> {
  const folder = cacheFolder(tools ? "vetting-laboratory-tools" : "vetting-laboratory");
  // Unpacked: an emulated processor takes longer to unpack it than it takes to be read.
  return await makeLiveImage({ folder, program: hostler(), packing: "none", tools });
}

export interface LaboratoryOptions {
  readonly image: LiveImage;
  readonly kernelWords?: readonly string[];
  /** Of the card that it boots from. */
  readonly mac?: string;
  readonly change?: GuestChange;
  readonly sensors?: readonly CompactSensor[];
  /** Scripts of a shell that the image runs before its agent. */
  readonly scripts?: Readonly<Record<string, string>>;
}

/** One host. Its disks and its firmware's memory last over power cuts. */
export class LaboratoryHost implements AsyncDisposable {
  readonly #folder: TemporaryFolder = temporaryFolder();
  readonly #options: LaboratoryOptions;
  readonly #files: GuestFiles;
  #machine: Program | undefined;

  constructor(options: LaboratoryOptions) {
    this.#options = options;
    const file = (name: string) => this.#folder.file(name);
    this.#files = {
      kernel: options.image.kernel,
      initramfs: options.scripts === undefined ? options.image.initramfs : file("initramfs"),
      nvme: file("nvme"),
      sata: file("sata"),
      errorRecords: file("records"),
      sensorRecords: file("sensors"),
      qmpSocket: file("qmp"),
    };
    for (const path of [this.#files.nvme, this.#files.sata]) makeEmpty(path, guestDiskBytes);
    makeEmpty(this.#files.errorRecords, guestObjects.errorRecordBytes);
    writeFileSync(this.#files.sensorRecords, makeSensorRecords(options.sensors ?? healthySensors));
    if (options.scripts !== undefined) this.#addScripts(options.scripts);
  }

  /** An archive behind the image's: what is in it goes over what was there. */
  #addScripts(scripts: Readonly<Record<string, string>>): void {
    copyFileSync(this.#options.image.initramfs, this.#files.initramfs);
    const entries = Object.entries(scripts).map(([name, text]) => ({
      kind: "file" as const,
      path: `etc/live.d/${name}`,
      content: new TextEncoder().encode(`#!/bin/sh\n${text}\n`),
      mode: 0o755,
    }));
    for (const piece of packArchive(entries)) appendFileSync(this.#files.initramfs, piece);
  }

  /** Returns when QEMU takes commands; what it boots into is told on its console. */
  async boot(kernelWords: readonly string[] = this.#options.kernelWords ?? []): Promise<Program> {
    rmSync(this.#files.qmpSocket, { force: true });
    const words = guestWords({
      files: this.#files,
      kernelWords,
      mac: this.#options.mac ?? guestCards.first,
      change: this.#options.change ?? {},
      memoryMebibytes,
    });
    this.#machine = startProgram(["qemu-system-x86_64", ...words]);
    await waitFor("QEMU's socket", () => existsSync(this.#files.qmpSocket));
    return this.#machine;
  }

  get #running(): Program {
    if (this.#machine === undefined) throw new Error("The host has no power");
    return this.#machine;
  }

  /** What it said in this boot. */
  get console(): string {
    return this.#running.output.stdout.replaceAll("\r", "");
  }

  /** @throws DeadlineError with all that it said */
  async said(pattern: RegExp): Promise<RegExpExecArray> {
    return await this.#running.said(pattern, laboratoryPatience);
  }

  /** One command of QMP. @throws Error when QEMU refuses it */
  async command(execute: string, words: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    return await askQemu(this.#files.qmpSocket, execute, words);
  }

  /** At once: nothing in it hears of it. */
  async cutPower(): Promise<void> {
    this.#running.kill("SIGKILL");
    await this.#running.ended();
    this.#machine = undefined;
  }

  /** Returns when it has switched itself off, and fails when it was reset instead. */
  async switchedOff(): Promise<void> {
    await this.#running.ended(laboratoryPatience);
    this.#machine = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#machine !== undefined) await this.cutPower();
    this.#folder[Symbol.dispose]();
  }
}

function makeEmpty(path: string, bytes: number): void {
  writeFileSync(path, "");
  truncateSync(path, bytes);
}

/** A connection for one command: QEMU serves one client at a time. */
async function askQemu(
  path: string,
  execute: string,
  words: Readonly<Record<string, unknown>>,
): Promise<unknown> {
  const answer = Promise.withResolvers<unknown>();
  let heard = "";
  const socket = connect(path);
  socket.on("error", answer.reject);
  socket.on("close", () => answer.reject(new Error(`QEMU did not answer ${execute}`)));
  socket.on("data", (bytes) => {
    heard += bytes.toString();
    for (const line of heard.split("\n").slice(0, -1)) {
      const message: Record<string, unknown> = JSON.parse(line);
      if (message["id"] !== 2 && !("error" in message)) continue;
      if ("error" in message) answer.reject(new Error(JSON.stringify(message["error"])));
      answer.resolve(message["return"]);
    }
  });
  const say = (command: string, id: number, rest: object) =>
    socket.write(`${JSON.stringify({ execute: command, id, arguments: rest })}\n`);
  say("qmp_capabilities", 1, {});
  say(execute, 2, words);
  try {
    return await answer.promise;
  } finally {
    socket.destroy();
  }
}
