import type { Milliseconds } from "../units/units.ts";
import { limits, type Statement } from "./protocol.ts";
import { hasExpired, type TimeWitnesses, trustedTime } from "./trusted-time.ts";

/**
 * Which certificates a host trusts. The old and the new overlap: a host has both from the
 * statement that announces the new one until the statement that finishes the rotation. Pure.
 */
export interface TrustedPins {
  readonly serial: number;
  readonly pins: readonly string[];
  readonly time: Milliseconds;
}

export type TakenStatement =
  | { readonly kind: "taken"; readonly trusted: TrustedPins }
  /** The one that the host has already. */
  | { readonly kind: "known" }
  | { readonly kind: "refused"; readonly expected: string; readonly received: string };

/**
 * What a host makes of a statement whose signature was found right.
 * @param context authority: the key that the host was enrolled with
 */
export function takeStatement(
  has: TrustedPins,
  statement: Statement,
  context: { readonly authority: string; readonly build: TimeWitnesses["build"] },
): TakenStatement {
  if (statement.authority !== context.authority) {
    return {
      kind: "refused",
      expected: `a statement of authority ${context.authority}`,
      received: `one of ${statement.authority}`,
    };
  }
  if (statement.serial === has.serial && isSame(statement.pins, has.pins)) {
    const { issued } = statement;
    // The same words, said later: they still tell the time.
    if (issued <= has.time) return { kind: "known" };
  } else if (statement.serial <= has.serial) {
    return {
      kind: "refused",
      expected: `a statement with a serial above ${has.serial}`,
      received: `an older one, ${statement.serial}`,
    };
  }
  const before = trustedTime({ build: context.build, journaled: has.time, signed: 0 });
  if (hasExpired(statement.expires, before)) {
    return {
      kind: "refused",
      expected: `a statement that is good after ${before}`,
      received: `one that ended at ${statement.expires}`,
    };
  }
  if (statement.expires - statement.issued > limits.statementLifetime) {
    return {
      kind: "refused",
      expected: `a statement for at most ${limits.statementLifetime} ms`,
      received: `one for ${statement.expires - statement.issued} ms`,
    };
  }
  const time = trustedTime({
    build: context.build,
    journaled: has.time,
    signed: statement.issued,
  });
  return {
    kind: "taken",
    trusted: { serial: statement.serial, pins: statement.pins, time },
  };
}

function isSame(left: readonly string[], right: readonly string[]): boolean {
  return left.length === right.length && left.every((pin, index) => pin === right[index]);
}
