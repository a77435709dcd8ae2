/** Another configuration is put in while an orchestrator runs: by a command, and by SIGHUP. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { reloadSteps } from "../../src/process/reload-change.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { kept, killOrchestrator } from "../support/kept.ts";
import { lonelyChild, withVariable } from "../support/lonely-child.ts";
import { startOrchestrator, type TestOrchestrator } from "../support/orchestrator.ts";
import {
  begin,
  bothPlaces,
  localPlace,
  type Place,
  partitionPlace,
  type Running,
  startPartition,
} from "../support/orchestrator-partition.ts";
import { runProgram } from "../support/program.ts";
import { aboutOf, again, reexecute } from "../support/reexecution.ts";
import { root, skipUnless } from "../support/skips.ts";
import { suspend } from "../support/suspend.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const sleeper = 'command = ["sleep", "1000"]';
const shell = (script: string) => `command = ${JSON.stringify(["sh", "-c", script])}`;

/** Writes another configuration to where the orchestrator has its own. */
function edit(folder: TemporaryFolder, lines: string, { partition }: Partial<Running> = {}): void {
  const here = partition === undefined ? "" : 'partition = "qm"';
  const rest = partition === undefined ? "" : `[partition.qm]\nsocket = "${partition.socket}"\n`;
  writeFileSync(folder.file("process.toml"), `${lines.replaceAll("@here", here)}\n${rest}`);
}

async function reload({ controlSocket }: TestOrchestrator, ...words: readonly string[]) {
  const command = [hostler(), "process", "reload", "--control-socket", controlSocket];
  return await runProgram([...command, ...words]);
}

/** What it says beyond warnings of what is allowed. */
const complaintsOf = (stderr: string) =>
  stderr.split("\n").filter((line) => line !== "" && !line.includes(": warning: "));

/** Asked for, waited for, and refused by nobody. */
async function reloaded(orchestrator: TestOrchestrator): Promise<string> {
  const { stdout, stderr, exitCode } = await reload(orchestrator, "--wait");
  expect({ complaints: complaintsOf(stderr), exitCode }).toEqual({ complaints: [], exitCode: 0 });
  return stdout;
}

const pidOf = async (orchestrator: TestOrchestrator, name: string) =>
  (await orchestrator.summary(name)).pid;

const namesOf = async (orchestrator: TestOrchestrator) =>
  (await orchestrator.list()).map(({ name }) => name);

