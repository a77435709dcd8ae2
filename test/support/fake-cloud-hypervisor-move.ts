/**
 * The fake's end of a migration, a local one or one with the memory in its stream. Its bytes are
 * written here by hand, from the description of vm-migration/src/protocol.rs, and not by the
 * product's code, which is what they test.
 */
import { existsSync, fstatSync, readSync, unlinkSync, writeSync } from "node:fs";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { connectUnix, makeUnixSocket } from "../../ffi/unix-socket.ts";
import type { EventLoop } from "../../src/event-loop/event-loop.ts";
import { Listener, listenAt } from "../../src/messaging/listener.ts";
import { StreamConnection } from "../../src/messaging/stream-connection.ts";
import type { VmConfigBody } from "./cloud-hypervisor-schema.ts";
import type { FakeOrders } from "./fake-cloud-hypervisor.ts";

/** It ended without success. */
export class MovedAway extends Error {}

const numbers = {
  start: 1,
  config: 2,
  state: 3,
  complete: 5,
  contents: 4,
  memory: 7,
  "complete-paused": 8,
} as const;
type Step = keyof typeof numbers;
const ODD = 99;
const SLOT = 0;
const QUEUED_BYTES = 64 * 1024 * 1024;

/** What no number of JavaScript holds: whoever reads and writes it as one is found out. */
const EXACT = '"common_cpuid":[{"function":1,"mask":18446744073709551615}]';
const STATE = '{"id":"","snapshots":{"cpu-manager":{"rip":18446744071562067969}}}';

/** Bytes and descriptors of a stream, waited for. */
class Reading {
  readonly stream: StreamConnection;
  #bytes = Buffer.alloc(0);
  readonly descriptors: OwnedDescriptor[] = [];
  #isOver = false;
  #waiting: { count: number; resolve: (bytes: Buffer) => void; reject: (why: Error) => void }[] =
    [];

  constructor(loop: EventLoop, socket: OwnedDescriptor) {
    this.stream = new StreamConnection(loop, socket, {
      queuedBytes: QUEUED_BYTES,
      handlers: {
        onBytes: (bytes, descriptors) => {
          this.#bytes = Buffer.concat([this.#bytes, bytes]);
          this.descriptors.push(...descriptors);
          this.#serve();
        },
        onEnd: () => {
          this.#isOver = true;
          this.#serve();
        },
      },
    });
  }

  take(count: number): Promise<Buffer> {
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
    this.#waiting.push({ count, resolve, reject });
    this.#serve();
    return promise;
  }

  #serve(): void {
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      if (this.#bytes.length < first.count) {
        if (this.#isOver) this.#waiting.shift()?.reject(new MovedAway("the other end is gone"));
        return;
      }
      this.#waiting.shift();
      const taken = this.#bytes.subarray(0, first.count);
      this.#bytes = this.#bytes.subarray(first.count);
      first.resolve(taken);
    }
  }
}

function header(number: number, length: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt16LE(number, 0);
  bytes.writeBigUInt64LE(BigInt(length), 8);
  return bytes;
}

interface Sent {
  readonly path: string;
  readonly machine: {
    readonly config: VmConfigBody;
    readonly memory: OwnedDescriptor;
    readonly isPaused: boolean;
    /** Its memory goes as a descriptor. */
    readonly isLocal: boolean;
    /** All of its memory goes, and not what is no hole alone: for a test that measures. */
    readonly isFull: boolean;
  };
  /** Before the state is taken. */
  readonly pause: () => void;
  readonly misbehaviour: (step: Step) => FakeOrders["how"];
}

/** @throws when the other end does not take it */
export async function sendFakeMachine(loop: EventLoop, sent: Sent): Promise<void> {
  const socket = makeUnixSocket("stream");
  if (connectUnix(socket, sent.path) !== 0) {
    socket.close();
    throw new MovedAway("nobody listens there");
  }
  const reading = new Reading(loop, socket);
  try {
    const { config, memory, isPaused, isLocal } = sent.machine;
    const slot = Buffer.alloc(4);
    slot.writeUInt32LE(SLOT, 0);
    const data = `{"vm_config":${JSON.stringify(config)},${EXACT},"memory_manager_data":{}}`;
    await ask(reading, sent, "start");
    if (isLocal) await ask(reading, sent, "memory", slot, [memory.number]);
    await ask(reading, sent, "config", Buffer.from(data));
    // What the guest changes meanwhile goes once more, when it stands still.
    if (!isLocal) await sendContents(reading, sent, sent.machine.isFull);
    sent.pause();
    if (!isLocal) await sendContents(reading, sent, false);
    await ask(reading, sent, "state", Buffer.from(STATE));
    await ask(reading, sent, isPaused ? "complete-paused" : "complete");
  } finally {
    reading.stream.close();
  }
}

const RANGE_BYTES = 1024 * 1024;
const noBytes = Buffer.alloc(RANGE_BYTES);

/** One request for each range, as the real one sends them: a table, and then what it names. */
async function sendContents(reading: Reading, sent: Sent, isAll: boolean): Promise<void> {
  const { memory } = sent.machine;
  const { size } = fstatSync(memory.number);
  for (let address = 0; address < size; address += RANGE_BYTES) {
    const bytes = Buffer.alloc(Math.min(RANGE_BYTES, size - address));
    readSync(memory.number, bytes, 0, bytes.length, address);
    if (!isAll && bytes.equals(noBytes.subarray(0, bytes.length))) continue;
    const table = Buffer.alloc(16);
    table.writeBigUInt64LE(BigInt(address), 0);
    table.writeBigUInt64LE(BigInt(bytes.length), 8);
    await ask(reading, sent, "contents", table, [], bytes);
  }
}

