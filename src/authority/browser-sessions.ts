import { createHash, randomBytes } from "node:crypto";
import type { BrowserSessions } from "../http/pages.ts";
import { ProblemError } from "../http/problem.ts";
import type { Admitted } from "../identity/authority.ts";
import type { Milliseconds, MonotonicTime } from "../units/units.ts";

export const browserLimits = {
  sessions: 1_024,
  /** Milliseconds after which a browser has to log in again. */
  lifetime: 12 * 3_600_000,
} as const;

interface OpenSession {
  readonly admitted: Admitted;
  readonly ends: MonotonicTime;
}

/**
 * Browsers log in with an operator's token, and get a cookie in its place, which ends with the
 * operator's token, after half a day, or with this process. Only its hash is kept.
 */
export class OperatorCookies implements BrowserSessions {
  readonly #admit: (token: string) => Admitted | undefined;
  readonly #now: () => MonotonicTime;
  readonly #sessions = new Map<string, OpenSession>();

  constructor(admit: (token: string) => Admitted | undefined, now: () => MonotonicTime) {
    this.#admit = admit;
    this.#now = now;
  }

  async open(token: string) {
    const admitted = this.#admit(token);
    if (admitted?.principal.kind !== "operator") {
      throw new ProblemError("unauthenticated", "This token lets no browser in", {
        expected: "an operator's token",
        received: "another one",
      });
    }
    this.#sweep();
    if (this.#sessions.size >= browserLimits.sessions) {
      throw new ProblemError("too-many", "Too many browsers are logged in", {
        expected: `at most ${browserLimits.sessions}`,
        received: "one more",
      });
    }
    const sessionToken = randomBytes(32).toString("base64url");
    const lifetime: Milliseconds = browserLimits.lifetime;
    this.#sessions.set(hash(sessionToken), { admitted, ends: this.#now() + lifetime });
    return { principal: admitted.principal, sessionToken, lifetime };
  }

  close(sessionToken: string): void {
    this.#sessions.delete(hash(sessionToken));
  }

  /** Who has this cookie; undefined when nobody has, any more. */
  find(cookie: string): Admitted | undefined {
    const session = this.#sessions.get(hash(cookie));
    if (session === undefined || !this.#isOpen(session)) return undefined;
    return session.admitted;
  }

  #isOpen({ admitted, ends }: OpenSession): boolean {
    return this.#now() < ends && !admitted.signal.aborted;
  }

  #sweep(): void {
    for (const [key, session] of this.#sessions) {
      if (!this.#isOpen(session)) this.#sessions.delete(key);
    }
  }
}

function hash(token: string): string {
  return createHash("sha256").update(token).digest("hex");
}
