/** Going over a disk: what is counted, what fails, how closely it is looked at. */
import { describe, expect, test } from "bun:test";
import {
  DiskPass,
  type PassOptions,
  passLimits,
} from "../../../src/vetting/perform/disks/disk-pass.ts";
import { type FakeDiskOptions, FakeQueue } from "../../support/vetting/fake-queue.ts";

const BLOCK = 64 * 1024;
const SIZE = 16 * BLOCK;

interface Going extends Partial<FakeDiskOptions> {
  readonly pass?: Partial<PassOptions>;
}

async function goOver({ pass: given = {}, ...disk }: Going = {}) {
  const size = disk.size ?? SIZE;
  const queue = new FakeQueue({ size, depth: 4, blockBytes: BLOCK, ...disk });
  const progress: number[] = [];
  const pass = new DiskPass({
    queue,
    regions: [{ offset: 0, length: size }],
    blockBytes: BLOCK,
    logicalBlock: 512,
    way: "read",
    now: () => queue.clock,
    signal: new AbortController().signal,
    until: Number.POSITIVE_INFINITY,
    onProgress: (bytes) => progress.push(bytes),
    ...given,
  });
  return { report: await pass.run(), pass, queue, progress };
}

describe("a disk that is well", () => {
  test("each of its bytes once, as many blocks at a time as were asked for", async () => {
    const { report, queue, progress } = await goOver();
    expect(report).toMatchObject({
      planned_bytes: SIZE,
      done_bytes: SIZE,
      failed: { count: 0, bytes: 0, ranges: [] },
    });
    expect(queue.mostUnderWay).toBe(4);
    const offsets = queue.transfers.map(({ offset }) => offset).sort((one, two) => one - two);
    expect(offsets).toEqual(Array.from({ length: 16 }, (_, index) => index * BLOCK));
    expect(progress.at(-1)).toBe(SIZE);
  });

  test("a last block that is shorter", async () => {
    const { report, queue } = await goOver({ size: SIZE + 512 });
    expect(report.done_bytes).toBe(SIZE + 512);
    expect(queue.transfers.map(({ length }) => length)).toContain(512);
  });

  test("regions alone", async () => {
    const regions = [
      { offset: BLOCK, length: 2 * BLOCK },
      { offset: 8 * BLOCK, length: 512 },
    ];
    const { report, queue } = await goOver({ pass: { regions } });
    expect(report).toMatchObject({ planned_bytes: 2 * BLOCK + 512, done_bytes: 2 * BLOCK + 512 });
    expect(queue.transfers.map(({ offset }) => offset)).toEqual([BLOCK, 2 * BLOCK, 8 * BLOCK]);
  });

  test("nothing to do", async () => {
    const { report } = await goOver({ pass: { regions: [] } });
    expect(report).toMatchObject({ planned_bytes: 0, done_bytes: 0, slowest_ms: 0 });
  });

  test("the slowest read has its place, and percentiles are at most 5 % too high", async () => {
    const takes = ({ offset }: { offset: number }) => (offset === 5 * BLOCK ? 900 : 10);
    const { report } = await goOver({ depth: 1, takes });
    expect(report).toMatchObject({ slowest_ms: 900, slowest_offset: 5 * BLOCK });
    expect(report.latency_ms.p50).toBeGreaterThanOrEqual(10);
    expect(report.latency_ms.p50).toBeLessThan(10.5);
    expect(report.latency_ms.p999).toBe(900);
    expect(report.duration_ms).toBe(15 * 10 + 900);
  });
});

