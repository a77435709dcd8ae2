import { isIPv6 } from "node:net";
import type { Milliseconds, MonotonicTime } from "../units/units.ts";
import type { Rate } from "./limits.ts";

interface Bucket {
  tokens: number;
  at: MonotonicTime;
}

/**
 * A token bucket for each caller, of a bounded number of callers: who has not called for longest
 * is forgotten first. Whoever can call from more addresses than are remembered has as many full
 * buckets; the limit of concurrent requests holds for all together. The clock is an argument.
 */
export class RateLimiter {
  readonly #rate: Rate;
  readonly #remembered: number;
  readonly #buckets = new Map<string, Bucket>();

  constructor(rate: Rate, remembered: number) {
    this.#rate = rate;
    this.#remembered = remembered;
  }

  /** @returns 0 when the call may go on; else how long the caller has to wait */
  take(caller: string, now: MonotonicTime): Milliseconds {
    const { burst, perSecond } = this.#rate;
    const bucket = this.#buckets.get(caller) ?? { tokens: burst, at: now };
    // A map keeps its order: whoever called last stands last.
    this.#buckets.delete(caller);
    this.#buckets.set(caller, bucket);
    if (this.#buckets.size > this.#remembered) this.#forgetOldest();
    const gained = (Math.max(0, now - bucket.at) / 1_000) * perSecond;
    bucket.tokens = Math.min(burst, bucket.tokens + gained);
    bucket.at = now;
    if (bucket.tokens < 1) return ((1 - bucket.tokens) / perSecond) * 1_000;
    bucket.tokens -= 1;
    return 0;
  }

  get size(): number {
    return this.#buckets.size;
  }

  #forgetOldest(): void {
    for (const caller of this.#buckets.keys()) {
      this.#buckets.delete(caller);
      return;
    }
  }
}

/**
 * What counts as one caller: an IPv4 address, or the first 64 bits of an IPv6 address, which is
 * what one household or machine is given (RFC 6177).
 */
export function rateKeyOf(address: string): string {
  if (!isIPv6(address)) return address;
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return mapped;
  const [head = "", tail] = address.replace(/%.*$/, "").split("::");
  const before = head === "" ? [] : head.split(":");
  const after = tail === undefined || tail === "" ? [] : tail.split(":");
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - before.length - after.length);
  const groups = [...before, ...Array<string>(zeros).fill("0"), ...after];
  return `${groups.slice(0, 4).map(shortGroup).join(":")}::/64`;
}

function shortGroup(group: string): string {
  return group.replace(/^0+(?=.)/, "").toLowerCase();
}
