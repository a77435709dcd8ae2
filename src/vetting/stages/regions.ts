/** Which part of a disk is looked at where not all of it is. */

/** Bytes one after the other on a disk. */
export interface Region {
  readonly offset: number;
  readonly length: number;
}

export interface Spread {
  readonly size: number;
  /** Offsets are multiples of it, and so are lengths but the disk's last. */
  readonly block: number;
  /** 0 to 1. */
  readonly extent: number;
  /** Regions, at most; 4,096 without a word. */
  readonly most?: number;
  /** The same seed gives the same regions: the disk's serial. */
  readonly seed: string;
}

/** Long enough that a disk with a head reads more than it moves. */
const REGION = 32 * 1024 ** 2;
const MOST_REGIONS = 4_096;

/**
 * At least `extent` of the disk: of each of its equal parts the same share, at a place that the
 * seed draws. The first begins with the disk, the last ends with it, because that is where tables
 * of partitions stand.
 */
export function regionsOf(spread: Spread): readonly Region[] {
  const { size, block, extent, seed, most = MOST_REGIONS } = spread;
  if (size === 0 || extent === 0) return [];
  if (extent === 1 || size <= block) return [{ offset: 0, length: size }];
  const blocks = Math.ceil(size / block);
  const wanted = Math.min(most, Math.ceil((size * extent) / REGION));
  const parts = Math.max(1, Math.min(wanted, Math.floor(blocks * extent)));
  return Array.from({ length: parts }, (_, index) => {
    const first = Math.floor((blocks * index) / parts);
    const end = Math.floor((blocks * (index + 1)) / parts);
    // The disk's last block may be a short one.
    const spare = index === parts - 1 ? 1 : 0;
    const taken = Math.min(end - first, Math.ceil((end - first) * extent) + spare);
    const start = first + shift({ index, parts, slack: end - first - taken, seed });
    const offset = start * block;
    return { offset, length: Math.min(size, (start + taken) * block) - offset };
  });
}

function shift({ index, parts, slack, seed }: Place): number {
  if (index === parts - 1 && parts > 1) return slack;
  return index === 0 ? 0 : draw(`${seed}/${index}`) % (slack + 1);
}

interface Place {
  readonly index: number;
  readonly parts: number;
  readonly slack: number;
  readonly seed: string;
}

/** FNV-1a of 32 bits, and the last step of MurmurHash3, which spreads neighbours. */
export function draw(text: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
