import {
  NF_ACCEPT,
  NF_DROP,
  NF_INET_FORWARD,
  NF_INET_LOCAL_IN,
  NF_INET_LOCAL_OUT,
  NF_INET_POST_ROUTING,
  NF_INET_PRE_ROUTING,
  NF_NETDEV_INGRESS,
  NFNL_SUBSYS_NFTABLES,
  NFPROTO_BRIDGE,
  NFPROTO_INET,
  NFPROTO_IPV4,
  NFPROTO_IPV6,
  NFPROTO_NETDEV,
  NFT_MSG_DELCHAIN,
  NFT_MSG_DELRULE,
  NFT_MSG_DELSET,
  NFT_MSG_DELSETELEM,
  NFT_MSG_DELTABLE,
  NFT_MSG_GETCHAIN,
  NFT_MSG_GETRULE,
  NFT_MSG_GETSET,
  NFT_MSG_GETSETELEM,
  NFT_MSG_GETTABLE,
  NFT_MSG_NEWCHAIN,
  NFT_MSG_NEWRULE,
  NFT_MSG_NEWSET,
  NFT_MSG_NEWSETELEM,
  NFT_MSG_NEWTABLE,
  NFT_SET_TIMEOUT,
  NFTA_CHAIN_HOOK,
  NFTA_CHAIN_NAME,
  NFTA_CHAIN_POLICY,
  NFTA_CHAIN_TABLE,
  NFTA_CHAIN_TYPE,
  NFTA_DATA_VALUE,
  NFTA_DEVICE_NAME,
  NFTA_HOOK_DEV,
  NFTA_HOOK_DEVS,
  NFTA_HOOK_HOOKNUM,
  NFTA_HOOK_PRIORITY,
  NFTA_LIST_ELEM,
  NFTA_RULE_CHAIN,
  NFTA_RULE_EXPRESSIONS,
  NFTA_RULE_TABLE,
  NFTA_RULE_USERDATA,
  NFTA_SET_ELEM_EXPIRATION,
  NFTA_SET_ELEM_KEY,
  NFTA_SET_ELEM_LIST_ELEMENTS,
  NFTA_SET_ELEM_LIST_SET,
  NFTA_SET_ELEM_LIST_TABLE,
  NFTA_SET_ELEM_TIMEOUT,
  NFTA_SET_FLAGS,
  NFTA_SET_ID,
  NFTA_SET_KEY_LEN,
  NFTA_SET_KEY_TYPE,
  NFTA_SET_NAME,
  NFTA_SET_TABLE,
  NFTA_SET_USERDATA,
  NFTA_TABLE_NAME,
  NFTA_TABLE_USERDATA,
  NLM_F_APPEND,
  NLM_F_CREATE,
  NLM_F_EXCL,
} from "../../ffi/constants.ts";
import { layouts } from "../../ffi/layouts.ts";
import {
  eachAttribute,
  MalformedNetlink,
  type NetlinkMessage,
  type NetlinkRequest,
  PayloadWriter,
  readAttributes,
  textOf,
  unsignedOf,
} from "../../ffi/netlink-message.ts";
import type { Milliseconds } from "../units/units.ts";
import { type Expression, readExpression, writeExpression } from "./nft-expressions.ts";
import { type Ipv4, ipv4Bytes, ipv4FromBytes } from "./subnet.ts";

/** Tables, chains, sets and rules of nftables: requests as data, answers read. Pure. */

export type TableFamily = "inet" | "netdev";

export interface Rule {
  /** Shown by `nft list ruleset`; compared like the rest. */
  readonly comment: string;
  readonly expressions: readonly Expression[];
}

/** Where packets come by. */
export type Hook = "ingress" | "prerouting" | "input" | "forward" | "output" | "postrouting";

export interface Chain {
  readonly name: string;
  readonly type: "filter" | "nat";
  readonly hook: Hook;
  /** The lower comes first. */
  readonly priority: number;
  readonly policy: "accept" | "drop";
  /** Of a chain of a netdev table. */
  readonly device: string | undefined;
  readonly rules: readonly Rule[];
}

/** A table as it is, or as it is to be. Sets hold IPv4 addresses with timeouts. */
export interface Table {
  readonly family: TableFamily;
  readonly name: string;
  readonly comment: string;
  readonly sets: readonly string[];
  readonly chains: readonly Chain[];
}

