/** What is read of crashes at most. Pure. */
export const pstoreLimits = {
  files: 256,
  /** Bytes of one file, and of what it is unpacked to. */
  fileBytes: 1024 ** 2,
  crashes: 32,
  /** Characters of a crash that are kept: its last ones. */
  text: 64 * 1024,
} as const;
