/** SHA-256, in hexadecimal. */
export function sha256(bytes: Uint8Array | string): string {
  return new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
}

/** In the place of a hash where nothing comes before: 64 zeros. */
export const noHash: string = "0".repeat(64);
