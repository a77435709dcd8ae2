/** iperf3 in place of our own bytes: its words, and what of its JSON is believed. */
import { describe, expect, test } from "bun:test";
import {
  decodeIperf3,
  iperf3ClientWords,
  iperf3ServerWords,
} from "../../../src/vetting/tools/iperf3.ts";
import { iperf3Error, iperf3Json } from "../../support/vetting/iperf3-output.ts";

const up = { direction: "up", seconds: 10 } as const;
const down = { direction: "down", seconds: 10 } as const;
const place = { host: "10.77.0.1", port: 5_201, card: "eth0" };

describe("the words", () => {
  test("of a client are tied to its card, and it asks for what comes back", () => {
    const words = iperf3ClientWords(up, place);
    for (const word of ["--client=10.77.0.1", "--port=5201", "--bind-dev=eth0", "--json"]) {
      expect(words).toContain(word);
    }
    expect(words).not.toContain("--reverse");
    expect(iperf3ClientWords(down, place)).toContain("--reverse");
  });

  test("of a client have whole seconds, one at least", () => {
    const timeOf = (seconds: number) =>
      iperf3ClientWords({ ...up, seconds }, place).find((word) => word.startsWith("--time"));
    expect([0.1, 2.5, 10].map(timeOf)).toEqual(["--time=1", "--time=3", "--time=10"]);
  });

  test("of a server: one test, and an end where nobody comes", () => {
    const words = iperf3ServerWords(5_201, "10.77.0.1");
    for (const word of ["--one-off", "--bind=10.77.0.1", "--idle-timeout=15"]) {
      expect(words).toContain(word);
    }
    expect(iperf3ServerWords(5_201, undefined).join(" ")).not.toContain("--bind");
  });
});

describe("JSON that is well", () => {
  test.each([up, down])("is what came, by the end that counted it: %o", (order) => {
    const output = JSON.stringify(iperf3Json({ direction: order.direction }));
    expect(decodeIperf3(order, output)).toEqual({
      ...{ kind: "flow", bytes: 1_098_514_432, seconds: 10.000822, version: "3.12" },
    });
  });

  test("nothing that came is nothing", () => {
    const output = JSON.stringify(iperf3Json({ direction: "up", bytes: 0, seconds: 0 }));
    expect(decodeIperf3(up, output)).toMatchObject({ kind: "flow", bytes: 0, seconds: 0 });
  });
});

describe("what is none is refused, with what was expected and received", () => {
  const spoiled = (change: (json: ReturnType<typeof iperf3Json>) => void) => {
    const json = iperf3Json({ direction: "up" });
    change(json);
    return JSON.stringify(json);
  };
  const received = (parts: object) => spoiled(({ end }) => Object.assign(end.sum_received, parts));
  const refused = "unable to connect to server: Connection refused";
  test.each<[string, string, RegExp]>([
    ["its own error", JSON.stringify(iperf3Error(refused)), /^unable to connect to server/],
    [
      "an error beside figures",
      spoiled((json) => Object.assign(json, { error: "the server has terminated" })),
      /^the server has terminated$/,
    ],
    ["nothing", "", /expected a JSON object, received nothing/],
    ["a sentence", "iperf3: parameter error", /received "iperf3: parameter error"/],
    ["an error that is none", JSON.stringify(iperf3Error(7 as never)), /in error, received 7/],
    ["no figures", spoiled((json) => Object.assign(json, { end: {} })), /end\.sum_received/],
    ["cut in the middle", spoiled(() => {}).slice(0, 300), /expected a JSON object/],
    ["bytes below 0", received({ bytes: -1 }), /end\.sum_received\.bytes/],
    ["bytes as text", received({ bytes: "1" }), /end\.sum_received\.bytes/],
    ["a part of a byte", received({ bytes: 0.5 }), /end\.sum_received\.bytes/],
    ["no time for bytes", received({ seconds: 0 }), /more than 0 and at most 25/],
    ["more time than there was", received({ seconds: 26 }), /at most 25 .*received 26/],
    [
      "the other direction",
      JSON.stringify(iperf3Json({ direction: "down" })),
      /expected 0 in .*, received 1/,
    ],
    [
      "no version",
      spoiled(({ start }) => Object.assign(start, { version: null })),
      /in start\.version/,
    ],
  ])("%s", (_name, output, reason) => {
    const answer = decodeIperf3(up, output);
    if (answer.kind !== "none") throw new Error("it was believed");
    expect(answer.reason).toMatch(reason);
  });

  test("an error that has no end is cut", () => {
    const answer = decodeIperf3(up, JSON.stringify(iperf3Error("x".repeat(10_000))));
    expect(answer).toEqual({ kind: "none", reason: "x".repeat(256) });
  });
});
