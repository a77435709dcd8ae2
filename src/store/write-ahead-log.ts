import { readFileSync } from "node:fs";
import { DatabaseDamaged } from "./database.ts";

/** https://www.sqlite.org/fileformat.html, section 4.1: numbers are big-endian. */
const headerBytes = 32;
const frameHeaderBytes = 24;
/** Checksums are over words of this machine's order when the last bit is 1 on a big-endian one. */
const magic = { littleEndian: 0x377f0682, bigEndian: 0x377f0683 } as const;

/**
 * Looks for commits in a write-ahead log that SQLite would leave out: it reads up to the first
 * frame that is not as it was written, and takes what follows for a transaction that was cut
 * short. One such transaction is usual after a kill or a power cut: it was not acknowledged, and
 * no other was begun. With two or more behind the break, acknowledged ones are among them.
 * @throws DatabaseDamaged
 */
export function checkWriteAheadLog(path: string): void {
  let log: Buffer;
  try {
    log = readFileSync(path);
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return;
    throw error;
  }
  const header = readHeader(log);
  if (header === undefined) {
    // It is written through before the first frame is: without it there are none.
    if (log.subarray(headerBytes).some((byte) => byte !== 0)) throw brokenLog(path, "its header");
    return;
  }
  const lost = lostCommits(log, header);
  if (lost > 1) throw brokenLog(path, `a frame with ${lost} commits behind it`);
}

interface Header {
  readonly pageBytes: number;
  /** Over the header; it runs on over the frames. */
  readonly sum: Checksum;
}

/** @returns undefined for one that is not whole */
function readHeader(log: Buffer): Header | undefined {
  if (log.length < headerBytes) return undefined;
  const first = log.readUInt32BE(0);
  const pageBytes = log.readUInt32BE(8);
  if (first !== magic.littleEndian && first !== magic.bigEndian) return undefined;
  const sum = new Checksum(first === magic.bigEndian);
  sum.add(log, 0, 24);
  return sum.is(log.readUInt32BE(24), log.readUInt32BE(28)) ? { pageBytes, sum } : undefined;
}

/** @returns how many commits of this log stand behind its first frame that is not whole */
function lostCommits(log: Buffer, { pageBytes, sum }: Header): number {
  let isWhole = true;
  let lost = 0;
  const frameBytes = frameHeaderBytes + pageBytes;
  for (let at = headerBytes; at + frameBytes <= log.length; at += frameBytes) {
    // What an earlier turn of the log left behind has other salts.
    const isOfThisTurn = log.compare(log, 16, 24, at + 8, at + 16) === 0;
    if (isWhole) {
      sum.add(log, at, 8);
      sum.add(log, at + frameHeaderBytes, pageBytes);
      isWhole = isOfThisTurn && sum.is(log.readUInt32BE(at + 16), log.readUInt32BE(at + 20));
    }
    const isCommit = log.readUInt32BE(at + 4) !== 0;
    if (!isWhole && isOfThisTurn && isCommit) lost += 1;
  }
  return lost;
}

/** Section 4.2: two sums over pairs of 32-bit words, each running on over all frames. */
class Checksum {
  readonly #isBigEndian: boolean;
  #first = 0;
  #second = 0;

  constructor(isBigEndian: boolean) {
    this.#isBigEndian = isBigEndian;
  }

  add(bytes: Buffer, start: number, length: number): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset + start, length);
    const isLittleEndian = !this.#isBigEndian;
    for (let at = 0; at < length; at += 8) {
      this.#first = (this.#first + view.getUint32(at, isLittleEndian) + this.#second) >>> 0;
      this.#second = (this.#second + view.getUint32(at + 4, isLittleEndian) + this.#first) >>> 0;
    }
  }

  is(first: number, second: number): boolean {
    return this.#first === first && this.#second === second;
  }
}

function brokenLog(path: string, what: string): DatabaseDamaged {
  return new DatabaseDamaged(`expected ${path} as it was written, received another: ${what}`);
}
