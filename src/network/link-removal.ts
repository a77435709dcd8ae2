import { randomInt } from "node:crypto";
import type { NetlinkError, NetlinkSocket } from "../../ffi/netlink.ts";
import { changeLink, decodeLink, dumpLinks, removeGroup, removeLink } from "./rtnetlink.ts";

/**
 * Removing links. For each message that removes one the kernel waits until no processor looks at
 * it any more, 17 ms for a TAP; for a message that removes a group it waits once. So links that go
 * are put into a group of their own first.
 */

/** Links that are removed at a time, which takes some 60 ms. */
export const MOST_LINKS_REMOVED_AT_A_TIME = 128;

/** Numbers below it are what people choose: group(5) of iproute2 names some. */
const FIRST_GROUP = 2 ** 30;
const LAST_GROUP = 2 ** 31 - 1;

/**
 * @param indexes of links that are ours
 * @param draw a number for their group
 * @returns for each what the kernel refused; undefined where it is gone
 */
export function removeLinks(
  route: NetlinkSocket,
  indexes: readonly number[],
  draw: () => number = () => randomInt(FIRST_GROUP, LAST_GROUP),
): (NetlinkError | undefined)[] {
  if (indexes.length < 2) return route.change(indexes.map(removeLink));
  const group = draw();
  const marked = route.change(indexes.map((link) => changeLink({ link, group })));
  const inGroup = new Set(indexes.filter((_link, at) => marked[at] === undefined));
  const found = route
    .dump(dumpLinks())
    .map(decodeLink)
    .filter((link) => link.group === group);
  const isOurs = found.every(({ index }) => inGroup.has(index));
  const [refusal] = isOurs ? route.change([removeGroup(group)]) : [];
  if (isOurs && refusal === undefined) return marked;
  // Somebody has chosen the same number, or one of them cannot be removed in company.
  return route.change(indexes.map(removeLink));
}
