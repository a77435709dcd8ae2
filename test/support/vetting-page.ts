/** A fleet to look at, and a Chromium that looks. */
import { existsSync } from "node:fs";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { stages } from "../../src/vetting/protocol-result.ts";
import { feature } from "./skips.ts";
import { exampleDossier, exampleFinding } from "./vetting-dossier.ts";
import { exampleInventory } from "./vetting-inventory.ts";
import { startVettingServer, type TestAgent, type VettingServer } from "./vetting-server.ts";

const executable = "/usr/bin/chromium";
export const chromiumProgram = feature("no chromium (Debian: chromium)", () =>
  existsSync(executable),
);

export function startBrowser(): Promise<Browser> {
  // A test that runs as root has no sandbox to be in.
  return chromium.launch({ executablePath: executable, args: ["--no-sandbox"] });
}

export interface Look {
  readonly scheme: "light" | "dark";
  readonly width: number;
}

/** A page that is logged in; the certificate is pinned by nobody here. */
export async function openPage(
  browser: Browser,
  server: VettingServer,
  look: Look,
): Promise<{ readonly context: BrowserContext; readonly page: Page; readonly errors: string[] }> {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true,
    colorScheme: look.scheme,
    viewport: { width: look.width, height: 800 },
  });
  const page = await context.newPage();
  const errors: string[] = [];
  page.on("console", (message) => {
    if (message.type() === "error") errors.push(message.text());
  });
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.goto(`${server.http.server.url}/vetting`);
  return { context, page, errors };
}

export async function logIn(page: Page, token = "admin-token"): Promise<void> {
  await page.getByLabel("Operator's token").fill(token);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Fleet" }).waitFor();
}

export interface ShownFleet extends AsyncDisposable {
  readonly server: VettingServer;
  /** Passed, holds after Storage, and is in the middle of CPUStress. */
  readonly passed: number;
  readonly holding: TestAgent;
  readonly running: TestAgent;
}

const rules = [
  { path: "memory.slots.count", match: { is: "equal" as const, value: 4 } },
  {
    path: "memory.slots[*].part",
    match: { is: "equal" as const, value: "M321R4GA3BB6" },
    because: "two modules of one kind",
  },
  {
    path: "disks[*].firmware",
    match: { is: "one-of" as const, values: ["GDC5702Q"] },
    outcome: "WARN" as const,
  },
];

/** What a host tells that would be markup where it is not taken for text. */
export const hostileText = `<img src=x onerror="document.title='broken'">`;

export async function startShownFleet(): Promise<ShownFleet> {
  const server = startVettingServer();
  const { results } = exampleDossier();
  await server.putSpec({
    ...{ name: "r1", rules, stages: { Storage: { mode: "verify" } } },
    expected_disks: [{ serial: "S64ANX0R0", size_bytes: 1_920_383_410_176 }],
  });
  const boot = async (index: number, name: string) => {
    const inventory = exampleInventory();
    inventory.system.uuid = `u-${index}`;
    return await server.bootHost({ mac: `52:54:00:00:03:0${index}`, name, spec: "r1", inventory });
  };
  const reportOf = (stage: (typeof stages)[number], outcome: "PASS" | "FAIL") => {
    const report = results.find((one) => one.stage === stage)?.report;
    if (report === undefined) throw new Error(`The example has no ${stage}`);
    const findings = [exampleFinding(outcome, "disk S64ANX0R0"), exampleFinding("PASS", "host")];
    return { ...report, outcome, findings, summary: `${stage} came to ${outcome}` };
  };
  const work = async (agent: TestAgent, stage: (typeof stages)[number]) => {
    for (let turn = 0; turn < 12; turn += 1) {
      const heat = 45 + 25 * Math.sin(turn / 4) + stage.length;
      await agent.sensors(
        { "coretemp.0/Core 0": heat, "coretemp.0/Core 1": heat - 6, nvme0: 40, psu1: 180 + heat },
        { "memory-corrected": turn > 6 ? 2 : 0, "pcie-correctable": 0 },
      );
    }
    await agent.log(`${stage} looks at it`, { stage });
  };
  const passed = await boot(1, "node-1");
  for (const stage of stages) await passed.stage(stage, reportOf(stage, "PASS"));
  const holding = await boot(2, "rack-7-with-a-rather-long-name");
  for (const stage of ["Inventory", "SMART", "CPUStress"] as const) {
    await work(holding, stage);
    await holding.stage(stage, reportOf(stage, "PASS"));
  }
  await holding.log("I/O error, dev nvme0n1, sector 1234", { level: "error", stage: "Storage" });
  await holding.log(hostileText, { level: "warn", stage: "Storage" });
  await holding.stage("Storage", reportOf("Storage", "FAIL"));
  await holding.hold();
  const running = await boot(3, "node-3");
  for (const stage of ["Inventory", "SMART"] as const) {
    await running.stage(stage, reportOf(stage, "PASS"));
  }
  await running.heartbeat("CPUStress", 0.42);
  await server.orchestrator.mintBootToken("52:54:00:00:03:09");
  return {
    ...{ server, passed: passed.run, holding, running },
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
    },
  };
}
