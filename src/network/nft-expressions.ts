import {
  IPS_DST_NAT,
  NF_ACCEPT,
  NF_DROP,
  NFPROTO_IPV4,
  NFT_CMP_EQ,
  NFT_CMP_NEQ,
  NFT_CT_STATE,
  NFT_CT_STATUS,
  NFT_FIB_RESULT_ADDRTYPE,
  NFT_META_IIFNAME,
  NFT_META_L4PROTO,
  NFT_META_NFPROTO,
  NFT_META_OIFNAME,
  NFT_NAT_DNAT,
  NFT_PAYLOAD_LL_HEADER,
  NFT_PAYLOAD_NETWORK_HEADER,
  NFT_PAYLOAD_TRANSPORT_HEADER,
  NFT_REG_1,
  NFT_REG_2,
  NFT_REG_VERDICT,
  NFTA_BITWISE_DREG,
  NFTA_BITWISE_LEN,
  NFTA_BITWISE_MASK,
  NFTA_BITWISE_SREG,
  NFTA_BITWISE_XOR,
  NFTA_CMP_DATA,
  NFTA_CMP_OP,
  NFTA_CMP_SREG,
  NFTA_CT_DREG,
  NFTA_CT_KEY,
  NFTA_DATA_VALUE,
  NFTA_DATA_VERDICT,
  NFTA_EXPR_DATA,
  NFTA_EXPR_NAME,
  NFTA_FIB_DREG,
  NFTA_FIB_F_DADDR,
  NFTA_FIB_FLAGS,
  NFTA_FIB_RESULT,
  NFTA_IMMEDIATE_DATA,
  NFTA_IMMEDIATE_DREG,
  NFTA_LIST_ELEM,
  NFTA_LOOKUP_SET,
  NFTA_LOOKUP_SREG,
  NFTA_META_DREG,
  NFTA_META_KEY,
  NFTA_NAT_FAMILY,
  NFTA_NAT_REG_ADDR_MIN,
  NFTA_NAT_REG_PROTO_MIN,
  NFTA_NAT_TYPE,
  NFTA_PAYLOAD_BASE,
  NFTA_PAYLOAD_DREG,
  NFTA_PAYLOAD_LEN,
  NFTA_PAYLOAD_OFFSET,
  NFTA_VERDICT_CODE,
} from "../../ffi/constants.ts";
import {
  MalformedNetlink,
  type PayloadWriter,
  readAttributes,
  textOf,
  unsignedOf,
} from "../../ffi/netlink-message.ts";

/**
 * The expressions of nftables that our rules are made of, as data that compares: what the kernel
 * gives back of a rule is equal to what was put in. Values are bytes in hexadecimal digits.
 */

/** Which header of a packet: Ethernet's, IP's or ARP's, TCP's or UDP's. */
export type PacketHeader = "link" | "network" | "transport";

/** What of a packet is not in its headers. */
export type PacketFact = "input" | "output" | "network-protocol" | "transport-protocol";

/** All but `destination-translation` use the first register. */
export type Expression =
  /** Loads bytes of a header. */
  | {
      readonly kind: "payload";
      readonly header: PacketHeader;
      readonly offset: number;
      readonly length: number;
    }
  /** Loads a fact. */
  | { readonly kind: "fact"; readonly fact: PacketFact }
  /** Loads what connection tracking knows: include/uapi/linux/netfilter/nf_conntrack_common.h. */
  | { readonly kind: "connection"; readonly part: "state" | "status" }
  /** Loads of what type the destination is to this host: RTN_LOCAL and its kin. */
  | { readonly kind: "destination-type" }
  /** Keeps the bits of a mask. */
  | { readonly kind: "mask"; readonly mask: string }
  /** The rule goes on where they are equal, or different. */
  | { readonly kind: "compare"; readonly is: "equal" | "different"; readonly value: string }
  /** The rule goes on where a set has the value. */
  | { readonly kind: "in-set"; readonly set: string }
  /** Counts packets and bytes; what it has counted is not compared. */
  | { readonly kind: "counter" }
  | { readonly kind: "verdict"; readonly verdict: "accept" | "drop" }
  /** Loads a value, for a translation. */
  | { readonly kind: "load"; readonly register: 1 | 2; readonly value: string }
  /** To the IPv4 address in register 1 and the port in register 2. */
  | { readonly kind: "destination-translation" }
  | { readonly kind: "masquerade" }
  /** What we do not make: a rule that has one is none of ours. */
  | { readonly kind: "foreign"; readonly name: string };

