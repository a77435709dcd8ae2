import {
  AF_BRIDGE,
  AF_INET,
  AF_INET6,
  BRIDGE_FLAGS_SELF,
  BRIDGE_VLAN_INFO_PVID,
  BRIDGE_VLAN_INFO_UNTAGGED,
  IFA_ADDRESS,
  IFA_BROADCAST,
  IFA_F_TENTATIVE,
  IFA_FLAGS,
  IFA_LOCAL,
  IFF_UP,
  IFLA_ADDRESS,
  IFLA_AF_SPEC,
  IFLA_BR_VLAN_FILTERING,
  IFLA_BRIDGE_FLAGS,
  IFLA_BRIDGE_VLAN_INFO,
  IFLA_BRPORT_GUARD,
  IFLA_BRPORT_ISOLATED,
  IFLA_BRPORT_LEARNING,
  IFLA_BRPORT_MCAST_FLOOD,
  IFLA_BRPORT_MODE,
  IFLA_BRPORT_PROTECT,
  IFLA_BRPORT_UNICAST_FLOOD,
  IFLA_CARRIER,
  IFLA_CARRIER_CHANGES,
  IFLA_EXT_MASK,
  IFLA_GROUP,
  IFLA_IFALIAS,
  IFLA_IFNAME,
  IFLA_INFO_DATA,
  IFLA_INFO_KIND,
  IFLA_INFO_SLAVE_DATA,
  IFLA_INFO_SLAVE_KIND,
  IFLA_LINKINFO,
  IFLA_MASTER,
  IFLA_MAX_MTU,
  IFLA_MTU,
  IFLA_STATS64,
  IFLA_TUN_GROUP,
  IFLA_TUN_OWNER,
  IFLA_TUN_PERSIST,
  IFLA_TUN_TYPE,
  IFLA_TUN_VNET_HDR,
  NLM_F_CREATE,
  NLM_F_EXCL,
  RTA_DST,
  RTA_GATEWAY,
  RTA_OIF,
  RTA_TABLE,
  RTEXT_FILTER_BRVLAN,
  RTM_DELADDR,
  RTM_DELLINK,
  RTM_GETADDR,
  RTM_GETLINK,
  RTM_GETROUTE,
  RTM_NEWADDR,
  RTM_NEWLINK,
  RTM_NEWROUTE,
  RTM_SETLINK,
  RTN_UNICAST,
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
import { formatMacAddress, type Ipv4, ipv4Bytes, ipv4FromBytes, type Subnet } from "./subnet.ts";

/** Links, addresses and routes as rtnetlink(7) carries them: requests as data, answers read. */

const { bridge_vlan_info, ifaddrmsg, ifinfomsg, rtmsg, rtnl_link_stats64 } = layouts;

/** How a port of a bridge treats its frames. */
export interface BridgePort {
  /** Isolated ports send nothing to each other. */
  readonly isolated: boolean;
  /** Source addresses are remembered. */
  readonly learning: boolean;
  /** Frames for unknown addresses, and for groups, are sent here as well. */
  readonly unicastFlood: boolean;
  readonly multicastFlood: boolean;
  /** Bridge protocol frames close the port. */
  readonly guard: boolean;
  /** It never becomes the way to the root bridge. */
  readonly rootBlock: boolean;
  /** Frames may leave by the port that they came by. */
  readonly hairpin: boolean;
}

/** Of a TUN or TAP device. */
export interface TapState {
  readonly isTap: boolean;
  readonly owner: number | undefined;
  readonly group: number | undefined;
  readonly isPersistent: boolean;
  readonly hasVirtioHeader: boolean;
}

/** Counted by the host: what it received is what the machine behind a TAP sent. */
export interface LinkCounters {
  readonly receivedBytes: number;
  readonly receivedPackets: number;
  readonly receivedDropped: number;
  readonly sentBytes: number;
  readonly sentPackets: number;
  readonly sentDropped: number;
}

export interface Link {
  readonly index: number;
  readonly name: string;
  /** "bridge", "tun", "veth" …; undefined for hardware and the loopback. */
  readonly kind: string | undefined;
  readonly isUp: boolean;
  readonly mtu: number;
  /** undefined for links that have none of 6 bytes. */
  readonly macAddress: string | undefined;
  readonly alias: string | undefined;
  /** The index of the bridge that it is a port of. */
  readonly master: number | undefined;
  readonly tap: TapState | undefined;
  readonly port: BridgePort | undefined;
  /** Of a bridge: whether VLANs are told apart. */
  readonly vlanFiltering: boolean | undefined;
  /** Those of one group can be removed at once; 0 is where all links begin. */
  readonly group: number;
  readonly counters: LinkCounters | undefined;
}

const header = (index: number, flags = 0, change = 0, family = 0) => {
  return new PayloadWriter().header(ifinfomsg.size, (view) => {
    view.setUint8(ifinfomsg.ifi_family, family);
    view.setInt32(ifinfomsg.ifi_index, index, true);
    view.setUint32(ifinfomsg.ifi_flags, flags, true);
    view.setUint32(ifinfomsg.ifi_change, change, true);
  });
};

/** A bridge that is down. Refused (EEXIST) where a link of that name is there. */
export function makeBridge(bridge: {
  readonly name: string;
  readonly macAddress: Uint8Array;
}): NetlinkRequest {
  const payload = header(0)
    .text(IFLA_IFNAME, bridge.name)
    .bytes(IFLA_ADDRESS, bridge.macAddress)
    .nested(IFLA_LINKINFO, (info) => info.text(IFLA_INFO_KIND, "bridge"))
    .finish();
  return { type: RTM_NEWLINK, flags: NLM_F_CREATE | NLM_F_EXCL, payload };
}

/** What of a link is to change; what is not named stays. */
export interface LinkChange {
  /** Its index, or its name. */
  readonly link: number | string;
  readonly isUp?: boolean;
  readonly mtu?: number;
  readonly macAddress?: Uint8Array;
  readonly alias?: string;
  /** 0 takes it out of its bridge. */
  readonly master?: number;
  /** Only of a link that is a bridge's port already, when the message comes. */
  readonly port?: Partial<BridgePort>;
  /** Of a bridge alone. */
  readonly vlanFiltering?: boolean;
  readonly group?: number;
}

const portAttributes: readonly (readonly [keyof BridgePort, number])[] = [
  ["hairpin", IFLA_BRPORT_MODE],
  ["guard", IFLA_BRPORT_GUARD],
  ["rootBlock", IFLA_BRPORT_PROTECT],
  ["learning", IFLA_BRPORT_LEARNING],
  ["unicastFlood", IFLA_BRPORT_UNICAST_FLOOD],
  ["multicastFlood", IFLA_BRPORT_MCAST_FLOOD],
  ["isolated", IFLA_BRPORT_ISOLATED],
];

export function changeLink(change: LinkChange): NetlinkRequest {
  const { link, isUp, mtu, macAddress, alias, master, port, vlanFiltering, group } = change;
  const index = typeof link === "number" ? link : 0;
  const writer = header(index, isUp ? IFF_UP : 0, isUp === undefined ? 0 : IFF_UP);
  // With an index it would be a new name.
  if (typeof link === "string") writer.text(IFLA_IFNAME, link);
  if (macAddress !== undefined) writer.bytes(IFLA_ADDRESS, macAddress);
  if (mtu !== undefined) writer.unsigned32(IFLA_MTU, mtu);
  if (group !== undefined) writer.unsigned32(IFLA_GROUP, group);
  if (master !== undefined) writer.unsigned32(IFLA_MASTER, master);
  // The kernel wants an alias without its ending zero: it would become part of it.
  if (alias !== undefined) writer.bytes(IFLA_IFALIAS, new TextEncoder().encode(alias));
  if (port !== undefined) {
    writer.nested(IFLA_LINKINFO, (info) => {
      info.text(IFLA_INFO_SLAVE_KIND, "bridge");
      info.nested(IFLA_INFO_SLAVE_DATA, (data) => {
        for (const [name, type] of portAttributes) {
          const value = port[name];
          if (value !== undefined) data.unsigned8(type, value ? 1 : 0);
        }
      });
    });
  }
  if (vlanFiltering !== undefined) {
    writer.nested(IFLA_LINKINFO, (info) => {
      info.text(IFLA_INFO_KIND, "bridge");
      info.nested(IFLA_INFO_DATA, (data) => {
        data.unsigned8(IFLA_BR_VLAN_FILTERING, vlanFiltering ? 1 : 0);
      });
    });
  }
  return { type: RTM_NEWLINK, flags: 0, payload: writer.finish() };
}

export function removeLink(index: number): NetlinkRequest {
  return { type: RTM_DELLINK, flags: 0, payload: header(index).finish() };
}

/** Removes every link of a group, whoever made it. */
export function removeGroup(group: number): NetlinkRequest {
  const payload = header(0).unsigned32(IFLA_GROUP, group).finish();
  return { type: RTM_DELLINK, flags: 0, payload };
}

/** One link, by its name. */
export function getLink(name: string): NetlinkRequest {
  return { type: RTM_GETLINK, flags: 0, payload: header(0).text(IFLA_IFNAME, name).finish() };
}

export function dumpLinks(): NetlinkRequest {
  return { type: RTM_GETLINK, flags: 0, payload: header(0).finish() };
}

/** Puts a port into a VLAN, or takes it out of one. Its frames carry no tag. */
export function changeVlan(change: {
  readonly index: number;
  readonly vlan: number;
  readonly is: "member" | "none";
  /** Of a port of a bridge, or the bridge's own, by which the host is in the VLAN. */
  readonly of: "port" | "bridge";
}): NetlinkRequest {
  const isMember = change.is === "member";
  const payload = header(change.index, 0, 0, AF_BRIDGE)
    .nested(IFLA_AF_SPEC, (specification) => {
      if (change.of === "bridge") specification.unsigned16(IFLA_BRIDGE_FLAGS, BRIDGE_FLAGS_SELF);
      const information = new DataView(new ArrayBuffer(bridge_vlan_info.size));
      const flags = isMember ? BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED : 0;
      information.setUint16(bridge_vlan_info.flags, flags, true);
      information.setUint16(bridge_vlan_info.vid, change.vlan, true);
      specification.bytes(IFLA_BRIDGE_VLAN_INFO, new Uint8Array(information.buffer));
    })
    .finish();
  return { type: isMember ? RTM_SETLINK : RTM_DELLINK, flags: 0, payload };
}

/** The VLANs of all bridges' ports; refused where the kernel has no VLANs at all. */
export function dumpPortVlans(): NetlinkRequest {
  const payload = header(0, 0, 0, AF_BRIDGE)
    .unsigned32(IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN)
    .finish();
  return { type: RTM_GETLINK, flags: 0, payload };
}

/** An address of a link, with its subnet's broadcast address. */
export interface LinkAddress {
  readonly index: number;
  readonly address: Ipv4;
  readonly prefix: number;
}

function addressRequest(type: number, flags: number, of: LinkAddress, broadcast?: Ipv4) {
  const writer = new PayloadWriter()
    .header(ifaddrmsg.size, (view) => {
      view.setUint8(ifaddrmsg.ifa_family, AF_INET);
      view.setUint8(ifaddrmsg.ifa_prefixlen, of.prefix);
      view.setUint32(ifaddrmsg.ifa_index, of.index, true);
    })
    .bytes(IFA_LOCAL, ipv4Bytes(of.address))
    .bytes(IFA_ADDRESS, ipv4Bytes(of.address));
  if (broadcast !== undefined) writer.bytes(IFA_BROADCAST, ipv4Bytes(broadcast));
  return { type, flags, payload: writer.finish() };
}

export function addAddress(address: LinkAddress, broadcast: Ipv4): NetlinkRequest {
  return addressRequest(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, address, broadcast);
}

export function removeAddress(address: LinkAddress): NetlinkRequest {
  return addressRequest(RTM_DELADDR, 0, address);
}

/** The IPv4 addresses of all links. */
export function dumpAddresses(): NetlinkRequest {
  const payload = new PayloadWriter()
    .header(ifaddrmsg.size, (view) => view.setUint8(ifaddrmsg.ifa_family, AF_INET))
    .finish();
  return { type: RTM_GETADDR, flags: 0, payload };
}

/** The IPv6 addresses of all links. */
export function dumpIpv6Addresses(): NetlinkRequest {
  const payload = new PayloadWriter()
    .header(ifaddrmsg.size, (view) => view.setUint8(ifaddrmsg.ifa_family, AF_INET6))
    .finish();
  return { type: RTM_GETADDR, flags: 0, payload };
}

/** The IPv4 routes of all tables. */
export function dumpRoutes(): NetlinkRequest {
  const payload = new PayloadWriter()
    .header(rtmsg.size, (view) => view.setUint8(rtmsg.rtm_family, AF_INET))
    .finish();
  return { type: RTM_GETROUTE, flags: 0, payload };
}

/** A view of a message's fixed header. @throws MalformedNetlink for a message that is shorter */
function headerOf(message: NetlinkMessage, size: number, what: string): DataView {
  const { payload } = message;
  if (payload.length < size) {
    throw new MalformedNetlink(
      `Expected ${what} of at least ${size} bytes, received ${payload.length}`,
    );
  }
  return new DataView(payload.buffer, payload.byteOffset, size);
}

/** @throws MalformedNetlink */
export function decodeLink(message: NetlinkMessage): Link {
  if (message.type !== RTM_NEWLINK) {
    throw new MalformedNetlink(`Expected a link, received a message of type ${message.type}`);
  }
  const view = headerOf(message, ifinfomsg.size, "a link");
  const attributes = readAttributes(message.payload.subarray(ifinfomsg.size));
  const name = attributes.get(IFLA_IFNAME);
  if (name === undefined) throw new MalformedNetlink("Expected a link's name, received none");
  const text = (value: Uint8Array | undefined) => value && textOf(value);
  const number = (value: Uint8Array | undefined) => value && unsignedOf(value);
  const mac = attributes.get(IFLA_ADDRESS);
  const statistics = attributes.get(IFLA_STATS64);
  return {
    index: view.getInt32(ifinfomsg.ifi_index, true),
    name: textOf(name),
    isUp: (view.getUint32(ifinfomsg.ifi_flags, true) & IFF_UP) !== 0,
    mtu: number(attributes.get(IFLA_MTU)) ?? 0,
    macAddress: mac?.length === 6 ? formatMacAddress(mac) : undefined,
    alias: text(attributes.get(IFLA_IFALIAS)),
    master: number(attributes.get(IFLA_MASTER)),
    group: number(attributes.get(IFLA_GROUP)) ?? 0,
    ...decodeLinkInformation(attributes.get(IFLA_LINKINFO)),
    counters: statistics && decodeCounters(statistics),
  };
}

function decodeLinkInformation(
  bytes: Uint8Array | undefined,
): Pick<Link, "kind" | "tap" | "port" | "vlanFiltering"> {
  if (bytes === undefined) {
    return { kind: undefined, tap: undefined, port: undefined, vlanFiltering: undefined };
  }
  const information = readAttributes(bytes);
  const kindBytes = information.get(IFLA_INFO_KIND);
  const kind = kindBytes && textOf(kindBytes);
  const data = information.get(IFLA_INFO_DATA);
  const isPort = information.has(IFLA_INFO_SLAVE_DATA) && isOfBridge(information);
  const port = isPort ? information.get(IFLA_INFO_SLAVE_DATA) : undefined;
  const filtering = kind === "bridge" && data && readAttributes(data).get(IFLA_BR_VLAN_FILTERING);
  return {
    kind,
    tap: kind === "tun" && data ? decodeTap(data) : undefined,
    port: port && decodePort(port),
    vlanFiltering: filtering ? unsignedOf(filtering) !== 0 : undefined,
  };
}

function isOfBridge(information: ReadonlyMap<number, Uint8Array>): boolean {
  const kind = information.get(IFLA_INFO_SLAVE_KIND);
  return kind !== undefined && textOf(kind) === "bridge";
}

/** IFF_TAP in IFLA_TUN_TYPE: drivers/net/tun.c gives the device's kind. */
const tapType = 2;

function decodeTap(bytes: Uint8Array): TapState {
  const attributes = readAttributes(bytes);
  const number = (type: number) => {
    const value = attributes.get(type);
    return value && unsignedOf(value);
  };
  return {
    isTap: number(IFLA_TUN_TYPE) === tapType,
    owner: number(IFLA_TUN_OWNER),
    group: number(IFLA_TUN_GROUP),
    isPersistent: number(IFLA_TUN_PERSIST) === 1,
    hasVirtioHeader: number(IFLA_TUN_VNET_HDR) === 1,
  };
}

function decodePort(bytes: Uint8Array): BridgePort {
  const attributes = readAttributes(bytes);
  const port: Record<keyof BridgePort, boolean> = {
    isolated: false,
    learning: false,
    unicastFlood: false,
    multicastFlood: false,
    guard: false,
    rootBlock: false,
    hairpin: false,
  };
  for (const [name, type] of portAttributes) {
    const value = attributes.get(type);
    if (value !== undefined) port[name] = unsignedOf(value) !== 0;
  }
  return port;
}

function decodeCounters(bytes: Uint8Array): LinkCounters {
  const least = rtnl_link_stats64.tx_dropped + 8;
  if (bytes.length < least) {
    throw new MalformedNetlink(
      `Expected counters of at least ${least} bytes, received ${bytes.length}`,
    );
  }
  const at = (offset: number) => unsignedOf(bytes.subarray(offset, offset + 8));
  return {
    receivedBytes: at(rtnl_link_stats64.rx_bytes),
    receivedPackets: at(rtnl_link_stats64.rx_packets),
    receivedDropped: at(rtnl_link_stats64.rx_dropped),
    sentBytes: at(rtnl_link_stats64.tx_bytes),
    sentPackets: at(rtnl_link_stats64.tx_packets),
    sentDropped: at(rtnl_link_stats64.tx_dropped),
  };
}

/** Errors that a card counts, under the kernel's names: struct rtnl_link_stats64. */
export const linkErrorNames = [
  ...(["rx_errors", "tx_errors", "collisions", "rx_length_errors", "rx_over_errors"] as const),
  ...(["rx_crc_errors", "rx_frame_errors", "rx_fifo_errors", "rx_missed_errors"] as const),
  ...(["tx_aborted_errors", "tx_carrier_errors", "tx_fifo_errors"] as const),
  ...(["tx_heartbeat_errors", "tx_window_errors"] as const),
] as const;

/** How a link is, and what it has counted since it was made. */
export interface LinkHealth {
  readonly index: number;
  readonly name: string;
  readonly isUp: boolean;
  readonly macAddress: string | undefined;
  readonly mtu: number;
  /** The highest that its driver takes; undefined where it sets none, or before Linux 4.19. */
  readonly mostMtu: number | undefined;
  /** undefined where the kernel does not tell. */
  readonly carrier: boolean | undefined;
  readonly carrierChanges: number | undefined;
  readonly errors: ReadonlyMap<(typeof linkErrorNames)[number], number>;
}

/** @throws MalformedNetlink */
export function decodeLinkHealth(message: NetlinkMessage): LinkHealth {
  const { index, name, isUp, macAddress, mtu } = decodeLink(message);
  const attributes = readAttributes(message.payload.subarray(ifinfomsg.size));
  const carrier = attributes.get(IFLA_CARRIER);
  const changes = attributes.get(IFLA_CARRIER_CHANGES);
  const mostMtu = attributes.get(IFLA_MAX_MTU);
  const statistics = attributes.get(IFLA_STATS64) ?? new Uint8Array();
  const counted = linkErrorNames
    .filter((error) => statistics.length >= rtnl_link_stats64[error] + 8)
    .map((error) => {
      const at = rtnl_link_stats64[error];
      return [error, unsignedOf(statistics.subarray(at, at + 8))] as const;
    });
  return {
    ...{ index, name, isUp, macAddress, mtu },
    // 0 is no limit of the driver's.
    mostMtu: mostMtu && (unsignedOf(mostMtu) || undefined),
    carrier: carrier && unsignedOf(carrier) !== 0,
    carrierChanges: changes && unsignedOf(changes),
    errors: new Map(counted),
  };
}

/** @returns the port's VLANs, that of its untagged frames first @throws MalformedNetlink */
export function decodePortVlans(message: NetlinkMessage): {
  readonly index: number;
  readonly vlans: readonly number[];
} {
  const view = headerOf(message, ifinfomsg.size, "a port");
  const attributes = readAttributes(message.payload.subarray(ifinfomsg.size));
  const specification = attributes.get(IFLA_AF_SPEC) ?? new Uint8Array();
  const vlans: number[] = [];
  eachAttribute(specification, (type, value) => {
    if (type !== IFLA_BRIDGE_VLAN_INFO) return;
    if (value.length < bridge_vlan_info.size) {
      throw new MalformedNetlink(`Expected a VLAN of 4 bytes, received ${value.length}`);
    }
    const information = new DataView(value.buffer, value.byteOffset, value.byteLength);
    const vlan = information.getUint16(bridge_vlan_info.vid, true);
    const flags = information.getUint16(bridge_vlan_info.flags, true);
    if ((flags & BRIDGE_VLAN_INFO_PVID) !== 0) vlans.unshift(vlan);
    else vlans.push(vlan);
  });
  return { index: view.getInt32(ifinfomsg.ifi_index, true), vlans };
}

/** @throws MalformedNetlink */
export function decodeAddress(message: NetlinkMessage): LinkAddress {
  if (message.type !== RTM_NEWADDR) {
    throw new MalformedNetlink(`Expected an address, received a message of type ${message.type}`);
  }
  const view = headerOf(message, ifaddrmsg.size, "an address");
  const attributes = readAttributes(message.payload.subarray(ifaddrmsg.size));
  const bytes = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS);
  const address = bytes && ipv4FromBytes(bytes);
  if (address === undefined) {
    throw new MalformedNetlink(
      `Expected an address of 4 bytes, received ${bytes?.length ?? "none"}`,
    );
  }
  return {
    index: view.getUint32(ifaddrmsg.ifa_index, true),
    address,
    prefix: view.getUint8(ifaddrmsg.ifa_prefixlen),
  };
}

