/** What a machine may ask, what is answered here, and whom we ask. */
import { describe, expect, test } from "bun:test";
import { rmSync, writeFileSync } from "node:fs";
import { LONGEST_NAME, LOOK_AGAIN_AFTER, MOST_DOMAINS } from "../../../src/network/dns/limits.ts";
import { recordTypes } from "../../../src/network/dns/message.ts";
import { addressOfReverse, parsePattern, reverseName } from "../../../src/network/dns/name.ts";
import {
  type DnsPolicy,
  isNeverAllowed,
  judge,
  policyOf,
} from "../../../src/network/dns/policy.ts";
import { ipv6Bytes, parseResolverFile, ResolverFile } from "../../../src/network/dns/upstream.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

const zone = {
  domain: "vm.internal",
  serverAddress: "10.100.0.1",
  prefixLength: 16,
  names: new Map([["web", "10.100.0.7"]]),
};

function listOf(...domains: readonly string[]): DnsPolicy {
  const made = policyOf(domains);
  if (!made.ok) throw new Error(made.reason);
  return made.policy;
}

const everything: DnsPolicy = { kind: "everything" };

function verdict(name: string, policy: DnsPolicy, type: number = recordTypes.A): string {
  const { kind, ...rest } = judge({ name, type }, policy, zone);
  if (kind === "forward") return "tell" in rest && rest.tell ? "forward, tell" : "forward";
  const { answer } = rest as Extract<ReturnType<typeof judge>, { kind: "answer" }>;
  const data = answer.answers?.map((record) => record.data.toHex()).join() ?? "";
  const parts = [answer.code, answer.extendedError, data === "" ? undefined : data];
  return parts.filter((part) => part !== undefined).join(" ");
}

describe("a list of domains", () => {
  const policy = listOf("example.org", "*.cdn.test", "Upper.Example.");

  test.each([
    ["example.org", "forward, tell"],
    ["www.example.org", "noSuchName blocked"],
    ["notexample.org", "noSuchName blocked"],
    ["a.cdn.test", "forward, tell"],
    ["a.b.cdn.test", "forward, tell"],
    ["cdn.test", "noSuchName blocked"],
    ["evilcdn.test", "noSuchName blocked"],
    ["upper.example", "forward, tell"],
    ["example\\046org", "noSuchName blocked"],
    ["example.org.evil.test", "noSuchName blocked"],
    ["", "noSuchName blocked"],
    ["4.3.2.1.in-addr.arpa", "noSuchName blocked"],
  ])("%s: %s", (name, expected) => expect(verdict(name, policy)).toBe(expected));

  test("types that say addresses elsewhere are empty, and ANY is not asked", () => {
    expect(verdict("example.org", policy, recordTypes.HTTPS)).toBe("noError blocked");
    expect(verdict("example.org", policy, recordTypes.SVCB)).toBe("noError blocked");
    expect(verdict("example.org", policy, recordTypes.ANY)).toBe("notImplemented");
    expect(verdict("example.org", policy, recordTypes.AAAA)).toBe("forward, tell");
  });

  test("an empty one lets nothing through", () => {
    expect(verdict("example.org", listOf())).toBe("noSuchName blocked");
  });

  test("everything is everything, and nothing is told", () => {
    expect(verdict("example.org", everything)).toBe("forward");
    expect(verdict("example.org", everything, recordTypes.HTTPS)).toBe("forward");
    expect(verdict("4.3.2.1.in-addr.arpa", everything)).toBe("forward");
  });

  test.each(["", "*", "*.", "**.org", "a.*.org", "exa mple.org", "-a.org", "é.org", "a..org"])(
    "refused as a domain: %p",
    (text) => {
      expect(parsePattern(text)).toBeUndefined();
      expect(policyOf([text])).toMatchObject({ ok: false });
    },
  );

  test("limits", () => {
    expect(parsePattern(`${"a".repeat(63)}.org`)).toBeDefined();
    expect(parsePattern(`${"a".repeat(64)}.org`)).toBeUndefined();
    const most = LONGEST_NAME - 2;
    const long = "a.".repeat(126);
    expect(parsePattern(`${long}b`)?.name).toHaveLength(most);
    expect(parsePattern(`${long}bb`)).toBeUndefined();
    const domains = Array.from({ length: MOST_DOMAINS }, (_, index) => `d${index}.test`);
    expect(policyOf(domains).ok).toBe(true);
    expect(policyOf([...domains, "one.more"])).toEqual({
      ok: false,
      reason: "Expected at most 1024 domains, received 1025",
    });
  });
});

