import type { KeptResult } from "../protocol-operator.ts";
import { badge, type Column, element, table } from "./dom.ts";
import { valueText } from "./format.ts";

/** Which card of a host reached which other one: frames of the stage Network, as a square. */

type Report = KeptResult["report"];

/** As the stage names what it counted of each two cards. */
const MEASURED = "pair-frames";
const BETWEEN = " to ";

interface Way {
  /** undefined: these two were not tried. */
  readonly received: number | undefined;
  /** What the stage says of this way; none where it is well, or where there is no way at all. */
  readonly outcome: string | undefined;
}

export interface Matrix {
  readonly cards: readonly string[];
  readonly rows: readonly { readonly from: string; readonly ways: readonly Way[] }[];
}

export const isOfMatrix = ({ name }: Report["measurements"][number]): boolean => name === MEASURED;

/** @returns undefined where no two cards were tried */
export function matrixOf({ measurements, findings }: Report): Matrix | undefined {
  const received = new Map(
    measurements.filter(isOfMatrix).map(({ component, value }) => [component, value]),
  );
  if (received.size === 0) return undefined;
  const told = new Map(
    findings
      .filter(({ outcome }) => outcome !== "PASS")
      .map(({ component, outcome }) => [component, outcome]),
  );
  const cards = [...new Set([...received.keys()].flatMap((key) => key.split(BETWEEN)))];
  const rows = cards.map((from) => ({
    from,
    ways: cards.map((to): Way => {
      const key = `${from}${BETWEEN}${to}`;
      return { received: received.get(key), outcome: told.get(key) };
    }),
  }));
  return { cards, rows };
}

export function matrixTable({ cards, rows }: Matrix): HTMLElement {
  const columns: Column<Matrix["rows"][number]>[] = [
    { title: "frames from", kind: "tight", cell: ({ from }) => element("strong", {}, from) },
    ...cards.map((to, index) => ({
      title: `to ${to}`,
      kind: "number" as const,
      cell: ({ ways }: Matrix["rows"][number]) => wayCell(ways[index]),
    })),
  ];
  return table(rows, columns, "which card reached which");
}

function wayCell(way: Way | undefined): HTMLElement | string {
  if (way?.received === undefined) return "";
  if (way.received === 0 && way.outcome === undefined) {
    return element("span", { class: "faint" }, "no way");
  }
  const frames = valueText(way.received);
  if (way.outcome === undefined) return frames;
  return element("span", {}, `${frames} `, badge(way.outcome));
}
