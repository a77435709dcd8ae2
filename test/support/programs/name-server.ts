/** A name server outside: what it does with a question, the question's name says. */
import { writeSync } from "node:fs";
import { parseQuery, recordTypes } from "../../../src/network/dns/message.ts";
import { FrameReader, framed } from "../../../src/network/dns/upstream.ts";
import { addressRecord, aliasRecord, answerBytes } from "../dns-messages.ts";

const { address } = JSON.parse(process.env["OPTIONS"] ?? "{}") as { readonly address: string };
const say = (line: string) => writeSync(1, `${line}\n`);

interface Asked {
  readonly query: Uint8Array;
  readonly name: string;
  readonly type: number;
  readonly transport: "udp" | "tcp";
}

function usual({ query, name, type }: Asked): Uint8Array[] {
  const right = [addressRecord(name, "198.51.100.7")];
  return [answerBytes(query, type === recordTypes.A ? right : [])];
}

/** Wrong answers, of which only the last one has the right id; and then the right one. */
function guesses(asked: Asked, count: number): Uint8Array[] {
  const { query, name } = asked;
  const wrong = [addressRecord(name, "203.0.113.66")];
  const id = ((query[0] ?? 0) << 8) | (query[1] ?? 0);
  const byId = Array.from({ length: count }, (_, index) =>
    answerBytes(query, wrong, { id: (id + index + 1) & 0xffff }),
  );
  const other = answerBytes(query, wrong);
  other[13] = 0x7a;
  return [...byId, other, ...usual(asked)];
}

/** By the first label of the name. */
const kinds: Readonly<Record<string, (asked: Asked) => Uint8Array[]>> = {
  silent: () => [],
  servfail: ({ query }) => [answerBytes(query, [], { flags: 0x8182 })],
  missing: ({ query }) => [answerBytes(query, [], { flags: 0x8183 })],
  metadata: ({ query, name }) => [answerBytes(query, [addressRecord(name, "169.254.169.254")])],
  broken: (asked) => usual(asked).map((bytes) => bytes.slice(0, -1)),
  alias: ({ query, name }) => {
    const target = "a.cdn.test";
    const records = [aliasRecord(name, target, 30), addressRecord(target, "198.51.100.8", 300)];
    return [answerBytes(query, records)];
  },
  big: ({ query, name, transport }) => {
    if (transport === "udp") return [answerBytes(query, [], { flags: 0x8380 })];
    const addresses = Array.from({ length: 100 }, (_, index) => `198.51.101.${index}`);
    return [
      answerBytes(
        query,
        addresses.map((one) => addressRecord(name, one)),
      ),
    ];
  },
  guessed: (asked) => guesses(asked, 5),
  flooded: (asked) => guesses(asked, 20),
};

function answersTo(query: Uint8Array, transport: "udp" | "tcp"): Uint8Array[] {
  const parsed = parseQuery(query);
  if (!parsed.ok) {
    say(`malformed ${parsed.refusal.key}`);
    return [];
  }
  const { name, type } = parsed.value.question;
  say(`asked ${transport} ${name} ${type} edns ${parsed.value.udpSize ?? "none"}`);
  const answer = kinds[name.split(".")[0] ?? ""] ?? usual;
  return answer({ query, name, type, transport });
}

await Bun.udpSocket({
  hostname: address,
  port: 53,
  socket: {
    data: (socket, bytes, port, from) => {
      for (const answer of answersTo(bytes, "udp")) socket.send(answer, port, from);
    },
    // Of guesses that came when nobody listened any more.
    error: () => {},
  },
});
const readers = new WeakMap<object, FrameReader>();
Bun.listen({
  hostname: address,
  port: 53,
  socket: {
    data: (socket, bytes) => {
      const reader = readers.get(socket) ?? new FrameReader(65_535);
      readers.set(socket, reader);
      for (const query of reader.add(bytes) ?? []) {
        for (const answer of answersTo(query, "tcp")) socket.write(framed(answer));
      }
    },
  },
});
say("serving");
