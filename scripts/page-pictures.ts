/**
 * The views of vetting's page, for somebody to look at.
 * `bun scripts/page-pictures.ts [FOLDER] [LOOK …]`; a look is "dark-390", and none means all.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";
import {
  addCrowd,
  type Look,
  logIn,
  openPage,
  type ShownFleet,
  startBrowser,
  startShownFleet,
} from "../test/support/vetting-page.ts";
import { startVettingServer } from "../test/support/vetting-server.ts";
import { runScript, ScriptError } from "./terminal.ts";

const looks: readonly Look[] = [
  { scheme: "light", width: 1280 },
  { scheme: "dark", width: 1280 },
  { scheme: "light", width: 768 },
  { scheme: "light", width: 390 },
  { scheme: "dark", width: 390 },
];

const nameOf = ({ scheme, width }: Look) => `${scheme}-${width}`;

/** Milliseconds for what is waited for: a machine that has other work is slow. */
const PATIENCE = 120_000;

type Take = (name: string, whole?: boolean) => Promise<void>;

const takeIn =
  (folder: string, page: Page, look: Look): Take =>
  async (name, whole = true) => {
    // The bar on top stands in the middle of a whole page that was scrolled.
    if (whole) await page.evaluate("scrollTo(0, 0)");
    await page.screenshot({ path: join(folder, `${name}-${nameOf(look)}.png`), fullPage: whole });
  };

async function takeRun(page: Page, fleet: ShownFleet, take: Take): Promise<void> {
  const { url } = fleet.server.http.server;
  await page.goto(`${url}/vetting#/runs/${fleet.holding.run}`);
  await page.getByRole("heading", { name: "It holds" }).waitFor();
  await page.locator(".u-wrap").first().waitFor();
  await take("run-top", false);
  await page.getByRole("button", { name: "All of it" }).click();
  await page.getByRole("button", { name: "Compare" }).click();
  await page.getByText(/of this spec/).waitFor();
  await page.getByText("no rule is about").first().waitFor({ state: "attached" });
  await take("run");
  await page.getByRole("button", { name: "Give up" }).first().click();
  await take("dialog-wipe", false);
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Give a key" }).click();
  await take("dialog-key", false);
  await page.keyboard.press("Escape");
  await page.goto(`${url}/vetting#/runs/${fleet.again.run}`);
  await page.getByText("accepted by operator alice").first().waitFor();
  await take("run-again", false);
}

/** A fleet without a host, a session that ends, and an orchestrator that goes away. */
async function takeTroubles(page: Page, take: Take): Promise<void> {
  const empty = startVettingServer();
  await page.goto(`${empty.http.server.url}/vetting`);
  await logIn(page);
  await page.getByText("no host yet").waitFor();
  await take("fleet-empty", false);
  await page.goto(`${empty.http.server.url}/vetting#/runs/99`);
  await page.getByText("cannot be shown").waitFor();
  await take("run-unknown", false);
  await page.context().clearCookies();
  await page.goto(`${empty.http.server.url}/vetting#/runs/98`);
  await page.getByText("session has ended").waitFor();
  await take("session-ended", false);
  await page.getByLabel("Operator's token").fill("admin-token");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Run 98" }).waitFor();
  await page.goto(`${empty.http.server.url}/vetting#/`);
  await page.locator("#link.live").waitFor();
  await empty[Symbol.asyncDispose]();
  await page.locator("#link.away").waitFor();
  await take("away", false);
}

async function takeLook(browser: Browser, fleet: ShownFleet, at: PicturePlace): Promise<void> {
  const { folder, look } = at;
  const { page, context, errors } = await openPage(browser, fleet.server, {
    ...look,
    patience: PATIENCE,
  });
  const take = takeIn(folder, page, look);
  await page.getByRole("heading", { name: "Log in" }).waitFor();
  await take("login", false);
  await logIn(page);
  await page.getByText("rack-7-with").waitFor();
  await take("fleet");
  await page.getByRole("button", { name: "Vet node-1", exact: true }).focus();
  await page.keyboard.press("Shift+Tab");
  await page.keyboard.press("Tab");
  await take("fleet-focus", false);
  await takeRun(page, fleet, take);
  const { url } = fleet.server.http.server;
  await page.goto(`${url}/v1/vetting/runs/${fleet.holding.run}/report.html`);
  await take("report");
  if (look.width === 768) {
    await page.emulateMedia({ media: "print" });
    await take("report-print");
  }
  if (look.width !== 768) await takeTroubles(page, take);
  if (errors.length > 0) console.log(look, errors);
  await context.close();
}

interface PicturePlace {
  readonly folder: string;
  readonly look: Look;
}

await runScript(async () => {
  const [folder = "pictures", ...wanted] = process.argv.slice(2);
  const unknown = wanted.find((word) => !looks.some((look) => nameOf(look) === word));
  if (unknown !== undefined) {
    const all = looks.map(nameOf).join(", ");
    throw new ScriptError(`Expected a look of ${all}, received ${unknown}`, { exitCode: 100 });
  }
  mkdirSync(folder, { recursive: true });
  await using fleet = await startShownFleet();
  await addCrowd(fleet.server, 36);
  const browser = await startBrowser();
  try {
    for (const look of looks) {
      if (wanted.length > 0 && !wanted.includes(nameOf(look))) continue;
      await takeLook(browser, fleet, { folder, look });
    }
  } finally {
    await browser.close();
  }
  return 0;
});
