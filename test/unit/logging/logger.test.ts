import { describe, expect, test } from "bun:test";
import { describeError, LONGEST_MESSAGE } from "../../../src/logging/format.ts";
import { createLogger, type LogSettings } from "../../../src/logging/logger.ts";
import { runProgram } from "../../support/program.ts";

function capture(settings: Partial<LogSettings> = {}) {
  const lines: string[] = [];
  const write = (text: string) => {
    lines.push(text);
    return true;
  };
  return { lines, logger: createLogger("hostler test", { journal: false, write, ...settings }) };
}

describe("text", () => {
  test("is the component, the message and the fields", () => {
    const { lines, logger } = capture();
    logger.info("started", { name: "media", pid: 12, words: "a b", list: [1], none: null });
    expect(lines).toEqual([
      'hostler test: started (name=media pid=12 words="a b" list=[1] none=null)\n',
    ]);
  });

  test("repeated entries are all there", () => {
    const { lines, logger } = capture();
    for (let count = 0; count < 20; count += 1) logger.warn("again");
    expect(lines).toHaveLength(20);
  });

  test("has priorities for the journal", () => {
    const { lines, logger } = capture({ journal: true, level: "debug" });
    for (const level of ["error", "warn", "info", "debug"] as const) logger[level]("x");
    expect(lines.map((line) => line.slice(0, 3))).toEqual(["<3>", "<4>", "<6>", "<7>"]);
  });

  test("leaves out what is below the level", () => {
    const { lines, logger } = capture();
    logger.debug("x");
    expect(lines).toEqual([]);
  });

  test("is one line, and drives no terminal", () => {
    const { lines, logger } = capture();
    logger.info("a\nhostler test: forged\u001b[2J");
    expect(lines).toEqual(["hostler test: a\\nhostler test: forged\\u001b[2J\n"]);
  });

  test("is bounded", () => {
    const { lines, logger } = capture();
    logger.info("x".repeat(LONGEST_MESSAGE + 5));
    expect(lines[0]).toEndWith("x… (5 more characters)\n");
  });

  test("takes any field", () => {
    const { lines, logger } = capture();
    const circle: Record<string, unknown> = {};
    circle["self"] = circle;
    logger.error("x", {
      circle,
      big: 3n,
      nothing: undefined,
      call: () => 1,
      failure: new Error("outer", { cause: new Error("inner") }),
    });
    expect(lines[0]).toContain('circle="[object Object]" big=3 ');
    expect(lines[0]).toContain('failure="outer: inner');
  });
});

test("JSON is one object a line", () => {
  const { lines, logger } = capture({ format: "json" });
  logger.warn("a\nb", { pid: 3 });
  logger.info("plain");
  const [first, second] = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(first).toEqual({
    time: expect.stringMatching(/^\d{4}-.*Z$/) as unknown as string,
    level: "warn",
    component: "hostler test",
    message: "a\nb",
    fields: { pid: 3 },
  });
  expect(Object.keys(second ?? {})).toEqual(["time", "level", "component", "message"]);
});

test("lost entries are counted, and told when they can be", () => {
  const lines: string[] = [];
  let full = true;
  const write = (text: string) => {
    if (!full) lines.push(text);
    return !full;
  };
  const { logger } = { logger: createLogger("x", { journal: false, write }) };
  logger.info("one");
  logger.info("two");
  full = false;
  logger.info("three");
  logger.info("four");
  expect(lines).toEqual(["x: 2 log entries were lost\nx: three\n", "x: four\n"]);
});

describe("stderr", () => {
  const program = `
    import { fstatSync } from "node:fs";
    import { createLogger } from "./src/logging/logger.ts";
    if (process.env.SAME) {
      const { dev, ino } = fstatSync(2, { bigint: true });
      process.env.JOURNAL_STREAM = dev + ":" + ino;
    }
    const logger = createLogger("x");
    for (let count = 0; count < 3; count += 1) logger.info("said");
    console.log("alive");`;
  const shell = (redirection: string) =>
    runProgram(["/bin/sh", "-c", `"$0" -e "$1" ${redirection}`, process.execPath, program]);

  test.each(["2>/dev/full", "2>&-", "2>&1 >/dev/null | exec true; echo alive"])(
    "that takes nothing hurts nobody: %s",
    async (redirection) => {
      expect(await shell(redirection)).toMatchObject({ exitCode: 0, stdout: "alive\n" });
    },
  );

  test("that is the journal gets priorities, and no other", async () => {
    const run = (environment: Record<string, string>) =>
      runProgram([process.execPath, "-e", program], { environment });
    expect((await run({ SAME: "1" })).stderr).toStartWith("<6>x: said\n");
    expect((await run({ JOURNAL_STREAM: "1:2" })).stderr).toStartWith("x: said\n");
  });
});

test("causes are told once", () => {
  const inner = new Error("No such file");
  expect(describeError(new Error("Cannot open x", { cause: inner }))).toBe(
    "Cannot open x: No such file",
  );
  expect(describeError(new Error("Cannot open x: No such file", { cause: inner }))).toBe(
    "Cannot open x: No such file",
  );
  const circle = new Error("round");
  circle.cause = circle;
  expect(describeError(circle)).toBe("round");
  expect(describeError("a text")).toBe('"a text"');
});
