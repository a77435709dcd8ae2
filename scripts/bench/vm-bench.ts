/** What the measures of `run bench vm` share: the programs, a host of their own, its machines. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hashPath } from "../../src/image/nar.ts";
import type { WorkerClient } from "../../src/vm/client.ts";
import type { VmSpec } from "../../src/vm/protocol.ts";
import type { TestImage, VmHost } from "../../test/support/vm-worker.ts";
import { ScriptError } from "../terminal.ts";
import { makeTestGuest } from "../test-guest.ts";

const MEBIBYTE = 1024 ** 2;
/** Bytes of memory of every machine of the bench. */
export const guestMemory: number = 32 * MEBIBYTE;
/** Turns of the guest between two numbers: some tens a second, or thousands. */
const pauses = { slow: 3_000_000, fast: 20_000 } as const;

export interface VmFiles {
  /** A folder of this run, removed after it. */
  readonly folder: string;
  /** The compiled file under measurement. */
  readonly hostler: string;
  /** vm-floor.c, compiled. */
  readonly floor: string;
}

export interface VmBench {
  readonly files: VmFiles;
  readonly chance: () => number;
  readonly quick: boolean;
}

/** An image with the guest that counts, beside the host's other files. */
export async function makeImage(host: VmHost, guest: keyof typeof pauses): Promise<TestImage> {
  const path = host.folder.file(`image-${guest}`);
  mkdirSync(path);
  writeFileSync(join(path, "vmlinux"), makeTestGuest({ pause: pauses[guest] }));
  const configuration = {
    payload: { kernel: "vmlinux", cmdline: "" },
    cpus: { boot_vcpus: 1 },
    memory: { size: guestMemory, shared: true },
    serial: { mode: "Socket" },
  };
  writeFileSync(join(path, "vm-config.json"), JSON.stringify(configuration));
  return { path, hash: await hashPath(path) };
}

export const specOf = (name: string, image: TestImage): VmSpec => ({
  name,
  imagePath: image.path,
  hash: image.hash,
});

/** Makes a machine, and waits until it is so. */
export async function make(
  client: WorkerClient,
  spec: VmSpec,
  wanted: "created" | "running",
): Promise<void> {
  await client.create(spec, wanted);
  await client.wait(spec.name, wanted);
}

/** Ends a machine without asking its guest, and waits until nothing of it is left. */
export async function remove(client: WorkerClient, name: string): Promise<void> {
  await client.change("delete", name, { now: true });
  await client.wait(name, "removed");
}

/** The numbers after a word of an output, as in "took 512345 4711". @throws ScriptError (1) */
export function numbersAfter(word: "took" | "at", output: string): number[] {
  const match = new RegExp(`^${word}((?: \\d+)+)$`, "m").exec(output);
  if (match === null) {
    throw new ScriptError(`Expected "${word}" and a number, received: ${output.trimEnd()}`, {
      exitCode: 1,
    });
  }
  return (match[1] ?? "").trim().split(" ").map(Number);
}

/** The same of one number that is nanoseconds: milliseconds. */
export const millisecondsAfter = (word: "took" | "at", output: string): number =>
  (numbersAfter(word, output)[0] ?? Number.NaN) / 1_000_000;
