import { ExitCode } from "../units/exit-code.ts";

/** Why a log takes nothing. */
export type AuditProblem =
  /** No room on its file system. It takes records again when there is. */
  | "full"
  /** The kernel or the signer refused a write. The next one is tried. */
  | "refused"
  /** An fsync failed, and nobody knows what is on the disk: open it anew. */
  | "failed"
  /** Another process writes. */
  | "locked"
  /** What is there was changed by somebody else. */
  | "broken"
  /** Too many records wait. */
  | "busy"
  | "closed";

/** A record cannot be written. Whatever it would have told of must be refused. */
export class AuditError extends Error {
  override readonly name = "AuditError";
  readonly exitCode = ExitCode.refused;
  readonly problem: AuditProblem;

  constructor(message: string, options: ErrorOptions & { readonly problem: AuditProblem }) {
    super(message, options);
    this.problem = options.problem;
  }
}
