import { type Inventory, inventorySchema } from "../../hardware/inventory.ts";
import { nearest } from "../../units/nearest.ts";
import {
  type Condition,
  type PathRefusal,
  parsePath,
  type Selector,
  type Step,
  writeConditions,
  writeKey,
} from "./path.ts";

/** Places of an inventory: what there can be at all, by its schema, and what is there. Pure. */

export type PlaceType = "text" | "number" | "flag" | "table" | "list" | "count";

/** A path that an inventory can have. */
export interface KnownPath {
  readonly kind: "path";
  readonly steps: readonly Step[];
  readonly type: PlaceType;
}

/** What tells the elements of a list apart. */
export const listKeys: Readonly<Record<string, string>> = {
  disks: "serial",
  "memory.slots": "locator",
  power_supplies: "locator",
  network: "mac",
  processors: "socket",
  graphics: "pci",
  pci: "address",
};

/** One element, or what is in it. */
export interface Place {
  /** With the keys of its elements, where the rule had `*`. */
  readonly path: string;
  readonly steps: readonly FoundStep[];
  /** null: the host does not tell. undefined: it is not there. */
  readonly value: unknown;
}

export interface FoundStep {
  readonly word: string;
  /** Of the list that this step leads into; undefined for a word alone. */
  readonly element: Record<string, unknown> | undefined;
  /** What it was asked by, where it is not there. */
  readonly key: string | undefined;
}

/** What of a schema says which places there are. */
interface Shape {
  readonly type: string;
  readonly entries?: Readonly<Record<string, Shape>>;
  readonly item?: Shape;
  readonly wrapped?: Shape;
}

const types: Readonly<Record<string, PlaceType>> = {
  strict_object: "table",
  array: "list",
  string: "text",
  picklist: "text",
  number: "number",
  boolean: "flag",
};

function unwrap(shape: Shape): Shape {
  let inner = shape;
  while (inner.wrapped !== undefined) inner = inner.wrapped;
  return inner;
}

/** Reads a path, and holds it against what an inventory can have. */
export function knownPath(text: string): KnownPath | PathRefusal {
  const parsed = parsePath(text);
  if (parsed.kind === "refused") return parsed;
  const { steps } = parsed;
  let shape: Shape = inventorySchema as unknown as Shape;
  let name = "";
  for (const [index, step] of steps.entries()) {
    const next = shape.entries?.[step.word];
    if (next === undefined) return unknownWord(step, shape);
    shape = unwrap(next);
    name = name === "" ? step.word : `${name}.${step.word}`;
    if (shape.item === undefined) {
      if (step.selector !== undefined) {
        return refuse(step, "no brackets: this is no list", step.word);
      }
      continue;
    }
    const [after, isLast] = [steps[index + 1], index + 2 === steps.length];
    if (after?.word === "count" && isLast && after.selector === undefined) {
      const wrong = checkSelector(step, name, shape.item);
      return wrong ?? { kind: "path", steps, type: "count" };
    }
    if (step.selector === undefined) {
      return refuse(step, `${name}[KEY], ${name}[*] or ${name}.count`, step.word);
    }
    const wrong = checkSelector(step, name, shape.item);
    if (wrong !== undefined) return wrong;
    shape = unwrap(shape.item);
  }
  return { kind: "path", steps, type: types[shape.type] ?? "table" };
}

function refuse(step: Step, expected: string, received: string): PathRefusal {
  return { kind: "refused", column: step.column, expected, received };
}

function unknownWord(step: Step, shape: Shape): PathRefusal {
  const known = Object.keys(shape.entries ?? {});
  if (known.length === 0) return refuse(step, "the end: there is nothing below", step.word);
  const meant = nearest(step.word, known);
  const refusal = refuse(step, `one of ${known.join(", ")}`, step.word);
  return meant === undefined ? refusal : { ...refusal, mend: `Did you mean ${meant}?` };
}

