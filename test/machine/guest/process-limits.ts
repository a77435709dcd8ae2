/** Limits of processes on a host with cgroup v2: what the kernel does at each of them. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { ProcessDetail, ProcessSummary } from "../../../src/process/protocol.ts";
import { type Program, runProgram, startProgram } from "../../support/program.ts";
import { waitFor } from "../../support/wait-for.ts";
import type { LimitCase } from "./process-limit-cases.ts";
import { hostlerPath, patienceMilliseconds } from "./stage.ts";
import { type Case, requireEqual, tellCases } from "./tell.ts";

/** Of those that name it, and of those that name none. */
const parent = "/sys/fs/cgroup/processes";
const automatic = "/sys/fs/cgroup/hostler";
const unnamed = ["all", "away"];
const parentOf = (name: string) => (unnamed.includes(name) ? automatic : parent);
const socket = "/run/process.sock";
const agentSocket = "/run/agent.sock";
const file = "/run/process.toml";

let orchestrator: Program | undefined;
let partition: Program | undefined;

const spend = 'command = ["/bin/sh", "-c", "while :; do :; done"]';
/** Takes memory, once, when it is told to by a file. */
const take = `command = ["/bin/sh", "-c", '''
  while [ ! -e /run/take ]; do usleep 10000; done
  rm /run/take
  x=$(head -c 64m /dev/zero | tr "\\\\0" x)
  exec sleep 100000''']`;
/**
 * Somebody below it starts more than it may have, until it is refused and ends of that; when it is
 * told to by a file, because a process that has just been started is not limited yet.
 */
const fork = `command = ["/bin/sh", "-c", '''
  while [ ! -e /run/fork ]; do usleep 10000; done
  (while :; do sleep 100000 & done) 2>/dev/null
  exec sleep 100000''']`;
const sleep = 'command = ["/bin/sleep", "100000"]';

const table = (name: string, lines: string, resources: string) =>
  `[process.${name}]\n${lines}\nbackoff = "none"\n` +
  (unnamed.includes(name) ? "" : `cgroup = "${parent}"\n`) +
  (resources === "" ? "" : `resources = {${resources}}\n`);

const limits =
  'memory_max = "64MiB", memory_high = "max", cpu_max = 0.25, cpu_weight = 50, pids_max = 40, ' +
  "io_weight = 30";

function configure(change: (name: string) => string | undefined = () => undefined): void {
  const of = (name: string, usual: string) => change(name) ?? usual;
  const away = `[partition.away]\nsocket = "${agentSocket}"\n`;
  const tables = [
    table("all", sleep, of("all", limits)),
    table("away", `${sleep}\npartition = "away"`, of("away", limits)),
    table("memory", take, 'memory_max = "32MiB"'),
    table("spender", spend, of("spender", "cpu_max = 0.2")),
    table("family", fork, "pids_max = 5"),
  ];
  writeFileSync(file, `${away}${tables.join("")}`);
}

async function run(...words: string[]) {
  return await runProgram([hostlerPath, "process", ...words], {
    deadlineMilliseconds: patienceMilliseconds,
  });
}

async function ask(...words: string[]): Promise<string> {
  const [verb = "", ...rest] = words;
  const result = await run(verb, "--control-socket", socket, ...rest);
  if (result.exitCode === 0) return result.stdout;
  throw new Error(`${words.join(" ")}: ${result.stderr}\n${orchestrator?.output.stderr}`);
}

async function start(): Promise<void> {
  const words = ["process", "orchestrator", "--config", file, "--control-socket", socket, "-v"];
  orchestrator = startProgram([hostlerPath, ...words]);
  await waitFor(
    "its socket",
    async () => (await run("list", "--control-socket", socket)).exitCode === 0,
    patienceMilliseconds,
  );
  await ask("wait", "all", "--timeout", "60s");
}

const detail = async (name: string) =>
  JSON.parse(await ask("show", name, "--json")) as ProcessDetail;
const summaryOf = async (name: string): Promise<ProcessSummary> => (await detail(name)).summary;
const groupOf = async (name: string) =>
  join(parentOf(name), (await summaryOf(name)).invocation ?? "no invocation");
const read = (group: string, name: string) => readFileSync(join(group, name), "utf8").trim();
const numberIn = (group: string, name: string, word: string) =>
  Number(new RegExp(`^${word} (\\d+)$`, "m").exec(read(group, name))?.[1]);

const childrenOf = (parentId: number) =>
  readdirSync("/proc").flatMap((name) => {
    const status =
      existsSync(`/proc/${name}/status`) && readFileSync(`/proc/${name}/status`, "utf8");
    return status !== false && status.includes(`\nPPid:\t${parentId}\n`) ? [Number(name)] : [];
  });

const standing = (group: string) =>
  ["memory.max", "memory.high", "cpu.max", "cpu.weight", "pids.max", "io.weight"].map((name) =>
    existsSync(join(group, name)) ? read(group, name) : "none",
  );
const wanted = ["67108864", "max", "25000 100000", "50", "40", "default 30"];

