import * as v from "valibot";

/**
 * The wire between hosts and their authority: what is sent, what is signed, and how much of it.
 * What stands here outlives every version of the program on either side: words and numbers are
 * never used again for something else. Every text that is signed begins with its purpose and its
 * version, so that a signature for one purpose is none for another.
 */

/** The version of the wire: a request with another one is refused. */
export const PROTOCOL_VERSION = 1;

/** The limits of identity; going over one is a refusal that a test shows. */
export const limits = {
  /** Characters of the name of a host or of an operator. */
  nameCharacters: 63,
  /** Characters of an address that hosts are told. */
  addressCharacters: 255,
  /** Hosts, revoked ones included, that one authority knows. */
  hosts: 65_536,
  operators: 1_024,
  /** Enrolment tokens that are kept, used and expired ones included. */
  tokens: 4_096,
  /** Milliseconds for which an enrolment token may be good, when nothing is said, and at most. */
  tokenLifetime: 3_600_000,
  longestTokenLifetime: 7 * 86_400_000,
  /** Nonces that wait for their use; over it the oldest goes. */
  nonces: 65_536,
  /** Milliseconds in which a nonce is used. */
  nonceLifetime: 30_000,
  /** Sessions at once; over it a new one is refused. */
  sessions: 131_072,
  /** Sessions of one host at once; over it the oldest ends. */
  sessionsOfHost: 8,
  /** Milliseconds after which a session ends, whatever happens in it, and when nothing does. */
  sessionLifetime: 12 * 3_600_000,
  sessionIdle: 15 * 60_000,
  /** Boot ids that are remembered of a host. */
  boots: 16,
  /** Pairs of boot ids that are reported of one host. */
  clones: 8,
  /** Certificates that hosts trust at once: the old and the new. */
  pins: 4,
  /** Milliseconds after its making in which a statement may be taken. */
  statementLifetime: 90 * 86_400_000,
  /** Milliseconds for which an operator's token may go on beside the one that replaces it. */
  longestOverlap: 30 * 86_400_000,
  /** Events that are kept for those who come late. */
  events: 4_096,
  /** Changes that wait for the one before them. */
  changes: 1_024,
  /** Bytes of a key file and of a journal that are read. */
  fileBytes: 64 * 1024,
  /** Characters of a token's text. */
  tokenTextCharacters: 2_048,
} as const;

/** SHA-256 as 64 hexadecimal digits, lower case. */
export const hashSchema = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, "64 hexadecimal digits"));

/** 256 bits of chance as base64url. */
export const secretSchema = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9_-]{43}$/, "43 characters of base64url"),
);

/** Letters that are told apart aloud, digits, "-", "_", and dots between words. */
const namePattern = /^[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*$/;
export const nameSchema = v.pipe(
  v.string(),
  v.maxLength(limits.nameCharacters, `at most ${limits.nameCharacters} characters`),
  v.regex(namePattern, "a name of a-z, 0-9, - and _, with dots between words"),
);

/** /proc/sys/kernel/random/boot_id. */
export const bootSchema = v.pipe(
  v.string(),
  v.regex(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/, "a boot id"),
);

/** The SPKI of an Ed25519 key is 44 bytes of DER: RFC 8410, section 4. */
export const publicKeySchema = v.pipe(
  v.string(),
  v.regex(/^MCowBQYDK2VwAyEA[A-Za-z0-9+/]{43}=$/, "an Ed25519 key as SPKI in base64"),
);

/** 64 bytes: RFC 8032. */
export const signatureSchema = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9_-]{86}$/, "an Ed25519 signature in base64url"),
);

/** "https://authority.example:7443"; HTTPS alone, because no flag turns TLS off. */
export const addressSchema = v.pipe(
  v.string(),
  v.maxLength(limits.addressCharacters, `at most ${limits.addressCharacters} characters`),
  v.regex(/^https:\/\/([a-z0-9.-]+|\[[0-9a-f:.]+\]):\d{1,5}$/i, "https://NAME:PORT"),
);

/** Milliseconds since 1970: a signed or trusted time, never one of the host's clock. */
export const timeSchema = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
export const serialSchema = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
export const pinsSchema = v.pipe(v.array(hashSchema), v.minLength(1), v.maxLength(limits.pins));
const version = v.literal(PROTOCOL_VERSION);
/** 80 bits of chance; says which token is meant, and is no secret. */
export const tokenIdSchema = v.pipe(v.string(), v.regex(/^[0-9a-f]{20}$/, "a token's id"));

/** Which certificates hosts trust, said by the authority's own key. */
export const statementSchema = v.strictObject({
  version,
  /** SHA-256 of the SPKI of the key that signs. */
  authority: hashSchema,
  /** Hosts take a statement only when this is greater than that of the one they have. */
  serial: serialSchema,
  issued: timeSchema,
  /** Later than this, by trusted time, it is not taken any more. What was taken stays. */
  expires: timeSchema,
  pins: pinsSchema,
  signature: signatureSchema,
});
export type Statement = v.InferOutput<typeof statementSchema>;

