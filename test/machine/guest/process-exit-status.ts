/**
 * The exit-status suite, as it runs in a guest. Whether the kernel itself tells how somebody
 * else's child ended is what HOSTLER_TELLER says: "kernel" (PIDFD_GET_INFO with exit, Linux 6.15)
 * or "agent" (an older one: the agent's notice, and "unknown" when no agent is left to send it).
 */
import { existsSync, readFileSync } from "node:fs";
import { release } from "node:os";
import { livingGroupMembers } from "../../../src/process/perform/process-table.ts";
import type { WireEnding } from "../../../src/process/protocol.ts";
import { runProgram } from "../../support/program.ts";
import { suspend } from "../../support/suspend.ts";
import { waitFor } from "../../support/wait-for.ts";
import type { ExitStatusCase } from "./exit-status-cases.ts";
import { hostlerPath, patienceMilliseconds, Stage } from "./stage.ts";
import { type Case, requireEqual, tellCases } from "./tell.ts";

const teller = process.env["HOSTLER_TELLER"] === "kernel" ? "kernel" : "agent";
/** Whether this kernel writes core dumps at all. */
const dumps = process.env["HOSTLER_CORE"] === "yes";
const cgroup = "/sys/fs/cgroup/hostler";

/** Each of these ends once, by itself, and is started by its case. */
const oneShots = {
  seven: `command = ["/bin/sh", "-c", "exit 7"]`,
  terminated: `command = ["/bin/sh", "-c", "kill -TERM $$"]`,
  killed: `command = ["/bin/sh", "-c", "kill -KILL $$"]`,
  dumped: `command = ["/bin/sh", "-c", "kill -SEGV $$"]
working_directory = "/tmp"
limits = {core = "unlimited"}`,
  // The user probe and its groups stand in the guest's /etc.
  user: `command = ["/bin/sh", "-c", 'test "$(id -u) $(id -g) $(id -G)" = "42 43 43 44" && exit 42']
user = "probe"`,
} as const;

const lasting = `command = ["/bin/sleep", "100000"]
restart = "always"
backoff = "none"`;

function configure(): string {
  const tables = Object.entries(oneShots).flatMap(([name, keys]) =>
    ["", 'partition = "qm"\n'].map((partition) => {
      const full = partition === "" ? `local-${name}` : `agent-${name}`;
      return `[process.${full}]\n${partition}restart = "never"\nautostart = false\n${keys}\n`;
    }),
  );
  const family = `command = ["/bin/sh", "-c", "setsid sleep 100000 & exec sleep 100000"]
restart = "always"
backoff = "none"
autostart = false
cgroup = "${cgroup}"`;
  const stubborn = `partition = "qm"
command = ["/bin/sh", "-c", 'trap "" TERM; sleep 100000 & wait']
autostart = false
stop_grace = "200ms"`;
  return [
    ...tables,
    `[process.stubborn]\n${stubborn}\n`,
    `[process.family]\n${family}\n`,
    `[process.media]\npartition = "qm"\n${lasting}\n`,
    `[process.brake]\n${lasting}\n`,
  ].join("\n");
}

const exited = (status: number): WireEnding => ({ kind: "exited", status });
const signalled = (signal: number, dumped = false): WireEnding => ({
  kind: "signalled",
  signal,
  core_dumped: dumped,
});

/** After the agent's death: what the kernel tells, or "unknown" with the reason. */
function requireUntold(ending: WireEnding | null, told: WireEnding): string {
  if (teller === "kernel") return requireEqual(ending, told);
  if (ending?.kind !== "unknown" || !ending.reason.includes("Linux 6.15")) {
    throw new Error(`expected unknown and why, received ${JSON.stringify(ending)}`);
  }
  return JSON.stringify(ending);
}

let stage: Stage | undefined;

function onStage(): Stage {
  if (stage === undefined) throw new Error("the daemons did not start");
  return stage;
}

const ends = (name: string, wanted: WireEnding) => async () =>
  requireEqual(await onStage().endingOf(name), wanted);

/** Kills a process by signal and waits until another instance of it runs. */
async function killAndSee(name: string): Promise<{ ending: WireEnding | null; pid: number }> {
  const before = await onStage().running(name);
  process.kill(before.pid, "SIGKILL");
  const after = await onStage().until(
    name,
    "run again, and its ending be told",
    ({ pid, restarts, last_exit: exit }) =>
      pid !== null && pid !== before.pid && restarts > before.restarts && exit !== null,
  );
  return { ending: after.last_exit, pid: after.pid ?? 0 };
}

async function killsFamily(): Promise<string> {
  await onStage().start("family");
  const { invocation } = await onStage().running("family");
  const members = () =>
    readFileSync(`${cgroup}/${invocation}/cgroup.procs`, "utf8").trim().split("\n").map(Number);
  const old = await waitFor("both processes", () => members().length === 2 && members());
  const { ending } = await killAndSee("family");
  requireEqual(ending, signalled(9));
  const alive = old.filter((processId) => existsSync(`/proc/${processId}`));
  requireEqual(alive, []);
  requireEqual(existsSync(`${cgroup}/${invocation}`), false);
  return `${old.length} processes gone, and their cgroup`;
}

/** Below Linux 6.9 no pidfd stands for a group: its number does. */
async function stopsStubborn(): Promise<string> {
  await onStage().start("stubborn");
  const { pid } = await onStage().running("stubborn");
  await waitFor("both processes", () => livingGroupMembers(pid).length === 2);
  await onStage().stop("stubborn");
  const { last_exit: ending } = await onStage().until(
    "stubborn",
    "be stopped",
    (summary) => summary.pid === null && summary.last_exit !== null,
  );
  requireEqual(livingGroupMembers(pid), []);
  return requireEqual(ending, signalled(9));
}