async function ask(
  reading: Reading,
  { misbehaviour }: Sent,
  step: Step,
  payload: Buffer = Buffer.alloc(0),
  descriptors: readonly number[] = [],
  contents: Buffer = Buffer.alloc(0),
): Promise<void> {
  const how = misbehaviour(step);
  if (how === "hang") await Promise.withResolvers<void>().promise;
  if (how === "close") throw new MovedAway("it was told to hang up");
  const length = how === "flood" ? 2 ** 40 : payload.length;
  reading.stream.send(header(how === "odd" ? ODD : numbers[step], length));
  if (payload.length > 0) reading.stream.send(payload, how === "lie" ? [] : descriptors);
  if (contents.length > 0) reading.stream.send(contents);
  const answer = await reading.take(16);
  if (answer.readUInt16LE(0) !== 1) throw new MovedAway("the other end answered with an error");
}

interface Received {
  readonly path: string;
  readonly onListening: () => void;
  /** Makes the machine, or throws. */
  readonly take: (machine: {
    config: unknown;
    memory: OwnedDescriptor | undefined;
  }) => Promise<OwnedDescriptor>;
  /** Opens its disks: what is on them has to be what the guest knows. @throws */
  readonly restore: () => void;
  readonly misbehaviour: (step: Step) => FakeOrders["how"];
}

/** What may come when. */
const order: Readonly<Record<string, readonly Step[]>> = {
  "": ["start"],
  start: ["memory", "config"],
  memory: ["memory", "config"],
  config: ["contents", "state"],
  contents: ["contents", "state"],
  state: ["complete", "complete-paused"],
};

/** @throws MovedAway when it does not come whole */
export async function receiveFakeMachine(
  loop: EventLoop,
  received: Received,
): Promise<{ readonly isPaused: boolean }> {
  const { path } = received;
  const accepted = Promise.withResolvers<OwnedDescriptor>();
  using _listener = new Listener(loop, listenAt(path), {
    path,
    onConnection: accepted.resolve,
    onExhausted: accepted.reject,
  });
  received.onListening();
  const reading = new Reading(loop, await accepted.promise);
  try {
    return await receiveAll(reading, received);
  } finally {
    reading.stream.finish();
    if (existsSync(path)) unlinkSync(path);
  }
}

async function receiveAll(reading: Reading, received: Received): Promise<{ isPaused: boolean }> {
  const place: Place = { memory: undefined };
  for (let last = ""; ; ) {
    const head = await reading.take(16);
    const number = head.readUInt16LE(0);
    const payload = await reading.take(Number(head.readBigUInt64LE(8)));
    const [step] = (Object.keys(numbers) as Step[]).filter((name) => numbers[name] === number);
    const how = step === undefined ? undefined : received.misbehaviour(step);
    if (how === "hang") await Promise.withResolvers<void>().promise;
    if (how === "close") throw new MovedAway("it was told to hang up");
    if (how === "odd") reading.stream.send(header(ODD, 0));
    const isRefused = step === undefined || how === "refuse";
    if (isRefused || order[last]?.includes(step) !== true) fail(reading, `${number} after ${last}`);
    try {
      await takeStep(reading, received, { step, payload, place });
    } catch (failure) {
      reading.stream.send(header(2, 0));
      throw failure;
    }
    reading.stream.send(header(1, 0));
    if (step === "complete" || step === "complete-paused") return { isPaused: step !== "complete" };
    last = step;
  }
}

function fail(reading: Reading, reason: string): never {
  reading.stream.send(header(2, 0));
  throw new MovedAway(reason);
}

/** Where a machine's memory is, once that is known. */
interface Place {
  memory: OwnedDescriptor | undefined;
}

async function takeStep(
  reading: Reading,
  received: Received,
  { step, payload, place }: { step: Step; payload: Buffer; place: Place },
): Promise<void> {
  const { descriptors } = reading;
  if (step === "contents") await takeContents(reading, payload, place);
  if (step === "memory" && (descriptors.length !== 1 || payload.readUInt32LE(0) !== SLOT)) {
    throw new MovedAway("expected one descriptor, of the slot that was sent");
  }
  if (step === "config") {
    const text = payload.toString("utf8");
    if (!text.includes(EXACT)) throw new MovedAway(`the numbers of ${EXACT} were changed`);
    const [memory] = descriptors;
    const { vm_config: config } = JSON.parse(text) as { vm_config: VmConfigBody };
    if (memory !== undefined && fstatSync(memory.number).size !== config.memory?.size) {
      throw new MovedAway("other memory");
    }
    place.memory = await received.take({ config, memory });
  }
  if (step === "state" && payload.toString("utf8") !== STATE) {
    throw new MovedAway("the state is not the one that was sent");
  }
  if (step === "state") received.restore();
}

async function takeContents(reading: Reading, table: Buffer, { memory }: Place): Promise<void> {
  if (memory === undefined || table.length % 16 !== 0) throw new MovedAway("no place for memory");
  for (let entry = 0; entry < table.length; entry += 16) {
    const address = Number(table.readBigUInt64LE(entry));
    const bytes = await reading.take(Number(table.readBigUInt64LE(entry + 8)));
    writeSync(memory.number, bytes, 0, bytes.length, address);
  }
}
