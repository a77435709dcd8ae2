/** What a link says of its health, and its IPv6 addresses, as netlink carries them. */
import { expect, test } from "bun:test";
import {
  IFA_ADDRESS,
  IFA_F_TENTATIVE,
  IFA_FLAGS,
  IFF_UP,
  IFLA_ADDRESS,
  IFLA_CARRIER,
  IFLA_CARRIER_CHANGES,
  IFLA_IFNAME,
  IFLA_MAX_MTU,
  IFLA_MTU,
  IFLA_STATS64,
  RTM_NEWADDR,
  RTM_NEWLINK,
} from "../../../ffi/constants.ts";
import { layouts } from "../../../ffi/layouts.ts";
import { MalformedNetlink, PayloadWriter } from "../../../ffi/netlink-message.ts";
import { decodeIpv6Address, decodeLinkHealth } from "../../../src/network/rtnetlink.ts";

const { ifaddrmsg, ifinfomsg, rtnl_link_stats64 } = layouts;
const message = (type: number, writer: PayloadWriter) => {
  return { type, flags: 0, sequence: 1, payload: writer.finish() };
};

function link(fill: (writer: PayloadWriter) => void) {
  const writer = new PayloadWriter().header(ifinfomsg.size, (view) => {
    view.setInt32(ifinfomsg.ifi_index, 7, true);
    view.setUint32(ifinfomsg.ifi_flags, IFF_UP, true);
  });
  writer.text(IFLA_IFNAME, "eth0").bytes(IFLA_ADDRESS, Uint8Array.of(2, 0, 0, 0, 0, 1));
  fill(writer);
  return message(RTM_NEWLINK, writer);
}

test("a link tells its carrier, how often that changed, and its errors", () => {
  const statistics = new DataView(new ArrayBuffer(rtnl_link_stats64.size));
  statistics.setBigUint64(rtnl_link_stats64.rx_crc_errors, 3n, true);
  statistics.setBigUint64(rtnl_link_stats64.rx_dropped, 9n, true);
  const health = decodeLinkHealth(
    link((writer) => {
      writer.unsigned8(IFLA_CARRIER, 1).unsigned32(IFLA_CARRIER_CHANGES, 4);
      writer.bytes(IFLA_STATS64, new Uint8Array(statistics.buffer));
      writer.unsigned32(IFLA_MTU, 1_500).unsigned32(IFLA_MAX_MTU, 9_216);
    }),
  );
  expect(health).toMatchObject({
    ...{ index: 7, name: "eth0", isUp: true, macAddress: "02:00:00:00:00:01" },
    ...{ carrier: true, carrierChanges: 4, mtu: 1_500, mostMtu: 9_216 },
  });
  // What was dropped is no error of a card.
  expect([...health.errors].filter(([, count]) => count > 0)).toEqual([["rx_crc_errors", 3]]);
});

test("a kernel that tells less leaves it open", () => {
  const health = decodeLinkHealth(link(() => undefined));
  expect([health.carrier, health.carrierChanges, health.errors.size]).toEqual([
    ...[undefined, undefined, 0],
  ]);
  expect(health.mostMtu).toBeUndefined();
});

test("a highest MTU of 0 is no limit of the driver's", () => {
  const health = decodeLinkHealth(link((writer) => void writer.unsigned32(IFLA_MAX_MTU, 0)));
  expect(health.mostMtu).toBeUndefined();
});

test("an IPv6 address, and whether anything may be sent from it", () => {
  const of = (flags: number, size = 16) => {
    const address = Uint8Array.from({ length: size }, (_, index) => index);
    const writer = new PayloadWriter().header(ifaddrmsg.size, (view) => {
      view.setUint32(ifaddrmsg.ifa_index, 7, true);
    });
    writer.bytes(IFA_ADDRESS, address).unsigned32(IFA_FLAGS, flags);
    return message(RTM_NEWADDR, writer);
  };
  expect(decodeIpv6Address(of(0))).toMatchObject({ index: 7, isTentative: false });
  expect(decodeIpv6Address(of(IFA_F_TENTATIVE)).isTentative).toBe(true);
  expect(() => decodeIpv6Address(of(0, 4))).toThrow(MalformedNetlink);
});
