import { createPublicKey, type KeyObject, sign, verify } from "node:crypto";

/** Who signs: an Ed25519 key that is not in the log's folder. */
export interface AuditSigner {
  readonly publicKey: KeyObject;
  /** @returns the 64 bytes of an Ed25519 signature. @throws whatever the key's keeper throws */
  sign(bytes: Uint8Array): Uint8Array;
}

/** A signer by a private key in memory. @throws Error when it is no Ed25519 key */
export function signerOf(privateKey: KeyObject): AuditSigner {
  const publicKey = createPublicKey(privateKey);
  keyText(publicKey);
  return { publicKey, sign: (bytes) => sign(null, bytes, privateKey) };
}

/** The 32 bytes of an Ed25519 public key as base64url (RFC 8037): how a record names it. */
export function keyText(publicKey: KeyObject): string {
  const type = publicKey.asymmetricKeyType;
  if (type !== "ed25519")
    throw new Error(`Expected an Ed25519 key, received ${type ?? "a secret"}`);
  return String(publicKey.export({ format: "jwk" }).x);
}

/** What is signed says first what it is, so that no other signature of the key can stand here. */
const domain = "hostler audit record 1\n";

export function signedBytes(text: string): Uint8Array {
  return new TextEncoder().encode(domain + text);
}

/** Keys as records name them, read once. */
export class KeyRing {
  readonly #keys = new Map<string, KeyObject | undefined>();

  /** @returns whether the key of this name signed this text; false also for a key that is none */
  isSigned(text: string, by: { readonly key: string; readonly signature: string }): boolean {
    const { key, signature } = by;
    // A log can name as many keys as it likes; this is a cache, and stays one.
    if (this.#keys.size > 64) this.#keys.clear();
    if (!this.#keys.has(key)) this.#keys.set(key, readKey(key));
    const publicKey = this.#keys.get(key);
    if (publicKey === undefined) return false;
    const bytes = Buffer.from(signature, "base64url");
    // Another spelling of the same bytes would be a change that nobody finds.
    if (bytes.toString("base64url") !== signature) return false;
    return verify(null, signedBytes(text), publicKey, bytes);
  }
}

function readKey(x: string): KeyObject | undefined {
  try {
    const publicKey = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
    return keyText(publicKey) === x ? publicKey : undefined;
  } catch {
    return undefined;
  }
}
