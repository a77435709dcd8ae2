import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import * as v from "valibot";
import { readingSchema } from "../../../src/hardware/samples.ts";
import { sampleTask } from "../../../src/vetting/perform/tasks/sample.ts";
import type { TaskLine } from "../../../src/vetting/protocol-task.ts";
import { fixtureHost, healthyHost } from "../../support/hardware/fixture-host.ts";
import { feature, skipUnless } from "../../support/skips.ts";
import { waitFor, withDeadline } from "../../support/wait-for.ts";

/** Runs the task until a line satisfies. */
async function sampleUntil(input: unknown, isEnough: (lines: readonly TaskLine[]) => boolean) {
  const lines: TaskLine[] = [];
  const end = new AbortController();
  const report = sampleTask.run(v.parse(sampleTask.input, input), {
    signal: end.signal,
    tell: (line) => lines.push(line),
    onQuestion: () => undefined,
  });
  await waitFor("enough lines", () => isEnough(lines));
  end.abort();
  return { lines, report: await withDeadline("its report", Promise.resolve(report)) };
}

test("the sampler reads until it is told to end", async () => {
  using host = fixtureHost(healthyHost);
  const { lines, report } = await sampleUntil(
    { root: host.root, every_ms: 10 },
    (all) => all.length >= 3,
  );
  const readings = lines.flatMap((line) => (line.kind === "reading" ? [line.reading] : []));
  expect(readings).toHaveLength(lines.length);
  for (const reading of readings) v.parse(readingSchema, reading);
  const times = readings.map(({ at }) => at);
  expect([...times].sort((one, other) => one - other)).toEqual(times);
  expect(report).toEqual({ readings: readings.length, kernel_lines: 0 });
});

test("the sampler that is told to end before it began reads once", async () => {
  using host = fixtureHost();
  const end = AbortSignal.abort();
  const input = v.parse(sampleTask.input, { root: host.root, every_ms: 1_000 });
  const context = { signal: end, tell: () => undefined, onQuestion: () => undefined };
  const report = await sampleTask.run(input, context);
  expect(report).toEqual({ readings: 1, kernel_lines: 0 });
});

test("the sampler that is asked reads at once, and says what it answers", async () => {
  using host = fixtureHost(healthyHost);
  const end = new AbortController();
  const lines: TaskLine[] = [];
  const input = v.parse(sampleTask.input, { root: host.root, every_ms: 3_600_000 });
  const report = sampleTask.run(input, {
    signal: end.signal,
    tell: (line) => lines.push(line),
    onQuestion: (listener) => {
      listener(1);
      listener(7);
    },
  });
  end.abort();
  expect(await withDeadline("its report", Promise.resolve(report))).toMatchObject({ readings: 3 });
  const answers = lines.map((line) => (line.kind === "reading" ? line.answers : line.kind));
  expect(answers).toEqual([undefined, 1, 7]);
});

const kernelLog = feature("no kernel's log here", () => existsSync("/dev/kmsg"));

skipUnless("the kernel's log", [kernelLog], () => {
  test("is told line by line, each once, and not again to who knows it", async () => {
    const input = { every_ms: 60_000 };
    const isKernel = (line: TaskLine) => line.kind === "kernel";
    const { lines } = await sampleUntil(input, (all) => all.filter(isKernel).length > 2);
    const sequences = lines.flatMap((line) => (line.kind === "kernel" ? [line.line.sequence] : []));
    expect([...new Set(sequences)].sort((one, other) => one - other)).toEqual(sequences);
    const after = (sequences.at(-1) ?? 0) - 1;
    const again = await sampleUntil({ ...input, kernel_after: after }, (all) => all.some(isKernel));
    const first = again.lines.find(isKernel);
    expect(first?.kind === "kernel" && first.line.sequence > after).toBe(true);
  });
});
