import { describe, expect, test } from "bun:test";
import {
  SIGRTMAX,
  SIGRTMIN,
  Signal,
  signalName,
  signalNumber,
} from "../../../src/units/signals.ts";

describe("signalNumber", () => {
  const spellings: [string | number, number][] = [
    ["SIGTERM", 15],
    ["TERM", 15],
    ["sigterm", 15],
    ["term", 15],
    ["15", 15],
    [15, 15],
    ["SIGRTMIN", 34],
    ["RTMIN+1", 35],
    ["SIGRTMIN+30", 64],
    ["SIGRTMAX", 64],
    ["SIGRTMAX-1", 63],
    ["64", 64],
  ];
  test.each(spellings)("%p is %d", (spelling, number) => {
    expect(signalNumber(spelling)).toBe(number);
  });

  const wrong: (string | number)[] = [
    "",
    "SIG",
    "SIGNONE",
    "TERM ",
    "-9",
    "0",
    "65",
    "1.5",
    "0x0f",
    "32",
    "33",
    "SIGRTMIN+31",
    "SIGRTMAX-31",
    "SIGRTMIN-1",
    "SIGRTMAX+1",
    "TERM+1",
    "toString",
    0,
    -1,
    32,
    65,
    1.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
  ];
  test.each(wrong)("%p is refused, with what was expected and received", (spelling) => {
    expect(signalNumber(spelling)).toEqual({
      kind: "not-a-signal",
      expected: "a name such as SIGTERM, TERM or SIGRTMIN+1, or a number from 1 to 64",
      received: typeof spelling === "number" ? String(spelling) : JSON.stringify(spelling),
    });
  });
});

describe("signalName", () => {
  test("names what has a name, and numbers what has none", () => {
    expect(signalName(9)).toBe("SIGKILL");
    expect(signalName(34)).toBe("SIGRTMIN");
    expect(signalName(36)).toBe("SIGRTMIN+2");
    expect(signalName(64)).toBe("SIGRTMIN+30");
    expect(signalName(32)).toBe("signal 32");
    expect(signalName(65)).toBe("signal 65");
    expect(signalName(0)).toBe("signal 0");
  });

  test("signalNumber reads what it says, for every signal", () => {
    const realTime = Array.from({ length: SIGRTMAX - SIGRTMIN + 1 }, (_, n) => SIGRTMIN + n);
    for (const number of [...Object.values(Signal), ...realTime]) {
      expect(signalNumber(signalName(number))).toBe(number);
    }
  });
});
