/**
 * The page of vetting in a real Chromium: how long a board of many hosts takes to load, how long
 * one change takes to be seen, and what a crowd of changes costs the browser.
 * `bun scripts/bench/vetting-page.ts [--quick]`
 *
 * The orchestrator runs in the bench's own process, and Chromium is asked over its debugging pipe:
 * a change's way is from the orchestrator's memory to the row, and back to the bench.
 */
import type { Browser, CDPSession, Page } from "playwright-core";
import { testLoop } from "../../test/support/http-server.ts";
import { addCrowd, logIn, openPage, startBrowser } from "../../test/support/vetting-page.ts";
import { startVettingServer, type VettingServer } from "../../test/support/vetting-server.ts";
import { ensureDependencies, ensureSystemPackages } from "../setup.ts";
import { runScript, withStep } from "../terminal.ts";
import { formatSpread } from "./rounds.ts";

export interface PageMeasures {
  readonly hosts: number;
  /** Bytes of the page and its parts, as they are in the answers' bodies. */
  readonly bytes: number;
  /** Milliseconds from the navigation to the last row, with a cookie and without a cache. */
  readonly loads: readonly number[];
  /** Milliseconds from a change at the orchestrator to its row. */
  readonly updates: readonly number[];
  readonly crowd: {
    /** Changes that were told, of as many runs in turn, and how many a second. */
    readonly changes: number;
    readonly perSecond: number;
    /** Milliseconds of the browser's main thread for each change. */
    readonly costs: readonly number[];
    /** Milliseconds: the longest that the main thread was busy without a pause. */
    readonly longest: number;
  };
}

interface Place {
  readonly server: VettingServer;
  readonly page: Page;
  /** @param time milliseconds of `performance.now()`, of the event loop's timer */
  readonly until: (time: number) => Promise<void>;
  /** Runs that wait for their hosts. */
  readonly runs: readonly { readonly run: number; readonly mac: string }[];
}

/** With patience, in milliseconds: a machine that has other work is slow. */
const look = { scheme: "light", width: 1280, patience: 120_000 } as const;
/** Changes a second: what a thousand agents tell that heartbeat every ten seconds. */
const PACE = 100;

/** One fleet for all measures; each round loads the page anew. */
export async function measurePage(options: {
  readonly hosts: number;
  readonly quick: boolean;
}): Promise<PageMeasures> {
  const { hosts, quick } = options;
  await ensureDependencies();
  await ensureSystemPackages(["browser"], "the bench of the page");
  await using server = startVettingServer();
  await server.putSpec({ name: "r1" });
  await addCrowd(server, hosts);
  const browser = await startBrowser();
  try {
    return await measureIn(browser, server, { hosts, rounds: quick ? 3 : 7, quick });
  } finally {
    await browser.close();
  }
}

async function measureIn(
  browser: Browser,
  server: VettingServer,
  { hosts, rounds, quick }: { readonly hosts: number; readonly rounds: number; quick: boolean },
): Promise<PageMeasures> {
  const { page, context } = await openPage(browser, server, look);
  await logIn(page);
  const devTools = await context.newCDPSession(page);
  await devTools.send("Network.setCacheDisabled", { cacheDisabled: true });
  const runs = server.orchestrator.liveRuns.map(({ run, mac }) => ({ run, mac }));
  using loop = testLoop();
  const until = (time: number) =>
    new Promise<void>((resolve) => {
      loop.wakeAfter(Math.max(0, time - performance.now()), resolve);
    });
  const place = { server, page, runs, until };
  const loads: number[] = [];
  for (let round = 0; round < rounds; round += 1) loads.push(await load(page, hosts));
  const updates: number[] = [];
  for (let turn = 0; turn < rounds * 5; turn += 1) updates.push(await update(place, turn));
  await devTools.send("Performance.enable");
  const changes = PACE * (quick ? 2 : 5);
  const costs: number[] = [];
  let longest = 0;
  for (let round = 0; round < rounds; round += 1) {
    const taken = await crowd(place, devTools, changes);
    costs.push(taken.cost);
    longest = Math.max(longest, taken.longest);
  }
  const bytes = await bytesOf(page, server.http.server.url);
  return { hosts, bytes, loads, updates, crowd: { changes, perSecond: PACE, costs, longest } };
}

