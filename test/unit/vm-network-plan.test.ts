/** What is done for a network, on a kernel in memory; and that a second pass does nothing. */
import { describe, expect, test } from "bun:test";
import { bridgeMacAddress } from "../../src/network/addresses.ts";
import { describeOperation, planNetwork } from "../../src/network/plan.ts";
import {
  type DesiredNetworks,
  MOST_CARDS_A_NETWORK,
  readNetworkSpecification,
} from "../../src/network/specification.ts";
import { cardOf, defaultSpecification, desiredOf, NetworkWorld } from "../support/network-world.ts";

const bridge = "br-procurator";

/** Plans, does it, and expects that nothing is left to do. */
function converge(world: NetworkWorld, desired: DesiredNetworks) {
  const plan = planNetwork(desired, world.observe());
  world.apply(plan.operations);
  expect(planNetwork(desired, world.observe()).operations).toEqual([]);
  return plan;
}

const kinds = (plan: { operations: readonly { readonly kind: string }[] }) => [
  ...new Set(plan.operations.map(({ kind }) => kind)),
];

describe("a network", () => {
  test("is made in an order in which no packet comes before the rules for it", () => {
    const plan = converge(new NetworkWorld(), desiredOf([cardOf(2), cardOf(3)]));
    expect(plan.refusals).toEqual([]);
    expect(plan.operations.map(describeOperation)).toEqual([
      "make-bridge br-procurator",
      "add-address 10.100.0.1/16 of br-procurator",
      "make-tap tap-2",
      "make-tap tap-3",
      "change-rules, 2 of them",
      "open-port tap-2",
      "open-port tap-3",
      "bring-up br-procurator",
    ]);
  });

  test("one card more, and one less, change that card and the chain of its TAP alone", () => {
    const world = new NetworkWorld();
    converge(world, desiredOf([cardOf(2), cardOf(3)]));
    const more = converge(world, desiredOf([cardOf(2), cardOf(3), cardOf(4)]));
    expect(more.operations.map(describeOperation)).toEqual([
      "make-tap tap-4",
      "change-rules, 1 of them",
      "open-port tap-4",
    ]);
    const less = converge(world, desiredOf([cardOf(2), cardOf(4)]));
    expect(less.operations.map(describeOperation)).toEqual([
      "remove-link tap-3",
      "change-rules, 1 of them",
    ]);
  });

  test("nothing wanted: all of ours goes, and nothing else", () => {
    const world = new NetworkWorld();
    const before = world.observe();
    world.addLink({ name: "eth0" });
    world.addLink({ name: "tap-9", kind: "tun", alias: "somebody's" });
    world.tables.push({ family: "inet", name: "filter", comment: "", sets: [], chains: [] });
    const others = [...world.links];
    converge(world, desiredOf([cardOf(2)], { portForwards: [forward()] }));
    const plan = converge(world, { owner: "w1", networks: [] });
    expect(kinds(plan)).toEqual(["remove-link", "change-rules"]);
    expect(world.links).toEqual(others);
    expect(world.tables.map(({ name }) => name)).toEqual(["filter"]);
    expect(world.addresses).toEqual([...before.addresses]);
  });

  test.each([
    ["isolation", { isolation: true }],
    ["no NAT", { nat: false }],
    ["IPv6", { ipv6: "route" }],
    ["a size", { mtu: 9000 }],
    ["a gateway", { gateway: "10.100.255.254" }],
    ["a port forward", { portForwards: [forward()] }],
  ] as const)("%s: changed on a network that is there, and back", (_name, changes) => {
    const world = new NetworkWorld();
    const cards = [cardOf(2), cardOf(3, { ipv6Address: "2001:db8::3" })];
    converge(world, desiredOf(cards));
    const first = structuredClone(world.tables);
    const there = converge(world, desiredOf(cards, changes));
    expect(there.operations).not.toEqual([]);
    expect(there.operations.some(({ kind }) => kind === "remove-link")).toBe(false);
    const back = { ...changes, ...("mtu" in changes && { mtu: 1500 }) };
    const usual = "mtu" in back ? { mtu: 1500 } : {};
    converge(world, desiredOf(cards, usual));
    expect(byName(world.tables)).toEqual(byName(first));
  });

  test.each([
    ["its address", (world: NetworkWorld) => world.forgetAddresses()],
    [
      "its bridge's state",
      (world: NetworkWorld) => void changeLink(world, bridge, { isUp: false }),
    ],
    ["a card's state", (world: NetworkWorld) => void changeLink(world, "tap-2", { isUp: false })],
    ["a card's bridge", (world: NetworkWorld) => void changeLink(world, "tap-2", { master: 77 })],
    ["its tables", (world: NetworkWorld) => world.forgetTables()],
    ["a rule", (world: NetworkWorld) => void dropRule(world, "input")],
    ["a card's rule", (world: NetworkWorld) => void dropRule(world, "tap-2")],
  ])("somebody changed %s: it is made right", (_name, disturb) => {
    const world = new NetworkWorld();
    const desired = desiredOf([cardOf(2)]);
    converge(world, desired);
    const tables = byName(structuredClone(world.tables));
    disturb(world);
    expect(converge(world, desired).operations).not.toEqual([]);
    expect(byName(world.tables)).toEqual(tables);
  });

  test("a TAP that became another machine's is made anew, and its chain with it", () => {
    const world = new NetworkWorld();
    converge(world, desiredOf([cardOf(2)]));
    const plan = converge(world, desiredOf([cardOf(2, { machine: "other" })]));
    expect(plan.operations.map(describeOperation)).toEqual([
      "remove-link tap-2",
      "make-tap tap-2",
      "change-rules, 2 of them",
      "open-port tap-2",
    ]);
  });

  test("VLANs: the bridge tells them apart, and each port is in its own", () => {
    const world = new NetworkWorld();
    converge(world, desiredOf([cardOf(2)]));
    const plan = converge(world, desiredOf([cardOf(2, { vlan: 20 }), cardOf(3)]));
    expect(kinds(plan)).toContain("filter-vlans");
    expect([...world.vlans.values()]).toEqual([[20], [1]]);
  });

  test("an allow list has a set, which goes with it; without one no rule is left", () => {
    const world = new NetworkWorld();
    converge(world, desiredOf([cardOf(2, { allowList: "allow-2" })]));
    expect(world.tables[0]?.sets).toEqual(["allow-2"]);
    converge(world, desiredOf([cardOf(2)]));
    expect(world.tables[0]?.sets).toEqual([]);
  });
});

