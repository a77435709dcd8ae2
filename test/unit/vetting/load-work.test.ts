import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { answers, cpuWork, digests, hashedBytes } from "../../../src/vetting/perform/cpu-work.ts";
import {
  CHAINS,
  laneStart,
  loadModule,
  MULTIPLIER,
} from "../../../src/vetting/perform/load-module.ts";

/** The same work once more, by other means: BigInt, and doubles of JavaScript. */
const reference = { integer, float, vector };

const wrap = (value: bigint) => BigInt.asUintN(64, value);
const rotated = (value: bigint, by: bigint) => wrap((value << by) | (value >> (64n - by)));
const bits = (value: number) => new BigUint64Array(Float64Array.of(value).buffer)[0] ?? 0n;

function integer(seed: bigint, count: number): bigint {
  let [state, answer] = [seed, 0n];
  for (let round = 0; round < count; round += 1) {
    state ^= wrap(state << 13n);
    state ^= state >> 7n;
    state ^= wrap(state << 17n);
    answer = rotated(answer, 5n) ^ wrap(state * MULTIPLIER);
    answer = wrap(answer + state / ((answer & 0xffffn) | 1n));
    const ones = answer.toString(2).replaceAll("0", "").length;
    const zeros = 64 - (state === 0n ? 0 : state.toString(2).length);
    answer ^= BigInt(ones + zeros * 256);
  }
  return answer;
}

function float(seed: bigint, count: number): bigint {
  let [x, y, answer] = [Number((seed & 0xf_ffffn) | 1n) / 2 ** 21, 0, 0n];
  for (let round = 0; round < count; round += 1) {
    x = 3.9999 * x * (1 - x);
    y = Math.sqrt(y * y + x) / (1 + x);
    answer = wrap((rotated(answer, 7n) ^ bits(x)) + bits(y));
  }
  return answer;
}

function vector(seed: bigint, count: number): bigint {
  const chains = Array.from({ length: CHAINS }, (_, chain) => laneStart(chain));
  for (const { words } of chains) {
    words.forEach((word, lane) => {
      words[lane] = word + Number(seed & 0xffff_ffffn);
    });
  }
  const sum = [0n, 0n];
  for (let round = 0; round < count; round += 1) {
    for (const { words, doubles } of chains) {
      words.forEach((word, lane) => {
        const next = (Math.imul(word, 0x0019_660d) + 0x3c6e_f35f) >>> 0;
        words[lane] = (next << 13) | (next >>> 19);
      });
      doubles.forEach((double, lane) => {
        const next = 3.9999 * double * (1 - double);
        doubles[lane] = next;
        const low = BigInt(words[lane * 2] ?? 0) | (BigInt(words[lane * 2 + 1] ?? 0) << 32n);
        sum[lane] = (sum[lane] ?? 0n) ^ low ^ bits(Math.sqrt(next) / (1 + next));
      });
    }
  }
  return wrap((sum[0] ?? 0n) + rotated(sum[1] ?? 0n, 32n));
}

describe("the work of a processor", () => {
  test("gives what another implementation gives, for every seed", async () => {
    const module = await loadModule();
    for (const kind of ["integer", "float", "vector"] as const) {
      const work = module[kind];
      if (typeof work === "string") throw new Error(work);
      for (const [seed] of answers[kind]) {
        for (const count of [1, 2, 777]) {
          const found = wrap(work(seed, count));
          expect([kind, seed, count, found]).toEqual([
            ...[kind, seed, count],
            reference[kind](seed, count),
          ]);
        }
      }
    }
  });

  test("the digests are those of another program", () => {
    for (const [algorithm, digest] of Object.entries(digests)) {
      expect(createHash(algorithm).update(hashedBytes()).digest("hex")).toBe(digest);
    }
  });

  test("all kinds are there, and right at every turn", async () => {
    const { works, unseen } = await cpuWork();
    expect(unseen).toEqual([]);
    expect(works.map(({ kind }) => kind)).toEqual([
      ...(["integer", "float", "vector"] as const),
      ...(["hash", "compression"] as const),
    ]);
    for (const work of works) {
      for (const turn of [0, 1, 2]) {
        const { expected, found } = work.answer(turn);
        expect(`${work.kind} ${found}`).toBe(`${work.kind} ${expected}`);
      }
    }
  });
});
