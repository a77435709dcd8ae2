/** The page in a real Chromium: what it shows, what it refuses, and what it never fetches. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import type { Browser, Page } from "playwright-core";
import { pagePolicy, vettingPages } from "../../src/vetting/orchestrator/page-files.ts";
import { skipUnless } from "../support/skips.ts";
import { exampleFinding } from "../support/vetting-dossier.ts";
import {
  addCrowd,
  bootShown,
  chromiumProgram,
  hostileText,
  logIn,
  openPage,
  type ShownFleet,
  shownReport,
  startBrowser,
  startShownFleet,
} from "../support/vetting-page.ts";
import { startVettingServer } from "../support/vetting-server.ts";
import { rejectionOf } from "../support/wait-for.ts";

test("its files name each other as they are served, with no script in markup", async () => {
  const pages = vettingPages();
  const texts = new Map<string, string>();
  for (const { path, serve } of pages) {
    const answer = await serve({} as never);
    // What people type in its place has nothing in it, and leads there.
    if (answer.status === 302) {
      expect([answer.headers.get("location"), await answer.text()]).toEqual(["/vetting", ""]);
      continue;
    }
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

/** Pixels that stand beside the screen. */
const overhang = "document.documentElement.scrollWidth - innerWidth";

/** What can be pressed or filled in and has no name that is read out. */
const unnamed = `[...document.querySelectorAll("button, a[href], input, select, textarea")]
  .filter((one) => {
    const named = one.getAttribute("aria-label") ?? one.labels?.[0]?.textContent ?? "";
    return (named + one.textContent).trim() === "";
  })
  .map((one) => one.outerHTML)`;

/** Buttons, addresses of cards and marks of the board that take more than one line. */
const brokenLines = `[...document.querySelectorAll(".board :is(button, small.tight, .badge)")]
  .filter((one) => {
    const words = document.createRange();
    words.selectNodeContents(one);
    return new Set([...words.getClientRects()].map(({ top }) => Math.round(top))).size > 1;
  })
  .map((one) => one.textContent)`;

/** Collects the rows that are put into the board. */
const watchRows = `globalThis.changedRows = new Set();
  new MutationObserver((changes) => {
    for (const { addedNodes } of changes) {
      for (const row of addedNodes) changedRows.add(row.dataset.row);
    }
  }).observe(document.querySelector(".board tbody"), { childList: true });`;

