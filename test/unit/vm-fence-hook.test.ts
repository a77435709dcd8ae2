/** The program that cuts power: 0 is the only proof, and everything else says why it is none. */
import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, writeFileSync } from "node:fs";
import { runFenceHook } from "../../src/vm/perform/fence-hook.ts";
import { testEventLoop } from "../support/event-loop.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

setDefaultTimeout(60_000);

const folder = temporaryFolder();
const loop = testEventLoop();
afterAll(() => {
  loop[Symbol.dispose]();
  folder[Symbol.dispose]();
});

let scripts = 0;

async function run(text: string, timeLimit = 30_000): Promise<string | undefined> {
  scripts += 1;
  const path = folder.file(`hook-${scripts}`);
  writeFileSync(path, `#!/bin/sh\n${text}\n`);
  chmodSync(path, 0o700);
  const plan = { command: [path, "a word", "$HOME"], timeLimit };
  return await runFenceHook(loop, plan, { worker: "rack-1", boot: null });
}

test("0 is proof", async () => {
  expect(await run("echo it is off")).toBeUndefined();
});

test("its words are its own: there is no shell", async () => {
  expect(await run('test "$#" = 3 && test "$2" = \'$HOME\' && test "$3" = rack-1')).toBeUndefined();
  expect(await run('test "$HOSTLER_WORKER" = rack-1 && test -z "$HOSTLER_BOOT"')).toBeUndefined();
});

test("anything else is none, with the last line that it said", async () => {
  expect(await run("echo first; echo no route >&2; exit 4")).toBe(
    "it ended with exit status 4: no route",
  );
  expect(await run("kill -9 $$")).toBe("it ended with signal 9");
  expect(await run("head -c 100000 /dev/zero | tr '\\0' x; exit 1")).toContain("exit status 1");
});

test("one that takes too long is killed, with what it began", async () => {
  const failure = await run("cat /dev/zero >/dev/null & wait", 300);
  expect(failure).toBe("it was killed, because it took longer than 300 ms");
});

test("one that is not there is no proof", async () => {
  const plan = { command: [folder.file("nowhere")], timeLimit: 1_000 };
  const failure = await runFenceHook(loop, plan, { worker: "rack-1", boot: null });
  expect(failure).toContain("Cannot start");
});
