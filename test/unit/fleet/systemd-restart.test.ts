/** How the agent's unit is restarted by itself, with a systemctl of the test's own. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { chmodSync, writeFileSync } from "node:fs";
import { ExecutorRefused } from "../../../src/fleet/executor.ts";
import { SystemdExecutor } from "../../../src/fleet/perform/systemd.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";

const path = process.env["PATH"] ?? "";
let folder: TemporaryFolder;

beforeEach(() => {
  folder = temporaryFolder();
  process.env["PATH"] = `${folder.path}:${path}`;
});

afterEach(() => {
  process.env["PATH"] = path;
  folder[Symbol.dispose]();
});

/** @returns why it was refused; undefined when it was not */
async function restart(systemctl: string): Promise<unknown> {
  const file = folder.file("systemctl");
  writeFileSync(file, `#!/bin/sh\n${systemctl}\n`);
  chmodSync(file, 0o755);
  using loop = testEventLoop();
  return await new SystemdExecutor(loop, folder.file("notes")).restartCanonical().catch((e) => e);
}

test("a systemctl that its own restart has ended has done it", async () => {
  expect(await restart("kill -TERM $$")).toBeUndefined();
  expect(await restart("exit 0")).toBeUndefined();
});

test("what fails, or is killed, is a refusal", async () => {
  expect(await restart("echo no such unit >&2; exit 5")).toBeInstanceOf(ExecutorRefused);
  expect(await restart("kill -KILL $$")).toBeInstanceOf(ExecutorRefused);
});