describe("own names", () => {
  for (const [kind, policy] of Object.entries({ everything, "an empty list": listOf() })) {
    test(`are answered here, for ${kind}`, () => {
      expect(verdict("web.vm.internal", policy)).toBe("noError 0a640007");
      expect(verdict("web.vm.internal", policy, recordTypes.AAAA)).toBe("noError");
      expect(verdict("other.vm.internal", policy)).toBe("noSuchName");
      expect(verdict("a.web.vm.internal", policy)).toBe("noSuchName");
      expect(verdict("vm.internal", policy)).toBe("noError");
      const name = Buffer.from("\x03web\x02vm\x08internal\0").toString("hex");
      expect(verdict("7.0.100.10.in-addr.arpa", policy, recordTypes.PTR)).toBe(`noError ${name}`);
      expect(verdict("7.0.100.10.in-addr.arpa", policy)).toBe("noError");
      expect(verdict("8.0.100.10.in-addr.arpa", policy, recordTypes.PTR)).toBe("noSuchName");
    });
  }

  test("what is absent is so for a while, as its SOA record says", () => {
    const made = judge({ name: "x.vm.internal", type: 1 }, everything, zone);
    if (made.kind !== "answer") throw new Error("forwarded");
    expect(made.answer.authorities).toMatchObject([{ type: recordTypes.SOA, timeToLive: 5 }]);
    const refused = judge({ name: "x.org", type: 1 }, listOf(), zone);
    if (refused.kind !== "answer") throw new Error("forwarded");
    expect(refused.answer.authorities).toBeUndefined();
  });

  test("reverse names", () => {
    expect(reverseName("10.100.0.7")).toBe("7.0.100.10.in-addr.arpa");
    expect(addressOfReverse("7.0.100.10.in-addr.arpa")).toBe("10.100.0.7");
    expect(addressOfReverse("07.0.100.10.in-addr.arpa")).toBeUndefined();
    expect(addressOfReverse("256.0.100.10.in-addr.arpa")).toBeUndefined();
    expect(addressOfReverse("0.100.10.in-addr.arpa")).toBeUndefined();
  });
});

test.each([
  ["127.0.0.1", true],
  ["0.0.0.0", true],
  ["169.254.169.254", true],
  ["224.0.0.1", true],
  ["239.1.1.1", true],
  ["255.255.255.255", true],
  ["10.0.0.1", false],
  ["192.0.2.1", false],
  ["223.255.255.255", false],
  ["12.7.0.1", false],
  ["0:0:0:0:0:0:0:1", true],
  ["0:0:0:0:0:0:0:0", true],
  ["0:0:0:0:0:ffff:7f00:1", true],
  ["fe80:0:0:0:0:0:0:1", true],
  ["febf:0:0:0:0:0:0:1", true],
  ["ff02:0:0:0:0:0:0:1", true],
  ["2001:db8:0:0:0:0:0:1", false],
  ["fd00:0:0:0:0:0:0:1", false],
])("%s is let through by no list: %p", (address, expected) => {
  expect(isNeverAllowed(address)).toBe(expected);
});

describe("upstreams", () => {
  test("of a resolver's file: three at most, and no zones", () => {
    const text = [
      "# nameserver 9.9.9.9",
      "nameserver 192.0.2.1 ",
      "nameserver fe80::1%eth0",
      "nameserver nonsense",
      "search example.org",
      "nameserver\t2001:db8::1",
      "nameserver 192.0.2.3",
      "nameserver 192.0.2.4",
    ].join("\n");
    expect(parseResolverFile(text).map(({ address }) => address)).toEqual([
      "192.0.2.1",
      "2001:db8::1",
      "192.0.2.3",
    ]);
  });

  test("the file is looked at again after a while, and when it is gone there is nobody", () => {
    using folder = temporaryFolder();
    const path = folder.file("resolv.conf");
    let now = 1_000;
    writeFileSync(path, "nameserver 192.0.2.1\n");
    const resolver = new ResolverFile(path, () => now);
    const current = () => resolver.current().map(({ address }) => address);
    expect(current()).toEqual(["192.0.2.1"]);
    writeFileSync(path, "nameserver 192.0.2.22\n");
    now += LOOK_AGAIN_AFTER - 1;
    expect(current()).toEqual(["192.0.2.1"]);
    now += 1;
    expect(current()).toEqual(["192.0.2.22"]);
    rmSync(path);
    now += LOOK_AGAIN_AFTER;
    expect(current()).toEqual([]);
  });

  test.each([
    ["::", "0".repeat(32)],
    ["::1", `${"0".repeat(31)}1`],
    ["1::", `0001${"0".repeat(28)}`],
    ["2001:db8::8:800:200c:417a", "20010db80000000000080800200c417a"],
    ["1:2:3:4:5:6:7:8", "00010002000300040005000600070008"],
    ["::ffff:192.0.2.1", "00000000000000000000ffffc0000201"],
    ["64:ff9b::192.0.2.1", "0064ff9b0000000000000000c0000201"],
    ["fe80::1%eth0", undefined],
    ["nonsense", undefined],
  ])("%s as bytes", (text, hex) => {
    expect(ipv6Bytes(text)?.toHex()).toBe(hex as never);
  });
});
