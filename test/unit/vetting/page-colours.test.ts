/** Letters and marks of the page and of reports can be told from what they stand on. */
import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { reportStyle } from "../../../src/vetting/report/style.ts";

type Colours = ReadonlyMap<string, string>;

const pageStyle = readFileSync(join(import.meta.dir, "../../../src/vetting/page/page.css"), "utf8");

/** Themes in their order: by day, by night, and on paper where there is one. */
function themesOf(style: string): readonly Colours[] {
  const blocks = [...style.matchAll(/:root\s*\{([^}]*)\}/g)].map(([, block = ""]) => block);
  const first = new Map<string, string>();
  return blocks.map((block) => {
    const own = [...block.matchAll(/(--[\w-]+):\s*(#[0-9a-f]{3,6})/g)];
    const theme = new Map([
      ...first,
      ...own.map(([, name = "", value = ""]) => [name, value] as const),
    ]);
    if (first.size === 0) for (const [name, value] of theme) first.set(name, value);
    return theme;
  });
}

/** WCAG 2.2, "relative luminance". */
function luminance(colour: string): number {
  const digits = colour.length === 4 ? colour.slice(1).replaceAll(/./g, "$&$&") : colour.slice(1);
  const [red = 0, green = 0, blue = 0] = [0, 2, 4].map((at) => {
    const part = Number.parseInt(digits.slice(at, at + 2), 16) / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** WCAG 2.2, "contrast ratio". */
function contrast(left: string, right: string): number {
  const [low = 0, high = 0] = [luminance(left), luminance(right)].toSorted((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

test("the ratio is the standard's", () => {
  expect(contrast("#000", "#ffffff")).toBeCloseTo(21, 5);
  expect(contrast("#777777", "#fff")).toBeCloseTo(4.48, 2);
});

const words = ["--ink", "--faint", "--pass", "--warn", "--fail", "--skip", "--error"];
const grounds = ["--ground", "--raised"];
const lines = ["--s0", "--s1", "--s2", "--s3", "--s4", "--s5"];
const bands = ["--ground", "--band", "--band-other"];

const pairs = (fronts: readonly string[], backs: readonly string[]) =>
  fronts.flatMap((front) => backs.map((back) => [front, back] as const));

/** Pairs below a ratio, with theirs. */
const tooFaint = (theme: Colours, wanted: ReturnType<typeof pairs>, least: number) =>
  wanted.flatMap(([front, back]) => {
    const ratio = contrast(theme.get(front) ?? "#000", theme.get(back) ?? "#000");
    return ratio < least ? [`${front} on ${back}: ${ratio.toFixed(2)}`] : [];
  });

const styles = [
  { name: "the page", themes: themesOf(pageStyle), count: 2, more: ["--now", "--s4"] },
  { name: "a report", themes: themesOf(reportStyle), count: 3, more: ["--s0"] },
] as const;

for (const { name, themes, count, more } of styles) {
  describe(name, () => {
    test("has its themes, each with every colour", () => {
      expect(themes).toHaveLength(count);
      for (const theme of themes) {
        for (const wanted of [...words, ...grounds, ...lines, ...bands]) {
          expect(theme.get(wanted)).toMatch(/^#[0-9a-f]{3,6}$/);
        }
      }
    });

    for (const [index, theme] of themes.entries()) {
      test(`words are AA in theme ${index + 1}: 4.5 at least`, () => {
        expect(tooFaint(theme, pairs([...words, ...more], grounds), 4.5)).toEqual([]);
        expect(tooFaint(theme, pairs(["--faint", "--fail"], bands), 4.5)).toEqual([]);
      });

      test(`lines and marks are AA in theme ${index + 1}: 3 at least`, () => {
        expect(tooFaint(theme, pairs(lines, bands), 3)).toEqual([]);
      });
    }
  });
}

test("what stands on a filled button or mark is AA in both themes", () => {
  for (const theme of themesOf(pageStyle)) {
    expect(tooFaint(theme, [["--on-main", "--now"]], 4.5)).toEqual([]);
    const marks = ["--pass", "--warn", "--fail", "--error"];
    expect(tooFaint(theme, pairs(["--ground"], marks), 4.5)).toEqual([]);
    // Frames of fields, buttons and empty marks; the ring of the focus.
    expect(tooFaint(theme, pairs(["--faint", "--now"], grounds), 3)).toEqual([]);
  }
});