/** One step of a batch. */
export type RuleChange =
  | { readonly kind: "make-table"; readonly table: Table }
  | { readonly kind: "remove-table"; readonly table: TableName }
  | { readonly kind: "make-set"; readonly table: TableName; readonly set: string }
  | { readonly kind: "remove-set"; readonly table: TableName; readonly set: string }
  | { readonly kind: "make-chain"; readonly table: TableName; readonly chain: Chain }
  | { readonly kind: "replace-rules"; readonly table: TableName; readonly chain: Chain }
  | { readonly kind: "remove-chain"; readonly table: TableName; readonly chain: string };

export interface TableName {
  readonly family: TableFamily;
  readonly name: string;
}

const families = { inet: NFPROTO_INET, netdev: NFPROTO_NETDEV } as const;
const familyNames: Readonly<Record<number, string>> = {
  [NFPROTO_INET]: "inet",
  [NFPROTO_NETDEV]: "netdev",
  [NFPROTO_IPV4]: "ip",
  [NFPROTO_IPV6]: "ip6",
  [NFPROTO_BRIDGE]: "bridge",
};
const hooks: Readonly<Record<Hook, number>> = {
  ingress: NF_NETDEV_INGRESS,
  prerouting: NF_INET_PRE_ROUTING,
  input: NF_INET_LOCAL_IN,
  forward: NF_INET_FORWARD,
  output: NF_INET_LOCAL_OUT,
  postrouting: NF_INET_POST_ROUTING,
};

/** "ipv4_addr" of nft(8): TYPE_IPADDR in its include/datatype.h. */
const ipv4KeyType = 7;
/** Kinds of user data in which nft(8) keeps comments: libnftnl's udata.h. */
const commentOfSet = 7;
const commentOfAllElse = 0;

/** One comment as user data: kind, length with the zero byte, text. */
function commentBytes(kind: number, comment: string): Uint8Array {
  const text = new TextEncoder().encode(`${comment}\0`);
  // nft(8) takes 128 bytes, and a length is one byte.
  if (text.length > 128) throw new RangeError(`Expected a shorter comment, received: ${comment}`);
  return Uint8Array.of(kind, text.length, ...text);
}

/** The comment in user data; undefined when there is none. */
function commentOf(userData: Uint8Array | undefined, kind: number): string | undefined {
  if (userData === undefined) return undefined;
  for (let at = 0; at + 2 <= userData.length; at += 2 + (userData[at + 1] ?? 0)) {
    const end = at + 2 + (userData[at + 1] ?? 0);
    if (userData[at] === kind && end <= userData.length)
      return textOf(userData.subarray(at + 2, end));
  }
  return undefined;
}

const messageType = (message: number) => NFNL_SUBSYS_NFTABLES * 256 + message;

function request(
  message: number,
  family: number,
  fill: (writer: PayloadWriter) => void,
  flags = 0,
): NetlinkRequest {
  const writer = new PayloadWriter().header(layouts.nfgenmsg.size, (view) => {
    view.setUint8(layouts.nfgenmsg.nfgen_family, family);
  });
  fill(writer);
  return { type: messageType(message), flags, payload: writer.finish() };
}

/** The requests of one step, in the order in which a batch has them. */
export function encodeRuleChange(change: RuleChange): NetlinkRequest[] {
  const { name, family: familyName } = change.table;
  const family = families[familyName];
  switch (change.kind) {
    case "make-table":
      return encodeTable(change.table);
    case "remove-table":
      return [request(NFT_MSG_DELTABLE, family, (writer) => writer.text(NFTA_TABLE_NAME, name))];
    case "make-set":
      return [encodeSet(change.table, change.set)];
    case "remove-set":
      return [
        request(NFT_MSG_DELSET, family, (writer) => {
          writer.text(NFTA_SET_TABLE, name).text(NFTA_SET_NAME, change.set);
        }),
      ];
    case "make-chain":
      return encodeChain(change.table, change.chain);
    case "replace-rules":
      return [
        removeRules(change.table, change.chain.name),
        ...change.chain.rules.map((rule) => encodeRule(change.table, change.chain.name, rule)),
      ];
    case "remove-chain":
      return [
        removeRules(change.table, change.chain),
        request(NFT_MSG_DELCHAIN, family, (writer) => {
          writer.text(NFTA_CHAIN_TABLE, name).text(NFTA_CHAIN_NAME, change.chain);
        }),
      ];
  }
}

