import { type LayoutState, linked, linkNames, type StoredVersion } from "./layout.ts";

/** What is removed of an installation, and why each of the others stays. */
export interface Collection {
  readonly remove: readonly string[];
  readonly keep: readonly { readonly name: string; readonly reason: string }[];
}

export interface CollectionWish {
  /** Versions beside those that are linked, run or spared; at least one of all is proven. */
  readonly keep: number;
  /** Names of versions whose program somebody runs. */
  readonly running: ReadonlySet<string>;
  /** Names of versions that are being fetched. */
  readonly spare?: ReadonlySet<string>;
}

/**
 * Which versions go. Never one that a link names or that somebody runs; never the last proven one.
 * What has more versions than are looked at is no installation of ours to clear: nothing goes.
 */
export function planCollection(state: LayoutState, wish: CollectionWish): Collection {
  const kept = new Map<string, string>();
  for (const link of linkNames) {
    const name = linked(state, link);
    if (name !== undefined && !kept.has(name)) kept.set(name, link);
  }
  for (const name of wish.running) if (!kept.has(name)) kept.set(name, "it runs");
  for (const name of wish.spare ?? []) if (!kept.has(name)) kept.set(name, "it is being fetched");
  if (state.isOverfull) {
    for (const { name } of state.versions) kept.set(name, kept.get(name) ?? "there are too many");
  } else {
    const spares = state.versions.filter(
      ({ name, state: how }) => !kept.has(name) && how === "verified",
    );
    for (const { name } of chooseSpares(state.versions, spares, { kept, most: wish.keep })) {
      kept.set(name, "one of those to keep");
    }
  }
  return {
    remove: state.versions.map(({ name }) => name).filter((name) => !kept.has(name)),
    keep: [...kept].map(([name, reason]) => ({ name, reason })),
  };
}

/** Proven ones first, the latest of them first: what never was may have failed its self-test. */
function chooseSpares(
  all: readonly StoredVersion[],
  spares: readonly StoredVersion[],
  { kept, most }: { readonly kept: ReadonlyMap<string, string>; readonly most: number },
): StoredVersion[] {
  const isProof = ({ isProven, state }: StoredVersion) => isProven && state === "verified";
  const wanted = spares.toSorted(
    (one, other) =>
      Number(isProof(other)) - Number(isProof(one)) ||
      other.storedAt - one.storedAt ||
      (one.name < other.name ? 1 : -1),
  );
  const hasProof = all.some((version) => kept.has(version.name) && isProof(version));
  const [first] = wanted;
  // The last proof stays, also where none is to be kept.
  const isLast = !hasProof && first !== undefined && isProof(first);
  return wanted.slice(0, isLast ? Math.max(1, most) : most);
}
