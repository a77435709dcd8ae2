/** The DHCP server on a bridge, with Debian's own client in machines of their own namespaces. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, rmSync } from "node:fs";
import type { Reservation } from "../../src/network/dhcp/reservation.ts";
import { clientBytes } from "../support/dhcp-messages.ts";
import { runProgram } from "../support/program.ts";
import { file, root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import {
  hostAddress,
  ip,
  makeVmNetwork,
  startInPlace,
  startSniffer,
  type VmPlace,
} from "../support/vm-network.ts";
import { startClient, startServices } from "../support/vm-services.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

function reservationFor(machine: VmPlace, change: Partial<Reservation> = {}): Reservation {
  return {
    macAddress: machine.macAddress,
    address: machine.address,
    hostname: "web",
    leaseSeconds: 3_600,
    gateway: hostAddress,
    dns: [hostAddress],
    mtu: 1_400,
    ...change,
  };
}

function pick<T>(list: readonly T[], index = 0): T {
  const found = list[index];
  if (found === undefined) throw new RangeError(`Nothing at ${index}`);
  return found;
}

function environmentIn(path: string): Record<string, string> {
  const lines = readFileSync(path, "utf8").split("\n");
  return Object.fromEntries(lines.map((line) => line.split(/=(.*)/s).slice(0, 2)));
}

const features = [root, file("/bin/busybox", "busybox-static"), file("/sbin/ip", "iproute2")];

skipUnless("a machine on the bridge", features, () => {
  test("gets what is reserved, keeps it by renewal, and gives it back", async () => {
    using folder = temporaryFolder();
    await using network = await makeVmNetwork(1);
    const machine = pick(network.machines);
    const facts = { reservations: [reservationFor(machine)] };
    await using services = await startServices(network.host, folder, ["dhcp"], facts);
    await using sniffer = await startSniffer(network);
    const { program, told } = startClient(machine, folder, { name: "first" });
    await using client = program;
    await client.said(/told bound/);
    expect(environmentIn(`${told}.bound`)).toMatchObject({
      ip: machine.address,
      mask: "16",
      router: hostAddress,
      dns: hostAddress,
      serverid: hostAddress,
      hostname: "web",
      domain: "vm.internal",
      lease: "3600",
      mtu: "1400",
      broadcast: "10.100.255.255",
    });
    await services.program.said(/event \{"kind":"bound"/);
    // From here on the client asks by unicast, with a checksum that its card would have made.
    client.kill("SIGUSR1");
    await client.said(/told renew/);
    const ping = ["ping", "-c", "1", "-W", "5", hostAddress];
    const pinged = await runProgram([...machine.enter, "/bin/busybox", ...ping]);
    expect(pinged.exitCode).toBe(0);
    client.kill("SIGUSR2");
    await services.program.said(/event \{"kind":"released"/);
    const { dhcp } = await services.counters();
    expect(dhcp).toMatchObject({ malformed: 0, unsent: 0, refusals: 0 });
    expect(dhcp["acknowledgements"]).toBeGreaterThanOrEqual(2);
    expect(await sniffer.frames()).toEqual([]);
  });

  test("the lease outlasts the server: another one, knowing nothing, confirms it", async () => {
    using folder = temporaryFolder();
    await using network = await makeVmNetwork(1);
    const machine = pick(network.machines);
    const facts = { reservations: [reservationFor(machine)] };
    await using first = await startServices(network.host, folder, ["dhcp"], facts);
    const { program } = startClient(machine, folder, { name: "client" });
    await using client = program;
    await client.said(/told bound/);
    first.program.kill("SIGKILL");
    await first.program.ended();
    await using second = await startServices(network.host, folder, ["dhcp"], facts);
    client.kill("SIGUSR1");
    await client.said(/told renew/);
    await second.program.said(/event \{"kind":"bound"/);
  });

  test("a card that nobody announced gets nothing, and another one at its side does", async () => {
    using folder = temporaryFolder();
    await using network = await makeVmNetwork(2);
    const [known, unknown] = [pick(network.machines), pick(network.machines, 1)];
    const facts = { reservations: [reservationFor(known)] };
    await using services = await startServices(network.host, folder, ["dhcp"], facts);
    const words = ["-n", "-q"];
    const stranger = startClient(unknown, folder, { name: "stranger", words });
    await using _stranger = stranger.program;
    const guest = startClient(known, folder, { name: "guest", words });
    await using _guest = guest.program;
    expect((await guest.program.ended()).exitCode).toBe(0);
    expect((await stranger.program.ended()).exitCode).toBe(1);
    expect(existsSync(`${stranger.told}.bound`)).toBe(false);
    const { dhcp } = await services.counters();
    expect(dhcp).toMatchObject({ malformed: 0, disguised: 0 });
    expect(JSON.stringify(dhcp["ignored"])).toMatch(/"no reservation":[1-9]/);
  });

  test("an answer goes to its card alone", async () => {
    using folder = temporaryFolder();
    await using network = await makeVmNetwork(2);
    const [machine, other] = [pick(network.machines), pick(network.machines, 1)];
    const facts = { reservations: [reservationFor(machine)] };
    await using _services = await startServices(network.host, folder, ["dhcp"], facts);
    const sniffer = startInPlace(other, "packet-sniffer.ts", { interface: "eth0" });
    await using _sniffer = sniffer;
    await sniffer.said(/listening/);
    const client = startClient(machine, folder, { name: "client", words: ["-n", "-q"] });
    await using _client = client.program;
    expect((await client.program.ended()).exitCode).toBe(0);
    // From the server's port to the client's: what the other one would have seen.
    expect(sniffer.output.stdout).toContain("00440043");
    expect(sniffer.output.stdout).not.toContain("00430044");
  });

  test("a reservation that has changed takes effect at the next renewal", async () => {
    using folder = temporaryFolder();
    await using network = await makeVmNetwork(1);
    const machine = pick(network.machines);
    const before = reservationFor(machine);
    await using services = await startServices(network.host, folder, ["dhcp"], {
      reservations: [before],
    });
    const { program, told } = startClient(machine, folder, { name: "client" });
    await using client = program;
    await client.said(/told bound/);
    rmSync(`${told}.bound`);
    services.change({ reservations: [{ ...before, address: "10.100.9.9" }] });
    client.kill("SIGUSR1");
    await client.said(/told nak/);
    await waitFor("another lease", () => existsSync(`${told}.bound`));
    expect(environmentIn(`${told}.bound`)["ip"]).toBe("10.100.9.9");
  });

  test("a reservation that cannot be given is told once, and the bridge may go down", async () => {
    using folder = temporaryFolder();
    await using network = await makeVmNetwork(1);
    const machine = pick(network.machines);
    const wrong = reservationFor(machine, { address: "192.0.2.1" });
    await using services = await startServices(network.host, folder, ["dhcp"], {
      reservations: [wrong],
    });
    const { program } = startClient(machine, folder, { name: "client" });
    await using client = program;
    const [line = ""] = await services.program.said(/event \{"kind":"reservation-refused".*/);
    expect(line).toContain("received 192.0.2.1: take one from the network's own pool");
    await ip(network.host, "link set vms down");
    await ip(network.host, "link set vms up");
    services.change({ reservations: [reservationFor(machine)] });
    await client.said(/told bound/);
    expect(services.program.output.stdout).not.toContain("lost");
  });

  test("an address that somebody else has is declined, and that is told", async () => {
    using folder = temporaryFolder();
    await using network = await makeVmNetwork(2);
    const [machine, squatter] = [pick(network.machines), pick(network.machines, 1)];
    await ip(squatter, `address add ${machine.address}/16 dev eth0`);
    const facts = { reservations: [reservationFor(machine)] };
    await using services = await startServices(network.host, folder, ["dhcp"], facts);
    const { program } = startClient(machine, folder, { name: "client", words: ["-a"] });
    await using _client = program;
    const [line = ""] = await services.program.said(/event \{"kind":"declined".*/);
    expect(line).toContain(machine.address);
    expect(line).toContain(machine.macAddress);
  });

  test("who speaks in another card's name is not heard", async () => {
    using folder = temporaryFolder();
    await using network = await makeVmNetwork(2);
    const [machine, liar] = [pick(network.machines), pick(network.machines, 1)];
    const facts = { reservations: [reservationFor(machine)] };
    await using services = await startServices(network.host, folder, ["dhcp"], facts);
    const release = clientBytes("release", {
      hardwareAddress: machine.macAddress,
      clientAddress: machine.address,
      server: hostAddress,
    });
    const send = { interface: "eth0", from: "0.0.0.0", payloads: [release.toHex(), "00", ""] };
    await using sending = startInPlace(liar, "send-dhcp.ts", send);
    expect((await sending.ended()).exitCode).toBe(0);
    const dhcp = await waitFor("all messages", async () => {
      const counters = await services.counters();
      return counters.dhcp["received"] === 3 && counters.dhcp;
    });
    expect(dhcp).toMatchObject({ disguised: 1, malformed: 2, offers: 0 });
    expect(services.program.output.stdout).not.toContain("released");
  });

  test("a burst over the rate is not answered, and a flood of nonsense does no harm", async () => {
    using folder = temporaryFolder();
    await using network = await makeVmNetwork(1);
    const machine = pick(network.machines);
    const facts = { reservations: [reservationFor(machine)] };
    await using services = await startServices(network.host, folder, ["dhcp"], facts);
    const { macAddress: hardwareAddress } = machine;
    const discover = clientBytes("discover", { hardwareAddress }).toHex();
    const payloads = Array.from({ length: 100 }, (_, index) => (index < 60 ? "ff" : discover));
    const send = { interface: "eth0", from: "0.0.0.0", payloads };
    await using sending = startInPlace(machine, "send-dhcp.ts", send);
    expect((await sending.ended()).exitCode).toBe(0);
    const counters = await waitFor("all messages", async () => {
      const { dhcp } = await services.counters();
      return dhcp["received"] === 100 && dhcp;
    });
    expect(counters["malformed"]).toBe(60);
    expect(counters["offers"]).toBeLessThan(40);
    expect(counters["offers"]).toBeGreaterThanOrEqual(16);
  });
});

