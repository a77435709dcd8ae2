/** fio in place of our own pass: its words, and what of its JSON is believed. */
import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { passSchema } from "../../../src/vetting/tasks/disk.ts";
import { decodeFio, type FioOrder, fioWords } from "../../../src/vetting/tools/fio.ts";
import { fioJson, fioWay } from "../../support/vetting/fio-output.ts";

const MEBIBYTE = 1024 ** 2;
const order: FioOrder = {
  path: "/proc/7/fd/12",
  regions: [{ offset: 0, length: 8 * MEBIBYTE + 512 }],
  blockBytes: MEBIBYTE,
  depth: 4,
  way: "read",
};
const whole = { name: "region0", bytes: 8 * MEBIBYTE };
const rest = { name: "rest0", bytes: 512, runtime: 1 };
const good = () => fioJson([whole, rest]);

const decoded = (output: unknown, said = "", given: Partial<FioOrder> = {}) =>
  decodeFio({ ...order, ...given }, JSON.stringify(output), said);

function passOf(output: unknown, said = "", given: Partial<FioOrder> = {}) {
  const answer = decoded(output, said, given);
  if (answer.kind === "none") throw new Error(answer.reason);
  expect(v.is(passSchema, answer.pass)).toBe(true);
  return answer;
}

const saidOf = (offset: number, length = MEBIBYTE) =>
  "pattern: verify failed at file /proc/7/fd/12 offset 4244519156, length 2003173700 " +
  `(requested block: offset=${offset}, length=${length}, flags=8)\n`;

describe("the words", () => {
  test("a job for whole blocks of each region, and one for what is left of it", () => {
    const words = fioWords({
      ...order,
      regions: [
        { offset: 0, length: 2 * MEBIBYTE },
        { offset: 8 * MEBIBYTE, length: MEBIBYTE + 512 },
        { offset: 16 * MEBIBYTE, length: 512 },
      ],
    });
    const jobs = words.slice(words.indexOf("--name=region0")).join(" ");
    expect(jobs).toBe(
      [
        "--name=region0 --stonewall --bs=1048576 --offset=0 --size=2097152",
        "--name=region1 --stonewall --bs=1048576 --offset=8388608 --size=1048576",
        "--name=rest1 --stonewall --bs=512 --offset=9437184 --size=512",
        "--name=rest2 --stonewall --bs=512 --offset=16777216 --size=512",
      ].join(" "),
    );
  });

  test("past the page cache, with our depth; who reads may not write", () => {
    const words = fioWords(order);
    for (const word of ["--direct=1", "--iodepth=4", "--rw=read", "--readonly"]) {
      expect(words).toContain(word);
    }
    expect(words.join(" ")).not.toContain("verify");
    expect(fioWords({ ...order, way: "write" })).not.toContain("--readonly");
  });

  test("what is compared has the run's nonce and the block's offset in it, once a block", () => {
    const words = fioWords({ ...order, pattern: Uint8Array.of(0xab, 1, 255) });
    expect(words).toContain("--verify_pattern=0xab01ff%o");
    expect(words.join(" ")).not.toContain("verify_interval");
  });
});

