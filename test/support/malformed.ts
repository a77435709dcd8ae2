/** Frames that are wrong in many ways, and a way to throw many of them at a socket. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { finishWriting } from "../../ffi/unix-socket.ts";
import { encodeFrame } from "../../src/messaging/frame.ts";
import type { RawClient } from "./agent-client.ts";
import { SeededChance } from "./chance.ts";

/** What a connection is to be told, in order; each with this many descriptors. */
export interface Piece {
  readonly bytes: Uint8Array;
  readonly descriptors: number;
}

const encoder = new TextEncoder();
const text = (value: string): Uint8Array => encoder.encode(value);

function randomBytes(chance: SeededChance, most: number): Uint8Array {
  return Uint8Array.from({ length: 1 + chance.below(most) }, () => chance.below(256));
}

const oddNumbers = [
  "-1",
  "1e308",
  "1e999",
  "0.5",
  "9007199254740993",
  "null",
  "true",
  '"1"',
  "[]",
  "{}",
] as const;
const oddTexts = [
  "",
  "\0",
  "\ud800",
  "x".repeat(300),
  "__proto__",
  "é漢😀",
  "../..",
  "%s%n",
] as const;

/** A body that is JSON and close to a request. */
function oddBody(chance: SeededChance): string {
  const number = () => chance.pick(oddNumbers);
  const word = () => JSON.stringify(chance.pick(oddTexts));
  const kind = chance.pick(["start", "ping", "seen", "socket", "notify", "hello", "exited", "x"]);
  const verb = chance.pick([
    "list",
    "show",
    "start",
    "stop",
    "signal",
    "logs",
    "subscribe",
    "wait",
  ]);
  const deep = 1 + chance.below(2_000);
  return chance.pick([
    () => `{"kind":"${kind}","id":${number()}}`,
    () => `{"kind":"${kind}","id":1,"invocation":${word()},"argv":[${word()}],"environment":[]}`,
    () => `{"kind":"start","id":1,"invocation":"${"0".repeat(32)}","argv":${number()}}`,
    () => `{"kind":"socket","id":2,"family":${word()},"path":${word()}}`,
    () => `{"kind":"notify","id":2,"name":${word()}}`,
    () => `{"verb":"${verb}","id":${number()},"name":${word()},"signal":${number()}}`,
    () => `{"verb":"${verb}","id":1,"lines":${number()},"until":${word()},"after":${number()}}`,
    () => "[".repeat(deep) + "]".repeat(deep),
    () => `${'{"a":'.repeat(deep)}1${"}".repeat(deep)}`,
    () => number(),
    () => word(),
    () => `{"__proto__":{"kind":"ping"},"constructor":${number()}}`,
  ])();
}

function frameOf(body: string, count: { readonly bytes?: number; readonly descriptors?: number }) {
  const rest = `,"descriptors":${count.descriptors ?? 0},"body":${body}}\n`;
  const length = encoder.encode(rest).length + '{"bytes":'.length;
  const size = count.bytes ?? length + String(length + 3).length;
  return text(`{"bytes":${size}${rest}`);
}

/** One frame that is wrong. */
export function malformedPiece(chance: SeededChance): Piece {
  const body = oddBody(chance);
  const good = frameOf(body, {});
  const plain = (bytes: Uint8Array): Piece => ({ bytes, descriptors: 0 });
  return chance.pick([
    () => plain(randomBytes(chance, 200)),
    () => plain(good),
    () => plain(good.subarray(0, chance.below(good.length) + 1)),
    () => plain(frameOf(body, { bytes: chance.below(1_000) })),
    () => plain(frameOf(body, { bytes: 4_194_305 + chance.below(900_000_000) })),
    () => plain(frameOf(body, { descriptors: 1 + chance.below(400) })),
    () => ({ bytes: good, descriptors: 1 + chance.below(5) }),
    () => ({ bytes: frameOf(body, { descriptors: 3 }), descriptors: 2 }),
    () => ({ bytes: good, descriptors: 253 }),
    () => {
      const broken = good.slice();
      for (let count = 0; count < 3; count++)
        broken[chance.below(broken.length)] = chance.below(256);
      return plain(broken);
    },
    () => plain(text(`{"bytes":${chance.pick(oddNumbers)},"descriptors":0,"body":1}\n`)),
    () => plain(new Uint8Array(Buffer.concat([holdenHeader(chance), randomBytes(chance, 100)]))),
  ])();
}

function holdenHeader(chance: SeededChance): Uint8Array {
  const header = new Uint8Array(8);
  const view = new DataView(header.buffer);
  view.setUint32(0, chance.pick([0, 1, 3, 5, 11, 12, 99, 0x7fff_ffff]), true);
  view.setUint32(4, chance.pick([0, 1, 100, 8_452, 16_900, 16_901, 0xffff_ffff]), true);
  return header;
}

export interface Target {
  /** Connects, as a client or as an agent. */
  readonly connect: () => Promise<RawClient>;
  /** A valid first frame, after which other limits hold; undefined where there is none. */
  readonly hello: unknown;
  /** A descriptor to send. */
  readonly descriptor: number;
  /** It serves one connection at a time: each is waited for until it is over. */
  readonly oneAtATime?: boolean;
}

/** Throws wrong frames at a socket, several on each connection while it stands. */
export async function throwMalformed(
  target: Target,
  range: { readonly seed: number; readonly frames: number },
): Promise<void> {
  const chance = new SeededChance(range.seed);
  for (let sent = 0; sent < range.frames; ) {
    using client = await target.connect();
    if (target.hello !== undefined && chance.happens(0.7)) {
      client.trySend(encodeFrame(target.hello));
    }
    const pieces = 1 + chance.below(12);
    for (let count = 0; count < pieces && sent < range.frames; count++) {
      const { bytes, descriptors } = malformedPiece(chance);
      sent += 1;
      const result = client.trySend(bytes, Array(descriptors).fill(target.descriptor));
      if (result < bytes.length) break;
    }
    if (chance.happens(0.2)) client.look();
    if (target.oneAtATime !== true) continue;
    finishWriting(client.socket);
    await client.closed();
  }
}

/** What each open descriptor of a process leads to, such as "socket:[1234]", in order. */
export function openLinksOf(processId: number): string[] {
  const folder = `/proc/${processId}/fd`;
  return readdirSync(folder).flatMap((name) => {
    try {
      return [readlinkSync(`${folder}/${name}`)];
    } catch {
      // Closed since it was listed.
      return [];
    }
  });
}

/** How many descriptors a process has open. */
export const descriptorsOf = (processId: number): number => openLinksOf(processId).length;

/** Anonymous memory of a process that is in use, in KiB. */
export function anonymousMemoryOf(processId: number): number {
  const match = /^RssAnon:\s+(\d+) kB/m.exec(readFileSync(`/proc/${processId}/status`, "latin1"));
  return Number(match?.[1]);
}
