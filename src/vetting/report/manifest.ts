import * as v from "valibot";
import { positive } from "../protocol.ts";
import { brokenLink, chainStart, type Sha256 } from "../protocol-chain.ts";
import { type Dossier, dossierSchema, verdictSchema } from "../protocol-operator.ts";
import type { Calendar } from "./calendar.ts";
import { htmlText } from "./html-report.ts";
import { ocpText } from "./ocp.ts";

/**
 * The reports of a run with what proves them: a manifest has the SHA-256 of each file, and where
 * the chain of results begins and ends; the orchestrator signs it with the authority's key. Pure.
 */

export const reportFiles = ["report.html", "report.json", "report.ocp.jsonl"] as const;
export type ReportFile = (typeof reportFiles)[number];
export const MANIFEST_FILE = "manifest.json";

export const reportLimits = {
  /** Bytes of a manifest. */
  manifest: 64 * 1024,
  /** Bytes of one report that `verify` reads. */
  file: 512 * 1024 ** 2,
} as const;

const hash = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, "a SHA-256 in hexadecimal"));
const size = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

export const manifestSchema = v.strictObject({
  format: v.literal(1),
  kind: v.literal("hostler-vetting-report"),
  run: positive,
  mac: v.string(),
  host: v.string(),
  verdict: v.nullable(verdictSchema),
  /** By the orchestrator's clock. */
  made: v.pipe(v.string(), v.isoTimestamp()),
  chain: v.strictObject({
    start: hash,
    /** Of the last result; `start` where there is none. */
    head: hash,
    results: size,
  }),
  files: v.pipe(
    v.array(v.strictObject({ name: v.picklist(reportFiles), bytes: size, sha256: hash })),
    v.length(reportFiles.length),
  ),
});
export type Manifest = v.InferOutput<typeof manifestSchema>;

/** As manifest.json has it. */
export const signedManifestSchema = v.strictObject({
  /** The manifest's JSON, letter by letter as it was signed. */
  manifest: v.pipe(v.string(), v.maxLength(reportLimits.manifest)),
  /** Ed25519: the SPKI's DER in base64. */
  key: v.pipe(v.string(), v.maxLength(256)),
  /** In base64url. */
  signature: v.pipe(v.string(), v.maxLength(256)),
});
export type SignedManifest = v.InferOutput<typeof signedManifestSchema>;

/** What is signed says first what it is: no other signature of the key can stand here. */
export const signedWords = (manifest: string) => `hostler vetting report 1\n${manifest}`;

export interface ReportKey {
  readonly publicKey: string;
  sign(text: string): string;
}

export interface RenderOptions {
  readonly calendar: Calendar;
  readonly sha256: Sha256;
  readonly byteLength: (text: string) => number;
  /** Milliseconds since 1970. */
  readonly now: number;
}

export type Reports = Readonly<Record<ReportFile, string>>;

const renderers: Readonly<Record<ReportFile, (dossier: Dossier, calendar: Calendar) => string>> = {
  "report.html": htmlText,
  "report.json": (dossier) => jsonText(dossier),
  "report.ocp.jsonl": ocpText,
};

/** One of them, where nobody asks for the others. */
export const renderReport = (name: ReportFile, dossier: Dossier, calendar: Calendar): string =>
  renderers[name](dossier, calendar);

export function renderReports(dossier: Dossier, calendar: Calendar): Reports {
  return {
    "report.html": renderReport("report.html", dossier, calendar),
    "report.json": renderReport("report.json", dossier, calendar),
    "report.ocp.jsonl": renderReport("report.ocp.jsonl", dossier, calendar),
  };
}

export const jsonText = (dossier: Dossier) => `${JSON.stringify(dossier, null, 2)}\n`;

/** All four files. */
export function signReports(
  dossier: Dossier,
  key: ReportKey,
  options: RenderOptions,
): Reports & { readonly [MANIFEST_FILE]: string } {
  const reports = renderReports(dossier, options.calendar);
  const manifest = JSON.stringify(manifestOf(dossier, reports, options));
  const signed: SignedManifest = {
    manifest,
    key: key.publicKey,
    signature: key.sign(signedWords(manifest)),
  };
  return { ...reports, [MANIFEST_FILE]: `${JSON.stringify(signed, null, 2)}\n` };
}

function manifestOf(dossier: Dossier, reports: Reports, options: RenderOptions): Manifest {
  const { view, results } = dossier;
  const { sha256, byteLength, calendar, now } = options;
  const start = chainStart(subjectOf(dossier), sha256);
  return {
    format: 1,
    kind: "hostler-vetting-report",
    ...{ run: view.run, mac: view.mac, host: view.host, verdict: view.verdict },
    made: calendar.timeOf(now),
    chain: { start, head: results.at(-1)?.hash ?? start, results: results.length },
    files: reportFiles.map((name) => {
      const text = reports[name];
      return { name, bytes: byteLength(text), sha256: sha256(text) };
    }),
  };
}

function subjectOf({ view, spec }: Dossier) {
  const { run, mac, created, spec_revision } = view;
  return { run, mac, created, spec_revision, spec };
}

/** Something that is not as it was signed. */
export interface Fault {
  readonly file: string;
  readonly expected: string;
  readonly received: string;
}

/**
 * The chain as report.json has it, against the manifest: which record was changed, is missing, or
 * stands elsewhere.
 */
export function checkChain(text: string, manifest: Manifest, sha256: Sha256): readonly Fault[] {
  const file = "report.json";
  const parsed = v.safeParse(dossierSchema, parseJson(text));
  if (!parsed.success) {
    return [{ file, expected: "the dossier of a run", received: parsed.issues[0].message }];
  }
  const dossier = parsed.output;
  const { view, results } = dossier;
  const faults: Fault[] = [];
  const compare = (what: string, expected: string | number, received: string | number) => {
    if (expected === received) return;
    faults.push({ file, expected: `${what} ${expected}`, received: String(received) });
  };
  compare("run", manifest.run, view.run);
  compare("card", manifest.mac, view.mac);
  compare("verdict", manifest.verdict ?? "none", view.verdict ?? "none");
  compare("results", manifest.chain.results, results.length);
  compare("chain from", manifest.chain.start, chainStart(subjectOf(dossier), sha256));
  compare("chain to", manifest.chain.head, results.at(-1)?.hash ?? manifest.chain.start);
  const place = brokenLink(subjectOf(dossier), results, sha256);
  const broken = place === undefined ? undefined : results[place];
  if (broken !== undefined) {
    const which = `result ${(place ?? 0) + 1} (${broken.stage}, attempt ${broken.attempt})`;
    const expected = `${which} as it was taken, after the one that was before it`;
    faults.push({ file, expected, received: "another record, place or predecessor" });
  }
  return faults;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
