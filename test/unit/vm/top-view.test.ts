/** `hostler vm top`: rates between two looks, and what is shown of them on a screen. */
import { describe, expect, test } from "bun:test";
import { fitLines } from "../../../src/command-line/screen.ts";
import { renderTop, rowsOf, type Sample } from "../../../src/vm/commands/top-view.ts";
import type { VmMetrics, VmSummary } from "../../../src/vm/protocol.ts";

const summary: VmSummary = {
  ...{ name: "web", phase: "running", wanted: "running", reason: null, pid: 7, invocation: "i1" },
  ...{ address: null, mac: null, tap: null, hypervisor: "qemu", version: null, progress: null },
  ...{ accelerator: "tcg", processors: 1, memory_bytes: 1, uptime_ms: 1, restarts: 0 },
  ...{ image_hash: null, detached_ms: null, capture: null, health: null, cards: [], forwards: [] },
};
const used: VmMetrics = {
  ...{ name: "web", cpu_percent: null, cpu_seconds: 10, memory_bytes: 1024 ** 2, healthy: null },
  ...{ cgroup_memory_bytes: null, cpu_throttled_seconds: null, oom_kills: null, time: null },
  ...{ network_received_bytes: 0, network_sent_bytes: 100, disk_read_bytes: 0 },
  ...{ disk_written_bytes: null, cards: [] },
};

function sample(
  at: number,
  machines: readonly (Partial<VmSummary> & { readonly used?: Partial<VmMetrics> })[] = [{}],
): Sample {
  return {
    at,
    machines: machines.map(({ used: _used, ...change }) => ({ ...summary, ...change })),
    metrics: machines.map(({ used: change, name = "web" }) => ({ ...used, name, ...change })),
  };
}

describe("rates", () => {
  const later = { cpu_seconds: 12.5, network_received_bytes: 4096, network_sent_bytes: 100 };

  test("are of the time between two looks", () => {
    const [row] = rowsOf(sample(1_000), sample(3_000, [{ used: later }]));
    expect(row).toEqual({
      ...{ name: "web", phase: "running", health: null, cpu_percent: 125, memory_bytes: 1024 ** 2 },
      ...{ network_received_rate: 2048, network_sent_rate: 0, disk_read_rate: 0 },
      ...{ disk_written_rate: null },
    });
  });

  test.each<[string, Sample | undefined, Sample]>([
    ["the first look", undefined, sample(1)],
    ["two at the same time", sample(5), sample(5, [{ used: later }])],
    ["another process", sample(1), sample(2_000, [{ invocation: "i2", used: later }])],
    ["a machine that was not there", sample(1, []), sample(2_000)],
    ["counters that begin anew", sample(1), sample(9, [{ used: { cpu_seconds: 1 } }])],
  ])("are not known: %s", (_name, before, now) => {
    expect(rowsOf(before, now)[0]?.cpu_percent).toBeNull();
  });

  test("the busiest stands first, and names decide between equals", () => {
    const names = [{ name: "c" }, { name: "a" }, { name: "b" }];
    const now = names.map((one) => ({ ...one, used: { cpu_seconds: one.name === "b" ? 11 : 10 } }));
    const rows = rowsOf(sample(0, names), sample(1_000, now));
    expect(rows.map(({ name }) => name)).toEqual(["b", "a", "c"]);
  });
});

describe("what is shown", () => {
  test("is a line for all, and a line for each; nothing in it drives a terminal", () => {
    const check = { check: "agent", answered_ms: 1, probes: 1, failures: 1, reason: "\u001b[2J" };
    const health = {
      state: "unhealthy" as const,
      checks: [{ ...check, state: "unhealthy" as const }],
    };
    const lines = renderTop(sample(0), sample(1_000, [{ health, used: { cpu_seconds: 10.25 } }]));
    expect(lines[0]).toBe("1 machine, 1 running, 1 unhealthy, 25.0 % of a processor, 1 MiB");
    expect(lines[1]).toStartWith("NAME  CPU");
    expect(lines[2]).toMatch(/^web +25\.0 % +1 MiB +0 B\/s +0 B\/s +0 B\/s +- +unhealthy: agent: /);
    expect(lines.join("\n")).not.toContain("\u001b");
  });

  test("fits a screen, and says how much it leaves out", () => {
    const lines = ["abcdef", "ab", "界界界", "d"];
    expect(fitLines(lines, { columns: 5, rows: 4 })).toEqual(["abcde", "ab", "界界", "d"]);
    expect(fitLines(lines, { columns: 80, rows: 3 })).toEqual(["abcdef", "ab", "… and 2 more"]);
    expect(fitLines(lines, { columns: 3, rows: 1 })).toEqual(["… a"]);
    expect(fitLines(lines, { columns: 3, rows: 0 })).toEqual([]);
  });
});
