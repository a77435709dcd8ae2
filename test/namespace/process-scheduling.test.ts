/** How processes are scheduled: from their start, while they run, and where it is refused. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { hostler } from "../support/binary.ts";
import { kept, killOrchestrator } from "../support/kept.ts";
import { lonelyChild } from "../support/lonely-child.ts";
import { startOrchestrator, type TestOrchestrator } from "../support/orchestrator.ts";
import { begin, bothPlaces, type Running } from "../support/orchestrator-partition.ts";
import { runProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const sleeper = 'command = ["sleep", "1000"]';

/** Threads of a process: nice value, class and priority by proc_pid_stat(5), where it may run. */
function threadsOf(pid: number) {
  return readdirSync(`/proc/${pid}/task`).map((thread) => {
    const text = readFileSync(`/proc/${pid}/task/${thread}/stat`, "latin1");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    const status = readFileSync(`/proc/${pid}/task/${thread}/status`, "latin1");
    const [, processors = ""] = /^Cpus_allowed_list:\t(\S+)$/m.exec(status) ?? [];
    const [nice, priority, policy] = [fields[16], fields[37], fields[38]].map(Number);
    return { nice, priority, policy, processors };
  });
}

const isThreaded = (pid: number) => readdirSync(`/proc/${pid}/task`).length > 2;

/** The soft limit and the hard one: proc_pid_limits(5). */
function limitOf(pid: number, name: string): string[] {
  const line = readFileSync(`/proc/${pid}/limits`, "latin1")
    .split("\n")
    .find((one) => one.startsWith(name));
  return line?.slice(name.length).trim().split(/\s+/).slice(0, 2) ?? [];
}

const scoreOf = (pid: number) => Number(readFileSync(`/proc/${pid}/oom_score_adj`, "latin1"));

/** Writes another configuration, and has it put in. */
async function reload(
  { controlSocket }: TestOrchestrator,
  folder: TemporaryFolder,
  lines: string,
  { partition }: Partial<Running> = {},
) {
  const here = partition === undefined ? "" : 'partition = "qm"';
  const rest = partition === undefined ? "" : `[partition.qm]\nsocket = "${partition.socket}"\n`;
  writeFileSync(folder.file("process.toml"), `${lines.replaceAll("@here", here)}\n${rest}`);
  const words = ["process", "reload", "--wait", "--control-socket", controlSocket];
  return await runProgram([hostler(), ...words]);
}