function encodeTable(table: Table): NetlinkRequest[] {
  const make = request(
    NFT_MSG_NEWTABLE,
    families[table.family],
    (writer) => {
      writer.text(NFTA_TABLE_NAME, table.name);
      writer.bytes(NFTA_TABLE_USERDATA, commentBytes(commentOfAllElse, table.comment));
    },
    NLM_F_CREATE | NLM_F_EXCL,
  );
  return [
    make,
    ...table.sets.map((set) => encodeSet(table, set)),
    ...table.chains.flatMap((chain) => encodeChain(table, chain)),
  ];
}

/** The kernel wants a number for each set of a batch; ours are used by name alone. */
function encodeSet(table: TableName, set: string): NetlinkRequest {
  return request(
    NFT_MSG_NEWSET,
    families[table.family],
    (writer) => {
      writer.text(NFTA_SET_TABLE, table.name).text(NFTA_SET_NAME, set);
      writer.bigEndian32(NFTA_SET_FLAGS, NFT_SET_TIMEOUT);
      writer.bigEndian32(NFTA_SET_KEY_TYPE, ipv4KeyType).bigEndian32(NFTA_SET_KEY_LEN, 4);
      writer.bigEndian32(NFTA_SET_ID, 1);
      writer.bytes(NFTA_SET_USERDATA, commentBytes(commentOfSet, "hostler vm allow list"));
    },
    NLM_F_CREATE | NLM_F_EXCL,
  );
}

function encodeChain(table: TableName, chain: Chain): NetlinkRequest[] {
  const make = request(
    NFT_MSG_NEWCHAIN,
    families[table.family],
    (writer) => {
      writer.text(NFTA_CHAIN_TABLE, table.name).text(NFTA_CHAIN_NAME, chain.name);
      writer.nested(NFTA_CHAIN_HOOK, (hook) => {
        hook.bigEndian32(NFTA_HOOK_HOOKNUM, hooks[chain.hook]);
        hook.bigEndian32(NFTA_HOOK_PRIORITY, chain.priority >>> 0);
        if (chain.device !== undefined) hook.text(NFTA_HOOK_DEV, chain.device);
      });
      writer.bigEndian32(NFTA_CHAIN_POLICY, chain.policy === "accept" ? NF_ACCEPT : NF_DROP);
      writer.text(NFTA_CHAIN_TYPE, chain.type);
    },
    NLM_F_CREATE | NLM_F_EXCL,
  );
  return [make, ...chain.rules.map((rule) => encodeRule(table, chain.name, rule))];
}

function encodeRule(table: TableName, chain: string, rule: Rule): NetlinkRequest {
  return request(
    NFT_MSG_NEWRULE,
    families[table.family],
    (writer) => {
      writer.text(NFTA_RULE_TABLE, table.name).text(NFTA_RULE_CHAIN, chain);
      writer.nested(NFTA_RULE_EXPRESSIONS, (list) => {
        for (const expression of rule.expressions) writeExpression(list, expression);
      });
      writer.bytes(NFTA_RULE_USERDATA, commentBytes(commentOfAllElse, rule.comment));
    },
    NLM_F_CREATE | NLM_F_APPEND,
  );
}

function removeRules(table: TableName, chain: string): NetlinkRequest {
  return request(NFT_MSG_DELRULE, families[table.family], (writer) => {
    writer.text(NFTA_RULE_TABLE, table.name).text(NFTA_RULE_CHAIN, chain);
  });
}

/** An address that is allowed for a while. */
export interface AllowedAddress {
  readonly address: Ipv4;
  readonly timeout: Milliseconds;
}

/** An allow list, in its table. */
export interface SetName {
  readonly table: TableName;
  readonly set: string;
}

function encodeElements(
  message: number,
  { table, set }: SetName,
  elements: readonly AllowedAddress[],
  flags: number,
): NetlinkRequest {
  return request(
    message,
    families[table.family],
    (writer) => {
      writer.text(NFTA_SET_ELEM_LIST_TABLE, table.name).text(NFTA_SET_ELEM_LIST_SET, set);
      writer.nested(NFTA_SET_ELEM_LIST_ELEMENTS, (list) => {
        for (const { address, timeout } of elements) {
          list.nested(NFTA_LIST_ELEM, (element) => {
            element.nested(NFTA_SET_ELEM_KEY, (key) =>
              key.bytes(NFTA_DATA_VALUE, ipv4Bytes(address)),
            );
            if (message === NFT_MSG_DELSETELEM) return;
            element.bigEndian64(NFTA_SET_ELEM_TIMEOUT, Math.max(1, Math.ceil(timeout)));
          });
        }
      });
    },
    flags,
  );
}

