import type { Entry, PutOptions, Revision } from "./store.ts";

/** What becomes of a write, by the entry that is there. */
export type Admission =
  | { readonly kind: "write" }
  | { readonly kind: "repetition"; readonly revision: Revision }
  | { readonly kind: "conflict"; readonly received: Revision };

/** Decides as `PutOptions.expect` says; pure. */
export function admit(present: Entry | undefined, options: PutOptions): Admission {
  if (present?.writeId === options.writeId) {
    return { kind: "repetition", revision: present.revision };
  }
  const { expect } = options;
  const received = present?.revision ?? 0;
  if (expect === undefined || expect === received) return { kind: "write" };
  if (expect === 0 && present?.operation === "delete") return { kind: "write" };
  return { kind: "conflict", received };
}
