/** The DNS forwarder on a bridge: machines ask, a name server outside answers. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import {
  MOST_CONNECTIONS_A_MACHINE,
  MOST_IN_FLIGHT_A_MACHINE,
} from "../../src/network/dns/limits.ts";
import { parseAnswer, parseQuery, recordTypes } from "../../src/network/dns/message.ts";
import { framed } from "../../src/network/dns/upstream.ts";
import { type QueryWish, queryBytes } from "../support/dns-messages.ts";
import type { Program } from "../support/program.ts";
import { runProgram } from "../support/program.ts";
import type { DnsClientOptions } from "../support/programs/dns-client.ts";
import type { ServiceFacts } from "../support/programs/vm-services.ts";
import { file, root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import {
  hostAddress,
  ip,
  makeVmNetwork,
  outsideAddress,
  outsideHostAddress,
  startInPlace,
  startSniffer,
  type VmPlace,
} from "../support/vm-network.ts";
import { type Services, startServices } from "../support/vm-services.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const features = [root, file("/bin/busybox", "busybox-static"), file("/sbin/ip", "iproute2")];

/** What came back, as far as a test looks at it. */
interface Answered {
  readonly code: number;
  readonly truncated: boolean;
  readonly addresses: readonly string[];
  readonly bytes: Uint8Array;
}

function readAnswer(hex: string, query: Uint8Array): Answered {
  const parsed = parseQuery(query);
  const bytes = Uint8Array.fromHex(hex);
  if (!parsed.ok) return { code: (bytes[3] ?? 0) & 15, truncated: false, addresses: [], bytes };
  const answer = parseAnswer(bytes, parsed.value.question);
  if (!answer.ok) throw new Error(`${answer.refusal.key}: ${hex}`);
  const { code, truncated, addresses } = answer.value;
  return { code, truncated, addresses, bytes };
}

function client(machine: VmPlace, wish: Partial<DnsClientOptions>): Program {
  const usual = { server: hostAddress, transport: "udp", messages: [], answers: 1 } as const;
  return startInPlace(machine, "dns-client.ts", { ...usual, ...wish });
}

function answersOf({ output }: Program): string[] {
  return [...output.stdout.matchAll(/^answer (\S+)$/gm)].map(([, hex = ""]) => hex);
}

/** One question and its answer. */
async function ask(
  machine: VmPlace,
  name: string,
  wish: QueryWish & { readonly transport?: "udp" | "tcp" } = {},
): Promise<Answered> {
  const { transport = "udp", ...rest } = wish;
  const query = queryBytes(name, rest);
  const message = transport === "udp" ? query : framed(query);
  await using program = client(machine, { transport, messages: [message.toHex()] });
  const { exitCode, stderr } = await program.ended();
  if (exitCode !== 0) throw new Error(stderr);
  return readAnswer(answersOf(program)[0] ?? "", query);
}

interface World extends AsyncDisposable {
  readonly network: Awaited<ReturnType<typeof makeVmNetwork>>;
  readonly services: Services;
  readonly upstream: Program;
  /** With a list, with everything, and one that nobody knows. */
  readonly listed: VmPlace;
  readonly free: VmPlace;
  readonly stranger: VmPlace;
  readonly facts: ServiceFacts;
  readonly path: (name: string) => string;
}

