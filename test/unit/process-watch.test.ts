/** What `process list --watch` shows of two looks, and what it calls a change. */
import { describe, expect, test } from "bun:test";
import {
  changesOf,
  changeText,
  lastError,
  processorPercents,
  renderWatch,
} from "../../src/process/commands/watch-view.ts";
import type { ProcessSummary } from "../../src/process/protocol.ts";

const summary = (change: Partial<ProcessSummary> = {}): ProcessSummary => ({
  name: "it",
  partition: null,
  phase: "ready",
  pid: 7,
  restarts: 0,
  refused_starts: 0,
  last_exit: null,
  uptime_ms: 1_500,
  invocation: "i1",
  reason: null,
  usage: { cpu_seconds: 1, memory_bytes: 4 * 1024 * 1024 },
  ...change,
});
const look = (at: number, ...processes: ProcessSummary[]) => ({ at, processes });
const used = (seconds: number) => ({ cpu_seconds: seconds, memory_bytes: 0 });

describe("shares of a processor", () => {
  const before = look(1_000, summary());

  test("are of the time between two looks", () => {
    expect(processorPercents(before, look(3_000, summary({ usage: used(1.5) })))).toEqual([25]);
  });

  test.each([
    ["of another instance", summary({ invocation: "i2", usage: used(9) }), before],
    ["without a look before", summary(), undefined],
    ["at the same time", summary({ usage: used(2) }), look(3_000, summary())],
    ["where nobody can tell", summary({ usage: null }), before],
    ["that went back", summary({ usage: used(0.5) }), before],
    ["of one that is new", summary({ name: "other" }), before],
  ])("are not told: %s", (_title, process, earlier) => {
    expect(processorPercents(earlier, look(3_000, process))).toEqual([null]);
  });
});

test("the last error: why it does not run, or how it ended unless that was well", () => {
  const signalled = { kind: "signalled", signal: 9, core_dumped: false } as const;
  expect(lastError(summary())).toBe("");
  expect(lastError(summary({ last_exit: { kind: "exited", status: 0 } }))).toBe("");
  expect(lastError(summary({ last_exit: signalled }))).toBe("SIGKILL");
  expect(lastError(summary({ last_exit: signalled, reason: "no such file" }))).toBe("no such file");
});

test("a table, in the order of the configuration; nothing in it drives the terminal", () => {
  const down = summary({
    ...{ name: "down", phase: "failed", pid: null, usage: null, uptime_ms: null },
    reason: "no\u001b[2J program",
  });
  const before = look(1_000, summary(), down);
  const now = look(2_000, summary({ usage: { cpu_seconds: 1.123, memory_bytes: 1024 } }), down);
  expect(renderWatch(before, now)).toEqual([
    "2 processes, 1 ready, 1 failed, 12.3 % of a processor, 1 KiB",
    "NAME  PHASE   PID  RESTARTS  CPU     MEMORY  UPTIME  LAST ERROR",
    "it    ready   7    0         12.3 %  1 KiB   1.00 s",
    expect.stringMatching(/^down {2}failed {2}- {4}0 {9}- {7}- {7}- {7}no\S+ program$/),
  ]);
  expect(renderWatch(before, now).join("")).not.toContain("\u001b");
});

describe("a change", () => {
  test("is of what is said, and not of time and use", () => {
    const before = [summary(), summary({ name: "other" })];
    const later = { uptime_ms: 9_000, usage: null };
    expect(changesOf(before, [summary(later), summary({ name: "other", ...later })])).toEqual([]);
    const restarted = summary({ restarts: 1, pid: 8 });
    expect(changesOf(before, [restarted, summary({ name: "other" })])).toEqual([restarted]);
    expect(changesOf(undefined, before)).toEqual(before);
  });

  test("is one line", () => {
    const ending = { kind: "exited", status: 3 } as const;
    const process = summary({ restarts: 1, refused_starts: 2, last_exit: ending });
    expect(changeText("12:00", process)).toBe(
      "12:00 it ready, process 7; 1 restart; 2 refused; last exit exit 3\n",
    );
    expect(changeText("12:00", summary())).toBe("12:00 it ready, process 7; 0 restarts\n");
  });
});
