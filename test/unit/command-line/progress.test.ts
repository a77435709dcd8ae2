import { describe, expect, test } from "bun:test";
import { ProgressLine, progressRest } from "../../../src/command-line/progress.ts";

const mebibyte = 1024 ** 2;

function terminal(isTerminal: boolean) {
  return {
    isTerminal,
    time: 0,
    shown: [] as string[],
    now() {
      return this.time;
    },
    write(text: string) {
      this.shown.push(text);
    },
  };
}

describe("progress on a terminal", () => {
  test("one line, drawn now and then, and nothing of it is left", () => {
    const place = terminal(true);
    {
      using line = new ProgressLine("verifying", place);
      for (let step = 0; step <= 10; step += 1) {
        line.show(step * mebibyte, 10 * mebibyte);
        place.time += progressRest / 2;
      }
    }
    expect(place.shown).toEqual([
      ...[20, 40, 60, 80, 100].map(
        (percent) => `\r\u001b[Kverifying: ${percent / 10} MiB of 10 MiB, ${percent} %`,
      ),
      "\r\u001b[K",
    ]);
  });

  test("work that takes a moment shows nothing", () => {
    const place = terminal(true);
    {
      using line = new ProgressLine("verifying", place);
      line.show(1, 2);
      place.time = progressRest - 1;
      line.show(2, 2);
    }
    expect(place.shown).toEqual([]);
  });

  test("more than there was to do, and nothing to do, are 100 %", () => {
    const place = terminal(true);
    using line = new ProgressLine("verifying", place);
    place.time = progressRest;
    line.show(3, 2);
    place.time *= 2;
    line.show(0, 0);
    expect(place.shown.every((text) => text.endsWith(" 100 %"))).toBe(true);
    expect(place.shown).toHaveLength(2);
  });

  test("nothing where there is no terminal", () => {
    const place = terminal(false);
    {
      using line = new ProgressLine("verifying", place);
      place.time = progressRest * 2;
      line.show(1, 2);
    }
    expect(place.shown).toEqual([]);
  });
});
