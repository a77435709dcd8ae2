import { addressBytes, isInNetwork } from "../dhcp/address.ts";
import { MOST_DOMAINS, OWN_TIME_TO_LIVE } from "./limits.ts";
import { type OwnAnswer, type OwnRecord, type Question, recordTypes } from "./message.ts";
import {
  addressOfReverse,
  type DomainPattern,
  isMatch,
  nameBytes,
  parsePattern,
  reverseName,
} from "./name.ts";

/** What a machine may ask, and what we answer ourselves. Pure. */

/** What one machine may ask. */
export type DnsPolicy =
  | { readonly kind: "everything" }
  /** Names alone that a pattern has: "example.org", "*.example.org". */
  | { readonly kind: "list"; readonly domains: readonly DomainPattern[] };

/** @returns a policy, or what is wrong with a pattern */
export function policyOf(
  domains: readonly string[],
):
  | { readonly ok: true; readonly policy: DnsPolicy }
  | { readonly ok: false; readonly reason: string } {
  if (domains.length > MOST_DOMAINS) {
    const reason = `Expected at most ${MOST_DOMAINS} domains, received ${domains.length}`;
    return { ok: false, reason };
  }
  const patterns: DomainPattern[] = [];
  for (const text of domains) {
    const pattern = parsePattern(text);
    if (pattern === undefined) {
      const shown = JSON.stringify(text.slice(0, 100));
      const reason = `Expected "example.org" or "*.example.org" as a domain, received ${shown}`;
      return { ok: false, reason };
    }
    patterns.push(pattern);
  }
  return { ok: true, policy: { kind: "list", domains: patterns } };
}

/** Names of machines, and the network that they are in. */
export interface OwnZone {
  /** "vm.internal" */
  readonly domain: string;
  readonly serverAddress: string;
  readonly prefixLength: number;
  /** Addresses by host name, such as "web": those that this asker may know. */
  readonly names: ReadonlyMap<string, string>;
}

export type Verdict =
  | { readonly kind: "answer"; readonly answer: OwnAnswer }
  /** Ask an upstream; `tell` when the addresses have to be let through before the answer. */
  | { readonly kind: "forward"; readonly tell: boolean };

/**
 * A refused name. NXDOMAIN, because REFUSED is passed over by musl, which waits for its time to be
 * over, and taken for a passing trouble by glibc; and without an SOA record, so that nobody
 * remembers it (RFC 2308, 5): a cache would take all names below for absent too (RFC 8020).
 */
const refusedName: OwnAnswer = { code: "noSuchName", extendedError: "blocked" };

/** What is done with a question of a machine. */
export function judge(question: Question, policy: DnsPolicy, zone: OwnZone): Verdict {
  const own = answerOwn(question, zone);
  if (own !== undefined) return { kind: "answer", answer: own };
  if (policy.kind === "everything") return { kind: "forward", tell: false };
  const { name, type } = question;
  if (!policy.domains.some((pattern) => isMatch(name, pattern))) {
    return { kind: "answer", answer: refusedName };
  }
  // Addresses stand in these in other places than in A and AAAA: a client goes by those then.
  const isHint = type === recordTypes.SVCB || type === recordTypes.HTTPS;
  if (isHint) return { kind: "answer", answer: { code: "noError", extendedError: "blocked" } };
  if (type === recordTypes.ANY) {
    return { kind: "answer", answer: { code: "notImplemented" } };
  }
  return { kind: "forward", tell: true };
}

/** Our own names and the addresses of our own network are never asked of anybody else. */
function answerOwn({ name, type }: Question, zone: OwnZone): OwnAnswer | undefined {
  if (name === zone.domain) return nothingOf(zone, "noError");
  const suffix = `.${zone.domain}`;
  if (name.endsWith(suffix)) {
    const address = zone.names.get(name.slice(0, -suffix.length));
    if (address === undefined) return nothingOf(zone, "noSuchName");
    if (type !== recordTypes.A) return nothingOf(zone, "noError");
    return ownAnswer({ type, timeToLive: OWN_TIME_TO_LIVE, data: addressBytes(address) });
  }
  const address = addressOfReverse(name);
  if (address === undefined) return undefined;
  if (!isInNetwork(address, zone.serverAddress, zone.prefixLength)) return undefined;
  const host = [...zone.names].find(([, own]) => own === address)?.[0];
  const authority = reverseName(address);
  if (host === undefined) return nothingOf({ ...zone, domain: authority }, "noSuchName");
  if (type !== recordTypes.PTR) return nothingOf({ ...zone, domain: authority }, "noError");
  return ownAnswer({ type, timeToLive: OWN_TIME_TO_LIVE, data: nameBytes(`${host}${suffix}`) });
}

function ownAnswer(record: OwnRecord): OwnAnswer {
  return { code: "noError", authoritative: true, answers: [record] };
}

/** No such name, or nothing of such a type; for how long that holds, the SOA record says. */
function nothingOf({ domain }: OwnZone, code: "noError" | "noSuchName"): OwnAnswer {
  const serial = 1;
  const numbers = new Uint8Array(20);
  const view = new DataView(numbers.buffer);
  [serial, 3_600, 600, 86_400, OWN_TIME_TO_LIVE].forEach((number, index) => {
    view.setUint32(index * 4, number, false);
  });
  const data = Uint8Array.from([...nameBytes(domain), ...nameBytes("nobody.invalid"), ...numbers]);
  const owner = nameBytes(domain);
  const record = { owner, type: recordTypes.SOA, timeToLive: OWN_TIME_TO_LIVE, data };
  return { code, authoritative: true, authorities: [record] };
}

/**
 * Addresses that no list lets through, whoever owns the name: this host itself, its link (where
 * clouds keep their metadata), groups and nobody. Whoever owns an allowed name could else open a
 * way to them.
 */
export function isNeverAllowed(address: string): boolean {
  if (!address.includes(":")) {
    return /^(0|127|169\.254|22[4-9]|23\d|2[45]\d)\./.test(address);
  }
  const groups = address.split(":").map((group) => Number.parseInt(group, 16));
  const [first = 0] = groups;
  const isMapped = groups.slice(0, 5).every((group) => group === 0);
  const isLink = (first & 0xffc0) === 0xfe80;
  const isGroup = (first & 0xff00) === 0xff00;
  return isMapped || isLink || isGroup;
}