async function makeWorld(change: ServiceFacts = {}): Promise<World> {
  await using owned = new AsyncDisposableStack();
  const folder = owned.use(temporaryFolder());
  const network = owned.use(await makeVmNetwork(3));
  for (const machine of network.machines) {
    await ip(machine, `address add ${machine.address}/16 dev eth0`);
    await ip(machine, `route add default via ${hostAddress}`);
  }
  const [listed, free, stranger] = network.machines;
  if (listed === undefined || free === undefined || stranger === undefined) throw new RangeError();
  const facts: ServiceFacts = {
    policies: {
      [listed.address]: ["*.allowed.test", "allowed.test"],
      [free.address]: "everything",
    },
    names: { web: listed.address, db: free.address },
    upstreams: [outsideAddress],
    ...change,
  };
  const upstream = owned.use(
    startInPlace(network.outside, "name-server.ts", { address: outsideAddress }),
  );
  await upstream.said(/serving/);
  const services = owned.use(await startServices(network.host, folder, ["dns"], facts));
  await services.program.said(/^serving$/m);
  const kept = owned.move();
  return {
    ...{ network, services, upstream, listed, free, stranger, facts },
    path: (name) => folder.file(name),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}

skipUnless("what a machine asks", features, () => {
  test("allowed names, refused ones, own ones, over UDP and TCP", async () => {
    await using world = await makeWorld();
    const { listed, free, services, upstream } = world;
    for (const transport of ["udp", "tcp"] as const) {
      const allowed = await ask(listed, "www.allowed.test", { transport });
      expect(allowed).toMatchObject({ code: 0, addresses: ["198.51.100.7"] });
      expect(await ask(listed, "www.other.test", { transport })).toMatchObject({ code: 3 });
      const free1 = await ask(free, "www.other.test", { transport });
      expect(free1).toMatchObject({ code: 0, addresses: ["198.51.100.7"] });
      const own = await ask(listed, "db.vm.internal", { transport });
      expect(own).toMatchObject({ code: 0, addresses: [free.address] });
      expect(await ask(free, "none.vm.internal", { transport })).toMatchObject({ code: 3 });
    }
    expect([...(services.program.output.stdout.match(/^allowed .*$/gm) ?? [])]).toEqual(
      Array.from({ length: 2 }, () => {
        const vmAddress = listed.address;
        const addresses = ["198.51.100.7"];
        const said = { vmAddress, name: "www.allowed.test", addresses, timeToLive: 60 };
        return `allowed ${JSON.stringify(said)}`;
      }),
    );
    // Nobody outside has heard of the refused name from the machine with the list.
    const asked = upstream.output.stdout.match(/^asked .*$/gm) ?? [];
    expect(asked.filter((line) => line.includes("www.other.test"))).toHaveLength(2);
    expect(asked.some((line) => line.includes("vm.internal"))).toBe(false);
  });

  test("aliases, names that are not there, and busybox' own client", async () => {
    await using world = await makeWorld();
    const { listed, services } = world;
    const alias = await ask(listed, "alias.allowed.test");
    expect(alias.addresses).toEqual(["198.51.100.8"]);
    const [line = ""] = await services.program.said(/^allowed .*alias.*$/m);
    expect(JSON.parse(line.slice("allowed ".length))).toMatchObject({ timeToLive: 30 });
    expect(await ask(listed, "missing.allowed.test")).toMatchObject({ code: 3, addresses: [] });
    const lookup = ["nslookup", "-type=ptr", "2.1.100.10.in-addr.arpa", hostAddress];
    const { stdout } = await runProgram([...listed.enter, "/bin/busybox", ...lookup]);
    expect(stdout).toContain("db.vm.internal");
    const first = ["nslookup", "-type=a", "www.allowed.test", hostAddress];
    const found = await runProgram([...listed.enter, "/bin/busybox", ...first]);
    expect(found.stdout).toContain("198.51.100.7");
  });

  test("the answer waits until its addresses are let through", async () => {
    await using world = await makeWorld();
    const { listed, services, facts } = world;
    const gate = world.path("gate");
    services.change({ ...facts, gate });
    const message = queryBytes("www.allowed.test").toHex();
    await using program = client(listed, { messages: [message] });
    await services.program.said(/^allowed /m);
    // What another question is told meanwhile would have come later than the answer.
    expect(await ask(listed, "web.vm.internal")).toMatchObject({ code: 0 });
    expect(answersOf(program)).toEqual([]);
    writeFileSync(gate, "");
    expect((await program.ended()).exitCode).toBe(0);
    expect(answersOf(program)).toHaveLength(1);
  });

  test("no way through, no answer: refused, and not in time", async () => {
    await using world = await makeWorld();
    const { listed, free, services, facts } = world;
    services.change({ ...facts, gate: "refuse" });
    expect(await ask(listed, "www.allowed.test")).toMatchObject({ code: 2, addresses: [] });
    services.change({ ...facts, gate: world.path("never") });
    expect(await ask(listed, "www.allowed.test")).toMatchObject({ code: 2, addresses: [] });
    expect((await services.counters()).dns).toMatchObject({ notAllowed: 2 });
    expect(await ask(free, "www.allowed.test")).toMatchObject({ code: 0 });
  });

  test("addresses of this host and its link are let through by no list", async () => {
    await using world = await makeWorld();
    const { listed, free, services } = world;
    expect(await ask(listed, "metadata.allowed.test")).toMatchObject({ code: 2, addresses: [] });
    expect(services.program.output.stdout).not.toContain("allowed {");
    expect(await ask(free, "metadata.other.test")).toMatchObject({ code: 0 });
  });

  test("what does not fit is asked for again over TCP", async () => {
    await using world = await makeWorld();
    const { listed, services } = world;
    const cut = await ask(listed, "big.allowed.test", { udpSize: 1_232 });
    expect(cut).toMatchObject({ truncated: true, addresses: [] });
    expect(services.program.output.stdout).not.toContain("allowed {");
    const whole = await ask(listed, "big.allowed.test", { transport: "tcp" });
    expect(whole.addresses).toHaveLength(100);
    const [line = ""] = await services.program.said(/^allowed .*$/m);
    expect(JSON.parse(line.slice("allowed ".length)).addresses).toHaveLength(100);
  });

  test("EDNS goes through, and a refused name says why in it", async () => {
    await using world = await makeWorld();
    const { listed, upstream } = world;
    await ask(listed, "www.allowed.test", { udpSize: 1_111 });
    await upstream.said(/asked udp www.allowed.test 1 edns 1111/);
    const refused = await ask(listed, "www.other.test", { udpSize: 1_232 });
    expect(refused.code).toBe(3);
    // Extended error 15, two bytes: 15.
    expect(refused.bytes.toHex()).toEndWith("000f0002000f");
    const type = recordTypes.HTTPS;
    expect(await ask(listed, "www.allowed.test", { type })).toMatchObject({ code: 0 });
    expect(upstream.output.stdout).not.toContain("www.allowed.test 65");
  });
});

skipUnless("what is wrong", features, () => {
  test("answers that are guessed are dropped, and the right one is taken", async () => {
    await using world = await makeWorld();
    const { listed, services } = world;
    const { addresses } = await ask(listed, "guessed.allowed.test");
    expect(addresses).toEqual(["198.51.100.7"]);
    expect((await services.counters()).dns).toMatchObject({ mismatched: 6, unanswered: 0 });
    // More guesses than the limit: each attempt has failed.
    expect(await ask(listed, "flooded.allowed.test")).toMatchObject({ code: 2, addresses: [] });
    expect((await services.counters()).dns).toMatchObject({ unanswered: 3 });
  });

  test("ids and ports are drawn anew for each question", async () => {
    await using world = await makeWorld();
    await using sniffer = await startSniffer(world.network);
    const messages = Array.from({ length: 20 }, (_, index) =>
      queryBytes(`n${index}.allowed.test`, { id: 7 }).toHex(),
    );
    await using program = client(world.listed, { messages, answers: messages.length });
    expect((await program.ended()).exitCode).toBe(0);
    const queries = (await sniffer.frames()).map((hex) => Uint8Array.fromHex(hex));
    const ports = queries.map((bytes) => ((bytes[20] ?? 0) << 8) | (bytes[21] ?? 0));
    const ids = queries.map((bytes) => ((bytes[28] ?? 0) << 8) | (bytes[29] ?? 0));
    expect(queries).toHaveLength(20);
    expect(new Set(ports).size).toBeGreaterThan(15);
    expect(new Set(ids).size).toBeGreaterThan(15);
    // In the answers the asker's own id stands again.
    expect(new Set(answersOf(program).map((hex) => hex.slice(0, 4)))).toEqual(new Set(["0007"]));
  });

  test("one upstream is silent: the next one is asked; all refuse: that is said", async () => {
    const nobody = "10.88.0.99";
    await using world = await makeWorld({ upstreams: [nobody, outsideAddress] });
    const { listed, services, facts } = world;
    expect(await ask(listed, "www.allowed.test")).toMatchObject({ addresses: ["198.51.100.7"] });
    services.change({ ...facts, upstreams: [outsideAddress] });
    expect(await ask(listed, "servfail.allowed.test")).toMatchObject({ code: 2 });
    expect(await ask(listed, "broken.allowed.test")).toMatchObject({ code: 2 });
    services.change({ ...facts, upstreams: [] });
    const none = await ask(listed, "www.allowed.test", { udpSize: 1_232 });
    expect(none.code).toBe(2);
    expect(none.bytes.toHex()).toEndWith("000f00020016");
    services.change({ ...facts, upstreams: [hostAddress] });
    expect(await ask(listed, "www.allowed.test")).toMatchObject({ code: 2 });
  });

  test("more questions at once than the limit are refused at once", async () => {
    await using world = await makeWorld();
    const { listed, services } = world;
    const messages = Array.from({ length: MOST_IN_FLIGHT_A_MACHINE + 6 }, (_, index) =>
      queryBytes(`silent.n${index}.allowed.test`).toHex(),
    );
    await using program = client(listed, { messages, answers: 6 });
    expect((await program.ended()).exitCode).toBe(0);
    expect((await services.counters()).dns).toMatchObject({ overLimit: 6 });
    // Another machine has its own.
    expect(await ask(world.free, "www.allowed.test")).toMatchObject({ code: 0 });
  });

  test("a stranger is not answered, and nonsense is refused by its id", async () => {
    await using world = await makeWorld();
    const { listed, stranger, services } = world;
    const message = queryBytes("web.vm.internal").toHex();
    await using unheard = client(stranger, { messages: [message] });
    await using refused = client(stranger, { transport: "tcp", messages: [] });
    await refused.said(/closed/);
    const messages = ["00", `0009${"2800"}${"0000".repeat(4)}`, `000a${"ff".repeat(10)}`, message];
    await using program = client(listed, { messages, answers: 2 });
    expect((await program.ended()).exitCode).toBe(0);
    expect(answersOf(program)[0]).toStartWith("00098084");
    const { dns } = await waitFor("the stranger's question", async () => {
      const counters = await services.counters();
      return (counters.dns["unknown"] ?? 0) >= 2 && counters;
    });
    expect(dns).toMatchObject({ malformed: 3 });
    expect(answersOf(unheard)).toEqual([]);
  });

  test("connections: too many, one that announces too much, and silent ones", async () => {
    await using world = await makeWorld();
    const { listed } = world;
    const connections = MOST_CONNECTIONS_A_MACHINE + 2;
    await using many = client(listed, { transport: "tcp", connections });
    await waitFor("two closed ones", () => many.output.stdout.match(/closed/g)?.length === 2);
    // Whoever says nothing is let go after IDLE_TIME, and others are let in.
    await waitFor("all closed", () => many.output.stdout.match(/closed/g)?.length === connections);
    await using long = client(listed, { transport: "tcp", messages: ["ffff"] });
    await long.said(/closed/);
    expect(await ask(listed, "web.vm.internal", { transport: "tcp" })).toMatchObject({ code: 0 });
  });

  test("starting: no such interface, and another server at the address", async () => {
    await using world = await makeWorld();
    using folder = temporaryFolder();
    await using second = await startServices(world.network.host, folder, ["dns"], {});
    expect(second.program.output.stdout).toMatch(
      /refused DnsRefused: .*another program has UDP port 53/,
    );
    await using third = await startServices(world.network.outside, folder, ["dns"], {});
    expect(third.program.output.stdout).toMatch(/expected an interface of that name, found none/);
  });
});

skipUnless("the way out", features, () => {
  test("is no way in: what listens on the bridge is not heard by another interface", async () => {
    await using world = await makeWorld();
    const { outside } = world.network;
    // The host has the address, so that its address alone would let it in.
    await ip(outside, `route add ${hostAddress}/32 via ${outsideHostAddress}`);
    await using refused = startInPlace(outside, "dns-client.ts", {
      ...{ server: hostAddress, transport: "tcp", messages: [], answers: 1 },
    });
    expect((await refused.ended()).stderr).toContain("ECONNREFUSED");
    expect(await ask(world.listed, "web.vm.internal", { transport: "tcp" })).toMatchObject({
      code: 0,
    });
  });

  test("carries questions to upstreams, and nothing else", async () => {
    await using world = await makeWorld();
    await using sniffer = await startSniffer(world.network);
    await ask(world.listed, "www.other.test");
    await ask(world.listed, "web.vm.internal");
    await ask(world.listed, "web.vm.internal", { transport: "tcp" });
    await using unheard = client(world.stranger, {
      messages: [queryBytes("web.vm.internal").toHex()],
    });
    await unheard.said(/sent/);
    expect(await sniffer.frames()).toEqual([]);
    await ask(world.listed, "www.allowed.test");
    const frames = await sniffer.frames();
    expect(frames).toHaveLength(1);
    // From the host's own address, by UDP, to the upstream's port 53.
    expect(frames[0]?.slice(24, 40)).toBe("0a5800010a580002");
    expect(frames[0]?.slice(44, 48)).toBe("0035");
  });
});