describe("what is not ours", () => {
  test.each([
    ["a bridge of somebody's", undefined, "not hostler's"],
    ["a bridge of another worker", `hostler vm w2 network ${bridge}`, "the worker w2's"],
  ])("%s is refused and left as it is", (_name, alias, whose) => {
    const world = new NetworkWorld();
    world.addLink({ name: bridge, kind: "bridge", alias });
    const before = structuredClone(world.observe());
    const { operations, refusals } = planNetwork(desiredOf([cardOf(2)]), world.observe());
    expect(operations).toEqual([]);
    expect(refusals).toEqual([
      {
        bridge,
        machine: undefined,
        reason: `there is a link ${bridge}, and it is ${whose}`,
        mend: expect.stringContaining("name another bridge"),
      },
    ]);
    expect(world.observe()).toEqual(before);
  });

  test("a table of our name and not our comment: the network is refused", () => {
    const world = new NetworkWorld();
    const name = `hostler-vm-${bridge}`;
    world.tables.push({ family: "inet", name, comment: "mine", sets: [], chains: [] });
    const { operations, refusals } = planNetwork(desiredOf([]), world.observe());
    expect(operations).toEqual([]);
    expect(refusals[0]?.reason).toBe(`there is a table inet ${name}, and it is not hostler's`);
  });

  test("a TAP of somebody's: that card is refused, and the others are made", () => {
    const world = new NetworkWorld();
    world.addLink({ name: "tap-2", kind: "tun" });
    const { refusals } = converge(world, desiredOf([cardOf(2), cardOf(3)]));
    expect(refusals.map(({ machine, reason }) => [machine, reason])).toEqual([
      ["vm-2", "there is a link tap-2, and it is not hostler's"],
    ]);
    expect(world.links.map(({ name }) => name)).toEqual(["lo", "tap-2", bridge, "tap-3"]);
  });

  test("a bridge that we began and were killed over is finished", () => {
    const world = new NetworkWorld();
    const macAddress = bridgeMacAddress("w1", bridge);
    world.addLink({ name: bridge, kind: "bridge", macAddress, isUp: false, vlanFiltering: false });
    const { refusals, operations } = converge(world, desiredOf([]));
    expect(refusals).toEqual([]);
    expect(operations[0]).toMatchObject({
      kind: "change-bridge",
      alias: `hostler vm w1 network ${bridge}`,
    });
  });

  test("another worker's links and tables on this host stay", () => {
    const world = new NetworkWorld();
    const other = { ...desiredOf([cardOf(7)], { bridge: "br-2", subnet: "10.99.0.0/16" }) };
    const theirs = { ...other, owner: "w2" };
    theirs.networks.forEach(
      (network) =>
        void Object.assign(network, {
          specification: { ...network.specification, gateway: "10.99.0.1" },
          cards: [cardOf(7, { address: "10.99.0.7" })],
        }),
    );
    converge(world, theirs);
    converge(world, desiredOf([cardOf(2)]));
    converge(world, { owner: "w1", networks: [] });
    expect(planNetwork(theirs, world.observe()).operations).toEqual([]);
  });
});

