/** What the command line makes of a program to run in a guest, and the limits of the wire. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { UsageError } from "../../../src/command-line/usage-error.ts";
import { defaultControlLimits } from "../../../src/messaging/control-server.ts";
import { encodeFrame } from "../../../src/messaging/frame.ts";
import { exitStatus, readCommand } from "../../../src/vm/commands/exec.ts";
import { controlRequestSchema } from "../../../src/vm/protocol.ts";
import { execCommandSchema, execLimits } from "../../../src/vm/protocol-exec.ts";

const usual = {
  ...{ command: ["true"], env: [], directory: undefined },
  ...{ "time-limit": undefined, "output-limit": undefined },
};

describe("a command", () => {
  test("says what was told, and nothing else", () => {
    expect(readCommand(usual)).toEqual({ argv: ["true"] });
    const all = { env: ["A=1"], directory: "/x", "time-limit": "2s", "output-limit": "1KiB" };
    expect(readCommand({ ...usual, ...all })).toEqual({
      ...{ argv: ["true"], environment: ["A=1"], working_directory: "/x" },
      ...{ time_limit_ms: 2_000, output_limit: 1_024 },
    });
  });

  test.each([
    ["no time", { "time-limit": "0s" }],
    ["more than a day", { "time-limit": "25h" }],
    ["no size", { "output-limit": "much" }],
    ["more output than there may be", { "output-limit": "65MiB" }],
    ["a zero byte", { command: ["a\0b"] }],
    ["no program", { command: [] }],
  ])("with %s is a mistake of the command line", (_what, changed) => {
    expect(() => readCommand({ ...usual, ...changed })).toThrow(UsageError);
  });

  test("an ending is a status, or 128 and a signal", () => {
    expect(exitStatus({ kind: "exited", status: 111 })).toBe(111);
    expect(exitStatus({ kind: "signalled", signal: 9, core_dumped: false })).toBe(137);
  });
});

describe("the limits of the wire", () => {
  const isFine = (value: object) => v.safeParse(execCommandSchema, value).success;
  /** As JSON: brackets, quotes, and what is between them. */
  const text = (bytes: number) => "x".repeat(bytes - 4);
  const many = (count: number) => Array.from({ length: count }, () => "x");

  const most = {
    argv: [text(execLimits.commandBytes)],
    environment: [text(execLimits.environmentBytes)],
    working_directory: "x".repeat(execLimits.directoryBytes),
    time_limit_ms: execLimits.time,
    output_limit: execLimits.outputBytes,
  };

  test("the most of everything is a request that the worker reads", () => {
    const request = { id: 2 ** 40, verb: "exec", name: "x".repeat(63), ...most };
    expect(v.safeParse(controlRequestSchema, request).success).toBe(true);
    expect(encodeFrame(request).length).toBeLessThan(defaultControlLimits.requestBytes);
    expect(isFine({ argv: many(execLimits.words) })).toBe(true);
  });

  test.each([
    ["commandBytes", { argv: [text(execLimits.commandBytes + 1)] }],
    ["commandBytes, of which some letters need six", { argv: ["\u0001".repeat(6_000)] }],
    ["words", { argv: many(execLimits.words + 1) }],
    ["words of an environment", { environment: many(execLimits.words + 1) }],
    ["environmentBytes", { environment: [text(execLimits.environmentBytes + 1)] }],
    ["directoryBytes", { working_directory: "x".repeat(execLimits.directoryBytes + 1) }],
    ["time", { time_limit_ms: execLimits.time + 1 }],
    ["outputBytes", { output_limit: execLimits.outputBytes + 1 }],
  ])("more than %s is refused", (_limit, changed) => {
    expect(isFine({ ...most, ...changed })).toBe(false);
  });
});
