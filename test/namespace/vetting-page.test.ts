/** The page in a real Chromium: what it shows, what it refuses, and what it never fetches. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import type { Browser } from "playwright-core";
import { pagePolicy, vettingPages } from "../../src/vetting/orchestrator/page-files.ts";
import { skipUnless } from "../support/skips.ts";
import {
  chromiumProgram,
  hostileText,
  logIn,
  openPage,
  type ShownFleet,
  startBrowser,
  startShownFleet,
} from "../support/vetting-page.ts";

test("its files name each other as they are served, with no script in markup", async () => {
  const pages = vettingPages();
  const texts = new Map<string, string>();
  for (const { path, serve } of pages) {
    const answer = await serve({} as never);
    expect(answer.headers.get("content-security-policy")).toBe(pagePolicy);
    texts.set(path, await answer.text());
  }
  for (const [path, text] of texts) {
    if (!path.endsWith(".js")) continue;
    for (const [, name] of text.matchAll(/^import\b[^;]*?\bfrom\s*"([^"]+)"/gm)) {
      expect(texts.has(`/vetting/page/${name?.replace("./", "")}`)).toBe(true);
    }
  }
  const markup = texts.get("/vetting") ?? "";
  for (const [, path = ""] of markup.matchAll(/(?:src|href)="(\/[^"#]+)"/g)) {
    expect(texts.has(path)).toBe(true);
  }
  expect(markup).not.toMatch(/<script(?![^>]*src=)|\son\w+=|style=/);
  expect(pagePolicy).not.toMatch(/unsafe|\*|http/);
});

skipUnless("the page in a browser", chromiumProgram, () => {
  let browser: Browser;
  let fleet: ShownFleet;
  beforeAll(async () => {
    browser = await startBrowser();
    fleet = await startShownFleet();
  }, 60_000);
  afterAll(async () => {
    await browser.close();
    await fleet[Symbol.asyncDispose]();
  });

  const looks = [
    { scheme: "light", width: 1280 },
    { scheme: "dark", width: 360 },
  ] as const;
  for (const look of looks) {
    test(`shows a run in ${look.scheme} at ${look.width} pixels`, async () => {
      const { page, context, errors } = await openPage(browser, fleet.server, look);
      const asked: string[] = [];
      page.on("request", (request) => asked.push(new URL(request.url()).host));
      await logIn(page);
      await page.getByText("rack-7-with").waitFor();
      await page.goto(`${fleet.server.http.server.url}/vetting#/runs/${fleet.holding.run}`);
      await page.getByRole("heading", { name: "It holds" }).waitFor();
      await page.locator(".u-wrap canvas").first().waitFor();
      // What a host says is text.
      await page.getByText(hostileText).waitFor();
      expect(await page.title()).toContain("Run 2");
      expect(await page.locator("img").count()).toBe(0);
      // Nothing stands beside the screen, but what can be pushed aside in its own place.
      const wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth");
      expect(wide).toBeLessThanOrEqual(0);
      expect(new Set(asked)).toEqual(new Set([new URL(fleet.server.http.server.url).host]));
      expect(errors.filter((error) => !error.includes("401"))).toEqual([]);
      await context.close();
    }, 60_000);
  }

  test("takes no token that is none, and says so", async () => {
    const { page, context } = await openPage(browser, fleet.server, looks[0]);
    await page.getByLabel("Operator's token").fill("nobody");
    await page.keyboard.press("Enter");
    await page.getByText("lets no browser in").waitFor();
    await context.close();
  }, 60_000);

  test("goes on live, by keyboard alone, and shows what comes", async () => {
    const { page, context } = await openPage(browser, fleet.server, looks[0]);
    await logIn(page);
    const link = page.getByRole("link", { name: /CPUStress run/ });
    await link.focus();
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: /node-3/ }).waitFor();
    await page.locator("#link.live").waitFor();
    await fleet.running.log("a line that comes later", { stage: "CPUStress" });
    await page.getByText("a line that comes later").waitFor();
    await fleet.running.sensors({ "coretemp.0/Core 9": 71 });
    await page.getByText("coretemp.0/Core 9").first().waitFor();
    await context.close();
  }, 60_000);

  test("gives a disk up to who types its serial alone", async () => {
    const { page, context } = await openPage(browser, fleet.server, looks[0]);
    await logIn(page);
    const { run } = fleet.holding;
    await page.goto(`${fleet.server.http.server.url}/vetting#/runs/${run}`);
    await page.getByRole("button", { name: "Give up" }).first().click();
    const state = () => fleet.server.orchestrator.entry(run).run.state;
    await page.getByLabel("Type the serial").fill("S64ANX0R1");
    await page.keyboard.press("Enter");
    await page.getByText("Expected S64ANX0R0, received S64ANX0R1").waitFor();
    expect(state()).toBe("FailedHolding");
    await page.getByLabel("Type the serial").fill("S64ANX0R0");
    await page.keyboard.press("Enter");
    // The page is not the only interlock: this operator may not wipe.
    await page.getByText("permission wipe").waitFor();
    expect(state()).toBe("FailedHolding");
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await context.close();
  }, 60_000);

  test("hands a key to a host that holds, and counts down", async () => {
    const { page, context } = await openPage(browser, fleet.server, looks[0]);
    await logIn(page, "keeper-token");
    await page.goto(`${fleet.server.http.server.url}/vetting#/runs/${fleet.holding.run}`);
    await page.getByRole("button", { name: /^Give a/ }).click();
    await page.getByLabel("Public key of OpenSSH").fill(`ssh-ed25519 ${"A".repeat(68)} dave`);
    await page.getByRole("button", { name: "Give it" }).click();
    await page.getByText(/for 59 min|for 1 h 0 min/).waitFor();
    expect(await fleet.holding.hold()).toContain("ssh-ed25519 AAAA");
    await context.close();
  }, 60_000);
});