/** Bits of the connection's state: NF_CT_STATE_BIT of established and related, and IPS_DST_NAT. */
export const ESTABLISHED_OR_RELATED = 2 | 4;
export const DESTINATION_TRANSLATED: number = IPS_DST_NAT;

const headers: readonly (readonly [PacketHeader, number])[] = [
  ["link", NFT_PAYLOAD_LL_HEADER],
  ["network", NFT_PAYLOAD_NETWORK_HEADER],
  ["transport", NFT_PAYLOAD_TRANSPORT_HEADER],
];
const facts: readonly (readonly [PacketFact, number])[] = [
  ["input", NFT_META_IIFNAME],
  ["output", NFT_META_OIFNAME],
  ["network-protocol", NFT_META_NFPROTO],
  ["transport-protocol", NFT_META_L4PROTO],
];
const connectionParts: readonly (readonly ["state" | "status", number])[] = [
  ["state", NFT_CT_STATE],
  ["status", NFT_CT_STATUS],
];
const comparisons: readonly (readonly ["equal" | "different", number])[] = [
  ["equal", NFT_CMP_EQ],
  ["different", NFT_CMP_NEQ],
];
const verdicts: readonly (readonly ["accept" | "drop", number])[] = [
  ["accept", NF_ACCEPT],
  ["drop", NF_DROP],
];

/** The number of a word. Every word of the type stands in its table. */
function numberOf<Word>(table: readonly (readonly [Word, number])[], word: Word): number {
  const row = table.find(([name]) => name === word);
  if (row === undefined) throw new Error(`Bug: ${String(word)} has no number`);
  return row[1];
}

function wordOf<Word>(table: readonly (readonly [Word, number])[], number: number | undefined) {
  return table.find(([, value]) => value === number)?.[0];
}

/** Writes one element of a rule's list of expressions. */
export function writeExpression(writer: PayloadWriter, expression: Expression): void {
  const [name, fill] = bodyOf(expression);
  writer.nested(NFTA_LIST_ELEM, (element) => {
    element.text(NFTA_EXPR_NAME, name).nested(NFTA_EXPR_DATA, fill);
  });
}

type Fill = (writer: PayloadWriter) => void;

const value = (bytes: string) => (writer: PayloadWriter) => {
  writer.bytes(NFTA_DATA_VALUE, Uint8Array.fromHex(bytes));
};

