/** Audit logs for tests: written as the product writes them, and then changed by somebody else. */
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { AuditLog, type AuditOptions } from "../../src/audit/log.ts";
import { type AuditRecord, encodeRecord, type Head } from "../../src/audit/record.ts";
import { type AuditSigner, keyText, signerOf } from "../../src/audit/signature.ts";
import { type Verification, verifyAudit } from "../../src/audit/verify.ts";
import type { CallRecord } from "../../src/http/route.ts";

/** A call like those of the authority; the number makes each another one. */
export function callOf(number: number, change: Partial<CallRecord> = {}): CallRecord {
  return {
    who: "operator alice",
    from: "192.0.2.1:40112",
    verb: "identity.hosts.revoke",
    object: `host web-${number}`,
    before: { state: "enrolled" },
    after: { state: "revoked", reason: "stolen" },
    result: "done",
    ...change,
  };
}

export interface TestSigner {
  readonly signer: AuditSigner;
  readonly privateKey: KeyObject;
  readonly keys: ReadonlySet<string>;
  /** As a file for --key has it. */
  readonly pem: string;
}

export function testSigner(): TestSigner {
  const { privateKey, publicKey } = generateKeyPairSync("ed25519");
  return {
    signer: signerOf(privateKey),
    privateKey,
    keys: new Set([keyText(publicKey)]),
    pem: publicKey.export({ format: "pem", type: "spki" }).toString(),
  };
}

/** Writes so many calls, each durable before the next one. */
export async function writeCalls(options: AuditOptions, count: number): Promise<Head> {
  await using log = await AuditLog.open(options);
  for (let number = 1; number <= count; number += 1) await log.append(callOf(number));
  await log.close();
  return log.head;
}

/** The files of a log by their names, as they are now. */
export class LogFiles {
  readonly directory: string;
  readonly files: ReadonlyMap<string, Buffer>;

  constructor(directory: string) {
    this.directory = directory;
    const names = readdirSync(directory).filter((name) => name.endsWith(".jsonl"));
    this.files = new Map(
      names.toSorted().map((name) => [name, readFileSync(join(directory, name))]),
    );
  }

  get names(): string[] {
    return [...this.files.keys()];
  }

  /** The bytes of the segment of this number, from 0. */
  bytes(index: number): Buffer {
    return this.files.get(this.names[index] ?? "") ?? Buffer.alloc(0);
  }

  lines(index: number): string[] {
    return this.bytes(index).toString().split("\n").slice(0, -1);
  }

  write(index: number, content: Uint8Array | readonly string[]): void {
    const bytes =
      content instanceof Uint8Array ? content : content.map((line) => `${line}\n`).join("");
    writeFileSync(join(this.directory, this.names[index] ?? ""), bytes);
  }

  remove(index: number): void {
    rmSync(join(this.directory, this.names[index] ?? ""));
  }

  /** All as it was when this was made. */
  restore(): void {
    for (const [name, bytes] of this.files) writeFileSync(join(this.directory, name), bytes);
  }
}

/** Writes lines anew with hashes that fit, as one does who knows the format but not the key. */
export function rechain(lines: readonly string[], from: Head): string[] {
  let head = from;
  return lines.map((line) => {
    const {
      sequence: _,
      time,
      previous: __,
      hash: ___,
      ...content
    } = JSON.parse(line) as AuditRecord;
    const encoded = encodeRecord(content, { head, time });
    head = encoded.head;
    return encoded.line.trimEnd();
  });
}

/** The faults in short: "segment-….jsonl:3 #4 hash of the line". */
export function faultsOf({ faults }: Verification): string[] {
  return faults.map(({ file, line, sequence, what }) => {
    const short = file.replace(/^segment-0*/, "").replace(/\.jsonl$/, "");
    return `${short}:${line} #${sequence} ${what}`;
  });
}

/** Verifies a folder without a key. */
export async function verified(directory: string): Promise<Verification> {
  return await verifyAudit({ directory });
}
