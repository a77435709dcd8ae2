import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
  randomBytes,
  timingSafeEqual,
} from "node:crypto";
import * as v from "valibot";
import { keyTextSchema } from "./protocol.ts";

/**
 * Keys of encrypted snapshots. A pair is one of X25519 (RFC 7748): whoever has the public half
 * makes snapshots that the secret half alone opens. Each snapshot has a data key of its own, 32
 * bytes of chance, which is wrapped for the recipient under a pair that is made for this once;
 * what its files and its manifest are protected with is derived from the data key (HKDF, RFC
 * 5869).
 */

/** Bytes of a key file; a longer one is none. */
export const mostKeyFileBytes = 4096;

const keyBytes = 32;
const tagBytes = 16;
const nonceBytes = 12;

/** First words of the line that a key file holds. */
const publicWord = "hostler-snapshot-public-1";
const secretWord = "hostler-snapshot-secret-1";

const wrappedSchema = v.pipe(v.string(), v.regex(/^[A-Za-z0-9+/]{64}$/));

/** What a manifest says of its encryption; all of it may be known to everybody. */
export const encryptionSchema = v.strictObject({
  format: v.literal(1),
  /** The public key that it is encrypted to. */
  recipient: keyTextSchema,
  /** The public half of the pair that was made for it. */
  ephemeral: keyTextSchema,
  /** The data key and its tag. */
  wrapped: wrappedSchema,
  /** HMAC-SHA256 of the manifest without this. */
  code: keyTextSchema,
});
export type Encryption = v.InferOutput<typeof encryptionSchema>;

/** A key that cannot be used: what was expected, what was received, the mend. */
export class KeyRefused extends Error {
  override readonly name = "KeyRefused";
}

export interface KeyPair {
  /** Texts of 32 bytes in Base64. */
  readonly publicKey: string;
  readonly secretKey: string;
}

export function makeKeyPair(): KeyPair {
  const { privateKey } = generateKeyPairSync("x25519");
  const { d = "", x = "" } = privateKey.export({ format: "jwk" });
  return { publicKey: fromUrl(x), secretKey: fromUrl(d) };
}

const fromUrl = (text: string) => Buffer.from(text, "base64url").toString("base64");
const toUrl = (text: string) => Buffer.from(text, "base64").toString("base64url");

export function publicKeyOf(secretKey: string): string {
  const { x = "" } = createPublicKey(secretKeyOf(secretKey)).export({ format: "jwk" });
  return fromUrl(x);
}

/** PKCS #8 around the 32 bytes: RFC 8410, section 7. */
const secretPrefix = Buffer.from("302e020100300506032b656e04220420", "hex");

const secretKeyOf = (text: string): KeyObject =>
  createPrivateKey({
    key: Buffer.concat([secretPrefix, Buffer.from(text, "base64")]),
    format: "der",
    type: "pkcs8",
  });

const publicKeyObjectOf = (text: string): KeyObject =>
  createPublicKey({ key: { kty: "OKP", crv: "X25519", x: toUrl(text) }, format: "jwk" });

/** What a key file holds. */
export const writePublicKey = ({ publicKey }: KeyPair): string => `${publicWord} ${publicKey}\n`;
export const writeSecretKey = ({ secretKey }: KeyPair): string => `${secretWord} ${secretKey}\n`;

/** @throws KeyRefused when the text of the file at `path` is no such key */
export function readKeyText(kind: "public" | "secret", path: string, text: string): string {
  const word = kind === "public" ? publicWord : secretWord;
  const other = kind === "public" ? secretWord : publicWord;
  const [first = "", key = "", ...more] = text.trim().split(/\s+/);
  const isKey = first === word && more.length === 0 && v.is(keyTextSchema, key);
  if (isKey) return key;
  const is =
    first === other ? `a ${kind === "public" ? "secret" : "public"} key` : "something else";
  throw new KeyRefused(
    `${path}: expected one line, "${word}" and 32 bytes in Base64, received ${is}. ` +
      "hostler vm snapshot-key FILE makes FILE with the secret key, and FILE.pub",
  );
}

