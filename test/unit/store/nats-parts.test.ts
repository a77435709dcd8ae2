/** What NATS is told and says: streams, acknowledgements, deliveries. */
import { describe, expect, test } from "bun:test";
import {
  configOf,
  differencesOf,
  filterOf,
  isFixed,
} from "../../../src/store/nats/bucket-stream.ts";
import { ReconnectWaits } from "../../../src/store/nats/connection-options.ts";
import {
  type DurabilityProof,
  isMonitoringAddress,
  judgeDurability,
  type StreamFacts,
} from "../../../src/store/nats/durability.ts";
import { deliveryOf } from "../../../src/store/nats/nats-watch.ts";
import { isServerAddress } from "../../../src/store/nats/server-address.ts";
import { bucket } from "../../support/embedded-store.ts";

describe("the stream of a bucket", () => {
  test("age, size and what may go", () => {
    const definition = bucket({ age: 60_000, size: 1_024, expendable: true, volatile: true });
    expect(configOf(definition, 3)).toMatchObject({
      name: "KV_facts",
      subjects: ["$KV.facts.>"],
      max_age: 60_000_000_000,
      max_bytes: 1_024,
      discard: "old",
      storage: "memory",
      num_replicas: 3,
      max_msgs_per_subject: 1,
    });
  });

  test("differences are told, and what the server leaves out is zero", () => {
    const wanted = configOf(bucket({}), 1);
    expect(differencesOf(wanted, { ...wanted })).toEqual([]);
    const { max_age: _left, allow_direct: _out, ...found } = wanted;
    expect(differencesOf(wanted, found)).toEqual([
      { name: "allow_direct", expected: "true", received: "false" },
    ]);
    const others = differencesOf(wanted, { ...wanted, storage: "memory", max_bytes: 1 });
    expect(others.map(({ name }) => name)).toEqual(["storage", "max_bytes"]);
    expect(others.map(isFixed)).toEqual([true, false]);
  });

  test("patterns", () => {
    expect(filterOf("facts", "")).toBe("$KV.facts.>");
    expect(filterOf("facts", "a.b")).toBe("$KV.facts.a.b");
    expect(filterOf("facts", "a.")).toBe("$KV.facts.a.>");
  });
});

describe("what an acknowledgement is worth", () => {
  const stream: StreamFacts = {
    bucket: "facts",
    volatile: false,
    replicas: 1,
    leader: undefined,
    persistence: undefined,
  };
  const server = { id: "S1", version: "2.10.0" };
  const monitored = { id: "S1", name: "one", syncsAlways: true };
  const monitoring: DurabilityProof = { kind: "monitoring", address: "http://127.0.0.1:8222" };
  const judge = (
    changes: Partial<StreamFacts>,
    proof: DurabilityProof,
    seen: Parameters<typeof judgeDurability>[2]["monitored"] = undefined,
  ) => {
    const judged = judgeDurability({ ...stream, ...changes }, proof, { server, monitored: seen });
    return "refusal" in judged ? "refused" : judged.acknowledgement;
  };

  const cases: readonly [string, string, string][] = [
    ["a volatile bucket", judge({ volatile: true }, { kind: "none" }), "memory"],
    ["three replicas", judge({ replicas: 3 }, { kind: "none" }), "replicated"],
    ["two replicas", judge({ replicas: 2 }, { kind: "none" }), "refused"],
    ["the operator's word", judge({}, { kind: "operator" }), "unknown"],
    ["nothing", judge({}, { kind: "none" }), "refused"],
    [
      "persist_mode async, whatever else",
      judge({ persistence: "async", replicas: 3 }, monitoring, monitored),
      "refused",
    ],
    ["the right monitoring", judge({}, monitoring, monitored), "fsync"],
    [
      "a server that does not sync",
      judge({}, monitoring, { ...monitored, syncsAlways: false }),
      "refused",
    ],
    ["the monitoring of another", judge({}, monitoring, { ...monitored, id: "S2" }), "refused"],
    ["no monitoring", judge({}, monitoring), "refused"],
    ["a cluster's leader", judge({ leader: "one" }, monitoring, monitored), "fsync"],
    ["a leader elsewhere", judge({ leader: "two" }, monitoring, monitored), "refused"],
  ];
  for (const [what, found, expected] of cases) {
    test(what, () => expect(found).toBe(expected));
  }

  test("monitoring is read over TLS, or on loopback", () => {
    const good = ["http://127.0.0.1:8222", "http://localhost:1", "http://[::1]:1", "https://a.b"];
    const bad = ["http://10.0.0.1:8222", "http://127.0.0.1.example", "ftp://127.0.0.1", ""];
    expect(good.filter(isMonitoringAddress)).toEqual(good);
    expect(bad.filter(isMonitoringAddress)).toEqual([]);
  });
});

test("a server is spoken to over TLS, or on loopback", () => {
  const good = ["tls://a.example:4222", "tls://10.0.0.1", "tls://[fe80::1]:4222", "localhost"];
  good.push("nats://127.0.0.1:4222", "tls://127.0.0.1:4222", "[::1]:4222", "nats://localhost/");
  const bad = ["nats://10.0.0.1:4222", "10.0.0.1:4222", "tls://", "tls://a b", "http://localhost"];
  bad.push("tls://a:70000", "nats://127.0.0.1:70000", "tls://user:word@a:4222", "tls://a/b", "");
  expect(good.filter(isServerAddress)).toEqual(good);
  expect(bad.filter(isServerAddress)).toEqual([]);
});

describe("a delivery", () => {
  const wanted = { revision: 12, number: 3, time: 1_700_000_000_123, pending: 4 };
  test("of a server alone, and of one with a domain", () => {
    const tail = "1.12.3.1700000000123456789.4";
    expect(deliveryOf(`$JS.ACK.KV_facts.name.${tail}`)).toEqual(wanted);
    expect(deliveryOf(`$JS.ACK.domain.hash.KV_facts.name.${tail}.x7`)).toEqual(wanted);
  });

  test("anything else is none", () => {
    for (const text of ["", "$JS.ACK.a.b", "_INBOX.x.1", "$JS.ACK.a.b.1.x.y.z.0"]) {
      expect(deliveryOf(text)).toBeUndefined();
    }
  });
});

describe("waits between attempts", () => {
  test("double from 50 ms to 5 s, vary by a fifth, and begin again when it stood", () => {
    const waits = new ReconnectWaits();
    waits.stood();
    for (const middle of [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]) {
      expect(Math.abs(waits.wait / middle - 1)).toBeLessThanOrEqual(0.2 + 1e-9);
      // Asked several times in an attempt, it says the same.
      expect(waits.wait).toBe(waits.wait);
      waits.attempt();
    }
    waits.stood();
    expect(waits.wait).toBeLessThanOrEqual(60);
  });
});
