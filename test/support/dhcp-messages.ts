/** DHCP messages of a client, for tests. */
import { addressBytes, NO_ADDRESS } from "../../src/network/dhcp/address.ts";
import {
  type DhcpMessage,
  encodeMessage,
  type MessageType,
} from "../../src/network/dhcp/message.ts";
import { optionCodes } from "../../src/network/dhcp/options.ts";
import type { Reservation } from "../../src/network/dhcp/reservation.ts";

export const someMac = "52:54:00:00:00:07";
export const serverAddress = "10.100.0.1";

export const someReservation: Reservation = {
  macAddress: someMac,
  address: "10.100.0.7",
  hostname: "web",
  leaseSeconds: 3_600,
  gateway: serverAddress,
  dns: [serverAddress],
  mtu: 1_400,
};

export interface ClientMessage extends Partial<Omit<DhcpMessage, "options" | "type">> {
  readonly requested?: string;
  readonly server?: string;
  readonly options?: readonly (readonly [number, Uint8Array])[];
}

export function clientMessage(type: MessageType, said: ClientMessage = {}): DhcpMessage {
  const { requested, server, options = [], ...rest } = said;
  const own = new Map<number, Uint8Array>();
  if (requested !== undefined) own.set(optionCodes.requestedAddress, addressBytes(requested));
  if (server !== undefined) own.set(optionCodes.serverIdentifier, addressBytes(server));
  for (const [code, bytes] of options) own.set(code, bytes);
  return {
    direction: "request",
    type,
    transaction: 0x1234_5678,
    broadcast: false,
    clientAddress: NO_ADDRESS,
    yourAddress: NO_ADDRESS,
    relayAddress: NO_ADDRESS,
    hardwareAddress: someMac,
    ...rest,
    options: own,
  };
}

export function clientBytes(type: MessageType, said: ClientMessage = {}): Uint8Array<ArrayBuffer> {
  return encodeMessage(clientMessage(type, said), { least: 300, most: 1_400 });
}
