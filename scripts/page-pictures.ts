/** `bun scripts/page-pictures.ts FOLDER`: the views of vetting's page, for somebody to look at. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { logIn, openPage, startBrowser, startShownFleet } from "../test/support/vetting-page.ts";
import { runScript } from "./terminal.ts";

const looks = [
  { scheme: "light", width: 1280 },
  { scheme: "dark", width: 1280 },
  { scheme: "light", width: 360 },
  { scheme: "dark", width: 360 },
] as const;

await runScript(async () => {
  const [folder = "pictures"] = process.argv.slice(2);
  mkdirSync(folder, { recursive: true });
  await using fleet = await startShownFleet();
  const browser = await startBrowser();
  for (const look of looks) {
    const { page, context, errors } = await openPage(browser, fleet.server, look);
    const picture = async (name: string) => {
      const path = join(folder, `${name}-${look.scheme}-${look.width}.png`);
      await page.screenshot({ path, fullPage: !name.startsWith("dialog") });
    };
    await page.getByRole("heading", { name: "Log in" }).waitFor();
    await picture("login");
    await logIn(page);
    await page.getByText("rack-7").waitFor();
    await picture("fleet");
    await page.goto(`${fleet.server.http.server.url}/vetting#/runs/${fleet.holding.run}`);
    await page.getByRole("heading", { name: "It holds" }).waitFor();
    await page.locator(".u-wrap").first().waitFor();
    await page.getByRole("button", { name: "All of it" }).click();
    await page.getByRole("button", { name: "Compare" }).click();
    await page.getByText("other hosts of this spec").waitFor();
    await page.getByText("no rule is about").first().waitFor({ state: "attached" });
    await picture("run");
    await page.getByRole("button", { name: "Give up" }).first().click();
    await picture("dialog-wipe");
    await page.keyboard.press("Escape");
    await page.getByRole("button", { name: "Give a key" }).click();
    await picture("dialog-key");
    if (errors.length > 0) console.log(look, errors);
    await page.goto(
      `${fleet.server.http.server.url}/v1/vetting/runs/${fleet.holding.run}/report.html`,
    );
    await picture("report");
    await context.close();
  }
  await browser.close();
  return 0;
});
