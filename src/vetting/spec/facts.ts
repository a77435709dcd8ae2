import type { Inventory } from "../../hardware/inventory.ts";
import type { Rule } from "../protocol-spec.ts";
import { type Condition, type Scalar, writeConditions, writeKey } from "./path.ts";
import { hidingOf, type Unseen, unseenOf } from "./unseen.ts";

/**
 * What of a host is worth to be the same on the next one: each fact by its path. Left out are what
 * differs from one boot to the next (names, the kernel, memory that is left) and, unless they are
 * asked for, what differs from one machine to the next (serials, addresses). Pure.
 */

export const parts = [
  "system",
  "firmware",
  "processors",
  "memory",
  "disks",
  "network",
  "graphics",
  "pci",
  "power",
  "bmc",
] as const;
export type Part = (typeof parts)[number];

export interface Fact {
  readonly part: Part;
  readonly path: string;
  readonly match: Rule["match"];
}

type Element = Readonly<Record<string, unknown>>;

/** @param options.serials also what tells this machine from all others of its kind */
export function factsOf(
  inventory: Inventory,
  options: { readonly serials: boolean },
): readonly Fact[] {
  const collector = new Collector(inventory);
  const { serials } = options;
  tellSystem(collector, inventory, serials);
  tellProcessors(collector, inventory);
  tellMemory(collector, inventory, serials);
  tellDisks(collector, inventory, serials);
  tellNetwork(collector, inventory, serials);
  tellCards(collector, inventory, serials);
  tellPower(collector, inventory, serials);
  return collector.facts;
}

function tellSystem(collector: Collector, inventory: Inventory, serials: boolean): void {
  const { system, board, chassis, firmware, bmc } = inventory;
  const own = (...words: string[]) => (serials ? words : []);
  collector.words("system", "system", system, [
    "manufacturer",
    "product",
    "sku",
    ...own("serial", "uuid"),
  ]);
  collector.words("system", "board", board, [
    "manufacturer",
    "product",
    "version",
    ...own("serial"),
  ]);
  collector.words("system", "chassis", chassis, ["type", ...own("serial", "asset_tag")]);
  collector.words("firmware", "firmware", firmware, [
    "vendor",
    "version",
    "date",
    "boot",
    "secure_boot",
    "tpm",
  ]);
  if (bmc === null) collector.absent("bmc", "bmc");
  else collector.words("bmc", "bmc", bmc, ["firmware", "manufacturer", "ipmi"]);
}

function tellProcessors(collector: Collector, inventory: Inventory): void {
  const { processors, threads_online, numa_nodes } = inventory;
  collector.equal("processors", "threads_online", threads_online);
  collector.equal("processors", "numa_nodes", numa_nodes);
  collector.count("processors", "processors", processors.length);
  for (const one of processors) {
    collector.words("processors", `processors${writeKey(one.socket)}`, one, [
      "vendor",
      "model",
      "cores",
      "threads",
      "microcode",
      "most_mhz",
    ]);
  }
}

function tellMemory(collector: Collector, { memory }: Inventory, serials: boolean): void {
  collector.words("memory", "memory", memory, ["installed_bytes", "error_correction"]);
  collector.count("memory", "memory.slots", memory.slots.length);
  for (const slot of memory.slots) {
    collector.words("memory", `memory.slots${writeKey(slot.locator)}`, slot, [
      "size_bytes",
      "type",
      "speed_mts",
      "configured_mts",
      "manufacturer",
      "part",
      ...(serials ? ["serial"] : []),
    ]);
  }
}

const diskWords = [
  "firmware",
  "size_bytes",
  "logical_block",
  "physical_block",
  "rotational",
  "transport",
  "removable",
  "read_only",
];

function tellDisks(collector: Collector, { disks }: Inventory, serials: boolean): void {
  collector.count("disks", "disks", disks.length);
  collector.groups({ part: "disks", list: "disks", elements: disks, by: "model" }, diskWords);
  if (!serials) return;
  for (const disk of disks) {
    if (disk.serial === null) continue;
    const path = `disks${writeKey(disk.serial)}`;
    collector.present("disks", path);
    collector.words("disks", path, disk, ["wwn", "model", "firmware", "size_bytes"]);
  }
}

function tellNetwork(collector: Collector, { network }: Inventory, serials: boolean): void {
  collector.count("network", "network", network.length);
  // A card without a carrier has no speed, and a cable may be there the next time.
  const words = ["firmware", "speed_mbps", "most_mtu", "numa_node"];
  collector.groups({ part: "network", list: "network", elements: network, by: "driver" }, words);
  if (!serials) return;
  for (const card of network) {
    const path = `network${writeKey(card.mac)}`;
    collector.present("network", path);
    collector.words("network", path, card, ["driver", "firmware", "speed_mbps", "pci"]);
  }
}

