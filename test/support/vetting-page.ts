/** A fleet to look at, and a Chromium that looks. */
import { existsSync } from "node:fs";
import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { type Stage, type StageReport, stages } from "../../src/vetting/protocol-result.ts";
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

/**
 * A page that is logged in; the certificate is pinned by nobody here.
 * @param look patience: milliseconds for whatever is waited for, 30 s unless it is told
 */
export async function openPage(
  browser: Browser,
  server: VettingServer,
  look: Look & { readonly patience?: number },
): Promise<{ readonly context: BrowserContext; readonly page: Page; readonly errors: string[] }> {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true,
    colorScheme: look.scheme,
    viewport: { width: look.width, height: 800 },
  });
  if (look.patience !== undefined) context.setDefaultTimeout(look.patience);
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
  /** Its SMART was accepted, and it is in the middle of Storage once more. */
  readonly again: TestAgent;
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

/** A host that has begun a run of the spec "r1". */
export async function bootShown(
  server: VettingServer,
  index: number,
  name: string,
): Promise<TestAgent> {
  const inventory = exampleInventory();
  inventory.system.uuid = `u-${index}`;
  const mac = `52:54:00:00:03:${String(index).padStart(2, "0")}`;
  return await server.bootHost({ mac, name, spec: "r1", inventory });
}

/** A report of a stage with a finding of that outcome, and one that is well. */
export function shownReport(stage: Stage, outcome: "PASS" | "FAIL"): StageReport {
  const report = exampleDossier().results.find((one) => one.stage === stage)?.report;
  if (report === undefined) throw new Error(`The example has no ${stage}`);
  const findings = [exampleFinding(outcome, "disk S64ANX0R0"), exampleFinding("PASS", "host")];
  const measurements = [...report.measurements, ...(stage === "Network" ? framesShown : [])];
  return { ...report, outcome, findings, measurements, summary: `${stage} came to ${outcome}` };
}

/** Of three cards, of which one reaches nobody. */
const framesShown = [
  ["eth0 to eth1", 256],
  ["eth1 to eth0", 255],
  ["eth0 to eth2", 0],
  ["eth2 to eth0", 0],
].map(([component, value]) => ({
  ...{ name: "pair-frames", component: String(component), value: Number(value), unit: "frames" },
}));

const endings = ["cancel", "abort"] as const;

/**
 * Hosts that stand on the board and do nothing: some have a run that waits, some one that was
 * cancelled or aborted, some none.
 */
export async function addCrowd({ orchestrator }: VettingServer, count: number): Promise<string[]> {
  const macs = Array.from({ length: count }, (_, index) => {
    const [high, low] = [Math.trunc(index / 256), index % 256];
    return `52:54:00:01:${[high, low].map((one) => one.toString(16).padStart(2, "0")).join(":")}`;
  });
  const who = "operator alice";
  await Promise.all(
    macs.map(async (mac, index) => {
      await orchestrator.addHost({
        mac,
        name: `rack-${1 + (index % 9)}-node-${index}`,
        spec: "r1",
      });
      if (index % 4 === 3) return;
      const { run } = await orchestrator.startRun(mac, { spec: "r1", who, window: 0 });
      const kind = endings[index % 4];
      if (kind !== undefined) await orchestrator.post(run, { kind, who, reason: "another day" });
    }),
  );
  return macs;
}

/** A host of which SMART failed and was accepted, and Storage failed and is tried again. */
async function startAgain(server: VettingServer): Promise<TestAgent> {
  const { orchestrator } = server;
  const again = await bootShown(server, 4, "node-4");
  const who = "operator alice";
  await again.stage("Inventory", shownReport("Inventory", "PASS"));
  await again.stage("SMART", shownReport("SMART", "FAIL"));
  const reason = "this disk is replaced on Monday";
  await orchestrator.post(again.run, { kind: "override", who, what: "SMART", reason });
  await again.stage("CPUStress", shownReport("CPUStress", "PASS"));
  await again.stage("Storage", shownReport("Storage", "FAIL"));
  await orchestrator.post(again.run, {
    ...{ kind: "retry", who, stage: "Storage", wipe: [], mayWipe: false, reason: "" },
  });
  await again.begin("Storage");
  await again.heartbeat("Storage", 0.37);
  return again;
}

export async function startShownFleet(): Promise<ShownFleet> {
  await using starting = new AsyncDisposableStack();
  const server = starting.use(startVettingServer());
  await server.putSpec({
    ...{ name: "r1", rules, stages: { Storage: { mode: "verify" } } },
    expected_disks: [{ serial: "S64ANX0R0", size_bytes: 1_920_383_410_176 }],
  });
  const boot = (index: number, name: string) => bootShown(server, index, name);
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
  for (const stage of stages) await passed.stage(stage, shownReport(stage, "PASS"));
  const holding = await boot(2, "rack-7-with-a-rather-long-name");
  for (const stage of ["Inventory", "SMART", "CPUStress"] as const) {
    await holding.stage(stage, shownReport(stage, "PASS"), () => work(holding, stage));
  }
  await holding.log("I/O error, dev nvme0n1, sector 1234", { level: "error", stage: "Storage" });
  await holding.log(hostileText, { level: "warn", stage: "Storage" });
  await holding.stage("Storage", shownReport("Storage", "FAIL"));
  await holding.hold();
  const running = await boot(3, "node-3");
  for (const stage of ["Inventory", "SMART"] as const) {
    await running.stage(stage, shownReport(stage, "PASS"));
  }
  await running.begin("CPUStress");
  await running.heartbeat("CPUStress", 0.42);
  await server.orchestrator.mintBootToken("52:54:00:00:03:99");
  const again = await startAgain(server);
  // It is whoever asked for it that ends it; what fails before ends here.
  const kept = starting.move();
  return {
    ...{ server, passed: passed.run, holding, running, again },
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  };
}
