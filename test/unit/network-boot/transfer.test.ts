/** One TFTP transfer: every phase with every event, and what a client is given of what it asks. */
import { describe, expect, test } from "bun:test";
import {
  agree,
  begin,
  type EventKind,
  type Phase,
  step,
  type Terms,
  type TransferEffect,
  type TransferEvent,
  type TransferState,
} from "../../../src/network-boot/lifecycle-transfer.ts";
import {
  LARGEST_BLOCK,
  LARGEST_WINDOW,
  LONGEST_TIMEOUT,
  LONGEST_TRANSFER,
  MOST_REPEATS,
  UNANSWERED_REPEATS,
} from "../../../src/network-boot/limits.ts";
import { readAskedOptions } from "../../../src/network-boot/protocol-tftp.ts";

const NOW = 50_000;
const asking = (options: Record<string, string>, size = 10_000): Terms =>
  agree(readAskedOptions(new Map(Object.entries(options))), size, NOW);

/** 20 blocks, the last of which has 272 bytes. */
const plain = asking({});
const windowed = asking({ windowsize: "4" });
const waiting = { repeats: 0, wakeAt: NOW + 1_000 };
const window = { base: 5, sent: 5, repeatedTo: 0 };

const states: Readonly<Record<Phase, TransferState>> = {
  offering: { phase: "offering", terms: windowed, ...waiting },
  opening: { phase: "opening", terms: plain, ...waiting },
  sending: { phase: "sending", terms: plain, ...waiting, window },
  ended: { phase: "ended", ending: "done" },
};
/** Blocks 5 to 8 are on their way. */
const sendingFour: TransferState = {
  phase: "sending",
  terms: windowed,
  ...waiting,
  window: { base: 5, sent: 8, repeatedTo: 0 },
};

/** "blocks 6-6, wake 1000 → sending", or what it was ignored for. */
function told(state: TransferState, event: TransferEvent, now = NOW): string {
  const outcome = step(state, event, now);
  const effects = outcome.effects.map((effect) => describeEffect(effect, now));
  return `${outcome.ignored ?? effects.join(", ")} → ${outcome.state.phase}`;
}

function describeEffect(effect: TransferEffect, now: number): string {
  switch (effect.kind) {
    case "send-blocks":
      return `blocks ${effect.first}-${effect.last}`;
    case "send-options":
      return "options";
    case "send-error":
      return `error ${effect.error}`;
    case "wake":
      return `wake ${effect.at - now}`;
    case "end":
      return effect.ending;
    case "refuse-stranger":
      return "refuse the stranger";
  }
}

type Cell = readonly [event: TransferEvent, told: string, now?: number];
const ack = (block: number) => ({ kind: "acknowledge", block }) as const;
const ERROR = { kind: "error", code: 8, text: "no" } as const;
const TIME = { kind: "time" } as const;

