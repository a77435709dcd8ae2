import type { MonotonicTime } from "../../units/units.ts";
import { NO_ADDRESS } from "./address.ts";
import { CLIENT_BURST, CLIENT_MESSAGES_A_SECOND, DECLINE_HOLD } from "./limits.ts";
import type { Reservation } from "./reservation.ts";

/**
 * What the server answers one card: `step` decides. The reservation is the lease, so what is kept
 * here is for people, and for the wait after a declined address: whoever begins anew, knowing
 * nothing, answers the same. Pure.
 */

/** What we have seen of a card. */
type Phases =
  /** Nothing, or nothing since this server began: the card may well have its address. */
  | { readonly phase: "unseen" }
  | { readonly phase: "offered" }
  | { readonly phase: "bound"; readonly until: MonotonicTime }
  | { readonly phase: "released" }
  /** Somebody else has the address, as the client has found: it is offered to nobody until then. */
  | { readonly phase: "declined"; readonly until: MonotonicTime };

export type ClientState = Phases & {
  /** Messages that it may still send at once, as of `countedAt`. */
  readonly allowance: number;
  readonly countedAt: MonotonicTime;
};
export type Phase = ClientState["phase"];

/** A message, by what its sender is at: RFC 2131, table 4. */
export type DhcpEvent =
  | { readonly kind: "discover" }
  /** A REQUEST that takes an offer, of us or of somebody else. */
  | { readonly kind: "select"; readonly server: string; readonly address: string }
  /** A REQUEST of one that has been away: INIT-REBOOT. */
  | { readonly kind: "reboot"; readonly address: string }
  /** A REQUEST of one that has the address: RENEWING or REBINDING. */
  | { readonly kind: "renew"; readonly address: string }
  | { readonly kind: "decline"; readonly server: string; readonly address: string }
  | { readonly kind: "release"; readonly server: string; readonly address: string }
  | { readonly kind: "inform"; readonly address: string };
export type EventKind = DhcpEvent["kind"];

export type DhcpEffect =
  | { readonly kind: "offer" | "acknowledge" | "refuse" }
  /** The answer to INFORM: no address and no time. */
  | { readonly kind: "advise"; readonly address: string }
  | { readonly kind: "tell"; readonly what: "bound" | "released" | "declined" };

export interface Context {
  readonly now: MonotonicTime;
  readonly serverAddress: string;
  /** undefined for a card that nobody has announced. */
  readonly reservation: Reservation | undefined;
}

/** Why a message is not answered. */
export type Ignored =
  | "no reservation"
  | "over the rate"
  | "for another server"
  | "the address is declined"
  | "another address than its own";

export interface Outcome {
  readonly state: ClientState;
  readonly effects: readonly DhcpEffect[];
  readonly ignored?: Ignored;
}

/** A card of which nothing has been heard. */
export function unseen(now: MonotonicTime): ClientState {
  return { phase: "unseen", allowance: CLIENT_BURST, countedAt: now };
}

export function step(state: ClientState, event: DhcpEvent, context: Context): Outcome {
  const { reservation, now } = context;
  if (reservation === undefined) return ignore(state, "no reservation");
  const gained = (Math.max(0, now - state.countedAt) / 1_000) * CLIENT_MESSAGES_A_SECOND;
  const allowance = Math.min(CLIENT_BURST, state.allowance + gained);
  if (allowance < 1) return ignore({ ...state, allowance, countedAt: now }, "over the rate");
  const counted = { ...state, allowance: allowance - 1, countedAt: now };
  const rested = isOverHold(counted, now) ? enter(counted, { phase: "unseen" }) : counted;
  return answer(rested, event, { ...context, reservation });
}

function isOverHold(state: ClientState, now: MonotonicTime): boolean {
  return state.phase === "declined" && now >= state.until;
}

type Answering = Context & { readonly reservation: Reservation };

function answer(state: ClientState, event: DhcpEvent, context: Answering): Outcome {
  switch (event.kind) {
    case "discover":
      return discover(state);
    case "select":
      return select(state, event, context);
    case "reboot":
    case "renew":
      return confirm(state, event.address, context);
    case "decline":
      return decline(state, event, context);
    case "release":
      return release(state, event, context);
    case "inform":
      return inform(state, event.address, context);
  }
}

function discover(state: ClientState): Outcome {
  switch (state.phase) {
    case "unseen":
    case "offered":
    case "released":
      return { state: enter(state, { phase: "offered" }), effects: [{ kind: "offer" }] };
    case "bound":
      // It asks anew, having forgotten; until it takes the offer, the lease is still told as one.
      return { state, effects: [{ kind: "offer" }] };
    case "declined":
      return ignore(state, "the address is declined");
  }
}

function select(
  state: ClientState,
  event: { readonly server: string; readonly address: string },
  context: Answering,
): Outcome {
  // Another server's offer was taken: ours is void, and there is nothing to take back.
  if (event.server !== context.serverAddress) return ignore(state, "for another server");
  return confirm(state, event.address, context);
}

/** It has, or wants, an address: yes when it is the reserved one. */
function confirm(state: ClientState, address: string, context: Answering): Outcome {
  const { reservation, now } = context;
  if (state.phase === "declined") {
    // Whoever asks for it by name may not know that it is taken.
    return { state, effects: [{ kind: "refuse" }] };
  }
  if (address !== reservation.address) {
    return { state: enter(state, { phase: "unseen" }), effects: [{ kind: "refuse" }] };
  }
  const until = now + reservation.leaseSeconds * 1_000;
  const isNews = state.phase !== "bound";
  const told = isNews ? [{ kind: "tell", what: "bound" } as const] : [];
  return {
    state: enter(state, { phase: "bound", until }),
    effects: [{ kind: "acknowledge" }, ...told],
  };
}

function decline(
  state: ClientState,
  event: { readonly server: string; readonly address: string },
  context: Answering,
): Outcome {
  if (event.server !== context.serverAddress) return ignore(state, "for another server");
  if (event.address !== context.reservation.address) {
    return ignore(state, "another address than its own");
  }
  // Said again, it does not hold the address back for longer, nor is it told again.
  if (state.phase === "declined") return ignore(state, "the address is declined");
  const until = context.now + DECLINE_HOLD;
  return {
    state: enter(state, { phase: "declined", until }),
    effects: [{ kind: "tell", what: "declined" }],
  };
}

function release(
  state: ClientState,
  event: { readonly server: string; readonly address: string },
  context: Answering,
): Outcome {
  if (event.server !== context.serverAddress) return ignore(state, "for another server");
  if (event.address !== context.reservation.address) {
    return ignore(state, "another address than its own");
  }
  if (state.phase === "declined") return ignore(state, "the address is declined");
  // The address stays reserved: what ends is only that the card is said to use it.
  const told = state.phase === "released" ? [] : [{ kind: "tell", what: "released" } as const];
  return { state: enter(state, { phase: "released" }), effects: told };
}

function inform(state: ClientState, address: string, context: Answering): Outcome {
  // Whoever set its address by hand may be told the rest, when it is the one it may have.
  if (address === NO_ADDRESS || address !== context.reservation.address) {
    return ignore(state, "another address than its own");
  }
  return { state, effects: [{ kind: "advise", address }] };
}

function enter(state: ClientState, phase: Phases): ClientState {
  return { ...phase, allowance: state.allowance, countedAt: state.countedAt };
}

function ignore(state: ClientState, ignored: Ignored): Outcome {
  return { state, effects: [], ignored };
}
