/** Networks that are made, changed and removed, as `ip` and `nft` see them. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { bridgeMacAddress } from "../../src/network/addresses.ts";
import { MOST_CARDS_A_NETWORK } from "../../src/network/specification.ts";
import { Namespace } from "../support/network-machines.ts";
import { cardOf, desiredOf } from "../support/network-world.ts";
import { onlyInAll } from "../support/rotation.ts";
import { file, program, root, skipUnless } from "../support/skips.ts";

const bridge = "br-procurator";
const needs = [
  root,
  program("ip", "iproute2"),
  program("nft", "nftables"),
  file("/dev/net/tun", "none: a module of the kernel"),
];

skipUnless("a network", needs, () => {
  let host: Namespace;
  beforeAll(async () => {
    host = await Namespace.make();
  });
  afterAll(async () => await host[Symbol.asyncDispose]());

  /** What was counted is left out: the host sends things of its own accord. */
  const ruleset = async () => {
    const text = await host.run("nft", "list", "ruleset");
    return text.replace(/packets \d+ bytes \d+/g, "packets 0 bytes 0").trim();
  };
  const nothing = async () => {
    await host.apply({ owner: "w1", networks: [] });
    expect(await ruleset()).toBe("");
    expect([...(await host.links()).keys()]).toEqual(["lo"]);
  };

  test("is made, as `ip` tells it; a second pass does nothing; all of it goes", async () => {
    const applied = await host.apply(desiredOf([cardOf(2), cardOf(3)], { mtu: 1400 }));
    expect(applied).toMatchObject({ refusals: [], refused: [], again: [] });
    const links = await host.links();
    expect([...links.keys()]).toEqual(["lo", bridge, "tap-2", "tap-3"]);
    expect(links.get(bridge)).toMatchObject({
      flags: expect.arrayContaining(["UP"]),
      mtu: 1400,
      address: bridgeMacAddress("w1", bridge),
      ifalias: `hostler vm w1 network ${bridge}`,
      linkinfo: { info_kind: "bridge" },
    });
    expect(links.get("tap-2")).toMatchObject({
      flags: expect.arrayContaining(["UP"]),
      mtu: 1400,
      ifalias: `hostler vm w1 card ${bridge} vm-2`,
      master: bridge,
      linkinfo: {
        info_kind: "tun",
        info_data: { type: "tap", pi: false, vnet_hdr: true, persist: true },
        info_slave_data: { isolated: false, learning: true, hairpin: false },
      },
    });
    const addresses = await host.run("ip", "-j", "-4", "address", "show", "dev", bridge);
    expect(JSON.parse(addresses)).toMatchObject([
      { addr_info: [{ local: "10.100.0.1", prefixlen: 16, broadcast: "10.100.255.255" }] },
    ]);
    await nothing();
  });

  test("its rules, as `nft` lists them", async () => {
    const cards = [cardOf(2, { allowList: "allow-2" }), cardOf(3, { pin: false })];
    const portForwards = [
      { protocol: "udp", hostPort: 5000, address: "10.100.0.2", port: 6000 },
    ] as const;
    await host.apply(desiredOf(cards, { portForwards }));
    expect(await ruleset()).toMatchSnapshot();
    const six = [cardOf(2, { ipv6Address: "2001:db8::2" })];
    const { again } = await host.apply(
      desiredOf(six, { ipv6: "route", nat: false, isolation: true }),
    );
    expect(again).toEqual([]);
    expect(await ruleset()).toMatchSnapshot();
    await nothing();
  });

  test("rules that somebody changed are made right, and nobody else's are touched", async () => {
    await host.run("nft", "add", "table", "inet", "filter");
    const desired = desiredOf([cardOf(2)]);
    await host.apply(desired);
    const before = await ruleset();
    const table = `hostler-vm-${bridge}`;
    for (const words of [
      ["flush", "chain", "inet", table, "input"],
      ["flush", "chain", "netdev", table, "tap-2"],
      ["delete", "table", "netdev", table],
      ["add", "chain", "inet", table, "more"],
      ["insert", "rule", "inet", table, "forward", "accept"],
    ]) {
      await host.run("nft", ...words);
      const applied = await host.apply(desired);
      expect(applied).toMatchObject({ refusals: [], refused: [], again: [] });
      expect(applied.operations).toEqual([expect.stringContaining("change-rules")]);
      expect(sortedLines(await ruleset())).toEqual(sortedLines(before));
    }
    await host.run("ip", "link", "del", "tap-2");
    expect(await host.apply(desired)).toMatchObject({ refusals: [], refused: [], again: [] });
    expect(sortedLines(await ruleset())).toEqual(sortedLines(before));
    await host.apply({ owner: "w1", networks: [] });
    expect(await ruleset()).toBe("table inet filter {\n}");
    await host.run("nft", "delete", "table", "inet", "filter");
  });

  test("a bridge, a TAP and a table of somebody's are left as they are", async () => {
    await host.run("ip", "link", "add", bridge, "type", "bridge");
    const linkBefore = (await host.links()).get(bridge);
    const { operations, refusals } = await host.apply(desiredOf([cardOf(2)]));
    expect(operations).toEqual([]);
    expect(refusals[0]?.reason).toContain("not hostler's");
    expect((await host.links()).get(bridge)).toEqual(linkBefore as NonNullable<typeof linkBefore>);
    await host.run("ip", "link", "del", bridge);
    await host.run("ip", "tuntap", "add", "tap-2", "mode", "tap");
    const applied = await host.apply(desiredOf([cardOf(2), cardOf(3)]));
    expect(applied.refusals.map(({ machine }) => machine)).toEqual(["vm-2"]);
    expect(applied).toMatchObject({ refused: [], again: [] });
    const links = await host.links();
    expect(links.get("tap-2")?.master).toBeUndefined();
    expect(links.get("tap-3")?.master).toBe(bridge);
    await host.run("ip", "link", "del", "tap-2");
    await nothing();
  });

  test("what the kernel refuses stops that card alone, and it does not come up", async () => {
    const desired = desiredOf([cardOf(2, { vlan: 20 }), cardOf(3)]);
    const { refused } = await host.apply(desired);
    const links = await host.links();
    const isUp = (name: string) => links.get(name)?.flags.includes("UP") === true;
    expect(isUp("tap-3")).toBe(true);
    // A kernel with VLANs has it in its own; one without has it nowhere.
    expect(isUp("tap-2")).toBe(refused.length === 0);
    if (refused.length === 0) {
      const vlans = await host.run("bridge", "-j", "vlan", "show", "dev", "tap-2");
      expect(JSON.parse(vlans)).toMatchObject([{ vlans: [{ vlan: 20 }] }]);
    } else {
      expect(refused.join("\n")).toContain(`filter-vlans ${bridge}: this kernel has no VLANs`);
      expect(refused.at(-1)).toBe("open-port tap-2: tap-2 was refused before");
    }
    await nothing();
  });

  test("an owner and a size that changed are changed on the TAP that is there", async () => {
    await host.apply(desiredOf([cardOf(2)]));
    const before = (await host.links()).get("tap-2");
    const changed = desiredOf([cardOf(2, { ownerUser: 4242 })], { mtu: 1300 });
    const { operations, again } = await host.apply(changed);
    expect(operations).toEqual([`change-bridge ${bridge}`, "change-tap tap-2"]);
    expect(again).toEqual([]);
    const after = (await host.links()).get("tap-2");
    expect(before?.ifindex).toBeGreaterThan(0);
    expect(after).toMatchObject({ ifindex: before?.ifindex, mtu: 1300 });
    expect(String(after?.linkinfo?.info_data?.["user"])).toBe("4242");
    await nothing();
  });

  test("links that are removed at once take no other with them", async () => {
    const names = ["one", "two", "three", "foreign"];
    for (const name of names) await host.run("ip", "link", "add", name, "type", "bridge");
    await host.run("ip", "link", "set", "foreign", "group", "77");
    const links = await host.links();
    const indexOf = (name: string) => String(links.get(name)?.ifindex);
    // Somebody has the same number, and one of them is gone already.
    const missing = "99999";
    expect(
      await host.stage<unknown>("remove", "77", indexOf("one"), missing, indexOf("two")),
    ).toEqual([...[null, "ENODEV", null]]);
    expect([...(await host.links()).keys()]).toEqual(["lo", "three", "foreign"]);
    await host.run("ip", "link", "set", "foreign", "group", "default");
    await host.run("ip", "link", "add", "four", "type", "bridge");
    const four = String((await host.links()).get("four")?.ifindex);
    expect(await host.stage<unknown>("remove", "77", indexOf("three"), missing, four)).toEqual([
      ...[null, "ENODEV", null],
    ]);
    expect([...(await host.links()).keys()]).toEqual(["lo", "foreign"]);
    await host.run("ip", "link", "del", "foreign");
  });

  onlyInAll(() => {
    describe("as many as a bridge takes", () => {
      test("1,000 TAPs are made, told and removed", async () => {
        const cards = cardsOf(1000);
        const applied = await host.apply(desiredOf(cards));
        expect(applied).toMatchObject({ refusals: [], refused: [], again: [] });
        console.log(
          `1,000 TAPs: plan ${applied.planMilliseconds.toFixed(0)} ms, ` +
            `apply ${applied.applyMilliseconds.toFixed(0)} ms, ` +
            `second pass ${applied.againMilliseconds.toFixed(0)} ms`,
        );
        expect((await host.links()).size).toBe(1002);
        await nothing();
      }, 300_000);

      test("the 1,024th is refused, by us and by the kernel", async () => {
        const cards = cardsOf(MOST_CARDS_A_NETWORK);
        const more = [...cards, cardOf(MOST_CARDS_A_NETWORK + 2)];
        const applied = await host.apply(desiredOf(more));
        expect(applied.refusals.map(({ machine }) => machine)).toEqual(["vm-1025"]);
        expect(applied).toMatchObject({ refused: [], again: [] });
        const extra = ["add", "extra", "type", "veth", "peer", "name", "extra-2"];
        await host.run("ip", "link", ...extra);
        const refusal = await host
          .run("ip", "link", "set", "extra", "master", bridge)
          .catch(String);
        expect(refusal).toMatch(/Exchange full|EXFULL|ports/i);
        await host.run("ip", "link", "del", "extra");
        await nothing();
      }, 300_000);
    });
  });
});

/** Tables and chains come in the order in which they were made. */
const sortedLines = (text: string) => text.split("\n").toSorted();

function cardsOf(count: number) {
  return Array.from({ length: count }, (_, index) => cardOf(index + 2));
}