/** Counts how often rows are put into the board, from now on. */
const countPictures = `globalThis.pictures = 0;
  globalThis.begun = performance.now();
  new MutationObserver(() => (pictures += 1))
    .observe(document.querySelector(".board tbody"), { childList: true });`;

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
    { scheme: "light", width: 768 },
    { scheme: "dark", width: 360 },
  ] as const;
  const openRun = (page: Page, run: number) =>
    page.goto(`${fleet.server.http.server.url}/vetting#/runs/${run}`);
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
      expect(await page.evaluate(overhang)).toBeLessThanOrEqual(0);
      expect(new Set(asked)).toEqual(new Set([new URL(fleet.server.http.server.url).host]));
      expect(errors.filter((error) => !error.includes("401"))).toEqual([]);
      // What can be used has a name, and no number or button is broken over lines.
      expect(await page.evaluate(unnamed)).toEqual([]);
      await page.goto(`${fleet.server.http.server.url}/vetting#/`);
      await page.getByText("rack-7-with").waitFor();
      expect(await page.evaluate(brokenLines)).toEqual([]);
      expect(await page.evaluate(overhang)).toBeLessThanOrEqual(0);
      await context.close();
    }, 60_000);
  }

  test("shows which card reached which as a square", async () => {
    const { page, context } = await openPage(browser, fleet.server, looks[0]);
    await logIn(page);
    await openRun(page, fleet.passed);
    const stage = page.locator("section#Network");
    await stage.locator("summary").first().click();
    const square = stage.locator('[aria-label="which card reached which"]');
    const rows = await square.locator("tr").evaluateAll((found) => {
      return found.map((row) => [...row.children].map(({ textContent }) => textContent));
    });
    expect(rows).toEqual([
      ["frames from", "to eth0", "to eth1", "to eth2"],
      ["eth0", "", "256", "no way"],
      ["eth1", "255", "", ""],
      ["eth2", "no way", "", ""],
    ]);
    // What is in the square does not stand among the other figures once more.
    expect(await stage.getByText("pair-frames").count()).toBe(0);
    await context.close();
  }, 60_000);

  test("says what is so of a stage now, and who accepted what failed", async () => {
    const { page, context } = await openPage(browser, fleet.server, looks[0]);
    await fleet.again.heartbeat("Storage", 0.37);
    await logIn(page);
    await openRun(page, fleet.again.run);
    const row = (stage: string) => page.getByRole("row").filter({ hasText: stage }).first();
    await row("Storage").getByText("37 %").waitFor();
    expect(
      await row("Storage")
        .getByText(/since \d\d:\d\d:\d\d/)
        .count(),
    ).toBe(1);
    await row("SMART").getByText("accepted by operator alice: this disk").waitFor();
    // A link to a stage leaves the address as that of the run, and unfolds what it leads to.
    await page.getByRole("link", { name: "SMART" }).focus();
    await page.keyboard.press("Enter");
    await page.locator("#SMART details[open] summary:focus").waitFor();
    expect(new URL(page.url()).hash).toBe(`#/runs/${fleet.again.run}`);
    await context.close();
  }, 60_000);

  test("offers what is not refused: a host that holds is released, not cancelled", async () => {
    const { page, context } = await openPage(browser, fleet.server, looks[0]);
    await logIn(page);
    const offered = (name: string) => page.getByRole("button", { name, exact: true });
    await openRun(page, fleet.holding.run);
    await offered("Release…").waitFor();
    expect(await offered("Cancel…").count()).toBe(0);
    await offered("Accept…").click();
    expect(await page.locator("dialog select").inputValue()).toBe("Storage");
    await page.keyboard.press("Escape");
    await openRun(page, fleet.again.run);
    await offered("Cancel…").waitFor();
    expect(await offered("Accept…").count()).toBe(0);
    await openRun(page, 999);
    await page.getByText("It cannot be shown").waitFor();
    await context.close();
  }, 60_000);

  test("has who waits for an operator first, and shows those alone", async () => {
    const { page, context } = await openPage(browser, fleet.server, looks[0]);
    await logIn(page);
    const first = page.locator("tr[data-row]").first();
    await first.getByText("rack-7-with").waitFor();
    await page.getByRole("button", { name: "1 holds" }).click();
    await page.getByText(/^1 of \d+ hosts$/).waitFor();
    expect(await first.textContent()).toContain("FailedHolding");
    await context.close();
  }, 60_000);

  test("tells the last values below a chart, and counts errors in whole numbers", async () => {
    const { page, context } = await openPage(browser, fleet.server, looks[0]);
    const agent = await bootShown(fleet.server, 21, "node-21");
    await agent.begin("Inventory");
    for (const heat of [40, 50, 61]) await agent.sensors({ core: heat }, { pcie: 3 });
    await logIn(page);
    await openRun(page, agent.run);
    const legend = (index: number) => page.locator(".u-legend").nth(index);
    await legend(0).getByText("61 °C").waitFor();
    await page.getByText("Errors, counted since the agent began").waitFor();
    expect(await legend(1).textContent()).toMatch(/Time:?\d\d:\d\d:\d\d.*pcie:?3 *$/);
    await agent.sensors({ core: 72 }, { pcie: 4 });
    await legend(0).getByText("72 °C").waitFor();
    await legend(1).getByRole("cell", { name: "4", exact: true }).waitFor();
    await context.close();
  }, 60_000);

  test("goes on showing the part of a chart that was chosen, until all is asked for", async () => {
    const { page, context } = await openPage(browser, fleet.server, looks[0]);
    const agent = await bootShown(fleet.server, 22, "node-22");
    await agent.begin("Inventory");
    for (let heat = 40; heat < 60; heat += 1) await agent.sensors({ core: heat });
    await logIn(page);
    await openRun(page, agent.run);
    const legend = page.locator(".u-legend").first();
    await legend.getByText("59 °C").waitFor();
    const plot = page.locator(".u-over").first();
    await plot.scrollIntoViewIfNeeded();
    const { x, y, width } = (await plot.boundingBox()) ?? { x: 0, y: 0, width: 0 };
    await page.mouse.move(x + width - 40, y + 50);
    await page.mouse.down();
    await page.mouse.move(x + width - 2, y + 50);
    await page.mouse.up();
    await page.mouse.move(1, 1);
    await agent.sensors({ core: 77 });
    await legend.getByText("77 °C").waitFor();
    // The first of what is shown is not the first of all.
    await page.mouse.move(x + 1, y + 50);
    await legend.getByText(/^5\d °C$/).waitFor();
    await page.mouse.dblclick(x + 1, y + 50);
    await page.mouse.move(x + 2, y + 50);
    await legend.getByText("40 °C").waitFor();
    await context.close();
  }, 60_000);

  test("takes what a host says for text: markup, direction, and far too much", async () => {
    const { page, context } = await openPage(browser, fleet.server, looks[2]);
    const agent = await bootShown(fleet.server, 20, "node-20");
    await agent.stage("Inventory", shownReport("Inventory", "PASS"));
    const serial = "S".repeat(2_000);
    const finding = exampleFinding("FAIL", "disk 1");
    const findings = [{ ...finding, message: hostileText, found: "x".repeat(400) }];
    await agent.stage("SMART", { ...shownReport("SMART", "FAIL"), findings });
    await agent.log(`serial ${serial}`, { stage: "SMART" });
    const refusal = await rejectionOf(agent.log("S".repeat(10_000)));
    expect(refusal.message).toContain("2048");
    await agent.log("turned \u202Eround \u0007", { stage: "SMART" });
    await logIn(page);
    await openRun(page, agent.run);
    await page.getByText("turned ⟦202e⟧round ⟦0007⟧").waitFor();
    await page.getByText(hostileText).first().waitFor();
    await page.getByText("(400 letters)").waitFor();
    expect(await page.locator(".log").textContent()).toContain(serial);
    expect(await page.locator("main img").count()).toBe(0);
    expect(await page.evaluate(overhang)).toBeLessThanOrEqual(0);
    await context.close();
  }, 60_000);

  test("keeps the focus while rows change, and shows those alone that fit", async () => {
    await using server = startVettingServer();
    await server.putSpec({ name: "r1" });
    await addCrowd(server, 1_000);
    const { page, context } = await openPage(browser, server, looks[0]);
    await logIn(page);
    await page.locator("tr[data-row]").nth(999).waitFor({ state: "attached" });
    await page.getByRole("button", { name: "250 cancelled" }).click();
    await page.getByText("250 of 1000 hosts").waitFor();
    await page.getByRole("button", { name: "250 cancelled" }).click();
    const [first, second] = server.orchestrator.liveRuns;
    if (first === undefined || second === undefined) throw new Error("Expected two open runs");
    await page.locator(`a[href="#/runs/${first.run}"]`).focus();
    await page.evaluate(watchRows);
    for (const progress of [0.1, 0.2, 0.3]) {
      const activity = { kind: "stage", stage: "SMART", progress } as const;
      for (const { run } of [first, second]) {
        server.orchestrator.setPresence(run, { activity, dropped: 0 });
      }
    }
    await page.locator(`a[href="#/runs/${first.run}"]:focus`, { hasText: "30 %" }).waitFor();
    await page.locator(`tr[data-row="${second.mac}"]`, { hasText: "30 %" }).waitFor();
    // However fast they change, the board is laid out ten times a second at most.
    await page.evaluate(countPictures);
    for (let percent = 31; percent < 90; percent += 1) {
      const activity = { kind: "stage", stage: "SMART", progress: percent / 100 + 0.001 } as const;
      for (const { run } of [first, second]) {
        server.orchestrator.setPresence(run, { activity, dropped: 0 });
      }
      // There and back: the browser had time for a picture.
      await page.evaluate("0");
    }
    await page.locator(`tr[data-row="${second.mac}"]`, { hasText: "89 %" }).waitFor();
    const { pictures, time } = await page.evaluate<{ pictures: number; time: number }>(
      "({ pictures, time: performance.now() - begun })",
    );
    expect(pictures).toBeGreaterThan(0);
    expect(pictures).toBeLessThanOrEqual(2 + time / 100);
    // Of a thousand rows, those of two hosts were made anew.
    expect(await page.evaluate("[...changedRows].toSorted()")).toEqual(
      [first.mac, second.mac].toSorted(),
    );
    await context.close();
  }, 60_000);

  test("counts how long a host has been silent, until it is heard again", async () => {
    let ahead = 0;
    await using server = startVettingServer(() => Date.now() + ahead);
    await server.putSpec({ name: "r1" });
    const agent = await bootShown(server, 1, "node-1");
    const { page, context } = await openPage(browser, server, looks[0]);
    await logIn(page);
    await page.getByText("node-1").waitFor();
    expect(await page.getByText(/silent for/).count()).toBe(0);
    ahead = 35_000;
    server.orchestrator.tick();
    await page.getByText(/silent for (3|4|5)\d s/).waitFor();
    await page.getByRole("link", { name: "run 1" }).click();
    await page.getByText(/silent for/).waitFor();
    await agent.heartbeat(null);
    server.orchestrator.tick();
    await page.getByText(/silent for/).waitFor({ state: "hidden" });
    await context.close();
  }, 60_000);

  test("says since when the orchestrator is away, and that a session has ended", async () => {
    const server = startVettingServer();
    const { page, context } = await openPage(browser, server, looks[0]);
    await logIn(page);
    await page.getByText("There is no host yet").waitFor();
    await context.clearCookies();
    await page.goto(`${server.http.server.url}/vetting#/runs/7`);
    await page.getByText("The session has ended").waitFor();
    const enter = async () => {
      await page.getByLabel("Operator's token").fill("admin-token");
      await page.keyboard.press("Enter");
      // What was to be seen comes back: here a run that there is not.
      await page.getByRole("heading", { name: "Run 7" }).waitFor();
    };
    await enter();
    expect(await page.getByText("The session has ended").count()).toBe(0);
    // A browser keeps the cookie of an orchestrator that has ended, and comes to the next one.
    const cookies = await context.cookies();
    await context.addCookies(cookies.map((cookie) => ({ ...cookie, value: "of-another" })));
    await page.reload();
    await page.getByRole("heading", { name: "Log in" }).waitFor();
    expect(await page.getByRole("button", { name: "Log out" }).isVisible()).toBe(false);
    await enter();
    await page.getByRole("link", { name: "To the fleet" }).click();
    await page.locator("#link.live").waitFor();
    await server[Symbol.asyncDispose]();
    await page.getByText(/orchestrator away since \d\d:\d\d:\d\d/).waitFor();
    await context.close();
  }, 60_000);

  test("takes no token that is none, and says so", async () => {
    const { page, context } = await openPage(browser, fleet.server, looks[0]);
    await page.getByLabel("Operator's token").fill("nobody");
    await page.keyboard.press("Enter");
    await page.getByText("lets no browser in").waitFor();
    await context.close();
  }, 60_000);

  test("goes on live, by keyboard alone, and shows what comes", async () => {
    const { page, context } = await openPage(browser, fleet.server, looks[0]);
    // Tests before this one may have taken longer than a host may be silent.
    await fleet.running.heartbeat("CPUStress", 0.42);
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
