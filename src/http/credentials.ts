import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { Milliseconds } from "../units/units.ts";
import { ProblemError } from "./problem.ts";

/**
 * What a request brings along: a token of a program, or the cookie of a browser. Who it is, the
 * server's `authenticate` says.
 */
export type Credentials =
  | { readonly kind: "none" }
  | { readonly kind: "bearer"; readonly token: string }
  | { readonly kind: "cookie"; readonly token: string };

/**
 * "__Host-": a browser takes it over HTTPS alone, for this host and all of its paths (RFC 6265bis,
 * section 4.1.3), so that no neighbour domain can plant one.
 */
export const COOKIE_NAME = "__Host-hostler";
export const CSRF_HEADER = "x-csrf-token";

/** Letters of a token, in a header or a cookie. */
export const TOKEN_LENGTH = 512;

/** @throws ProblemError when there are credentials that are none, or two at once */
export function credentialsOf(headers: Headers): Credentials {
  const authorization = headers.get("authorization");
  const cookie = cookieOf(headers.get("cookie"));
  if (authorization === null) {
    return cookie === undefined ? { kind: "none" } : checked({ kind: "cookie", token: cookie });
  }
  const token = /^Bearer +([\w.~+/=-]+) *$/i.exec(authorization)?.[1];
  if (token === undefined) {
    throw new ProblemError("unauthenticated", "The Authorization header is none that is taken", {
      expected: "Bearer TOKEN",
      received: "another header",
    });
  }
  // A program's token goes before a cookie: a browser never sends one by itself.
  return checked({ kind: "bearer", token });
}

function checked(credentials: Credentials & { readonly token: string }): Credentials {
  if (credentials.token.length <= TOKEN_LENGTH) return credentials;
  throw new ProblemError("unauthenticated", "The token is too long", {
    expected: `a token of at most ${TOKEN_LENGTH} letters`,
    received: `${credentials.token.length} letters`,
  });
}

function cookieOf(header: string | null): string | undefined {
  for (const part of (header ?? "").split(";")) {
    const [name, ...value] = part.split("=");
    if (name?.trim() === COOKIE_NAME) return value.join("=").trim();
  }
  return undefined;
}

/** The header that gives a browser its cookie: out of reach of scripts, and of other sites. */
export function setCookie(token: string, lifetime: Milliseconds): string {
  const seconds = Math.floor(lifetime / 1_000);
  return `${COOKIE_NAME}=${token}; Path=/; Max-Age=${seconds}; HttpOnly; Secure; SameSite=Strict`;
}

/** The header that takes it back. */
export function clearCookie(): string {
  return setCookie("", 0);
}

/**
 * What a browser has to send as X-CSRF-Token with each mutating call: made of its session's token,
 * which scripts cannot read, so that it is the session's alone and nobody has to keep it.
 */
export function csrfTokenOf(sessionToken: string): string {
  return createHmac("sha256", sessionToken).update("hostler csrf token").digest("base64url");
}

/**
 * Another site can have a browser send requests, but cannot read the token, nor give another
 * Origin than its own.
 * @throws ProblemError cross-site
 */
export function checkCrossSite(request: Request, sessionToken: string): void {
  checkOrigin(request);
  const given = request.headers.get(CSRF_HEADER);
  if (given !== null && equalInConstantTime(given, csrfTokenOf(sessionToken))) return;
  throw new ProblemError("cross-site", "A browser's call that changes something needs its token", {
    expected: `the header ${CSRF_HEADER} with the token that the session was given`,
    received: given === null ? "no such header" : "another token",
    hint: "GET /v1/browser-session gives the token",
  });
}

/** @throws ProblemError cross-site, when a browser says that another site made the request */
export function checkOrigin(request: Request): void {
  const origin = request.headers.get("origin");
  const site = request.headers.get("sec-fetch-site");
  const isOther = site !== null && site !== "same-origin" && site !== "none";
  if (!isOther && (origin === null || hostOf(origin) === request.headers.get("host"))) return;
  throw new ProblemError("cross-site", "The request was made by another site", {
    expected: "a request of this server's own pages",
    received: (origin ?? site ?? "").slice(0, 200),
  });
}

function hostOf(origin: string): string | undefined {
  return URL.canParse(origin) ? new URL(origin).host : undefined;
}

/** Takes as long for a nearly right text as for a wrong one, whatever their lengths. */
export function equalInConstantTime(left: string, right: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(left), digest(right));
}
