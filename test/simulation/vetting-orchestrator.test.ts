/** A rack from a seed: no answer is lost, nothing untested passes, no word counts twice. */
import { expect, test } from "bun:test";
import { ProblemError } from "../../src/http/problem.ts";
import type { RunInput } from "../../src/vetting/orchestrator/lifecycle-state.ts";
import type { RunState } from "../../src/vetting/protocol.ts";
import { SeededChance } from "../support/chance.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import {
  checkRun,
  InvariantBroken,
  nextMoment,
  SimulatedHost,
  SimulatedSite,
  simulatedSpec,
  type Told,
  type Trouble,
} from "../support/vetting-orchestrator/simulation.ts";

const everything = process.env["HOSTLER_TEST_ALL"] === "1";
const chosen = process.env["SIMULATION_SEED"];
const seeds =
  chosen === undefined
    ? Array.from({ length: everything ? 200 : 8 }, (_value, index) => index + 1)
    : [Number.parseInt(chosen, 10)];

const trouble: Trouble = {
  ...{ lost: 0.1, doubled: 0.1, late: 0.05, agentRestart: 0.02, hostDeath: 0.01 },
  ...{ orchestratorRestart: 0.01, fullDisk: 0.02 },
};
const calm: Trouble = {
  ...{ lost: 0, doubled: 0, late: 0, agentRestart: 0, hostDeath: 0 },
  ...{ orchestratorRestart: 0, fullDisk: 0 },
};

/** An operator who does what can be done to a run, some of it at the wrong time. */
async function direct(site: SimulatedSite, run: number): Promise<void> {
  const { chance, orchestrator } = site;
  const who = "operator alice";
  const { failure } = orchestrator.entry(run).run;
  const what = failure?.kind === "stage" ? failure.stage : "SpecValidate";
  const retry = { kind: "retry", who, stage: null, reason: "" } as const;
  const override = { kind: "override", who, what, reason: "so be it" } as const;
  const word: RunInput = chance.pick([
    { ...retry, wipe: [], mayWipe: false },
    { ...retry, wipe: ["S1"], mayWipe: true },
    { ...retry, wipe: ["S1"], mayWipe: false },
    override,
    override,
    override,
    { kind: "release", who, after: "shutdown", reason: "" },
    { kind: "cancel", who, reason: "" },
  ]);
  const waiting = orchestrator.post(run, word);
  waiting.catch(() => {});
  await site.pass(20);
  try {
    await Promise.race([waiting, nextMoment()]);
  } catch (error) {
    if (!(error instanceof ProblemError)) throw error;
  }
}

async function simulate(seed: number, folder: string, fault?: "forgets"): Promise<Told> {
  const site = new SimulatedSite(folder, new SeededChance(seed), fault);
  const macs = ["52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"];
  const put = site.orchestrator.putSpec(simulatedSpec, undefined);
  await site.pass(20);
  await put;
  const hosts = macs.map((mac) => new SimulatedHost(site, mac, trouble));
  const runs = new Map<string, number>();
  for (const mac of macs) {
    const added = site.orchestrator.addHost({ mac, spec: "rack" });
    const started = site.orchestrator.startRun(mac, {
      ...{ spec: undefined, who: "operator alice", window: 30 * 86_400_000 },
    });
    await site.pass(20);
    await added;
    runs.set(mac, (await started).run);
  }
  const isOver = () => [...runs.values()].every((run) => isEnded(site, run));
  for (let moment = 0; moment < 4_000 && !isOver(); moment += 1) {
    const isCalm = moment > 1_500;
    if (isCalm) for (const host of hosts) host.calm(calm);
    site.isFull = !isCalm && site.chance.happens(trouble.fullDisk);
    if (!isCalm && site.chance.happens(trouble.orchestratorRestart)) site.restart();
    const host = site.chance.pick(hosts);
    await host.step();
    const run = runs.get(host.mac) ?? 0;
    if (holds(site, run) && site.chance.happens(0.3)) await direct(site, run);
    await site.pass(site.chance.below(2_000));
    if (moment % 50 === 0) checkAll(site, hosts, runs);
  }
  checkAll(site, hosts, runs);
  site.restart();
  checkAll(site, hosts, runs);
  const ended: Record<string, number> = {};
  for (const run of runs.values()) {
    const { verdict } = site.orchestrator.entry(run).run;
    expect([seed, run, verdict === null]).toEqual([seed, run, false]);
    ended[verdict ?? ""] = (ended[verdict ?? ""] ?? 0) + 1;
  }
  const sum = (count: (host: SimulatedHost) => number) =>
    hosts.reduce((total, host) => total + count(host), 0);
  const told = {
    ...{ results: sum(({ answered }) => answered.length), lost: sum(({ lost }) => lost), ended },
    ...{ doubled: sum(({ doubled }) => doubled), deaths: sum(({ deaths }) => deaths) },
    ...{ restarts: site.restarts, refusedForRoom: site.refusedForRoom },
  };
  site.close();
  return told;
}