skipUnless("how processes are scheduled", root, () => {
  for (const place of bothPlaces) {
    test(`from the start, and after each restart: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const lines = `[process.it]\n@here\n${sleeper}\nnice = 7\naffinity = ["0-0"]
        scheduling = "batch"\noom_score_adjust = 321\n[process.usual]\n@here\n${sleeper}\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      const batch = { nice: 7, priority: 0, policy: 3, processors: "0" };
      for (const count of [1, 2, 3]) {
        const pid = await orchestrator.started("it", count);
        expect(threadsOf(pid)).toEqual([batch]);
        expect(scoreOf(pid)).toBe(321);
        process.kill(pid, "SIGKILL");
      }
      const usual = await orchestrator.started("usual");
      expect(threadsOf(usual)).toMatchObject([{ nice: 0, policy: 0 }]);
      const shown = await runProgram([
        ...[hostler(), "process", "show", "it"],
        ...["--control-socket", orchestrator.controlSocket],
      ]);
      const row = /^scheduling +batch; nice 7; processors 0; oom_score_adjust 321$/m;
      expect(shown.stdout).toMatch(row);
    });

    test(`of all threads, while it runs: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const words = [hostler(), "process", "agent", "--socket", folder.file("other.sock")];
      const command = `command = ${JSON.stringify(words)}`;
      const lines = (more: string) => `[process.it]\n@here\n${command}\n${more}\n`;
      await using running = await begin(place, folder, lines("nice = 3"));
      const { orchestrator } = running;
      const pid = await orchestrator.started("it");
      await waitFor("its threads", async () => {
        const lines = await orchestrator.logs();
        return lines.some(({ line }) => line.includes("listening at")) && isThreaded(pid);
      });
      const more = threadsOf(pid);
      expect(new Set(more.map(({ nice }) => nice))).toEqual(new Set([3]));
      const next = await reload(orchestrator, folder, lines("nice = 9\naffinity = [0]"), running);
      expect(next.exitCode).toBe(0);
      expect(next.stdout).toContain("changed while it runs: it (nice, affinity)");
      const all = new Set(threadsOf(pid).map(({ nice, processors }) => `${nice} ${processors}`));
      expect(all).toEqual(new Set(["9 0"]));
      expect((await orchestrator.summary("it")).pid).toBe(pid);
      const freed = await reload(orchestrator, folder, lines("nice = 9"), running);
      expect(freed.stdout).toContain("restarted: it (affinity)");
      const second = await orchestrator.started("it", 2);
      expect(threadsOf(second)[0]?.nice).toBe(9);
    });

    test(`its resource limits, while it runs: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const lines = (limits: string) =>
        `[process.it]\n@here\n${sleeper}\n${limits}\n[process.usual]\n@here\n${sleeper}\n`;
      await using running = await begin(place, folder, lines(""));
      const { orchestrator } = running;
      const pid = await orchestrator.started("it");
      const change = (limits: string) =>
        reload(orchestrator, folder, lines(`limits = ${limits}`), running);
      // One that is started without any is prepared for its restart otherwise than one with some.
      const first = await change("{nofile = {soft = 512, hard = 1024}}");
      expect(first.stdout).toContain("changed while it runs: it (limits)");
      expect(limitOf(pid, "Max open files")).toEqual(["512", "1024"]);
      await orchestrator.program.said(/it: limits\.nofile: \S+( of \S+)? → 512 of 1024$/m);
      // What it has set itself stays, where something else is changed.
      expect((await runProgram(["prlimit", `--pid=${pid}`, "--nofile=600:1024"])).exitCode).toBe(0);
      await change("{nofile = {soft = 512, hard = 1024}, core = 0}");
      expect(limitOf(pid, "Max open files")).toEqual(["600", "1024"]);
      expect(limitOf(pid, "Max core file size")).toEqual(["0", "0"]);
      await change("{nofile = 300, core = 0}");
      await orchestrator.program.said(/it: limits\.nofile: 600 of 1024 → 300$/m);
      expect((await orchestrator.summary("it")).pid).toBe(pid);
      process.kill(pid, "SIGKILL");
      const second = await orchestrator.started("it", 2);
      await waitFor("its start by the new limits", () => {
        return limitOf(second, "Max open files").join() === "300,300";
      });
      const freed = await change("{core = 0}");
      expect(freed.stdout).toContain("restarted: it (limits)");
      const third = await orchestrator.started("it", 3);
      const usual = await orchestrator.started("usual");
      await waitFor("its usual limit", () => {
        const [one, other] = [third, usual].map((each) => limitOf(each, "Max open files").join());
        return one === other;
      });
      expect(orchestrator.events.of("usual", "started")).toHaveLength(1);
    });

    test(`one that cannot have it is no start, and is gone: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const child = lonelyChild(folder, "system('sleep 1000 &'); sleep 1000000 while 1;");
      const lines = (more: string) => `[process.it]\n@here\n${child.table}\n${more}\n`;
      await using running = await begin(place, folder, lines("affinity = [8191]"));
      const { orchestrator } = running;
      const refused = await orchestrator.events.nth("it", "start-refused", 2);
      expect(refused.detail).toMatch(/^affinity = \[8191\]: .*none of these processors is online/);
      const { phase, reason, refused_starts: count } = await orchestrator.summary("it");
      expect(["backing-off", "starting"]).toContain(phase);
      if (phase === "backing-off") expect(reason).toContain("none of these processors");
      expect(count).toBeGreaterThanOrEqual(2);
      expect(orchestrator.events.of("it", "started")).toEqual([]);
      expect(child.metAnother).toBe(false);
      // Mended, it runs.
      await reload(orchestrator, folder, lines("affinity = [0]"), running);
      const pid = await orchestrator.started("it");
      expect(threadsOf(pid)[0]?.processors).toBe("0");
      const told = await reload(orchestrator, folder, lines("affinity = [8191]"), running);
      expect(told.exitCode).toBe(111);
      await orchestrator.program.said(/it: cannot change it while it runs: affinity = \[8191\]/);
      expect(await child.lives()).toContain(pid);
      expect(await orchestrator.stop()).toBe(0);
    });
  }

  test("a limit that may not be raised is told, and all else is put in", async () => {
    using folder = temporaryFolder();
    const lines = (hard: number, more: string) =>
      `[process.it]\n${sleeper}\nlimits = {nofile = {soft = 64, hard = ${hard}}${more}}\n`;
    const before = ["setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", "--"];
    await using orchestrator = await startOrchestrator({
      ...{ folder, before, configuration: lines(512, "") },
    });
    const pid = await orchestrator.started("it");
    const told = await reload(orchestrator, folder, lines(1024, ", core = 0"));
    expect(told.exitCode).toBe(111);
    expect(told.stderr).toMatch(/limits\.nofile = 64 of 1024: .*: it takes CAP_SYS_RESOURCE/);
    expect(limitOf(pid, "Max open files")).toEqual(["64", "512"]);
    expect(limitOf(pid, "Max core file size")).toEqual(["0", "0"]);
    expect((await orchestrator.summary("it")).pid).toBe(pid);
  });

  test("an orchestrator that is killed: the next one has it as the file says by then", async () => {
    using folder = temporaryFolder();
    const lines = (nice: number) => `[process.it]\n${sleeper}\nnice = ${nice}\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration: lines(4) });
    const pid = await orchestrator.started("it");
    await kept(orchestrator);
    await killOrchestrator(orchestrator);
    await using next = await startOrchestrator({ folder, configuration: lines(6) });
    await next.events.nth("it", "adopted");
    expect(threadsOf(pid)).toMatchObject([{ nice: 6 }]);
    expect(existsSync(`/proc/${pid}`)).toBe(true);
  });
});
