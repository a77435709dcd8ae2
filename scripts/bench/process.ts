/**
 * `run bench process`: from SIGKILL to the first instruction of the next child, for hostler and
 * its peers, in one run, interleaved. The method and its rules stand in the report's legend.
 */
import { chmodSync, mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { build } from "../build.ts";
import { runCommand } from "../command.ts";
import {
  ensureCachedNpmPackage,
  ensureDependencies,
  ensureSystemPackages,
  repositoryRoot,
} from "../setup.ts";
import { ScriptError, withStep } from "../terminal.ts";
import { startHarness, timeStart } from "./harness.ts";
import { describeMachine, type Machine } from "./machine.ts";
import { type Findings, measureLongGaps, measureShortGaps, warmUp } from "./measure.ts";
import { measureReexecutions, type ReexecutionFindings } from "./process-reexecution.ts";
import { fileOf, type Memory, memoryOf, workingThreadsOf } from "./process-status.ts";
import { chanceFrom, shuffle } from "./statistics.ts";
import {
  childVariable,
  type Files,
  listRows,
  type Row,
  type RunningDaemon,
  startDaemon,
  startSocket,
} from "./supervisors.ts";

const pm2Version = "7.0.4";

export interface ProcessBenchOptions {
  readonly quick: boolean;
  readonly seed: number;
  /** Another build of hostler, measured beside. */
  readonly against: string | undefined;
  /** Rows whose name holds one of these; the floor always. */
  readonly only: readonly string[];
}

/** hostler's own daemons. */
export interface DaemonFindings {
  readonly name: string;
  /** Milliseconds from its start to READY=1. */
  readonly ready: readonly number[];
  readonly memory: Memory | undefined;
}

export interface ProcessBenchResult {
  readonly machine: Machine;
  readonly seed: number;
  readonly rows: readonly Findings[];
  readonly daemons: readonly DaemonFindings[];
  readonly reexecutions: readonly ReexecutionFindings[];
}

/** Measures everything; at most ten minutes, with `quick` two. */
export async function benchProcess(options: ProcessBenchOptions): Promise<ProcessBenchResult> {
  if (process.getuid?.() !== 0) {
    throw new ScriptError("The bench needs root: real-time scheduling and a PID namespace.", {
      exitCode: 100,
    });
  }
  await ensureDependencies();
  await ensureSystemPackages(["bench"], "the bench");
  const folder = mkdtempSync(join(realpathSync(tmpdir()), "hostler-"));
  try {
    // One child is nobody's, and must reach its program and its socket.
    chmodSync(folder, 0o755);
    const files = await prepareFiles(folder, options.against);
    const rows = listRows(files).filter((row, index) => index === 0 || isWanted(row, options));
    return await measureAll(files, rows, options);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function isWanted({ name }: Row, { only }: ProcessBenchOptions): boolean {
  return only.length === 0 || only.some((part) => name.includes(part));
}

async function prepareFiles(folder: string, against: string | undefined): Promise<Files> {
  const pm2 = await ensureCachedNpmPackage("pm2", pm2Version);
  const { path } = await build({
    folder: join(repositoryRoot, "dist"),
    name: "hostler",
    faults: false,
  });
  // A build that somebody makes meanwhile replaces the file in dist.
  const hostler = join(folder, "hostler");
  await runCommand(["cp", path, hostler]);
  const compiled = ["child", "floor", "reaper", "harness"] as const;
  const sources = join(repositoryRoot, "scripts", "bench");
  for (const name of compiled) {
    await runCommand(["gcc", "-O2", "-o", join(folder, name), join(sources, `${name}.c`)]);
  }
  return {
    folder,
    child: join(folder, "child"),
    floor: join(folder, "floor"),
    reaper: join(folder, "reaper"),
    hostler,
    against: against === undefined ? undefined : resolve(against),
    pm2,
  };
}

/** The daemons run, warm and in their class, for as long as the stack stands. */
async function measureAll(
  files: Files,
  rows: readonly Row[],
  options: ProcessBenchOptions,
): Promise<ProcessBenchResult> {
  const { quick, seed } = options;
  const chance = chanceFrom(seed);
  const findings = rows.map(
    ({ name }): Findings => ({
      name,
      short: new Map(),
      long: new Map(),
      missed: 0,
      starts: [],
      memory: undefined,
    }),
  );
  const ready = await withStep("starts", () =>
    measureStarts(files, rows, { findings, count: quick ? 3 : 10, chance }),
  );
  const reexecutions = await withStep("re-executions", (step) =>
    measureReexecutions(files, { count: quick ? 3 : 10, step }),
  );
  await using stack = new AsyncDisposableStack();
  const sockets = rows.map(({ socket }) => socket);
  const harness = stack.use(await startHarness(join(files.folder, "harness"), sockets));
  const running = new Map<Row["daemons"][number], RunningDaemon>();
  for (const [index, row] of rows.entries()) {
    for (const daemon of row.daemons) {
      if (running.has(daemon)) continue;
      running.set(daemon, stack.use(await startDaemon(daemon, { files, socket: row.socket })));
    }
    await harness.awaitFirst(index, row.name);
  }
  const work = { rows, findings, harness, chance, quick };
  await withStep("warm-up", () => warmUp(work));
  for (const daemon of running.values()) await giveClass(daemon.processIds());
  await withStep("gaps of 20 ms", (step) => measureShortGaps(work, step));
  await withStep("gaps of 1.5 s", (step) => measureLongGaps(work, step));
  for (const [index, { memory }] of takeMemory(rows, running).entries()) {
    const found = findings[index];
    if (found !== undefined) found.memory = memory;
  }
  const own = [...running.values()].filter(({ daemon }) => daemon.argv.includes(files.hostler));
  for (const { processIds } of own) requireClass(processIds().filter(isHostler(files)));
  return {
    machine: await describeMachine(files.hostler, pm2Version),
    seed,
    rows: findings,
    reexecutions,
    daemons: own.map(({ daemon, processIds }) => {
      const name = daemon.argv.includes("agent") ? "agent" : "orchestrator";
      const memory = memoryOf(processIds().filter(isHostler(files)));
      return { name, ready: ready.get(name) ?? [], memory };
    }),
  };
}

const isHostler = (files: Files) => (processId: number) => fileOf(processId) === files.hostler;

/** What stands between an agent and its namespace (unshare, a reaper) is no part of hostler. */
function takeMemory(rows: readonly Row[], running: ReadonlyMap<unknown, RunningDaemon>) {
  return rows.map(({ daemons }) => {
    const processIds = daemons.flatMap((daemon) => running.get(daemon)?.processIds() ?? []);
    const counted = processIds.filter((processId) => !isScaffold(processId));
    return { memory: memoryOf(counted) };
  });
}

const isScaffold = (processId: number) => /\/(unshare|reaper)$/.test(fileOf(processId) ?? "");

/**
 * The same class for every supervisor: SCHED_FIFO. Children stay SCHED_OTHER in every row, because
 * it is reset when a thread forks; the harness looks at each of them.
 */
async function giveClass(processIds: readonly number[]): Promise<void> {
  for (const { number } of processIds.flatMap(workingThreadsOf)) {
    const words = ["chrt", "--reset-on-fork", "--fifo", "--pid", "10"];
    await runCommand([...words, String(number)]);
  }
}

/** @throws ScriptError (1) naming a thread that would have made its row another one */
function requireClass(processIds: readonly number[]): void {
  const ordinary = processIds.flatMap(workingThreadsOf).filter(({ isRealTime }) => !isRealTime);
  if (ordinary.length === 0) return;
  const names = ordinary.map(({ name, number }) => `${name} (${number})`).join(", ");
  throw new ScriptError(`These threads of supervisors were not in SCHED_FIFO: ${names}`, {
    exitCode: 1,
  });
}

/** Starts each supervision alone, some times: until its child runs, or hostler says READY=1. */
async function measureStarts(
  files: Files,
  rows: readonly Row[],
  options: { findings: readonly Findings[]; count: number; chance: () => number },
): Promise<ReadonlyMap<string, readonly number[]>> {
  const { findings, count, chance } = options;
  const ready = new Map<string, number[]>([
    ["orchestrator", []],
    ["agent", []],
  ]);
  const socket = startSocket(files);
  const orchestrator = rows.find(({ name }) => name === "hostler")?.start ?? [];
  const agent = [files.hostler, "process", "agent", "--socket", join(files.folder, "a.socket")];
  const time = (argv: readonly string[], variable: string) =>
    timeStart(join(files.folder, "harness"), { argv, variable, socket });
  const jobs = [
    ...rows.flatMap(({ start, daemons }, index) => {
      if (start === undefined) return [];
      const stop = daemons[0]?.stop;
      return [{ argv: start, variable: childVariable, into: findings[index]?.starts, stop }];
    }),
    ...(orchestrator.length === 0
      ? []
      : [
          { argv: orchestrator, variable: "NOTIFY_SOCKET", into: ready.get("orchestrator") },
          { argv: agent, variable: "NOTIFY_SOCKET", into: ready.get("agent") },
        ]),
  ];
  for (let round = 0; round < count; round += 1) {
    for (const { argv, variable, into, ...more } of shuffle(jobs, chance)) {
      const stop = "stop" in more ? more.stop : undefined;
      // A start of pm2 takes seconds, and its end as well.
      if (stop !== undefined && round >= 3) continue;
      const taken = await time(argv, variable);
      if (taken !== undefined) into?.push(taken);
      if (stop !== undefined) await runCommand(stop);
    }
  }
  return ready;
}
