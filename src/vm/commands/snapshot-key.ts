import { closeSync, constants, fstatSync, openSync, readSync, writeFileSync } from "node:fs";
import { printJson, printText } from "../../command-line/output.ts";
import { NamedFileRefused, withNamedFile, withNewFile } from "../../journal/file-refused.ts";
import { ExitCode } from "../../units/exit-code.ts";
import {
  KeyRefused,
  makeKeyPair,
  mostKeyFileBytes,
  readKeyText,
  writePublicKey,
  writeSecretKey,
} from "../snapshot-key.ts";

/** Whoever else may read a secret key has all that is encrypted to it. */
const OTHERS = 0o077;

/** Makes a pair of keys: the secret one in a new file, 0600, and the public one beside it. */
export async function runSnapshotKey(options: {
  readonly file: string;
  readonly json: boolean;
}): Promise<number> {
  const { file } = options;
  const pair = makeKeyPair();
  const publicFile = `${file}.pub`;
  // The public one first: a secret key without it could not be told from one that is used.
  writeNew(publicFile, writePublicKey(pair), 0o644);
  writeNew(file, writeSecretKey(pair), 0o600);
  const { publicKey } = pair;
  if (options.json) await printJson({ secret: file, public: publicFile, public_key: publicKey });
  else await printText(`${file}: the secret key\n${publicFile}: the public key, ${publicKey}\n`);
  return ExitCode.done;
}

function writeNew(path: string, text: string, mode: number): void {
  const otherwise = "name another file";
  withNewFile({ what: "make the key", path, otherwise }, () => {
    writeFileSync(path, text, { mode, flag: "wx", flush: true });
  });
}

/**
 * Reads a key that the command line names.
 * @throws NamedFileRefused when it is none, or when others may read a secret one
 */
export function readKeyFile(kind: "public" | "secret", path: string): string {
  const file = { what: `read the ${kind} key`, path, otherwise: "name another" };
  const text = withNamedFile(file, () => {
    const descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const { mode, size } = fstatSync(descriptor);
      if (kind === "secret" && (mode & OTHERS) !== 0) {
        const received = (mode & 0o777).toString(8).padStart(4, "0");
        const mend = `Run chmod 600 ${path}`;
        throw new NamedFileRefused(
          `${path}: expected a secret key that its owner alone may read, received the mode ` +
            `${received}. ${mend}`,
        );
      }
      if (size > mostKeyFileBytes) {
        throw new NamedFileRefused(
          `${path}: expected a key of at most ${mostKeyFileBytes} bytes, received ${size}`,
        );
      }
      const bytes = new Uint8Array(mostKeyFileBytes);
      return new TextDecoder().decode(bytes.subarray(0, readSync(descriptor, bytes)));
    } finally {
      closeSync(descriptor);
    }
  });
  try {
    return readKeyText(kind, path, text);
  } catch (error) {
    throw named(error);
  }
}

/** A key that is none is a file that the command line should not have named. */
const named = (error: unknown): unknown =>
  error instanceof KeyRefused ? new NamedFileRefused(error.message) : error;