function checkSelector(step: Step, list: string, item: Shape): PathRefusal | undefined {
  const { selector } = step;
  if (selector === undefined || selector.kind === "each") return undefined;
  if (selector.kind === "key") {
    if (Object.hasOwn(listKeys, list)) return undefined;
    return refuse(step, `${list}[*] or ${list}.count: its elements have no key`, selector.key);
  }
  const entries = unwrap(item).entries ?? {};
  for (const { word, value } of selector.conditions) {
    const type = types[unwrap(entries[word] ?? { type: "" }).type];
    if (type === undefined || type === "table" || type === "list") {
      const known = Object.keys(entries).filter((key) => !isDeep(entries[key]));
      return refuse(step, `a condition on one of ${known.join(", ")}`, word);
    }
    if (value !== null && typeOf(value) !== type) {
      return refuse(step, `a ${type} for ${word}`, JSON.stringify(value));
    }
  }
  return undefined;
}

const isDeep = (shape: Shape | undefined) =>
  shape === undefined || ["strict_object", "array"].includes(unwrap(shape).type);

export function typeOf(value: string | number | boolean): "text" | "number" | "flag" {
  if (typeof value === "string") return "text";
  return typeof value === "number" ? "number" : "flag";
}

/**
 * What stands there: one place, or one for each element that the path means. A list in which none
 * is meant gives one place that is not there.
 */
export function placesAt(known: KnownPath, inventory: Inventory): readonly Place[] {
  const isCount = known.type === "count";
  const steps = isCount ? known.steps.slice(0, -1) : known.steps;
  let places: Place[] = [{ path: "", steps: [], value: inventory }];
  let name = "";
  for (const [index, step] of steps.entries()) {
    name = name === "" ? step.word : `${name}.${step.word}`;
    const isCounted = isCount && index === steps.length - 1;
    const listName = name;
    places = places.flatMap((place) =>
      isCounted ? [countAt(place, step, listName)] : below(place, step, listName),
    );
  }
  return places;
}

function below(place: Place, step: Step, list: string): Place[] {
  const value = childOf(place.value, step.word);
  const path = place.path === "" ? step.word : `${place.path}.${step.word}`;
  const word = { word: step.word, element: undefined, key: undefined };
  if (step.selector === undefined) return [{ path, steps: [...place.steps, word], value }];
  const found = Array.isArray(value) ? chosenOf(value, step.selector, list) : [];
  if (found.length === 0) {
    const key = step.selector.kind === "key" ? step.selector.key : undefined;
    const steps = [...place.steps, { ...word, key }];
    return [{ path: path + writeSelector(step.selector), steps, value: undefined }];
  }
  return found.map((element) => ({
    path: path + nameOf(element, list),
    steps: [...place.steps, { ...word, element }],
    value: element,
  }));
}

function countAt(place: Place, step: Step, list: string): Place {
  const value = childOf(place.value, step.word);
  const { selector } = step;
  const chosen = Array.isArray(value) ? chosenOf(value, selector ?? { kind: "each" }, list) : [];
  const path = `${place.path === "" ? "" : `${place.path}.`}${step.word}`;
  const shown = selector === undefined ? "" : writeSelector(selector);
  const steps = [...place.steps, { word: step.word, element: undefined, key: undefined }];
  return { path: `${path}${shown}.count`, steps, value: chosen.length };
}

function childOf(value: unknown, word: string): unknown {
  if (typeof value !== "object" || value === null) return undefined;
  return (value as Record<string, unknown>)[word];
}

type Element = Record<string, unknown>;

function chosenOf(list: readonly Element[], selector: Selector, name: string): Element[] {
  if (selector.kind === "each") return [...list];
  if (selector.kind === "where") return list.filter((one) => fits(one, selector.conditions));
  const key = listKeys[name] ?? "";
  return list.filter((one) => one[key] === selector.key);
}

const fits = (element: Element, conditions: readonly Condition[]) =>
  conditions.every(({ word, value }) => element[word] === value);

export function writeSelector(selector: Selector): string {
  if (selector.kind === "each") return "[*]";
  return selector.kind === "key" ? writeKey(selector.key) : writeConditions(selector.conditions);
}

/** By its key; a disk that has no serial by its name, which holds for one boot. */
function nameOf(element: Element, list: string): string {
  const key = element[listKeys[list] ?? ""];
  if (typeof key === "string") return writeKey(key);
  const name = element["name"] ?? element["property"];
  const word = "name" in element ? "name" : "property";
  return typeof name === "string" ? writeConditions([{ word, value: name }]) : "[*]";
}
