import { closeSync, fsyncSync, openSync, readFileSync, rmSync, statSync, writeSync } from "node:fs";
import { resolve } from "node:path";
import * as v from "valibot";
import { printJson, printText } from "../../command-line/output.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { NamedFileRefused, withFile, withNamedFile } from "../../journal/file-refused.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { AuthorityClient, type AuthorityPlace, type ExpectedDaemon } from "../client.ts";
import { reachableAddressSchema } from "../options.ts";

/** How each command of an operator says which authority it asks. */
export interface ClientFlags {
  readonly "control-socket": string;
  readonly authority: string | undefined;
  readonly pin: readonly string[];
  readonly "token-file": string | undefined;
  readonly json: boolean;
  /** Who is expected at the control socket, where that is not an authority in general. */
  readonly daemon?: ExpectedDaemon;
}

/** Bytes of a token's file. */
const TOKEN_FILE_LIMIT = 4_096;

/** @throws UsageError, NamedFileRefused, FileRefused */
export function placeOf(flags: ClientFlags): AuthorityPlace {
  const { authority, pin, "token-file": file } = flags;
  if (authority === undefined) {
    if (pin.length > 0 || file !== undefined) {
      throw new UsageError("Expected --authority beside --pin and --token-file, received none");
    }
    return { kind: "control", path: resolve(flags["control-socket"]), daemon: flags.daemon };
  }
  if (pin.length === 0 || file === undefined) {
    throw new UsageError(
      "Expected --pin and --token-file beside --authority, because names and clocks prove nothing",
    );
  }
  if (!v.is(reachableAddressSchema, authority)) {
    throw new UsageError(
      `Expected https://NAME:PORT after --authority, because a token goes there, received ` +
        authority,
    );
  }
  const wrong = pin.find((hash) => !/^[0-9a-f]{64}$/i.test(hash));
  if (wrong !== undefined) {
    throw new UsageError(`Expected 64 hexadecimal digits after --pin, received ${wrong}`);
  }
  const pins = pin.map((hash) => hash.toLowerCase());
  return { kind: "https", url: authority, pins, token: readTokenFile(file) };
}

/**
 * A token on the command line would stand in the list of processes, and one in a file that others
 * can read is theirs.
 * @throws NamedFileRefused, FileRefused
 */
export function readTokenFile(given: string): string {
  const path = resolve(given);
  const file = { what: "read the token", path, otherwise: "give another --token-file" };
  return withNamedFile(file, () => {
    const status = statSync(path);
    if (status.isFile() && (status.mode & 0o077) !== 0) {
      throw new NamedFileRefused(
        `Cannot read the token ${path}: expected a file that its owner alone may read, received ` +
          `mode ${(status.mode & 0o777).toString(8).padStart(4, "0")}. Run chmod 600 ${path}.`,
      );
    }
    if (status.size > TOKEN_FILE_LIMIT) {
      throw new NamedFileRefused(
        `Cannot read the token ${path}: expected at most ${TOKEN_FILE_LIMIT} bytes, received ` +
          `${status.size}. Give the file that the token was written into.`,
      );
    }
    return readFileSync(path, "utf8").trim();
  });
}

/** A flag of those commands that print a secret. */
export interface SecretFlags extends ClientFlags {
  readonly out: string | undefined;
}

/**
 * `show` for a secret, which goes into the file of --out when there is one: 0600, whatever the
 * umask is. The file is there before anybody is asked, because the secret is told only once.
 * @throws NamedFileRefused when something is there already
 */
export async function showSecret<T>(
  flags: SecretFlags,
  ask: (client: AuthorityClient) => Promise<T>,
  render: (answer: T) => string,
): Promise<number> {
  if (flags.out === undefined) return await show(flags, ask, render);
  const place = placeOf(flags);
  const path = resolve(flags.out);
  const file = { what: "write the token", path, otherwise: "give another --out" };
  const descriptor = withFile(file, () => openNew(path));
  let isWritten = false;
  try {
    using client = await AuthorityClient.connect(place);
    const answer = await ask(client);
    const text = flags.json ? `${JSON.stringify(answer, undefined, 2)}\n` : render(answer);
    withFile(file, () => {
      writeSync(descriptor, text);
      fsyncSync(descriptor);
    });
    isWritten = true;
  } finally {
    closeSync(descriptor);
    if (!isWritten) rmSync(path, { force: true });
  }
  return ExitCode.done;
}

function openNew(path: string): number {
  if (statSync(path, { throwIfNoEntry: false }) !== undefined) {
    throw new NamedFileRefused(
      `Cannot write the token ${path}: expected nothing there, received a file. Nothing is ` +
        "overwritten: give another --out, or remove it.",
    );
  }
  return openSync(path, "wx", 0o600);
}

/** Asks for something, and prints it as JSON or for people. */
export async function show<T>(
  flags: ClientFlags,
  ask: (client: AuthorityClient) => Promise<T>,
  render: (answer: T) => string,
): Promise<number> {
  using client = await AuthorityClient.connect(placeOf(flags));
  const answer = await ask(client);
  if (flags.json) await printJson(answer);
  else await printText(render(answer));
  return ExitCode.done;
}
