import { createHash } from "node:crypto";
import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { fingerprintOf, hashOf, isSignedBy } from "../identity/secrets.ts";
import type { Dossier } from "./protocol-operator.ts";
import type { Calendar } from "./report/calendar.ts";
import {
  checkChain,
  type Fault,
  MANIFEST_FILE,
  type Manifest,
  manifestSchema,
  type ReportFile,
  type ReportKey,
  renderReport,
  reportLimits,
  signedManifestSchema,
  signedWords,
  signReports,
} from "./report/manifest.ts";

/** The reports of a run as a folder: made, and held against what was signed. */

export const utcCalendar: Calendar = {
  timeOf: (milliseconds) => new Date(milliseconds).toISOString(),
  millisecondsOf: (time) => Date.parse(time),
};

/** The four files of a run, signed now. */
export function reportsOf(dossier: Dossier, key: ReportKey, now: number = Date.now()) {
  const byteLength = (text: string) => Buffer.byteLength(text);
  return signReports(dossier, key, { calendar: utcCalendar, sha256: hashOf, byteLength, now });
}

/** One of the four. The manifest is about the others: for it alone are all of them made. */
export function reportFileOf(
  name: ReportFile | typeof MANIFEST_FILE,
  dossier: Dossier,
  { key, now }: { readonly key: ReportKey; readonly now: number },
): string {
  if (name === MANIFEST_FILE) return reportsOf(dossier, key, now)[name];
  return renderReport(name, dossier, utcCalendar);
}

export interface Verified {
  readonly manifest: Manifest | undefined;
  /** SHA-256 of the key that signed; undefined where no manifest could be read. */
  readonly key: string | undefined;
  readonly faults: readonly Fault[];
}

/**
 * Reads a folder of reports, and says all that is not as it was signed.
 * @param pin SHA-256 of the authority's key: who alone may have signed
 */
export function verifyReports(folder: string, pin: string): Verified {
  const text = readText(join(folder, MANIFEST_FILE), reportLimits.manifest * 2);
  if (typeof text !== "string") return { manifest: undefined, key: undefined, faults: [text] };
  const signed = v.safeParse(signedManifestSchema, parseJson(text));
  if (!signed.success) return unread("a signed manifest", signed.issues[0].message);
  const { manifest: words, key: spki, signature } = signed.output;
  const key = fingerprintOf(spki);
  const manifest = v.safeParse(manifestSchema, parseJson(words));
  if (!manifest.success) return unread("a manifest of a report", manifest.issues[0].message);
  const faults: Fault[] = [];
  const file = MANIFEST_FILE;
  if (key !== pin) faults.push({ file, expected: `the key ${pin}`, received: key });
  if (!isSignedBy({ text: signedWords(words), signature, spki })) {
    faults.push({ file, expected: "a signature of this manifest", received: "another one" });
  }
  for (const named of manifest.output.files) faults.push(...fileFaults(folder, named));
  const json = readText(join(folder, "report.json"), reportLimits.file);
  if (typeof json === "string") faults.push(...checkChain(json, manifest.output, hashOf));
  return { manifest: manifest.output, key, faults };
}

const unread = (expected: string, received: string): Verified => ({
  manifest: undefined,
  key: undefined,
  faults: [{ file: MANIFEST_FILE, expected, received }],
});

function fileFaults(folder: string, named: Manifest["files"][number]): Fault[] {
  const { name, bytes, sha256 } = named;
  const read = readBytes(join(folder, name), reportLimits.file);
  if ("expected" in read) return [read];
  const received = createHash("sha256").update(read).digest("hex");
  if (received === sha256 && read.length === bytes) return [];
  return [{ file: name, expected: `SHA-256 ${sha256}, ${bytes} bytes`, received }];
}

function readText(path: string, limit: number): string | Fault {
  const read = readBytes(path, limit);
  return "expected" in read ? read : new TextDecoder().decode(read);
}

/** A regular file; nothing that could block, or never end. */
function readBytes(path: string, limit: number): Uint8Array | Fault {
  const file = path.slice(path.lastIndexOf("/") + 1);
  const expected = "a regular file that can be read";
  let descriptor: number | undefined;
  try {
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const status = fstatSync(descriptor);
    if (!status.isFile()) return { file, expected, received: "something else" };
    if (status.size > limit) {
      return { file, expected: `at most ${limit} bytes`, received: `${status.size}` };
    }
    return readFileSync(descriptor);
  } catch (error) {
    return { file, expected, received: (error as Error).message };
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
