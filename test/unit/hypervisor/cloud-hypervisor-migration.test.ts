/** The bytes of cloud-hypervisor's local migration, and our end of it against a raw peer. */
import { afterAll, describe, expect, test } from "bun:test";
import { fstatSync, readdirSync, readlinkSync } from "node:fs";
import { makeMemoryFile } from "../../../ffi/memory-file.ts";
import { connectUnix, makeUnixSocket } from "../../../ffi/unix-socket.ts";
import {
  decodeState,
  encodeState,
  placeConfig,
} from "../../../src/hypervisor/cloud-hypervisor/captured-state.ts";
import { vmConfigOf } from "../../../src/hypervisor/cloud-hypervisor/config.ts";
import { MigrationReceiver } from "../../../src/hypervisor/cloud-hypervisor/migration-peer.ts";
import {
  decodeAnswer,
  encodeAnswer,
  encodeRequest,
  encodeSlot,
  type MigrationCommand,
  type Receiving,
  RequestReader,
  stepReceiving,
} from "../../../src/hypervisor/cloud-hypervisor/migration-wire.ts";
import { StreamConnection } from "../../../src/messaging/stream-connection.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { filesIn, testMachine } from "../../support/hypervisor/machines.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf, waitFor, withDeadline } from "../../support/wait-for.ts";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");
const bytesOf = (text: string) => new TextEncoder().encode(text);

describe("the wire", () => {
  const requests: readonly (readonly [MigrationCommand, number, string])[] = [
    ["start", 0, "01000000000000000000000000000000"],
    ["config", 40_960, "020000000000000000a0000000000000"],
    ["state", 2 ** 40, "03000000000000000000000000010000"],
    ["memory", 0, "04000000000000000000000000000000"],
    ["complete", 0, "05000000000000000000000000000000"],
    ["abandon", 0, "06000000000000000000000000000000"],
    ["memory-descriptor", 4, "07000000000000000400000000000000"],
    ["complete-paused", 0, "08000000000000000000000000000000"],
  ];

  test.each(requests)("%s", (command, length, golden) => {
    expect(hex(encodeRequest(command, length))).toBe(golden);
  });

  test("answers and slots", () => {
    expect(hex(encodeAnswer("ok"))).toBe("01000000000000000000000000000000");
    expect(hex(encodeAnswer("error"))).toBe("02000000000000000000000000000000");
    expect(hex(encodeSlot(0x1234_5678))).toBe("78563412");
    expect(decodeAnswer(encodeAnswer("ok"))).toBe("ok");
    expect(decodeAnswer(encodeAnswer("error"))).toBe("error");
    const odd = Buffer.from("03000000000000000000000000000000", "hex");
    expect(decodeAnswer(odd)).toEqual({ expected: "the status 1 or 2", received: "3" });
    const more = Buffer.from("01000000000000000500000000000000", "hex");
    expect(decodeAnswer(more)).toMatchObject({ received: "5 bytes after it" });
  });

  test("requests are read wherever they are divided", () => {
    const payload = bytesOf('{"vm_config":{}}');
    const bytes = Buffer.concat([
      encodeRequest("start", 0),
      encodeRequest("memory-descriptor", 4),
      encodeSlot(9),
      encodeRequest("config", payload.length),
      payload,
    ]);
    for (let cut = 0; cut <= bytes.length; cut += 1) {
      const reader = new RequestReader(1024);
      const read: unknown[] = [];
      for (const piece of [bytes.subarray(0, cut), bytes.subarray(cut)]) {
        reader.push(piece);
        for (let one = reader.next(); one !== undefined; one = reader.next()) read.push(one);
      }
      expect(read).toEqual([
        { command: "start", payload: Buffer.alloc(0) },
        { command: "memory-descriptor", payload: Buffer.from([9, 0, 0, 0]) },
        { command: "config", payload: Buffer.from(payload) },
      ]);
    }
  });

  const wrong = [
    ["09000000000000000000000000000000", "a command of 1 to 8"],
    ["01000100000000000000000000000000", "version 0 of the migration"],
    ["01000000000000000100000000000000", "at most 0 bytes after start"],
    ["02000000000000000104000000000000", "at most 1024 bytes after config"],
    ["0300000000000000ffffffffffffffff", "at most 1024 bytes after state"],
    ["04000000000000001000000000000000", "memory as a descriptor"],
    ["07000000000000000300000000000000", "at most 4 bytes after memory-descriptor"],
  ] as const;

  test.each(wrong)("%s is refused", (header, expected) => {
    const reader = new RequestReader(1024);
    reader.push(Buffer.from(header, "hex"));
    expect(reader.next()).toMatchObject({ refusal: { expected } });
  });

  test("each command has its time, and no other", () => {
    const order: readonly (readonly [Receiving, readonly MigrationCommand[]])[] = [
      ["nothing", ["start"]],
      ["started", ["memory-descriptor"]],
      ["memory", ["memory-descriptor", "config"]],
      ["configured", ["state"]],
      ["stated", ["complete-paused"]],
      ["complete", []],
    ];
    for (const [receiving, allowed] of order) {
      for (const [command] of requests) {
        const next = stepReceiving(receiving, command);
        expect(typeof next === "string").toBe(allowed.includes(command));
      }
    }
  });
});

