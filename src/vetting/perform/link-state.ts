import { RTNLGRP_IPV6_IFADDR, RTNLGRP_LINK } from "../../../ffi/constants.ts";
import { type LinkSettings, linkSettings } from "../../../ffi/ethtool.ts";
import { NetlinkError, NetlinkNotices, NetlinkSocket } from "../../../ffi/netlink.ts";
import { pollDescriptor } from "../../../ffi/poll.ts";
import { monotonicNow } from "../../event-loop/clock.ts";
import {
  changeLink,
  decodeAddress,
  decodeIpv6Address,
  decodeLinkHealth,
  dumpAddresses,
  dumpIpv6Addresses,
  getLink,
  type LinkHealth,
} from "../../network/rtnetlink.ts";
import { ipv4Bytes } from "../../network/subnet.ts";
import { nextTurn } from "../../store/files.ts";
import type { Milliseconds } from "../../units/units.ts";
import { TaskRefused } from "./task.ts";

/** The longest wait at a time: whoever wants this to end is heard then. */
const SLICE: Milliseconds = 200;

/** One network card as the kernel has it, and the kernel's word when that changes. */
export class LinkState implements Disposable {
  readonly #name: string;
  readonly #mac: string;
  readonly #socket: NetlinkSocket;
  readonly #notices: NetlinkNotices;

  /** @throws SystemCallError where there is no netlink */
  constructor({ name, mac }: { readonly name: string; readonly mac: string }) {
    this.#name = name;
    this.#mac = mac;
    this.#notices = new NetlinkNotices("route", [RTNLGRP_LINK, RTNLGRP_IPV6_IFADDR]);
    this.#socket = new NetlinkSocket("route");
  }

  /** @throws TaskRefused where it is not there, or another one has its name by now */
  health(): LinkHealth {
    let found: LinkHealth | undefined;
    try {
      found = this.#socket.get(getLink(this.#name)).map(decodeLinkHealth)[0];
    } catch (error) {
      if (!(error instanceof NetlinkError)) throw error;
      const why = `There is no network card ${this.#name}: ${error.message}`;
      throw new TaskRefused(why, { cause: error });
    }
    if (found?.macAddress === this.#mac) return found;
    throw new TaskRefused(
      `Expected the network card ${this.#name} with ${this.#mac}, ` +
        `found ${found?.macAddress ?? "none"}`,
    );
  }

  settings(): LinkSettings | undefined {
    return linkSettings(this.#name);
  }

  /** @throws TaskRefused where we may not, or its driver cannot */
  setUp(isUp: boolean): void {
    const [refusal] = this.#socket.change([changeLink({ link: this.#name, isUp })]);
    if (refusal === undefined) return;
    const what = isUp ? "brought up" : "taken down";
    throw new TaskRefused(`The network card ${this.#name} cannot be ${what}: ${refusal.message}`);
  }

  /** Its addresses that something can be sent from. */
  addresses(index: number): { readonly ipv4: Uint8Array[]; readonly ipv6: Uint8Array[] } {
    const ipv4 = this.#socket
      .dump(dumpAddresses())
      .map(decodeAddress)
      .filter((one) => one.index === index)
      .map(({ address }) => ipv4Bytes(address));
    const ipv6 = this.#socket
      .dump(dumpIpv6Addresses())
      .map(decodeIpv6Address)
      .filter((one) => one.index === index && !one.isTentative)
      .map(({ address }) => address);
    return { ipv4, ipv6 };
  }

  /**
   * Waits until it is so, or the time is over; it looks again when the kernel tells of a change.
   * @returns what it came to
   */
  async wait<Found>(
    look: () => Found | undefined,
    most: Milliseconds,
    signal: AbortSignal,
  ): Promise<Found | undefined> {
    const end = monotonicNow() + most;
    for (;;) {
      this.#notices.take();
      const found = look();
      const left = end - monotonicNow();
      if (found !== undefined || left <= 0 || signal.aborted) return found;
      pollDescriptor(this.#notices.descriptor, "readable", Math.min(left, SLICE));
      await nextTurn();
    }
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
    this.#notices[Symbol.dispose]();
  }
}
