/** What `nvidia-smi nvlink` prints of links between cards, which has no other form. Pure. */

export const nvlinkQueries = {
  states: ["nvlink", "-s"],
  errors: ["nvlink", "-e"],
} as const;

export const nvlinkLimits = { cards: 64, links: 64, line: 512 } as const;

/** Of one card. A count is null where nothing was told of it. */
export interface CardLinks {
  readonly links: number;
  readonly active: number;
  /** Links that are not active, by number. */
  readonly inactive: readonly number[];
  /** Packets that were sent again; links that had to be trained anew; flits with a wrong sum. */
  readonly replays: number | null;
  readonly recoveries: number | null;
  readonly checksums: number | null;
}

const heading = /^GPU \d+: .*\(UUID: (GPU-[0-9a-f-]{8,40})\)$/i;
const state = /^Link (\d{1,2}): (?:(\d+(?:\.\d+)?) GB\/s|<inactive>)$/i;
const count = /^Link (\d{1,2}): (Replay|Recovery|CRC|CRC FLIT) Errors: (\d{1,15})$/i;

/**
 * By the card's UUID. A card whose links are not told, or are told as none that exist, is not
 * there: cards without NVLink print a sentence.
 */
export function parseNvlinks(states: string, errors: string): ReadonlyMap<string, CardLinks> {
  const counts = new Map<string, Map<string, number>>();
  for (const { card, line } of linesOf(errors)) {
    const [, , kind = "", number] = count.exec(line) ?? [];
    if (number === undefined) continue;
    const name = kind.toLowerCase().split(" ", 1)[0] ?? "";
    const sums = counts.get(card) ?? new Map<string, number>();
    counts.set(card, sums.set(name, (sums.get(name) ?? 0) + Number(number)));
  }
  const links = new Map<string, Map<number, boolean>>();
  for (const { card, line } of linesOf(states)) {
    const [, number, speed] = state.exec(line) ?? [];
    if (number === undefined) continue;
    const known = links.get(card) ?? new Map<number, boolean>();
    if (known.size < nvlinkLimits.links) known.set(Number(number), speed !== undefined);
    links.set(card, known);
  }
  return new Map(
    [...links].map(([card, known]) => {
      const sums = counts.get(card);
      const inactive = [...known].flatMap(([number, isActive]) => (isActive ? [] : [number]));
      const found: CardLinks = {
        ...{ links: known.size, active: known.size - inactive.length, inactive },
        replays: sums?.get("replay") ?? null,
        recoveries: sums?.get("recovery") ?? null,
        checksums: sums?.get("crc") ?? null,
      };
      return [card, found];
    }),
  );
}

/** Each line below the heading of a card, with that card. */
function* linesOf(output: string): Generator<{ readonly card: string; readonly line: string }> {
  const cards = new Set<string>();
  let card: string | undefined;
  for (const text of output.split("\n")) {
    if (text.length > nvlinkLimits.line) continue;
    const line = text.trim();
    if (/^GPU \d+:/i.test(line)) {
      // One whose heading is not understood must not have its links told as another's.
      card = heading.exec(line)?.[1];
      if (card !== undefined && cards.size >= nvlinkLimits.cards) card = undefined;
      if (card !== undefined) cards.add(card);
    } else if (card !== undefined) yield { card, line };
  }
}
