/** `hold`: files are carried through memory, with all that is known of them. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { Host } from "../support/carrying.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

let host: Host;
let folder: string;

beforeEach(async () => {
  host = await Host.start();
  folder = host.folder.file("held");
  makeTree();
});

afterEach(async () => {
  await host[Symbol.asyncDispose]();
});

/** Bytes that no two places share. */
function pattern(size: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(size);
  let state = seed;
  for (let at = 0; at < size; at++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes[at] = state >>> 24;
  }
  return bytes;
}

function makeTree(): void {
  mkdirSync(join(folder, "inner/deeper"), { recursive: true });
  writeFileSync(join(folder, "large"), pattern(3 * 1024 * 1024 + 17, 1));
  writeFileSync(join(folder, "empty"), "");
  writeFileSync(join(folder, "inner/größe 1"), pattern(70_000, 2));
  writeFileSync(join(folder, "inner/deeper/program"), "#!/bin/sh\n");
  chownSync(join(folder, "inner/größe 1"), 1234, 4321);
  chownSync(join(folder, "inner/deeper"), 77, 78);
  chownSync(join(folder, "inner/deeper/program"), 5, 6);
  chmodSync(join(folder, "inner/deeper/program"), 0o4751);
  chmodSync(join(folder, "inner"), 0o2750);
  const paths = readdirSync(folder, { recursive: true, encoding: "utf8" });
  const sorted = [...paths].toSorted().toReversed();
  for (const [index, path] of sorted.entries()) {
    utimesSync(join(folder, path), 1_000_000_000 + index, 1_100_000_000.25 + index);
  }
}

/** All that is to be restored, of a folder or a file. */
function describeTree(path: string): string[] {
  const stats = lstatSync(path, { bigint: true });
  const { mode, uid, gid, mtimeNs } = stats;
  const about = `${path} ${mode.toString(8)} ${uid}:${gid} ${mtimeNs}`;
  if (stats.isFile()) {
    return [`${about} ${createHash("sha256").update(readFileSync(path)).digest("hex")}`];
  }
  if (!stats.isDirectory()) return [about];
  const names = readdirSync(path).toSorted();
  return [about, ...names.flatMap((name) => describeTree(join(path, name)))];
}

const start = (
  words: readonly string[] = [folder],
  environment: Readonly<Record<string, string>> = {},
) => host.client("hold", ["--id", "state", ...words], environment);

/** Holds the tree, enters the next kernel, and takes the tree away; as it was before. */
async function carryTree(...words: readonly string[]): Promise<readonly string[]> {
  start([...words, folder]);
  await host.subscribed("state");
  const before = describeTree(folder);
  await host.enterNextKernel();
  rmSync(folder, { recursive: true });
  return before;
}

describe("through a kexec", () => {
  test("content, mode, owner and times; and it goes on holding", async () => {
    const before = await carryTree();
    const second = start();
    await second.said(/restored 4 files, 3.1 MiB/);
    await second.said(/the memory that carried them is free again/);
    expect(describeTree(folder)).toEqual([...before]);
    await waitFor("the end of all sessions", () => host.kernel.incoming.length === 0);
    await host.subscribed("state");
    await host.enterNextKernel();
    writeFileSync(join(folder, "large"), "something newer that is replaced");
    const third = await start(["--once", folder]).ended();
    expect(third).toMatchObject({ exitCode: 0 });
    expect(describeTree(folder)).toEqual([...before]);
  });

  test("single files, with JSON lines; --once ends when nothing waits", async () => {
    const path = join(folder, "empty");
    start([path]);
    await host.subscribed("state");
    await host.enterNextKernel();
    rmSync(folder, { recursive: true });
    const restored = await start(["--once", "--json", path]).ended();
    const words = restored.stdout.trim().split("\n");
    expect(words.map((line) => JSON.parse(line).what)).toEqual([
      "restores",
      "restored",
      "finished",
    ]);
    expect(readFileSync(path)).toHaveLength(0);
    const again = await start(["--once", path]).ended();
    expect(again).toMatchObject({ exitCode: 0 });
    expect(again.stdout).toContain("nothing is to be restored");
  });

  test("a path that is not named now is not written; its memory stays at luod", async () => {
    await carryTree();
    const other = join(host.folder.path, "other");
    const refused = await start(["--once", other]).ended();
    expect(refused.exitCode).toBe(111);
    expect(refused.stdout).toContain(`not among the paths now: ${folder}; ${folder}/empty`);
    expect(existsSync(folder)).toBe(false);
    expect((await start(["--once", other, folder]).ended()).exitCode).toBe(0);
    expect(existsSync(join(folder, "large"))).toBe(true);
  });

  test("what stands in the way of a folder is named, and the memory stays at luod", async () => {
    const before = await carryTree();
    mkdirSync(folder);
    writeFileSync(join(folder, "inner"), "");
    const refused = await start(["--once", folder]).ended();
    expect(refused.exitCode).toBe(111);
    expect(refused.stdout).toContain(`cannot restore ${folder}/inner: expected a folder there`);
    rmSync(join(folder, "inner"));
    expect((await start(["--once", folder]).ended()).exitCode).toBe(0);
    expect(describeTree(folder)).toEqual([...before]);
  });
});

