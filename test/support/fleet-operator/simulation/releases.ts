/** Versions of a simulated fleet, good ones and bad ones. */
import type { Build } from "../../../../src/fleet/protocol.ts";

export interface Release {
  readonly build: Build;
  /** Such a part of its candidates fails. */
  readonly badIn: number;
  /** silent: no heartbeat. mute: it fails only when it is canonical, by a role that is gone. */
  readonly fails: "crashes" | "silent" | "mute" | "never";
}

const make = (minor: number, badIn: number, fails: Release["fails"]): Release => ({
  build: { version: `1.${minor}.0`, digest: String(minor).padStart(64, "0") },
  badIn,
  fails,
});

export const releases = {
  first: make(1, 0, "never"),
  good: make(2, 0, "never"),
  crashing: make(3, 0.4, "crashes"),
  silent: make(4, 0.3, "silent"),
  mute: make(5, 1, "mute"),
  better: make(6, 0, "never"),
  last: make(7, 0, "never"),
} as const;

const byDigest = new Map(Object.values(releases).map((one) => [one.build.digest, one]));

export function releaseOf({ digest }: Build): Release {
  const release = byDigest.get(digest);
  if (release === undefined) throw new Error(`There is no release ${digest}`);
  return release;
}
