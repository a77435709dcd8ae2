import * as v from "valibot";
import {
  addressSchema,
  hashSchema,
  limits,
  pinsSchema,
  secretSchema,
  tokenIdSchema,
} from "./protocol.ts";

/**
 * The text of an enrolment token: one line that a person copies to the host, with all that the
 * host needs to find its authority, to know it, and to be let in once. Pure.
 *
 *     hostler-token-v1.BASE64URL.CHECKSUM
 *
 * The middle is a JSON array; the checksum is the CRC-32 of the middle in eight hexadecimal
 * digits. It is no protection, and tells a copy that was cut or mistyped before anybody is asked.
 */
const partsSchema = v.strictTuple([
  addressSchema,
  pinsSchema,
  hashSchema,
  tokenIdSchema,
  secretSchema,
]);

export interface EnrolmentToken {
  readonly address: string;
  /** SHA-256 of the certificates that the authority may show. */
  readonly pins: readonly string[];
  /** SHA-256 of the SPKI of the authority's key. */
  readonly authority: string;
  readonly id: string;
  readonly secret: string;
}

const prefix = "hostler-token-v1";

export function formatToken(token: EnrolmentToken): string {
  const parts = [token.address, token.pins, token.authority, token.id, token.secret];
  const middle = Buffer.from(JSON.stringify(parts)).toString("base64url");
  return `${prefix}.${middle}.${checksum(middle)}`;
}

export type ParsedToken =
  | { readonly kind: "token"; readonly token: EnrolmentToken }
  | { readonly kind: "refused"; readonly expected: string; readonly received: string };

/** Nothing that is told of a refused text holds any of it: there may be a secret in it. */
export function parseToken(text: string): ParsedToken {
  const line = text.trim();
  if (line.length > limits.tokenTextCharacters) {
    const expected = `a token of at most ${limits.tokenTextCharacters} characters`;
    return { kind: "refused", expected, received: `${line.length} characters` };
  }
  const [head, middle, sum, ...more] = line.split(".");
  if (head !== prefix) {
    const received = "something that begins otherwise";
    return { kind: "refused", expected: `a token that begins with ${prefix}.`, received };
  }
  if (middle === undefined || sum === undefined || more.length > 0) {
    const received = `${line.split(".").length} parts`;
    return { kind: "refused", expected: "three parts with dots between them", received };
  }
  if (checksum(middle) !== sum) {
    const received = "another one: the text was cut or mistyped";
    return { kind: "refused", expected: "its checksum at the end of the token", received };
  }
  const parsed = v.safeParse(
    v.pipe(v.string(), v.parseJson(), partsSchema),
    Buffer.from(middle, "base64url").toString(),
  );
  if (!parsed.success) {
    return { kind: "refused", expected: "a token of version 1", received: "other contents" };
  }
  const [address, pins, authority, id, secret] = parsed.output;
  return { kind: "token", token: { address, pins, authority, id, secret } };
}

/** CRC-32 of ISO 3309, as in gzip (RFC 1952, section 8), of ASCII text. */
function checksum(text: string): string {
  let sum = 0xffffffff;
  for (const character of text) {
    sum ^= character.charCodeAt(0);
    for (let bit = 0; bit < 8; bit += 1) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return ((sum ^ 0xffffffff) >>> 0).toString(16).padStart(8, "0");
}