describe("what cannot be", () => {
  test.each([
    ["an address outside", { address: "10.101.0.2" }, "no host's address in the network's subnet"],
    ["the gateway's", { address: "10.100.0.1" }, "that of the gateway already"],
    ["the broadcast address", { address: "10.100.255.255" }, "no host's address"],
    ["another's address", { address: "10.100.0.3" }, "that of vm-3 already"],
    ["another's MAC", { macAddress: "52:54:00:00:00:03" }, "that of vm-3 already"],
    ["another's TAP", { tap: "tap-3" }, "that of another card already"],
    ["a group's MAC", { macAddress: "53:54:00:00:00:02" }, "no hardware address of one machine"],
    ["a long TAP name", { tap: "tap-567890123456" }, "cannot be a TAP's name"],
    ["VLAN 4095", { vlan: 4095 }, "VLAN 4095 is none"],
    ["an allow list without a pin", { allowList: "a", pin: false }, "the way around it"],
    ["a wrong IPv6 address", { ipv6Address: "2001:db8" }, "is no IPv6 address"],
    ["a long name", { machine: "m".repeat(129) }, "a machine's name has 129 bytes"],
  ])("%s: that card alone is refused", (_name, changes, reason) => {
    const world = new NetworkWorld();
    const { refusals } = converge(world, desiredOf([cardOf(3), cardOf(2, changes)]));
    expect(refusals).toHaveLength(1);
    expect(refusals[0]?.reason).toContain(reason);
    expect(refusals[0]?.mend).not.toBe("");
    expect(world.links.map(({ name }) => name)).toEqual(["lo", bridge, "tap-3"]);
  });

  test("a card that is refused keeps its TAP, its chain, its allow list and its rules", () => {
    const world = new NetworkWorld();
    const card = cardOf(2, { allowList: "allow-2" });
    converge(world, desiredOf([card, cardOf(3)]));
    const tables = byName(structuredClone(world.tables));
    const wrong = { ...card, address: "10.101.0.2" };
    const { operations, refusals } = converge(world, desiredOf([wrong, cardOf(3)]));
    expect(operations).toEqual([]);
    expect(refusals).toHaveLength(1);
    expect(byName(world.tables)).toEqual(tables);
  });

  test("1,023 cards are taken, and the 1,024th is refused", () => {
    const cards = Array.from({ length: MOST_CARDS_A_NETWORK + 1 }, (_, index) => cardOf(index + 2));
    const world = new NetworkWorld();
    const { refusals } = converge(world, desiredOf(cards));
    expect(refusals.map(({ machine }) => machine)).toEqual(["vm-1025"]);
    expect(refusals[0]?.reason).toContain("1023 cards, as many as a bridge takes");
    expect(world.links).toHaveLength(2 + MOST_CARDS_A_NETWORK);
  });

  test("ports of the bridge that others use count", () => {
    const world = new NetworkWorld();
    converge(world, desiredOf([]));
    const master = world.links.at(-1)?.index ?? 0;
    world.addLink({ name: "eth1", master });
    const cards = Array.from({ length: MOST_CARDS_A_NETWORK }, (_, index) => cardOf(index + 2));
    const { refusals } = converge(world, desiredOf(cards));
    expect(refusals[0]?.reason).toBe("the bridge has 1023 ports, 1 of them not ours");
  });

  test.each([
    ["two of one bridge", {}, "another network has this bridge"],
    [
      "overlapping subnets",
      { bridge: "b", subnet: "10.100.4.0/24", gateway: "10.100.4.1" },
      "overlaps",
    ],
    ["a gateway outside", { bridge: "b", subnet: "10.9.0.0/24", gateway: "10.8.0.1" }, "no host's"],
  ])("%s: the second network is refused", (_name, changes, reason) => {
    const second = { specification: { ...defaultSpecification, ...changes }, cards: [] };
    const desired = { owner: "w1", networks: [...desiredOf([]).networks, second] };
    const { refusals } = converge(new NetworkWorld(), desired);
    expect(refusals.map((one) => one.reason)).toEqual([expect.stringContaining(reason)]);
  });

  test.each([
    ["outside", [{ ...forward(), address: "10.1.0.1" }], "outside of the network's subnet"],
    ["twice", [forward(), forward()], "tcp port 8080 is forwarded twice"],
  ])("a port forward %s is refused alone", (_name, portForwards, reason) => {
    const { refusals } = converge(new NetworkWorld(), desiredOf([cardOf(2)], { portForwards }));
    expect(refusals.map((one) => one.reason)).toEqual([expect.stringContaining(reason)]);
  });

  test("a worker without a name", () => {
    const { operations, refusals } = planNetwork(
      { ...desiredOf([]), owner: "a b" },
      new NetworkWorld().observe(),
    );
    expect(operations).toEqual([]);
    expect(refusals[0]?.reason).toBe('the worker\'s name is "a b"');
  });
});