const table: Readonly<Record<Phase, Readonly<Record<EventKind, readonly Cell[]>>>> = {
  offering: {
    acknowledge: [
      [ack(0), "blocks 1-4, wake 1000 → sending"],
      [ack(1), "an ACK of what was not sent → offering"],
    ],
    error: [[ERROR, "ended by the client → ended"]],
    nonsense: [[{ kind: "nonsense" }, "error illegalOperation, nonsense → ended"]],
    stranger: [[{ kind: "stranger" }, "refuse the stranger → offering"]],
    "asked-again": [[{ kind: "asked-again" }, "the answer is on its way → offering"]],
    time: [
      [TIME, "too early → offering"],
      [TIME, "options, wake 2000 → offering", NOW + 1_000],
    ],
    unreadable: [[{ kind: "unreadable" }, "error undefined, unreadable → ended"]],
  },
  opening: {
    acknowledge: [
      [ack(1), "blocks 2-2, wake 1000 → sending"],
      [ack(0), "an ACK of what was not sent → opening"],
      [ack(2), "an ACK of what was not sent → opening"],
    ],
    error: [[ERROR, "ended by the client → ended"]],
    nonsense: [[{ kind: "nonsense" }, "error illegalOperation, nonsense → ended"]],
    stranger: [[{ kind: "stranger" }, "refuse the stranger → opening"]],
    "asked-again": [[{ kind: "asked-again" }, "the answer is on its way → opening"]],
    time: [
      [TIME, "too early → opening"],
      [TIME, "blocks 1-1, wake 2000 → opening", NOW + 1_000],
    ],
    unreadable: [[{ kind: "unreadable" }, "error undefined, unreadable → ended"]],
  },
  sending: {
    acknowledge: [
      [ack(5), "blocks 6-6, wake 1000 → sending"],
      // The sorcerer's apprentice: a doubled ACK is not answered.
      [ack(4), "an ACK that was counted → sending"],
      [ack(3), "an ACK that was counted → sending"],
      [ack(6), "an ACK of what was not sent → sending"],
    ],
    error: [[ERROR, "ended by the client → ended"]],
    nonsense: [[{ kind: "nonsense" }, "error illegalOperation, nonsense → ended"]],
    stranger: [[{ kind: "stranger" }, "refuse the stranger → sending"]],
    "asked-again": [[{ kind: "asked-again" }, "replaced → ended"]],
    time: [
      [TIME, "too early → sending"],
      [TIME, "blocks 5-5, wake 2000 → sending", NOW + 1_000],
      [TIME, "error undefined, took too long → ended", NOW + LONGEST_TRANSFER],
    ],
    unreadable: [[{ kind: "unreadable" }, "error undefined, unreadable → ended"]],
  },
  ended: {
    acknowledge: [[ack(5), "it has ended → ended"]],
    error: [[ERROR, "it has ended → ended"]],
    nonsense: [[{ kind: "nonsense" }, "it has ended → ended"]],
    stranger: [[{ kind: "stranger" }, "refuse the stranger → ended"]],
    "asked-again": [[{ kind: "asked-again" }, "it has ended → ended"]],
    time: [[TIME, "it has ended → ended", NOW + 9_000]],
    unreadable: [[{ kind: "unreadable" }, "it has ended → ended"]],
  },
};

describe("every phase with every event", () => {
  for (const [phase, row] of Object.entries(table)) {
    for (const [event, expected, now] of Object.values(row).flat()) {
      test(`${phase}: ${JSON.stringify(event)} at ${(now ?? NOW) - NOW}`, () => {
        expect(told(states[phase as Phase], event, now)).toBe(expected);
      });
    }
  }
});

describe("a window", () => {
  test.each([
    [8, "blocks 9-12, wake 1000 → sending"],
    // The client has found a gap after 6: RFC 7440, 4.
    [6, "blocks 7-10, wake 1000 → sending"],
    [4, "blocks 5-8 → sending"],
    [3, "an ACK that was counted → sending"],
    [9, "an ACK of what was not sent → sending"],
  ])("ACK of block %p", (block, expected) => {
    expect(told(sendingFour, ack(block))).toBe(expected);
  });

  test("is sent again for a repeated ACK once", () => {
    const { state } = step(sendingFour, ack(4), NOW);
    expect(told(state, ack(4))).toBe("an ACK that was counted → sending");
    // After progress over all of it, it may be asked for again.
    const { state: next } = step(state, ack(8), NOW);
    expect(told(next, ack(8))).toBe("blocks 9-12 → sending");
  });

  test("is sent again for a gap once: until it is through, only new blocks follow", () => {
    const { state } = step(sendingFour, ack(6), NOW);
    expect(told(state, ack(6))).toBe("an ACK that was counted → sending");
    const { state: next } = step(state, ack(7), NOW);
    expect(next).toMatchObject({ window: { base: 8, sent: 11, repeatedTo: 8 } });
    expect(told(state, ack(7))).toBe("blocks 11-11, wake 1000 → sending");
    expect(told(next, ack(8))).toBe("blocks 9-12, wake 1000 → sending");
  });

  test("that was sent again for want of an answer is not for an ACK as well", () => {
    const { state } = step(sendingFour, TIME, NOW + 1_000);
    expect(told(state, ack(4))).toBe("an ACK that was counted → sending");
    expect(told(state, ack(6), NOW)).toBe("blocks 9-10, wake 1000 → sending");
  });

  test("ends with the last block, which alone ends the transfer", () => {
    const last = { base: 17, sent: 20, repeatedTo: 0 };
    const state: TransferState = { ...sendingFour, window: last };
    expect(told(state, ack(18))).toBe("blocks 19-20, wake 1000 → sending");
    expect(told(state, ack(20))).toBe("done → ended");
  });
});

