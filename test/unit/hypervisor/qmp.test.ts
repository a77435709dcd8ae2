/** QMP against a peer that keeps to it, breaks it, hangs, and goes. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import type { EventLoop } from "../../../src/event-loop/event-loop.ts";
import { VmmRefused, VmmUnreachable } from "../../../src/hypervisor/driver.ts";
import { QmpClient, type QmpEvent, qmpLimits } from "../../../src/hypervisor/qemu/qmp.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { QmpListener, type QmpPeer } from "../../support/hypervisor/qmp-peer.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf, waitFor } from "../../support/wait-for.ts";

let loop: EventLoop;
let folder: TemporaryFolder;
let listener: QmpListener;
let abort: AbortController;
const events: QmpEvent[] = [];
const losses: string[] = [];

beforeEach(() => {
  events.splice(0);
  losses.splice(0);
  loop = testEventLoop();
  folder = temporaryFolder();
  listener = new QmpListener(folder.file("qmp"));
  abort = new AbortController();
});

afterEach(() => {
  abort.abort();
  listener[Symbol.dispose]();
  folder[Symbol.dispose]();
  loop[Symbol.dispose]();
});

const connect = (limits: Partial<typeof qmpLimits> = {}) =>
  QmpClient.connect(loop, listener.path, {
    limits: { ...qmpLimits, ...limits },
    signal: abort.signal,
    onEvent: (event) => events.push(event),
    onLost: (reason) => losses.push(reason),
  });

async function connected(limits: Partial<typeof qmpLimits> = {}) {
  const [{ client, version }, peer] = await Promise.all([connect(limits), listener.serve()]);
  return { client, version, peer };
}

/** What the client makes of this, said in place of the greeting. */
async function refusedGreeting(text: string, limits: Partial<typeof qmpLimits> = {}) {
  const [error, peer] = await Promise.all([
    rejectionOf(connect(limits)),
    listener.accept().then(async (one) => {
      await one.sayText(text);
      return one;
    }),
  ]);
  await peer.closed();
  expect(losses).toEqual([]);
  expect(error).toBeInstanceOf(VmmUnreachable);
  return error.message;
}

describe("a connection", () => {
  test("is greeted, agrees on capabilities, and knows the version", async () => {
    const { client, version } = await connected();
    using _client = client;
    expect(version).toBe("7.2.22");
  });

  test("waits for a QEMU that does not listen yet", async () => {
    const path = folder.file("late");
    const asked = QmpClient.connect(loop, path, {
      limits: qmpLimits,
      signal: abort.signal,
      onEvent: () => {},
      onLost: () => {},
    });
    using late = new QmpListener(path);
    const [{ client }] = await Promise.all([asked, late.serve()]);
    client.close();
  });

  test("to nobody is given up when its time is over", async () => {
    const error = await rejectionOf(
      QmpClient.connect(loop, folder.file("nobody"), {
        limits: { ...qmpLimits, connectTime: 20 },
        signal: abort.signal,
        onEvent: () => {},
        onLost: () => {},
      }),
    );
    expect(error).toBeInstanceOf(VmmUnreachable);
    expect(error.message).toContain("No such file or directory");
  });

  test("that is not greeted is given up when its time is over", async () => {
    const error = await rejectionOf(connect({ connectTime: 20 }));
    expect(error).toBeInstanceOf(VmmUnreachable);
    expect(error.message).toContain("it did not greet within 20 ms");
    expect(losses).toEqual([]);
  });

  test("that is called off ends at once", async () => {
    const asked = rejectionOf(connect());
    const peer = await listener.accept();
    abort.abort();
    expect((await asked).message).toContain("it was called off");
    await peer.closed();
  });

  test.each([
    ["what is no JSON", "\u0000\u00ff nonsense\n", "expected a line of JSON"],
    ["another greeting", '{"hello":1}\n', "expected a value in QMP"],
    [
      "a version of words",
      '{"QMP":{"version":{"qemu":{"major":"7"}}}}\n',
      "expected number in QMP",
    ],
    ["an answer before the greeting", '{"return":{},"id":1}\n', "a wrong greeting"],
  ])("is refused %s", async (_name, text, reason) => {
    expect(await refusedGreeting(text)).toContain(reason);
  });

  test("whose first line has no end is refused at the limit", async () => {
    const text = "x".repeat(200);
    expect(await refusedGreeting(text, { lineBytes: 100 })).toContain("at most 100 bytes");
  });

  test("that ends in the middle of its greeting is refused", async () => {
    const asked = rejectionOf(connect());
    const peer = await listener.accept();
    await peer.sayText('{"QMP":');
    peer[Symbol.dispose]();
    expect((await asked).message).toContain("the peer closed the connection");
  });
});