/** An IPv6 address of a link; a tentative one is still asked for, and nothing is sent from it. */
export interface LinkIpv6Address {
  readonly index: number;
  readonly address: Uint8Array;
  readonly isTentative: boolean;
}

/** @throws MalformedNetlink */
export function decodeIpv6Address(message: NetlinkMessage): LinkIpv6Address {
  const view = headerOf(message, ifaddrmsg.size, "an address");
  const attributes = readAttributes(message.payload.subarray(ifaddrmsg.size));
  const address = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS);
  if (message.type !== RTM_NEWADDR || address?.length !== 16) {
    throw new MalformedNetlink(
      `Expected an address of 16 bytes, received ${address?.length ?? "none"}`,
    );
  }
  const flags = attributes.get(IFA_FLAGS);
  return {
    index: view.getUint32(ifaddrmsg.ifa_index, true),
    address: address.slice(),
    isTentative: flags !== undefined && (unsignedOf(flags) & IFA_F_TENTATIVE) !== 0,
  };
}

export interface Route {
  readonly destination: Subnet;
  /** The link that it leads out of; undefined for a route with several. */
  readonly index: number | undefined;
  readonly gateway: Ipv4 | undefined;
  readonly table: number;
}

/** @returns undefined for a route to no other host: local, broadcast, forbidden */
export function decodeRoute(message: NetlinkMessage): Route | undefined {
  if (message.type !== RTM_NEWROUTE) {
    throw new MalformedNetlink(`Expected a route, received a message of type ${message.type}`);
  }
  const view = headerOf(message, rtmsg.size, "a route");
  if (view.getUint8(rtmsg.rtm_type) !== RTN_UNICAST) return undefined;
  const attributes = readAttributes(message.payload.subarray(rtmsg.size));
  const address = (type: number) => {
    const bytes = attributes.get(type);
    return bytes && ipv4FromBytes(bytes);
  };
  const number = (type: number) => {
    const bytes = attributes.get(type);
    return bytes && unsignedOf(bytes);
  };
  return {
    destination: {
      network: address(RTA_DST) ?? 0,
      prefix: view.getUint8(rtmsg.rtm_dst_len),
    },
    index: number(RTA_OIF),
    gateway: address(RTA_GATEWAY),
    table: number(RTA_TABLE) ?? view.getUint8(rtmsg.rtm_table),
  };
}