/** What protects one snapshot. */
export class DataKey {
  readonly #bytes: Buffer;

  private constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  /** @throws KeyRefused for a public key to which nothing can be encrypted */
  static make(recipient: string): { readonly key: DataKey; readonly seal: Seal } {
    const bytes = randomBytes(keyBytes);
    const { privateKey, publicKey } = generateKeyPairSync("x25519");
    const ephemeral = fromUrl(publicKey.export({ format: "jwk" }).x ?? "");
    const wrap = wrapKey(privateKey, publicKeyObjectOf(recipient), { ephemeral, recipient });
    // The key is used once.
    const cipher = createCipheriv("aes-256-gcm", wrap, Buffer.alloc(nonceBytes));
    const sealed = Buffer.concat([cipher.update(bytes), cipher.final(), cipher.getAuthTag()]);
    const wrapped = sealed.toString("base64");
    return { key: new DataKey(bytes), seal: { format: 1, recipient, ephemeral, wrapped } };
  }

  /** @throws KeyRefused when the secret key is another, or the words are not whole */
  static open({ recipient, ephemeral, wrapped }: Seal, secretKey: string): DataKey {
    const own = publicKeyOf(secretKey);
    if (own !== recipient) {
      throw new KeyRefused(`expected the secret key of ${recipient}, received that of ${own}`);
    }
    const wrap = wrapKey(secretKeyOf(secretKey), publicKeyObjectOf(ephemeral), {
      ephemeral,
      recipient,
    });
    const sealed = Buffer.from(wrapped, "base64");
    const decipher = createDecipheriv("aes-256-gcm", wrap, Buffer.alloc(nonceBytes));
    decipher.setAuthTag(sealed.subarray(-tagBytes));
    try {
      const bytes = Buffer.concat([
        decipher.update(sealed.subarray(0, -tagBytes)),
        decipher.final(),
      ]);
      return new DataKey(bytes);
    } catch (cause) {
      throw new KeyRefused("its data key was changed after it was made", { cause });
    }
  }

  /** Of one file of the snapshot, by its name: no two chunks of it share key and counter. */
  ofFile(name: string): Buffer {
    return derive(this.#bytes, `hostler snapshot file ${name}`);
  }

  /** Of the manifest: whoever has not the data key cannot make it for another one. */
  codeOf(manifest: object): string {
    const key = derive(this.#bytes, "hostler snapshot manifest");
    return createHmac("sha256", key).update(canonicalText(manifest)).digest("base64");
  }

  isCodeOf(code: string, manifest: object): boolean {
    return timingSafeEqual(
      Buffer.from(code, "base64"),
      Buffer.from(this.codeOf(manifest), "base64"),
    );
  }
}

/** An encryption before its manifest is written. */
export type Seal = Omit<Encryption, "code">;

/** @throws KeyRefused for a point of low order, with which everybody would know the secret */
function wrapKey(
  privateKey: KeyObject,
  publicKey: KeyObject,
  names: { readonly ephemeral: string; readonly recipient: string },
): Buffer {
  let shared: Buffer;
  try {
    shared = diffieHellman({ privateKey, publicKey });
  } catch (cause) {
    const message = "expected a public key of X25519, received a point of low order";
    throw new KeyRefused(message, { cause });
  }
  const salt = Buffer.from(names.ephemeral + names.recipient, "base64");
  return Buffer.from(hkdfSync("sha256", shared, salt, "hostler snapshot key 1", keyBytes));
}

const derive = (key: Buffer, purpose: string): Buffer =>
  Buffer.from(hkdfSync("sha256", key, Buffer.alloc(0), purpose, keyBytes));

/** JSON with the keys of each object in order, so that one value has one text. */
function canonicalText(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) => {
    if (typeof part !== "object" || part === null || Array.isArray(part)) return part;
    return Object.fromEntries(
      Object.entries(part).sort(([one], [other]) => (one < other ? -1 : 1)),
    );
  });
}
