/** What the server answers one card: every state with every message, and what the replies say. */
import { describe, expect, test } from "bun:test";
import { formatAddress } from "../../../src/network/dhcp/address.ts";
import { eventOf, replyTo } from "../../../src/network/dhcp/exchange.ts";
import {
  type ClientState,
  type DhcpEvent,
  type EventKind,
  type Phase,
  step,
  unseen,
} from "../../../src/network/dhcp/lifecycle.ts";
import {
  CLIENT_BURST,
  CLIENT_MESSAGES_A_SECOND,
  DECLINE_HOLD,
  LONGEST_CLIENT_IDENTIFIER,
  LONGEST_DOMAIN,
  LONGEST_REPLY,
  SHORTEST_REPLY,
} from "../../../src/network/dhcp/limits.ts";
import { parseMessage } from "../../../src/network/dhcp/message.ts";
import { optionCodes } from "../../../src/network/dhcp/options.ts";
import { checkNetwork, checkReservation } from "../../../src/network/dhcp/reservation.ts";
import { clientMessage, serverAddress, someReservation } from "../../support/dhcp-messages.ts";

const NOW = 100_000;
const { address } = someReservation;
const other = "10.100.0.9";
const rate = { allowance: CLIENT_BURST, countedAt: NOW };

const states: Readonly<Record<Phase, ClientState>> = {
  unseen: { phase: "unseen", ...rate },
  offered: { phase: "offered", ...rate },
  bound: { phase: "bound", until: NOW + 5_000, ...rate },
  released: { phase: "released", ...rate },
  declined: { phase: "declined", until: NOW + 5_000, ...rate },
};

const context = { now: NOW, serverAddress, reservation: someReservation };

/** "offer → offered", or what it was ignored for. */
function told(state: ClientState, event: DhcpEvent, within = context): string {
  const outcome = step(state, event, within);
  const effects = outcome.effects.map((effect) =>
    effect.kind === "tell" ? `tell ${effect.what}` : effect.kind,
  );
  const words = outcome.ignored ?? (effects.join(", ") || "nothing");
  return `${words} → ${outcome.state.phase}`;
}

type Cell = readonly [event: DhcpEvent, told: string];

const mine = { server: serverAddress, address };
/** Every phase × every kind of message; the right address first, another one second. */
const table: Readonly<Record<Phase, Readonly<Record<EventKind, readonly Cell[]>>>> = {
  unseen: {
    discover: [[{ kind: "discover" }, "offer → offered"]],
    select: [
      [{ kind: "select", ...mine }, "acknowledge, tell bound → bound"],
      [{ kind: "select", server: serverAddress, address: other }, "refuse → unseen"],
      [{ kind: "select", server: other, address }, "for another server → unseen"],
    ],
    reboot: [
      [{ kind: "reboot", address }, "acknowledge, tell bound → bound"],
      [{ kind: "reboot", address: other }, "refuse → unseen"],
    ],
    renew: [
      [{ kind: "renew", address }, "acknowledge, tell bound → bound"],
      [{ kind: "renew", address: other }, "refuse → unseen"],
    ],
    decline: [
      [{ kind: "decline", ...mine }, "tell declined → declined"],
      [{ kind: "decline", server: other, address }, "for another server → unseen"],
      [
        { kind: "decline", server: serverAddress, address: other },
        "another address than its own → unseen",
      ],
    ],
    release: [
      [{ kind: "release", ...mine }, "tell released → released"],
      [{ kind: "release", server: other, address }, "for another server → unseen"],
      [
        { kind: "release", server: serverAddress, address: other },
        "another address than its own → unseen",
      ],
    ],
    inform: [
      [{ kind: "inform", address }, "advise → unseen"],
      [{ kind: "inform", address: other }, "another address than its own → unseen"],
      [{ kind: "inform", address: "0.0.0.0" }, "another address than its own → unseen"],
    ],
  },
  offered: {
    discover: [[{ kind: "discover" }, "offer → offered"]],
    select: [
      [{ kind: "select", ...mine }, "acknowledge, tell bound → bound"],
      [{ kind: "select", server: other, address }, "for another server → offered"],
    ],
    reboot: [[{ kind: "reboot", address }, "acknowledge, tell bound → bound"]],
    renew: [[{ kind: "renew", address: other }, "refuse → unseen"]],
    decline: [[{ kind: "decline", ...mine }, "tell declined → declined"]],
    release: [[{ kind: "release", ...mine }, "tell released → released"]],
    inform: [[{ kind: "inform", address }, "advise → offered"]],
  },
  bound: {
    discover: [[{ kind: "discover" }, "offer → bound"]],
    select: [
      [{ kind: "select", ...mine }, "acknowledge → bound"],
      [{ kind: "select", server: other, address: other }, "for another server → bound"],
    ],
    reboot: [
      [{ kind: "reboot", address }, "acknowledge → bound"],
      [{ kind: "reboot", address: other }, "refuse → unseen"],
    ],
    renew: [
      [{ kind: "renew", address }, "acknowledge → bound"],
      [{ kind: "renew", address: other }, "refuse → unseen"],
    ],
    decline: [[{ kind: "decline", ...mine }, "tell declined → declined"]],
    release: [
      [{ kind: "release", ...mine }, "tell released → released"],
      [{ kind: "release", server: other, address }, "for another server → bound"],
    ],
    inform: [[{ kind: "inform", address }, "advise → bound"]],
  },
  released: {
    discover: [[{ kind: "discover" }, "offer → offered"]],
    select: [[{ kind: "select", ...mine }, "acknowledge, tell bound → bound"]],
    reboot: [[{ kind: "reboot", address }, "acknowledge, tell bound → bound"]],
    renew: [[{ kind: "renew", address }, "acknowledge, tell bound → bound"]],
    decline: [[{ kind: "decline", ...mine }, "tell declined → declined"]],
    release: [[{ kind: "release", ...mine }, "nothing → released"]],
    inform: [[{ kind: "inform", address }, "advise → released"]],
  },
  declined: {
    discover: [[{ kind: "discover" }, "the address is declined → declined"]],
    select: [
      [{ kind: "select", ...mine }, "refuse → declined"],
      [{ kind: "select", server: other, address }, "for another server → declined"],
    ],
    reboot: [[{ kind: "reboot", address }, "refuse → declined"]],
    renew: [[{ kind: "renew", address }, "refuse → declined"]],
    decline: [[{ kind: "decline", ...mine }, "the address is declined → declined"]],
    release: [[{ kind: "release", ...mine }, "the address is declined → declined"]],
    inform: [[{ kind: "inform", address }, "advise → declined"]],
  },
};

