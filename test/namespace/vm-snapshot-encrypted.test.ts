/** Encrypted snapshots of the compiled worker with QEMU, and the keys of the command line. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import type { SnapshotSummary } from "../../src/vm/protocol.ts";
import { hostler } from "../support/binary.ts";
import { runProgram } from "../support/program.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { type TestImage, VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

let host: VmHost;
let image: TestImage;

beforeEach(async () => {
  host = await VmHost.make();
  image = await host.image();
});
afterEach(() => host[Symbol.asyncDispose]());

const needs = [root, program("qemu-system-x86_64", "qemu-system-x86"), program("ip", "iproute2")];
const storedChunk = 64 * 1024;
const fileOf = (name: string) => join(host.artifacts, "snapshots/web/nightly", name);

async function refused(...words: readonly string[]): Promise<string> {
  const { exitCode, stdout, stderr } = await host.run(...words);
  expect({ stdout, isRefused: exitCode !== 0 }).toEqual({ stdout: "", isRefused: true });
  return stderr;
}

/** Makes a pair of keys; no worker is asked for it. */
async function makeKeys(path: string): Promise<void> {
  const made = await runProgram([hostler(), "vm", "snapshot-key", path]);
  expect(made).toMatchObject({ exitCode: 0, stderr: "" });
}

/** Nothing was made of it. */
async function expectNoMachine(): Promise<void> {
  expect(await host.say("list", "--json")).toBe("[]\n");
  expect(host.vmmProcesses()).toEqual([]);
  expect(host.kept().machines).toEqual([]);
}

/** Changes bytes of a file in their place. @returns what puts them back */
function change(path: string, position: number, bytes: Uint8Array): () => void {
  const file = openSync(path, "r+");
  const before = new Uint8Array(bytes.length);
  readSync(file, before, 0, before.length, position);
  const put = (what: Uint8Array) => writeSync(file, what, 0, what.length, position);
  put(bytes);
  return () => {
    put(before);
    closeSync(file);
  };
}

function chunkAt(path: string, index: number): Uint8Array {
  const file = openSync(path, "r");
  const bytes = new Uint8Array(storedChunk);
  readSync(file, bytes, 0, storedChunk, index * storedChunk);
  closeSync(file);
  return bytes;
}

/** Chunks of a file that are no holes. */
function fullChunks(path: string): number[] {
  const count = Math.ceil(statSync(path).size / storedChunk);
  const indexes = Array.from({ length: count }, (_value, index) => index);
  return indexes.filter((index) => chunkAt(path, index).some((byte) => byte !== 0));
}

/** The machine has counted, was written, encrypted, and is no more. @returns what it had counted */
async function makeSnapshot(): Promise<number> {
  await host.start();
  await host.say("create", "web", "--image", image.path, "--hash", image.hash, "--start");
  await host.counts("web");
  await makeKeys(host.folder.file("backup"));
  const made = ["--encrypt-to", host.folder.file("backup.pub")];
  expect(await host.say("snapshot", "web", "nightly", ...made)).toContain("nightly made");
  const counted = host.numbers("web").at(-1) ?? 0;
  await host.counts("web");
  await host.say("delete", "web", "--now", "--wait");
  return counted;
}

