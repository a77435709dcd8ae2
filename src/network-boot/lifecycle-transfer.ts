import type { Milliseconds, MonotonicTime } from "../units/units.ts";
import {
  LARGEST_BLOCK,
  LARGEST_WINDOW,
  LONGEST_ASKED_TIMEOUT,
  LONGEST_TIMEOUT,
  LONGEST_TRANSFER,
  MOST_REPEATS,
  UNANSWERED_REPEATS,
  USUAL_BLOCK,
  USUAL_TIMEOUT,
} from "./limits.ts";
import type { AskedOptions, ErrorName } from "./protocol-tftp.ts";

/**
 * One file on its way to one client: `step` decides. Blocks are counted from 1 and go on above
 * 65,535; on the wire they have 16 bits. Pure.
 */

/** What holds for a transfer from its request on. */
export interface Terms {
  readonly blockBytes: number;
  readonly windowBlocks: number;
  /** The last block, which is shorter than a whole one, and may be empty. */
  readonly lastBlock: number;
  /** The client's, which is kept; undefined: ours, doubled each time. */
  readonly askedTimeout: Milliseconds | undefined;
  /** What is answered before the first block; undefined: the client asked for nothing we know. */
  readonly options: ReadonlyMap<string, number> | undefined;
  /** Then it ends, whatever goes on. */
  readonly endsAt: MonotonicTime;
}

/** A block that is asked for and not acknowledged: the next one that counts. */
interface Window {
  /** The first block that was not acknowledged. */
  readonly base: number;
  /** The last block that was sent of this window. */
  readonly sent: number;
  /**
   * Blocks up to this one were sent again for an ACK that spoke of a gap, or for want of any. Until
   * all of them are acknowledged no ACK has anything sent again: a wire that doubles packets would
   * have each window sent as often as it has blocks.
   */
  readonly repeatedTo: number;
}

export type TransferState =
  /** The options are sent; nothing came but the request, whose address may be forged. */
  | (Waiting & { readonly phase: "offering" })
  /** The first block is sent, without options; the same. */
  | (Waiting & { readonly phase: "opening" })
  | (Waiting & { readonly phase: "sending"; readonly window: Window })
  | { readonly phase: "ended"; readonly ending: Ending };
export type Phase = TransferState["phase"];

interface Waiting {
  readonly terms: Terms;
  /** How often what was sent last was repeated for want of an answer. */
  readonly repeats: number;
  readonly wakeAt: MonotonicTime;
}

export type Ending =
  | "done"
  /** The client wanted no more: it had asked for the size, or cannot take the options. */
  | "ended by the client"
  | "no answer"
  | "took too long"
  | "unreadable"
  | "nonsense"
  | "replaced";

export type TransferEvent =
  | { readonly kind: "acknowledge"; readonly block: number }
  | { readonly kind: "error"; readonly code: number; readonly text: string }
  /** The client sent what no reader sends. */
  | { readonly kind: "nonsense" }
  /** A packet of somebody else came to the transfer's port. */
  | { readonly kind: "stranger" }
  /** The request came again, from the same port. */
  | { readonly kind: "asked-again" }
  /** `wakeAt` has come. */
  | { readonly kind: "time" }
  /** A block cannot be read, or the file is another one than it was. */
  | { readonly kind: "unreadable" };
export type EventKind = TransferEvent["kind"];

export type TransferEffect =
  | { readonly kind: "send-options"; readonly options: ReadonlyMap<string, number> }
  /** Blocks from the first to the last one. */
  | { readonly kind: "send-blocks"; readonly first: number; readonly last: number }
  | { readonly kind: "send-error"; readonly error: ErrorName; readonly text: string }
  /** To the stranger, and not to the client. */
  | { readonly kind: "refuse-stranger" }
  | { readonly kind: "wake"; readonly at: MonotonicTime }
  | { readonly kind: "end"; readonly ending: Ending };

/** Why an event changes nothing. */
export type Ignored =
  | "an ACK that was counted"
  | "an ACK of what was not sent"
  | "the answer is on its way"
  | "too early"
  | "it has ended";

