/**
 * A user of its own for each VM. The numbers need no entry in /etc/passwd: nobody logs in as one,
 * and files of one are named by nobody else. The group has the same number. Pure.
 */

/** Numbers of users and groups, from `first` on. */
export interface UserRange {
  readonly first: number;
  readonly count: number;
}

/**
 * systemd's UIDS-GIDS.md assigns everything to 1,879,048,191 (its containers end there), keeps
 * 2,147,352,576 and the 65,536 after it for foreign images, and warns of all from 2^31 on. What is
 * between is used by nobody by default: SSSD and FreeIPA give out numbers to 2,000,200,000
 * (ldap_idmap_range_max), useradd's subordinate ones end at 600,100,000 (SUB_UID_MAX).
 */
export const defaultUserRange: UserRange = { first: 2_100_000_000, count: 65_536 };

/** What somebody else gives out: a range of ours must touch none of it. */
const othersRanges: readonly (UserRange & { readonly whose: string })[] = [
  { first: 0, count: 65_536, whose: "root, the system's and people's users, and nobody" },
  { first: 524_288, count: 1_879_048_192 - 524_288, whose: "systemd's containers" },
  { first: 2_147_352_576, count: 65_536, whose: "systemd's foreign images" },
];

/** Numbers from here on are negative ones for some calls, such as setfsuid(2). */
const END = 2 ** 31;

/** Why a range cannot be used, with what was expected and received; undefined when it can. */
export function refuseUserRange({ first, count }: UserRange): string | undefined {
  if (!Number.isSafeInteger(first) || !Number.isSafeInteger(count) || count < 1) {
    return `expected a range of whole numbers with at least one, received ${count} from ${first}`;
  }
  const received = `received ${first} to ${first + count - 1}`;
  if (first < 0 || first + count > END) {
    return `expected users from 0 to ${END - 1}, ${received}`;
  }
  const other = othersRanges.find(
    (range) => first < range.first + range.count && range.first < first + count,
  );
  if (other === undefined) return undefined;
  const { first: from, count: many, whose } = other;
  return (
    `expected no user of ${from} to ${from + many - 1} (${whose}), ${received}: ` +
    `take ${defaultUserRange.first} to ${defaultUserRange.first + defaultUserRange.count - 1}`
  );
}

export type UserChoice =
  | { readonly kind: "user"; readonly user: number }
  /** Every number of the range belongs to a VM that exists. */
  | { readonly kind: "refused"; readonly message: string };

/**
 * A number for a new VM: the first free one after the one given last, around the end, so that a
 * number comes back as late as can be, and no forgotten file of a deleted VM is soon another's.
 * @param taken of every VM that exists, also those that do not run; and of anybody else
 */
export function chooseUser(state: {
  readonly range: UserRange;
  readonly taken: ReadonlySet<number>;
  readonly last: number | undefined;
}): UserChoice {
  const { range, taken, last } = state;
  const { first, count } = range;
  const isInRange = last !== undefined && last >= first && last < first + count;
  const begin = isInRange ? last - first + 1 : 0;
  for (let step = 0; step < count; step++) {
    const user = first + ((begin + step) % count);
    if (!taken.has(user)) return { kind: "user", user };
  }
  const message =
    `all ${count} users from ${first} to ${first + count - 1} belong to virtual machines: ` +
    "delete one, or give a longer range";
  return { kind: "refused", message };
}
