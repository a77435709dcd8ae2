import * as v from "valibot";
import type { Page } from "../../http/pages.ts";
import { readPage } from "./read-page.ts" with { type: "macro" };

/** The page that people look at, from inside the one file; it fetches nothing from elsewhere. */

const files: Readonly<Record<string, string>> = readPage();

const types: Readonly<Record<string, string>> = {
  html: "text/html",
  css: "text/css",
  js: "text/javascript",
};

/** Scripts and styles of this server alone, none in the page, and no other site around it. */
export const pagePolicy =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** `/vetting`, and its parts. Whoever sees it sees no host before a login. */
export function vettingPages(): readonly Page[] {
  return [...pageFiles(), wayTo("root", "/"), wayTo("slash", "/vetting/")];
}

/** What people type in its place. */
function wayTo(name: string, path: string): Page {
  return {
    ...{ name: `vetting.page.${name}`, method: "GET", path, permission: "anyone" },
    ...{ summary: "Leads to /vetting", output: v.string(), mediaType: "text/plain" },
    serve: () => new Response(null, { status: 302, headers: { location: "/vetting" } }),
  };
}

function pageFiles(): readonly Page[] {
  return Object.entries(files).map(([name, text]) => {
    const kind = name.split(".").at(-1) ?? "";
    const type = types[kind] ?? "text/plain";
    return {
      name: `vetting.page.${name}`,
      method: "GET",
      path: name === "page.html" ? "/vetting" : `/vetting/page/${name}`,
      summary: name === "page.html" ? "The page of vetting" : `A part of that page: ${name}`,
      permission: "anyone",
      output: v.string(),
      mediaType: type,
      serve: () =>
        new Response(text, {
          headers: {
            "content-type": `${type}; charset=utf-8`,
            "content-security-policy": pagePolicy,
            "referrer-policy": "no-referrer",
          },
        }),
    };
  });
}
