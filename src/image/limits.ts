/** Going over one of these is a refusal that a test shows. */
export const imageLimits = {
  /** Files, folders and links of an image. */
  entries: 10_000,
  /** Folders in each other. */
  depth: 32,
  /** Bytes of all files, holes counted: 1 TiB, which takes ten minutes to hash. */
  bytes: 1024 ** 4,
  /** Bytes of vm-config.json, and of a manifest: 1 MiB. */
  /** Bytes of a firmware's variables; Debian's have 528 KiB. */
  firmwareBytes: 64 * 1024 ** 2,
  textBytes: 1024 ** 2,
  /** Links that are followed from one name of vm-config.json to its file. */
  links: 16,
} as const;

export type ImageLimits = { readonly [Name in keyof typeof imageLimits]: number };