describe("a captured state", () => {
  const limits = { messageBytes: 1000, memorySlots: 2 };
  const state = { slots: [0, 3], config: '{"a":"ö"}', state: "{}" };

  test("comes back as it was", () => {
    expect(decodeState(encodeState(state), limits)).toEqual(state);
  });

  test("that is none is refused", () => {
    const refused: readonly (readonly [Uint8Array, RegExp])[] = [
      [bytesOf("QEMU"), /received other bytes/],
      [Uint8Array.of(0xff), /received other bytes/],
      [bytesOf('{"form":2,"slots":[0],"config":"","state":""}'), /form/],
      [bytesOf('{"form":1,"slots":[],"config":"","state":""}'), /slots/],
      [bytesOf('{"form":1,"slots":[-1],"config":"","state":""}'), /slots/],
      [encodeState({ ...state, slots: [0, 1, 2] }), /at most 2 pieces of memory, received 3/],
      [new Uint8Array(4001), /at most 4000 bytes, received 4001/],
    ];
    for (const [bytes, reason] of refused) {
      expect(decodeState(bytes, limits)).toMatchObject({ refusal: expect.stringMatching(reason) });
    }
  });

  const machine = testMachine({
    accelerator: "kvm",
    machineType: undefined,
    processorModel: undefined,
    boot: { kind: "kernel", kernel: "/new/kernel", initramfs: undefined, commandLine: "new" },
    disks: [{ id: "root", path: "/new/root", format: "raw", readOnly: true, backing: undefined }],
    networks: [{ id: "net0", tap: "tap9", macAddress: "52:54:00:00:00:01" }],
    agent: { vsock: 9 },
  });
  const now = vmConfigOf(machine, filesIn("/new"), { landlock: undefined });

  test("goes on where the machine is now, to the last digit of its numbers", () => {
    const text =
      '{"vm_config":{"payload":{"kernel":"/old/kernel","initramfs":null,"cmdline":"old"},' +
      '"disks":[{"id":"root","path":"/old/root","rate":1.0}],' +
      '"net":[{"id":"net0","tap":"tap1","fds":null}],"serial":{"socket":"/old/console"},' +
      '"vsock":{"cid":3,"socket":"/old/agent"},"fs":null},' +
      '"common_cpuid":[18446744073709551615,-0,9007199254740993,1e21],"memory_manager_data":{}}';
    expect(placeConfig(text, now)).toBe(text.replaceAll("/old/", "/new/").replace("tap1", "tap9"));
  });

  test("is confined as its VMM is now", () => {
    const text =
      '{"vm_config":{"serial":{},"landlock_enable":true,"landlock_rules":[{"path":"/old"}]}}';
    expect(placeConfig(text, now)).toBe(
      '{"vm_config":{"serial":{},"landlock_enable":false,"landlock_rules":null}}',
    );
    const confined = vmConfigOf(machine, filesIn("/new"), { landlock: [] });
    expect(placeConfig(text, confined)).toContain(
      '"landlock_enable":true,"landlock_rules":[{"path":"/new","access":"rw"}]',
    );
  });

  test("of another machine, or of nothing, is refused", () => {
    const serial = '"serial":{}';
    const other = `{"vm_config":{"disks":[{"id":"data"}],${serial}}}`;
    for (const [text, reason] of [
      [other, /which lacks "data"/],
      [`{"vm_config":{"net":[{}],${serial}}}`, /lacks "undefined"/],
      ['{"vm_config":{}}', /serial/],
      ["[]", /expected/],
      ["nothing", /expected a configuration in JSON/],
    ] as const) {
      expect(placeConfig(text, now)).toMatchObject({ refusal: expect.stringMatching(reason) });
    }
  });
});

const loop = testEventLoop();
afterAll(() => loop[Symbol.dispose]());

