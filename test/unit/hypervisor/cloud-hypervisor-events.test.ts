/** The event monitor of cloud-hypervisor, in whatever pieces it comes. */
import { describe, expect, test } from "bun:test";
import {
  EventParser,
  meaningOf,
  type Parsed,
} from "../../../src/hypervisor/cloud-hypervisor/events.ts";

const LIMIT = 65_536;
const bytesOf = (text: string) => new TextEncoder().encode(text);

/** As event_monitor/src/lib.rs writes one. */
const written = (source: string, event: string, properties: unknown = null) => {
  const timestamp = { secs: 1, nanos: 250_000 };
  return `${JSON.stringify({ timestamp, source, event, properties }, null, 2)}\n\n`;
};
const two = written("vm", "booted") + written("virtio-device", "activated", { id: "ö}\n{" });
const expected: Parsed[] = [
  { kind: "event", event: { source: "vm", event: "booted", properties: {} } },
  {
    kind: "event",
    event: { source: "virtio-device", event: "activated", properties: { id: "ö}\n{" } },
  },
];

function parse(pieces: readonly Uint8Array[], limit = LIMIT): Parsed[] {
  const parser = new EventParser(limit);
  return pieces.flatMap((piece) => parser.push(piece));
}
const kinds = (parsed: readonly Parsed[]) =>
  parsed.map((one) => (one.kind === "event" ? one.event.event : one.kind));

describe("events", () => {
  test("are the same wherever they are divided, once and twice", () => {
    const bytes = bytesOf(two);
    for (let first = 0; first <= bytes.length; first += 1) {
      for (const second of [first, Math.min(first + 7, bytes.length)]) {
        const pieces = [
          bytes.subarray(0, first),
          bytes.subarray(first, second),
          bytes.subarray(second),
        ];
        expect(parse(pieces)).toEqual(expected);
      }
    }
    expect(parse([...bytes].map((byte) => Uint8Array.of(byte)))).toEqual(expected);
  });

  test("may stand in one line", () => {
    const line = '{"source":"vm","event":"paused"}\n';
    expect(kinds(parse([bytesOf(line)]))).toEqual(["paused"]);
  });

  test("cut off anywhere cost at most the one after", () => {
    const first = written("vm", "paused");
    const rest = written("vm", "resumed") + written("vm", "shutdown");
    for (let cut = 1; cut < first.length - 3; cut += 1) {
      const told = kinds(parse([bytesOf(first.slice(0, cut)), bytesOf(rest)]));
      expect(told.at(-1)).toBe("shutdown");
      expect(told).toContain("garbage");
    }
  });

  test("of a wrong kind are garbage, and the next one is heard", () => {
    const wrong = ["rubbish\n", '{\n"source": 1\n}\n', "{\n}\n", "}\n", '{"source":"vm"}\n'];
    for (const text of wrong) {
      const told = parse([bytesOf(text + written("vm", "booted"))]);
      expect(kinds(told)).toEqual(["garbage", "booted"]);
      expect(told[0]).toMatchObject({ reason: expect.stringMatching(/expected/) });
    }
  });

  test("longer than the limit are garbage, however they come, and nothing of them is kept", () => {
    const long = written("vm", "x".repeat(500));
    for (const limit of [200, 499]) {
      for (const size of [1, 64, long.length]) {
        const parser = new EventParser(limit);
        const told: Parsed[] = [];
        const bytes = bytesOf(long);
        for (let at = 0; at < bytes.length; at += size) {
          told.push(...parser.push(bytes.subarray(at, at + size)));
          expect(parser.pending).toBeLessThanOrEqual(limit);
        }
        told.push(...parser.push(bytesOf(written("vm", "booted"))));
        expect(kinds(told)).not.toContain("x".repeat(500));
        expect(kinds(told).at(-1)).toBe("booted");
        const [first] = told;
        expect(first).toMatchObject({
          reason: `expected an event of at most ${limit} bytes, received a longer one`,
        });
      }
    }
  });
});

describe("what an event means", () => {
  const meanings = [
    ["vm/booted", "booted"],
    ["vm/paused", "paused"],
    ["vm/resumed", "resumed"],
    ["vm/rebooted", "guest-reset"],
    ["vm/shutdown", "guest-off"],
    ["guest/panic", "guest-panic"],
    ["vm/booting", undefined],
    ["vmm/shutdown", undefined],
    ["vm/migration-failed", undefined],
  ] as const;

  test.each(meanings)("%s", (name, kind) => {
    const [source = "", event = ""] = name.split("/");
    const meaning = meaningOf({ source, event, properties: {} }, { isEnding: false });
    expect(meaning?.kind).toBe(kind as never);
  });

  test("the host switched it off where the VMM was told to end", () => {
    const event = { source: "vm", event: "shutdown", properties: {} };
    expect(meaningOf(event, { isEnding: true })).toEqual({ kind: "guest-off", by: "host" });
    expect(meaningOf(event, { isEnding: false })).toEqual({ kind: "guest-off", by: "guest" });
  });
});
