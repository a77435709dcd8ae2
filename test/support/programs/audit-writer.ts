/**
 * Writes an audit log as a daemon would, in steps that its words name, and says what came of each
 * on stdout. The compiled file runs it as its own Bun, and a test kills it.
 */
import { createPrivateKey } from "node:crypto";
import { closeSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { AuditError } from "../../../src/audit/audit-error.ts";
import { AuditLog, type AuditOptions } from "../../../src/audit/log.ts";
import { signerOf } from "../../../src/audit/signature.ts";
import { callOf } from "../audit.ts";

const options = JSON.parse(process.env["AUDIT_OPTIONS"] ?? "{}") as AuditOptions;
const keyFile = process.env["AUDIT_KEY"];
/** While it is there, fsync fails: failing-fsync.c. */
const noFsync = process.env["NO_FSYNC"] ?? "";
const filler = `${options.directory}/filler`;

function say(line: string): void {
  writeSync(1, `${line}\n`);
}

async function attempt(act: () => Promise<string> | string): Promise<void> {
  try {
    say(await act());
  } catch (error) {
    if (!(error instanceof AuditError)) throw error;
    say(`refused ${error.problem}: ${error.message}`);
  }
}

/** To the last byte. */
function fill(): void {
  const file = openSync(filler, "a");
  for (let size = 65_536; size >= 1; size /= 2) {
    try {
      for (;;) writeSync(file, new Uint8Array(size));
    } catch {
      // No more pieces of this size.
    }
  }
  closeSync(file);
}

let number = 0;

async function append(log: AuditLog, letters: number): Promise<string> {
  number += 1;
  const before = letters === 0 ? {} : { before: "x".repeat(letters) };
  const { sequence, hash } = await log.append(callOf(number, before));
  return `written ${sequence}:${hash}`;
}

async function step(log: AuditLog, word: string): Promise<void> {
  const [name, count = "1"] = word.split(":");
  if (name === "fill") fill();
  else if (name === "free") rmSync(filler);
  else if (name === "no-fsync") closeSync(openSync(noFsync, "w"));
  else if (name === "fsync") rmSync(noFsync);
  else if (name === "wait") {
    say("waiting");
    setInterval(() => {}, 1_000_000);
    await new Promise(() => {});
  } else if (name === "admit") {
    await attempt(() => {
      log.admit();
      return "admitted";
    });
  } else if (name === "together") {
    const all = Array.from({ length: Number(count) }, () => attempt(() => append(log, 0)));
    await Promise.all(all);
  } else {
    const letters = name === "big" ? 15_000 : 0;
    for (let left = Number(count); left > 0; left -= 1) await attempt(() => append(log, letters));
  }
}

const signer =
  keyFile === undefined ? {} : { signer: signerOf(createPrivateKey(readFileSync(keyFile))) };
const opening = await AuditLog.open({ ...options, ...signer }).catch((error: unknown) => {
  if (error instanceof AuditError) say(`refused ${error.problem}: ${error.message}`);
  else throw error;
});
if (opening !== undefined) {
  say("opened");
  for (const word of process.argv.slice(2)) await step(opening, word);
  await opening.close();
  say("closed");
}
