/** Which version is the later one: Semantic Versioning 2.0.0, 11. */
import { expect, test } from "bun:test";
import { compareVersions, laterVersion } from "../../src/fleet/protocol-version.ts";

/** In the order that the specification gives, and some numbers that are too long for a double. */
const ordered = [
  "0.9.9",
  "1.0.0-1",
  "1.0.0-2",
  "1.0.0-11",
  "1.0.0-123456789",
  "1.0.0-a",
  "1.0.0-alpha",
  "1.0.0-alpha.1",
  "1.0.0-alpha.beta",
  "1.0.0-alpha-1",
  "1.0.0-beta",
  "1.0.0-beta.2",
  "1.0.0-beta.11",
  "1.0.0-rc.1",
  "1.0.0",
  "1.0.1",
  "1.2.0",
  "1.10.0",
  "2.0.0-rc.1",
  "2.0.0",
  "9007199254740992.0.0",
  "9007199254740993.0.0",
];

test("every pair of versions, in both orders", () => {
  for (const [first, one] of ordered.entries()) {
    for (const [second, other] of ordered.entries()) {
      const sign = Math.sign(compareVersions(one, other));
      expect([one, other, sign]).toEqual([one, other, Math.sign(first - second)]);
    }
  }
});

test("the later of two, where none is below all", () => {
  expect(laterVersion("1.2.0", "1.10.0")).toBe("1.10.0");
  expect(laterVersion("1.10.0", "1.2.0")).toBe("1.10.0");
  expect(laterVersion(null, "1.2.0")).toBe("1.2.0");
  expect(laterVersion("1.2.0", null)).toBe("1.2.0");
  expect(laterVersion(null, null)).toBeNull();
});
