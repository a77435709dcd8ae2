import * as v from "valibot";
import { imageLimits } from "./limits.ts";
import { formatHash, parseHash } from "./nar.ts";

/** The hash of each file of an image: by its name in the image, or by its absolute path. */
export type FileHashes = ReadonlyMap<string, string>;

export interface ManifestRefusal {
  /** The name of the file, or the line of the manifest; "" for all of it. */
  readonly key: string;
  readonly expected: string;
  readonly received: string;
}

export type ManifestOutcome =
  | { readonly kind: "ok"; readonly files: FileHashes }
  | { readonly kind: "refused"; readonly errors: readonly ManifestRefusal[] };

/** What a manifest is called in an image: of itself it has no hash. */
export const manifestNames: readonly string[] = ["manifest.json", "SHA256SUMS"];

const manifestSchema = v.strictObject({ files: v.record(v.string(), v.unknown()) });

/**
 * Reads manifest.json, `{"files": {"disk.img": "sha256-…="}}`, or SHA256SUMS, as sha256sum(1)
 * writes it. Pure.
 */
export function parseManifest(text: string): ManifestOutcome {
  const { length } = new TextEncoder().encode(text);
  if (length > imageLimits.textBytes) {
    return refuse("", `at most ${imageLimits.textBytes} bytes`, `${length} bytes`);
  }
  const pairs = text.trimStart().startsWith("{") ? pairsOfJson(text) : pairsOfLines(text);
  if ("kind" in pairs) return pairs;
  const errors: ManifestRefusal[] = [];
  const files = new Map<string, string>();
  for (const { place, name, hash } of pairs) {
    const found = checkPair(name, hash, files);
    if (found === undefined) files.set(name, hash);
    else errors.push({ key: place, ...found });
  }
  if (pairs.length > imageLimits.entries) {
    return refuse("", `at most ${imageLimits.entries} files`, `${pairs.length} files`);
  }
  if (errors.length > 0) return { kind: "refused", errors };
  return files.size > 0 ? { kind: "ok", files } : refuse("", "at least one file", "none");
}

interface Pair {
  readonly place: string;
  readonly name: string;
  readonly hash: string;
}

function checkPair(name: string, hash: string, known: FileHashes) {
  const isName = /^\/?[^/\0]+(\/[^/\0]+)*$/.test(name) && !/(^|\/)\.{1,2}(\/|$)/.test(name);
  if (!isName) {
    return { expected: 'a name without "." and ".."', received: JSON.stringify(name.slice(0, 80)) };
  }
  if (known.has(name)) return { expected: "each file once", received: `${name} again` };
  if (parseHash(hash) !== undefined) return undefined;
  return { expected: '"sha256-" and 44 letters of base64', received: JSON.stringify(hash) };
}

function pairsOfJson(text: string): readonly Pair[] | ManifestOutcome {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    return refuse("", "JSON", (error as Error).message);
  }
  const parsed = v.safeParse(manifestSchema, json);
  if (!parsed.success) {
    return refuse("files", '{"files": {"disk.img": "sha256-…="}}', parsed.issues[0].received);
  }
  return Object.entries(parsed.output.files).map(([name, hash]) => ({
    place: `files.${name}`,
    name,
    hash: typeof hash === "string" ? hash.slice(0, 80) : JSON.stringify(hash).slice(0, 80),
  }));
}

/** "<64 hex>  name", or with "*" in the place of the second space. */
function pairsOfLines(text: string): readonly Pair[] | ManifestOutcome {
  const errors: ManifestRefusal[] = [];
  const pairs: Pair[] = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (line === "") continue;
    const place = `line ${index + 1}`;
    const [, digits, name] = /^([\da-f]{64}) [ *](.+)$/i.exec(line) ?? [];
    if (digits === undefined || name === undefined) {
      const expected = "64 hexadecimal digits, two spaces and a name";
      errors.push({ key: place, expected, received: JSON.stringify(line.slice(0, 80)) });
    } else {
      const plain = name.startsWith("./") ? name.slice(2) : name;
      pairs.push({ place, name: plain, hash: formatHash(Buffer.from(digits, "hex")) });
    }
  }
  return errors.length > 0 ? { kind: "refused", errors } : pairs;
}

function refuse(key: string, expected: string, received: string): ManifestOutcome {
  return { kind: "refused", errors: [{ key, expected, received }] };
}