skipUnless("a configuration that is read anew", root, () => {
  for (const place of bothPlaces) {
    test(`who is as before is not touched, the others follow: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const table = (name: string, more = "") => `[process.${name}]\n@here\n${sleeper}\n${more}\n`;
      const child = lonelyChild(folder);
      const other = (more: string) => `[process.other]\n@here\n${child.table}\n${more}\n`;
      const before = table("same") + table("rules") + table("goes") + other("");
      await using running = await begin(place, folder, before);
      const { orchestrator } = running;
      const pids = new Map<string, number>();
      for (const name of ["same", "rules", "goes", "other"]) {
        pids.set(name, await orchestrator.started(name));
      }
      const after =
        table("same") + table("rules", 'stop_grace = "1s"') + table("new") + other('umask = "077"');
      edit(folder, after, running);
      const planned = await reload(orchestrator, "--dry-run");
      expect(planned.exitCode).toBe(0);
      expect(planned.stdout).toBe(
        "added: new\nremoved: goes\nrestarted: other (umask)\n" +
          "changed while it runs: rules (stop_grace)\n1 as before\n",
      );
      expect(await namesOf(orchestrator)).toEqual(["same", "rules", "goes", "other"]);
      expect(await reloaded(orchestrator)).toBe(`${planned.stdout}all of it is put in\n`);
      expect(await namesOf(orchestrator)).toEqual(["same", "rules", "new", "other"]);
      await orchestrator.started("new");
      const restarted = await orchestrator.started("other", 2);
      expect(await child.lives()).toEqual([restarted]);
      expect(child.metAnother).toBe(false);
      expect(await pidOf(orchestrator, "same")).toBe(pids.get("same") ?? 0);
      expect(await pidOf(orchestrator, "rules")).toBe(pids.get("rules") ?? 0);
      expect((await orchestrator.show("rules")).stop.grace_ms).toBe(1_000);
      expect(existsSync(`/proc/${pids.get("goes")}`)).toBe(false);
      expect(readFileSync(`/proc/${restarted}/status`, "utf8")).toContain("Umask:\t0077");
      const again = await reload(orchestrator, "--wait");
      expect(again.stdout).toBe("4 as before\nall of it is put in\n");
      expect(await orchestrator.stop()).toBe(0);
    });

    test(`a restart that was certain follows the new rule: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const table = (restart: string) =>
        `[process.it]\n@here\n${sleeper}\nbackoff = "none"\nrestart = "${restart}"\n`;
      await using running = await begin(place, folder, table("always"));
      const { orchestrator } = running;
      process.kill(await orchestrator.started("it"), "SIGKILL");
      const pid = await orchestrator.started("it", 2);
      edit(folder, table("never"), running);
      await reloaded(orchestrator);
      expect(await pidOf(orchestrator, "it")).toBe(pid);
      process.kill(pid, "SIGKILL");
      const { ending } = await orchestrator.events.nth("it", "ended", 2);
      expect(ending).toMatchObject({ kind: "signalled", signal: 9 });
      await waitFor("its end", async () => (await orchestrator.summary("it")).phase === "finished");
      // And the rule of before again, which is armed anew.
      edit(folder, table("always"), running);
      await reloaded(orchestrator);
      await orchestrator.client.request("start", { name: "it" });
      process.kill(await orchestrator.started("it", 3), "SIGKILL");
      await orchestrator.started("it", 4);
    });
  }

  test("SIGHUP does the same, also twice in a row and while one is under way", async () => {
    using folder = temporaryFolder();
    const slow = `[process.slow]\n${shell("trap '' TERM; echo there; sleep 1000")}\n`;
    const configuration = `${slow}stop_grace = "1h"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await waitFor("its trap", async () => (await orchestrator.logs()).length > 0);
    edit(folder, `[process.one]\n${sleeper}\n`);
    orchestrator.program.kill("SIGHUP");
    await orchestrator.program.said(/reloading \S+: added: one; removed: slow; 0 as before/);
    await orchestrator.started("one");
    const stubborn = Number(await pidOf(orchestrator, "slow"));
    edit(folder, `[process.two]\n${sleeper}\n`);
    orchestrator.program.kill("SIGHUP");
    orchestrator.program.kill("SIGHUP");
    const busy = await reload(orchestrator);
    expect(busy).toMatchObject({ exitCode: 111, stdout: "" });
    expect(busy.stderr).toContain("Another reload is under way: a reload, which waits for slow");
    expect(busy.stderr).toContain("hostler process stop slow --now");
    const started = [hostler(), "process", "start", "slow"];
    const going = await runProgram([...started, "--control-socket", orchestrator.controlSocket]);
    expect(going).toMatchObject({ exitCode: 111, stdout: "" });
    expect(going.stderr).toContain("slow is being removed");
    const { reason } = await orchestrator.summary("slow");
    expect(reason).toBe("the configuration has it no more");
    process.kill(stubborn, "SIGKILL");
    await orchestrator.program.said(/reloading \S+: added: two; removed: one; 0 as before/);
    await waitFor("two alone", async () => (await namesOf(orchestrator)).join() === "two");
    await orchestrator.program.said(/process\.toml is reloaded/);
    expect(await orchestrator.stop()).toBe(0);
  });

  test("a file that is wrong changes nothing, and all mistakes are told", async () => {
    using folder = temporaryFolder();
    const configuration = `[process.it]\n${sleeper}\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const pid = await orchestrator.started("it");
    edit(folder, `[process.it]\ncommand = "sleep"\nrestart = "perhaps"\n`);
    const refused = await reload(orchestrator, "--wait");
    expect(refused).toMatchObject({ exitCode: 100, stdout: "" });
    expect(refused.stderr.trimEnd().split("\n")).toHaveLength(2);
    expect(refused.stderr).toMatch(/process\.toml:2:\d+: process\.it\.command: expected/);
    const json = await reload(orchestrator, "--dry-run", "--json");
    expect(json.exitCode).toBe(100);
    expect(JSON.parse(json.stdout)).toMatchObject({ what: "refused" });
    orchestrator.program.kill("SIGHUP");
    await orchestrator.program.said(/process\.toml is not reloaded: all stays as it was/);
    expect(await pidOf(orchestrator, "it")).toBe(pid);
    edit(folder, configuration);
    expect(await reloaded(orchestrator)).toContain("1 as before");
    expect(await pidOf(orchestrator, "it")).toBe(pid);
  });

  test("what no running orchestrator can do is refused, and changes nothing", async () => {
    using folder = temporaryFolder();
    const configuration = `[process.it]\n${sleeper}\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const pid = await orchestrator.started("it");
    const refuse = async (text: string, reason: RegExp) => {
      edit(folder, text);
      for (const words of [["--wait"], ["--dry-run"]]) {
        const { exitCode, stderr } = await reload(orchestrator, ...words);
        expect(exitCode).toBe(111);
        expect(stderr).toMatch(reason);
      }
    };
    await refuse(`[orchestrator]\nholder = false\n${configuration}`, /holder is another one/);
    const log = folder.file("no-folder/it.log");
    await refuse(`${configuration}log_file = {path = "${log}"}\n`, /no-folder/);
    writeFileSync(folder.file("a-file"), "");
    const listens = `[partition.qm]\nlisten = "${folder.file("a-file")}"\n`;
    await refuse(`${listens}${configuration}`, /expected a socket or nothing there/);
    const many = Array.from({ length: 40 }, (_, index) => `[process.p${index}]\n${sleeper}\n`);
    const limit = spawnLimit(orchestrator, 400);
    await refuse(`${configuration}${many.join("")}`, /Expected room for \d+ open descriptors/);
    limit.restore();
    await refuse("", /The configuration has no process: all would be stopped/);
    const taken = `[partition.qm]\nlisten = "${orchestrator.controlSocket}"\n`;
    await refuse(`${taken}${configuration}`, /somebody listens there already/);
    expect(await pidOf(orchestrator, "it")).toBe(pid);
    expect(await namesOf(orchestrator)).toEqual(["it"]);
  });

  test("a process that cannot have it while it runs is named, and the rest is put in", async () => {
    using folder = temporaryFolder();
    const lines = (more: string) => `[process.it]\n${sleeper}\n${more}\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration: lines("") });
    const pid = await orchestrator.started("it");
    edit(folder, lines("nice = 5\naffinity = [8191]"));
    const told = await reload(orchestrator, "--wait", "--json");
    expect(told.exitCode).toBe(111);
    const parts = told.stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(parts).toMatchObject([
      { what: "planned", dry_run: false },
      { what: "applied", refused: [{ name: "it", reason: expect.stringMatching(/affinity/) }] },
    ]);
    const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ");
    expect(fields?.[16]).toBe("5");
  });

  test("one that others come after goes last, and one that comes after others waits", async () => {
    using folder = temporaryFolder();
    const table = (name: string, after: string, more = "") =>
      `[process.${name}]\n${sleeper}\nafter = [${after}]\n${more}`;
    const before = table("base", "") + table("middle", '"base"') + table("top", '"middle"');
    await using orchestrator = await startOrchestrator({ folder, configuration: before });
    await orchestrator.started("top");
    edit(folder, `${table("base", "", 'umask = "077"\n')}${table("next", '"base"')}`);
    await reloaded(orchestrator);
    await orchestrator.started("next");
    const story = orchestrator.events.story("stop-requested", "died", "started").slice(3);
    const at = (what: string) => story.indexOf(what);
    expect(at("top died")).toBeLessThan(at("middle stop-requested"));
    expect(at("base died")).toBeLessThan(at("next started"));
    expect(at("base started")).toBeLessThan(at("next started"));
    expect(await orchestrator.stop()).toBe(0);
  });

  test("the kept lines stay, and a new file of lines has those that come", async () => {
    using folder = temporaryFolder();
    mkdirSync(folder.file("logs"), { mode: 0o755 });
    const log = (name: string) =>
      `log_file = {path = "${folder.file(`logs/${name}`)}", time = false, stream = false}\n`;
    const script = 'n=0; while :; do n=$((n+1)); echo "$n"; sleep 0.01; done';
    const configuration = `[process.it]\n${shell(script)}\nlog_lines = 100000\n`;
    const started = { folder, configuration: `${configuration}${log("one")}` };
    await using orchestrator = await startOrchestrator(started);
    const pid = await orchestrator.started("it");
    const read = (name: string) =>
      readFileSync(folder.file(`logs/${name}`), "utf8")
        .split("\n")
        .slice(0, -1)
        .map(Number);
    await waitFor("lines in one", () => read("one").length > 20);
    edit(folder, `${configuration}${log("two")}`);
    await reloaded(orchestrator);
    await waitFor("lines in two", () => read("two").length > 20);
    edit(folder, configuration);
    await reloaded(orchestrator);
    const last = read("two").at(-1) ?? 0;
    const all = [...read("one"), ...read("two")];
    expect(all).toEqual(Array.from({ length: last }, (_, index) => index + 1));
    expect(await pidOf(orchestrator, "it")).toBe(pid);
    const lines = (await orchestrator.logs()).map(({ line }) => Number(line));
    expect(lines.slice(0, last)).toEqual(all);
  });

  test("partitions come and go, and one that is another is reached anew", async () => {
    using folder = temporaryFolder();
    await using partition = await startPartition(folder);
    await partition.startAgent();
    const own = `[process.here]\n${sleeper}\n`;
    const away = `[process.away]\n${sleeper}\npartition = "qm"\n`;
    const qm = `[partition.qm]\nsocket = "${partition.socket}"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration: own });
    const pid = await orchestrator.started("here");
    edit(folder, own + away + qm);
    await reloaded(orchestrator);
    const first = await orchestrator.started("away");
    edit(folder, `${own}${away}${qm}other_pid_namespace = true\n`);
    const said = await reloaded(orchestrator);
    expect(said).toContain("restarted: away (its partition)");
    expect(said).toContain("partitions changed: qm (other_pid_namespace)");
    const second = await orchestrator.started("away", 2);
    expect(existsSync(`/proc/${first}`)).toBe(false);
    edit(folder, `${own}${qm}other_pid_namespace = true\n`);
    await reloaded(orchestrator);
    expect(existsSync(`/proc/${second}`)).toBe(false);
    edit(folder, own);
    await reloaded(orchestrator);
    const partitions = await orchestrator.client.request("partitions");
    expect(partitions).toEqual([]);
    expect(await pidOf(orchestrator, "here")).toBe(pid);
    // From the partition back to the host, and there again.
    edit(folder, own + away + qm);
    await reloaded(orchestrator);
    await orchestrator.started("away", 3);
    edit(folder, own + away.replace('partition = "qm"', "") + qm);
    await reloaded(orchestrator);
    await orchestrator.started("away", 4);
    expect((await orchestrator.summary("away")).partition).toBeNull();
    expect(await orchestrator.stop()).toBe(0);
  });

  test("an agent that hangs holds up its own processes, and no others", async () => {
    using folder = temporaryFolder();
    const away = (more: string) => `[process.away]\n@here\n${sleeper}\n${more}\n`;
    await using running = await begin(partitionPlace, folder, away(""));
    const { orchestrator, agent } = running;
    await orchestrator.started("away");
    suspend(agent);
    edit(folder, `${away('umask = "077"')}[process.new]\n${sleeper}\n`, running);
    expect((await reload(orchestrator)).exitCode).toBe(0);
    await orchestrator.started("new");
    const { phase } = await orchestrator.summary("away");
    expect(["stopping", "clearing", "waiting", "starting"]).toContain(phase);
  });

  test("whoever waits for one that goes is told; who follows lines hears the new", async () => {
    using folder = temporaryFolder();
    const configuration = `[process.it]\n${sleeper}\nready = "notify"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await orchestrator.started("it");
    const lines = orchestrator.followLogs();
    const command = ["process", "wait", "it", "--control-socket", orchestrator.controlSocket];
    const waiting = runProgram([hostler(), ...command]);
    const clients = () => readdirSync(`/proc/${orchestrator.program.processId}/fd`).length;
    const before = clients();
    await waitFor("the client", () => clients() >= before);
    edit(folder, `[process.new]\n${shell("echo hello; sleep 1000")}\n`);
    await reloaded(orchestrator);
    const waited = await waiting;
    expect(waited.exitCode).toBe(111);
    expect(waited.stderr).toContain("There is no process it in the configuration");
    await lines.until("a line of the new one", (all) => all.some(({ name }) => name === "new"));
  });

  test("SIGTERM in the middle of it stops everything, and who waits is told", async () => {
    using folder = temporaryFolder();
    const script = shell("trap '' TERM; echo there; sleep 1000");
    const configuration = `[process.slow]\n${script}\nstop_grace = "500ms"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await waitFor("its trap", async () => (await orchestrator.logs()).length > 0);
    edit(folder, `[process.one]\n${sleeper}\n`);
    const waiting = reload(orchestrator, "--wait");
    await orchestrator.started("one");
    expect(await orchestrator.stop()).toBe(0);
    const { exitCode, stderr } = await waiting;
    expect(exitCode).toBe(111);
    expect(stderr).toContain("what was not put in is not put in any more");
  });

  test("the next program goes on with the new configuration", async () => {
    using folder = temporaryFolder();
    const configuration = `[process.it]\n${sleeper}\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const pid = await orchestrator.started("it");
    edit(folder, `${configuration}stop_grace = "1s"\n[process.new]\n${sleeper}\n`);
    await reloaded(orchestrator);
    const added = await orchestrator.started("new");
    const { instance } = await aboutOf(orchestrator.controlSocket);
    expect((await reexecute(orchestrator.controlSocket)).instance).not.toBe(instance);
    const after = await again(orchestrator);
    try {
      expect(await pidOf(after, "it")).toBe(pid);
      expect(await pidOf(after, "new")).toBe(added);
      expect((await after.show("it")).stop.grace_ms).toBe(1_000);
      expect((await reload(after, "--dry-run")).stdout).toBe("2 as before\n");
    } finally {
      after.client.close();
    }
  });

  test("a hundred times, and nothing is left of any", async () => {
    using folder = temporaryFolder();
    const table = (name: string, more = "") => `[process.${name}]\n${sleeper}\n${more}`;
    const configuration = table("same");
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const pid = await orchestrator.started("same");
    await kept(orchestrator);
    const own = () => readdirSync(`/proc/${orchestrator.program.processId}/fd`).length;
    const heldOf = async () => (await aboutOf(orchestrator.controlSocket)).holder?.kept ?? 0;
    const before = { own: own(), held: await heldOf() };
    for (let round = 0; round < 50; round += 1) {
      edit(
        folder,
        `${configuration}${table(`n${round}`)}${table("x", `umask = "0${round % 8}7"\n`)}`,
      );
      await reloaded(orchestrator);
    }
    edit(folder, configuration);
    await reloaded(orchestrator);
    expect(await pidOf(orchestrator, "same")).toBe(pid);
    await waitFor("as many descriptors as before", async () => {
      return own() <= before.own && (await heldOf()) <= before.held;
    });
  });
});

