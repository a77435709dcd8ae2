/** What `ip -batch` and nft(8) are told, and what they say of what there is. */
import * as v from "valibot";
import type { NetworkOperation } from "../../src/network/plan.ts";
import { formatIpv4 } from "../../src/network/subnet.ts";
import { ScriptError } from "../terminal.ts";

/**
 * Links and addresses as lines of `ip -batch`. What the kernel does by itself is left out, and what
 * can be said of one link in one line is.
 * @throws ScriptError for an operation that has no words here
 */
export function batchOf(operations: readonly NetworkOperation[]): string {
  return operations.flatMap(linesOf).join("\n");
}

function linesOf(operation: NetworkOperation): string[] {
  switch (operation.kind) {
    case "make-bridge": {
      const { name, macAddress, alias } = operation;
      return [
        `link add name ${name} address ${macAddress} type bridge`,
        `link set dev ${name} alias "${alias}"`,
      ];
    }
    case "add-address": {
      const { bridge, address, prefix, broadcast } = operation;
      const ends = `${formatIpv4(address)}/${prefix} broadcast ${formatIpv4(broadcast)}`;
      return [`address add ${ends} dev ${bridge}`];
    }
    case "make-tap": {
      const { name, ownerUser, bridge, alias } = operation;
      return [
        `tuntap add dev ${name} mode tap user ${ownerUser} vnet_hdr`,
        `link set dev ${name} alias "${alias}" master ${bridge}`,
      ];
    }
    case "open-port":
      return [`link set dev ${operation.tap} up`];
    case "bring-up":
      return [`link set dev ${operation.bridge} up`];
    // One nft -f makes them all.
    case "change-rules":
      return [];
    default:
      throw new ScriptError(`No line of ip -batch for ${operation.kind}`, { exitCode: 1 });
  }
}

/** Numbers that the kernel gives out in order, clocks, and what follows from a carrier's coming. */
const own = /^(handle|ifindex|no|port_no|.*_timer|operstate|state|stats.*|bridge_id|root_id)$/;
/** Whether somebody is at the other end: the kernel notices a little later that nobody is. */
const carrier = new Set<unknown>(["NO-CARRIER", "LOWER_UP"]);

/** What two sides must agree in, of an answer in JSON. */
export function canonical(value: unknown): unknown {
  if (Array.isArray(value)) {
    const said = value.filter((item) => !carrier.has(item));
    const items = joinMatches(said).map(canonical);
    return items.filter((item) => !isEmpty(item));
  }
  if (typeof value !== "object" || value === null) return value;
  // A TAP's own address is chance; its machine's is in the rules.
  const isTap = "linkinfo" in value && kindOf(value.linkinfo) === "tun";
  const entries = Object.entries(value)
    .filter(([name]) => !own.test(name) && !(isTap && name === "address"))
    .map(([name, part]) => [name, canonical(part)] as const);
  return Object.fromEntries(entries.toSorted(([left], [right]) => (left < right ? -1 : 1)));
}

const isEmpty = (value: unknown) =>
  typeof value === "object" && value !== null && Object.keys(value).length === 0;
const kindOf = (info: unknown) =>
  typeof info === "object" && info !== null && "info_kind" in info ? info.info_kind : undefined;

/** An expression of nft that compares bytes of a packet at a place: bits, both of them. */
const byteMatch = v.strictObject({
  match: v.strictObject({
    op: v.literal("=="),
    left: v.strictObject({
      payload: v.strictObject({ base: v.string(), offset: v.number(), len: v.number() }),
    }),
    right: v.union([v.pipe(v.number(), v.safeInteger()), v.pipe(v.string(), v.regex(/^0x/))]),
  }),
});

/**
 * nft(8) joins comparisons of bytes that lie beside each other, and hostler does not: those that
 * follow each other become one that says each byte by its place.
 */
function joinMatches(items: readonly unknown[]): unknown[] {
  const joined: unknown[] = [];
  let bytes: Record<string, string> | undefined;
  for (const item of items) {
    const parsed = v.safeParse(byteMatch, item);
    if (!parsed.success) {
      bytes = undefined;
      joined.push(item);
      continue;
    }
    if (bytes === undefined) {
      bytes = {};
      joined.push({ bytes });
    }
    const { left, right } = parsed.output.match;
    const { base, offset, len } = left.payload;
    const digits = BigInt(right)
      .toString(16)
      .padStart(len / 4, "0");
    for (let index = 0; index < len / 8; index += 1) {
      bytes[`${base} ${offset / 8 + index}`] = digits.slice(2 * index, 2 * index + 2);
    }
  }
  return joined;
}

/** The items of a list that have no equal at the same place of the other, as JSON. */
export function differencesOf(left: readonly unknown[], right: readonly unknown[]): string[] {
  const count = Math.max(left.length, right.length);
  return Array.from({ length: count }, (_item, index) => index).flatMap((index) => {
    const [one, other] = [left[index], right[index]];
    if (Bun.deepEquals(one, other)) return [];
    return [`${JSON.stringify(one ?? null)} is not ${JSON.stringify(other ?? null)}`];
  });
}