describe("every state with every message", () => {
  for (const [phase, row] of Object.entries(table)) {
    for (const [event, expected] of Object.values(row).flat()) {
      test(`${phase}: ${JSON.stringify(event)}`, () => {
        expect(told(states[phase as Phase], event)).toBe(expected);
      });
    }
  }

  test("a card without a reservation gets nothing, whatever it says and was", () => {
    for (const state of Object.values(states)) {
      for (const [event] of Object.values(table.unseen).flat()) {
        const outcome = step(state, event, { ...context, reservation: undefined });
        expect(outcome).toEqual({ state, effects: [], ignored: "no reservation" });
      }
    }
  });

  test("over its rate nobody is answered, and after a while again", () => {
    let state = unseen(NOW);
    for (let count = 0; count < CLIENT_BURST; count += 1) {
      const outcome = step(state, { kind: "discover" }, context);
      expect(outcome.ignored).toBeUndefined();
      state = outcome.state;
    }
    for (const [event] of Object.values(table.unseen).flat()) {
      expect(told(state, event)).toBe("over the rate → offered");
    }
    const later = { ...context, now: NOW + 1_000 / CLIENT_MESSAGES_A_SECOND };
    expect(told(state, { kind: "discover" }, later)).toBe("offer → offered");
  });

  test("a declined address is held back, and then offered again", () => {
    const { state } = step(states.bound, { kind: "decline", ...mine }, context);
    const before = { ...context, now: NOW + DECLINE_HOLD - 1 };
    expect(told(state, { kind: "discover" }, before)).toBe("the address is declined → declined");
    const after = { ...context, now: NOW + DECLINE_HOLD };
    expect(told(state, { kind: "discover" }, after)).toBe("offer → offered");
  });

  test("a bound one has its address for as long as the reservation says", () => {
    const { state } = step(states.bound, { kind: "renew", address }, context);
    expect(state).toMatchObject({ phase: "bound", until: NOW + 3_600_000 });
  });
});

describe("what a message means", () => {
  const meaning = (message: ReturnType<typeof clientMessage>) => {
    const event = eventOf(message);
    return event.ok ? event.value : event.refusal.key;
  };

  test.each([
    ["discover", {}, { kind: "discover" }],
    ["request", { server: other, requested: address }, { kind: "select", server: other, address }],
    ["request", { requested: address }, { kind: "reboot", address }],
    ["request", { clientAddress: address }, { kind: "renew", address }],
    ["request", { server: other }, "option 50"],
    ["request", {}, "option 50 or ciaddr"],
    ["decline", { server: other, requested: address }, { kind: "decline", server: other, address }],
    ["decline", { requested: address }, "option 54"],
    ["decline", { server: other }, "option 50"],
    [
      "release",
      { server: other, clientAddress: address },
      { kind: "release", server: other, address },
    ],
    ["release", { clientAddress: address }, "option 54"],
    ["inform", { clientAddress: address }, { kind: "inform", address }],
    ["offer", {}, "option 53"],
    ["acknowledge", {}, "option 53"],
    ["refuse", {}, "option 53"],
    ["discover", { relayAddress: other }, "giaddr"],
    ["discover", { direction: "reply" }, "op"],
  ] as const)("%s %p", (type, said, expected) => {
    expect(meaning(clientMessage(type, said))).toEqual(expected as never);
  });
});