const stateOf = (site: SimulatedSite, run: number): RunState =>
  site.orchestrator.entry(run).run.state;
const holds = (site: SimulatedSite, run: number) => stateOf(site, run) === "FailedHolding";
const isEnded = (site: SimulatedSite, run: number) =>
  site.orchestrator.entry(run).run.verdict !== null;

function checkAll(
  site: SimulatedSite,
  hosts: readonly SimulatedHost[],
  runs: ReadonlyMap<string, number>,
): void {
  for (const host of hosts) {
    const run = runs.get(host.mac) ?? 0;
    site.isFull = false;
    checkRun(site, host, run);
    const { answers } = site.orchestrator.entry(run).run;
    for (const { result, next } of host.answered) {
      const kept = answers.find((answer) => answer.result === result);
      // One of an attempt that was over is answered by the state, and kept by nobody.
      if (kept !== undefined) expect(kept.next).toBe(next);
    }
    for (const times of host.taken.values()) expect(times).toBe(1);
    const permitted = site.orchestrator.records
      .events(run)
      .filter(({ message }) => /^retry Storage, giving up S1/.test(message)).length;
    expect(host.wipes.length).toBeLessThanOrEqual(permitted);
  }
}

test(`three hosts under trouble, ${seeds.length} seeds`, async () => {
  const results: Told[] = [];
  for (const seed of seeds) {
    using folder = temporaryFolder();
    results.push(await simulate(seed, folder.path));
  }
  if (chosen !== undefined) return;
  const total = (count: (one: Told) => number) => results.reduce((sum, one) => sum + count(one), 0);
  // The troubles do come, and what they are about does happen.
  const often = {
    results: total((one) => one.results),
    lost: total((one) => one.lost),
    doubled: total((one) => one.doubled),
    deaths: total((one) => one.deaths),
    restarts: total((one) => one.restarts),
  };
  for (const [what, count] of Object.entries(often)) {
    expect([what, count > seeds.length]).toEqual([what, true]);
  }
  expect(total((one) => one.refusedForRoom)).toBeGreaterThan(0);
  expect(total((one) => one.ended["warned"] ?? 0)).toBeGreaterThan(0);
}, 600_000);

test("an orchestrator that forgets what it has answered is noticed", async () => {
  const found: unknown[] = [];
  for (const seed of [1, 2, 3, 4, 5, 6]) {
    using folder = temporaryFolder();
    found.push(await simulate(seed, folder.path, "forgets").catch((error: unknown) => error));
  }
  expect(found.some((one) => one instanceof InvariantBroken)).toBe(true);
}, 120_000);

test("the same seed gives the same run", async () => {
  using first = temporaryFolder();
  using second = temporaryFolder();
  expect(await simulate(5, first.path)).toEqual(await simulate(5, second.path));
}, 120_000);