/** Addresses in one request; over it a refusal by the attribute's 16 bits of length. */
export const MOST_ALLOWED_ADDRESSES = 1000;

/**
 * Allows addresses for their time from now on, whether they were allowed before or not. Before
 * Linux 6.12 adding does not renew, and removing what is not there is refused: so each is added,
 * removed, and added. In one batch no packet sees it missing.
 * @throws RangeError for more than MOST_ALLOWED_ADDRESSES
 */
export function allowAddresses(
  name: SetName,
  addresses: readonly AllowedAddress[],
): NetlinkRequest[] {
  if (addresses.length > MOST_ALLOWED_ADDRESSES) {
    throw new RangeError(
      `Expected at most ${MOST_ALLOWED_ADDRESSES} addresses, received ${addresses.length}`,
    );
  }
  const last = new Map(addresses.map((allowed) => [allowed.address, allowed]));
  const unique = [...last.values()];
  if (unique.length === 0) return [];
  return [
    encodeElements(NFT_MSG_NEWSETELEM, name, unique, NLM_F_CREATE),
    encodeElements(NFT_MSG_DELSETELEM, name, unique, 0),
    encodeElements(NFT_MSG_NEWSETELEM, name, unique, NLM_F_CREATE),
  ];
}

/** Requests for dumps; those of rules and sets are of one table. */
export const dumpTables = (): NetlinkRequest => request(NFT_MSG_GETTABLE, 0, () => {});
export const dumpChains = (): NetlinkRequest => request(NFT_MSG_GETCHAIN, 0, () => {});
export const dumpRules = ({ family, name }: TableName): NetlinkRequest =>
  request(NFT_MSG_GETRULE, families[family], (writer) => writer.text(NFTA_RULE_TABLE, name));
export const dumpSets = ({ family, name }: TableName): NetlinkRequest =>
  request(NFT_MSG_GETSET, families[family], (writer) => writer.text(NFTA_SET_TABLE, name));
export const dumpAllowed = ({ table, set }: SetName): NetlinkRequest =>
  request(NFT_MSG_GETSETELEM, families[table.family], (writer) => {
    writer.text(NFTA_SET_ELEM_LIST_TABLE, table.name).text(NFTA_SET_ELEM_LIST_SET, set);
  });

/** The attributes of an answer. @throws MalformedNetlink for an answer of another kind */
function attributesOf(message: NetlinkMessage, expected: number, what: string) {
  if (message.type !== messageType(expected)) {
    throw new MalformedNetlink(`Expected ${what}, received a message of type ${message.type}`);
  }
  if (message.payload.length < layouts.nfgenmsg.size) {
    throw new MalformedNetlink(`Expected ${what}, received ${message.payload.length} bytes`);
  }
  const attributes = readAttributes(message.payload.subarray(layouts.nfgenmsg.size));
  const text = (type: number) => {
    const bytes = attributes.get(type);
    if (bytes === undefined) throw new MalformedNetlink(`Expected ${what} with its name`);
    return textOf(bytes);
  };
  return { attributes, text, family: familyNames[message.payload[0] ?? 0] ?? "other" };
}

/** A table's name and comment, as they are told of all tables of the host. */
export interface TableSummary {
  /** "inet", "netdev", "ip" …; "other" for families that we do not know. */
  readonly family: string;
  readonly name: string;
  readonly comment: string | undefined;
}

/** @throws MalformedNetlink */
export function decodeTable(message: NetlinkMessage): TableSummary {
  const { attributes, text, family } = attributesOf(message, NFT_MSG_NEWTABLE, "a table");
  const comment = commentOf(attributes.get(NFTA_TABLE_USERDATA), commentOfAllElse);
  return { family, name: text(NFTA_TABLE_NAME), comment };
}

/** A chain without its rules. */
export interface ChainSummary {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  /** undefined for a chain that only other chains lead to. */
  readonly base:
    | {
        readonly type: string;
        /** The kernel's number: hooks of other families have others. */
        readonly hook: Hook | undefined;
        readonly priority: number;
        readonly policy: "accept" | "drop";
        readonly devices: readonly string[];
      }
    | undefined;
}

