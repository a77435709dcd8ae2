import * as v from "valibot";
import { parseMacAddress } from "../subnet.ts";
import { isInNetwork, NO_ADDRESS, parseAddress } from "./address.ts";
import {
  LARGEST_MTU,
  LONGEST_DOMAIN,
  LONGEST_HOSTNAME,
  LONGEST_LEASE_SECONDS,
  MOST_NAME_SERVERS,
  SHORTEST_LEASE_SECONDS,
  SMALLEST_MTU,
} from "./limits.ts";

/** What a caller decides of addresses: the server gives none of its own. */

const label = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?$/;

const ipv4 = v.pipe(
  v.string(),
  v.check((text) => parseAddress(text) !== undefined, "an IPv4 address"),
);

export const reservationSchema = v.strictObject({
  macAddress: v.pipe(
    v.string(),
    v.check((text) => parseMacAddress(text) !== undefined, "a MAC address in lower case"),
    v.check((text) => ((parseMacAddress(text)?.[0] ?? 1) & 1) === 0, "a MAC address of one card"),
  ),
  address: v.pipe(
    ipv4,
    v.check((text) => text !== NO_ADDRESS, "an address of somebody"),
  ),
  hostname: v.pipe(
    v.string(),
    v.maxLength(LONGEST_HOSTNAME),
    v.check((text) => label.test(text), "a host name of a-z, 0-9 and -"),
  ),
  leaseSeconds: v.pipe(
    v.number(),
    v.integer(),
    v.minValue(SHORTEST_LEASE_SECONDS),
    v.maxValue(LONGEST_LEASE_SECONDS),
  ),
  /** undefined for a network without a way out. */
  gateway: v.optional(ipv4),
  /** Name servers, the first one first. */
  dns: v.pipe(v.array(ipv4), v.maxLength(MOST_NAME_SERVERS)),
  /** undefined leaves it to the client. */
  mtu: v.optional(
    v.pipe(v.number(), v.integer(), v.minValue(SMALLEST_MTU), v.maxValue(LARGEST_MTU)),
  ),
});

/** The address of one card, and what it is told beside it. */
export type Reservation = Readonly<v.InferOutput<typeof reservationSchema>>;

const networkSchema = v.strictObject({
  serverAddress: ipv4,
  prefixLength: v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(30)),
  domain: v.optional(
    v.pipe(
      v.string(),
      v.maxLength(LONGEST_DOMAIN),
      v.check((text) => text.split(".").every((part) => label.test(part)), "a domain name"),
    ),
  ),
});

/** The network that a server serves. */
export type DhcpNetwork = Readonly<v.InferOutput<typeof networkSchema>>;

export interface Refused {
  readonly key: string;
  readonly expected: string;
  readonly received: string;
  readonly mend: string;
}

/** @returns what is wrong with a reservation in this network, or undefined */
export function checkReservation(value: unknown, network: DhcpNetwork): Refused | undefined {
  const parsed = v.safeParse(reservationSchema, value);
  if (!parsed.success) return refusalOf(parsed.issues[0], "mend the reservation");
  const { address } = parsed.output;
  const { serverAddress, prefixLength } = network;
  if (address === serverAddress || !isInNetwork(address, serverAddress, prefixLength)) {
    return {
      key: "address",
      expected: `an address of ${serverAddress}/${prefixLength} other than the server's`,
      received: address,
      mend: "take one from the network's own pool",
    };
  }
  return undefined;
}

/** @returns what is wrong with a network, or undefined */
export function checkNetwork(value: unknown): Refused | undefined {
  const parsed = v.safeParse(networkSchema, value);
  return parsed.success ? undefined : refusalOf(parsed.issues[0], "mend the network");
}

function refusalOf(issue: v.BaseIssue<unknown>, mend: string): Refused {
  const key = issue.path?.map((item) => String(item.key)).join(".") ?? "";
  const expected = issue.type === "check" ? issue.message : (issue.expected ?? issue.message);
  return { key, expected, received: issue.received, mend };
}
