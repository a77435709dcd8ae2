/** What --retain takes. */
import { expect, test } from "bun:test";
import { auditDefaults } from "../../../src/audit/limits.ts";
import { usualBuckets } from "../../../src/authority/options.ts";
import { readRetention } from "../../../src/authority/retention.ts";

const read = (...given: string[]) => readRetention(usualBuckets, given);

test("nothing said: the usual bounds", () => {
  expect(read()).toEqual({ retention: { buckets: usualBuckets, audit: auditDefaults } });
});

test("each in the place of the usual one", () => {
  const found = read("audit=48h,2GiB", "host-presence=1h,1MiB", "identity-hosts=forever,128MiB");
  if (!("retention" in found)) throw new Error(found.expected);
  const { audit, buckets } = found.retention;
  expect(audit).toEqual({ age: 48 * 3_600_000, size: 2 * 1024 ** 3 });
  const of = (name: string) => buckets.find((bucket) => bucket.name === name);
  expect(of("host-presence")).toMatchObject({ age: 3_600_000, size: 1024 ** 2, volatile: true });
  expect(of("identity-hosts")).toMatchObject({ age: "forever", size: 128 * 1024 ** 2 });
  expect(of("identity-tokens")).toEqual(
    usualBuckets.find(({ name }) => name === "identity-tokens"),
  );
});

test.each([
  ["audit", /^NAME=AGE,SIZE, where NAME is identity-hosts, .*, audit$/],
  ["nobody=1h,1MiB", /where NAME is/],
  ["audit=1h,2GiB", /24h and a size of 1MiB/],
  ["audit=forever,2GiB", /24h and a size of 1MiB/],
  ["audit=48h,1KiB", /24h and a size of 1MiB/],
  ["audit=48,2GiB", /audit=AGE,SIZE/],
  ["audit=48h,2GB", /audit=AGE,SIZE/],
  ["identity-hosts=24h,64MiB", /forever as the age of identity-hosts/],
  ["host-presence=1h,1KiB", /64KiB for host-presence at least/],
])("%s is refused", (given, expected) => {
  expect(read("host-presence=2h,1MiB", given)).toEqual({
    expected: expect.stringMatching(expected),
    received: given,
  });
});
