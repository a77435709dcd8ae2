import type { Answer } from "./host-tree.ts";
import { type Inventory, inventoryLimits } from "./inventory.ts";

/** What could not be looked at, as an inventory tells it; each property once. Pure. */
export class Unseen {
  readonly #reasons = new Map<string, string>();

  add(property: string, reason: string): void {
    if (!this.#reasons.has(property)) this.#reasons.set(property, reason);
  }

  /** The value, or null and a line that says why. */
  take<Value>(property: string, answer: Answer<Value>): Value | null {
    if (answer.reason !== undefined) this.add(property, answer.reason);
    return answer.value;
  }

  /** Over the limit the last line says how many more there are. */
  list(): Inventory["unseen"] {
    const short = (text: string) => text.slice(0, inventoryLimits.text);
    const all = [...this.#reasons].map(([property, reason]) => ({
      property: short(property),
      reason: short(reason),
    }));
    if (all.length <= inventoryLimits.unseen) return all;
    const kept = all.slice(0, inventoryLimits.unseen - 1);
    const left = all.length - kept.length;
    return [...kept, { property: "unseen", reason: `${left} more were left out` }];
  }
}
