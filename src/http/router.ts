import type { Permission } from "./principal.ts";

export type Method = "GET" | "POST" | "PUT" | "DELETE";

/** What stands at a path, of whatever kind: a route, a stream, a WebSocket, a page. */
export interface Place {
  readonly name: string;
  readonly method: Method;
  readonly path: string;
  readonly summary: string;
  readonly permission: Permission;
}

export type Match<Found extends Place> =
  | { readonly kind: "found"; readonly place: Found; readonly parameters: PathParameters }
  /** Something stands there, for other methods. */
  | { readonly kind: "method"; readonly allowed: readonly Method[] }
  | { readonly kind: "nothing" };

type PathParameters = Readonly<Record<string, string>>;

/** Bytes of a path that is looked up, and parts between its slashes. */
export const PATH_BYTES = 2_048;
export const PATH_PARTS = 16;

interface Entry<Found extends Place> {
  readonly parts: readonly string[];
  readonly place: Found;
}

/** Finds what stands at a path. A word goes before a parameter: "/v1/hosts/all" before ":name". */
export class Router<Found extends Place> {
  readonly #entries: readonly Entry<Found>[];

  /** @throws Error when two have one name, or could both be meant by one request: a bug */
  constructor(places: readonly Found[]) {
    const names = new Set<string>();
    const shapes = new Map<string, string>();
    for (const { name, method, path } of places) {
      if (names.has(name)) throw new Error(`Two routes are named ${name}`);
      names.add(name);
      // "/" itself, and a slash at the end, are places of their own.
      if (!/^(\/([\w.-]+|:\w+))*\/?$/.test(path) || path === "") {
        throw new Error(`The route ${name} has a path that is none: ${path}`);
      }
      const shape = `${method} ${path.replaceAll(/:\w+/g, ":")}`;
      const other = shapes.get(shape);
      if (other !== undefined) throw new Error(`${name} and ${other} stand at one path: ${path}`);
      shapes.set(shape, name);
    }
    this.#entries = places
      .map((place) => ({ place, parts: place.path.slice(1).split("/") }))
      .toSorted((left, right) => compareParts(left.parts, right.parts));
  }

  /** @param path as it came, percent-encoded */
  find(method: string, path: string): Match<Found> {
    if (path.length > PATH_BYTES) return { kind: "nothing" };
    const parts = path.slice(1).split("/", PATH_PARTS + 1);
    const allowed = new Set<Method>();
    for (const { parts: wanted, place } of this.#entries) {
      const parameters = matchParts(wanted, parts);
      if (parameters === undefined) continue;
      if (place.method === method) return { kind: "found", place, parameters };
      allowed.add(place.method);
    }
    return allowed.size === 0 ? { kind: "nothing" } : { kind: "method", allowed: [...allowed] };
  }
}

/** Words first, so that the first entry that matches is the one that is meant. */
function compareParts(left: readonly string[], right: readonly string[]): number {
  for (let index = 0; index < Math.min(left.length, right.length); index += 1) {
    const isLeft = left[index]?.startsWith(":") === true;
    const isRight = right[index]?.startsWith(":") === true;
    if (isLeft !== isRight) return isLeft ? 1 : -1;
  }
  return 0;
}

function matchParts(
  wanted: readonly string[],
  parts: readonly string[],
): PathParameters | undefined {
  if (wanted.length !== parts.length) return undefined;
  const parameters: [string, string][] = [];
  for (const [index, want] of wanted.entries()) {
    const part = parts[index] ?? "";
    if (!want.startsWith(":")) {
      if (want !== part) return undefined;
      continue;
    }
    const value = decodePart(part);
    if (value === undefined || value === "") return undefined;
    parameters.push([want.slice(1), value]);
  }
  return Object.fromEntries(parameters);
}

function decodePart(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}
