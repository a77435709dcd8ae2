import type { Milliseconds } from "../units/units.ts";

/** What `hostler live-update daemon` is told by its flags. */
export interface DaemonOptions {
  /** Where clients connect. */
  readonly clientSocket: string;
  /** Where the command line connects. */
  readonly controlSocket: string;
  /** The state file and the lock. */
  readonly stateDirectory: string;
  /** Who may subscribe and claim: a peer that is one of these users, or in one of these groups. */
  readonly allowUsers: readonly number[];
  readonly allowGroups: readonly number[];
  /** Which id is whose; see `mayUseId`. */
  readonly idRules: readonly IdRule[];
  /** Who may command. */
  readonly commandUsers: readonly number[];
  readonly unclaimed: UnclaimedPolicy;
  /** Programs that run one after the other before the kexec; looked for when they are to run. */
  readonly kexecHooks: readonly string[];
  /** How a kernel is entered when the command does not say. */
  readonly by: EntryWay;
}

/** "auto" is systemctl where PID 1 is systemd, and reboot(2) elsewhere. */
export type EntryWay = "auto" | "reboot" | "systemctl";

/** Ids that match the pattern may be used by this user. */
export interface IdRule {
  /** `*` stands for any characters, also for none; `?` for one. */
  readonly pattern: string;
  readonly user: number;
}

/** What becomes of a restored session that nobody claims. */
export type UnclaimedPolicy =
  | { readonly kind: "keep" }
  | { readonly kind: "finish"; readonly after: Milliseconds };

export const defaultStateDirectory = "/run/luod";

/**
 * Without rules every id is everybody's who may connect. With one, nobody uses an id that no rule
 * gives to him: what is not thought of is refused, and root is no exception, but that it may claim.
 */
export function mayUseId(rules: readonly IdRule[], id: string, user: number): boolean {
  if (rules.length === 0) return true;
  return rules.some((rule) => rule.user === user && matches(rule.pattern, id));
}

/** Goes back to the last star alone: it takes at most the pattern's length times the id's. */
function matches(pattern: string, text: string): boolean {
  const [wanted, given] = [[...pattern], [...text]];
  let [at, index] = [0, 0];
  let star: { readonly at: number; index: number } | undefined;
  while (index < given.length) {
    if (wanted[at] === "*") {
      star = { at, index };
      at += 1;
    } else if (wanted[at] === "?" || wanted[at] === given[index]) {
      at += 1;
      index += 1;
    } else if (star !== undefined) {
      star.index += 1;
      [at, index] = [star.at + 1, star.index];
    } else {
      return false;
    }
  }
  return wanted.slice(at).every((character) => character === "*");
}
