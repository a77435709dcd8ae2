/** The fences of the house, and for each the proof that it can refuse something. */
import { describe, expect, test } from "bun:test";
import { checkFunctionLength, functionLineLimit } from "./support/fences/functions.ts";
import { checkImports, covers, exceptions, isExcepted } from "./support/fences/imports.ts";
import { checkPurity } from "./support/fences/purity.ts";
import { codeOf, formatViolation, readSources, type Violation } from "./support/fences/source.ts";
import { checkWords, wordFences } from "./support/fences/words.ts";

const sources = readSources();

function expectNone(violations: readonly Violation[]): void {
  expect(violations.map(formatViolation).join("\n")).toBe("");
}

describe("the house keeps its fences", () => {
  test("imports", () => {
    const refused = sources.flatMap(checkImports);
    expectNone(refused.filter((found) => !isExcepted(found, exceptions)));
  });

  test("every exception from the import fences is needed", () => {
    const refused = sources.flatMap(checkImports);
    const idle = exceptions.filter(
      (exception) => !refused.some((found) => covers(exception, found)),
    );
    expect(idle).toEqual([]);
  });

  test("pure files", () => expectNone(checkPurity(sources)));

  test("functions", () => expectNone(sources.flatMap(checkFunctionLength)));

  for (const fence of wordFences) {
    test(fence.name, () => expectNone(sources.flatMap((file) => checkWords(file, fence))));
  }
});

describe("every fence can refuse", () => {
  test.each([
    ["src/main.ts", "./process/agent.ts"],
    ["src/main.ts", "../ffi/epoll.ts"],
    ["src/process/agent.ts", "../vm/lifecycle.ts"],
    ["src/process/agent.ts", "../command-line/table.ts"],
    ["src/process/agent.ts", "../../ffi/epoll.ts"],
    ["src/process/agent.ts", "bun:ffi"],
    ["src/process/agent.ts", "../main.ts"],
    ["src/process/agent.ts", "../../scripts/setup.ts"],
    ["src/process/agent.ts", "../doctor/report.ts"],
    ["src/command-line/root.ts", "../process/agent.ts"],
    ["src/journal/journal.ts", "../messaging/frame.ts"],
    ["src/journal/journal.ts", "../event-loop/clock.ts"],
    ["src/units/units.ts", "../logging/reporter.ts"],
    ["src/unheard-of/x.ts", "../units/units.ts"],
    ["ffi/epoll.ts", "../src/logging/reporter.ts"],
    ["ffi/epoll.ts", "valibot"],
  ])("imports: %s does not import %s", (path, specifier) => {
    expect(checkImports({ path, text: `import { x } from "${specifier}";\nx();` })).toHaveLength(1);
    expect(checkImports({ path, text: `await import("${specifier}");` })).toHaveLength(1);
    expect(checkImports({ path, text: `import type { X } from "${specifier}";` })).toHaveLength(1);
    expect(checkImports({ path, text: `export * from "${specifier}";` })).toHaveLength(1);
  });

  test.each([
    ["src/main.ts", "./process/command.ts"],
    ["src/process/command.ts", "../command-line/table.ts"],
    ["src/process/perform.ts", "../../ffi/epoll.ts"],
    ["src/process/perform/spawn.ts", "../../../ffi/epoll.ts"],
    ["src/process/agent.ts", "../vm/protocol.ts"],
    ["src/process/agent.ts", "../messaging/frame.ts"],
    ["src/messaging/frame.ts", "../event-loop/event-loop.ts"],
    ["src/command-line/root.ts", "../process/command.ts"],
    ["ffi/epoll.ts", "bun:ffi"],
    ["ffi/epoll.ts", "../src/units/units.ts"],
    ["test/contract/layouts.test.ts", "../../ffi/epoll.ts"],
  ])("imports: %s may import %s", (path, specifier) => {
    expectNone(checkImports({ path, text: `import { x } from "${specifier}";\nx();` }));
  });

  test("an exception covers its file and target alone", () => {
    const exception = { from: "src/process/launcher.ts", to: "ffi/", reason: "a test" };
    const found = { from: "src/process/launcher.ts", to: "ffi/epoll.ts", line: 1 };
    expect(covers(exception, found)).toBe(true);
    expect(covers(exception, { ...found, from: "src/process/agent.ts" })).toBe(false);
    expect(covers({ ...exception, to: "ffi/pidfd.ts" }, found)).toBe(false);
  });

  test.each([
    "const now = Date.now();",
    "const chance = Math.random();",
    'import { readFileSync } from "node:fs";\nreadFileSync("x");',
    'import type { Descriptor } from "../../ffi/descriptor.ts";',
    "setTimeout(stop, 5);",
    "const home = process.env;",
    "const file = Bun.file;",
  ])("pure files: %s", (text) => {
    expect(checkPurity([{ path: "src/process/lifecycle.ts", text }])).not.toEqual([]);
    expect(checkPurity([{ path: "src/process/protocol-holden.ts", text }])).not.toEqual([]);
    expect(checkPurity([{ path: "src/units/units.ts", text }])).not.toEqual([]);
    expectNone(checkPurity([{ path: "src/process/agent.ts", text }]));
  });

  test("pure files: what one imports is pure as well", () => {
    const lifecycle = {
      path: "src/process/lifecycle.ts",
      text: 'import { restart } from "./restart.ts";\nrestart();',
    };
    const restart = { path: "src/process/restart.ts", text: "export const now = Date.now();" };
    expect(checkPurity([lifecycle, restart])).toHaveLength(1);
    expectNone(checkPurity([{ ...lifecycle, text: "process.phase = 1;" }, restart]));
  });

  test("functions: one line too many", () => {
    const body = (count: number) => `${"  work();\n".repeat(count)}}\n`;
    const path = "src/process/agent.ts";
    const most = functionLineLimit - 2;
    for (const head of [
      "export function run(): void {\n",
      "const run = async () => {\n",
      "test(name, () => {\n",
    ]) {
      expectNone(checkFunctionLength({ path, text: head + body(most) }));
      expect(checkFunctionLength({ path, text: head + body(most + 1) })).toHaveLength(1);
    }
    const method = `class Loop {\n  run(): void {\n${"    work();\n".repeat(most + 1)}  }\n}\n`;
    expect(checkFunctionLength({ path, text: method })).toHaveLength(1);
  });

  test("functions: a table in one does not count, nor does the text of a describe", () => {
    const path = "src/process/agent.ts";
    const table = `function run() {\n  const table = {\n${"    a: 1,\n".repeat(80)}  };\n}\n`;
    expectNone(checkFunctionLength({ path, text: table }));
    const suite = `describe("x", () => {\n${"  work();\n".repeat(80)}});\n`;
    expectNone(checkFunctionLength({ path, text: suite }));
  });

  for (const fence of wordFences) {
    test(fence.name, () => {
      const paths = ["src/process/agent.ts", "test/unit/x.test.ts", "scripts/x.ts"];
      const path = paths.find((candidate) => fence.files.test(candidate)) ?? "";
      expect(checkWords({ path, text: fence.bad }, fence)).not.toEqual([]);
      expectNone(checkWords({ path, text: "const fine = 1;\n" }, fence));
    });
  }

  test("comments and strings are no code", () => {
    const text =
      'a(); // Date.now()\n/* Date\n */ b("Date", `Date $' + "{c()}`, /Date[/]/g) / 2;\n";
    const code = codeOf(text);
    expect(code).not.toContain("Date");
    expect(code).toContain("c()");
    expect(code).toContain("/ 2");
    expect(code.split("\n")).toHaveLength(4);
  });
});
