/** Lines of JSON with descriptors: what one is, how long it may be, and what ends it. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { makePipe, readInto } from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { makeSocketPair } from "../../../ffi/unix-socket.ts";
import { EventLoop } from "../../../src/event-loop/event-loop.ts";
import { LineConnection } from "../../../src/messaging/line-connection.ts";
import { RawClient } from "../../support/agent-client.ts";
import { waitFor } from "../../support/wait-for.ts";

const limits = { lineBytes: 100, queuedBytes: 1024 * 1024, descriptors: 1 };

let loop: EventLoop;
let lines: LineConnection;
let peer: RawClient;
const heard: { body: unknown; descriptor: OwnedDescriptor | undefined }[] = [];
const ends: { reason: string; violation: boolean }[] = [];

beforeEach(() => {
  heard.splice(0);
  ends.splice(0);
  loop = new EventLoop(() => {
    throw new Error("This test needs a kernel with IOCB_CMD_POLL.");
  });
  const [ours, theirs] = makeSocketPair();
  peer = new RawClient(theirs);
  lines = new LineConnection(loop, ours, {
    limits,
    handlers: {
      onLine: (body, takeDescriptor) => heard.push({ body, descriptor: takeDescriptor() }),
      onEnd: (reason, violation) => ends.push({ reason, violation }),
    },
  });
});

afterEach(() => {
  for (const { descriptor } of heard) descriptor?.close();
  lines.close();
  peer[Symbol.dispose]();
  loop[Symbol.dispose]();
});

const send = (text: string, descriptors: readonly number[] = []) =>
  peer.sendBytes(new TextEncoder().encode(text), descriptors);
const bodies = (count: number) =>
  waitFor(`${count} lines`, () => heard.length >= count && heard.map(({ body }) => body));
const end = () => waitFor("the end", () => ends[0]);

describe("lines", () => {
  test("come one by one, however their bytes come", async () => {
    await send('{"a":1}\n{"b"');
    await bodies(1);
    for (const byte of ':"ü"}\n') await send(byte);
    await send('3\n"four"\n');
    expect(await bodies(4)).toEqual([{ a: 1 }, { b: "ü" }, 3, "four"]);
    expect(ends).toEqual([]);
  });

  test("of the limit are taken, of one byte more they end it, with an end or without", async () => {
    const longest = "x".repeat(limits.lineBytes - 2);
    await send(`"${longest}"\n`);
    expect(await bodies(1)).toEqual([longest]);
    await send(`"${longest}x"\n"never"\n`);
    expect(await end()).toEqual({
      reason: "expected a line of at most 100 bytes, received a longer one",
      violation: true,
    });
    expect(heard).toHaveLength(1);
    await peer.closed();
  });

  test.each(["{\n", "\n", "\u00ff\n", `${"[".repeat(99)}\n`])("%j is none", async (text) => {
    await send(text);
    expect((await end()).reason).toStartWith("expected a line of JSON, received");
  });

  test("a peer that goes in the middle of one has broken nothing", async () => {
    await send('{"a"');
    peer[Symbol.dispose]();
    expect(await end()).toMatchObject({ violation: false });
  });
});

describe("descriptors", () => {
  test("come with the line that carries them, and more than the limit end it", async () => {
    const { read, write } = makePipe();
    await send("1\n", [read.number]);
    await bodies(1);
    expect(heard[0]?.descriptor?.isOpen).toBe(true);
    await send("2", [read.number]);
    await send("3", [read.number]);
    expect((await end()).reason).toBe("expected at most 1 descriptors, received 2");
    read.close();
    write.close();
  });

  test("wait for a peer that does not read, and are counted and closed", async () => {
    const { read, write } = makePipe();
    const filling = "x".repeat(50_000);
    for (let count = 0; count < 10; count += 1) lines.send(filling);
    expect(lines.queuedDescriptors).toBe(0);
    lines.send("with it", write);
    expect(lines.queuedDescriptors).toBe(1);
    write.close();
    lines.close();
    // Nobody can write any more: a reader sees the end.
    await waitFor("the end of the pipe", () => readEnd(read));
    read.close();
  });
});

function readEnd(pipe: OwnedDescriptor): boolean {
  return readInto(pipe, new NativeMemory(16)) === 0;
}
