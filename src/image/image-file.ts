/** Names of files in an image, and paths. Pure. */

/** A file that a machine is made of, before links are followed. */
export type ImageFile =
  /** Its name in the image: "disks/root.img". */
  | { readonly kind: "inside"; readonly name: string }
  /** Its path in /nix/store, for an image that is there as well. */
  | { readonly kind: "outside"; readonly path: string };

/** Whose key asks for it, such as "disks[0].path". */
export interface WantedFile {
  readonly key: string;
  readonly file: ImageFile;
}

/** Where packages are that nobody changes. */
export const nixStore = "/nix/store";

/** Where an image is, and whether its links may lead into /nix/store. */
export interface ImagePlace {
  /** The path that it was given by. */
  readonly source: string;
  /** undefined where no link may lead out of the image. */
  readonly outside: string | undefined;
}

/** Why a file is none, in the words of a refusal. */
export interface FileMismatch {
  readonly expected: string;
  readonly received: string;
}

/** "a/b" for a path with "." and ".." in it; undefined when it leads out. */
export function plainName(parts: readonly string[]): string | undefined {
  const plain: string[] = [];
  for (const part of parts) {
    if (part === "" || part === ".") continue;
    if (part !== "..") plain.push(part);
    else if (plain.pop() === undefined) return undefined;
  }
  return plain.join("/");
}

/** The rest of a path below a folder; undefined when it is not below it. */
export function below(folder: string, path: string): string | undefined {
  return path.startsWith(`${folder}/`) ? path.slice(folder.length + 1) : undefined;
}
