/**
 * One device of the demo: a container of its own, whose first process is the supervisor, with an
 * installation that lasts. Its power goes when its first process is killed: the kernel ends all
 * others of its namespace in the same moment.
 */
import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { linked } from "../../../src/fleet/layout.ts";
import { readLayout } from "../../../src/fleet/perform/layout-files.ts";
import { NotSeen } from "../deadline.ts";
import { onlyChildOf, processesWith } from "../kernel.ts";
import type { Namespaces } from "../namespaces.ts";
import { Program } from "../program.ts";

export interface DevicePlace {
  /** Of all devices; each has its own in it. */
  readonly folder: string;
  /** The demo's. */
  readonly namespaces: Namespaces;
  /** The version that it was delivered with. */
  readonly program: string;
}

const script = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"';

export class Device {
  readonly name: string;
  readonly folder: string;
  readonly #place: DevicePlace;
  readonly #boots: Program[] = [];

  constructor(name: string, place: DevicePlace) {
    this.name = name;
    this.#place = place;
    this.folder = join(place.folder, name);
    mkdirSync(this.folder);
  }

  get installation(): string {
    return join(this.folder, "opt");
  }

  get identity(): string {
    return join(this.folder, "identity");
  }

  /** Its supervisor's words. */
  get words(): string[] {
    const socket = ["--control-socket", join(this.folder, "supervise.sock"), "--volatile"];
    const words = ["fleet", "supervise", "--folder", this.installation, ...socket];
    return [...words, "--", "--identity", this.identity];
  }

  /** In a boot with an id of its own. */
  boot(): void {
    const { namespaces, program } = this.#place;
    const file = join(this.folder, "boot-id");
    writeFileSync(file, `${randomUUID()}\n`);
    const own = ["--pid", "--fork", "--mount", "--mount-proc", "--ipc", "--kill-child"];
    const argv = ["unshare", ...own, "sh", "-c", script, file, program, ...this.words];
    this.#boots.push(new Program(this.name, [...namespaces.enter, ...argv]));
  }

  get #running(): Program {
    const running = this.#boots.at(-1);
    if (running === undefined) throw new NotSeen(`${this.name} was never started`);
    return running;
  }

  /** In this boot. */
  async said(pattern: RegExp, milliseconds?: number): Promise<void> {
    await this.#running.said(pattern, 0, milliseconds);
  }

  /** The processes in it, as the host numbers them; the first is the supervisor. */
  get processes(): number[] {
    // nsenter has forked into the demo's namespace, and unshare there into the device's.
    const first = onlyChildOf(onlyChildOf(this.#running.processId));
    return [first, ...processesWith("pid", first).filter((one) => one !== first)];
  }

  /** kill -9 of everything in it at once. @returns how many were there, and how many still are */
  async cutPower(): Promise<{ readonly before: number; readonly after: number }> {
    const processes = this.processes;
    const [first = 0] = processes;
    process.kill(first, "SIGKILL");
    await this.#running.ended();
    const left = processes.filter((one) => existsSync(`/proc/${one}`));
    return { before: processes.length, after: left.length };
  }

  /** "0.2.0-0123456789ab": what `current` leads to. */
  get current(): string {
    return linked(readLayout(this.installation), "current") ?? "nothing";
  }

  /** Versions, with what has proven itself on this device. */
  get proven(): string[] {
    const { versions } = readLayout(this.installation);
    return versions.flatMap(({ name, isProven }) => (isProven ? [name] : []));
  }

  get lines(): readonly string[] {
    return this.#boots.flatMap(({ lines }) => lines);
  }

  kill(): void {
    this.#boots.at(-1)?.kill("SIGKILL");
  }
}
