import { createPublicKey } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { resolve } from "node:path";
import type { Fault } from "../../audit/chain.ts";
import type { Head } from "../../audit/record.ts";
import { keyText } from "../../audit/signature.ts";
import { type Verification, type VerifyOptions, verifyAudit } from "../../audit/verify.ts";
import { printJson, printText } from "../../command-line/output.ts";
import { wholeNumber } from "../../command-line/parse.ts";
import { ProgressLine } from "../../command-line/progress.ts";
import { alignColumns, renderTable } from "../../command-line/table.ts";
import { UsageError } from "../../command-line/usage-error.ts";
import { withNamedFile } from "../../journal/file-refused.ts";
import { formatBytes } from "../../units/bytes.ts";
import { ExitCode } from "../../units/exit-code.ts";
import { brokenChainExitCode, checkReadable } from "./audit-words.ts";

export interface AuditVerifyFlags {
  readonly head: readonly string[];
  readonly key: readonly string[];
  readonly directory: string;
  readonly json: boolean;
}

/** Bytes of a file with keys. */
const longestKeyFile = 64 * 1024;
/** Letters of what was expected or received, in a table. */
const partLetters = 100;

/** Reads the whole log, and says whether it is as it was written. */
export async function runAuditVerify(flags: AuditVerifyFlags): Promise<number> {
  const heads = flags.head.map(readHead);
  const keys = new Set(flags.key.flatMap((file) => readKeys(resolve(file))));
  const directory = resolve(flags.directory);
  checkReadable(directory);
  const verification = await verify({ directory, heads, ...(keys.size > 0 && { keys }) });
  if (flags.json) await printJson(jsonOf(verification));
  else await printText(renderVerification(verification));
  return verification.verdict === "intact" ? ExitCode.done : brokenChainExitCode;
}

async function verify(options: VerifyOptions): Promise<Verification> {
  using line = new ProgressLine("verifying");
  return await verifyAudit({ ...options, progress: ({ bytes, of }) => line.show(bytes, of) });
}

/** @throws UsageError */
function readHead(text: string): Head {
  const [, sequence, hash] = /^(\d{1,16}):([0-9a-f]{64})$/.exec(text) ?? [];
  if (sequence === undefined || hash === undefined) {
    throw new UsageError(
      `Expected SEQUENCE:HASH after --head, the hash of 64 hexadecimal digits, received ${text}`,
    );
  }
  const range = { name: "--head", least: 1, most: Number.MAX_SAFE_INTEGER };
  return { sequence: wholeNumber(sequence, range), hash };
}

/** The Ed25519 public keys of a file. @throws UsageError, NamedFileRefused */
function readKeys(path: string): string[] {
  const text = withNamedFile(
    { what: "read the key", path, otherwise: "give another --key" },
    () => {
      const { size } = statSync(path);
      if (size > longestKeyFile) {
        const most = `at most ${longestKeyFile} bytes`;
        throw new UsageError(`Expected ${most} in ${path}, received ${size}`);
      }
      return readFileSync(path, "latin1");
    },
  );
  if (text.includes("PRIVATE KEY-----")) {
    throw new UsageError(`Expected a public key in ${path}, received a private one: keep it away`);
  }
  const blocks = text.match(/-----BEGIN PUBLIC KEY-----[^-]*-----END PUBLIC KEY-----/g) ?? [];
  if (blocks.length === 0) {
    throw new UsageError(`Expected a public key (PEM) in ${path}, received none`);
  }
  return blocks.map((block) => {
    const key = keyOf(block);
    if (key !== undefined) return key;
    throw new UsageError(`Expected an Ed25519 public key in ${path}, received another`);
  });
}

function keyOf(block: string): string | undefined {
  try {
    return keyText(createPublicKey(block));
  } catch {
    return undefined;
  }
}

/** The verification as programs get it. */
function jsonOf(verification: Verification): object {
  const { faultCount, keysGiven, cutShort, ...rest } = verification;
  return { ...rest, fault_count: faultCount, keys_given: keysGiven, cut_short_bytes: cutShort };
}

/** What was found, for people. Nothing of the log drives the terminal. */
export function renderVerification(verification: Verification): string {
  const { faults, faultCount, verdict } = verification;
  const table = faults.length === 0 ? "" : `${renderFaults(faults)}\n`;
  const more = faultCount - faults.length;
  const rest = more === 0 ? "" : `… and ${counted(more, "more fault")}\n\n`;
  const summary = alignColumns([
    [verdict, extentText(verification)],
    ...rowsOf(verification).map(([name = "", ...cells]) => [`  ${name}`, ...cells]),
  ]);
  return `${table}${rest}${summary.join("\n")}\n`;
}

function renderFaults(faults: readonly Fault[]): string {
  const rows = faults.map(({ file, line, sequence, what, expected, received }) => [
    file === "" ? "-" : file,
    line === 0 ? "-" : String(line),
    sequence === undefined ? "-" : String(sequence),
    what,
    cut(expected),
    cut(received),
  ]);
  return renderTable(["FILE", "LINE", "SEQUENCE", "WHAT", "EXPECTED", "RECEIVED"], rows);
}

function extentText({ records, segments, bytes, faultCount }: Verification): string {
  const extent = `${counted(records, "record")} in ${counted(segments, "segment")}`;
  const faults = faultCount === 0 ? "" : `, ${counted(faultCount, "fault")}`;
  return `${extent}, ${formatBytes(bytes)}${faults}`;
}

function rowsOf(verification: Verification): string[][] {
  const { head, dropped, signed, unsigned, keysGiven, cutShort, heads } = verification;
  const by = keysGiven ? "" : ", by a key that the log names itself: --key compares it";
  return [
    ["head", head === null ? "none: the log is empty" : `${head.sequence}:${head.hash}`],
    ...(dropped === null
      ? []
      : [["dropped", `records 1 to ${dropped.sequence}, by ${dropped.reason}, ${dropped.time}`]]),
    ["signed", signed === null ? "nothing" : `up to ${signed.sequence} by ${signed.key}${by}`],
    ...(unsigned === 0 ? [] : [["unsigned", `${counted(unsigned, "record")} after that`]]),
    ...(cutShort === 0
      ? []
      : [["cut short", `${cutShort} bytes at the end: being written, or left by a power cut`]]),
    ...heads.map(({ sequence, status }) => [
      "noted",
      `${sequence}: ${status === "dropped" ? "dropped, there is nothing to compare" : status}`,
    ]),
  ];
}

function counted(count: number, one: string): string {
  return `${count} ${one}${count === 1 ? "" : "s"}`;
}

function cut(text: string): string {
  return text.length <= partLetters ? text : `${text.slice(0, partLetters)}…`;
}
