import * as v from "valibot";
import type { ControlError } from "../messaging/control-server.ts";
import { describeIssues, firstFinding } from "../messaging/describe-issues.ts";
import { ExitCode } from "../units/exit-code.ts";
import type { Milliseconds } from "../units/units.ts";

/**
 * What a networked role can answer in place of a result: status by RFC 9110 and its successors,
 * and a title that is the same for all problems of a kind. Kinds are told apart by programs.
 */
export const problemKinds = {
  request: { status: 400, title: "The request is wrong" },
  unauthenticated: { status: 401, title: "Credentials are missing or wrong" },
  forbidden: { status: 403, title: "Not permitted" },
  "cross-site": { status: 403, title: "The request may come from another site" },
  "not-found": { status: 404, title: "Not found" },
  method: { status: 405, title: "The method is not one of this path" },
  slow: { status: 408, title: "The request took too long" },
  conflict: { status: 409, title: "It has changed meanwhile" },
  gone: { status: 410, title: "It is gone for good" },
  "too-large": { status: 413, title: "The request is too large" },
  "media-type": { status: 415, title: "The content is of another type" },
  "too-many": { status: 429, title: "Too many requests" },
  bug: { status: 500, title: "A bug of the server" },
  /** It was done all the same. */
  unrecorded: { status: 500, title: "Done, but not written into the audit log" },
  unavailable: { status: 503, title: "Not available now" },
  /** It may have been done or not: look, before it is asked again. */
  ambiguous: { status: 503, title: "Whether it was done is not known" },
  ended: { status: 503, title: "The call was ended" },
  full: { status: 507, title: "No room" },
} as const;
export type ProblemKind = keyof typeof problemKinds;

/** The media type of problem details: RFC 9457, section 3. */
export const PROBLEM_TYPE = "application/problem+json";

const TYPE_PREFIX = "urn:hostler:problem:";

/** Letters of a detail, and of what was expected or received, that are told. */
const LONGEST_DETAIL = 1_000;

/** Problem details (RFC 9457), with what was expected and received, and how to mend it. */
export interface Problem {
  /** "urn:hostler:problem:" and the kind. */
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  /** The path that was asked. */
  readonly instance?: string;
  readonly expected?: string;
  readonly received?: string;
  readonly hint?: string;
}

const text = v.pipe(v.string(), v.maxLength(4 * LONGEST_DETAIL));
export const problemSchema = v.object({
  type: text,
  title: text,
  status: v.pipe(v.number(), v.integer(), v.minValue(400), v.maxValue(599)),
  detail: text,
  instance: v.optional(text),
  expected: v.optional(text),
  received: v.optional(text),
  hint: v.optional(text),
});

export interface ProblemOptions extends ErrorOptions {
  readonly expected?: string | undefined;
  readonly received?: string | undefined;
  readonly hint?: string | undefined;
  /** When it may be asked again: the Retry-After header. */
  readonly retryAfter?: Milliseconds | undefined;
  /** A narrower type than the kind's, and its title: of the room that refuses. */
  readonly type?: string;
  readonly title?: string;
}

/** What a route throws to refuse; `detail` is for people, and holds no secret. */
export class ProblemError extends Error {
  override readonly name = "ProblemError";
  readonly exitCode = ExitCode.refused;
  readonly kind: ProblemKind;
  readonly problem: Problem;
  readonly retryAfter: Milliseconds | undefined;

  constructor(kind: ProblemKind, detail: string, options: ProblemOptions = {}) {
    super(detail, options.cause === undefined ? {} : { cause: options.cause });
    const { expected, received, hint, type = `${TYPE_PREFIX}${kind}` } = options;
    this.kind = kind;
    this.retryAfter = options.retryAfter;
    this.problem = {
      type,
      ...problemKinds[kind],
      ...(options.title !== undefined && { title: options.title }),
      detail: detail.slice(0, LONGEST_DETAIL),
      ...(expected !== undefined && { expected: expected.slice(0, LONGEST_DETAIL) }),
      ...(received !== undefined && { received: received.slice(0, LONGEST_DETAIL) }),
      ...(hint !== undefined && { hint: hint.slice(0, LONGEST_DETAIL) }),
    };
  }
}

/** The refusal of another room, with its own type and title. */
export function refuseAs(problem: Problem, cause: Error): ProblemError {
  const kinds = Object.keys(problemKinds) as ProblemKind[];
  const kind = kinds.find((name) => problemKinds[name].status === problem.status) ?? "request";
  return new ProblemError(kind, problem.detail, { ...problem, cause });
}

/** The refusal of what a schema found wrong. */
export function refuseIssues(
  issues: readonly [v.BaseIssue<unknown>, ...v.BaseIssue<unknown>[]],
): ProblemError {
  const detail = `The request is wrong: ${describeIssues(issues)}`;
  return new ProblemError("request", detail, firstFinding(issues));
}

/** A handler's answer that its own schema does not take: a bug, for the log alone. */
export function outputMismatch(route: string, issues: readonly v.BaseIssue<unknown>[]): Error {
  return new Error(`${route} gave what is not its output: ${describeIssues(issues)}`);
}

/** @returns the kind; undefined for a problem that is none of ours */
export function kindOf(problem: Problem): ProblemKind | undefined {
  const kind = problem.type.startsWith(TYPE_PREFIX) ? problem.type.slice(TYPE_PREFIX.length) : "";
  return Object.hasOwn(problemKinds, kind) ? (kind as ProblemKind) : undefined;
}

/** The same refusal in the words of a control socket. */
export function toControlError(problem: Problem): ControlError {
  const { expected, received, hint } = problem;
  return {
    kind: kindOf(problem) ?? "request",
    message: problem.detail,
    ...(expected !== undefined && { expected }),
    ...(received !== undefined && { received }),
    ...(hint !== undefined && { hint }),
  };
}
