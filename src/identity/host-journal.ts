import * as v from "valibot";
import { writeDurably } from "../journal/append-journal.ts";
import { FileRefused, withFile } from "../journal/file-refused.ts";
import { readSecretFile } from "./host-key.ts";
import {
  addressSchema,
  hashSchema,
  nameSchema,
  pinsSchema,
  publicKeySchema,
  serialSchema,
  timeSchema,
} from "./protocol.ts";

/** What a host knows of its authority. One file, replaced as a whole. */
const journalSchema = v.strictObject({
  version: v.literal(1),
  /** The name under which it was enrolled. */
  host: nameSchema,
  address: addressSchema,
  authority: hashSchema,
  authority_key: publicKeySchema,
  /** Certificates that are trusted, and the serial of the statement that said so. */
  pins: pinsSchema,
  serial: serialSchema,
  /** The latest time that is certain to have passed, milliseconds since 1970. */
  time: timeSchema,
});
export type HostJournal = v.InferOutput<typeof journalSchema>;

/** @returns undefined when the host was never enrolled. @throws FileRefused */
export function readHostJournal(path: string): HostJournal | undefined {
  const text = readSecretFile(path, "the identity's journal");
  if (text === undefined) return undefined;
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), journalSchema), text);
  if (parsed.success) return parsed.output;
  const received = "something else";
  throw new FileRefused(
    `Cannot use the identity's journal ${path}: expected version 1 of it, received ${received}. ` +
      "Remove it, and enrol this host again: its key stays.",
  );
}

/** Durable when it returns. @throws FileRefused; the old one is then untouched */
export function writeHostJournal(path: string, journal: HostJournal): void {
  const file = { what: "write the identity's journal", path, otherwise: "name another folder" };
  withFile(file, () => writeDurably(path, `${JSON.stringify(journal)}\n`, 0o600));
}
