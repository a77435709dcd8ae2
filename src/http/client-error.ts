import { ExitCode } from "../units/exit-code.ts";
import type { Milliseconds } from "../units/units.ts";
import { kindOf, type Problem, type ProblemKind } from "./problem.ts";

/** The server understood the call and refused it. */
export class HttpRefusal extends Error {
  override readonly name = "HttpRefusal";
  readonly exitCode = ExitCode.refused;
  readonly problem: Problem;
  /** undefined: a kind that this version does not know. */
  readonly kind: ProblemKind | undefined;
  /** How long the server asks to be left alone; undefined where it says nothing. */
  readonly retryAfter: Milliseconds | undefined;

  constructor(problem: Problem, options: { readonly retryAfter?: Milliseconds | undefined } = {}) {
    const { detail, hint } = problem;
    // Some details are whole sentences, and some are the first half of one.
    const sentence = detail.endsWith(".") ? detail : `${detail}.`;
    super(hint === undefined ? detail : `${sentence} ${hint}`);
    this.problem = problem;
    this.kind = kindOf(problem);
    this.retryAfter = options.retryAfter;
  }
}

/** The server could not be reached, or went away before it answered. */
export class HttpUnreachable extends Error {
  override readonly name = "HttpUnreachable";
  readonly exitCode = ExitCode.refused;
  /** The call may have been done all the same: it was sent, and no answer came. */
  readonly ambiguous: boolean;

  constructor(message: string, options: ErrorOptions & { readonly ambiguous: boolean }) {
    super(message, options);
    this.ambiguous = options.ambiguous;
  }
}

/** Whoever answers there has a certificate that is not pinned, or one that cannot be used. */
export class HttpPinRefused extends Error {
  override readonly name = "HttpPinRefused";
  readonly exitCode = ExitCode.refused;
  /** SHA-256 of the certificate that was shown, in hex; undefined where there was none. */
  readonly received: string | undefined;

  constructor(message: string, options: ErrorOptions & { readonly received?: string } = {}) {
    super(message, options);
    this.received = options.received;
  }
}

/** What answered is no server of ours, or another version of it. */
export class HttpAnswerRefused extends Error {
  override readonly name = "HttpAnswerRefused";
  readonly exitCode = ExitCode.refused;
}

/** The address, or what is pinned for it, cannot be used: the command line is wrong. */
export class HttpAddressRefused extends Error {
  override readonly name = "HttpAddressRefused";
  readonly exitCode = ExitCode.usage;
}

/** Certificates that fail before anybody is asked about pins: Bun's names, and what they mean. */
const certificateFailures: Readonly<Record<string, string>> = {
  CERT_HAS_EXPIRED: "its certificate is outside its dates; is the clock of this host right?",
  CERT_NOT_YET_VALID: "its certificate is outside its dates; is the clock of this host right?",
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is not one of those that are pinned",
  SELF_SIGNED_CERT_IN_CHAIN: "its certificate is not one of those that are pinned",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "its certificate is not one of those that are pinned",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "its certificate is not one of those that are pinned",
  ERR_TLS_CERT_ALTNAME_INVALID: "its certificate is not one of those that are pinned",
};

/** @returns whether a new look at the server's certificate could help */
export function isCertificateFailure(failure: unknown): boolean {
  return Object.hasOwn(certificateFailures, codeOf(failure));
}

const reasons: Readonly<Record<string, string>> = {
  ConnectionRefused: "nobody listens there",
  ECONNREFUSED: "nobody listens there",
  FailedToOpenSocket: "nobody listens there",
  ENOENT: "nobody listens there",
  ECONNRESET: "the connection was closed",
  ConnectionClosed: "the connection was closed",
  EPIPE: "the connection was closed",
  // A missing certificate of ours surfaces so: facts of Bun 1.4.5.
  EBADF: "the connection was closed",
  ENOTFOUND: "no host has this name",
  EAI_AGAIN: "the name could not be looked up",
  EHOSTUNREACH: "there is no way to this host",
  ENETUNREACH: "there is no way to this network",
  ETIMEDOUT: "no answer came",
};

/** Whether the kernel knows of no way there: connect(2). */
export const isNoWay = (code: string): boolean => code === "EHOSTUNREACH" || code === "ENETUNREACH";

/** Those that say that nothing of the call was sent. */
const unsent = ["nobody listens there", "no host has this name", "the name could not be looked up"];

/** What fetch threw, in our words. */
export function translateFailure(
  failure: unknown,
  asked: { readonly url: string; readonly mutates: boolean },
): Error {
  const { url, mutates } = asked;
  const code = codeOf(failure);
  if (failure instanceof HttpPinRefused || failure instanceof HttpUnreachable) return failure;
  const certificate = certificateFailures[code];
  if (certificate !== undefined) {
    return new HttpPinRefused(`Refused ${url}: ${certificate}`, { cause: failure });
  }
  const reason = reasons[code] ?? (saidBy(failure) || code);
  const isSent = !unsent.includes(reason);
  return new HttpUnreachable(`Cannot reach ${url}: ${reason}`, {
    cause: failure,
    ambiguous: mutates && isSent,
  });
}

/** What Bun says, without its advice to whoever wrote the program. */
function saidBy(failure: unknown): string {
  const { message } = (failure ?? {}) as { readonly message?: unknown };
  return String(message ?? "").replace(/\.? *For more information, pass .*$/s, "");
}

export function codeOf(failure: unknown): string {
  const { code, name } = (failure ?? {}) as { readonly code?: unknown; readonly name?: unknown };
  return typeof code === "string" ? code : String(name ?? "");
}
