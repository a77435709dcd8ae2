/** The report of the bench of virtual machines, and what it reads and compares. */
import { describe, expect, test } from "bun:test";
import { pairedDifferences } from "../../../scripts/bench/statistics.ts";
import type { VmBenchResult } from "../../../scripts/bench/vm.ts";
import { millisecondsAfter, numbersAfter } from "../../../scripts/bench/vm-bench.ts";
import { domainOf } from "../../../scripts/bench/vm-libvirt.ts";
import { batchOf, canonical, differencesOf } from "../../../scripts/bench/vm-network-batch.ts";
import { measureDecisions } from "../../../scripts/bench/vm-reconcile-worker.ts";
import { aimsOf, formatJson, formatMarkdown, place } from "../../../scripts/bench/vm-report.ts";
import { consoleOf } from "../../../scripts/bench/vm-start.ts";
import { type MemoryLook, memoryTimes } from "../../../scripts/bench/vm-worker.ts";

const rounds = (...samples: readonly number[]) => new Map(samples.map((one, at) => [at, [one]]));

/** A daemon that takes 1,000 KiB for each machine the first time, and 100 KiB the second. */
const looks: MemoryLook[] = memoryTimes.map(({ when, machines }, index) => {
  const proportional = index < 4 ? 10_000 + 1_000 * machines : 60_000 + 100 * machines;
  const daemon = { resident: 2 * proportional, proportional, anonymous: 1_024 };
  return { when, machines, daemon, holder: undefined, vmms: undefined };
});

const result: VmBenchResult = {
  host: { processor: "a processor", cores: 2, kernel: "6.18", hostler: { hostler: "0.1" } },
  peers: { QEMU: "7.2" },
  seed: 7,
  load: 0.25,
  starts: {
    // The second round stood under ten times the load, and so did its floor.
    sides: {
      floor: rounds(100, 1_000),
      hostler: rounds(115, 1_021),
      command: rounds(130, 1_030),
      libvirt: new Map(),
    },
    stages: {
      "prepare-requested": [1, 3],
      prepared: [4],
      "network-ready": [9],
      started: [20],
      attached: [60],
      booted: [62],
    },
    libvirtRefusal: "it is not there",
  },
  worker: {
    memory: looks,
    libvirt: [],
    adoption: { machines: 50, ready: [100], adopted: [1_200] },
  },
  replacements: { pauses: [40, 60], undisturbed: [3], usual: [0.2] },
  network: {
    machines: 100,
    hostler: [50],
    tools: [70],
    again: [20],
    compared: { rules: 900, links: 102, addresses: 1 },
    differences: [],
  },
  hashing: { bytes: 1024 ** 3, rows: [{ name: "sha256sum", samples: [0.5] }] },
  decisions: { machines: 1_000, first: [0.3], second: [3], commands: { first: 1_000, second: 0 } },
  clusters: [
    {
      ...{ machines: 1_000, workers: 10, firstMilliseconds: 500, firstWrites: 31 },
      ...{ secondMilliseconds: 40, secondWrites: 0, convergencePercent: 100 },
    },
  ],
};

describe("the report of the bench of virtual machines", () => {
  const lines = formatMarkdown(result).split("\n");
  const rowOf = (name: string) =>
    lines
      .find((line) => line.startsWith(`| ${name} |`))
      ?.split("|")
      .slice(2, -1)
      .map((cell) => cell.trim());

  test("says what is wanted, what was found, and what is missed", () => {
    expect(rowOf("create → first letter, beyond QEMU alone")).toEqual([
      "≤ 20 ms",
      "18.0 ms",
      "met",
    ]);
    const memory = "the worker's memory for each of 50 machines (PSS)";
    expect(rowOf(memory)).toEqual(["≤ 0.2 MB", "1.024 MB", "**missed**"]);
    const adopted = rowOf("50 machines taken up after kill -9");
    expect(adopted).toEqual(["≤ 1 s", "1200 ms", "**missed**"]);
    expect(rowOf("network for 100, against ip and nft")?.at(-1)).toBe("met");
    const declared = rowOf("1000 declared machines, until their workers have them");
    expect(declared).toEqual(["≤ 2 s, then 0 writes", "500 ms, then 0", "met"]);
    expect(place).toEqual({ file: "src/vm/README.md", bench: "vm" });
  });

  test("takes each start against QEMU alone in the same round", () => {
    const hostler = ["**568** (206–930), 2", "**18.0** (15.6–20.4), 2"];
    expect(rowOf("hostler, over the control socket")).toEqual(hostler);
    expect(rowOf("`virsh define`, `virsh start`")).toEqual(["—", "—"]);
    expect(lines).toContain("libvirt did not run: it is not there");
    expect(rowOf("median")).toEqual(["2.0", "4.0", "9.0", "20.0", "60.0", "62.0"]);
  });

  test("tells memory from none to many, the first time and the second", () => {
    expect(rowOf("hostler, 10 machines")).toEqual(["39.1", "19.5", "1.00", "—", "—"]);
    const second = rowOf('hostler, MB for each, "none again" to "50 again"');
    expect(second).toEqual(["0.205", "0.102", "", "", ""]);
    expect(lines.join("\n")).toContain("seed 7.");
    expect(lines.join("\n")).toContain("at a load of 0.3 before it");
  });

  test("a network that is not the same is no network that is ahead", () => {
    const network = { ...result.network, differences: ["one is not another"] };
    const aim = aimsOf({ ...result, network }).find(({ measure }) => measure.startsWith("network"));
    expect(aim).toMatchObject({ found: "50.0 to 70.0 ms, DIFFERENT", isMet: false });
  });

  test("says the same as JSON", () => {
    const report = JSON.parse(formatJson(result));
    expect(report).toMatchObject({ seed: 7, load: 0.25 });
    expect(report.starts[1]).toMatchObject({ name: "hostler", beyond: { median: 18, count: 2 } });
    expect(report.memory_per_machine.hostler.second.proportional).toBeCloseTo(0.1024, 6);
    expect(report.replacement.pause).toMatchObject({ median: 50, count: 2 });
    expect(report.aims.map(({ isMet }: { isMet: boolean }) => isMet)).toEqual([
      true,
      false,
      false,
      true,
      true,
    ]);
  });
});