skipUnless("encrypted snapshots with QEMU", needs, () => {
  test("a machine is made of one by its key, and nothing of it can be read without", async () => {
    const counted = await makeSnapshot();
    const [line] = JSON.parse(await host.say("snapshot", "--list", "--json")) as SnapshotSummary[];
    const publicKey = readFileSync(host.folder.file("backup.pub"), "utf8").trim().split(" ").at(-1);
    expect(line).toMatchObject({ snapshot: "nightly", encrypted_to: publicKey ?? "" });
    expect(await host.say("snapshot", "--list")).toMatch(/ENCRYPTED\n.*yes\n/);
    const files = readdirSync(fileOf("."));
    for (const name of files) expect(statSync(fileOf(name)).mode & 0o777).toBe(0o600);
    // What a plain memory has in it: the guest's own program.
    const guest = readFileSync(join(image.path, "vmlinux"));
    const code = guest.subarray(guest.length - 64);
    for (const name of files) expect(readFileSync(fileOf(name)).includes(code)).toBe(false);

    expect(await refused("restore", "web", "nightly")).toContain("by --key FILE");
    await makeKeys(host.folder.file("other"));
    const other = await refused("restore", "web", "nightly", "--key", host.folder.file("other"));
    expect(other).toContain(`expected the secret key of ${publicKey}, received that of`);
    await expectNoMachine();

    const key = ["--key", host.folder.file("backup")];
    expect(await host.say("restore", "web", "nightly", ...key)).toStartWith("web: running");
    await host.counts("web");
    const numbers = host.numbers("web");
    const [first = 0] = numbers;
    expect(first).toBeGreaterThan(1);
    expect(first).toBeLessThanOrEqual(counted + 1);
    expect(numbers).toEqual(numbers.map((_number, index) => first + index));
  });

  test("what was changed in one is refused, and nothing is made of it", async () => {
    await makeSnapshot();
    const key = ["--key", host.folder.file("backup")];
    const restore = () => refused("restore", "web", "nightly", ...key);
    const memory = fileOf("memory-0");
    const [one = 0, another = 0] = fullChunks(memory);
    expect(another).toBeGreaterThan(one);
    const [first, second] = [chunkAt(memory, one), chunkAt(memory, another)];
    const position = one * storedChunk;

    const flipped = Uint8Array.of((first[100] ?? 0) ^ 1);
    const undoByte = change(memory, position + 100, flipped);
    expect(await restore()).toContain(`expected chunk ${one + 1} of`);
    undoByte();

    const undoFirst = change(memory, position, second);
    const undoSecond = change(memory, another * storedChunk, first);
    expect(await restore()).toContain(`expected chunk ${one + 1} of`);
    undoSecond();
    undoFirst();

    const undoHole = change(memory, position, new Uint8Array(storedChunk));
    expect(await restore()).toContain("it was changed after it was made");
    undoHole();

    const manifest = readFileSync(fileOf("manifest.json"), "utf8");
    writeFileSync(fileOf("manifest.json"), manifest.replace('"running"', '"paused"'));
    expect(await restore()).toContain("expected the manifest that was encrypted with its files");
    writeFileSync(fileOf("manifest.json"), manifest);

    const { size } = statSync(memory);
    truncateSync(memory, size - storedChunk);
    expect(await restore()).toContain(`expected ${size} bytes`);
    await expectNoMachine();
    expect(host.said).not.toContain("bug");
  });

  test("a plain one is refused where a key is given, and keys that cannot be used", async () => {
    await host.start();
    await host.say("create", "web", "--image", image.path, "--hash", image.hash, "--start");
    await makeKeys(host.folder.file("backup"));
    const secret = host.folder.file("backup");
    expect(statSync(secret).mode & 0o777).toBe(0o600);
    const again = await runProgram([hostler(), "vm", "snapshot-key", secret]);
    expect(again).toMatchObject({ exitCode: 100, stdout: "" });
    // What is there is a key, and nothing to be removed.
    expect(again.stderr).toMatch(/backup\.pub: expected nothing there.* It is left as it is/);
    const missing = await refused("snapshot", "web", "nightly", "--encrypt-to", `${secret}.no`);
    expect(missing).toContain("expected a file there, received nothing");
    const toSecret = await refused("snapshot", "web", "nightly", "--encrypt-to", secret);
    expect(toSecret).toContain("received a secret key");
    const toNone = await refused("snapshot", "web", "nightly", "--encrypt-to", "/dev/null");
    expect(toNone).toContain("received something else");
    await host.say("snapshot", "web", "nightly");
    await host.say("delete", "web", "--now", "--wait");
    const plain = await refused("restore", "web", "nightly", "--key", secret);
    expect(plain).toContain("expected one that is encrypted, as a key was given");
    chmodSync(secret, 0o640);
    const open = await refused("restore", "web", "nightly", "--key", secret);
    expect(open).toContain("received the mode 0640");
    await expectNoMachine();
    await host.say("restore", "web", "nightly");
    await waitFor("it to count", () => host.numbers("web").length > 0);
  });
});
