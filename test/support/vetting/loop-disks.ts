/** Disks of a test's own: files behind loop devices, and a host's files that tell of them. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { HostTree } from "../../../src/hardware/host-tree.ts";
import { type Feature, feature, program, root } from "../skips.ts";
import { temporaryFolder } from "../temporary-folder.ts";

/** What these disks need of a machine. */
export const loopDevices: readonly Feature[] = [
  root,
  program("losetup", "mount"),
  feature(
    "no loop devices",
    () => statSync("/dev/loop-control", { throwIfNoEntry: false }) !== undefined,
  ),
];

const systemPath = process.env["PATH"];

export interface LoopOptions {
  readonly serial: string;
  readonly size: number;
  readonly readOnly?: boolean;
  readonly sector?: number;
}

export class LoopDisk implements Disposable {
  /** "/dev/loop3" */
  readonly device: string;
  readonly file: string;
  readonly size: number;
  readonly serial: string;

  constructor(file: string, { serial, size, readOnly = false, sector = 512 }: LoopOptions) {
    this.file = file;
    this.size = size;
    this.serial = serial;
    const made = openSync(file, "w");
    ftruncateSync(made, size);
    closeSync(made);
    const words = ["--find", "--show", "--sector-size", `${sector}`];
    this.device = run("losetup", [...words, ...(readOnly ? ["--read-only"] : []), file]);
  }

  /** Of all its bytes. */
  digest(): string {
    return createHash("sha256").update(readFileSync(this.file)).digest("hex");
  }

  /** The file gets shorter, and the device does not: what is behind its end cannot be read. */
  cut(size: number): void {
    const file = openSync(this.file, "r+");
    ftruncateSync(file, size);
    closeSync(file);
  }

  [Symbol.dispose](): void {
    run("losetup", ["--detach", this.device]);
    rmSync(this.file, { force: true });
  }
}

/** A host that has these disks, by the names that a test gives them, and nothing else. */
export class DiskHost implements Disposable {
  readonly #folder = temporaryFolder();
  readonly #disks: LoopDisk[] = [];

  constructor() {
    this.write("proc/cmdline", "console=ttyS0");
    this.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority");
    this.write("proc/self/mountinfo", readFileSync("/proc/self/mountinfo", "utf8"));
  }

  get tree(): HostTree {
    return new HostTree(this.#folder.path);
  }

  path(path: string): string {
    return join(this.#folder.path, path);
  }

  write(path: string, content: string): void {
    mkdirSync(dirname(this.path(path)), { recursive: true });
    writeFileSync(this.path(path), content);
  }

  add(name: string, options: LoopOptions): LoopDisk {
    const disk = new LoopDisk(this.path(`${name}-${this.#disks.length}.img`), options);
    this.#disks.push(disk);
    this.name(name, disk, options);
    return disk;
  }

  /** The kernel's name for it, now. */
  name(name: string, disk: LoopDisk, options: Partial<LoopOptions> = {}): void {
    const { rdev } = statSync(disk.device);
    const serial = options.serial ?? disk.serial;
    const at = `sys/block/${name}`;
    rmSync(this.path(at), { recursive: true, force: true });
    this.write(`${at}/dev`, `${rdev >> 8}:${rdev & 0xff}`);
    this.write(`${at}/size`, `${disk.size / 512}`);
    this.write(`${at}/serial`, serial);
    this.write(`${at}/ro`, options.readOnly === true ? "1" : "0");
    this.write(`${at}/removable`, "0");
    mkdirSync(this.path("dev"), { recursive: true });
    rmSync(this.path(`dev/${name}`), { force: true });
    symlinkSync(disk.device, this.path(`dev/${name}`));
  }

  [Symbol.dispose](): void {
    for (const disk of this.#disks) disk[Symbol.dispose]();
    this.#folder[Symbol.dispose]();
  }
}

/** @returns what it printed */
export function run(command: string, words: readonly string[]): string {
  // The test may have a path of its own, for what it tests.
  const env = { ...process.env, PATH: systemPath };
  const { status, stdout, stderr } = spawnSync(command, [...words], { encoding: "utf8", env });
  if (status !== 0) throw new Error(`${command} ${words.join(" ")}: ${stderr}`);
  return stdout.trim();
}
