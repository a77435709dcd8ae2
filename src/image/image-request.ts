import type { Bytes } from "../units/units.ts";
import type { WantedFile } from "./image-file.ts";
import { ImageRefused } from "./image-refused.ts";
import type { FileHashes } from "./manifest.ts";
import { formatHash, parseHash } from "./nar.ts";

/** What an image must be. */
export type ExpectedHash =
  /** "sha256-…=", as `nix hash path` prints it. */
  | { readonly kind: "nar"; readonly hash: string }
  /** Each file, and no other: see `parseManifest`. */
  | { readonly kind: "files"; readonly files: FileHashes }
  /** Whatever it is: its hash is told, and nothing was verified. */
  | { readonly kind: "any" };

export interface ImageRequest {
  /** The folder, such as /nix/store/…-vm-image. */
  readonly source: string;
  readonly expected: ExpectedHash;
  /**
   * Where it was before it was brought here, from another host: its configuration may speak of that
   * folder, and it is recorded as what it came from. `source` without it.
   */
  readonly origin?: string;
  /**
   * Given what vm-config.json says, once that was verified, and the image's folder without links
   * in its path: the files that the machine needs.
   * What it throws is thrown, and nothing is left.
   */
  readonly wanted: (configuration: string, folder: string) => readonly WantedFile[];
  readonly onProgress?: (done: Bytes, of: Bytes) => void;
  readonly signal?: AbortSignal;
}

/** @returns undefined where only its contents tell */
export function keyOf({ source, expected }: ImageRequest): string | undefined {
  if (expected.kind === "any") return undefined;
  if (expected.kind === "files") return keyOfFiles(expected.files);
  const digest = parseHash(expected.hash);
  if (digest === undefined) {
    throw new ImageRefused("use the image", source, {
      file: undefined,
      expected: 'a hash such as "sha256-" and 44 letters of base64',
      received: JSON.stringify(expected.hash.slice(0, 100)),
      mend: `Say what nix hash path ${source} prints.`,
    });
  }
  return keyOfNar(digest);
}

export const keyOfNar = (digest: Uint8Array): string =>
  `nar-${Buffer.from(digest).toString("hex")}`;

/** The same files have the same key, in whatever order and form the manifest had them. */
export function keyOfFiles(files: FileHashes): string {
  return `files-${digestOfFiles(files).toString("hex")}`;
}

export function digestOfFiles(files: FileHashes): Buffer {
  const hash = new Bun.CryptoHasher("sha256");
  const names = [...files.keys()].toSorted((left, right) =>
    Buffer.compare(Buffer.from(left), Buffer.from(right)),
  );
  for (const name of names) hash.update(`${files.get(name)}  ${name}\n`);
  return Buffer.from(hash.digest());
}

export const hashOfFiles = (files: FileHashes): string => formatHash(digestOfFiles(files));
