import {
  createHash,
  createPublicKey,
  type KeyObject,
  randomBytes,
  sign,
  timingSafeEqual,
  verify,
} from "node:crypto";

/** Chance: so many bytes of it. Tests give another one. */
export type Random = (bytes: number) => Uint8Array;
export const systemRandom: Random = (bytes) => randomBytes(bytes);

/** 256 bits as base64url. */
export function newSecret(random: Random): string {
  return Buffer.from(random(32)).toString("base64url");
}

/** SHA-256 in hexadecimal. A secret of 256 bits needs no salt and no slow hash. */
export function hashOf(bytes: string | Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** In a time that does not depend on where two hashes differ. */
export function isSameHash(left: string, right: string): boolean {
  const [one, other] = [Buffer.from(left), Buffer.from(right)];
  return one.length === other.length && timingSafeEqual(one, other);
}

/** @param spki base64 of the DER */
export function fingerprintOf(spki: string): string {
  return hashOf(Buffer.from(spki, "base64"));
}

/** An Ed25519 signature (RFC 8032) in base64url. */
export function signText(text: string, key: KeyObject): string {
  return sign(null, Buffer.from(text), key).toString("base64url");
}

/** @param spki base64 of the DER of an Ed25519 key */
export function isSignedBy(signed: {
  readonly text: string;
  readonly signature: string;
  readonly spki: string;
}): boolean {
  try {
    const key = createPublicKey({
      key: Buffer.from(signed.spki, "base64"),
      format: "der",
      type: "spki",
    });
    if (key.asymmetricKeyType !== "ed25519") return false;
    return verify(null, Buffer.from(signed.text), key, Buffer.from(signed.signature, "base64url"));
  } catch {
    // Bytes that are no key at all, from a peer: nothing that they could have signed.
    return false;
  }
}
