/** A user for each VM: which numbers may be given, and when one comes back. */
import { describe, expect, test } from "bun:test";
import { chooseUser, defaultUserRange, refuseUserRange } from "../../../src/vm/users.ts";

describe("a range", () => {
  test("of the default touches nobody's", () => {
    expect(refuseUserRange(defaultUserRange)).toBeUndefined();
    // SSSD's and FreeIPA's last number.
    expect(defaultUserRange.first).toBeGreaterThan(2_000_200_000);
  });

  const refused: readonly (readonly [first: number, count: number, why: RegExp])[] = [
    [0, 1, /no user of 0 to 65535 \(root/],
    [65_535, 1, /no user of 0 to 65535/],
    [
      1_879_048_191,
      10,
      /systemd's containers\), received 1879048191 to 1879048200: take 2100000000/,
    ],
    [500_000, 24_289, /systemd's containers/],
    [2_147_352_576, 1, /systemd's foreign images/],
    [2_147_300_000, 100_000, /systemd's foreign images/],
    [2_147_483_647, 2, /from 0 to 2147483647, received 2147483647 to 2147483648/],
    [-1, 5, /from 0 to/],
    [2_100_000_000, 0, /with at least one, received 0 from 2100000000/],
    [0.5, 1, /whole numbers/],
    [2_100_000_000, Number.NaN, /whole numbers/],
  ];
  for (const [first, count, why] of refused) {
    test(`of ${count} from ${first} is refused with what it touches`, () => {
      expect(refuseUserRange({ first, count })).toMatch(why);
    });
  }

  test("that ends right before another, or begins right after, is fine", () => {
    expect(refuseUserRange({ first: 65_536, count: 524_288 - 65_536 })).toBeUndefined();
    const count = 2_147_352_576 - 1_879_048_192;
    expect(refuseUserRange({ first: 1_879_048_192, count })).toBeUndefined();
  });
});

describe("a number", () => {
  const range = { first: 100, count: 4 };
  const choose = (taken: readonly number[], last?: number) =>
    chooseUser({ range, taken: new Set(taken), last });

  test("is the first one when none was given", () => {
    expect(choose([])).toEqual({ kind: "user", user: 100 });
  });

  test("is the next free one after the last, around the end", () => {
    expect(choose([], 100)).toEqual({ kind: "user", user: 101 });
    expect(choose([102], 101)).toEqual({ kind: "user", user: 103 });
    expect(choose([100], 103)).toEqual({ kind: "user", user: 101 });
  });

  test("is the last one again only when all others are taken", () => {
    expect(choose([100, 102, 103], 101)).toEqual({ kind: "user", user: 101 });
  });

  test("does not follow one of another range", () => {
    for (const last of [99, 104, -1]) {
      expect(choose([], last)).toEqual({ kind: "user", user: 100 });
    }
  });

  test("is refused when every one belongs to a VM, saying how many and what to do", () => {
    const choice = choose([100, 101, 102, 103], 102);
    expect(choice.kind).toBe("refused");
    expect("message" in choice && choice.message).toBe(
      "all 4 users from 100 to 103 belong to virtual machines: delete one, or give a longer range",
    );
  });

  test("is never that of a VM that exists, however many come and go", () => {
    const taken = new Set<number>();
    let last: number | undefined;
    for (let turn = 0; turn < 100; turn++) {
      const choice = chooseUser({ range, taken, last });
      if (choice.kind === "refused") {
        expect(taken.size).toBe(range.count);
        // The one that was made first goes.
        for (const first of taken) {
          taken.delete(first);
          break;
        }
        continue;
      }
      expect(taken.has(choice.user)).toBe(false);
      taken.add(choice.user);
      last = choice.user;
    }
  });
});
