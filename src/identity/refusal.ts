import { type RefusalKind, refusals, refusalTypePrefix } from "./protocol-refusal.ts";

/** RFC 9457, with what was expected and received, and what to do. */
export interface IdentityProblem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  readonly expected: string;
  readonly received: string;
  readonly hint: string;
}

/** Something was refused. No secret is in what it says. */
export class IdentityRefusal extends Error {
  override readonly name = "IdentityRefusal";
  readonly kind: RefusalKind;
  readonly problem: IdentityProblem;

  constructor(
    kind: RefusalKind,
    /** @param what mend: where another one helps than the kind's */
    what: { readonly expected: string; readonly received: string; readonly mend?: string },
    options?: ErrorOptions,
  ) {
    const { status, title } = refusals[kind];
    const { expected, received, mend = refusals[kind].mend } = what;
    const detail = `${title}: expected ${expected}, received ${received}`;
    super(detail, options);
    this.kind = kind;
    const type = `${refusalTypePrefix}${kind}`;
    this.problem = { type, title, status, detail, expected, received, hint: mend };
  }
}