/** The kernel's name of an expression, and what stands in it. */
function bodyOf(expression: Expression): readonly [string, Fill] {
  switch (expression.kind) {
    case "payload":
      return [
        "payload",
        (writer) => {
          writer.bigEndian32(NFTA_PAYLOAD_DREG, NFT_REG_1);
          writer.bigEndian32(NFTA_PAYLOAD_BASE, numberOf(headers, expression.header));
          writer.bigEndian32(NFTA_PAYLOAD_OFFSET, expression.offset);
          writer.bigEndian32(NFTA_PAYLOAD_LEN, expression.length);
        },
      ];
    case "fact":
      return [
        "meta",
        (writer) => {
          writer.bigEndian32(NFTA_META_DREG, NFT_REG_1);
          writer.bigEndian32(NFTA_META_KEY, numberOf(facts, expression.fact));
        },
      ];
    case "connection":
      return [
        "ct",
        (writer) => {
          writer.bigEndian32(NFTA_CT_DREG, NFT_REG_1);
          writer.bigEndian32(NFTA_CT_KEY, numberOf(connectionParts, expression.part));
        },
      ];
    case "destination-type":
      return [
        "fib",
        (writer) => {
          writer.bigEndian32(NFTA_FIB_DREG, NFT_REG_1);
          writer.bigEndian32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
          writer.bigEndian32(NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
        },
      ];
    case "mask":
    case "compare":
    case "in-set":
      return testBody(expression);
    default:
      return endBody(expression);
  }
}

function testBody(
  expression: Extract<Expression, { kind: "mask" | "compare" | "in-set" }>,
): readonly [string, Fill] {
  switch (expression.kind) {
    case "mask":
      return [
        "bitwise",
        (writer) => {
          const length = expression.mask.length / 2;
          writer.bigEndian32(NFTA_BITWISE_SREG, NFT_REG_1);
          writer.bigEndian32(NFTA_BITWISE_DREG, NFT_REG_1);
          writer.bigEndian32(NFTA_BITWISE_LEN, length);
          writer.nested(NFTA_BITWISE_MASK, value(expression.mask));
          writer.nested(NFTA_BITWISE_XOR, value("00".repeat(length)));
        },
      ];
    case "compare":
      return [
        "cmp",
        (writer) => {
          writer.bigEndian32(NFTA_CMP_SREG, NFT_REG_1);
          writer.bigEndian32(NFTA_CMP_OP, numberOf(comparisons, expression.is));
          writer.nested(NFTA_CMP_DATA, value(expression.value));
        },
      ];
    case "in-set":
      return [
        "lookup",
        (writer) => {
          writer.text(NFTA_LOOKUP_SET, expression.set);
          writer.bigEndian32(NFTA_LOOKUP_SREG, NFT_REG_1);
        },
      ];
  }
}

type EndKind = "counter" | "verdict" | "load" | "destination-translation" | "masquerade";

function endBody(
  expression: Extract<Expression, { kind: EndKind | "foreign" }>,
): readonly [string, Fill] {
  switch (expression.kind) {
    case "counter":
      return ["counter", () => {}];
    case "verdict":
      return [
        "immediate",
        (writer) => {
          writer.bigEndian32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
          writer.nested(NFTA_IMMEDIATE_DATA, (data) => {
            data.nested(NFTA_DATA_VERDICT, (verdict) => {
              verdict.bigEndian32(NFTA_VERDICT_CODE, numberOf(verdicts, expression.verdict));
            });
          });
        },
      ];
    case "load":
      return [
        "immediate",
        (writer) => {
          const register = expression.register === 1 ? NFT_REG_1 : NFT_REG_2;
          writer.bigEndian32(NFTA_IMMEDIATE_DREG, register);
          writer.nested(NFTA_IMMEDIATE_DATA, value(expression.value));
        },
      ];
    case "destination-translation":
      return [
        "nat",
        (writer) => {
          writer.bigEndian32(NFTA_NAT_TYPE, NFT_NAT_DNAT);
          writer.bigEndian32(NFTA_NAT_FAMILY, NFPROTO_IPV4);
          writer.bigEndian32(NFTA_NAT_REG_ADDR_MIN, NFT_REG_1);
          writer.bigEndian32(NFTA_NAT_REG_PROTO_MIN, NFT_REG_2);
        },
      ];
    case "masquerade":
      return ["masq", () => {}];
    case "foreign":
      throw new Error(`Bug: an expression "${expression.name}" is read, and never written`);
  }
}

/** What stands in an expression's body, asked by the number of the attribute. */
class Body {
  readonly #attributes: ReadonlyMap<number, Uint8Array>;

  constructor(bytes: Uint8Array) {
    this.#attributes = readAttributes(bytes);
  }

  number(type: number): number | undefined {
    const bytes = this.#attributes.get(type);
    return bytes && unsignedOf(bytes, "big-endian");
  }

  text(type: number): string | undefined {
    const bytes = this.#attributes.get(type);
    return bytes && textOf(bytes);
  }

  nested(type: number): Body {
    return new Body(this.#attributes.get(type) ?? new Uint8Array());
  }

  /** The value in NFTA_DATA_VALUE of an attribute. */
  value(type: number): string | undefined {
    return this.nested(type).#attributes.get(NFTA_DATA_VALUE)?.toHex();
  }
}

/** One element of a rule's list. @throws MalformedNetlink */
export function readExpression(bytes: Uint8Array): Expression {
  const attributes = readAttributes(bytes);
  const nameBytes = attributes.get(NFTA_EXPR_NAME);
  if (nameBytes === undefined) {
    throw new MalformedNetlink("Expected an expression's name, received none");
  }
  const name = textOf(nameBytes);
  const body = new Body(attributes.get(NFTA_EXPR_DATA) ?? new Uint8Array());
  return readers[name]?.(body) ?? { kind: "foreign", name };
}

/** undefined where it is not of the form that we write. */
const readers: Readonly<Record<string, (body: Body) => Expression | undefined>> = {
  payload: (body) => {
    const header = wordOf(headers, body.number(NFTA_PAYLOAD_BASE));
    const offset = body.number(NFTA_PAYLOAD_OFFSET);
    const length = body.number(NFTA_PAYLOAD_LEN);
    const isOurs = body.number(NFTA_PAYLOAD_DREG) === NFT_REG_1;
    if (!isOurs || header === undefined || offset === undefined || length === undefined) {
      return undefined;
    }
    return { kind: "payload", header, offset, length };
  },
  meta: (body) => {
    const fact = wordOf(facts, body.number(NFTA_META_KEY));
    const isOurs = body.number(NFTA_META_DREG) === NFT_REG_1;
    return isOurs && fact !== undefined ? { kind: "fact", fact } : undefined;
  },
  ct: (body) => {
    const part = wordOf(connectionParts, body.number(NFTA_CT_KEY));
    const isOurs = body.number(NFTA_CT_DREG) === NFT_REG_1;
    return isOurs && part !== undefined ? { kind: "connection", part } : undefined;
  },
  fib: (body) => {
    const isOurs =
      body.number(NFTA_FIB_DREG) === NFT_REG_1 &&
      body.number(NFTA_FIB_RESULT) === NFT_FIB_RESULT_ADDRTYPE &&
      body.number(NFTA_FIB_FLAGS) === NFTA_FIB_F_DADDR;
    return isOurs ? { kind: "destination-type" } : undefined;
  },
  bitwise: (body) => {
    const mask = body.value(NFTA_BITWISE_MASK);
    const isOurs =
      body.number(NFTA_BITWISE_SREG) === NFT_REG_1 &&
      body.number(NFTA_BITWISE_DREG) === NFT_REG_1 &&
      /^0*$/.test(body.value(NFTA_BITWISE_XOR) ?? "1");
    return isOurs && mask !== undefined ? { kind: "mask", mask } : undefined;
  },
  cmp: (body) => {
    const is = wordOf(comparisons, body.number(NFTA_CMP_OP));
    const bytes = body.value(NFTA_CMP_DATA);
    const isOurs = body.number(NFTA_CMP_SREG) === NFT_REG_1;
    if (!isOurs || is === undefined || bytes === undefined) return undefined;
    return { kind: "compare", is, value: bytes };
  },
  lookup: (body) => {
    const set = body.text(NFTA_LOOKUP_SET);
    const isOurs = body.number(NFTA_LOOKUP_SREG) === NFT_REG_1;
    return isOurs && set !== undefined ? { kind: "in-set", set } : undefined;
  },
  counter: () => ({ kind: "counter" }),
  immediate: (body) => {
    const register = body.number(NFTA_IMMEDIATE_DREG);
    if (register === NFT_REG_VERDICT) {
      const data = body.nested(NFTA_IMMEDIATE_DATA).nested(NFTA_DATA_VERDICT);
      const verdict = wordOf(verdicts, data.number(NFTA_VERDICT_CODE));
      return verdict && { kind: "verdict", verdict };
    }
    const bytes = body.value(NFTA_IMMEDIATE_DATA);
    if (bytes === undefined) return undefined;
    if (register === NFT_REG_1) return { kind: "load", register: 1, value: bytes };
    return register === NFT_REG_2 ? { kind: "load", register: 2, value: bytes } : undefined;
  },
  nat: (body) => {
    const isOurs =
      body.number(NFTA_NAT_TYPE) === NFT_NAT_DNAT &&
      body.number(NFTA_NAT_FAMILY) === NFPROTO_IPV4 &&
      body.number(NFTA_NAT_REG_ADDR_MIN) === NFT_REG_1 &&
      body.number(NFTA_NAT_REG_PROTO_MIN) === NFT_REG_2;
    return isOurs ? { kind: "destination-translation" } : undefined;
  },
  masq: () => ({ kind: "masquerade" }),
};
