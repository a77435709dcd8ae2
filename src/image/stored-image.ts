import { lstatSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import type { Bytes } from "../units/units.ts";
import type { ImageFile } from "./image-file.ts";
import { ImageRefused, type Mismatch } from "./image-refused.ts";
import { imageLimits } from "./limits.ts";
import { resolveInTree } from "./resolve.ts";

/** What an image consists of. */
export const configurationName = "vm-config.json";

/** In the folder of a stored image. */
export const storedNames = { record: "image.json", tree: "tree", outside: "outside" } as const;

const size = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const hash = v.pipe(v.string(), v.startsWith("sha256-"));

const recordSchema = v.strictObject({
  format: v.literal(1),
  /** What it was verified by: "nar" its whole serialisation, "files" each file. */
  verified: v.picklist(["nar", "files", "nothing"]),
  /** Of the serialisation; of a manifest's lines. */
  hash,
  source: v.string(),
  /** Where its links may lead, but for itself. */
  links: v.nullable(v.string()),
  bytes: size,
  /** What was copied from /nix/store, by its path there. */
  outside: v.record(v.string(), v.strictObject({ name: v.string(), size, hash })),
});

/** What the store wrote about an image when it had verified it. */
export type ImageRecord = v.InferOutput<typeof recordSchema>;

/**
 * An image in the store, which nothing removes until this is disposed of. Its files are those that
 * were hashed.
 */
export class StoredImage implements Disposable {
  /** Its name in the store: "nar-…". */
  readonly key: string;
  readonly record: ImageRecord;
  readonly #folder: string;
  readonly #release: () => void;

  constructor(found: { key: string; folder: string; record: ImageRecord; release: () => void }) {
    this.key = found.key;
    this.record = found.record;
    this.#folder = found.folder;
    this.#release = found.release;
  }

  /** The folder with what was in the image. */
  get tree(): string {
    return join(this.#folder, storedNames.tree);
  }

  /** What vm-config.json says. @throws ImageRefused */
  configuration(): string {
    return readConfiguration(join(this.#folder, storedNames.tree), this.record.source);
  }

  /**
   * The absolute path of a file in the store, no part of which is a link.
   * @param key whose key of vm-config.json asks, for the refusal
   * @throws ImageRefused when it is not there, or leads out of the image
   */
  locate(file: ImageFile, key: string): string {
    const { source, links, outside } = this.record;
    const tree = join(this.#folder, storedNames.tree);
    const place = { source, outside: links ?? undefined };
    const found = file.kind === "inside" ? resolveInTree(tree, file.name, place) : file;
    if ("expected" in found) throw this.#refusal({ file: key, ...found });
    if (found.kind === "inside") return join(tree, found.name);
    const copied = Object.hasOwn(outside, found.path) ? outside[found.path] : undefined;
    if (copied !== undefined) return join(this.#folder, storedNames.outside, copied.name);
    throw this.#refusal({
      file: key,
      expected: "a file that was stored with the image",
      received: found.path,
    });
  }

  #refusal(mismatch: Omit<Mismatch, "mend">): ImageRefused {
    const mend = `Look at what the image's ${configurationName} names.`;
    return new ImageRefused("use the image", this.record.source, { ...mismatch, mend });
  }

  [Symbol.dispose](): void {
    this.#release();
  }
}

/** @returns undefined when there is none that was finished by a store of this kind */
export function readRecord(folder: string): ImageRecord | undefined {
  const path = join(folder, storedNames.record);
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined || !status.isFile() || status.size > imageLimits.textBytes * 4) {
    return undefined;
  }
  try {
    const parsed = v.safeParse(recordSchema, JSON.parse(readFileSync(path, "utf8")));
    return parsed.success ? parsed.output : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** @throws ImageRefused when there is none, or it is too long */
export function readConfiguration(tree: string, source: string): string {
  const refuse = (expected: string, received: string) => {
    const mend = `An image is a folder with ${configurationName} in it.`;
    const mismatch = { file: configurationName, expected, received, mend };
    return new ImageRefused("use the image", source, mismatch);
  };
  const path = join(tree, configurationName);
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status?.isFile() !== true) {
    throw refuse("a file", status === undefined ? "nothing" : "something else");
  }
  const { size: length }: { size: Bytes } = status;
  if (length > imageLimits.textBytes) {
    throw refuse(`at most ${imageLimits.textBytes} bytes`, `${length} bytes`);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(readFileSync(path));
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw refuse("text in UTF-8", "bytes that are none");
  }
}