export interface Outcome {
  readonly state: TransferState;
  readonly effects: readonly TransferEffect[];
  readonly ignored?: Ignored;
}

/** What a client gets of what it asks for, of a file of so many bytes. */
export function agree(asked: AskedOptions, fileBytes: number, now: MonotonicTime): Terms {
  const blockBytes = Math.min(asked.blockBytes ?? USUAL_BLOCK, LARGEST_BLOCK);
  const windowBlocks = Math.min(asked.windowBlocks ?? 1, LARGEST_WINDOW);
  const options = new Map<string, number>();
  if (asked.blockBytes !== undefined) options.set("blksize", blockBytes);
  if (asked.wantsSize) options.set("tsize", fileBytes);
  const timeout = (asked.timeoutSeconds ?? 0) * 1_000;
  const takesTimeout = timeout > 0 && timeout <= LONGEST_ASKED_TIMEOUT;
  // RFC 2349: it is acknowledged with the same value, or not at all.
  if (takesTimeout) options.set("timeout", timeout / 1_000);
  if (asked.windowBlocks !== undefined) options.set("windowsize", windowBlocks);
  return {
    blockBytes,
    windowBlocks,
    lastBlock: Math.floor(fileBytes / blockBytes) + 1,
    askedTimeout: takesTimeout ? timeout : undefined,
    options: options.size === 0 ? undefined : options,
    endsAt: now + LONGEST_TRANSFER,
  };
}

export function begin(terms: Terms, now: MonotonicTime): Outcome {
  const wakeAt = wakeAfter(terms, 0, now);
  const waiting = { terms, repeats: 0, wakeAt };
  if (terms.options !== undefined) {
    return {
      state: { phase: "offering", ...waiting },
      effects: [
        { kind: "send-options", options: terms.options },
        { kind: "wake", at: wakeAt },
      ],
    };
  }
  return {
    state: { phase: "opening", ...waiting },
    effects: [
      { kind: "send-blocks", first: 1, last: 1 },
      { kind: "wake", at: wakeAt },
    ],
  };
}

export function step(state: TransferState, event: TransferEvent, now: MonotonicTime): Outcome {
  if (state.phase === "ended") return ended(state, event);
  switch (event.kind) {
    case "acknowledge":
      return acknowledge(state, event.block, now);
    case "error":
      // It is never answered: RFC 1350, 2.
      return end("ended by the client");
    case "nonsense":
      return fail("nonsense", "illegalOperation", "A reader acknowledges");
    case "stranger":
      // The transfer goes on: RFC 1350, 4.
      return { state, effects: [{ kind: "refuse-stranger" }] };
    case "asked-again":
      return askedAgain(state);
    case "time":
      return time(state, now);
    case "unreadable":
      return fail("unreadable", "undefined", "The file cannot be read");
  }
}

function ended(state: TransferState, event: TransferEvent): Outcome {
  // Whoever speaks to a port that is no transfer's any more is told so once, by the driver's close.
  if (event.kind === "stranger") return { state, effects: [{ kind: "refuse-stranger" }] };
  return { state, effects: [], ignored: "it has ended" };
}

type Live = Exclude<TransferState, { phase: "ended" }>;

function acknowledge(state: Live, block: number, now: MonotonicTime): Outcome {
  switch (state.phase) {
    case "offering":
      // The options are acknowledged as block 0: RFC 2347.
      if (block !== 0) return ignore(state, "an ACK of what was not sent");
      return sendFrom(state.terms, 1, now);
    case "opening":
      if (block !== 1) return ignore(state, "an ACK of what was not sent");
      return advance(state.terms, 1, now);
    case "sending":
      return acknowledgeWindow(state, block, now);
  }
}