test("differences of rounds that both sides have", () => {
  expect(pairedDifferences(rounds(5, 7, 9), rounds(1, 2))).toEqual([4, 5]);
});

describe("what programs of the bench say", () => {
  test("numbers after a word, on a line of their own", () => {
    expect(numbersAfter("took", "ready\ntook 2500000 4711\n")).toEqual([2_500_000, 4711]);
    expect(millisecondsAfter("at", "at 2500000\n")).toBe(2.5);
  });

  test.each(["", "took\n", "took x\n", "it took 5\n", "at 5\n"])("no number: %j", (output) => {
    expect(() => numbersAfter("took", output)).toThrow('Expected "took" and a number');
  });

  test("where QEMU listens for its console", () => {
    const chardev = "socket,id=console,path=/run/x/console,server=on,wait=off";
    expect(consoleOf(["-chardev", "socket,id=control,path=/c", "-chardev", chardev])).toBe(
      "/run/x/console",
    );
    expect(() => consoleOf(["-serial", "stdio"])).toThrow("No console among the words");
  });

  test("libvirt's machine has the serial port and the TAP that it is given", () => {
    const paths = { guest: "/g", serial: "/s", tap: "v-1" };
    const domain = domainOf("one", paths);
    expect(domain).toContain("<serial type='file'><source path='/s'/></serial>");
    expect(domain).toContain("<target dev='v-1' managed='no'/>");
    expect(domain).toContain("<kernel>/g</kernel>");
  });
});

describe("a network as ip and nft are told it", () => {
  test("links and addresses are lines of ip -batch; rules are nft's", () => {
    const bridge = "br-vm";
    const text = batchOf([
      {
        kind: "make-bridge",
        name: bridge,
        macAddress: "06:00:00:00:00:01",
        alias: "a b",
        mtu: undefined,
      },
      {
        kind: "add-address",
        bridge,
        address: 0x0a_64_00_01,
        prefix: 16,
        broadcast: 0x0a_64_ff_ff,
      },
      { kind: "make-tap", name: "t0", bridge, alias: "c", ownerUser: 7, mtu: undefined },
      { kind: "change-rules", changes: [] },
      { kind: "open-port", tap: "t0", isolated: false },
      { kind: "bring-up", bridge },
    ]);
    expect(text.split("\n")).toEqual([
      "link add name br-vm address 06:00:00:00:00:01 type bridge",
      'link set dev br-vm alias "a b"',
      "address add 10.100.0.1/16 broadcast 10.100.255.255 dev br-vm",
      "tuntap add dev t0 mode tap user 7 vnet_hdr",
      'link set dev t0 alias "c" master br-vm',
      "link set dev t0 up",
      "link set dev br-vm up",
    ]);
    expect(() => batchOf([{ kind: "remove-link", name: "t0", index: 3 }])).toThrow(
      "No line of ip -batch for remove-link",
    );
  });

  const bytes = (offset: number, len: number, right: number | string, op = "==") => ({
    match: { op, left: { payload: { base: "nh", offset, len } }, right },
  });

  test("bytes that lie beside each other may be compared at once", () => {
    const apart = { rule: { handle: 3, expr: [bytes(0, 16, 0x102), bytes(16, 8, 3), "accept"] } };
    const joined = { rule: { handle: 9, expr: [bytes(0, 24, "0x10203"), "accept"] } };
    expect(canonical(apart)).toEqual(canonical(joined));
    const other = { rule: { expr: [bytes(0, 24, "0x10204"), "accept"] } };
    expect(differencesOf([canonical(apart)], [canonical(other)])).toHaveLength(1);
    // Something else than a comparison between them is not passed over.
    const parted = { rule: { expr: [bytes(0, 16, 0x102), "counter", bytes(16, 8, 3), "accept"] } };
    expect(canonical(parted)).not.toEqual(canonical(joined));
    const unequal = { rule: { expr: [bytes(0, 24, 0x10203, "!="), "accept"] } };
    expect(canonical(unequal)).not.toEqual(canonical(joined));
  });

  test("numbers that the kernel gives, and a TAP's own address, are nobody's difference", () => {
    const link = (name: string, kind: string, address: string) => ({
      ifindex: address.length,
      ifname: name,
      address,
      flags: address === "a" ? ["UP", "NO-CARRIER"] : ["UP"],
      linkinfo: { info_kind: kind },
    });
    expect(canonical(link("t0", "tun", "a"))).toEqual(canonical(link("t0", "tun", "bb")));
    const [one, other] = [link("br", "bridge", "a"), link("br", "bridge", "bb")].map(canonical);
    expect(differencesOf([one], [other])).toHaveLength(1);
    expect(differencesOf([one], [])).toHaveLength(1);
  });
});

test("a worker decides about all that is declared, and then about nothing", () => {
  expect(measureDecisions(1).commands).toEqual({ first: 1_000, second: 0 });
});
