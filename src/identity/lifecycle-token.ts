import type { Milliseconds } from "../units/units.ts";
import { elapsedSince, type Reading } from "./lifecycle-time.ts";
import type { RefusalKind } from "./protocol-refusal.ts";

/**
 * The life of an enrolment token: one use, by one key. Who has the key that used it gets the same
 * answer again, because an answer can be lost; everybody else is refused, and reported. Pure.
 */
export type TokenState =
  | { readonly phase: "unused" }
  /** `suspects` are other keys that tried it afterwards: whoever has them has the token too. */
  | { readonly phase: "used"; readonly key: string; readonly suspects: readonly string[] }
  /** The ledger says that it was used or revoked in a time that the store has forgotten. */
  | { readonly phase: "spent-before"; readonly suspects: readonly string[] }
  | { readonly phase: "revoked" };

export type TokenEvent =
  /** The right secret came, with a proof of this key; `spent` is what the ledger says. */
  | { readonly kind: "use"; readonly key: string; readonly spent: boolean }
  | { readonly kind: "revoke" };

export interface TokenTerms {
  readonly made: Reading;
  readonly lifetime: Milliseconds;
}

export interface TokenStep {
  readonly state: TokenState;
  /** The key may be enrolled. */
  readonly granted: boolean;
  readonly refused?: RefusalKind;
  /** The token is in two hands. */
  readonly stolen?: true;
}

/** Keys that are remembered of a token in two hands. */
export const MOST_SUSPECTS = 8;

/** Of one that the store has as unused, and the ledger as spent. */
export const foundSpent = { phase: "spent-before", suspects: [] } as const satisfies TokenState;

export function stepToken(
  state: TokenState,
  event: TokenEvent,
  context: TokenTerms & { readonly now: Reading },
): TokenStep {
  switch (event.kind) {
    case "use":
      return use(state, event, context);
    case "revoke":
      return revoke(state);
  }
}

export function isExpired(terms: TokenTerms, now: Reading): boolean {
  return elapsedSince(terms.made, now) >= terms.lifetime;
}

/** Not used, or spent by nobody that is known: who revoked it may have died before the rest. */
export function mayRevoke(state: TokenState): boolean {
  const isUnseen = state.phase === "spent-before" && state.suspects.length === 0;
  return state.phase === "unused" || isUnseen;
}

function revoke(state: TokenState): TokenStep {
  if (mayRevoke(state)) return { state: { phase: "revoked" }, granted: false };
  // A used one has done what it can do: revoking the host is what helps.
  return { state, granted: false, refused: "wrong-state" };
}

function use(
  state: TokenState,
  { key, spent }: Extract<TokenEvent, { kind: "use" }>,
  context: TokenTerms & { readonly now: Reading },
): TokenStep {
  switch (state.phase) {
    case "unused":
      // An older backup was restored: whoever used it before is not in it.
      if (spent) return suspect(foundSpent, key);
      if (isExpired(context, context.now)) {
        return { state, granted: false, refused: "token-expired" };
      }
      return { state: { phase: "used", key, suspects: [] }, granted: true };
    case "used":
      // Also when it has expired meanwhile: the key was let in, and only asks what it was told.
      if (state.key === key) return { state, granted: true };
      return suspect(state, key);
    case "spent-before":
      return suspect(state, key);
    case "revoked":
      return { state, granted: false, refused: "token-revoked" };
  }
}

function suspect(
  state: Extract<TokenState, { readonly suspects: readonly string[] }>,
  key: string,
): TokenStep {
  const isKnown = state.suspects.includes(key) || state.suspects.length >= MOST_SUSPECTS;
  return {
    state: isKnown ? state : { ...state, suspects: [...state.suspects, key] },
    granted: false,
    refused: "token-used",
    stolen: true,
  };
}
