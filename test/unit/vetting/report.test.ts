import { describe, expect, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { IdentityKey } from "../../../src/identity/host-key.ts";
import type { Dossier, KeptResult } from "../../../src/vetting/protocol-operator.ts";
import { chartLimits, drawChart, thin, ticksOf } from "../../../src/vetting/report/chart.ts";
import { escapeText, html } from "../../../src/vetting/report/escape.ts";
import { durationText, htmlText } from "../../../src/vetting/report/html-report.ts";
import { jsonText, reportFiles } from "../../../src/vetting/report/manifest.ts";
import { ROWS_LIMIT, table } from "../../../src/vetting/report/tables.ts";
import { reportsOf, utcCalendar, verifyReports } from "../../../src/vetting/report-files.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { exampleDossier, exampleFinding } from "../../support/vetting-dossier.ts";

const pageOf = (dossier: Dossier) => htmlText(dossier, utcCalendar);

describe("the page of a report", () => {
  test("says what became of the run, its stages, rules, findings and chain", () => {
    const dossier = exampleDossier();
    const page = pageOf(dossier);
    for (const words of [
      "rack-7",
      "badge verdict failed",
      "Storage: FAIL of disk S64ANX0R0",
      "memory.slots[DIMM_A1].part",
      "M321R4GA3BB6",
      "466 GiB",
      "3013 MB/s",
      "memory-corrected",
      "written by the orchestrator",
      "Temperatures",
      "Errors that were counted",
      "S64ANX0R1",
      "operator alice",
      "looks at it",
      ...dossier.results.map(({ hash }) => hash),
    ]) {
      expect(page.includes(words) ? "" : `no ${words}`).toBe("");
    }
  });

  test("needs nothing from elsewhere, and no script", () => {
    const page = pageOf(exampleDossier());
    expect(page).not.toMatch(/<script|<link|<img|<iframe|@import|url\(|\bsrc=|\bhref=|\bon\w+=/);
    expect(page).not.toMatch(/style="/);
    expect(page).toContain("default-src 'none'");
  });

  test("never takes what a host tells for markup", () => {
    const hostile = `"><script>alert(1)</script><img src=x onerror='a'>\u202e\u0007&amp;`;
    const dossier = exampleDossier((made) => {
      made.view.host = hostile.slice(0, 63);
      made.view.reason = hostile;
      made.view.address = hostile;
      for (const stage of made.view.stages) stage.summary = hostile;
      for (const disk of made.inventory?.disks ?? []) disk.serial = hostile;
      for (const slot of made.inventory?.memory.slots ?? []) slot.locator = hostile;
      for (const line of made.log) line.text = hostile;
      for (const event of made.events) event.message = hostile;
      for (const series of made.sensors) series.key = hostile;
      for (const { report } of made.results) {
        report.summary = hostile;
        report.findings = [{ ...exampleFinding("FAIL", hostile), message: hostile }];
        report.evidence = [{ name: hostile, component: hostile, text: hostile }];
      }
      made.rules = made.rules.map((rule) => ({ ...rule, found: hostile, because: hostile }));
    });
    const page = pageOf(dossier);
    expect(page.match(/&lt;script&gt;alert\(1\)/g)?.length ?? 0).toBeGreaterThan(40);
    expect(page).not.toMatch(/<script|<img|onerror='|\u202e|[^\n\P{Cc}]/u);
    expect(page).toContain("&amp;amp;");
    expect(page).toContain("⟦202e⟧");
  });

  test("of a run of which nothing is known yet is a page as well", () => {
    const page = pageOf(
      exampleDossier((made) => {
        made.inventory = null;
        Object.assign(made, { rules: [], results: [], sensors: [], log: [], events: [] });
        Object.assign(made.view, { verdict: null, ended: null, stages: [] });
      }),
    );
    expect(page).toContain("No rule was held");
    expect(page).toContain("badge verdict open");
  });
});

describe("its parts", () => {
  test("escape what is no letter of a text", () => {
    expect(escapeText(`a<b>&"'\n\t\u0000\ud800`)).toBe(
      "a&lt;b&gt;&amp;&quot;&#39;\n\t⟦0000⟧⟦d800⟧",
    );
    expect(html`<i>${"<"}${1}${[html`<b>${"&"}</b>`]}${undefined}</i>`.markup).toBe(
      "<i>&lt;1<b>&amp;</b></i>",
    );
  });

  test("a table ends at its limit, and says so", () => {
    const rows = Array.from({ length: ROWS_LIMIT + 3 }, (_, index) => index);
    const made = table(rows, [{ title: "row", cell: (row) => row }]);
    expect(made?.markup.match(/<tr>/g)).toHaveLength(ROWS_LIMIT + 1);
    expect(made?.markup).toContain("and 3 more");
    expect(table([], [])).toBeUndefined();
  });

  test("a line keeps its peaks when it is thinned", () => {
    const points = Array.from({ length: 100_000 }, (_, index) => [index, 20] as const);
    const high = new Map([
      [54_321, 99],
      [7, -5],
    ]);
    const peaks = points.map(([at, value]) => [at, high.get(at) ?? value] as const);
    const kept = thin(peaks);
    expect(kept.length).toBeLessThanOrEqual(chartLimits.points);
    expect(kept).toContainEqual([54_321, 99]);
    expect(kept).toContainEqual([7, -5]);
    expect(kept.map(([at]) => at)).toEqual(kept.map(([at]) => at).toSorted((a, b) => a - b));
  });

  test("a chart of nothing is none, and of too many lines says how many more", () => {
    const chart = { title: "t", unit: "°C", bands: [], marks: [] };
    expect(drawChart({ ...chart, lines: [{ name: "a", points: [] }] })).toBeUndefined();
    const lines = Array.from({ length: chartLimits.lines + 2 }, (_, index) => ({
      name: `l${index}`,
      points: [[0, index] as const, [1_000, index] as const],
    }));
    const drawn = drawChart({ ...chart, lines })?.markup;
    expect(drawn?.match(/<polyline/g)).toHaveLength(chartLimits.lines);
    expect(drawn).toContain("and 2 more");
    expect(drawn).not.toContain("NaN");
  });

  test("ticks hold the range", () => {
    for (const [low, high] of [
      [0, 0],
      [5, 5],
      [0, 99],
      [-3, 4],
      [1e9, 1.1e9],
      [0.001, 0.002],
    ]) {
      const ticks = ticksOf(low ?? 0, high ?? 0);
      expect(ticks[0]).toBeLessThanOrEqual(low ?? 0);
      expect(ticks.at(-1)).toBeGreaterThanOrEqual(high ?? 0);
      expect(ticks.length).toBeLessThanOrEqual(7);
      expect(ticks.length).toBeGreaterThan(1);
    }
  });

  test("durations are for people", () => {
    expect([undefined, 400, 59_900, 125_000, 7_380_000].map(durationText)).toEqual([
      "",
      "0.4 s",
      "59.9 s",
      "2 min 5 s",
      "2 h 3 min",
    ]);
  });
});

describe("a folder of reports", () => {
  const key = new IdentityKey(generateKeyPairSync("ed25519").privateKey);
  const pin = key.fingerprint;

  function written(dossier: Dossier, by = key) {
    const folder = temporaryFolder();
    for (const [name, text] of Object.entries(reportsOf(dossier, by))) {
      writeFileSync(join(folder.path, name), text);
    }
    return folder;
  }

  test("is as it was signed", () => {
    using folder = written(exampleDossier());
    const verified = verifyReports(folder.path, pin);
    expect(verified.faults).toEqual([]);
    expect(verified.manifest?.chain.results).toBe(7);
    expect(verified.key).toBe(pin);
  });

  test("signed by somebody else is not", () => {
    const other = new IdentityKey(generateKeyPairSync("ed25519").privateKey);
    using folder = written(exampleDossier(), other);
    expect(verifyReports(folder.path, pin).faults.map(({ expected }) => expected)).toEqual([
      `the key ${pin}`,
    ]);
  });

  test("with another key's name on it is not", () => {
    const other = new IdentityKey(generateKeyPairSync("ed25519").privateKey);
    using folder = written(exampleDossier(), other);
    const path = join(folder.path, "manifest.json");
    const signed = JSON.parse(readFileSync(path, "utf8"));
    writeFileSync(path, JSON.stringify({ ...signed, key: key.publicKey }));
    expect(verifyReports(folder.path, pin).faults.map(({ expected }) => expected)).toEqual([
      "a signature of this manifest",
    ]);
  });

  for (const name of [...reportFiles, "manifest.json"]) {
    test(`in which any byte of ${name} was changed is found out`, () => {
      using folder = written(exampleDossier());
      const path = join(folder.path, name);
      const bytes = readFileSync(path);
      const stride = Math.max(1, Math.floor(bytes.length / 150));
      // A space more or less of JSON around what is signed changes nothing of it.
      const isSpace = (at: number) => /\s/.test(String.fromCharCode(bytes[at] ?? 0));
      for (let at = 0; at < bytes.length; at += stride) {
        if (name === "manifest.json" && isSpace(at)) continue;
        const changed = Buffer.from(bytes);
        changed[at] = (changed[at] ?? 0) ^ 1;
        writeFileSync(path, changed);
        expect([at, verifyReports(folder.path, pin).faults.length]).not.toEqual([at, 0]);
      }
      rmSync(path);
      expect(verifyReports(folder.path, pin).faults[0]?.file).toBe(name);
    });
  }

  /** Whoever changes a record, and signs nothing anew. */
  function tampered(change: (results: KeptResult[]) => KeptResult[]) {
    const folder = written(exampleDossier());
    const dossier = exampleDossier();
    const text = jsonText({ ...dossier, results: change(dossier.results) });
    writeFileSync(join(folder.path, "report.json"), text);
    return folder;
  }
  const chainFault = (path: string) =>
    verifyReports(path, pin).faults.filter(({ file }) => file === "report.json");

  const { results } = exampleDossier();
  for (const [index, { stage }] of results.entries()) {
    test(`names the record that was changed: ${stage}`, () => {
      const changes: ((result: KeptResult) => KeptResult)[] = [
        (one) => ({ ...one, report: { ...one.report, outcome: "PASS", summary: "well" } }),
        (one) => ({ ...one, attempt: one.attempt + 1 }),
        (one) => ({ ...one, started: "2026-11-30T00:00:00.000Z" }),
        (one) => ({ ...one, source: one.source === "agent" ? "orchestrator" : "agent" }),
        (one) => ({ ...one, report: { ...one.report, findings: [] } }),
        (one) => ({ ...one, hash: "0".repeat(64) }),
      ];
      for (const change of changes) {
        using folder = tampered((all) => all.map((one, at) => (at === index ? change(one) : one)));
        const told = chainFault(folder.path).map(({ expected }) => expected);
        expect(told.join("\n")).toContain(`result ${index + 1} (${stage}`);
      }
    });

    test(`misses a record: ${stage}`, () => {
      using folder = tampered((all) => all.filter((_, at) => at !== index));
      const told = chainFault(folder.path).map(({ expected }) => expected);
      expect(told.join("\n")).toContain("results 7");
    });
  }

  test("sees that two records have changed their places, whichever", () => {
    for (let left = 0; left < results.length; left += 1) {
      for (let right = left + 1; right < results.length; right += 1) {
        using folder = tampered((all) => {
          const swapped = [...all];
          [swapped[left], swapped[right]] = [all[right] as KeptResult, all[left] as KeptResult];
          return swapped;
        });
        const told = chainFault(folder.path).map(({ expected }) => expected);
        expect(told.join("\n")).toContain(`result ${left + 1} (`);
      }
    }
  });
});