/** A receiver, and a raw sender that says what it likes. */
function receiving(limits: { readonly stateTime?: number; readonly sender?: number } = {}) {
  const folder = temporaryFolder();
  const path = folder.file("move");
  const receiver = new MigrationReceiver(loop, {
    path,
    sender: limits.sender ?? process.pid,
    limits: { stateTime: limits.stateTime ?? 10_000, messageBytes: 1024, memorySlots: 2 },
    signal: new AbortController().signal,
  });
  const socket = makeUnixSocket("stream");
  expect(connectUnix(socket, path)).toBe(0);
  let received = "";
  let isOver = false;
  const stream = new StreamConnection(loop, socket, {
    queuedBytes: 1024 * 1024,
    handlers: {
      onBytes: (bytes) => {
        received += hex(bytes);
      },
      onEnd: () => {
        isOver = true;
      },
    },
  });
  return {
    receiver,
    stream,
    /** Statuses of the answers so far. */
    answers: () => (received.match(/.{32}/g) ?? []).map((answer) => Number(answer.slice(1, 2))),
    over: () => waitFor("the end of the connection", () => isOver),
    [Symbol.dispose]: () => {
      receiver[Symbol.dispose]();
      stream.close();
      folder[Symbol.dispose]();
    },
  };
}

function sendSlot(stream: StreamConnection, slot: number, count = 1): void {
  const memories = Array.from({ length: count }, () => makeMemoryFile("piece"));
  stream.send(encodeRequest("memory-descriptor", 4));
  stream.send(
    encodeSlot(slot),
    memories.map(({ number }) => number),
  );
  for (const memory of memories) memory.close();
}

/** Pieces of memory that are open in this process. */
function openPieces(): number {
  return readdirSync("/proc/self/fd").filter((number) => {
    try {
      return readlinkSync(`/proc/self/fd/${number}`).startsWith("/memfd:piece");
    } catch {
      // The listing's own number, which is closed by now.
      return false;
    }
  }).length;
}

describe("a machine that comes", () => {
  const wait = <T>(promise: Promise<T>) => withDeadline("the machine", promise);

  test("is held until it is released", async () => {
    using peer = receiving();
    const { receiver, stream } = peer;
    stream.send(encodeRequest("start", 0));
    sendSlot(stream, 0);
    sendSlot(stream, 7);
    for (const command of ["config", "state"] as const) {
      stream.send(Buffer.concat([encodeRequest(command, 2), bytesOf("{}")]));
    }
    stream.send(encodeRequest("complete-paused", 0));
    const machine = await wait(receiver.received);
    expect(machine.slots.map(({ slot }) => slot)).toEqual([0, 7]);
    expect(Buffer.from(machine.config).toString()).toBe("{}");
    await waitFor("the answers", () => peer.answers().length === 5);
    expect(receiver.isHeld).toBe(true);
    receiver.release();
    await peer.over();
    expect(peer.answers()).toEqual([1, 1, 1, 1, 1, 1]);
    for (const { descriptor } of machine.slots) {
      expect(fstatSync(descriptor.number).size).toBe(0);
      descriptor.close();
    }
  });

  const broken: readonly (readonly [string, (stream: StreamConnection) => void, RegExp])[] = [
    [
      "more pieces than the limit",
      (stream) => {
        for (const slot of [0, 1, 2]) sendSlot(stream, slot);
      },
      /at most 2 pieces of memory, received one more/,
    ],
    [
      "a piece twice",
      (stream) => {
        for (const slot of [5, 5]) sendSlot(stream, slot);
      },
      /each piece of memory once, received piece 5 again/,
    ],
    ["a piece without its descriptor", (stream) => sendSlot(stream, 0, 0), /received none/],
    ["two descriptors at once", (stream) => sendSlot(stream, 0, 3), /one descriptor at a time/],
    [
      "a message over the limit",
      (stream) => {
        sendSlot(stream, 0);
        stream.send(encodeRequest("config", 1025));
      },
      /at most 1024 bytes after config, received 1025/,
    ],
    [
      "no memory at all",
      (stream) => stream.send(Buffer.concat([encodeRequest("config", 2), bytesOf("{}")])),
      /expected memory-descriptor, received config/,
    ],
    ["the end of it", (stream) => stream.send(encodeRequest("abandon", 0)), /abandon/],
  ];

  test.each(broken)("is refused with %s, and the VMM is told", async (_what, send, reason) => {
    {
      using peer = receiving();
      peer.stream.send(encodeRequest("start", 0));
      send(peer.stream);
      const failure = await rejectionOf(wait(peer.receiver.received));
      expect(failure.message).toMatch(reason);
      await peer.over();
      expect(peer.answers().at(-1)).toBe(2);
    }
    // Nothing of its memory is kept.
    await waitFor("the pieces to be closed", () => openPieces() === 0);
  });

  test("is heard of nobody else's, and not for ever", async () => {
    using peer = receiving({ sender: process.pid + 1, stateTime: 100 });
    await peer.over();
    const failure = await rejectionOf(wait(peer.receiver.received));
    expect(failure.message).toContain("did not come within 100 ms");
  });
});