const cases: Readonly<Record<LimitCase, Case>> = {
  "the host can keep them, says check": async () => {
    configure();
    const { exitCode, stderr } = await run("check", file);
    return requireEqual([exitCode, stderr.includes("Expected the controller")], [0, false]);
  },

  "they stand in the cgroup of each, here and behind an agent": async () => {
    const agent = [hostlerPath, "process", "agent", "--socket", agentSocket];
    partition = startProgram(["unshare", "-f", "-p", "-m", "-n", "-i", "--mount-proc", ...agent]);
    await partition.said(/listening at/, patienceMilliseconds);
    await start();
    for (const name of ["away", "memory", "spender", "family"]) {
      await ask("wait", name, "--timeout", "60s");
    }
    requireEqual(standing(await groupOf("all")), wanted);
    return requireEqual(standing(await groupOf("away")), wanted);
  },

  "memory over its limit ends the process, and it is restarted within the same": async () => {
    const group = await groupOf("memory");
    const before = await summaryOf("memory");
    requireEqual(read(group, "memory.max"), String(32 * 1024 ** 2));
    writeFileSync("/run/take", "");
    const after = await waitFor(
      "its restart",
      async () => {
        const now = await summaryOf("memory");
        return now.restarts > before.restarts && now.phase === "ready" && now;
      },
      patienceMilliseconds,
    );
    const next = await groupOf("memory");
    requireEqual([next === group, read(next, "memory.max")], [false, String(32 * 1024 ** 2)]);
    return JSON.stringify(after.last_exit);
  },

  "a processor's time is held back": async () => {
    const group = await groupOf("spender");
    const held = await waitFor(
      "time that it did not get",
      () => numberIn(group, "cpu.stat", "throttled_usec") > 100_000,
      patienceMilliseconds,
    ).catch((error: Error) => {
      error.message += read(group, "cpu.stat");
      throw error;
    });
    requireEqual(held, true);
    return `${numberIn(group, "cpu.stat", "throttled_usec")} us`;
  },

  "one more process than it may have is refused by the kernel": async () => {
    const group = await groupOf("family");
    writeFileSync("/run/fork", "");
    await waitFor(
      "a refusal",
      () => numberIn(group, "pids.events", "max") > 0,
      patienceMilliseconds,
    );
    requireEqual(Number(read(group, "pids.current")) <= 5, true);
    return `${numberIn(group, "pids.events", "max")} refused, ${read(group, "pids.current")} there`;
  },

  "a reload changes them while it runs, and says from what to what": async () => {
    const before = await summaryOf("all");
    const changed = limits.replace("64MiB", "128MiB").replace("0.25", "1.5");
    configure((name) => (name === "all" || name === "away" ? changed : undefined));
    const told = await ask("reload", "--wait");
    requireEqual(told.includes("changed while it runs: all (resources), away (resources)"), true);
    const now = ["134217728", "max", "150000 100000", "50", "40", "default 30"];
    requireEqual(standing(await groupOf("all")), now);
    requireEqual(standing(await groupOf("away")), now);
    await orchestrator?.said(/all: memory\.max: 67108864 → 134217728/, patienceMilliseconds);
    return requireEqual((await summaryOf("all")).pid, before.pid);
  },

  "what is not said any more is taken back": async () => {
    configure((name) => (name === "all" ? "pids_max = 41" : undefined));
    await ask("reload", "--wait");
    const now = ["max", "max", "max 100000", "100", "41", "default 100"];
    return requireEqual(standing(await groupOf("all")), now);
  },

  "an orchestrator that was killed is followed by one that has them as the file says": async () => {
    const before = await summaryOf("spender");
    await waitFor("its holder", async () => {
      const about = JSON.parse(await ask("about", "--json")) as { holder: { kept: number } };
      return about.holder.kept >= 25;
    });
    configure((name) => (name === "spender" ? "cpu_max = 0.3" : undefined));
    orchestrator?.kill("SIGKILL");
    await orchestrator?.ended();
    await start();
    requireEqual((await summaryOf("spender")).pid, before.pid);
    return requireEqual(read(await groupOf("spender"), "cpu.max"), "30000 100000");
  },

  "a start whose limits nobody may set is refused, with the reason; an optional one goes on":
    async () => {
      // A cgroup with a process in it gives its children no controller.
      const busy = "/sys/fs/cgroup/busy";
      mkdirSync(busy, { recursive: true });
      await using stranger = startProgram(["/bin/sleep", "100000"]);
      writeFileSync(join(busy, "cgroup.procs"), String(stranger.processId));
      configure();
      const more = (name: string, optional: string) =>
        `[process.${name}]\n${sleep}\ncgroup = "${busy}"\n` +
        `resources = {memory_max = "64MiB"${optional}}\n`;
      const text = readFileSync(file, "utf8");
      writeFileSync(
        file,
        `${text}${more("never", "")}${more("maybe", ', optional = ["memory_max"]')}`,
      );
      await ask("reload", "--wait");
      await ask("wait", "maybe", "--timeout", "60s");
      const never = await waitFor(
        "its refusal",
        async () => {
          const found = await detail("never");
          return found.history.find(({ what }) => what === "start-refused");
        },
        patienceMilliseconds,
      );
      await orchestrator?.said(/maybe: goes on without: resources\.memory_max/);
      requireEqual(never.detail?.startsWith("resources.memory_max (67108864) is refused: "), true);
      configure();
      await ask("reload", "--wait");
      return never.detail ?? "";
    },

  "all is stopped, and no cgroup is left": async () => {
    orchestrator?.kill("SIGTERM");
    const ended = await orchestrator?.ended(patienceMilliseconds);
    requireEqual(ended?.exitCode, 0);
    const left = [parent, automatic].flatMap((path) =>
      existsSync(path) ? readdirSync(path, { withFileTypes: true }) : [],
    );
    return requireEqual(left.filter((one) => one.isDirectory()).length, 0);
  },
};

const failures = await tellCases(cases);
if (failures > 0) console.log(orchestrator?.output.stderr ?? "");
await orchestrator?.[Symbol.asyncDispose]();
if (partition !== undefined) {
  // The agent is the first process of its namespace, and unshare(1) ends with it.
  for (const child of childrenOf(partition.processId)) process.kill(child, "SIGKILL");
  await partition.ended();
}
process.exitCode = failures === 0 ? 0 : 1;
