import * as v from "valibot";
import { parseIpv4 } from "../network/subnet.ts";

/** What a machine's declaration says of networks: cards, and ports of the host. Pure. */

export const networkLimits = {
  /** Networks of one worker, the default one among them. */
  networks: 16,
  /** Characters of a network's name. */
  nameLength: 31,
  /** Cards of one machine: QEMU's plan has places for 12. */
  cards: 8,
  /** Ports of the host that lead to one machine. */
  forwards: 64,
  /** Domains that one machine may reach. */
  allowedDomains: 256,
  domainLength: 253,
} as const;

/** The network of whoever names none: the seed's network_bridge. */
export const DEFAULT_NETWORK = "default";

const networkNamePattern = /^[a-z0-9](?:[a-z0-9-]{0,29}[a-z0-9])?$/;
export const isNetworkName = (name: string): boolean => networkNamePattern.test(name);
export const networkNameRule =
  "1 to 31 characters of a-z, 0-9 and -, with a letter or a digit at each end";

export const networkNameSchema = v.pipe(
  v.string(),
  v.check(isNetworkName, `Expected a network's name: ${networkNameRule}`),
);

const label = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?";
const domainPattern = new RegExp(`^(?:\\*\\.)?${label}(?:\\.${label})*$`);
export const domainSchema = v.pipe(
  v.string(),
  v.maxLength(networkLimits.domainLength),
  v.regex(domainPattern, 'Expected a domain in lower case, or "*." and one'),
);

/** One card: a network, and the address that is to be this machine's there. */
export interface CardRequest {
  readonly network: string;
  /** undefined: the network's pool gives one. */
  readonly address?: string | undefined;
}

const cardRequestSchema = v.union(
  [
    networkNameSchema,
    v.strictObject({
      network: networkNameSchema,
      address: v.optional(
        v.pipe(
          v.string(),
          v.check((text) => parseIpv4(text) !== undefined, "Expected an IPv4 address"),
        ),
      ),
    }),
  ],
  'Expected a network\'s name, or {network = "storage", address = "10.101.0.5"}',
);

const networkOf = (card: string | CardRequest) => (typeof card === "string" ? card : card.network);

/** The first card has the default route and the name servers. */
export const networksSchema = v.pipe(
  v.array(cardRequestSchema),
  v.maxLength(networkLimits.cards, `Expected at most ${networkLimits.cards} cards`),
  v.check(
    (cards) => new Set(cards.map(networkOf)).size === cards.length,
    "Expected each network once",
  ),
);

/** A port of the host that leads to a machine's first card. */
export interface Forward {
  readonly protocol: "tcp" | "udp";
  readonly hostPort: number;
  readonly port: number;
}

const LAST_PORT = 65_535;

/** @returns undefined for what is no "tcp:8080:80" */
export function parseForward(text: string): Forward | undefined {
  const [, protocol, host, guest] = /^(tcp|udp):([1-9]\d{0,4}):([1-9]\d{0,4})$/.exec(text) ?? [];
  const [hostPort, port] = [Number(host), Number(guest)];
  if (protocol === undefined || hostPort > LAST_PORT || port > LAST_PORT) return undefined;
  return { protocol: protocol === "tcp" ? "tcp" : "udp", hostPort, port };
}

/** "tcp port 8080", which one machine of a worker has. */
export const hostPortOf = ({ protocol, hostPort }: Forward): string =>
  `${protocol} port ${hostPort}`;

export const forwardsSchema = v.pipe(
  v.array(
    v.pipe(
      v.string(),
      v.check(
        (text) => parseForward(text) !== undefined,
        'Expected "tcp:HOST-PORT:GUEST-PORT" or "udp:…", of ports from 1 to 65535',
      ),
    ),
  ),
  v.maxLength(networkLimits.forwards, `Expected at most ${networkLimits.forwards} ports`),
  v.check(
    (forwards) => new Set(forwards.map(portOfText)).size === forwards.length,
    "Expected each of the host's ports once",
  ),
);

function portOfText(text: string): string {
  const forward = parseForward(text);
  return forward === undefined ? text : hostPortOf(forward);
}

/** What of a declaration is about networks. */
export interface NetworkWishes {
  readonly networks?: readonly (string | CardRequest)[] | undefined;
  readonly forwards?: readonly string[] | undefined;
}

/** Cards in their order; a machine that names none has one, in the default network. */
export function cardRequestsOf({ networks }: NetworkWishes): readonly CardRequest[] {
  if (networks === undefined) return [{ network: DEFAULT_NETWORK }];
  return networks.map((card) => (typeof card === "string" ? { network: card } : card));
}

/** The same cards, where addresses were asked for with those that were given. */
export function withAddresses(
  networks: NetworkWishes["networks"],
  given: readonly { readonly network: string; readonly address: string }[],
): (string | CardRequest)[] | undefined {
  return networks?.map((card) => {
    if (typeof card === "string" || card.address === undefined) return card;
    const address = given.find(({ network }) => network === card.network)?.address;
    return { ...card, address: address ?? card.address };
  });
}

export function forwardsOf({ forwards = [] }: NetworkWishes): readonly Forward[] {
  return forwards.flatMap((text) => parseForward(text) ?? []);
}

/** Ports of the host lead to a machine's first card. */
export const forwardsNeedCardRule = "Expected a network for the forwards to lead to";
export const hasCardForForwards = (wishes: NetworkWishes): boolean =>
  forwardsOf(wishes).length === 0 || cardRequestsOf(wishes).length > 0;

/** Ports of the host, and addresses, that a machine of one declaration before has already. */
export function findShared(machines: readonly (NetworkWishes & { readonly name: string })[]): {
  readonly index: number;
  readonly key: string;
  readonly what: string;
  readonly other: string;
}[] {
  const owners = new Map<string, string>();
  return machines.flatMap((machine, index) => {
    const addresses = cardRequestsOf(machine).flatMap(({ network, address }) =>
      address === undefined ? [] : [{ key: "networks", what: `${address} of ${network}` }],
    );
    const ports = forwardsOf(machine).map((one) => ({ key: "forwards", what: hostPortOf(one) }));
    return [...addresses, ...ports].flatMap(({ key, what }) => {
      const other = owners.get(what);
      if (other === undefined) owners.set(what, machine.name);
      return other === undefined ? [] : [{ index, key, what, other }];
    });
  });
}
