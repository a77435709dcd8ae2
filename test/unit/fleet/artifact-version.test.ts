import { expect, test } from "bun:test";
import * as v from "valibot";
import { artifactVersionSchema, compareVersions } from "../../../src/artifact/protocol-version.ts";

/** Section 11 of Semantic Versioning 2.0.0, and what surrounds it. */
const rising = [
  "0.0.0",
  "0.0.9",
  "0.0.10",
  "0.10.0",
  "1.0.0-1",
  "1.0.0-2",
  "1.0.0-10",
  "1.0.0-alpha",
  "1.0.0-alpha.1",
  "1.0.0-alpha.beta",
  "1.0.0-beta",
  "1.0.0-beta.2",
  "1.0.0-beta.11",
  "1.0.0-rc.1",
  "1.0.0",
  "1.0.1",
  "2.0.0",
  "10.0.0",
  "9007199254740993.0.0",
  "9007199254740994.0.0",
];

test("versions have the order of the specification", () => {
  for (const [index, one] of rising.entries()) {
    for (const [place, other] of rising.entries()) {
      expect([one, other, compareVersions(one, other)]).toEqual([
        one,
        other,
        Math.sign(index - place),
      ]);
    }
  }
});

test.each([
  "1",
  "1.2",
  "1.2.3.4",
  "v1.2.3",
  "01.2.3",
  "1.2.3+build",
  "1.2.3-",
  "1.2.3-a..b",
  " 1.2.3",
  "1.2.3\n",
  `1.2.${"9".repeat(64)}`,
])("%j is no version", (text) => {
  expect(v.is(artifactVersionSchema, text)).toBe(false);
});

test("versions in order are versions", () => {
  for (const text of rising) expect(v.is(artifactVersionSchema, text)).toBe(true);
});
