import * as v from "valibot";

/** What identity says no to, by kind: how it is told to programs, and what people do about it. */
interface RefusalWords {
  /** As HTTP has it: RFC 9110, section 15. */
  readonly status: 403 | 404 | 409 | 503 | 507;
  readonly title: string;
  readonly mend: string;
}

const revokedMend =
  "If this host is yours, it needs another key: remove its folder there, which is " +
  "/var/lib/hostler/identity as a rule, and enrol it by a new token: hostler identity token create";

/** Kinds stand in the `type` of a problem on the wire, and are never used for something else. */
export const refusals = {
  "token-unknown": {
    status: 403,
    title: "No such enrolment token",
    mend: "Copy the whole token once more, or make a new one: hostler identity token create",
  },
  "token-expired": {
    status: 403,
    title: "The enrolment token has expired",
    mend: "Make a new one: hostler identity token create",
  },
  "token-used": {
    status: 403,
    title: "The enrolment token was used by another key",
    mend: "If that was none of your hosts, the token was stolen: revoke the host that it let in",
  },
  "token-revoked": {
    status: 403,
    title: "The enrolment token was revoked",
    mend: "Make a new one: hostler identity token create",
  },
  "name-taken": {
    status: 409,
    title: "The name is in use",
    mend: "Take another name; a token with --replace puts a new key in the place of a host's",
  },
  "key-taken": {
    status: 409,
    title: "The key is another host's",
    mend: "Two machines have one key file, of an image perhaps: remove it on one, enrol again",
  },
  "key-revoked": { status: 403, title: "The key was revoked", mend: revokedMend },
  "host-revoked": { status: 403, title: "The host was revoked", mend: revokedMend },
  "key-unknown": {
    status: 403,
    title: "The key is not this host's",
    mend: "Enrol the host again with a new token: hostler identity token create --replace",
  },
  "nonce-spent": {
    status: 409,
    title: "The nonce is unknown, used or too old",
    mend: "Ask for a new challenge",
  },
  "certificate-other": {
    status: 409,
    title: "The server shows another certificate",
    mend: "Try again; if it stays, somebody stands between the host and its authority",
  },
  "signature-wrong": {
    status: 403,
    title: "The signature is wrong",
    mend: "Look whether the key file is the one that was enrolled",
  },
  "too-many": {
    status: 503,
    title: "A limit was reached",
    mend: "Remove what is not needed any more, or try again later",
  },
  "not-found": {
    status: 404,
    title: "There is no such thing",
    mend: "See what there is: hostler identity host list, operator list, token list",
  },
  "not-allowed": {
    status: 403,
    title: "Not allowed",
    mend: "Ask an operator who may, or do it as root on the authority's machine",
  },
  "wrong-state": {
    status: 409,
    title: "Not in this state",
    mend: "See the state: hostler identity host show",
  },
  unconfirmed: {
    status: 409,
    title: "Hosts have not confirmed the new certificate",
    mend: "Wait for them, or finish with --force: they then ask for a signed statement first",
  },
  contended: {
    status: 409,
    title: "Somebody else changed it meanwhile",
    mend: "Look at it, and try again",
  },
  full: {
    status: 507,
    title: "The authority has no room",
    mend: "Nothing was changed; make room on the authority's disk, and ask again",
  },
  unavailable: {
    status: 503,
    title: "The store does not answer",
    mend: "Try again; the log of the authority says what its store lacks",
  },
} as const satisfies Readonly<Record<string, RefusalWords>>;
export type RefusalKind = keyof typeof refusals;

export const refusalTypePrefix = "urn:hostler:identity:";

/** What a host reads of a refusal, from whatever server; members beyond these are not ours. */
export const problemSchema = v.object({
  type: v.pipe(v.string(), v.maxLength(256)),
  title: v.pipe(v.string(), v.maxLength(256)),
  detail: v.optional(v.pipe(v.string(), v.maxLength(2048)), ""),
});

/** @returns the kind of a problem of ours; undefined for any other */
export function refusalKindOf(type: string): RefusalKind | undefined {
  if (!type.startsWith(refusalTypePrefix)) return undefined;
  const kind = type.slice(refusalTypePrefix.length);
  return Object.hasOwn(refusals, kind) ? (kind as RefusalKind) : undefined;
}
