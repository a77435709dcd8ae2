import * as v from "valibot";
import { type Envelope, type Metadata, metadataSchema, type Root, rootSchema } from "./protocol.ts";
import { newEnvelope } from "./signing-key.ts";

/** A root set that nobody has signed. */
export function makeRoot(root: Omit<Root, "format">): Envelope {
  return newEnvelope(v.parse(rootSchema, { format: 1, ...root }));
}

/** The metadata that follows: what was revoked stays so. */
export interface NextMetadata {
  readonly previous: Metadata | null;
  readonly issued: string;
  readonly expires: string;
  /** In place of the previous ones, where there are any. */
  readonly keys: Metadata["keys"];
  readonly revokedKeys: Metadata["revoked_keys"];
  readonly revoked: Metadata["revoked"];
}

/** @returns a sentence, where there would be too much in it */
export function makeMetadata(next: NextMetadata): Envelope | string {
  const { previous, issued, expires } = next;
  const revokedKeys = merge(previous?.revoked_keys, next.revokedKeys, ({ key }) => key);
  const isRevoked = new Set(revokedKeys.map(({ key }) => key));
  const keys = next.keys.length > 0 ? next.keys : (previous?.keys ?? []);
  const parsed = v.safeParse(metadataSchema, {
    ...{ format: 1, version: (previous?.version ?? 0) + 1, issued, expires },
    keys: keys.filter(({ key }) => !isRevoked.has(key)),
    revoked_keys: revokedKeys,
    revoked: merge(previous?.revoked, next.revoked, ({ digest }) => digest),
  });
  if (parsed.success) return newEnvelope(parsed.output);
  const [{ path, expected, message, received }] = parsed.issues;
  const place = (path ?? []).map((part) => String(part.key)).join(".");
  return `${place}: expected ${expected ?? message}, received ${received}`;
}

/** What was revoked stays so, with its first reason. */
function merge<T>(old: readonly T[] = [], more: readonly T[], of: (one: T) => string): T[] {
  const known = new Set(old.map(of));
  return [...old, ...more.filter((one) => !known.has(of(one)))];
}
