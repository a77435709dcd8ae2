import * as v from "valibot";
import { type Inventory, inventorySchema } from "../../src/hardware/inventory.ts";
import type { SeededChance } from "./chance.ts";

/** Hosts that tests are about: one that has all there can be, and hosts that a seed makes. */

const GIB = 1024 ** 3;
const fullLink = { width: 8, width_most: 8, speed: 16, speed_most: 16 };
const noLink = { width: null, width_most: null, speed: null, speed_most: null };

export function exampleSlot(index: number): Inventory["memory"]["slots"][number] {
  return {
    locator: `DIMM_A${index}`,
    bank: "P0",
    size_bytes: 32 * GIB,
    type: "DDR5",
    speed_mts: 4800,
    configured_mts: 4800,
    manufacturer: "Samsung",
    serial: `M${index}000`,
    part: "M321R4GA3BB6",
  };
}

export function exampleDisk(index: number): Inventory["disks"][number] {
  return {
    name: `nvme${index}n1`,
    serial: `S64ANX0R${index}`,
    wwn: `eui.${index}`,
    model: "SAMSUNG MZQL21T9HCJR",
    firmware: "GDC5602Q",
    size_bytes: 1_920_383_410_176,
    logical_block: 512,
    physical_block: 4096,
    rotational: false,
    transport: "nvme",
    pci: `0000:0${index + 1}:00.0`,
    removable: false,
    read_only: false,
  };
}

export function exampleCard(index: number): Inventory["network"][number] {
  return {
    name: `eth${index}`,
    mac: `52:54:00:00:00:0${index}`,
    driver: "ice",
    firmware: "4.20",
    pci: "0000:31:00.0",
    carrier: true,
    speed_mbps: 25_000,
    duplex: "full",
    most_mtu: 9702,
    numa_node: 0,
  };
}

/** Two sockets, four modules, two disks, two cards, a graphics card and two power supplies. */
export function exampleInventory(): Inventory {
  return v.parse(inventorySchema, {
    system: { manufacturer: "ACME", product: "R1", serial: "SYS1", uuid: "u-1", sku: "A1" },
    board: { manufacturer: "ACME", product: "B1", serial: "BRD1", version: "2" },
    chassis: { type: "Rack Mount", serial: "CH1", asset_tag: "7" },
    firmware: {
      vendor: "AMI",
      version: "2.1",
      date: "03/01/2025",
      boot: "uefi",
      secure_boot: true,
      tpm: "2.0",
    },
    kernel: { release: "6.1.0", architecture: "x86_64", command_line: "quiet" },
    processors: [0, 1].map((socket) => ({
      socket: `CPU${socket}`,
      vendor: "GenuineIntel",
      model: "Xeon Gold 6430",
      cores: 32,
      threads: 64,
      microcode: "0x2b0004d0",
      most_mhz: 3400,
    })),
    threads_online: 128,
    numa_nodes: 2,
    memory: {
      installed_bytes: 128 * GIB,
      usable_bytes: 126 * GIB,
      error_correction: "multi-bit",
      slots: [1, 2, 3, 4].map(exampleSlot),
    },
    disks: [exampleDisk(0), exampleDisk(1)],
    network: [exampleCard(0), exampleCard(1)],
    graphics: [
      {
        pci: "0000:81:00.0",
        vendor: "10de",
        device: "2330",
        model: "H100",
        serial: "G1",
        driver: "nvidia",
        firmware: "96.00",
        memory_bytes: 80 * GIB,
        link: fullLink,
      },
    ],
    pci: [
      {
        address: "0000:00:00.0",
        class: "060000",
        vendor: "8086",
        device: "09a2",
        subsystem_vendor: null,
        subsystem_device: null,
        driver: null,
        link: noLink,
        slot: null,
      },
      {
        address: "0000:01:00.0",
        class: "010802",
        vendor: "144d",
        device: "a80a",
        subsystem_vendor: "144d",
        subsystem_device: "aa8b",
        driver: "nvme",
        link: { width: 4, width_most: 4, speed: 16, speed_most: 16 },
        slot: "M.2 1",
      },
    ],
    power_supplies: [1, 2].map((index) => ({
      locator: `PSU${index}`,
      manufacturer: "Delta",
      model: "DPS-1300",
      serial: `P${index}`,
      most_watts: 1300,
      present: true,
      source: "smbios",
    })),
    bmc: { firmware: "1.2", manufacturer: "ASPEED", ipmi: "2.0" },
    unseen: [],
  });
}

/** Texts as firmware writes them, and as somebody would write who wants to break a path. */
const oddTexts = [
  "plain",
  "two words",
  "a]b",
  'quo"te',
  "a=b, c",
  "*",
  "",
  " padded ",
  "back\\slash",
  "new\nline",
  "Ünïcödé 🦉",
  "x".repeat(256),
  "<script>alert(1)</script>",
];

/** A host of which anything may be odd, absent, doubled, or not seen. */
export function randomInventory(chance: SeededChance): Inventory {
  const host = exampleInventory();
  const text = () => (chance.happens(0.3) ? chance.pick(oddTexts) : `t${chance.below(4)}`);
  const told = () => (chance.happens(0.15) ? null : text());
  const some = () => (chance.happens(0.15) ? null : chance.below(1_000_000));
  const times = <Item>(most: number, make: (index: number) => Item) =>
    Array.from({ length: chance.below(most + 1) }, (_, index) => make(index));
  const link = () => ({
    width: some(),
    width_most: some(),
    speed: chance.happens(0.3) ? null : chance.pick([2.5, 8, 16, 32]),
    speed_most: chance.happens(0.3) ? null : chance.pick([2.5, 8, 16, 32]),
  });
  const address = (index: number) => `0000:${index.toString(16).padStart(2, "0")}:00.0`;
  const [card, disk] = [exampleCard(0), exampleDisk(0)];
  return v.parse(inventorySchema, {
    ...host,
    system: { manufacturer: told(), product: told(), serial: told(), uuid: told(), sku: told() },
    firmware: { ...host.firmware, version: told(), secure_boot: chance.pick([null, true, false]) },
    processors: times(3, (index) => ({
      ...host.processors[0],
      socket: chance.happens(0.2) ? text() : `CPU${index}`,
      model: told(),
      cores: some(),
    })),
    memory: {
      ...host.memory,
      slots: times(6, (index) => ({
        ...exampleSlot(index),
        locator: chance.happens(0.2) ? text() : `DIMM${index}`,
        size_bytes: some(),
        part: told(),
        serial: told(),
      })),
    },
    disks: times(6, (index) => ({
      ...disk,
      name: `sd${index}`,
      serial: told(),
      model: told(),
      firmware: told(),
      size_bytes: chance.below(3) * GIB,
      rotational: chance.pick([null, true, false]),
    })),
    network: times(4, (index) => ({
      ...card,
      name: `eth${index}`,
      mac: `52:54:00:00:00:0${index}`,
      driver: told(),
      firmware: told(),
      speed_mbps: some(),
    })),
    graphics: times(2, (index) => ({
      ...host.graphics[0],
      pci: address(index),
      model: told(),
      link: link(),
    })),
    pci: times(5, (index) => ({ ...host.pci[1], address: address(index), link: link() })),
    power_supplies: times(2, () => ({ ...host.power_supplies[0], locator: text() })),
    bmc: chance.happens(0.5) ? null : host.bmc,
    unseen: times(3, () => ({
      property: chance.pick([
        "memory.slots",
        "disks",
        "disks[sd0].serial",
        "bmc",
        "no path at all!",
        "pci",
      ]),
      reason: text(),
    })),
  });
}
