/**
 * Several networks of one worker: machines with a card in each, addresses by DHCP, names, and ports
 * of the host; over the worker's death. A machine that is off keeps its TAPs, at whose other ends
 * the test puts an IP stack in a namespace of its own.
 */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import type { VmDetail, VmMetrics, VmSummary, WorkerStatus } from "../../src/vm/protocol.ts";
import { askFrom, connect, Namespace } from "../support/network-machines.ts";
import { file, program, root, skipUnless } from "../support/skips.ts";
import { startClient } from "../support/vm-services.ts";
import { type TestImage, VmHost } from "../support/vm-worker.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(90_000);

let host: VmHost;
let image: TestImage;
let owned: AsyncDisposableStack;

beforeEach(async () => {
  owned = new AsyncDisposableStack();
  host = owned.use(await VmHost.make());
  image = await host.image();
});
afterEach(() => owned.disposeAsync());

const storage = [
  "[network.storage]",
  'bridge = "br-storage"',
  'subnet = "10.101.0.0/24"',
  "nat = false",
  "mtu = 1400",
];
const configuration = [
  ...storage,
  "[network.tiny]",
  'bridge = "br-tiny"',
  'subnet = "10.102.0.0/30"',
];

const create = (name: string, ...words: readonly string[]) =>
  host.say("create", name, "--image", image.path, "--hash", image.hash, ...words);
const refusedBy = async (name: string, ...words: readonly string[]) => {
  const made = ["--image", image.path, "--hash", image.hash, ...words];
  const { exitCode, stderr } = await host.run("create", name, ...made);
  expect(exitCode).not.toBe(0);
  return stderr;
};
const json = async <Answer>(...words: readonly string[]) =>
  JSON.parse(await host.say(...words, "--json")) as Answer;
const cardsOf = async (name: string) => (await json<VmDetail>("show", name)).summary.cards;

/** Puts a cable on a TAP; its other end is a card of the namespace. */
async function plug(
  machine: Namespace,
  card: VmSummary["cards"][number],
  name: string,
): Promise<void> {
  const here = new Namespace(host.processId);
  const peer = `peer-${name}`;
  const relay = owned.use(here.start("relay", card.tap, peer, host.folder.file(`${peer}.sock`)));
  await relay.said(/ready/);
  await here.run("ip", "link", "set", peer, "netns", String(machine.processId));
  await machine.run("ip", "link", "set", peer, "name", name, "address", card.mac);
  await machine.run("ip", "link", "set", name, "up");
}

/** What a client of DHCP is told at a card, by Debian's own. */
async function askForAddress(machine: Namespace, name: string, turn: number) {
  const place = { enter: machine.words([]) };
  const started = startClient(place, host.folder, { name: `${name}-${turn}`, card: name });
  await using client = started.program;
  await client.said(/told bound/);
  const told = await Bun.file(`${started.told}.bound`).text();
  const entries = told.split("\n").map((line) => line.split(/=(.*)/s).slice(0, 2));
  return Object.fromEntries(entries) as Record<string, string>;
}

/** A machine with a card in each of two networks, an IP stack in its place, and another one. */
async function makeTwo() {
  await host.start({ configuration });
  const networks = ["--network", "default", "--network", "storage=10.101.0.5"];
  await create("web", ...networks, "--forward", "tcp:8080:80");
  await create("db", "--network", "storage");
  const [first, second] = await cardsOf("web");
  const [other] = await cardsOf("db");
  if (first === undefined || second === undefined || other === undefined) {
    throw new Error("Expected two cards, and one");
  }
  expect([first.network, second.network, second.address]).toEqual([
    ...["default", "storage", "10.101.0.5"],
  ]);
  expect(new Set([first.mac, second.mac, other.mac]).size).toBe(3);
  await host.say("shutdown", "web", "--now", "--wait");
  const machine = owned.use(await Namespace.make());
  await plug(machine, first, "eth0");
  await plug(machine, second, "eth1");
  return { first, second, other, machine };
}

const needs = [
  root,
  program("qemu-system-x86_64", "qemu-system-x86"),
  program("ip", "iproute2"),
  program("nft", "nftables"),
  file("/bin/busybox", "busybox-static"),
  file("/dev/net/tun", "none: a module of the kernel"),
];

