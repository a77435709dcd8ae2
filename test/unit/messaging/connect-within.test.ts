/** Connecting to whoever was just started: when it listens, when it never does, when it is off. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import type { EventLoop } from "../../../src/event-loop/event-loop.ts";
import { connectWithin } from "../../../src/messaging/connect-within.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";

let loop: EventLoop;
let folder: TemporaryFolder;
beforeEach(() => {
  loop = testEventLoop();
  folder = temporaryFolder();
});
afterEach(() => {
  folder[Symbol.dispose]();
  loop[Symbol.dispose]();
});

const never = new AbortController().signal;
const listenAt = (path: string) => Bun.listen({ unix: path, socket: { data: () => {} } });

test("a listener that comes later is connected to", async () => {
  const path = folder.file("socket");
  const asked = connectWithin(loop, path, { limit: 10_000, signal: never });
  using _listener = listenAt(path);
  const connected = await asked;
  if (connected.kind === "failed") throw new Error(connected.reason);
  connected.socket.close();
});

test("a path whose listener is dead is tried until the limit", async () => {
  const path = folder.file("socket");
  writeFileSync(path, "");
  const failed = { kind: "failed", reason: expect.stringContaining("Connection refused") } as const;
  expect(await connectWithin(loop, path, { limit: 10, signal: never })).toEqual(failed);
});

test("what no time can mend is told at once", async () => {
  writeFileSync(folder.file("file"), "");
  const path = folder.file("file/socket");
  const failed = { kind: "failed", reason: expect.stringContaining("Not a directory") } as const;
  expect(await connectWithin(loop, path, { limit: 1_000_000, signal: never })).toEqual(failed);
});

test("it can be called off, before and meanwhile", async () => {
  const path = folder.file("socket");
  const abort = new AbortController();
  const asked = connectWithin(loop, path, { limit: 1_000_000, signal: abort.signal });
  abort.abort();
  const failed = { kind: "failed", reason: "it was called off" } as const;
  expect(await asked).toEqual(failed);
  const again = connectWithin(loop, path, { limit: 1_000_000, signal: abort.signal });
  expect(await again).toEqual(failed);
});