describe("a command", () => {
  test("is answered by its id, in whatever order, half a line at a time", async () => {
    const { client, peer } = await connected();
    using _client = client;
    const first = client.execute("query-status");
    const second = client.execute("query-name", { a: 1 });
    const { id } = await peer.heard("query-status");
    const other = await peer.heard("query-name");
    expect(other.arguments).toEqual({ a: 1 });
    await peer.say({ return: "second", id: other.id });
    expect(await second).toBe("second");
    for (const piece of [`{"return": "fi`, `rst", "id": ${id}}`, "\r\n"]) await peer.sayText(piece);
    expect(await first).toBe("first");
  });

  test("that is refused says so in QEMU's words", async () => {
    const { client, peer } = await connected();
    using _client = client;
    const asked = rejectionOf(client.execute("cont"));
    await peer.refuse("cont", "Resetting the Virtual Machine is required");
    const error = await asked;
    expect(error).toBeInstanceOf(VmmRefused);
    expect(error.message).toBe('QEMU refused "cont": Resetting the Virtual Machine is required');
    const again = client.execute("query-status");
    await peer.answer("query-status", {});
    await again;
  });

  test("carries a descriptor on its first byte", async () => {
    const { client, peer } = await connected();
    using _client = client;
    using file = makeMemoryFile("state");
    writeFileSync(`/proc/self/fd/${file.number}`, "in memory");
    const asked = client.execute("getfd", { fdname: "x" }, file);
    await peer.answer("getfd", {});
    await asked;
    expect(peer.descriptors).toHaveLength(1);
    expect(readFileSync(`/proc/self/fd/${peer.descriptors[0]?.number}`, "utf8")).toBe("in memory");
  });

  test("that hangs is given up; its late answer is nobody's, and others go on", async () => {
    const { client, peer } = await connected({ answerTime: 20 });
    using _client = client;
    const error = await rejectionOf(client.execute("query-status"));
    expect(error).toBeInstanceOf(VmmUnreachable);
    expect(error.message).toBe('QEMU did not answer "query-status" within 20 ms');
    await peer.answer("query-status", {});
    const [answer] = await Promise.all([client.execute("stop"), peer.answer("stop", 7)]);
    expect(answer).toBe(7);
    expect(losses).toEqual([]);
  });

  test("over the limit of those that are not answered is not sent", async () => {
    const { client, peer } = await connected({ openCommands: 2 });
    using _client = client;
    const open = [client.execute("a"), client.execute("b")];
    const error = await rejectionOf(client.execute("c"));
    expect(error).toBeInstanceOf(VmmUnreachable);
    expect(error.message).toContain('has not answered 2 commands: "c" was not sent');
    await peer.answer("a", {});
    await peer.answer("b", {});
    await Promise.all(open);
    await Promise.all([client.execute("d"), peer.answer("d", {})]);
  });

  test("for a QEMU that does not read ends the connection at the limit", async () => {
    const { client, peer } = await connected({ queuedBytes: 4096, openCommands: 1000 });
    using _client = client;
    const words = { text: "x".repeat(100_000) };
    const asked = Array.from({ length: 20 }, () => rejectionOf(client.execute("a", words)));
    const errors = await Promise.all(asked);
    expect(errors[0]?.message).toContain("it does not read");
    expect(losses).toHaveLength(1);
    expect(peer.ended).toBe(false);
  });
});