/** Filled by the case that kills the agent, for those that come after it. */
const agentDeath = { agent: 0, connections: 0, media: 0 };

async function killAgent(): Promise<string> {
  const [media, brake] = [await onStage().running("media"), await onStage().running("brake")];
  const { connections } = onStage();
  const agent = await onStage().agent();
  Object.assign(agentDeath, { agent, connections, media: media.pid });
  process.kill(agent, "SIGKILL");
  const away = () => onStage().orchestrator.output.stderr.includes("partition qm is away");
  await waitFor("the orchestrator to notice", away, patienceMilliseconds);
  const now = [await onStage().running("media"), await onStage().running("brake")];
  const identity = ({ pid, invocation }: { pid: number; invocation: string | null }) =>
    `${pid} ${invocation}`;
  return requireEqual(now.map(identity), [media, brake].map(identity));
}

/** By another signal than before, so that an ending which is listed still is not taken for it. */
async function dieWithoutAgent(): Promise<string> {
  const before = await onStage().running("media");
  process.kill(before.pid, "SIGTERM");
  const told = await onStage().until(
    "media",
    "be dead, and its ending told",
    ({ pid, last_exit: exit }) =>
      pid !== before.pid && exit !== null && !Bun.deepEquals(exit, before.last_exit),
  );
  return requireUntold(told.last_exit, signalled(15));
}

async function runAgain(): Promise<string> {
  await onStage().agentAfter(agentDeath.agent, agentDeath.connections);
  const { pid, restarts } = await onStage().running("media");
  if (pid === agentDeath.media) throw new Error(`the dead process ${pid} is listed`);
  const { ending } = await killAndSee("media");
  requireEqual(ending, signalled(9));
  return `process ${pid} after ${restarts} restarts; its own end is told again`;
}

/** The agent cannot tell what it has not noticed. */
async function dieBeforeNotice(): Promise<string> {
  const before = await onStage().running("media");
  const { connections } = onStage();
  const agent = await onStage().agent();
  suspend(agent);
  process.kill(before.pid, "SIGHUP");
  await onStage().until("media", "be dead", ({ pid }) => pid !== before.pid);
  process.kill(agent, "SIGKILL");
  await onStage().agentAfter(agent, connections);
  const after = await onStage().running("media");
  return requireUntold(after.last_exit, signalled(1));
}

async function askDoctor(): Promise<string> {
  const { exitCode, stdout } = await runProgram([hostlerPath, "doctor", "process", "--json"], {
    deadlineMilliseconds: patienceMilliseconds,
  });
  const advice = JSON.parse(stdout) as { check: string; status: string; mend: string | null }[];
  const line = advice.find(({ check }) => check === "exit_information");
  requireEqual(line?.status, teller === "kernel" ? "ok" : "warning");
  const mendsKernel = line?.mend?.includes("Linux 6.15") === true;
  requireEqual(mendsKernel, teller === "agent");
  requireEqual(exitCode, 0);
  for (const { check, status, mend } of advice) {
    if (status !== "ok") console.log(`HOSTLER-NOTE doctor: ${check} ${status}: ${mend}`);
  }
  return JSON.stringify(line);
}

async function stopAll(): Promise<string> {
  const pids = (await onStage().list()).flatMap(({ pid }) => (pid === null ? [] : [pid]));
  onStage().orchestrator.kill("SIGTERM");
  const { exitCode } = await onStage().orchestrator.ended(patienceMilliseconds);
  requireEqual(exitCode, 0);
  requireEqual(
    pids.filter((processId) => existsSync(`/proc/${processId}`)),
    [],
  );
  return `${pids.length} processes stopped, exit code 0`;
}

const stories: Readonly<Record<ExitStatusCase, Case>> = {
  "the kernel is the one that was meant": async () =>
    requireEqual(release(), process.env["HOSTLER_RELEASE"]),
  "the daemons start": async () => {
    stage = await Stage.open(configure());
    return `${(await stage.list()).length} processes`;
  },
  "local: exit 7": ends("local-seven", exited(7)),
  "local: SIGTERM": ends("local-terminated", signalled(15)),
  "local: SIGKILL": ends("local-killed", signalled(9)),
  "local: SIGSEGV, and whether a core was dumped": ends("local-dumped", signalled(11, dumps)),
  "local: the launcher sets user and groups": ends("local-user", exited(42)),
  "local: a cgroup's rest is killed before the restart": killsFamily,
  "agent: exit 7": ends("agent-seven", exited(7)),
  "agent: SIGTERM": ends("agent-terminated", signalled(15)),
  "agent: SIGKILL": ends("agent-killed", signalled(9)),
  "agent: SIGSEGV, and whether a core was dumped": ends("agent-dumped", signalled(11, dumps)),
  "agent: the launcher sets user and groups": ends("agent-user", exited(42)),
  "agent: killed, it is restarted and its ending told": async () =>
    requireEqual((await killAndSee("media")).ending, signalled(9)),
  "agent: what ignores SIGTERM is killed with its whole group": stopsStubborn,
  "agent killed: the child is not disturbed": killAgent,
  "agent killed: the child dies later": dieWithoutAgent,
  "agent killed: it is replaced, and the child restarted through the new one": runAgain,
  "agent stopped, the child dies, the agent killed": dieBeforeNotice,
  "doctor names what the kernel lacks": askDoctor,
  "SIGTERM to the orchestrator stops all": stopAll,
};

const failures = await tellCases(stories);
if (failures > 0) console.log(stage?.diaries ?? "");
await stage?.[Symbol.asyncDispose]();
process.exitCode = failures === 0 ? 0 : 1;