function acknowledgeWindow(
  state: Live & { phase: "sending" },
  block: number,
  now: MonotonicTime,
): Outcome {
  const { base, sent, repeatedTo } = state.window;
  // How far it is from the last one that was counted, in 16 bits.
  const ahead = (block - (base - 1)) & 0xffff;
  const acknowledged = base - 1 + ahead;
  if (ahead === 0 && state.terms.windowBlocks > 1 && base > repeatedTo) {
    // It may say that the window's first block is missing. Without a window it is a doubled packet:
    // whoever answers it doubles all that follows, the sorcerer's apprentice of RFC 1123, 4.2.3.1.
    return {
      state: { ...state, window: repeated(state.window) },
      effects: [{ kind: "send-blocks", first: base, last: sent }],
    };
  }
  if (ahead > 0 && acknowledged <= sent)
    return advance(state.terms, acknowledged, now, state.window);
  const isOld = ahead === 0 || ahead > 0x8000;
  return ignore(state, isOld ? "an ACK that was counted" : "an ACK of what was not sent");
}

function advance(
  terms: Terms,
  acknowledged: number,
  now: MonotonicTime,
  before: Window = { base: 1, sent: acknowledged, repeatedTo: 0 },
): Outcome {
  if (acknowledged === terms.lastBlock) return end("done");
  const base = acknowledged + 1;
  // A gap after what it has: the window is sent from there (RFC 7440, 4), but not twice.
  const isGap = base <= before.sent && base > before.repeatedTo;
  const first = isGap ? base : before.sent + 1;
  return sendFrom(terms, base, now, { first, repeatedTo: isGap ? before.sent : before.repeatedTo });
}

function sendFrom(
  terms: Terms,
  base: number,
  now: MonotonicTime,
  { first, repeatedTo } = { first: base, repeatedTo: 0 },
): Outcome {
  if (now >= terms.endsAt) return tooLong();
  const sent = Math.min(base + terms.windowBlocks - 1, terms.lastBlock);
  const wakeAt = wakeAfter(terms, 0, now);
  const blocks = first <= sent ? [{ kind: "send-blocks", first, last: sent } as const] : [];
  return {
    state: { phase: "sending", terms, repeats: 0, wakeAt, window: { base, sent, repeatedTo } },
    effects: [...blocks, { kind: "wake", at: wakeAt }],
  };
}

function askedAgain(state: Live): Outcome {
  // The driver takes it for a new request, on a port that the client uses again.
  if (state.phase === "sending") return end("replaced");
  return ignore(state, "the answer is on its way");
}

function time(state: Live, now: MonotonicTime): Outcome {
  if (now < state.wakeAt) return ignore(state, "too early");
  if (now >= state.terms.endsAt) return tooLong();
  const most = state.phase === "sending" ? MOST_REPEATS : UNANSWERED_REPEATS;
  // Nobody is told: whoever says nothing may never have asked.
  if (state.repeats >= most) return end("no answer");
  const repeats = state.repeats + 1;
  const wakeAt = wakeAfter(state.terms, repeats, now);
  const next = { ...state, repeats, wakeAt };
  return {
    state: next.phase === "sending" ? { ...next, window: repeated(next.window) } : next,
    effects: [repeat(state), { kind: "wake", at: wakeAt }],
  };
}

function repeat(state: Live): TransferEffect {
  switch (state.phase) {
    case "offering":
      return { kind: "send-options", options: state.terms.options ?? new Map() };
    case "opening":
      return { kind: "send-blocks", first: 1, last: 1 };
    case "sending":
      return { kind: "send-blocks", first: state.window.base, last: state.window.sent };
  }
}

function repeated({ base, sent }: Window): Window {
  return { base, sent, repeatedTo: sent };
}

function tooLong(): Outcome {
  return fail("took too long", "undefined", "The transfer took too long");
}

function wakeAfter(terms: Terms, repeats: number, now: MonotonicTime): MonotonicTime {
  const own = Math.min(USUAL_TIMEOUT * 2 ** repeats, LONGEST_TIMEOUT);
  return now + (terms.askedTimeout ?? own);
}

function end(ending: Ending): Outcome {
  return { state: { phase: "ended", ending }, effects: [{ kind: "end", ending }] };
}

function fail(ending: Ending, error: ErrorName, text: string): Outcome {
  return {
    state: { phase: "ended", ending },
    effects: [
      { kind: "send-error", error, text },
      { kind: "end", ending },
    ],
  };
}

function ignore(state: TransferState, ignored: Ignored): Outcome {
  return { state, effects: [], ignored };
}
