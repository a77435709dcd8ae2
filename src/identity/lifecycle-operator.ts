import type { Role, SpecialPermission } from "../http/principal.ts";
import type { Milliseconds } from "../units/units.ts";
import { elapsedSince, type Reading } from "./lifecycle-time.ts";
import type { RefusalKind } from "./protocol-refusal.ts";

/** The life of an operator: a name, what it may do, and the hashes of its tokens. Pure. */
export interface OperatorRights {
  readonly role: Role;
  readonly special: readonly SpecialPermission[];
}

/** A token that is being replaced is good until its end; the present one has none. */
export interface OldToken {
  readonly hash: string;
  readonly since: Reading;
  readonly overlap: Milliseconds;
}

export type OperatorState =
  | ({
      readonly phase: "active";
      readonly token: string;
      readonly old: OldToken | undefined;
    } & OperatorRights)
  /** Final. The name stays taken, so that it means one person in the audit log. */
  | ({ readonly phase: "revoked" } & OperatorRights);

export type OperatorEvent =
  | { readonly kind: "add"; readonly token: string; readonly rights: OperatorRights }
  /** overlap 0: the old token ends now. */
  | { readonly kind: "rotate"; readonly token: string; readonly overlap: Milliseconds }
  | { readonly kind: "revoke" };

export interface OperatorStep {
  readonly state: OperatorState | undefined;
  /** Hashes of tokens that are never good again, whatever is restored. */
  readonly spent: readonly string[];
  readonly refused?: RefusalKind;
}

export function stepOperator(
  state: OperatorState | undefined,
  event: OperatorEvent,
  now: Reading,
): OperatorStep {
  switch (event.kind) {
    case "add":
      if (state !== undefined) return { state, spent: [], refused: "name-taken" };
      return {
        state: { phase: "active", token: event.token, old: undefined, ...event.rights },
        spent: [],
      };
    case "rotate":
      return rotate(state, event, now);
    case "revoke": {
      if (state === undefined) return { state, spent: [], refused: "not-found" };
      const { role, special } = state;
      if (state.phase === "revoked") return { state, spent: [] };
      const spent = [state.token, ...(state.old === undefined ? [] : [state.old.hash])];
      return { state: { phase: "revoked", role, special }, spent };
    }
  }
}

function rotate(
  state: OperatorState | undefined,
  event: Extract<OperatorEvent, { kind: "rotate" }>,
  now: Reading,
): OperatorStep {
  if (state === undefined) return { state, spent: [], refused: "not-found" };
  if (state.phase === "revoked") return { state, spent: [], refused: "wrong-state" };
  // The one before the old one has had its time, whether its overlap is over or not.
  const forgotten = state.old === undefined ? [] : [state.old.hash];
  if (event.overlap <= 0) {
    return {
      state: { ...state, token: event.token, old: undefined },
      spent: [...forgotten, state.token],
    };
  }
  const old: OldToken = { hash: state.token, since: now, overlap: event.overlap };
  return { state: { ...state, token: event.token, old }, spent: forgotten };
}

/** The hashes of tokens that are good now. */
export function goodTokens(state: OperatorState, now: Reading): readonly string[] {
  if (state.phase === "revoked") return [];
  const { token, old } = state;
  if (old === undefined || elapsedSince(old.since, now) >= old.overlap) return [token];
  return [token, old.hash];
}
