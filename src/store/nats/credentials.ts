import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";
import {
  type Authenticator,
  credsAuthenticator,
  nkeyAuthenticator,
  tokenAuthenticator,
} from "@nats-io/transport-node";
import { FileRefused, withFile } from "../../journal/file-refused.ts";

/** Who we are to a NATS server: files alone, so that no secret stands in a command line. */
export type Credentials =
  | { readonly kind: "none" }
  /** A file with a seed, "SU…", of an nkey. */
  | { readonly kind: "nkey"; readonly file: string }
  /** A file of `nsc` with a JWT and its seed. */
  | { readonly kind: "jwt"; readonly file: string }
  | { readonly kind: "token"; readonly file: string };

const makers: Readonly<
  Record<Exclude<Credentials["kind"], "none">, (secret: Uint8Array) => Authenticator>
> = {
  nkey: (secret) => nkeyAuthenticator(new TextEncoder().encode(textOf(secret))),
  jwt: credsAuthenticator,
  token: (secret) => tokenAuthenticator(textOf(secret)),
};

const textOf = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();

/** Bytes of a file with credentials. */
const LONGEST_SECRET = 64 * 1024;

/**
 * The files are read anew for each connection: who replaced one need not restart anything.
 * @param onTrouble told when a file cannot be used any more; the server is shown none then
 * @throws FileRefused now, when a file is not there, says nothing, or others may read it
 */
export function authenticatorOf(
  credentials: Credentials,
  onTrouble: (message: string) => void,
): Authenticator | undefined {
  if (credentials.kind === "none") return undefined;
  const { kind, file } = credentials;
  const answer: Authenticator = (nonce) => makers[kind](readSecret(file))(nonce);
  refuseContent(credentials, answer);
  return (nonce) => {
    try {
      return answer(nonce);
    } catch (error) {
      // Whoever calls this is the parser of the client, which an error would end for good.
      onTrouble(error instanceof Error ? error.message : `The credentials in ${file} are none`);
      return undefined;
    }
  };
}

/** @throws FileRefused */
function refuseContent(
  { kind, file }: Exclude<Credentials, { kind: "none" }>,
  answer: Authenticator,
): void {
  try {
    answer("a nonce");
  } catch (error) {
    if (error instanceof FileRefused) throw error;
    const expected = { nkey: "a seed, SU…", jwt: "a file of nsc", token: "a token" }[kind];
    // Without its cause: what the client says of a secret may hold some of it.
    throw refusedContent(file, expected);
  }
}

function refusedContent(file: string, expected: string): FileRefused {
  return new FileRefused(
    `Cannot use the credentials in ${file}: expected ${expected}, received something else.`,
  );
}

/**
 * What is in a file that nobody but its owner may read.
 * @throws FileRefused
 */
export function readSecret(path: string): Uint8Array {
  const otherwise = "name another file";
  const bytes = withFile({ what: "read the credentials in", path, otherwise }, () => {
    const descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      const { mode, size } = fstatSync(descriptor);
      refuseMode(path, mode);
      refuseSize(path, size);
      return readFileSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  });
  refuseSize(path, textOf(bytes).length);
  return new Uint8Array(bytes);
}

function refuseMode(path: string, mode: number): void {
  if ((mode & 0o077) === 0) return;
  const received = (mode & 0o777).toString(8).padStart(4, "0");
  throw new FileRefused(
    `Cannot use the credentials in ${path}: expected that its owner alone may read it, received ` +
      `the mode ${received}. chmod 0600 ${path}, and make new ones if others read it.`,
  );
}

function refuseSize(path: string, bytes: number): void {
  if (bytes > 0 && bytes <= LONGEST_SECRET) return;
  throw new FileRefused(
    `Cannot use the credentials in ${path}: expected 1 to ${LONGEST_SECRET} bytes, received ` +
      `${bytes}.`,
  );
}
