/** What a worker asks of QEMU, and what is made of its answers, against a scripted peer. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import type { EventLoop } from "../../../src/event-loop/event-loop.ts";
import {
  type CapturedState,
  type VmmConnection,
  type VmmEvent,
  VmmRefused,
  VmmUnreachable,
} from "../../../src/hypervisor/driver.ts";
import { makeQemuDriver } from "../../../src/hypervisor/qemu/driver.ts";
import { qmpLimits } from "../../../src/hypervisor/qemu/qmp.ts";
import { RawClient } from "../../support/agent-client.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { filesIn, testMachine } from "../../support/hypervisor/machines.ts";
import { QmpListener, type QmpPeer } from "../../support/hypervisor/qmp-peer.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf, waitFor } from "../../support/wait-for.ts";

let loop: EventLoop;
let folder: TemporaryFolder;
let listener: QmpListener;
let connection: VmmConnection;
let peer: QmpPeer;
const events: VmmEvent[] = [];
const losses: string[] = [];
const limits = { ...qmpLimits };

async function connect(status = "prelaunch"): Promise<void> {
  const asked = makeQemuDriver(limits).connect(filesIn(folder.path), {
    loop,
    machine: testMachine(),
    signal: new AbortController().signal,
    onEvent: (event) => events.push(event),
    onLost: (reason) => losses.push(reason),
  });
  peer = await listener.serve();
  await peer.answer("query-status", { status });
  connection = await asked;
}

beforeEach(() => {
  events.splice(0);
  losses.splice(0);
  Object.assign(limits, qmpLimits);
  loop = testEventLoop();
  folder = temporaryFolder();
  listener = new QmpListener(filesIn(folder.path).control);
});

afterEach(() => {
  connection[Symbol.dispose]();
  listener[Symbol.dispose]();
  folder[Symbol.dispose]();
  loop[Symbol.dispose]();
});

describe("states", () => {
  test.each([
    ["prelaunch", "created"],
    ["running", "running"],
    ["suspended", "running"],
    ["paused", "paused"],
    ["postmigrate", "paused"],
    ["io-error", "paused"],
    ["shutdown", "off"],
    ["guest-panicked", "panicked"],
    ["internal-error", "panicked"],
    ["inmigrate", "incoming"],
  ] as const)("%s is %s", async (status, state) => {
    await connect();
    const asked = connection.guestState();
    await peer.answer("query-status", { status });
    expect(await asked).toBe(state);
  });

  test.each(["melted", "constructor"])(
    "%s, which QEMU does not have, is refused",
    async (status) => {
      await connect();
      const asked = rejectionOf(connection.guestState());
      await peer.answer("query-status", { status });
      expect(await asked).toBeInstanceOf(VmmRefused);
    },
  );

  test.each([{}, 7, { status: 7 }])("an answer %j is none", async (answer) => {
    await connect();
    const asked = rejectionOf(connection.guestState());
    await peer.answer("query-status", answer);
    expect(await asked).toBeInstanceOf(VmmUnreachable);
  });
});

describe("orders", () => {
  test.each(["boot", "resume"] as const)("%s is cont, and refused before a state", async (name) => {
    await connect("paused");
    const done = connection[name]();
    await peer.answer("query-status", { status: "prelaunch" });
    await peer.answer("cont", {});
    await done;
    const early = rejectionOf(connection[name]());
    await peer.answer("query-status", { status: "inmigrate" });
    expect(await early).toBeInstanceOf(VmmRefused);
  });

  test.each([
    ["pause", "stop"],
    ["pressPowerButton", "system_powerdown"],
    ["quit", "quit"],
  ] as const)("%s is %s", async (method, command) => {
    await connect();
    const done = connection[method]();
    await peer.answer(command, {});
    await done;
    const refused = rejectionOf(connection[method]());
    await peer.refuse(command, "no");
    expect((await refused).message).toBe(`QEMU refused "${command}": no`);
  });

  test("a machine that nobody touched since it was asked is not asked again", async () => {
    await connect();
    await connection.create();
    const done = connection.boot();
    await peer.answer("cont", {});
    await done;
    const again = connection.resume();
    await peer.answer("query-status", { status: "paused" });
    await peer.answer("cont", {});
    await again;
  });

  test("one of which something was heard is", async () => {
    await connect();
    await peer.tell("RESUME");
    await waitFor("the event", () => events.length > 0);
    const ran = rejectionOf(connection.create());
    await peer.answer("query-status", { status: "running" });
    expect((await ran).message).toContain("QEMU says that it is running");
  });

  test("create finds the machine made, and refuses one that ran", async () => {
    await connect("paused");
    const made = connection.create();
    await peer.answer("query-status", { status: "prelaunch" });
    await made;
    const ran = rejectionOf(connection.create());
    await peer.answer("query-status", { status: "running" });
    expect((await ran).message).toContain("QEMU says that it is running");
  });

  test("the end after quit is no loss", async () => {
    await connect();
    const done = connection.quit();
    await peer.answer("quit", {});
    await done;
    peer[Symbol.dispose]();
    expect(await rejectionOf(connection.guestState())).toBeInstanceOf(VmmUnreachable);
    expect(losses).toEqual([]);
  });

  test("any other end is one", async () => {
    await connect();
    peer[Symbol.dispose]();
    expect(await waitFor("the loss", () => losses[0])).toBe("the peer closed the connection");
  });

  test("a hang is told by the call, and the connection goes on", async () => {
    limits.answerTime = 20;
    await connect();
    expect(await rejectionOf(connection.guestState())).toBeInstanceOf(VmmUnreachable);
    await peer.answer("query-status", { status: "running" });
    const asked = connection.guestState();
    await peer.answer("query-status", { status: "paused" });
    expect(await asked).toBe("paused");
    expect(losses).toEqual([]);
  });
});

describe("counters", () => {
  const statistics = {
    rd_bytes: 1,
    wr_bytes: 2,
    rd_operations: 3,
    wr_operations: 4,
    flush_operations: 5,
  };

  test("are those of the machine's own disks, and of its balloon", async () => {
    await connect();
    const asked = connection.counters();
    await peer.answer("query-blockstats", [
      { device: "", "node-name": "disk-root", stats: statistics },
      { device: "", "node-name": "firmware-code", stats: statistics },
      { device: "", stats: statistics },
    ]);
    await peer.answer("query-balloon", { actual: 64 });
    expect(await asked).toEqual({
      disks: [{ id: "root", readBytes: 1, writtenBytes: 2, reads: 3, writes: 4 }],
      memory: 64,
    });
  });

  test("without a balloon leave the memory open", async () => {
    await connect();
    const asked = connection.counters();
    await peer.answer("query-blockstats", []);
    await peer.refuse("query-balloon", "No balloon device has been activated");
    expect(await asked).toEqual({ disks: [], memory: undefined });
  });

  test("below zero are none", async () => {
    await connect();
    const asked = rejectionOf(connection.counters());
    const stats = { ...statistics, rd_bytes: -1 };
    await peer.answer("query-blockstats", [{ "node-name": "disk-root", stats }]);
    expect(await asked).toBeInstanceOf(VmmUnreachable);
  });

  test("threads of processors are told once each", async () => {
    await connect();
    const asked = connection.processorThreads();
    await peer.answer("query-cpus-fast", [{ "thread-id": 7 }, { "thread-id": 7 }]);
    expect(await asked).toEqual([7]);
    const wrong = rejectionOf(connection.processorThreads());
    await peer.answer("query-cpus-fast", [{ "thread-id": 0 }]);
    expect(await wrong).toBeInstanceOf(VmmUnreachable);
  });
});

describe("events", () => {
  const shutdown = (guest: boolean) => ["SHUTDOWN", { guest, reason: "test" }] as const;
  const blockError = (action: string) =>
    [
      "BLOCK_IO_ERROR",
      { "node-name": "disk-root.file", operation: "write", action, reason: "No space left" },
    ] as const;
  const portChange = (id: string, open: boolean) => ["VSERPORT_CHANGE", { id, open }] as const;
  const diskError = { kind: "disk-error", disk: "root", reason: "write: No space left" };
  type Told = readonly [string, object?];
  const rows: readonly [status: string, told: readonly Told[], heard: readonly unknown[]][] = [
    ["prelaunch", [["RESUME"], ["STOP"], ["RESUME"]], ["booted", "paused", "resumed"]],
    ["paused", [["RESUME"]], ["resumed"]],
    ["inmigrate", [["RESUME"]], ["resumed"]],
    ["running", [["RESET", { guest: true }]], ["guest-reset"]],
    ["running", [["GUEST_PANICKED", { action: "pause" }], ["STOP"]], ["guest-panic"]],
    ["running", [shutdown(true), ["STOP"]], [{ kind: "guest-off", by: "guest" }]],
    ["running", [shutdown(false)], [{ kind: "guest-off", by: "host" }]],
    ["shutdown", [["STOP"]], []],
    ["running", [blockError("stop")], [{ ...diskError, pauses: true }]],
    ["running", [blockError("report")], [{ ...diskError, pauses: false }]],
    ["running", [portChange("agent-port", false)], ["agent-left"]],
    ["running", [portChange("agent-port", true), portChange("other", false)], []],
    ["running", [["NIC_RX_FILTER_CHANGED"], ["RTC_CHANGE", { offset: 1 }]], []],
  ];

  test.each(rows)("from %s on, %j are %j", async (status, told, heard) => {
    await connect(status);
    for (const [event, data] of told) await peer.tell(event, { ...data });
    // What is answered after them was heard after them.
    const last = connection.guestState();
    await peer.answer("query-status", { status: "paused" });
    await last;
    const wanted = heard.map((kind) => (typeof kind === "string" ? { kind } : kind));
    expect(events as unknown[]).toEqual(wanted);
  });
});

/** The descriptor that came with the last command, as a socket to read and write. */
function stateSocket(): RawClient {
  const [received] = peer.descriptors.splice(0);
  if (received === undefined) throw new Error("Expected a descriptor with getfd");
  return new RawClient(received);
}