function tellCards(collector: Collector, inventory: Inventory, serials: boolean): void {
  const { graphics, pci } = inventory;
  collector.count("graphics", "graphics", graphics.length);
  for (const card of graphics) {
    const path = `graphics${writeKey(card.pci)}`;
    collector.words("graphics", path, card, [
      "vendor",
      "device",
      "model",
      "driver",
      "firmware",
      "memory_bytes",
      ...(serials ? ["serial"] : []),
    ]);
    collector.link("graphics", path, card.link);
  }
  collector.count("pci", "pci", pci.length);
  for (const device of pci) {
    const path = `pci${writeKey(device.address)}`;
    collector.words("pci", path, device, [
      "vendor",
      "device",
      "subsystem_vendor",
      "subsystem_device",
    ]);
    collector.link("pci", path, device.link);
  }
}

function tellPower(collector: Collector, inventory: Inventory, serials: boolean): void {
  const { power_supplies } = inventory;
  collector.count("power", "power_supplies", power_supplies.length);
  for (const supply of power_supplies) {
    collector.words("power", `power_supplies${writeKey(supply.locator)}`, supply, [
      "manufacturer",
      "model",
      "most_watts",
      "present",
      ...(serials ? ["serial"] : []),
    ]);
  }
}

/** Facts in their order; of what was not seen there is none. */
class Collector {
  readonly facts: Fact[] = [];
  readonly #unseen: readonly Unseen[];

  constructor(inventory: Inventory) {
    this.#unseen = unseenOf(inventory);
  }

  /** What the host does not tell is no fact. */
  words(part: Part, path: string, element: Element, words: readonly string[]): void {
    for (const word of words) {
      const value = element[word] as Scalar | null;
      if (value !== null) this.equal(part, `${path}.${word}`, value);
    }
  }

  equal(part: Part, path: string, value: Scalar): void {
    this.#add({ part, path, match: { is: "equal", value } });
  }

  present(part: Part, path: string): void {
    this.#add({ part, path, match: { is: "present" } });
  }

  absent(part: Part, path: string): void {
    if (!this.#isHidden(path)) this.#add({ part, path, match: { is: "absent" } });
  }

  count(part: Part, list: string, count: number): void {
    if (!this.#isHidden(list)) this.equal(part, `${list}.count`, count);
  }

  /** What it runs at may rise by the next boot, or when it is used; it may not fall. */
  link(part: Part, path: string, link: Inventory["pci"][number]["link"]): void {
    this.words(part, `${path}.link`, link, ["width", "width_most", "speed_most"]);
    if (link.speed === null) return;
    this.#add({ part, path: `${path}.link.speed`, match: { is: "at-least", value: link.speed } });
  }

  /** Elements that are alike, by what tells their kind and not themselves. */
  groups(
    options: {
      readonly part: Part;
      readonly list: string;
      readonly elements: readonly Element[];
      readonly by: string;
    },
    words: readonly string[],
  ): void {
    const { part, list, elements, by } = options;
    if (this.#isHidden(list)) return;
    const kinds = Map.groupBy(elements, (element) => element[by] as Scalar | null);
    for (const [kind, alike] of kinds) {
      const chosen: Condition = { word: by, value: kind };
      this.equal(part, `${list}${writeConditions([chosen])}.count`, alike.length);
      for (const word of words) this.#groupWord({ part, list, chosen, alike, word });
    }
  }

  /** One value is told as such. Of several, or where some tell none, how often there is each. */
  #groupWord(group: {
    readonly part: Part;
    readonly list: string;
    readonly chosen: Condition;
    readonly alike: readonly Element[];
    readonly word: string;
  }): void {
    const { part, list, chosen, alike, word } = group;
    const values = Map.groupBy(alike, (element) => element[word] as Scalar | null);
    const [only] = values.keys();
    if (values.size === 1 && only !== undefined) {
      if (only !== null) this.equal(part, `${list}${writeConditions([chosen])}.${word}`, only);
      return;
    }
    for (const [value, those] of values) {
      if (value === null) continue;
      const conditions = writeConditions([chosen, { word, value }]);
      this.equal(part, `${list}${conditions}.count`, those.length);
    }
  }

  #isHidden(list: string): boolean {
    const steps = list.split(".").map((word) => ({ word, element: undefined, key: undefined }));
    return hidingOf({ path: list, steps, value: undefined }, this.#unseen) !== undefined;
  }

  #add(fact: Fact): void {
    this.facts.push(fact);
  }
}