/** @returns milliseconds, by the page's own clock */
async function load(page: Page, hosts: number): Promise<number> {
  await page.reload({ waitUntil: "commit" });
  return await page.evaluate(
    `new Promise((resolve) => {
      const look = () =>
        document.querySelectorAll("tr[data-row]").length >= ${hosts}
          ? resolve(performance.now())
          : requestAnimationFrame(look);
      look();
    })`,
  );
}

function tell({ server, runs }: Place, turn: number, progress: number): string {
  const { run, mac } = runs[turn % runs.length] ?? { run: 0, mac: "" };
  const activity = { kind: "stage", stage: "CPUStress", progress } as const;
  server.orchestrator.setPresence(run, { activity, dropped: 0 });
  return mac;
}

/** Resolves when the row of a host says something. */
const seen = (mac: string, words: string) =>
  `new Promise((resolve) => {
    const row = 'tr[data-row="${mac}"]';
    const look = () => document.querySelector(row).textContent.includes("${words}");
    const observer = new MutationObserver(() => look() && (observer.disconnect(), resolve()));
    observer.observe(document.querySelector("tbody"), { childList: true, subtree: true });
    if (look()) resolve();
  })`;

async function update(place: Place, turn: number): Promise<number> {
  const { mac } = place.runs[turn % place.runs.length] ?? { mac: "" };
  const progress = (1 + (turn % 98)) / 100;
  const shown = place.page.evaluate(seen(mac, `, ${Math.floor(progress * 100)} %`));
  // The observer stands when the page has answered this.
  await place.page.evaluate("0");
  const begin = performance.now();
  tell(place, turn, progress);
  await shown;
  return performance.now() - begin;
}

/** So many changes at their pace; the last one is waited for. */
async function crowd(
  place: Place,
  devTools: CDPSession,
  changes: number,
): Promise<{ cost: number; longest: number }> {
  const { page } = place;
  await page.evaluate(
    `globalThis.longest = 0;
     globalThis.watch ??= new PerformanceObserver((list) => {
       for (const { duration } of list.getEntries()) longest = Math.max(longest, duration);
     });
     watch.observe({ type: "longtask" });`,
  );
  const before = await busy(devTools);
  const begin = performance.now();
  for (let change = 0; change < changes; change += 1) {
    await place.until(begin + (change * 1_000) / PACE);
    tell(place, change, Math.random());
  }
  const mac = tell(place, changes, 0.995);
  await page.evaluate(seen(mac, ", 99 %"));
  const cost = ((await busy(devTools)) - before) / changes;
  return { cost, longest: Number(await page.evaluate("longest")) };
}

/** Milliseconds that the main thread has worked. */
async function busy(devTools: CDPSession): Promise<number> {
  const { metrics } = await devTools.send("Performance.getMetrics");
  return 1_000 * (metrics.find(({ name }) => name === "TaskDuration")?.value ?? Number.NaN);
}

async function bytesOf(page: Page, url: string): Promise<number> {
  const names = await page.evaluate<string[]>(
    `performance.getEntriesByType("resource").map(({ name }) => name)`,
  );
  const parts = names.filter((name) => name.includes("/vetting/page/"));
  let bytes = 0;
  for (const part of [`${url}/vetting`, ...parts]) {
    const answer = await page.context().request.get(part);
    bytes += (await answer.body()).length;
  }
  return bytes;
}

/** A table for people. */
export function pageTable({ hosts, bytes, loads, updates, crowd: told }: PageMeasures): string {
  return [
    `| page, ${hosts} hosts | |`,
    "|---|---|",
    `| bytes of the page and its parts | ${bytes} |`,
    `| load, to the last row, ms | ${formatSpread(loads, 0)} |`,
    `| a change, to its row, ms | ${formatSpread(updates, 1)} |`,
    `| main thread for a change, ${told.perSecond} a second, ms | ${formatSpread(told.costs, 2)} |`,
    `| the longest task meanwhile, ms | ${told.longest.toFixed(0)} |`,
  ].join("\n");
}

async function main(): Promise<number> {
  const quick = process.argv.includes("--quick");
  const measured = await withStep("the page", () => measurePage({ hosts: 1_000, quick }));
  console.log(pageTable(measured));
  return 0;
}

if (import.meta.main) await runScript(main);