/** @throws MalformedNetlink */
export function decodeChain(message: NetlinkMessage): ChainSummary {
  const { attributes, text, family } = attributesOf(message, NFT_MSG_NEWCHAIN, "a chain");
  const table = text(NFTA_CHAIN_TABLE);
  const name = text(NFTA_CHAIN_NAME);
  const hookBytes = attributes.get(NFTA_CHAIN_HOOK);
  if (hookBytes === undefined) return { family, table, name, base: undefined };
  const hook = readAttributes(hookBytes);
  const number = (bytes: Uint8Array | undefined) => bytes && unsignedOf(bytes, "big-endian");
  const devices: string[] = [];
  eachAttribute(hook.get(NFTA_HOOK_DEVS) ?? new Uint8Array(), (type, value) => {
    if (type === NFTA_DEVICE_NAME) devices.push(textOf(value));
  });
  const single = hook.get(NFTA_HOOK_DEV);
  if (devices.length === 0 && single !== undefined) devices.push(textOf(single));
  const policy = number(attributes.get(NFTA_CHAIN_POLICY)) === NF_DROP ? "drop" : "accept";
  const base = {
    type: text(NFTA_CHAIN_TYPE),
    hook: hookOf(family, number(hook.get(NFTA_HOOK_HOOKNUM))),
    priority: (number(hook.get(NFTA_HOOK_PRIORITY)) ?? 0) | 0,
    policy,
    devices,
  } as const;
  return { family, table, name, base };
}

function hookOf(family: string, number: number | undefined): Hook | undefined {
  if (family === "netdev") return number === NF_NETDEV_INGRESS ? "ingress" : undefined;
  const names: readonly Hook[] = ["prerouting", "input", "forward", "output", "postrouting"];
  return names.find((name) => hooks[name] === number);
}

/** A rule, and where it stands. */
export interface PlacedRule {
  readonly chain: string;
  readonly rule: Rule;
}

/** @throws MalformedNetlink */
export function decodeRule(message: NetlinkMessage): PlacedRule {
  const { attributes, text } = attributesOf(message, NFT_MSG_NEWRULE, "a rule");
  const expressions: Expression[] = [];
  eachAttribute(attributes.get(NFTA_RULE_EXPRESSIONS) ?? new Uint8Array(), (type, value) => {
    if (type === NFTA_LIST_ELEM) expressions.push(readExpression(value));
  });
  const comment = commentOf(attributes.get(NFTA_RULE_USERDATA), commentOfAllElse) ?? "";
  return { chain: text(NFTA_RULE_CHAIN), rule: { comment, expressions } };
}

/** @returns the set's name; undefined for a set of another form than ours */
export function decodeSet(message: NetlinkMessage): string | undefined {
  const { attributes, text } = attributesOf(message, NFT_MSG_NEWSET, "a set");
  const number = (type: number) => {
    const bytes = attributes.get(type);
    return bytes && unsignedOf(bytes, "big-endian");
  };
  const isOurs =
    number(NFTA_SET_KEY_TYPE) === ipv4KeyType && number(NFTA_SET_FLAGS) === NFT_SET_TIMEOUT;
  return isOurs ? text(NFTA_SET_NAME) : undefined;
}

/** The addresses of an allow list, each with the time that is left. @throws MalformedNetlink */
export function decodeAllowed(message: NetlinkMessage): AllowedAddress[] {
  const { attributes } = attributesOf(message, NFT_MSG_NEWSETELEM, "elements of a set");
  const allowed: AllowedAddress[] = [];
  eachAttribute(attributes.get(NFTA_SET_ELEM_LIST_ELEMENTS) ?? new Uint8Array(), (_type, value) => {
    const element = readAttributes(value);
    const key = readAttributes(element.get(NFTA_SET_ELEM_KEY) ?? new Uint8Array());
    const address = ipv4FromBytes(key.get(NFTA_DATA_VALUE) ?? new Uint8Array());
    if (address === undefined) throw new MalformedNetlink("Expected an element of 4 bytes");
    const left = element.get(NFTA_SET_ELEM_EXPIRATION) ?? element.get(NFTA_SET_ELEM_TIMEOUT);
    allowed.push({ address, timeout: left === undefined ? 0 : unsignedOf(left, "big-endian") });
  });
  return allowed;
}
