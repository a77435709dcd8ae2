import type { RefusalKind } from "./protocol-refusal.ts";

/**
 * The life of the certificate that a server shows. A new one is announced first, while the old one
 * is shown; when all hosts have confirmed that they trust it, or an operator forces it, it takes
 * the old one's place. So a host needs to come by once between the two, and one that did not asks
 * for a statement that the authority has signed. Pure.
 */
export interface CertificateState<Certificate> {
  readonly current: Certificate;
  /** Announced, and not shown yet. */
  readonly next: Certificate | undefined;
}

export type CertificateEvent<Certificate> =
  | { readonly kind: "rotate"; readonly next: Certificate }
  | {
      readonly kind: "finish";
      /** Hosts that have not said that they trust the next one. */
      readonly unconfirmed: number;
      readonly force: boolean;
    };

export interface CertificateStep<Certificate> {
  readonly state: CertificateState<Certificate>;
  readonly refused?: RefusalKind;
}

export function stepCertificate<Certificate>(
  state: CertificateState<Certificate>,
  event: CertificateEvent<Certificate>,
): CertificateStep<Certificate> {
  switch (event.kind) {
    case "rotate":
      if (state.next !== undefined) return { state, refused: "wrong-state" };
      return { state: { current: state.current, next: event.next } };
    case "finish":
      if (state.next === undefined) return { state, refused: "wrong-state" };
      if (event.unconfirmed > 0 && !event.force) return { state, refused: "unconfirmed" };
      return { state: { current: state.next, next: undefined } };
  }
}
