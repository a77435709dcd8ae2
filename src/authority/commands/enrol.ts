import { resolve } from "node:path";
import { printJson, printText } from "../../command-line/output.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { type HostIdentity, HostRefused } from "../../identity/host.ts";
import { shortFingerprint } from "../../identity/protocol.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { readTokenFile } from "./client-flags.ts";
import { hostIn } from "./host-folder.ts";
import { timeText } from "./words.ts";

interface HostFlags {
  readonly directory: string;
  readonly json: boolean;
}

/** Characters of a token that are read from stdin. */
const TOKEN_LIMIT = 4_096;

/** @param next what is to be done then, for people */
export async function runEnrol(
  flags: HostFlags & { readonly "token-file": string },
  next = "",
): Promise<number> {
  const file = flags["token-file"];
  const token = file === "-" ? await readStandardInput() : readTokenFile(file);
  const identity = hostIn(flags.directory);
  const { host } = await identity.enrol({ token });
  const key = identity.fingerprint() ?? "";
  const address = identity.journal()?.address ?? "";
  if (flags.json) await printJson({ host, key, address });
  else await printText(`enrolled as ${host} at ${address}; key ${shortFingerprint(key)}\n${next}`);
  return ExitCode.done;
}

/** @throws UsageError for a terminal, where nobody would see that something is waited for */
async function readStandardInput(): Promise<string> {
  if (process.stdin.isTTY) {
    throw new UsageError("Expected a token on stdin, or --token-file FILE, received a terminal");
  }
  let text = "";
  for await (const piece of process.stdin.setEncoding("utf8")) {
    text += piece;
    if (text.length > TOKEN_LIMIT) {
      throw new UsageError(`Expected a token of at most ${TOKEN_LIMIT} characters on stdin`);
    }
  }
  return text.trim();
}

export async function runRotate(flags: HostFlags): Promise<number> {
  const identity = hostIn(flags.directory);
  const before = identity.fingerprint() ?? "";
  const { host, key } = await identity.rotateKey();
  if (flags.json) await printJson({ host, before, key });
  else {
    await printText(
      `${host} has the key ${shortFingerprint(key)} in place of ${shortFingerprint(before)}\n`,
    );
  }
  return ExitCode.done;
}

/** What is on the disk; nobody is asked. */
export async function runShow(flags: HostFlags): Promise<number> {
  const folder = resolve(flags.directory);
  const identity = hostIn(folder);
  const journal = identity.journal();
  const key = identity.fingerprint();
  if (journal === undefined) throw notEnrolled(folder, identity);
  const { host, address, authority, pins, serial, time } = journal;
  const view = { host, key: key ?? null, address, authority, pins, serial, trusted_time: time };
  if (flags.json) {
    await printJson(view);
    return ExitCode.done;
  }
  const facts = [
    ["host", host],
    ["key", key ?? "none: its file is missing"],
    ["authority", `${authority} at ${address}`],
    ...pins.map((pin) => ["trusts", pin]),
    ["statement", `${serial}; it is ${timeText(time)} at least`],
  ];
  await printText(facts.map(([name = "", value]) => `${name.padEnd(9)}  ${value}\n`).join(""));
  return ExitCode.done;
}

function notEnrolled(folder: string, identity: HostIdentity): HostRefused {
  const key = identity.fingerprint();
  const has = key === undefined ? "no key" : `the key ${shortFingerprint(key)} alone`;
  return new HostRefused(
    "not-enrolled",
    `Expected an enrolled host, received one with ${has} in ${folder}. Make a token at the ` +
      "authority (hostler identity token create HOST), and enrol with it.",
  );
}