describe("JSON that is well", () => {
  test("is a pass, in our units", () => {
    expect(passOf(good())).toEqual({
      kind: "pass",
      pass: {
        planned_bytes: 8 * MEBIBYTE + 512,
        done_bytes: 8 * MEBIBYTE + 512,
        duration_ms: 31,
        slowest_ms: 2.349133,
        slowest_offset: null,
        latency_ms: { p50: 0.428032, p90: 1.342912, p99: 2.042912, p999: 2.342912 },
        failed: { count: 0, bytes: 0, ranges: [] },
      },
      miscompared: 0,
      unplaced: 0,
      version: "3.33",
    });
  });

  test("after words, as where it was told to end; what it came to is less", () => {
    const text = JSON.stringify(
      fioJson([
        { ...whole, bytes: MEBIBYTE },
        { ...rest, bytes: 0 },
      ]),
    );
    const answer = decodeFio(order, `\nfio: terminating on signal 2\n${text}\n`, "");
    expect(answer).toMatchObject({
      kind: "pass",
      pass: { planned_bytes: 8 * MEBIBYTE + 512, done_bytes: MEBIBYTE, failed: { count: 0 } },
    });
  });

  test("with errors: each is counted as a block, and nobody tells where", () => {
    const bad = { ...whole, bytes: 6 * MEBIBYTE, error: 5, total_err: 2, first_error: 5 };
    const { pass, unplaced, miscompared } = passOf(fioJson([bad, rest]));
    expect(pass.failed).toEqual({ count: 2, bytes: 2 * MEBIBYTE, ranges: [] });
    expect(pass.done_bytes).toBe(6 * MEBIBYTE + 512);
    expect([unplaced, miscompared]).toEqual([5, 0]);
  });

  test("an error that it did not count is one all the same", () => {
    const { pass } = passOf(fioJson([{ ...whole, error: 61, total_err: 0 }, rest]));
    expect(pass.failed.count).toBe(1);
  });

  test("blocks with other bytes have their places, and are not among those that are done", () => {
    const bad = { ...whole, error: 84, total_err: 2, first_error: 84 };
    const said = `${saidOf(5 * MEBIBYTE)}${saidOf(MEBIBYTE)}`;
    const { pass, miscompared, unplaced } = passOf(fioJson([bad, rest]), said);
    expect(pass.failed).toMatchObject({ count: 2, bytes: 2 * MEBIBYTE });
    expect(pass.failed.ranges.map(({ offset }) => offset)).toEqual([MEBIBYTE, 5 * MEBIBYTE]);
    expect(pass.done_bytes).toBe(6 * MEBIBYTE + 512);
    expect([miscompared, unplaced]).toEqual([2, 0]);
  });

  test("blocks with other bytes of which nobody tells the place are found all the same", () => {
    const bad = { ...whole, error: 84, total_err: 2, first_error: 84 };
    const { pass, miscompared } = passOf(fioJson([bad, rest]));
    expect(pass.failed).toMatchObject({ count: 2, ranges: [] });
    expect(miscompared).toBe(1);
    expect(pass.done_bytes).toBeLessThan(8 * MEBIBYTE);
  });

  test("blocks that it tells and does not count are counted, but none beyond the disk", () => {
    const { pass } = passOf(good(), `${saidOf(0)}${saidOf(99 * MEBIBYTE)}${saidOf(0, 0)}`);
    expect(pass.failed.ranges.map(({ offset }) => offset)).toEqual([0]);
    expect(pass.failed.count).toBe(1);
  });

  test("more places than are told: 64, and all are counted", () => {
    const regions = [{ offset: 0, length: 100 * MEBIBYTE }];
    const said = Array.from({ length: 70 }, (_, index) => saidOf(index * MEBIBYTE)).join("");
    const job = { name: "region0", bytes: 100 * MEBIBYTE, error: 84, total_err: 70 };
    const { pass } = passOf(fioJson([{ ...job, first_error: 84 }]), said, { regions });
    expect(pass.failed.ranges).toHaveLength(64);
    expect(pass.failed.count).toBe(70);
  });

  test("of several regions the greatest percentile stands for all", () => {
    const regions = [0, 8].map((at) => ({ offset: at * MEBIBYTE, length: MEBIBYTE }));
    const json = fioJson([
      { name: "region0", bytes: MEBIBYTE },
      { name: "region1", bytes: MEBIBYTE },
    ]);
    const slow = {
      ...fioWay(MEBIBYTE, 30),
      lat_ns: { max: 9e6, percentile: { "50.000000": 8e6 } },
    };
    Object.assign(json.jobs[1] ?? {}, { read: slow });
    const { latency_ms, slowest_ms } = passOf(json, "", { regions }).pass;
    expect([latency_ms.p50, latency_ms.p99, slowest_ms]).toEqual([8, 2.042912, 9]);
  });

  test("a percentile that is above the slowest is the slowest", () => {
    const json = good();
    const lat_ns = { max: 9e6, percentile: { "50.000000": 9.1e6 } };
    Object.assign(json.jobs[0] ?? {}, { read: { ...fioWay(MEBIBYTE, 30), lat_ns } });
    const { latency_ms, slowest_ms } = passOf(json).pass;
    expect([latency_ms.p50, slowest_ms]).toEqual([9, 9]);
  });
});

describe("JSON that is none of it is refused, with what was expected and received", () => {
  const spoiled = (change: (json: ReturnType<typeof good>) => void) => {
    const json = good();
    change(json);
    return JSON.stringify(json);
  };
  const job = (change: object) => spoiled(({ jobs }) => Object.assign(jobs[0] ?? {}, change));
  test.each<[string, string, RegExp]>([
    ["nothing", "", /expected a JSON object, received nothing/],
    ["a sentence", "fio: unrecognized option", /received "fio: unrecognized option"/],
    ["a list", "[]", /expected a value in fio version, received undefined/],
    ["cut in the middle", spoiled(() => {}).slice(0, 400), /expected a JSON object, received/],
    ["no jobs", spoiled((json) => Object.assign(json, { jobs: [] })), /2 jobs, received 0/],
    ["jobs of another", job({ jobname: "evil" }), /the job region0, received "evil"/],
    ["more bytes than were asked for", job({ read: fioWay(9 * MEBIBYTE, 1) }), /at most 8388608/],
    ["a write that nobody asked for", job({ write: fioWay(512, 1) }), /no write, received 512/],
    ["bytes as text", job({ read: { ...fioWay(1, 1), io_bytes: "1" } }), /in jobs\.0\.read\.io_b/],
    ["bytes below 0", job({ read: fioWay(-1, 1) }), /in jobs\.0\.read\.io_bytes/],
    ["bytes beyond numbers", job({ read: fioWay(1e300, 1) }), /in jobs\.0\.read\.io_bytes/],
    ["no latency", job({ read: { io_bytes: 1, runtime: 1 } }), /in jobs\.0\.read\.lat_ns/],
    [
      "a latency below 0",
      job({ read: { ...fioWay(1, 1), lat_ns: { max: -1 } } }),
      /in jobs\.0\.read\.lat_ns\.max/,
    ],
    ["errors below 0", job({ total_err: -1 }), /in jobs\.0\.total_err/],
    ["no version", spoiled((json) => Object.assign(json, { "fio version": 3 })), /fio version/],
  ])("%s", (_name, output, reason) => {
    const answer = decodeFio(order, output, "");
    if (answer.kind !== "none") throw new Error("it was believed");
    expect(answer.reason).toMatch(reason);
    expect(answer.reason.length).toBeLessThan(700);
  });
});
