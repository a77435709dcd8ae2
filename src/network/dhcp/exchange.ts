import { maskOf } from "../subnet.ts";
import { addressBytes, addressNumber, EVERYBODY, formatAddress, NO_ADDRESS } from "./address.ts";
import type { Endpoint } from "./datagram.ts";
import type { DhcpEffect, DhcpEvent } from "./lifecycle.ts";
import { LONGEST_REPLY, SHORTEST_REPLY } from "./limits.ts";
import { type DhcpMessage, encodeMessage, type MessageType } from "./message.ts";
import { optionCodes, type Parsed, refuse } from "./options.ts";
import type { DhcpNetwork, Reservation } from "./reservation.ts";

/** Between messages and decisions: what a request means, and how an effect is said. Pure. */

export const SERVER_PORT = 67;
export const CLIENT_PORT = 68;

/** What a request means: RFC 2131, 4.3. */
export function eventOf(message: DhcpMessage): Parsed<DhcpEvent> {
  if (message.direction !== "request") return refuse("op", "1: a request", message.direction);
  if (message.relayAddress !== NO_ADDRESS) {
    return refuse("giaddr", `${NO_ADDRESS}: no relay`, message.relayAddress);
  }
  const { clientAddress } = message;
  const server = addressIn(message, optionCodes.serverIdentifier);
  const requested = addressIn(message, optionCodes.requestedAddress);
  switch (message.type) {
    case "discover":
      return { ok: true, value: { kind: "discover" } };
    case "request":
      return requestOf({ clientAddress, server, requested });
    case "decline":
      if (server === undefined) return refuse("option 54", "the server's address", "none");
      if (requested === undefined) return refuse("option 50", "the address", "none");
      return { ok: true, value: { kind: "decline", server, address: requested } };
    case "release":
      if (server === undefined) return refuse("option 54", "the server's address", "none");
      return { ok: true, value: { kind: "release", server, address: clientAddress } };
    case "inform":
      return { ok: true, value: { kind: "inform", address: clientAddress } };
    case "offer":
    case "acknowledge":
    case "refuse":
      return refuse("option 53", "a message of a client", message.type);
  }
}

function requestOf(said: {
  readonly clientAddress: string;
  readonly server: string | undefined;
  readonly requested: string | undefined;
}): Parsed<DhcpEvent> {
  const { clientAddress, server, requested } = said;
  if (server !== undefined) {
    if (requested === undefined) return refuse("option 50", "the address that is taken", "none");
    return { ok: true, value: { kind: "select", server, address: requested } };
  }
  if (clientAddress !== NO_ADDRESS) {
    return { ok: true, value: { kind: "renew", address: clientAddress } };
  }
  if (requested === undefined) return refuse("option 50 or ciaddr", "an address", "none");
  return { ok: true, value: { kind: "reboot", address: requested } };
}

function addressIn(message: DhcpMessage, code: number): string | undefined {
  const bytes = message.options.get(code);
  return bytes === undefined ? undefined : formatAddress(bytes);
}

/** An answer as it goes to the socket. */
export interface Reply {
  readonly to: Endpoint;
  readonly payload: Uint8Array;
}

type Answer = Exclude<DhcpEffect, { kind: "tell" }>;

const types: Readonly<Record<Answer["kind"], MessageType>> = {
  offer: "offer",
  acknowledge: "acknowledge",
  advise: "acknowledge",
  refuse: "refuse",
};

/** The bytes of an answer, and where they go: RFC 2131, 4.1 and table 3. */
export function replyTo(
  request: DhcpMessage,
  answer: Answer,
  { network, reservation }: { network: DhcpNetwork; reservation: Reservation },
): Reply {
  const isLease = answer.kind === "offer" || answer.kind === "acknowledge";
  const type = types[answer.kind];
  const options = new Map([[optionCodes.serverIdentifier, addressBytes(network.serverAddress)]] as [
    number,
    Uint8Array,
  ][]);
  if (isLease) addLease(options, reservation.leaseSeconds);
  if (answer.kind !== "refuse") addAdvice(options, network, reservation);
  // RFC 6842: a client that has several cards knows by it which of them is meant.
  const identifier = request.options.get(optionCodes.clientIdentifier);
  if (identifier !== undefined) options.set(optionCodes.clientIdentifier, identifier);
  const message = {
    direction: "reply",
    type,
    transaction: request.transaction,
    broadcast: request.broadcast,
    clientAddress: answer.kind === "acknowledge" ? request.clientAddress : NO_ADDRESS,
    yourAddress: isLease ? reservation.address : NO_ADDRESS,
    relayAddress: NO_ADDRESS,
    hardwareAddress: request.hardwareAddress,
    options,
  } as const;
  const payload = encodeMessage(message, { least: SHORTEST_REPLY, most: LONGEST_REPLY });
  return { to: { address: destination(request, answer, reservation), port: CLIENT_PORT }, payload };
}

/** The packet's address; its frame goes to the client's card alone, whatever this is. */
function destination(request: DhcpMessage, answer: Answer, reservation: Reservation): string {
  if (answer.kind === "refuse") return EVERYBODY;
  if (request.clientAddress !== NO_ADDRESS) return request.clientAddress;
  return request.broadcast ? EVERYBODY : reservation.address;
}

function addLease(options: Map<number, Uint8Array>, seconds: number): void {
  // T1 and T2 as RFC 2131, 4.4.5 has them, said because not every client computes them alike.
  options.set(optionCodes.leaseSeconds, unsigned32(seconds));
  options.set(optionCodes.renewalSeconds, unsigned32(Math.floor(seconds / 2)));
  options.set(optionCodes.rebindingSeconds, unsigned32(Math.floor((seconds * 7) / 8)));
}

function addAdvice(
  options: Map<number, Uint8Array>,
  network: DhcpNetwork,
  reservation: Reservation,
): void {
  const mask = maskOf(network.prefixLength);
  const base = addressNumber(network.serverAddress) & mask;
  options.set(optionCodes.subnetMask, unsigned32(mask));
  options.set(optionCodes.broadcast, unsigned32((base | ~mask) >>> 0));
  const { gateway, dns, mtu, hostname } = reservation;
  if (gateway !== undefined) options.set(optionCodes.router, addressBytes(gateway));
  if (dns.length > 0) {
    options.set(
      optionCodes.nameServers,
      new Uint8Array(dns.flatMap((one) => [...addressBytes(one)])),
    );
  }
  options.set(optionCodes.hostname, new TextEncoder().encode(hostname));
  const { domain } = network;
  if (domain !== undefined) options.set(optionCodes.domain, new TextEncoder().encode(domain));
  if (mtu !== undefined) options.set(optionCodes.mtu, Uint8Array.of(mtu >>> 8, mtu & 255));
}

function unsigned32(value: number): Uint8Array {
  return Uint8Array.of(value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);
}
