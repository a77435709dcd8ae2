/**
 * The forms of what one version leaves to the next: each stands in src/fleet/FORMATS.md, and none
 * is raised without a reader and a writer of the former one.
 */
import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { decodeJournal, JOURNAL_FORMAT } from "../../src/fleet/lifecycle-journal.ts";
import { ROLES_FORMAT, RoleBook } from "../../src/fleet/perform/role-book.ts";
import { adoptionSchema } from "../../src/fleet/protocol-supervise.ts";
import { repositoryRoot } from "../support/binary.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const readText = (path: string) => readFileSync(join(repositoryRoot, path), "utf8");

/** How a source says which form it writes: as a literal, or by a name that stands in it. */
const says = [
  /\b(?:format|version): v\.literal\((\d+|[A-Z_]+)\)/g,
  /\bconst (?:LAYOUT_FORMAT|STATE_VERSION|SCHEMA_VERSION) = (\d+)/g,
  /\btype DatabaseFormat = 1 \| (\d+)/g,
];

function formOf(text: string): number | undefined {
  const said = says.flatMap((one) => [...text.matchAll(one)].map(([, value = ""]) => value));
  const forms = said
    .map((value) => (/^\d+$/.test(value) ? value : numberCalled(value, text)))
    .filter((value) => value !== undefined);
  return forms.length === 0 ? undefined : Math.max(...forms.map(Number));
}

/** Undefined for what is no number, such as the name of a form. */
const numberCalled = (name: string, text: string): string | undefined =>
  new RegExp(`\\b${name} = (\\d+)`).exec(text)?.[1];

interface Row {
  readonly source: string;
  readonly writes: number;
  readonly reads: readonly number[];
  readonly writer: string | undefined;
}

function rowsOf(document: string): Row[] {
  const rows = document.matchAll(/^\| [^|]+ \| `([^`]+)` \| (\d+) \| ([\d, ]+) \| ([^|]+) \|$/gm);
  return [...rows].map(([, source = "", writes, reads = "", writer = ""]) => ({
    ...{ source, writes: Number(writes), reads: reads.split(", ").map(Number) },
    writer: /^`([^`]+)`/.exec(writer)?.[1],
  }));
}

/** Why a row is not what its source is; undefined where it is. */
function wrong({ source, writes, reads, writer }: Row, text: string): string | undefined {
  const form = formOf(text);
  if (form !== writes) return `${source} writes ${form}, and the table says ${writes}`;
  if (!reads.includes(writes)) return `${source} does not read what it writes`;
  if (writes === 1) return undefined;
  if (!reads.includes(writes - 1)) return `${source} does not read form ${writes - 1}`;
  const hasWriter = writer !== undefined && text.includes(writer);
  return hasWriter ? undefined : `${source} has no writer of form ${writes - 1}`;
}

const rows = rowsOf(readText("src/fleet/FORMATS.md"));

test("every form in the sources stands in the table, and no other one does", () => {
  const sources = [...new Bun.Glob("src/**/*.ts").scanSync(repositoryRoot)];
  const found = sources.filter((path) => formOf(readText(path)) !== undefined);
  expect(rows.map(({ source }) => source).toSorted()).toEqual(found.toSorted());
});

test.each(rows)("$source: what it writes, and reads", (row) => {
  expect(wrong(row, readText(row.source))).toBeUndefined();
});

describe("a form that is raised is found", () => {
  const raised = "const schema = v.object({ format: v.literal(2) }); const writeFormOne = 1;";
  const row = { source: "x.ts", writes: 1, reads: [1], writer: undefined };

  test("without a row that says so", () => {
    expect(wrong(row, raised)).toBe("x.ts writes 2, and the table says 1");
  });

  test("without a reader of the former one", () => {
    expect(wrong({ ...row, writes: 2, reads: [2] }, raised)).toBe("x.ts does not read form 1");
  });

  test("without a writer of the former one", () => {
    const other = { ...row, writes: 2, reads: [1, 2] };
    expect(wrong(other, raised)).toBe("x.ts has no writer of form 1");
    expect(wrong({ ...other, writer: "writeOne" }, raised)).toBe("x.ts has no writer of form 1");
    expect(wrong({ ...other, writer: "writeFormOne" }, raised)).toBeUndefined();
  });

  test("by a name as well", () => {
    expect(formOf("const A_FORM = 3; v.object({ version: v.literal(A_FORM) })")).toBe(3);
  });
});

describe("what the fleet finds of a later version is refused", () => {
  test("the journal", () => {
    const read = decodeJournal(JSON.stringify({ format: JOURNAL_FORMAT + 1 }));
    expect(read).toMatchObject({ kind: "refused", reason: expect.stringContaining("format 2") });
  });

  test("the roles that are expected, which are noted anew when they are seen", () => {
    using folder = temporaryFolder();
    const troubles: string[] = [];
    const book = new RoleBook(folder.path, (message) => troubles.push(message));
    const expected = [
      { kind: "luod", unit: "luod.service", socket: "/run/x", asked: null },
    ] as const;
    book.write(expected);
    expect(book.read()).toEqual([...expected]);
    expect(troubles).toEqual([]);
    const path = folder.file("roles.json");
    writeFileSync(path, JSON.stringify({ format: ROLES_FORMAT + 1, roles: expected }));
    expect(book.read()).toEqual([]);
    writeFileSync(path, "x".repeat(65 * 1024));
    expect(book.read()).toEqual([]);
    expect(troubles.length).toBe(2);
    // One that a later version knows is left out, and costs nobody the others.
    const later = { ...expected[0], kind: "a later kind" };
    writeFileSync(path, JSON.stringify({ format: ROLES_FORMAT, roles: [later, ...expected] }));
    expect(book.read()).toEqual([...expected]);
  });

  test("what a supervisor becomes", () => {
    expect(v.is(adoptionSchema, { format: 1, canonical: null, more: 1 })).toBe(true);
    expect(v.is(adoptionSchema, { format: 2, canonical: null })).toBe(false);
  });
});