export const challengeSchema = v.strictObject({
  version,
  nonce: secretSchema,
  authority: hashSchema,
  /** Milliseconds from now. */
  lifetime: v.number(),
});
export type Challenge = v.InferOutput<typeof challengeSchema>;

export const enrolRequestSchema = v.strictObject({
  version,
  token: tokenIdSchema,
  secret: secretSchema,
  key: publicKeySchema,
  boot: bootSchema,
  nonce: secretSchema,
  /** SHA-256 of the DER of the server's certificate, as the host saw it. */
  certificate: hashSchema,
  signature: signatureSchema,
});
export type EnrolRequest = v.InferOutput<typeof enrolRequestSchema>;

export const enrolAnswerSchema = v.strictObject({
  version,
  host: nameSchema,
  /** The public key of the authority, whose hash stands in the token. */
  authority_key: publicKeySchema,
  statement: statementSchema,
});
export type EnrolAnswer = v.InferOutput<typeof enrolAnswerSchema>;

export const sessionRequestSchema = v.strictObject({
  version,
  host: nameSchema,
  /** The key that signs: SHA-256 of its SPKI. */
  key: hashSchema,
  boot: bootSchema,
  nonce: secretSchema,
  certificate: hashSchema,
  /** What the host trusts, durably; so the authority knows when the old may go. */
  pins: pinsSchema,
  signature: signatureSchema,
});
export type SessionRequest = v.InferOutput<typeof sessionRequestSchema>;

export const sessionAnswerSchema = v.strictObject({
  version,
  /** What authorizes from now on, until the session ends. */
  bearer: v.pipe(v.string(), v.regex(/^hostler-session-[A-Za-z0-9_-]{43}$/, "a session's token")),
  /** Names the session, and is no secret. */
  session: v.string(),
  /** Milliseconds from now, whatever happens in it, and when nothing does. */
  lifetime: v.number(),
  idle: v.number(),
  statement: statementSchema,
});
export type SessionAnswer = v.InferOutput<typeof sessionAnswerSchema>;

/** From a host, in a session of its present key. */
export const rotateKeyRequestSchema = v.strictObject({
  version,
  next: publicKeySchema,
  nonce: secretSchema,
  certificate: hashSchema,
  /** By the present key: that it wants this. */
  signature: signatureSchema,
  /** By the next one: that the host has it. */
  next_signature: signatureSchema,
});
export type RotateKeyRequest = v.InferOutput<typeof rotateKeyRequestSchema>;

export const rotateKeyAnswerSchema = v.strictObject({
  version,
  /** Both keys open sessions until the next one was used. */
  key: hashSchema,
  next: hashSchema,
});

type Signed<Request, Signatures extends PropertyKey> = Omit<Request, Signatures | "version">;

/** What a host signs with its key to be enrolled. */
export function enrolText(
  request: Signed<EnrolRequest, "signature" | "secret" | "key"> & {
    readonly authority: string;
    readonly key: string;
  },
): string {
  return text("hostler enrol v1", [
    ["authority", request.authority],
    ["token", request.token],
    ["key", request.key],
    ["boot", request.boot],
    ["certificate", request.certificate],
    ["nonce", request.nonce],
  ]);
}

/** What a host signs to open a session. */
export function sessionText(
  request: Signed<SessionRequest, "signature"> & { readonly authority: string },
): string {
  return text("hostler session v1", [
    ["authority", request.authority],
    ["host", request.host],
    ["key", request.key],
    ["boot", request.boot],
    ["certificate", request.certificate],
    ["pins", request.pins.join(",")],
    ["nonce", request.nonce],
  ]);
}

/** What both keys of a host sign when the next one takes the place of the present one. */
export function rotateKeyText(request: {
  readonly authority: string;
  readonly host: string;
  readonly key: string;
  readonly next: string;
  readonly certificate: string;
  readonly nonce: string;
}): string {
  return text("hostler rotate key v1", [
    ["authority", request.authority],
    ["host", request.host],
    ["key", request.key],
    ["next", request.next],
    ["certificate", request.certificate],
    ["nonce", request.nonce],
  ]);
}

/** What the authority signs with its key. */
export function statementText(statement: Signed<Statement, "signature">): string {
  return text("hostler pins v1", [
    ["authority", statement.authority],
    ["serial", String(statement.serial)],
    ["issued", String(statement.issued)],
    ["expires", String(statement.expires)],
    ["pins", statement.pins.join(",")],
  ]);
}

/**
 * One line for each field. No field can hold the end of a line: the schemas see to that, and here
 * it is seen to once more, because a signature over an ambiguous text is a hole.
 * @throws RangeError
 */
function text(purpose: string, fields: readonly (readonly [string, string])[]): string {
  for (const [name, value] of fields) {
    if (!/^[\x20-\x7e]+$/.test(value)) throw new RangeError(`${name} holds what cannot be signed`);
  }
  return `${purpose}\n${fields.map(([name, value]) => `${name} ${value}\n`).join("")}`;
}

/** "3f9a 02c1 77be 51d0": the beginning of a fingerprint, as people compare it. */
export function shortFingerprint(fingerprint: string): string {
  return fingerprint.slice(0, 16).replace(/(.{4})(?=.)/g, "$1 ");
}
