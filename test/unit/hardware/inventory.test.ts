import { describe, expect, test } from "bun:test";
import * as v from "valibot";
import { identityOf, inventorySchema } from "../../../src/hardware/inventory.ts";
import { readCardAddresses } from "../../../src/hardware/network-cards.ts";
import { readIdentity, readInventory } from "../../../src/hardware/read-inventory.ts";
import { withoutSecrets } from "../../../src/hardware/secrets.ts";
import { Unseen } from "../../../src/hardware/unseen.ts";
import { fixtureHost, healthyHost } from "../../support/hardware/fixture-host.ts";

describe("the inventory of a host", () => {
  test("of one that is well has all, and what is not told is named", () => {
    using host = fixtureHost(healthyHost);
    const inventory = readInventory(host.tree);
    expect(v.safeParse(inventorySchema, inventory).issues).toBeUndefined();
    expect(inventory).toMatchSnapshot();
  });

  test("of a folder with nothing in it names all that is missing, and throws nothing", () => {
    using host = fixtureHost({ smbios: null });
    host.remove("sys");
    host.remove("proc");
    const inventory = readInventory(host.tree);
    expect(v.safeParse(inventorySchema, inventory).issues).toBeUndefined();
    const properties = inventory.unseen.map(({ property }) => property);
    expect(properties).toContain("smbios");
    expect(properties).toContain("memory.slots");
    expect(properties).toContain("processors");
    expect(properties).toContain("pci");
    expect(properties).toContain("power_supplies");
    expect(inventory.memory.installed_bytes).toBeNull();
  });

  test("its identity is the same by one look at SMBIOS", () => {
    using host = fixtureHost(healthyHost);
    expect(readIdentity(host.tree)).toEqual(identityOf(readInventory(host.tree)));
    const cards = readInventory(host.tree).network.map(({ mac }) => mac);
    expect(cards.length).toBeGreaterThan(0);
    expect(readCardAddresses(host.tree, undefined)).toEqual(cards);
    // As the maker gave it: a bond gives its own address to each of its cards.
    const permanentMac = "52:54:00:ab:cd:ef";
    const told = readCardAddresses(host.tree, () => ({
      ...{ firmware: null, permanentMac, mostMtu: null },
    }));
    expect(new Set(told)).toEqual(new Set([permanentMac]));
    const mtuOf = (mostMtu: number | null) => {
      const askDriver = () => ({ firmware: null, permanentMac, mostMtu });
      const { network, unseen } = readInventory(host.tree, { askDriver });
      const isUnseen = unseen.some(({ property }) => property.endsWith(".most_mtu"));
      return [network[0]?.most_mtu, isUnseen];
    };
    expect([mtuOf(9_216), mtuOf(null)]).toEqual([
      [9_216, false],
      [null, true],
    ]);
    expect(readIdentity(host.tree)).toEqual({
      uuid: "12345678-1234-5678-9abc-def012345678",
      system_serial: "SYS-0001",
      board_serial: "BRD-0001",
    });
  });

  test("the kernel's command line keeps no secret", () => {
    const line = "quiet hostler.vetting.run=3 hostler.vetting.token=abc123 x.password=p";
    const expected =
      "quiet hostler.vetting.run=3 hostler.vetting.token=(hidden) x.password=(hidden)";
    expect(withoutSecrets(line)).toBe(expected);
    const long = "token".repeat(200_000);
    expect(withoutSecrets(`${long}=1 a=${long}`)).toBe(`${long}=(hidden) a=${long}`);
  });

  test("over the limit of what is unseen, the last line says how much was left out", () => {
    const unseen = new Unseen();
    for (let at = 0; at < 300; at += 1) unseen.add(`disks[sd${at}].serial`, "EIO");
    unseen.add("disks[sd0].serial", "told before");
    expect(unseen.list()).toHaveLength(256);
    expect(unseen.list()[0]).toEqual({ property: "disks[sd0].serial", reason: "EIO" });
    expect(unseen.list().at(-1)).toEqual({ property: "unseen", reason: "45 more were left out" });
  });
});
