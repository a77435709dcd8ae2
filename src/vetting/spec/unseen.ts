import type { Inventory } from "../../hardware/inventory.ts";
import { parsePath, type Step } from "./path.ts";
import type { FoundStep, Place } from "./place.ts";

/** Why something of an inventory could not be looked at. Pure. */

export interface Unseen {
  readonly property: string;
  readonly reason: string;
  /** undefined: no path, and compared with nothing. */
  readonly steps: readonly Step[] | undefined;
}

export function unseenOf(inventory: Inventory): readonly Unseen[] {
  return inventory.unseen.map(({ property, reason }) => {
    const parsed = parsePath(property);
    return { property, reason, steps: parsed.kind === "path" ? parsed.steps : undefined };
  });
}

/** What hides this place: it was not seen itself, or nothing was where it stands. */
export function hidingOf(place: Place, unseen: readonly Unseen[]): Unseen | undefined {
  return unseen.find(({ steps }) => steps !== undefined && hides(steps, place.steps));
}

function hides(steps: readonly Step[], place: readonly FoundStep[]): boolean {
  if (steps.length > place.length) return false;
  return steps.every(({ word, selector }, index) => {
    const found = place[index];
    if (found === undefined || found.word !== word) return false;
    if (selector === undefined || selector.kind === "each") return true;
    if (selector.kind === "where") return false;
    // Readers name a disk or a card as the kernel does: what they cannot read may be its key.
    const names = found.element === undefined ? [found.key] : namesOf(found.element);
    return names.includes(selector.key);
  });
}

const namesOf = (element: Record<string, unknown>) =>
  ["name", "serial", "locator", "mac", "socket", "pci", "address"].map((word) => element[word]);
