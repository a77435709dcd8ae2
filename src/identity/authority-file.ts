import * as v from "valibot";
import { writeDurably } from "../journal/append-journal.ts";
import { FileRefused, withFile } from "../journal/file-refused.ts";
import { pinOf, type ServerCertificate } from "./certificate.ts";
import { readSecretFile } from "./host-key.ts";
import type { CertificateState } from "./lifecycle-certificate.ts";
import { hashSchema, serialSchema, timeSchema } from "./protocol.ts";

/**
 * What an authority keeps beside its store, because no backup of the store may hold it or bring an
 * older one back: the private keys of its certificates, the serial of its last statement, and the
 * latest time that it knew. One file, replaced as a whole: each change is there or is not.
 */
const certificateSchema = v.strictObject({
  certificate: v.string(),
  key: v.string(),
  pin: hashSchema,
});
const fileSchema = v.strictObject({
  version: v.literal(1),
  current: certificateSchema,
  next: v.nullable(certificateSchema),
  /** Of the last statement that was signed. */
  serial: serialSchema,
  time: timeSchema,
});

export interface AuthorityFacts {
  readonly certificates: CertificateState<ServerCertificate>;
  readonly serial: number;
  readonly time: number;
}

const what = "the authority's file";
const mend =
  "Restore it from where it was moved; without it hosts need a new statement: remove it, and " +
  "they ask for one";

/** @returns undefined when there is none. @throws FileRefused */
export function readAuthorityFile(path: string): AuthorityFacts | undefined {
  const text = readSecretFile(path, what);
  if (text === undefined) return undefined;
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), fileSchema), text);
  if (!parsed.success) {
    // Without the words of the validation: parts of a key could stand in them.
    const expected = "version 1 of it";
    throw new FileRefused(
      `Cannot use ${what} ${path}: expected ${expected}, received something else. ${mend}.`,
    );
  }
  const { current, next, serial, time } = parsed.output;
  for (const { certificate, pin } of next === null ? [current] : [current, next]) {
    if (isPinOf(certificate, pin)) continue;
    throw new FileRefused(
      `Cannot use ${what} ${path}: expected certificates with the pins beside them, received ` +
        `another one. ${mend}.`,
    );
  }
  return { certificates: { current, next: next ?? undefined }, serial, time };
}

function isPinOf(certificate: string, pin: string): boolean {
  try {
    return pinOf(certificate) === pin;
  } catch {
    // No certificate at all.
    return false;
  }
}

/** Durable when it returns. @throws FileRefused; the old file is then untouched */
export function writeAuthorityFile(path: string, facts: AuthorityFacts): void {
  const { certificates, serial, time } = facts;
  const { current, next } = certificates;
  const contents = { version: 1, current, next: next ?? null, serial, time };
  withFile({ what: "write the authority's file", path, otherwise: "name another folder" }, () => {
    writeDurably(path, `${JSON.stringify(contents)}\n`, 0o600);
  });
}
