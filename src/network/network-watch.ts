import {
  NFNL_SUBSYS_NFTABLES,
  NFNLGRP_NFTABLES,
  NFT_MSG_DELCHAIN,
  NFT_MSG_DELRULE,
  NFT_MSG_DELSET,
  NFT_MSG_DELTABLE,
  NFT_MSG_NEWCHAIN,
  NFT_MSG_NEWRULE,
  NFT_MSG_NEWSET,
  NFT_MSG_NEWTABLE,
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_LINK,
} from "../../ffi/constants.ts";
import { NetlinkNotices } from "../../ffi/netlink.ts";
import type { EventLoop, Watch } from "../event-loop/event-loop.ts";

/** Of rules; what name servers add to a set of allowed addresses is not among it. */
const ruleChanges = new Set(
  [
    ...[NFT_MSG_NEWTABLE, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_DELCHAIN],
    ...[NFT_MSG_NEWRULE, NFT_MSG_DELRULE, NFT_MSG_NEWSET, NFT_MSG_DELSET],
  ].map((message) => (NFNL_SUBSYS_NFTABLES << 8) | message),
);

/**
 * Calls when links, their addresses, or rules of this host were changed, by whomever: `nft flush
 * ruleset` of another service, `ip link delete`, and this process itself.
 */
export class NetworkWatch implements Disposable {
  readonly #notices: readonly { readonly notices: NetlinkNotices; readonly watch: Watch }[];

  /** @throws SystemCallError where the kernel does not tell */
  constructor(loop: EventLoop, onChange: () => void) {
    using made = new DisposableStack();
    const watch = (notices: NetlinkNotices, isChange: (type: number) => boolean) => {
      made.use(notices);
      const watching = loop.watch(notices.descriptor, "readable", () => {
        const types = notices.take();
        if (types === "lost" || [...types].some(isChange)) onChange();
      });
      made.defer(() => watching[Symbol.dispose]());
      return { notices, watch: watching };
    };
    const links = new NetlinkNotices("route", [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR]);
    this.#notices = [
      watch(links, () => true),
      watch(new NetlinkNotices("netfilter", [NFNLGRP_NFTABLES]), (type) => ruleChanges.has(type)),
    ];
    made.move();
  }

  [Symbol.dispose](): void {
    for (const { notices, watch } of this.#notices) {
      watch[Symbol.dispose]();
      notices[Symbol.dispose]();
    }
  }
}
