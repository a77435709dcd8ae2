import { AuditError } from "../audit/audit-error.ts";
import { ProblemError, refuseAs } from "../http/problem.ts";
import { IdentityRefusal } from "../identity/refusal.ts";
import { FileRefused } from "../journal/file-refused.ts";
import { StoreError } from "../store/store.ts";

/** What the rooms below refuse, in the words of HTTP; undefined for what is a bug. */
export function translateRefusal(failure: unknown): ProblemError | undefined {
  if (failure instanceof IdentityRefusal) return refuseAs(failure.problem, failure);
  if (failure instanceof StoreError) return ofStore(failure);
  if (failure instanceof AuditError) return ofAudit(failure);
  if (failure instanceof FileRefused) {
    return new ProblemError("unavailable", failure.message, { cause: failure });
  }
  return undefined;
}

function ofStore(failure: StoreError): ProblemError | undefined {
  const { message, problem } = failure;
  const options = { cause: failure };
  switch (problem.kind) {
    case "conflict":
      return new ProblemError("conflict", message, options);
    case "ambiguous":
      return new ProblemError("ambiguous", message, options);
    case "denied":
      return new ProblemError("forbidden", message, options);
    case "full":
      return new ProblemError("full", message, options);
    case "refused": {
      const { expected, received } = problem;
      return new ProblemError("request", message, { ...options, expected, received });
    }
    default:
      return new ProblemError("unavailable", message, options);
  }
}

function ofAudit(failure: AuditError): ProblemError {
  const kind = failure.problem === "full" ? "full" : "unavailable";
  const hint = "Nothing is changed that cannot be written into the audit log";
  return new ProblemError(kind, failure.message, { hint, cause: failure });
}