skipUnless("networks of a worker", needs, () => {
  test("a machine with two cards has its addresses by DHCP, and names, over a kill", async () => {
    await host.on("ip", "link", "add", "foreign", "type", "bridge");
    const { first, second, other, machine } = await makeTwo();
    const before = await host.network();
    const bridges = ["br-procurator", "br-storage"];
    expect(before.links.toSorted()).toEqual(
      [...bridges, "foreign", first.tap, second.tap, other.tap].toSorted(),
    );
    expect(await host.say("list")).toContain(`${first.address}, 10.101.0.5`);
    expect(await host.say("status")).toMatch(/storage {2,}br-storage, 10\.101\.0\.0\/24, 2 cards/);
    expect(await askForAddress(machine, "eth0", 1)).toMatchObject({
      ...{ ip: first.address, router: "10.100.0.1", dns: "10.100.0.1" },
    });
    const told = await askForAddress(machine, "eth1", 1);
    expect(told).toMatchObject({ ip: "10.101.0.5", mask: "24", mtu: "1400" });
    // Two default routes would be one too many.
    expect(told["router"]).toBeUndefined();
    const name = ["/bin/busybox", "nslookup", "db.vm.internal", "10.100.0.1"];
    expect(await machine.run(...name)).toContain(other.address);

    await host.kill();
    await host.start({ configuration });
    expect(await cardsOf("web")).toEqual([first, second]);
    expect(await host.network()).toEqual(before);
    expect(await askForAddress(machine, "eth1", 2)).toMatchObject({ ip: "10.101.0.5" });

    await host.say("delete", "web", "--now", "--wait");
    const { links } = await host.network();
    expect(links.toSorted()).toEqual(["br-storage", "foreign", other.tap]);
    await host.say("delete", "db", "--now", "--wait");
    expect(await host.network()).toEqual({ links: ["foreign"], tables: [] });
  });

  test("a port of the host leads to a machine, over a kill; its cards are counted", async () => {
    const { first, second, machine } = await makeTwo();
    await askForAddress(machine, "eth0", 1);
    await askForAddress(machine, "eth1", 1);
    const server = owned.use(machine.start("serve", "tcp", first.address, "80"));
    await server.said(/ready/);
    const here = new Namespace(host.processId);
    const outside = owned.use(await Namespace.make());
    await host.on("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward");
    const addresses = { address: "192.0.2.1/24", otherAddress: "192.0.2.2/24" };
    await connect(here, outside, { link: "uplink", ...addresses });
    expect(await askFrom(outside, "tcp", "192.0.2.1", 8080)).toBe("192.0.2.2");
    const [metrics] = await json<VmMetrics[]>("metrics", "web");
    expect(metrics?.cards.map(({ tap }) => tap)).toEqual([first.tap, second.tap]);
    expect(metrics?.cards.every((card) => card.sent_bytes > 0)).toBe(true);
    const series = await host.say("metrics", "web");
    expect(series).toContain(`{vm="web",network="storage",tap="${second.tap}"}`);

    await host.kill();
    await host.start({ configuration });
    expect(await askFrom(outside, "tcp", "192.0.2.1", 8080)).toBe("192.0.2.2");
    await host.say("delete", "web", "--now", "--wait");
    await host.say("delete", "db", "--now", "--wait");
    expect(await host.network()).toEqual({ links: ["uplink"], tables: [] });
  });

  test("what cannot be had is refused, naming who has it", async () => {
    await host.start({ configuration });
    await create("web", "--network", "storage=10.101.0.5", "--forward", "tcp:8080:80");
    const unknown = await refusedBy("a", "--network", "lab");
    expect(unknown).toContain("a network of this worker (default, storage, tiny), received lab");
    expect(await refusedBy("a", "--network", "storage=10.102.0.5")).toContain(
      "10.102.0.5 is not in 10.101.0.0/24",
    );
    expect(await refusedBy("a", "--network", "storage=10.101.0.1")).toContain("the network's own");
    expect(await refusedBy("a", "--network", "storage=10.101.0.5")).toContain("belongs to web");
    expect(await refusedBy("a", "--forward", "tcp:8080:80")).toContain(
      "a: tcp port 8080 of the host leads to web already",
    );
    const here = new Namespace(host.processId);
    const server = owned.use(here.start("serve", "tcp", "0.0.0.0", "9090"));
    await server.said(/ready/);
    expect(await refusedBy("a", "--forward", "tcp:9090:80")).toContain(
      "tcp port 9090 is that of a program of this host",
    );
    // What was taken for a machine that is refused is given back.
    await create("b", "--network", "tiny");
    expect(await refusedBy("a", "--network", "storage=10.101.0.6", "--network", "tiny")).toContain(
      "All 1 addresses of 10.102.0.0/30 are taken",
    );
    await create("c", "--network", "storage=10.101.0.6", "--forward", "udp:8080:80");
    const machine = [
      { name: "d", imagePath: image.path, hash: image.hash, networks: ["default", "lab"] },
    ];
    const declaration = host.folder.file("machines.json");
    writeFileSync(declaration, JSON.stringify({ machine }));
    expect((await host.run("apply", declaration)).stderr).toContain("received lab");
    const status = await json<WorkerStatus>("status");
    expect(status.generation).toBeNull();
    expect(status.networks.map(({ name, cards }) => [name, cards])).toEqual([
      ...[
        ["default", 0],
        ["storage", 2],
        ["tiny", 1],
      ],
    ]);
  });

  test("a network that is taken out of the configuration stays as it is", async () => {
    await host.start({ configuration });
    await create("web", "--network", "default", "--network", "storage", "--start");
    await host.counts("web");
    const before = await host.network();
    await host.kill();
    await host.start();
    expect(host.said).toContain("received storage");
    await host.counts("web");
    await create("other");
    await host.say("delete", "other", "--now", "--wait");
    const after = await host.network();
    expect(after).toEqual(before);
    process.kill(host.vmm, "SIGKILL");
    const why = "a network of this worker (default), received storage";
    await waitFor("its start to be refused", async () => {
      return (await host.summary("web")).reason?.includes(why);
    });
    await host.kill();
    await host.start({ configuration });
    expect(await host.reaches("web", "running")).toMatchObject({ reason: null });
    await host.counts("web");
    await host.say("delete", "web", "--now", "--wait");
    expect(await host.network()).toEqual({ links: [], tables: [] });
  });

  test("what somebody else changes is made again at once, and told", async () => {
    await host.start();
    await create("web", "--start");
    const network = async () => {
      const { links, tables } = await host.network();
      return { links: links.toSorted(), tables: tables.toSorted() };
    };
    const before = await network();
    const { pid, tap } = await host.summary("web");
    const mended = async (...words: readonly string[]) => {
      const told = host.said.split("somebody else changed").length;
      await host.on(...words);
      await waitFor(`what ${words.join(" ")} took`, async () => {
        const isTold = host.said.split("somebody else changed").length > told;
        return isTold && Bun.deepEquals(await network(), before);
      }).catch((error: Error) => {
        error.message += `\nthe worker: ${host.said}`;
        throw error;
      });
    };
    await mended("nft", "delete", "table", "netdev", "hostler-vm-br-procurator");
    expect(await host.say("status")).toMatch(
      /WARNING .*somebody else changed the network of the machines.*change-rules/,
    );
    await mended("nft", "flush", "ruleset");
    await mended("ip", "link", "set", "br-procurator", "down");
    await mended("ip", "address", "flush", "dev", "br-procurator");
    expect((await host.summary("web")).reason).toBeNull();
    await mended("ip", "link", "delete", tap ?? "");
    const cutOff = /its card was removed by somebody else.*hostler vm replace-vmm web/;
    expect(await host.say("list")).toMatch(cutOff);
    expect(await host.say("status")).toMatch(cutOff);
    await host.say("replace-vmm", "web", "--wait");
    const after = await host.summary("web");
    expect(after.pid).not.toBe(pid);
    expect(after.reason).toBeNull();
    // Its own changes are nobody else's.
    const told = host.said.split("somebody else changed").length;
    await create("api");
    await host.say("delete", "api", "--wait");
    await mended("nft", "flush", "ruleset");
    expect(host.said.split("somebody else changed").length).toBe(told + 1);
  });

  test("a network in a VLAN is made, or refused by name where the kernel has none", async () => {
    await host.start({ configuration: [...storage, "vlan = 20"] });
    const made = ["--image", image.path, "--hash", image.hash, "--network", "storage"];
    const { exitCode, stderr } = await host.run("create", "web", ...made);
    if (exitCode === 0) {
      const [card] = await cardsOf("web");
      const vlans = await host.on("bridge", "-j", "vlan", "show", "dev", card?.tap ?? "");
      expect(JSON.parse(vlans)).toMatchObject([{ vlans: [{ vlan: 20 }] }]);
    } else {
      expect(stderr).toContain(
        "was not started: filter-vlans br-storage: this kernel has no VLANs",
      );
      await waitFor("another try", () => host.said.split("this kernel has no VLANs").length > 2);
      expect(host.said).not.toContain("somebody else changed");
    }
    await create("db");
    await host.say("delete", "web", "--now", "--wait");
    await host.say("delete", "db", "--now", "--wait");
    expect(await host.network()).toEqual({ links: [], tables: [] });
  });

  test("a machine with two cards goes on under another VMM, and from a snapshot", async () => {
    await host.start({ configuration });
    await create("web", "--network", "storage", "--network", "default", "--start");
    await host.counts("web");
    const cards = await cardsOf("web");
    expect(await host.say("replace-vmm", "web", "--wait")).toStartWith("web: running");
    const last = await host.counts("web");
    await host.say("snapshot", "web", "first");
    await host.say("delete", "web", "--now", "--wait");
    await create("thief", "--forward", "tcp:8080:80");
    expect(await host.say("restore", "web", "first")).toContain("web");
    await host.reaches("web", "running");
    expect(await host.counts("web")).toBeGreaterThan(last);
    expect(await cardsOf("web")).toEqual(cards);
  });
});