/** Lowers the limit of descriptors of a running orchestrator. */
function spawnLimit({ program }: TestOrchestrator, soft: number) {
  const set = (limit: string) => {
    const words = ["prlimit", `--pid=${program.processId}`, `--nofile=${limit}`];
    const { exitCode } = Bun.spawnSync(words);
    if (exitCode !== 0) throw new Error(`prlimit ended with ${exitCode}`);
  };
  const limits = readFileSync(`/proc/${program.processId}/limits`, "utf8");
  const [, before = "", hard = ""] = /Max open files +(\d+) +(\d+)/.exec(limits) ?? [];
  set(`${soft}:${hard}`);
  return { restore: () => set(`${before}:${hard}`) };
}

const places: readonly Place[] = [localPlace, partitionPlace];

skipUnless("an orchestrator that is killed while it reloads", root, () => {
  for (const place of places) {
    for (const step of reloadSteps) {
      test(`at ${step}: the next one has it as the file says, ${place.title}`, async () => {
        using folder = temporaryFolder();
        const child = lonelyChild(folder);
        const it = (more: string) => `[process.it]\n@here\n${child.table}\n${more}\n`;
        const goes = `[process.goes]\n@here\n${sleeper}\nenvironment = {GOES = "${folder.path}"}\n`;
        const binary = hostlerWithFaults();
        const orchestratorOptions = { binary, environment: { HOSTLER_KILL_AT: step } };
        const options = { orchestrator: orchestratorOptions, agent: {} };
        await using running = await begin(place, folder, it("") + goes, options);
        const { orchestrator } = running;
        await orchestrator.started("it");
        await orchestrator.started("goes");
        await kept(orchestrator, 2);
        edit(folder, `${it('umask = "077"')}[process.new]\n@here\n${sleeper}\n`, running);
        await reload(orchestrator, "--wait");
        await orchestrator.program.ended();
        const text = readFileSync(folder.file("process.toml"), "utf8");
        await using next = await startOrchestrator({ folder, configuration: text });
        await next.events.until("all of it runs", (events) => {
          const named = (name: string) =>
            events.some((event) => {
              return event.name === name && ["started", "adopted"].includes(event.what);
            });
          return named("it") && named("new");
        });
        expect(await namesOf(next)).toEqual(["it", "new"]);
        const [pid] = await child.lives();
        expect(readFileSync(`/proc/${pid}/status`, "utf8")).toContain("Umask:\t0077");
        expect(withVariable(`GOES=${folder.path}`)).toEqual([]);
        expect(child.metAnother).toBe(false);
        expect(await next.stop()).toBe(0);
      });
    }
  }

  test("with -9 itself, while somebody is stopped", async () => {
    using folder = temporaryFolder();
    const script = shell("trap '' TERM; echo there; sleep 1000");
    const configuration = `[process.slow]\n${script}\nstop_grace = "30s"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await waitFor("its trap", async () => (await orchestrator.logs()).length > 0);
    await kept(orchestrator);
    const after = `[process.slow]\n${sleeper}\n`;
    edit(folder, after);
    await reload(orchestrator);
    await orchestrator.events.nth("slow", "stop-requested");
    await killOrchestrator(orchestrator);
    await using next = await startOrchestrator({ folder, configuration: after });
    const pid = await next.started("slow");
    expect(readFileSync(`/proc/${pid}/cmdline`, "latin1")).toBe(["sleep", "1000", ""].join("\0"));
  });
});