describe("what cannot be carried", () => {
  test("a link and a socket are named, and abort; --skip-others goes without", async () => {
    const before = describeTree(join(folder, "inner"));
    symlinkSync("large", join(folder, "link"));
    using _socket = Bun.listen({ unix: join(folder, "socket"), socket: { data() {} } });
    const first = start();
    await host.subscribed("state");
    const { exitCode, stderr } = await host.beginKexec().ended();
    expect(exitCode).toBe(111);
    expect(stderr).toContain(`${folder}/link: a symbolic link; ${folder}/socket: a socket`);
    first.kill("SIGTERM");
    expect((await first.ended()).exitCode).toBe(0);
    await carryTree("--skip-others");
    expect((await start(["--once", folder]).ended()).exitCode).toBe(0);
    expect(describeTree(join(folder, "inner"))).toEqual(before);
    expect(existsSync(join(folder, "link"))).toBe(false);
  });

  test.each([
    ["a path that is not there", ["/no/such/path"], /\/no\/such\/path: ENOENT/],
    ["more than --limit", ["--limit", "1MiB"], /at most 1 MiB \(--limit\), received 3.1 MiB/],
  ])("%s", async (_name, words, reason) => {
    const hold = start([...words, folder]);
    await host.subscribed("state");
    const { exitCode, stderr } = await host.beginKexec().ended();
    expect(exitCode).toBe(111);
    expect(stderr).toMatch(reason);
    await hold.said(/the update ended/);
    await waitFor("the end of its session", () => host.kernel.outgoing.length === 0);
  });
});

test("a dry run says time and bytes, and leaves everything", async () => {
  const hold = start();
  await host.subscribed("state");
  const before = describeTree(folder);
  const { stdout } = await host.luoctl("kexec", "--dry-run");
  expect(stdout).toMatch(/state +ready +\S+ \S+ +3\.1 MiB/);
  await hold.said(/the update ended: it was a dry run; the files are as they are/);
  expect(describeTree(folder)).toEqual(before);
});

describe("hold is killed", () => {
  test.each(["taken", "preserved", "manifest", "ready"])(
    "before the kexec, after %s: the update is rolled back",
    async (step) => {
      const hold = start([folder], { HOSTLER_KILL_AT: `live-update:hold:${step}` });
      await host.subscribed("state");
      const socket = await Bun.connect({ unix: host.socket, socket: { data() {} } });
      socket.write(`${JSON.stringify({ cmd: "SUBSCRIBE", id: "slow" })}\n`);
      await host.subscribed("slow");
      const kexec = host.beginKexec();
      expect((await hold.ended()).signal).toBe("SIGKILL");
      expect((await kexec.ended()).exitCode).toBe(111);
      await waitFor("the end of its session", () => host.kernel.outgoing.length === 0);
    },
  );

  test.each(["claimed", "retrieved", "restored", "restored#2", "finished"])(
    "after the kexec, after %s: nothing is lost",
    async (step) => {
      const before = await carryTree();
      const environment = { HOSTLER_KILL_AT: `live-update:hold:${step}` };
      expect((await start([folder], environment).ended()).signal).toBe("SIGKILL");
      expect((await start(["--once", folder]).ended()).exitCode).toBe(0);
      expect(describeTree(folder)).toEqual([...before]);
    },
  );
});

test("without luod --once fails after its time", async () => {
  const words = ["--once", "--wait", "100ms", "--socket", host.folder.file("nobody.sock"), folder];
  const { exitCode, stdout } = await host.startProgram(["hold", "--id", "state", ...words]).ended();
  expect(exitCode).toBe(111);
  expect(stdout).toContain("nothing was restored: no answer of luod");
});
