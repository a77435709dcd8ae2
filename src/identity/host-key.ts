import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
} from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  type Stats,
} from "node:fs";
import { dirname, join } from "node:path";
import { writeDurably } from "../journal/append-journal.ts";
import { FileRefused, refusalCode, withFile } from "../journal/file-refused.ts";
import { limits } from "./protocol.ts";
import { fingerprintOf, signText } from "./secrets.ts";

/** Where a host keeps who it is. */
export const defaultIdentityFolder = "/var/lib/hostler/identity";

/**
 * An Ed25519 key that was made here and never leaves: a host's, or an authority's. It is in a file
 * that its owner alone can read; what others get of it is the public half, and signatures.
 */
export class IdentityKey {
  /** The SPKI's DER in base64. */
  readonly publicKey: string;
  /** SHA-256 of the SPKI's DER. */
  readonly fingerprint: string;
  readonly #key: KeyObject;

  constructor(key: KeyObject) {
    this.#key = key;
    const spki = createPublicKey(key).export({ format: "der", type: "spki" });
    this.publicKey = spki.toString("base64");
    this.fingerprint = fingerprintOf(this.publicKey);
  }

  /** @returns base64url */
  sign(text: string): string {
    return signText(text, this.#key);
  }

  /** Signs for another room, whose texts begin with their own purpose. @returns 64 bytes */
  signBytes(bytes: Uint8Array): Uint8Array {
    return sign(null, bytes, this.#key);
  }
}

/** Only the files of who runs this, in tests too. */
const owner = () => process.getuid?.() ?? 0;

/** Makes the folder when there is none: 0700. @throws FileRefused */
export function checkFolder(folder: string): void {
  const file = { what: "use the folder", path: folder, otherwise: "name another folder" };
  withFile(file, () => {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const status = lstatSync(folder);
    if (!status.isDirectory()) throw refused(file, "a folder", "something else", "Remove it");
    checkOwner(file, status);
    if ((status.mode & 0o077) !== 0) {
      throw refused(file, "mode 0700", modeOf(status), `Run chmod 700 ${folder}`);
    }
  });
}

/** What can be done about a host's key that is damaged. */
const hostMend = "Restore it from where it was moved, or remove it and enrol this host again";

/**
 * @param mend what can be done about a file that holds no key
 * @returns undefined when there is no such file. @throws FileRefused for one that cannot count
 */
export function readKey(path: string, mend = hostMend): IdentityKey | undefined {
  const text = readSecretFile(path, "the key");
  return text === undefined ? undefined : parseKey(path, text, mend);
}

/**
 * Attempts to make a key file beside other processes. A rename over what another one is linking
 * right then has that link fail (ENOENT, link(2)), and its tidying takes the file of the first:
 * then neither has made the key, and both begin again.
 */
const MOST_ATTEMPTS = 16;

/** The key in this file, made when there is none. Two that begin at once get the same. */
export function openKey(path: string, mend = hostMend): IdentityKey {
  checkFolder(dirname(path));
  for (let attempt = 0; attempt <= MOST_ATTEMPTS; attempt += 1) {
    const present = readKey(path, mend);
    if (present !== undefined) return present;
    if (attempt < MOST_ATTEMPTS) makeKey(path);
  }
  throw new FileRefused(`Cannot keep the key ${path}: it was removed just now. Try again.`);
}

/** Makes a key file where there is none; one that is there stays. */
function makeKey(path: string): void {
  const { privateKey } = generateKeyPairSync("ed25519");
  const pem = privateKey.export({ format: "pem", type: "pkcs8" });
  withFile({ what: "write the key", path, otherwise: "name another folder" }, () => {
    const making = `${path}.making`;
    writeDurably(making, pem, 0o600);
    try {
      // A rename would put it in the place of a key that another process has just made.
      linkSync(making, path);
    } catch (error) {
      // ENOENT: that other process has removed what both were making.
      if (refusalCode(error) !== "EEXIST" && refusalCode(error) !== "ENOENT") throw error;
    } finally {
      rmSync(making, { force: true });
    }
    syncFolder(dirname(path));
  });
}

/** Puts the next key in the place of the present one: durable when it returns. */
export function promoteKey(from: string, to: string): void {
  withFile({ what: "rename the key", path: from, otherwise: "name another folder" }, () => {
    renameSync(from, to);
    syncFolder(dirname(to));
  });
}

export const keyPaths = (folder: string) => ({
  present: join(folder, "key.pem"),
  next: join(folder, "key.next.pem"),
});

/** @param what such as "the key". @returns undefined when there is no such file */
export function readSecretFile(path: string, what: string): string | undefined {
  const file = { what: `use ${what}`, path, otherwise: "name another folder" };
  let descriptor: number;
  try {
    // Nothing that was put in its place is followed, or waited for.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    descriptor = openSync(path, flags);
  } catch (error) {
    if (refusalCode(error) === "ENOENT") return undefined;
    return withFile(file, () => {
      throw error;
    });
  }
  try {
    const status = fstatSync(descriptor);
    if (!status.isFile()) throw refused(file, "a file", "something else", "Remove it");
    checkOwner(file, status);
    if ((status.mode & 0o077) !== 0) {
      const mend = `If others could read it, take it as stolen; else run chmod 600 ${path}`;
      throw refused(file, "mode 0600", modeOf(status), mend);
    }
    if (status.size > limits.fileBytes) {
      const expected = `at most ${limits.fileBytes} bytes`;
      throw refused(file, expected, `${status.size}`, "Remove it");
    }
    const bytes = Buffer.alloc(status.size);
    const size = readSync(descriptor, bytes, 0, bytes.length, 0);
    return bytes.subarray(0, size).toString();
  } finally {
    closeSync(descriptor);
  }
}

function parseKey(path: string, text: string, mend: string): IdentityKey {
  const file = { what: "use the key", path };
  const key = privateKeyIn(text);
  if (key === undefined) throw refused(file, "a private key in PKCS#8", "something else", mend);
  if (key.asymmetricKeyType === "ed25519") return new IdentityKey(key);
  throw refused(file, "an Ed25519 key", `${key.asymmetricKeyType}`, mend);
}

/** @returns undefined for what is none: the library's own words may hold parts of the file */
function privateKeyIn(text: string): KeyObject | undefined {
  try {
    return createPrivateKey({ key: text, format: "pem" });
  } catch {
    return undefined;
  }
}

function checkOwner(file: { what: string; path: string }, status: Stats): void {
  if (status.uid === owner()) return;
  const mend = `Run this as uid ${status.uid}, or chown it`;
  throw refused(file, `owner uid ${owner()}`, `uid ${status.uid}`, mend);
}

const modeOf = (status: Stats) => `mode 0${(status.mode & 0o7777).toString(8)}`;

function refused(
  { what, path }: { readonly what: string; readonly path: string },
  expected: string,
  received: string,
  mend: string,
): FileRefused {
  return new FileRefused(
    `Cannot ${what} ${path}: expected ${expected}, received ${received}. ${mend}.`,
  );
}

function syncFolder(folder: string): void {
  const descriptor = openSync(folder, "r");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