describe("what fails is bounded", () => {
  test("to the logical block", async () => {
    const { report } = await goOver({ bad: [[3 * BLOCK + 1_024, 512]] });
    expect(report.failed).toEqual({
      count: 1,
      bytes: 512,
      ranges: [{ offset: 3 * BLOCK + 1_024, length: 512, reason: "EIO" }],
    });
    expect(report.done_bytes).toBe(SIZE - 512);
  });

  test("to a logical block of 4096", async () => {
    const { report } = await goOver({
      bad: [[3 * BLOCK + 1_024, 512]],
      pass: { logicalBlock: 4_096 },
    });
    expect(report.failed.ranges).toEqual([{ offset: 3 * BLOCK, length: 4_096, reason: "EIO" }]);
  });

  test("what lies side by side over two blocks is one range", async () => {
    const { report } = await goOver({ bad: [[4 * BLOCK - 512, 1_024]] });
    expect(report.failed).toMatchObject({
      count: 1,
      ranges: [{ offset: 4 * BLOCK - 512, length: 1_024 }],
    });
  });

  test("several places, in their order", async () => {
    const bad = [9, 2, 7].map((block) => [block * BLOCK, 512] as const);
    const { report } = await goOver({ bad });
    expect(report.failed.ranges.map(({ offset }) => offset)).toEqual([
      2 * BLOCK,
      7 * BLOCK,
      9 * BLOCK,
    ]);
    expect(report.failed.bytes).toBe(3 * 512);
  });

  test("a whole block is looked at so many times and no more, and counts as a whole", async () => {
    const { report, queue } = await goOver({ bad: [[BLOCK, BLOCK]] });
    expect(report.failed).toMatchObject({
      count: 1,
      bytes: BLOCK,
      ranges: [{ offset: BLOCK, length: BLOCK }],
    });
    expect(queue.transfers.length).toBeLessThanOrEqual(16 + passLimits.closerLooks);
  });

  test("more ranges than are told are counted", async () => {
    const bad = Array.from({ length: 100 }, (_, index) => [index * 1_024, 512] as const);
    const { report } = await goOver({ bad, pass: { blockBytes: 1_024 } });
    expect(report.failed.count).toBe(100);
    expect(report.failed.bytes).toBe(100 * 512);
    expect(report.failed.ranges).toHaveLength(64);
    expect(report.failed.ranges[0]?.offset).toBe(0);
  });

  test("a disk of which nothing can be read is given up", async () => {
    const size = 1_024 * BLOCK;
    const { report, queue } = await goOver({ size, bad: [[0, size]] });
    const blocks = passLimits.failedInRow + 4;
    expect(report.failed.bytes).toBeLessThanOrEqual(blocks * BLOCK);
    expect(report.done_bytes).toBe(0);
    expect(queue.transfers.length).toBeLessThanOrEqual(
      blocks + passLimits.closerLooksInAll + passLimits.closerLooks,
    );
  });

  test("a disk that goes is not asked again", async () => {
    const { report, queue } = await goOver({ goneAfter: 8 });
    expect(report.failed.ranges.every(({ reason }) => reason === "ENODEV")).toBe(true);
    expect(report.done_bytes).toBeLessThan(9 * BLOCK);
    // What was under way, and nothing after that.
    expect(queue.transfers.length).toBeLessThanOrEqual(8 + 4 + 1);
  });

  test("a write that fails is tried in parts that have their own bytes", async () => {
    const filled: number[] = [];
    const { report, queue } = await goOver({
      bad: [[BLOCK, 512]],
      pass: {
        way: "write",
        fill: (memory, offset) => {
          filled.push(offset);
          memory.fill((offset / 512) % 251);
        },
      },
    });
    expect(report.failed.ranges).toEqual([{ offset: BLOCK, length: 512, reason: "EIO" }]);
    expect(filled).toContain(BLOCK + 512);
    expect(queue.bytes[BLOCK + 512]).toBe(((BLOCK + 512) / 512) % 251);
    expect(queue.bytes[0]).toBe(0);
  });
});

describe("its end", () => {
  test("the time is over: what it came to is told", async () => {
    const { report, pass } = await goOver({ pass: { until: 5 } });
    expect(report.done_bytes).toBeGreaterThan(0);
    expect(report.done_bytes).toBeLessThan(SIZE);
    expect(report.failed.count).toBe(0);
    expect(pass.reached).toBe(report.done_bytes);
  });

  test("a signal before it begins", async () => {
    const { report, queue } = await goOver({ pass: { signal: AbortSignal.abort() } });
    expect(report.done_bytes).toBe(0);
    expect(queue.transfers).toEqual([]);
  });

  test("a signal in the middle is heard, because it lets others have their turn", async () => {
    const ending = new AbortController();
    const { report } = await goOver({
      size: 1_000 * BLOCK,
      takes: () => 60,
      pass: {
        signal: ending.signal,
        onProgress: (bytes) => {
          if (bytes > 0) ending.abort();
        },
      },
    });
    expect(report.done_bytes).toBeLessThan(100 * BLOCK);
  });
});

test("what an examination finds fails, and is not covered", async () => {
  const { report, pass } = await goOver({
    pass: {
      examine: (_memory, offset) =>
        offset === BLOCK ? [{ offset: offset + 512, length: 512, reason: "other bytes" }] : [],
    },
  });
  expect(pass.miscompared).toBe(1);
  expect(report.done_bytes).toBe(SIZE - 512);
  expect(report.failed.ranges).toEqual([
    { offset: BLOCK + 512, length: 512, reason: "other bytes" },
  ]);
});
