/** Each line of a run as OCP's test and validation output, by the published schemas. */
import { expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type Dossier, verdicts } from "../../src/vetting/protocol-operator.ts";
import { outcomes } from "../../src/vetting/protocol-result.ts";
import { ocpText, SERIES_ELEMENTS } from "../../src/vetting/report/ocp.ts";
import { utcCalendar } from "../../src/vetting/report-files.ts";
import { validate } from "../support/json-schema.ts";
import { feature, skipUnless } from "../support/skips.ts";
import { exampleDossier, exampleFinding } from "../support/vetting-dossier.ts";

const folder = join(process.env["HOSTLER_SCHEMAS"] ?? "", "ocp-diag");
const schemas = feature("no schemas (HOSTLER_SCHEMAS)", () => existsSync(folder));

const linesOf = (dossier: Dossier) =>
  ocpText(dossier, utcCalendar)
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);

skipUnless("OCP's published schemas", [schemas], () => {
  const read = Object.fromEntries(
    readdirSync(folder)
      .filter((name) => name.endsWith(".json"))
      .map((name) => {
        const schema = JSON.parse(readFileSync(join(folder, name), "utf8")) as { $id: string };
        return [new URL(schema.$id).pathname, schema];
      }),
  );
  const root = read["/opencomputeproject/ocp-diag-core/output"];
  const wrongOf = (dossier: Dossier) =>
    linesOf(dossier).flatMap((line) => validate(line, root, { documents: read }));

  test("take every line of a run with something of everything", () => {
    expect(root).toBeDefined();
    expect(wrongOf(exampleDossier())).toEqual([]);
  });

  test("take every line of every verdict and outcome", () => {
    for (const verdict of [...verdicts, null]) {
      const dossier = exampleDossier((made) => {
        made.view.verdict = verdict;
        for (const { report } of made.results) {
          report.findings = outcomes.map((outcome) => exampleFinding(outcome, "host"));
        }
        made.rules = outcomes.flatMap((outcome) => made.rules.map((one) => ({ ...one, outcome })));
      });
      expect(wrongOf(dossier)).toEqual([]);
    }
  });

  test("refuse what is none of it", () => {
    const [first, second] = linesOf(exampleDossier());
    const changes = [
      { ...first, sequenceNumber: -1 },
      { ...first, timestamp: "yesterday" },
      { ...first, schemaVersion: { major: 1, minor: 0 } },
      { ...first, more: 1 },
      { ...second, testRunArtifact: { testRunStart: { name: "x" } } },
      { sequenceNumber: 1, timestamp: "2026-11-30T00:00:00Z" },
    ];
    for (const line of changes) {
      expect(validate(line, root, { documents: read })).not.toEqual([]);
    }
  });
});

test("lines are numbered from 0, the first says the version, and steps begin and end once", () => {
  const lines = linesOf(exampleDossier());
  expect(lines.map(({ sequenceNumber }) => sequenceNumber)).toEqual(lines.map((_, at) => at));
  expect(lines[0]).toMatchObject({ schemaVersion: { major: 2, minor: 0 } });
  expect(lines.at(-1)).toMatchObject({
    testRunArtifact: { testRunEnd: { status: "COMPLETE", result: "FAIL" } },
  });
  const steps = lines.flatMap(({ testStepArtifact }) => testStepArtifact ?? []) as {
    testStepId: string;
  }[];
  const open = new Map<string, "open" | "closed">();
  for (const { testStepId, ...artifact } of steps) {
    if ("testStepStart" in artifact) {
      expect(open.has(testStepId)).toBe(false);
      open.set(testStepId, "open");
    } else expect(open.get(testStepId)).toBe("open");
    if ("testStepEnd" in artifact) open.set(testStepId, "closed");
  }
  expect([...open.values()]).toEqual(Array.from({ length: 9 }, () => "closed"));
});

test("only the pairs that are valid end a run", () => {
  const pairs = [...verdicts, null].map((verdict) => {
    const last = linesOf(
      exampleDossier((made) => {
        made.view.verdict = verdict;
      }),
    ).at(-1) as { testRunArtifact: { testRunEnd: { status: string; result: string } } };
    const { status, result } = last.testRunArtifact.testRunEnd;
    return `${verdict} ${status}+${result}`;
  });
  expect(pairs).toEqual([
    "passed COMPLETE+PASS",
    "warned COMPLETE+PASS",
    "failed COMPLETE+FAIL",
    "cancelled SKIP+NOT_APPLICABLE",
    "aborted ERROR+NOT_APPLICABLE",
    "lost ERROR+NOT_APPLICABLE",
    "null ERROR+NOT_APPLICABLE",
  ]);
});

test("a long series is thinned to what a file can hold", () => {
  const dossier = exampleDossier((made) => {
    const [series] = made.sensors;
    if (series === undefined) throw new Error("The example has sensors");
    series.points = Array.from({ length: 5_000 }, (_, index) => [index * 1_000, index]);
  });
  const elements = ocpText(dossier, utcCalendar).match(/"measurementSeriesId":"series0"/g);
  expect(elements).toHaveLength(SERIES_ELEMENTS + 2);
});