describe("numbers go on after 65,535", () => {
  const terms = asking({ windowsize: "4" }, 100_000 * 512);
  const at = (base: number): TransferState => ({
    phase: "sending",
    terms,
    ...waiting,
    window: { base, sent: base + 3, repeatedTo: 0 },
  });
  test.each([
    [65_534, 0, "blocks 65537-65540, wake 1000 → sending"],
    [65_534, 65_535, "blocks 65536-65539, wake 1000 → sending"],
    [65_537, 0, "blocks 65537-65540 → sending"],
    [65_537, 65_535, "an ACK that was counted → sending"],
    [65_537, 4, "blocks 65541-65544, wake 1000 → sending"],
  ])("from block %p, ACK %p", (base, block, expected) => {
    expect(told(at(base), ack(block))).toBe(expected);
  });
});

describe("time", () => {
  /** Packets until it gives up. */
  function untilGivenUp(state: TransferState): { repeats: number; waits: number[]; end: string } {
    let [current, now] = [state, NOW];
    const waits: number[] = [];
    for (;;) {
      if (current.phase === "ended") return { repeats: waits.length, waits, end: current.ending };
      now = current.wakeAt;
      const outcome = step(current, TIME, now);
      const wake = outcome.effects.find((effect) => effect.kind === "wake");
      if (wake !== undefined) waits.push(wake.at - now);
      current = outcome.state;
    }
  }

  test("who has only asked is repeated to twice, and told nothing at the end", () => {
    for (const state of [states.offering, states.opening]) {
      const told = untilGivenUp(state);
      expect(told).toEqual({
        repeats: UNANSWERED_REPEATS,
        waits: [2_000, 4_000],
        end: "no answer",
      });
    }
  });

  test("who has answered gets more, further and further apart", () => {
    expect(untilGivenUp(states.sending)).toEqual({
      repeats: MOST_REPEATS,
      waits: [2_000, 4_000, LONGEST_TIMEOUT, LONGEST_TIMEOUT, LONGEST_TIMEOUT],
      end: "no answer",
    });
  });

  test("a client's timeout is kept", () => {
    const { state } = begin(asking({ timeout: "3" }), NOW);
    expect(untilGivenUp(state).waits).toEqual([3_000, 3_000]);
  });

  test("progress begins the count anew", () => {
    const { state } = step(states.sending, TIME, NOW + 1_000);
    expect(state).toMatchObject({ repeats: 1 });
    expect(step(state, ack(5), NOW + 1_500).state).toMatchObject({ repeats: 0 });
  });

  test("a transfer that goes on for ever ends", () => {
    expect(told(states.sending, ack(5), NOW + LONGEST_TRANSFER)).toBe(
      "error undefined, took too long → ended",
    );
  });
});

describe("what a client is given", () => {
  const given = (options: Record<string, string>, size?: number) => {
    const terms = asking(options, size);
    return { ...Object.fromEntries(terms.options ?? []), last: terms.lastBlock };
  };
  test.each([
    [{}, { last: 20 }],
    [{ blksize: "1468" }, { blksize: 1_468, last: 7 }],
    [{ blksize: "65464" }, { blksize: LARGEST_BLOCK, last: 7 }],
    [{ blksize: "7" }, { last: 20 }],
    [{ blksize: "x" }, { last: 20 }],
    [{ tsize: "0" }, { tsize: 10_000, last: 20 }],
    [{ windowsize: "65535" }, { windowsize: LARGEST_WINDOW, last: 20 }],
    [{ windowsize: "0" }, { last: 20 }],
    [{ timeout: "5" }, { timeout: 5, last: 20 }],
    // Too long for us: it is left out, and ours holds.
    [{ timeout: "31" }, { last: 20 }],
    [{ timeout: "0" }, { last: 20 }],
    [{ multicast: "" }, { last: 20 }],
  ] as const)("%p", (options, expected) => {
    expect(given(options)).toEqual(expected as never);
  });

  test("a file of whole blocks ends with an empty one, and an empty file is one", () => {
    expect(given({}, 1_024)).toEqual({ last: 3 });
    expect(given({}, 0)).toEqual({ last: 1 });
  });

  test("without options the first block comes at once, with them they come first", () => {
    expect(begin(plain, NOW).effects).toEqual([
      { kind: "send-blocks", first: 1, last: 1 },
      { kind: "wake", at: NOW + 1_000 },
    ]);
    expect(begin(windowed, NOW).effects).toEqual([
      { kind: "send-options", options: new Map([["windowsize", 4]]) },
      { kind: "wake", at: NOW + 1_000 },
    ]);
  });
});
