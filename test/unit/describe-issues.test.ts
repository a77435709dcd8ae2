/** What a validation found, in the one wording of all refusals. */
import { expect, test } from "bun:test";
import * as v from "valibot";
import { describeIssues, firstFinding } from "../../src/messaging/describe-issues.ts";

const schema = v.strictObject({
  name: v.string(),
  signal: v.pipe(v.number(), v.minValue(1)),
  deep: v.object({ words: v.array(v.string()) }),
  more: v.boolean(),
});

function issuesOf(value: unknown) {
  const parsed = v.safeParse(schema, value);
  if (parsed.success) throw new Error("it is no mistake");
  return parsed.issues;
}

const right = { name: "it", signal: 2, deep: { words: ["a"] }, more: true };

test("says what was expected, where, and what came", () => {
  const issues = issuesOf({ ...right, deep: { words: ["a", 5] } });
  expect(describeIssues(issues)).toBe("expected string in deep.words.1, received 5");
  expect(firstFinding(issues)).toEqual({ expected: "string in deep.words.1", received: "5" });
  expect(describeIssues(issuesOf(null))).toBe("expected Object, received null");
  expect(describeIssues(issuesOf({ ...right, signal: 0 }))).toBe(
    "expected >=1 in signal, received 0",
  );
});

test("says in words what valibot says in its own", () => {
  const whole = v.object({ many: v.pipe(v.number(), v.safeInteger()), id: v.string() });
  const told = (value: unknown) => {
    const parsed = v.safeParse(whole, value);
    return parsed.success ? "" : describeIssues(parsed.issues);
  };
  expect(told({ many: 1.5, id: "a" })).toBe("expected a whole number in many, received 1.5");
  expect(told({ many: 1 })).toBe("expected a value in id, received undefined");
  expect(told({ many: 1, id: 2 })).toBe("expected string in id, received 2");
});

test("says a schema's own words, once, in place of its pattern", () => {
  const hash = v.pipe(v.string(), v.regex(/^sha256-/, 'Expected "sha256-" and more'));
  const ports = v.pipe(
    v.array(v.number()),
    v.check(({ length }) => length < 2, "Expected one"),
  );
  const told = (value: unknown) => {
    const parsed = v.safeParse(v.strictObject({ hash, ports }), value);
    return parsed.success ? "" : describeIssues(parsed.issues);
  };
  expect(told({ hash: "md5-x", ports: [1, 2] })).toBe(
    'expected "sha256-" and more in hash, received "md5-x"; expected one in ports, received Array',
  );
  expect(told({ hash: "sha256-", ports: [], port: 1 })).toBe(
    'expected no such key in port, received "port"',
  );
});

test("tells three findings, and how many there are besides", () => {
  expect(describeIssues(issuesOf({ name: 1, signal: "x", deep: 3, more: 4 }))).toBe(
    'expected string in name, received 1; expected number in signal, received "x"; ' +
      "expected Object in deep, received 3 (and 1 more)",
  );
});

test("is bounded, whatever came", () => {
  const text = describeIssues(issuesOf({ ...right, signal: "x".repeat(100_000) }));
  expect(text.length).toBeLessThan(300);
  const { expected } = firstFinding(issuesOf({ ...right, ["k".repeat(100_000)]: 1 }));
  expect(expected.length).toBeLessThanOrEqual(200);
});