describe("a specification that is read", () => {
  test("nothing said: the defaults", () => {
    expect(readNetworkSpecification({})).toEqual({ specification: defaultSpecification });
  });

  test.each([
    [{ bridge: "a bridge" }, "bridge"],
    [{ bridge: "sixteen-letters-" }, "bridge"],
    [{ subnet: "10.0.0.0/7" }, "subnet"],
    [{ subnet: "10.0.0.0/31" }, "subnet"],
    [{ subnet: "10.0.0.1/24" }, "subnet"],
    [{ gateway: "10.100.0.0" }, "gateway"],
    [{ gateway: "10.1.1" }, "gateway"],
    [{ ipv6: "maybe" }, "ipv6"],
    [{ mtu: 100 }, "mtu"],
    [{ net: 1 }, "net"],
    [
      { portForwards: [{ protocol: "tcp", hostPort: 0, address: "10.100.0.2", port: 1 }] },
      "portForwards.0.hostPort",
    ],
  ])("%j is refused by its key", (input, key) => {
    const answer = readNetworkSpecification(input);
    expect(answer).toMatchObject({ refusal: { key, mend: expect.any(String) } });
  });
});

function forward() {
  return { protocol: "tcp", hostPort: 8080, address: "10.100.0.2", port: 80 } as const;
}

function byName(tables: NetworkWorld["tables"]) {
  const sorted = tables.map((table) => ({
    ...table,
    chains: table.chains.toSorted((one, other) => one.name.localeCompare(other.name)),
  }));
  return sorted.toSorted((one, other) => one.family.localeCompare(other.family));
}

function changeLink(world: NetworkWorld, name: string, changes: object): void {
  world.links = world.links.map((link) => (link.name === name ? { ...link, ...changes } : link));
}

function dropRule(world: NetworkWorld, name: string): void {
  world.tables = world.tables.map((table) => ({
    ...table,
    chains: table.chains.map((chain) => {
      return chain.name === name ? { ...chain, rules: chain.rules.slice(1) } : chain;
    }),
  }));
}
