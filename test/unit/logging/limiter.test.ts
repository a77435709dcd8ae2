/** What is said, and what is counted, where a peer decides how many lines there are. */
import { describe, expect, test } from "bun:test";
import { LimitedLogger } from "../../../src/logging/limited-logger.ts";
import {
  KINDS_LIMIT,
  LIMIT_INTERVAL,
  LINES_AN_INTERVAL,
  LogLimiter,
} from "../../../src/logging/limiter.ts";
import { createLogger } from "../../../src/logging/logger.ts";

describe("limiter", () => {
  const takeMany = (limiter: LogLimiter, count: number, now: number, kind = "refused") =>
    Array.from({ length: count }, () => limiter.take(kind, "warn", now)).filter(Boolean).length;

  test("the first lines of an interval are said, the others counted", () => {
    const limiter = new LogLimiter();
    expect(takeMany(limiter, LINES_AN_INTERVAL, 100)).toBe(LINES_AN_INTERVAL);
    expect(limiter.nextEnd).toBeUndefined();
    expect(takeMany(limiter, 7, 200)).toBe(0);
    expect(limiter.nextEnd).toBe(100 + LIMIT_INTERVAL);
    expect(limiter.ended(99 + LIMIT_INTERVAL)).toEqual([]);
    const held = [{ kind: "refused", level: "warn" as const, count: 7 }];
    expect(limiter.ended(100 + LIMIT_INTERVAL)).toEqual(held);
    expect(limiter.ended(100 + LIMIT_INTERVAL)).toEqual([]);
    expect(takeMany(limiter, 1, 100 + LIMIT_INTERVAL)).toBe(1);
  });

  test("kinds do not take from each other", () => {
    const limiter = new LogLimiter();
    takeMany(limiter, LINES_AN_INTERVAL + 3, 0);
    expect(takeMany(limiter, 1, 5, "another")).toBe(1);
    expect(limiter.ended(LIMIT_INTERVAL)).toMatchObject([{ kind: "refused", count: 3 }]);
  });

  test("an interval in which nothing was held back is not told", () => {
    const limiter = new LogLimiter();
    takeMany(limiter, LINES_AN_INTERVAL, 0);
    expect(limiter.ended(LIMIT_INTERVAL)).toEqual([]);
  });

  test("kinds are bounded", () => {
    const limiter = new LogLimiter();
    for (let count = 0; count < KINDS_LIMIT + 50; count += 1) {
      limiter.take(`kind ${count}`, "info", 0);
    }
    const count = 50 - LINES_AN_INTERVAL;
    expect(limiter.ended(LIMIT_INTERVAL)).toEqual([{ kind: "other lines", level: "info", count }]);
  });
});

describe("limited logger", () => {
  function stage() {
    const lines: string[] = [];
    const write = (line: string) => lines.push(line) > 0;
    const logger = createLogger("test", { journal: false, write });
    const timers: { readonly at: number; readonly call: () => void }[] = [];
    const clock = {
      time: 1_000,
      now: () => clock.time,
      wakeAfter: (delay: number, call: () => void) => {
        const timer = { at: clock.time + delay, call };
        timers.push(timer);
        return { [Symbol.dispose]: () => void timers.splice(timers.indexOf(timer), 1) };
      },
    };
    const pass = (time: number) => {
      clock.time += time;
      for (const timer of [...timers]) {
        if (timer.at > clock.time) continue;
        timers.splice(timers.indexOf(timer), 1);
        timer.call();
      }
    };
    return { lines, timers, pass, limited: new LimitedLogger(logger, clock) };
  }

  const loop = (limited: LimitedLogger, count: number) => {
    for (let index = 0; index < count; index += 1) {
      limited.warn(`refused a client: expected uid 0; received uid ${index}`);
    }
  };

  test("says how many more there were, when the interval is over", () => {
    const { lines, timers, pass, limited } = stage();
    loop(limited, 10_000);
    expect(lines).toHaveLength(LINES_AN_INTERVAL);
    expect(timers).toHaveLength(1);
    pass(LIMIT_INTERVAL);
    expect(lines.slice(LINES_AN_INTERVAL)).toEqual([
      "test: refused a client: … 9990 more like it in the last 30.00 s\n",
    ]);
    expect(timers).toHaveLength(0);
    loop(limited, 1);
    expect(lines).toHaveLength(LINES_AN_INTERVAL + 2);
  });

  test("tells partitions apart, and not what a peer says", () => {
    const { lines, limited, pass } = stage();
    for (const name of ["qm", "other"]) {
      for (let index = 0; index < 12; index += 1) {
        limited.warn(`partition ${name}: refused an agent: it says a: ${index}`);
      }
    }
    pass(LIMIT_INTERVAL);
    expect(lines.slice(2 * LINES_AN_INTERVAL)).toEqual([
      "test: partition qm: refused an agent: … 2 more like it in the last 30.00 s\n",
      "test: partition other: refused an agent: … 2 more like it in the last 30.00 s\n",
    ]);
  });

  test("tells what it held back when it ends", () => {
    const { lines, timers, limited } = stage();
    loop(limited, LINES_AN_INTERVAL + 1);
    limited[Symbol.dispose]();
    expect(lines.at(-1)).toContain("… 1 more like it");
    expect(timers).toHaveLength(0);
  });

  test("an interval that ended late is told before the next line", () => {
    const { lines, pass, limited, timers } = stage();
    loop(limited, LINES_AN_INTERVAL + 1);
    timers.length = 0;
    pass(LIMIT_INTERVAL + 1);
    loop(limited, 1);
    expect(lines.at(-2)).toContain("… 1 more like it");
    expect(lines.at(-1)).toEndWith("received uid 0\n");
  });
});