describe("what comes", () => {
  test("events are told in their order, also before an answer", async () => {
    const { client, peer } = await connected();
    using _client = client;
    const asked = client.execute("stop");
    const { id } = await peer.heard("stop");
    await peer.tell("STOP");
    await peer.tell("MIGRATION", { status: "completed" });
    await peer.say({ return: {}, id });
    await asked;
    expect(events).toEqual([
      { event: "STOP", data: {} },
      { event: "MIGRATION", data: { status: "completed" } },
    ]);
  });

  const wrong: readonly [string, string, string][] = [
    ["an answer that nobody asked for", '{"return":{},"id":99}', "nobody asked for"],
    ["an answer without an id", '{"return":{}}', "expected a value in id"],
    ["an error without an id", '{"error":{"class":"G","desc":"bad input"}}', "bad input"],
    ["an error of another shape", '{"error":7,"id":2}', "a wrong error"],
    ["an event of another shape", '{"event":7}', "a wrong event"],
    ["no object", "7", "expected an object"],
    ["neither answer nor event", '{"x":1}', "a wrong answer"],
    ["half a word", '{"ret', "expected a line of JSON"],
  ];
  test.each(wrong)("%s ends it, and who waits is told", async (_name, text, reason) => {
    const { client, peer } = await connected();
    using _client = client;
    const asked = rejectionOf(client.execute("query-status"));
    await peer.heard("query-status");
    await peer.sayText(`${text}\n`);
    const error = await asked;
    expect(error).toBeInstanceOf(VmmUnreachable);
    expect(error.message).toContain(reason);
    expect(losses).toHaveLength(1);
    await peer.closed();
    const after = await rejectionOf(client.execute("query-status"));
    expect(after).toBeInstanceOf(VmmUnreachable);
  });

  test("a line over the limit ends it", async () => {
    const { client, peer } = await connected({ lineBytes: 300 });
    using _client = client;
    await peer.sayText(`{"event":"${"x".repeat(400)}"}\n`);
    const reason = await waitFor("the loss", () => losses[0]);
    expect(reason).toContain("at most 300 bytes");
  });

  test("a descriptor, which QEMU never sends, ends it", async () => {
    const { client, peer } = await connected();
    using _client = client;
    using file = makeMemoryFile("unwanted");
    await peer.sendBytes(new TextEncoder().encode("{}\n"), [file.number]);
    const reason = await waitFor("the loss", () => losses[0]);
    expect(reason).toContain("at most 0 descriptors");
  });
});

describe("an end", () => {
  test("by the peer is told once, and refuses what was asked", async () => {
    const { client, peer } = await connected();
    using _client = client;
    const asked = rejectionOf(client.execute("query-status"));
    await peer.heard("query-status");
    peer[Symbol.dispose]();
    expect(await asked).toBeInstanceOf(VmmUnreachable);
    expect(losses).toEqual(["the peer closed the connection"]);
  });

  test("by us is told to nobody, and refuses what was asked", async () => {
    const { client, peer } = await connected();
    const asked = rejectionOf(client.execute("query-status"));
    client.close();
    expect((await asked).message).toBe("it was closed");
    await peer.closed();
    expect(losses).toEqual([]);
  });

  test("after an answer loses no answer", async () => {
    const { client, peer } = await connected();
    using _client = client;
    const asked = client.execute("quit");
    await peer.answer("quit", {});
    peer[Symbol.dispose]();
    await asked;
    await waitFor("the loss", () => losses[0]);
  });
});

test("the connection is one peer's", async () => {
  const { client } = await connected();
  using _client = client;
  const second = rejectionOf(connect({ connectTime: 30 }));
  const peer: QmpPeer = await listener.accept();
  expect((await second).message).toContain("serves another client");
  await peer.closed();
});