describe("replies", () => {
  const network = { serverAddress, prefixLength: 16, domain: "vm.internal" };
  const reply = (
    kind: "offer" | "acknowledge" | "refuse",
    said: Parameters<typeof clientMessage>[1] = {},
  ) => {
    const request = clientMessage("request", said);
    const made = replyTo(request, { kind }, { network, reservation: someReservation });
    const parsed = parseMessage(made.payload);
    if (!parsed.ok) throw new Error(parsed.refusal.key);
    return { to: made.to.address, size: made.payload.length, ...parsed.value };
  };

  test("an offer says all that the reservation has", () => {
    const { options, ...rest } = reply("offer");
    expect(rest).toMatchObject({ to: address, yourAddress: address });
    const hex = Object.fromEntries([...options].map(([code, bytes]) => [code, bytes.toHex()]));
    expect(hex).toEqual({
      [optionCodes.messageType]: "02",
      [optionCodes.serverIdentifier]: "0a640001",
      [optionCodes.leaseSeconds]: "00000e10",
      [optionCodes.renewalSeconds]: "00000708",
      [optionCodes.rebindingSeconds]: "00000c4e",
      [optionCodes.subnetMask]: "ffff0000",
      [optionCodes.broadcast]: "0a64ffff",
      [optionCodes.router]: "0a640001",
      [optionCodes.nameServers]: "0a640001",
      [optionCodes.hostname]: "776562",
      [optionCodes.domain]: Buffer.from("vm.internal").toString("hex"),
      [optionCodes.mtu]: "0578",
    });
  });

  test("a refusal gives no address, and goes to everybody in the packet", () => {
    const { options, ...rest } = reply("refuse", { clientAddress: other });
    const to = "255.255.255.255";
    expect(rest).toMatchObject({ to, yourAddress: "0.0.0.0", size: SHORTEST_REPLY });
    expect([...options.keys()]).toEqual([53, 54]);
  });

  test("go where RFC 2131 says", () => {
    expect(reply("offer", { broadcast: true }).to).toBe("255.255.255.255");
    expect(reply("acknowledge", { clientAddress: address }).to).toBe(address);
  });

  test("INFORM gets no time and no address", () => {
    const request = clientMessage("inform", { clientAddress: address });
    const effect = { kind: "advise", address } as const;
    const { to, payload } = replyTo(request, effect, { network, reservation: someReservation });
    const parsed = parseMessage(payload);
    if (!parsed.ok) throw new Error(parsed.refusal.key);
    expect(to.address).toBe(address);
    expect(parsed.value.yourAddress).toBe("0.0.0.0");
    expect(parsed.value.options.has(optionCodes.leaseSeconds)).toBe(false);
    expect(formatAddress(parsed.value.options.get(optionCodes.router) ?? new Uint8Array())).toBe(
      serverAddress,
    );
  });

  test("the longest of all is as long as the limit", () => {
    const identifier = new Uint8Array(LONGEST_CLIENT_IDENTIFIER).fill(1);
    const request = clientMessage("discover", {
      options: [[optionCodes.clientIdentifier, identifier]],
    });
    const longest = {
      network: { ...network, domain: "d".repeat(LONGEST_DOMAIN) },
      reservation: { ...someReservation, hostname: "h".repeat(63), dns: [other, other, other] },
    };
    const { payload } = replyTo(request, { kind: "offer" }, longest);
    expect(payload.length).toBe(LONGEST_REPLY);
    const parsed = parseMessage(payload);
    expect(parsed.ok && parsed.value.options.get(optionCodes.clientIdentifier)).toEqual(identifier);
  });
});

describe("reservations", () => {
  const network = { serverAddress, prefixLength: 16 };
  const refusal = (change: object) => checkReservation({ ...someReservation, ...change }, network);

  test("a right one", () => expect(refusal({})).toBeUndefined());

  test.each([
    [{ macAddress: "52:54:00:00:00:0G" }, "macAddress"],
    [{ macAddress: "53:54:00:00:00:07" }, "macAddress"],
    [{ address: "10.100.0.256" }, "address"],
    [{ address: "10.100.0.07" }, "address"],
    [{ address: "10.101.0.7" }, "address"],
    [{ address: serverAddress }, "address"],
    [{ hostname: "h".repeat(64) }, "hostname"],
    [{ hostname: "web.1" }, "hostname"],
    [{ leaseSeconds: 59 }, "leaseSeconds"],
    [{ leaseSeconds: 604_801 }, "leaseSeconds"],
    [{ gateway: "x" }, "gateway"],
    [{ dns: [other, other, other, other] }, "dns"],
    [{ mtu: 575 }, "mtu"],
    [{ mtu: 65_536 }, "mtu"],
    [{ more: 1 }, "more"],
  ])("refused: %p", (change, key) => {
    expect(refusal(change)).toMatchObject({ key, received: expect.any(String) });
  });

  test("a network needs an address, a prefix and a short domain", () => {
    expect(checkNetwork({ ...network, domain: "vm.internal" })).toBeUndefined();
    expect(checkNetwork({ ...network, prefixLength: 31 })?.key).toBe("prefixLength");
    expect(checkNetwork({ ...network, serverAddress: "10.0.0" })?.key).toBe("serverAddress");
    expect(checkNetwork({ ...network, domain: "d".repeat(LONGEST_DOMAIN + 1) })?.key).toBe(
      "domain",
    );
  });
});
