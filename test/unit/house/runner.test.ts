import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { countCases, findFaults } from "../../../scripts/test-file.ts";
import { compareSkips } from "../../../scripts/test-report.ts";
import { longFiles, systemOf, waitsForNextTurn } from "../../../scripts/test-suites.ts";
import { repositoryRoot } from "../../support/binary.ts";

describe("counting a file's cases", () => {
  const xml = '<?xml version="1.0"?>\n<testsuites name="x" tests="4" failures="1" skipped="2">';

  test("the first element of the report sums up the file", () => {
    expect(countCases(xml)).toEqual({ tests: 4, failures: 1, skipped: 2 });
  });

  test("without a report there is no case", () => {
    expect(countCases("")).toEqual({ tests: 0, failures: 0, skipped: 0 });
  });

  test("a file that dies without a failed case has failed", () => {
    const counted = { tests: 3, failures: 0, skipped: 0 };
    expect(findFaults({ exitCode: 134, counted, skips: 0, only: undefined })).toHaveLength(1);
    expect(findFaults({ exitCode: 0, counted, skips: 0, only: undefined })).toEqual([]);
  });

  test("a skip without a name and a reason is a fault", () => {
    const counted = { tests: 3, failures: 0, skipped: 2 };
    expect(findFaults({ exitCode: 0, counted, skips: 1, only: undefined })).toHaveLength(1);
    expect(findFaults({ exitCode: 0, counted, skips: 1, only: "a name" })).toEqual([]);
  });
});

describe("expected skips", () => {
  const skip = { name: "the suite", reason: "not root", where: "test/namespace" };

  test("a skip is expected when name, reason and file are on the list", () => {
    expect(compareSkips([skip], [skip])).toEqual({ unexpected: [], absent: [] });
  });

  test("another reason makes it another skip", () => {
    const other = { ...skip, reason: "no gcc" };
    expect(compareSkips([other], [skip])).toEqual({ unexpected: [other], absent: [skip] });
  });
});

test("three commits in a row run every long file, and each of them about a third", () => {
  const ofTurn = (turn: number) => longFiles.filter((file) => !waitsForNextTurn(file, turn));
  const inRow = [7, 8, 9].flatMap(ofTurn);
  expect(inRow.toSorted()).toEqual([...longFiles].toSorted());
  expect(ofTurn(10)).toEqual(ofTurn(7));
  expect(longFiles.filter((file) => !existsSync(join(repositoryRoot, file)))).toEqual([]);
  expect(waitsForNextTurn("test/unit/house/runner.test.ts", 7)).toBe(false);
});

test("a file belongs to the system that its name begins with", () => {
  expect(systemOf("test/namespace/process-agent.test.ts")).toBe("process");
  expect(systemOf("test/unit/live-update/plan.test.ts")).toBe("live-update");
  expect(systemOf("test/unit/house/rotation.test.ts")).toBe("house");
  expect(systemOf("test/tidy.test.ts")).toBe("house");
});
