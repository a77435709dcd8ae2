import * as v from "valibot";
import type { Milliseconds } from "../units/units.ts";
import { clearCookie, credentialsOf, csrfTokenOf, setCookie, TOKEN_LENGTH } from "./credentials.ts";
import { METRICS_TYPE, type MetricsRegistry } from "./metrics.ts";
import { type DescribedPlace, openApiDocument } from "./openapi.ts";
import { describePrincipal, type Permission, type Principal } from "./principal.ts";
import { ProblemError } from "./problem.ts";
import { type Call, defineRoute, type Route } from "./route.ts";

/** What a server says beside its routes: read alone, and in another form than a route's JSON. */
export interface Page extends DescribedPlace {
  readonly method: "GET";
  /** @throws ProblemError */
  serve(call: PageCall): Promise<Response> | Response;
}

export interface PageCall extends Pick<Call, "principal" | "from" | "signal"> {
  /** Of the path, as they came: nobody has looked at them yet. */
  readonly parameters: Readonly<Record<string, string>>;
  readonly requestHeaders: Headers;
}

/** How browsers log in; identity knows the tokens. */
export interface BrowserSessions {
  /**
   * Opens a session for who holds this token.
   * @throws ProblemError unauthenticated
   */
  open(
    token: string,
    from: string,
  ): Promise<{
    readonly principal: Principal;
    /** 128 bits of chance at least; its letters those of base64url or hex. */
    readonly sessionToken: string;
    readonly lifetime: Milliseconds;
  }>;
  close(sessionToken: string): Promise<void> | void;
}

/** A call that came over HTTP; browser sessions alone set headers, and need the request's. */
export interface HttpCall extends Call {
  readonly requestHeaders: Headers;
  readonly answerHeaders: Headers;
}

const healthSchema = v.object({
  status: v.picklist(["well", "unwell"]),
  reasons: v.array(v.string()),
});

/** GET /healthz: 200, or 503 with what is wrong. */
export function healthPage(reasons: () => Promise<readonly string[]> | readonly string[]): Page {
  return {
    name: "http.health",
    method: "GET",
    path: "/healthz",
    summary: "Whether this role works: 200, or 503 with what is wrong",
    permission: "anyone",
    output: healthSchema,
    serve: async () => {
      const found = await reasons();
      const status = found.length === 0 ? "well" : "unwell";
      return Response.json({ status, reasons: found }, { status: found.length === 0 ? 200 : 503 });
    },
  };
}

/** GET /metrics. */
export function metricsPage(registry: MetricsRegistry, permission: Permission): Page {
  return {
    name: "http.metrics",
    method: "GET",
    path: "/metrics",
    summary: "What this role counts, for Prometheus",
    permission,
    output: v.string(),
    mediaType: "text/plain",
    serve: () => new Response(registry.toText(), { headers: { "content-type": METRICS_TYPE } }),
  };
}

/** GET /openapi.json: itself included. */
export function openApiPage(options: {
  readonly title: string;
  readonly version: string;
  readonly places: readonly DescribedPlace[];
}): Page {
  const itself: Page = {
    name: "http.openapi",
    method: "GET",
    path: "/openapi.json",
    summary: "This document",
    permission: "anyone",
    output: v.looseObject({ openapi: v.string() }),
    serve: () => {
      text ??= JSON.stringify(openApiDocument({ ...options, places: [...options.places, itself] }));
      return new Response(text, { headers: { "content-type": "application/json" } });
    },
  };
  let text: string | undefined;
  return itself;
}

const sessionSchema = v.object({ who: v.string(), csrfToken: v.string() });

/** Where a browser logs in, asks who it is, and logs out. */
export const BROWSER_SESSION_PATH = "/v1/browser-session";

/** A token in, a cookie out; the token for X-CSRF-Token with it. */
export function browserRoutes(sessions: BrowserSessions): Route[] {
  const common = { path: BROWSER_SESSION_PATH, permission: "anyone" } as const;
  return [
    defineRoute({
      ...common,
      name: "http.browser-session.open",
      method: "POST",
      summary: "Log a browser in: the answer sets its cookie",
      mutates: true,
      input: v.object({
        token: v.pipe(v.string(), v.minLength(1), v.maxLength(TOKEN_LENGTH)),
      }),
      output: sessionSchema,
      run: async (call, { token }) => {
        const opened = await sessions.open(token, call.from);
        const { principal, sessionToken, lifetime } = opened;
        (call as HttpCall).answerHeaders.set("set-cookie", setCookie(sessionToken, lifetime));
        const who = describePrincipal(principal);
        call.changed({ object: who, after: "logged in" });
        return { who, csrfToken: csrfTokenOf(sessionToken) };
      },
    }),
    defineRoute({
      ...common,
      name: "http.browser-session.show",
      method: "GET",
      summary: "Who is logged in, and the token for X-CSRF-Token",
      mutates: false,
      input: v.object({}),
      output: sessionSchema,
      run: (call) => ({
        who: describePrincipal(call.principal),
        csrfToken: csrfTokenOf(sessionTokenOf(call)),
      }),
    }),
    defineRoute({
      ...common,
      name: "http.browser-session.close",
      method: "DELETE",
      summary: "Log a browser out",
      mutates: true,
      input: v.object({}),
      output: v.object({}),
      run: async (call) => {
        await sessions.close(sessionTokenOf(call));
        (call as HttpCall).answerHeaders.set("set-cookie", clearCookie());
        call.changed({ object: describePrincipal(call.principal), after: "logged out" });
        return {};
      },
    }),
  ];
}

/** @throws ProblemError unauthenticated, for a call that came without a cookie that holds */
function sessionTokenOf(call: Call): string {
  const credentials = credentialsOf((call as HttpCall).requestHeaders);
  if (credentials.kind === "cookie" && call.principal.kind !== "anonymous") {
    return credentials.token;
  }
  throw new ProblemError("unauthenticated", "This browser is not logged in", {
    expected: "a session's cookie",
    received: credentials.kind === "cookie" ? "one that does not hold" : "none",
  });
}
