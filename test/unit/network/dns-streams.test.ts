/** The limits of DNS over TCP and of what is under way, on loopback. */
import { afterAll, expect, test } from "bun:test";
import type { Socket } from "bun";
import { Forwarding, type ForwardingCounters } from "../../../src/network/dns/forwarding.ts";
import {
  MOST_CONNECTIONS,
  MOST_IN_FLIGHT,
  MOST_IN_FLIGHT_A_MACHINE,
  MOST_UNTAKEN,
} from "../../../src/network/dns/limits.ts";
import { parseQuery, type Query } from "../../../src/network/dns/message.ts";
import { StreamServer } from "../../../src/network/dns/stream-server.ts";
import { askByTcp, askByUdp, FrameReader, framed } from "../../../src/network/dns/upstream.ts";
import { addressRecord, answerBytes, queryBytes } from "../../support/dns-messages.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { waitFor, withDeadline } from "../../support/wait-for.ts";

const loop = testEventLoop();
afterAll(() => loop[Symbol.dispose]());
const address = "127.0.0.1";

function serve(answer: (query: Uint8Array) => Promise<Uint8Array | undefined>): StreamServer {
  const usual = { loop, address, port: 0, isKnown: () => true };
  return StreamServer.listen({ ...usual, mostAMachine: MOST_CONNECTIONS * 2, answer });
}

interface Client {
  readonly socket: Socket<undefined>;
  readonly messages: Uint8Array[];
  readonly closed: Promise<void>;
}

async function connect(port: number): Promise<Client> {
  const reader = new FrameReader(65_535);
  const messages: Uint8Array[] = [];
  const closed = Promise.withResolvers<void>();
  const socket = await Bun.connect<undefined>({
    hostname: address,
    port,
    socket: {
      data: (_socket, bytes) => {
        messages.push(...(reader.add(bytes) ?? []));
      },
      close: () => closed.resolve(),
    },
  });
  return { socket, messages, closed: closed.promise };
}

test("more connections than the limit: the newest is closed", async () => {
  using server = serve(async (query) => query);
  const clients: Client[] = [];
  for (let count = 0; count < MOST_CONNECTIONS; count += 1) {
    clients.push(await connect(server.port));
  }
  const oneMore = await connect(server.port);
  await withDeadline("the end of the newest", oneMore.closed);
  const [first] = clients;
  first?.socket.write(framed(Uint8Array.of(7)));
  await waitFor("an answer", () => first?.messages.length === 1);
  for (const { socket } of clients) socket.end();
});

test("whoever takes nothing of its answers is let go", async () => {
  const answer = new Uint8Array(MOST_UNTAKEN / 8);
  using server = serve(async () => answer);
  const client = await connect(server.port);
  client.socket.pause();
  const query = framed(new Uint8Array(12));
  const lettingGo = waitFor("the end of the connection", () => {
    client.socket.write(query);
    return server.connections === 0;
  });
  await lettingGo;
  client.socket.terminate();
});

test("an answer of nothing ends the connection, and so does what is too long", async () => {
  using server = serve(async () => undefined);
  const silent = await connect(server.port);
  silent.socket.write(framed(Uint8Array.of(1)));
  await withDeadline("its end", silent.closed);
  const long = await connect(server.port);
  long.socket.write(Uint8Array.of(255, 255));
  await withDeadline("its end", long.closed);
});

function queryOf(name: string, id: number): Query {
  const parsed = parseQuery(queryBytes(name, { id }));
  if (!parsed.ok) throw new Error(parsed.refusal.key);
  return parsed.value;
}

const noCounts = (): ForwardingCounters => ({
  forwarded: 0,
  mismatched: 0,
  unanswered: 0,
  withheld: 0,
  overLimit: 0,
  notAllowed: 0,
});

/** A name server on loopback. */
async function startUpstream(answer: (query: Uint8Array) => readonly Uint8Array[]) {
  const socket = await Bun.udpSocket({
    hostname: address,
    socket: {
      data: (own, bytes, port, from) => {
        for (const reply of answer(bytes)) own.send(reply, port, from);
      },
    },
  });
  const upstream = { address, port: socket.port };
  return { upstream, [Symbol.dispose]: () => socket.close() };
}

