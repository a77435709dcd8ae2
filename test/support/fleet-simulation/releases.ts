/** Versions, good ones and bad ones. */
import type { Build } from "../../../src/fleet/protocol.ts";

export interface Release {
  readonly build: Build;
  readonly floor: string | null;
  readonly provesItself: boolean;
  /** silent: ready, and without a heartbeat. hangs: never ready. */
  readonly candidate: "serves" | "crashes" | "hangs" | "silent";
  /** mute: the agent runs, and one role does not. */
  readonly canonical: "serves" | "crashes" | "mute";
}

type Traits = Omit<Release, "build">;

const good: Traits = {
  floor: null,
  provesItself: true,
  candidate: "serves",
  canonical: "serves",
};

const kinds = {
  good,
  better: { ...good, floor: "1.0.0" },
  corrupt: { ...good, provesItself: false },
  crashing: { ...good, candidate: "crashes" },
  hanging: { ...good, candidate: "hangs" },
  silent: { ...good, candidate: "silent" },
  "crashing as canonical": { ...good, canonical: "crashes" },
  "mute as canonical": { ...good, canonical: "mute" },
} satisfies Record<string, Traits>;

export type ReleaseKind = keyof typeof kinds;
export const releaseKinds = Object.keys(kinds) as ReleaseKind[];

/** Those that a device can end with. */
export const isGood = ({ provesItself, candidate, canonical }: Release): boolean =>
  provesItself && candidate === "serves" && canonical === "serves";

const known = new Map<string, Release>();

export function releaseOf(digest: string): Release {
  const release = known.get(digest);
  if (release === undefined) throw new Error(`There is no version ${digest}`);
  return release;
}

/** @param number also of its version, so that a later one has a higher one */
export function makeRelease(number: number, kind: ReleaseKind): Release {
  const digest = `${releaseKinds.indexOf(kind)}${number.toString(16).padStart(8, "0")}`.padEnd(
    64,
    "a",
  );
  const release: Release = { build: { version: `1.${number}.0`, digest }, ...kinds[kind] };
  known.set(digest, release);
  return release;
}