skipUnless("starting", features, () => {
  test("no such interface; another server on the bridge", async () => {
    using folder = temporaryFolder();
    await using network = await makeVmNetwork(0);
    await using first = await startServices(network.host, folder, ["dhcp"], {});
    expect(first.program.output.stdout).toContain("serving");
    await using second = await startServices(network.host, folder, ["dhcp"], {});
    expect(second.program.output.stdout).toMatch(
      /refused DhcpRefused: .*another program has UDP port 67/,
    );
    await using third = await startServices(network.outside, folder, ["dhcp"], {});
    expect(third.program.output.stdout).toMatch(/expected an interface of that name, found none/);
  });

  test("a bridge that goes away is told", async () => {
    using folder = temporaryFolder();
    await using network = await makeVmNetwork(0);
    await using services = await startServices(network.host, folder, ["dhcp"], {});
    await ip(network.host, "link delete vms");
    await services.program.said(/event \{"kind":"lost","reason":"vms: ENETDOWN"/);
  });
});

skipUnless("the way out", features, () => {
  test("a plain UDP socket would answer by it, which is why the server has none", async () => {
    await using network = await makeVmNetwork(1);
    await using sniffer = await startSniffer(network);
    const send = { to: "255.255.255.255", port: 68, text: "plain" };
    await using sending = startInPlace(network.host, "send-marker.ts", send);
    expect((await sending.ended()).exitCode).toBe(0);
    const frames = await sniffer.frames();
    expect(frames).toHaveLength(1);
    expect(frames[0]).toContain(Buffer.from("plain").toString("hex"));
  });
});