test("a question goes out under another id and comes back under its own", async () => {
  const seen: number[] = [];
  using stub = await startUpstream((query) => {
    seen.push(((query[0] ?? 0) << 8) | (query[1] ?? 0));
    return [answerBytes(query, [addressRecord("a.test", "192.0.2.1", 9)])];
  });
  const told: object[] = [];
  const forwarding = new Forwarding({
    loop,
    upstreams: () => [stub.upstream],
    onAllowed: async (allowed) => void told.push(allowed),
    counters: noCounts(),
    random16: () => 4_321,
    signal: new AbortController().signal,
  });
  const asker = { vmAddress: "10.100.0.7", tell: true, transport: "udp" } as const;
  const answer = await forwarding.forward(queryOf("a.test", 77), asker);
  expect(seen).toEqual([4_321]);
  expect([answer[0], answer[1]]).toEqual([0, 77]);
  const addresses = ["192.0.2.1"];
  expect(told).toEqual([{ vmAddress: "10.100.0.7", name: "a.test", addresses, timeToLive: 9 }]);
});

test("what is under way is limited for one and for all, and ends with the forwarder", async () => {
  using stub = await startUpstream(() => []);
  const counters = noCounts();
  const end = new AbortController();
  const forwarding = new Forwarding({
    loop,
    upstreams: () => [stub.upstream],
    onAllowed: async () => {},
    counters,
    random16: () => 1,
    signal: end.signal,
  });
  const answers: Promise<Uint8Array>[] = [];
  const machines = MOST_IN_FLIGHT / MOST_IN_FLIGHT_A_MACHINE;
  const ask = (machine: number) => {
    const vmAddress = `10.100.0.${machine}`;
    const asker = { vmAddress, tell: false, transport: "udp" } as const;
    const answer = forwarding.forward(queryOf("a.test", 1), asker);
    answers.push(answer);
    return answer;
  };
  for (let machine = 0; machine < machines; machine += 1) {
    for (let count = 0; count < MOST_IN_FLIGHT_A_MACHINE; count += 1) {
      ask(machine).catch(() => {});
    }
    // One more of the same machine is refused at once.
    const refused = await withDeadline("a refusal", ask(machine));
    expect((refused[3] ?? 0) & 15).toBe(2);
  }
  expect(counters.overLimit).toBe(machines);
  const other = await withDeadline("a refusal", ask(250));
  expect((other[3] ?? 0) & 15).toBe(2);
  expect(counters).toMatchObject({ overLimit: machines + 1, forwarded: MOST_IN_FLIGHT });
  end.abort();
  await withDeadline("the end of all", Promise.all(answers));
});

test("an upstream that nobody is at is told at once, over UDP and TCP", async () => {
  const closed = await startUpstream(() => []);
  closed[Symbol.dispose]();
  const query = queryOf("a.test", 1);
  const asking = {
    ...{ loop, upstream: closed.upstream, query: query.bytes, question: query.question, id: 1 },
    onMismatch: () => {},
    signal: new AbortController().signal,
  };
  expect(await askByUdp(asking)).toEqual({ kind: "failed", reason: "ECONNREFUSED" });
  expect(await askByTcp(asking)).toMatchObject({ kind: "failed" });
  const nowhere = { ...asking, upstream: { address: "nowhere", port: 53 } };
  expect(await askByUdp(nowhere)).toEqual({ kind: "failed", reason: "nowhere is no address" });
  const over = { ...asking, signal: AbortSignal.abort() };
  expect(await askByUdp(over)).toEqual({ kind: "failed", reason: "it is over" });
  expect(await askByTcp(over)).toEqual({ kind: "failed", reason: "it is over" });
});

test("an answer that is longer than was asked for is none", async () => {
  using stub = await startUpstream((query) => {
    const records = Array.from({ length: 60 }, () => addressRecord("a.test", "192.0.2.1"));
    return [answerBytes(query, records)];
  });
  const query = queryOf("a.test", 1);
  const asked = await askByUdp({
    ...{ loop, upstream: stub.upstream, query: query.bytes, question: query.question, id: 1 },
    onMismatch: () => {},
    signal: new AbortController().signal,
  });
  expect(asked).toEqual({ kind: "failed", reason: "an answer that is too long" });
});
