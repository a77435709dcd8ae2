import { createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import {
  closeSync,
  constants,
  fsyncSync,
  lstatSync,
  openSync,
  readFileSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import * as v from "valibot";
import { type IdentityKey, readKey } from "../identity/host-key.ts";
import { FileRefused, NamedFileRefused, withFile, withNamedFile } from "../journal/file-refused.ts";
import { type SignedKind, signedText } from "./lifecycle-verify.ts";
import { type Envelope, publicKeySchema } from "./protocol.ts";

/**
 * Keys that sign root sets, metadata and manifests: Ed25519, the secret half as PKCS #8 in PEM, so
 * that other tools make and read it too, 0600; the public half beside it, in one line.
 */

const publicWord = "hostler-artifact-public-1";
/** A longer file is no public key. */
const mostPublicBytes = 4_096;

/**
 * Makes a pair in two files that are new: FILE, 0600, and FILE.pub.
 * @returns the public key
 * @throws FileRefused where one is there already
 */
export function makeSigningKey(file: string): {
  readonly publicFile: string;
  readonly key: string;
} {
  const { privateKey } = generateKeyPairSync("ed25519");
  const key = publicTextOf(privateKey);
  const publicFile = `${file}.pub`;
  for (const path of [publicFile, file]) requireNone(path);
  // The public one first: a secret key without it could not be told from one that is used.
  writeNew(publicFile, `${publicWord} ${key}\n`, 0o644);
  writeNew(file, privateKey.export({ format: "pem", type: "pkcs8" }).toString(), 0o600);
  return { publicFile, key };
}

/** No advice to remove it: it may be half of a key that is used. */
function requireNone(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false }) === undefined) return;
  throw new FileRefused(
    `Cannot make the key ${path}: expected no file there, received one, which may be of a key ` +
      "that is used. Name another file.",
  );
}

const publicTextOf = (key: KeyObject): string =>
  createPublicKey(key).export({ format: "der", type: "spki" }).toString("base64");

function writeNew(path: string, text: string, mode: number): void {
  withFile({ what: "make the key", path, otherwise: "name another file" }, () => {
    const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
    const descriptor = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
    try {
      writeSync(descriptor, text);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    const folder = openSync(dirname(path), constants.O_RDONLY);
    try {
      fsyncSync(folder);
    } finally {
      closeSync(folder);
    }
  });
}

/** @throws FileRefused, NamedFileRefused for one that is none, or that others may read */
export function readSigningKey(path: string): IdentityKey {
  refusePublicHalf(path);
  const key = readKey(path, "hostler fleet key generate FILE makes one");
  if (key !== undefined) return key;
  throw new NamedFileRefused(
    `Cannot use the key ${path}: expected a file there, received nothing. ` +
      "hostler fleet key generate FILE makes one.",
  );
}

function refusePublicHalf(path: string): void {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats?.isFile() !== true || stats.size > mostPublicBytes) return;
  const text = withNamedFile({ what: "read the key", path, otherwise: "name another" }, () =>
    readFileSync(path, "utf8"),
  );
  if (!text.startsWith(publicWord)) return;
  throw new NamedFileRefused(
    `Cannot sign with ${path}: expected a secret key, received its public half. ` +
      "Name the file without .pub.",
  );
}

/** @throws NamedFileRefused */
export function readPublicKey(path: string): string {
  const otherwise = "name the file that ends with .pub";
  const text = withNamedFile({ what: "read the public key", path, otherwise }, () => {
    const { size } = statSync(path);
    return size > mostPublicBytes ? "" : readFileSync(path, "utf8");
  });
  const [word, key, ...more] = text.trim().split(/\s+/);
  if (word === publicWord && more.length === 0 && v.is(publicKeySchema, key)) return key;
  throw new NamedFileRefused(
    `Cannot use the public key ${path}: expected one line, "${publicWord}" and an Ed25519 key in ` +
      "base64, received something else. hostler fleet key generate FILE makes FILE and FILE.pub.",
  );
}

/** The envelope with a signature more; one that this key has made already is made anew. */
export function addSignature(kind: SignedKind, envelope: Envelope, key: IdentityKey): Envelope {
  const others = envelope.signatures.filter((one) => one.key !== key.publicKey);
  const signature = key.sign(signedText(kind, envelope.signed));
  return { ...envelope, signatures: [...others, { key: key.publicKey, signature }] };
}

/** A text in an envelope that nobody has signed. */
export const newEnvelope = (value: object): Envelope => ({
  format: 1,
  signed: JSON.stringify(value),
  signatures: [],
});

export const writeEnvelope = (envelope: Envelope): string =>
  `${JSON.stringify(envelope, null, 2)}\n`;