const asState = (text: string): CapturedState => ({
  hypervisor: "qemu",
  version: "7.2.22",
  bytes: new TextEncoder().encode(text),
});

/** Answers what comes before the state, and gives the end of QEMU. */
async function beginCapture(): Promise<RawClient> {
  await peer.answer("stop", {});
  const { arguments: words } = await peer.answer("migrate-set-capabilities", {});
  expect(words["capabilities"]).toEqual([
    { capability: "x-ignore-shared", state: true },
    { capability: "events", state: true },
    { capability: "pause-before-switchover", state: false },
  ]);
  await peer.answer("getfd", {});
  const socket = stateSocket();
  const { arguments: where } = await peer.answer("migrate", {});
  expect(where).toEqual({ uri: "fd:hostler-state" });
  return socket;
}

const consoleOf = (filename: string) => [{ label: "console", filename }];

async function beginRestore(channels = consoleOf("unix:/console,server=on")): Promise<RawClient> {
  await peer.answer("query-chardev", channels);
  await peer.answer("migrate-set-capabilities", {});
  await peer.answer("getfd", {});
  const socket = stateSocket();
  await peer.answer("migrate-incoming", {});
  return socket;
}

describe("a state", () => {
  test("is captured when QEMU has said and closed all of it", async () => {
    await connect("running");
    const asked = connection.captureState();
    const socket = await beginCapture();
    await socket.sendBytes(new TextEncoder().encode("all of "));
    await peer.tell("MIGRATION", { status: "active" });
    await peer.tell("MIGRATION", { status: "completed" });
    await socket.sendBytes(new TextEncoder().encode("it"));
    socket[Symbol.dispose]();
    expect(await asked).toEqual({ ...asState("all of it"), bytes: expect.anything() });
    expect(Buffer.from((await asked).bytes).toString()).toBe("all of it");
  });

  test("that QEMU failed to give is refused in its words", async () => {
    await connect("running");
    const asked = rejectionOf(connection.captureState());
    using _socket = await beginCapture();
    await peer.tell("MIGRATION", { status: "failed" });
    await peer.answer("query-migrate", { status: "failed", "error-desc": "a device cannot" });
    const error = await asked;
    expect(error).toBeInstanceOf(VmmRefused);
    expect(error.message).toBe('QEMU failed in "migrate": a device cannot');
  });

  test("that is larger than the limit is refused, and no more is read", async () => {
    limits.stateBytes = 1000;
    await connect("running");
    const asked = rejectionOf(connection.captureState());
    using socket = await beginCapture();
    await socket.sendBytes(new Uint8Array(1001));
    const error = await asked;
    expect(error).toBeInstanceOf(VmmRefused);
    expect(error.message).toContain("at most 1000 bytes");
    await socket.closed();
  });

  test("that does not end is given up when its time is over", async () => {
    limits.stateTime = 20;
    await connect("running");
    const asked = rejectionOf(connection.captureState());
    using socket = await beginCapture();
    const error = await asked;
    expect(error).toBeInstanceOf(VmmUnreachable);
    expect(error.message).toContain("within 20 ms");
    await socket.closed();
  });

  test("whose QEMU dies is lost", async () => {
    await connect("running");
    const asked = rejectionOf(connection.captureState());
    using _socket = await beginCapture();
    peer[Symbol.dispose]();
    expect(await asked).toBeInstanceOf(VmmUnreachable);
    expect(losses).toHaveLength(1);
  });

  test("is given to another QEMU, which is paused then", async () => {
    await connect("inmigrate");
    const text = "x".repeat(1_000_000);
    const asked = connection.restoreState(asState(text));
    using socket = await beginRestore();
    expect((await socket.read(text.length)).every((byte) => byte === 0x78)).toBe(true);
    await socket.closed();
    await peer.tell("MIGRATION", { status: "completed" });
    await peer.answer("query-status", { status: "paused" });
    await asked;
  });

  test("is given while somebody listens at the serial port", async () => {
    await connect("inmigrate");
    using port = new QmpListener(filesIn(folder.path).console);
    const asked = connection.restoreState(asState("x"));
    using _socket = await beginRestore(consoleOf("disconnected:unix:/console,server=on"));
    using listening = await port.accept();
    await peer.tell("MIGRATION", { status: "completed" });
    await peer.answer("query-status", { status: "paused" });
    await asked;
    await listening.closed();
  });

  test("that leaves QEMU otherwise than paused is told", async () => {
    await connect("inmigrate");
    const asked = rejectionOf(connection.restoreState(asState("x")));
    using _socket = await beginRestore();
    await peer.tell("MIGRATION", { status: "completed" });
    await peer.answer("query-status", { status: "running" });
    expect((await asked).message).toContain("QEMU says running");
  });

  test("that QEMU cannot read ends QEMU, and the refusal says where to look", async () => {
    await connect("inmigrate");
    const asked = rejectionOf(connection.restoreState(asState("x")));
    using _socket = await beginRestore();
    peer[Symbol.dispose]();
    const error = await asked;
    expect(error).toBeInstanceOf(VmmUnreachable);
    expect(error.message).toContain("its output says why");
  });

  test("of another hypervisor is refused before anything is sent", async () => {
    await connect("inmigrate");
    const state = { ...asState("x"), hypervisor: "cloud-hypervisor" } as const;
    expect(await rejectionOf(connection.restoreState(state))).toBeInstanceOf(VmmRefused);
  });
});
