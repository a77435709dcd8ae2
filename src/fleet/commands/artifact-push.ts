import { resolve } from "node:path";
import { pushRelease } from "../../artifact/push.ts";
import { printJson, printText } from "../../command-line/output.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { readSecretFile } from "../../identity/host-key.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { addressOf, versionOf } from "./artifact-words.ts";

interface PushFlags {
  readonly version: string;
  readonly folder: string;
  readonly to: string;
  readonly "token-file": string | undefined;
  readonly json: boolean;
}

/** Publishes a signed release. */
export async function runArtifactPush(flags: PushFlags): Promise<number> {
  const version = versionOf(flags.version);
  const path = flags["token-file"];
  const token = path === undefined ? undefined : readToken(path);
  const { sent, kept } = await pushRelease({
    ...{ folder: resolve(flags.folder), version, to: addressOf(flags.to) },
    signal: new AbortController().signal,
    ...(token !== undefined && { token }),
  });
  if (flags.json) await printJson({ sent, kept });
  else {
    const lines = [
      ...sent.map((name) => `${name}: published\n`),
      ...kept.map((name) => `${name}: was there\n`),
    ];
    await printText(lines.join(""));
  }
  return ExitCode.done;
}

function readToken(path: string): string {
  const token = readSecretFile(path, "the token")?.trim();
  if (token !== undefined && /^[\x21-\x7e]+$/.test(token)) return token;
  throw new UsageError(`--token-file ${path}: expected a file with one word in it`);
}
