/** The orchestrator becomes another program: nobody is stopped, and nothing is missed. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, readlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "../../scripts/build.ts";
import { monotonicNow } from "../../src/event-loop/clock.ts";
import { connectControl } from "../../src/messaging/control-client.ts";
import { digestOf } from "../../src/process/perform/own-program.ts";
import { findInvocation } from "../../src/process/perform/process-table.ts";
import { hostler, repositoryRoot } from "../support/binary.ts";
import { withoutHolder } from "../support/kept.ts";
import { lonelyChild } from "../support/lonely-child.ts";
import { journaled, startOrchestrator, type TestOrchestrator } from "../support/orchestrator.ts";
import {
  allPlaces,
  begin,
  bothPlaces,
  localPlace,
  oldPartitionPlace,
  type Place,
  type Running,
} from "../support/orchestrator-partition.ts";
import { isAlive } from "../support/partition.ts";
import { runProgram } from "../support/program.ts";
import { aboutOf, again, Gap, reexecute } from "../support/reexecution.ts";
import { root, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

const shell = (script: string) => `command = ${JSON.stringify(["sh", "-c", script])}`;
const counter = shell("i=0; while :; do i=$((i+1)); echo $i; echo $i >&2; sleep 0.003; done");
const sleeper = 'command = ["sleep", "1000"]';

/** Numbers that a stream of a process has told, which must have come each once and in order. */
async function told(orchestrator: TestOrchestrator, stream: string): Promise<number> {
  const lines = (await orchestrator.logs({ name: "it" })).filter((line) => line.stream === stream);
  const numbers = lines.map(({ line }) => Number(line));
  expect(numbers).toEqual(numbers.map((_number, index) => index + 1));
  return numbers.length;
}

/** An orchestrator whose next program is the gap, in some place. */
async function beginWithGap(
  place: Place,
  folder: TemporaryFolder,
  configuration: string,
): Promise<{ readonly running: Running; readonly gap: Gap }> {
  const gap = new Gap(folder, hostler());
  const running = await begin(place, folder, configuration, {
    orchestrator: { environment: gap.environment },
  });
  return { running, gap };
}

/** Has it become the gap, in which `happen` happens, and gives it when it goes on. */
async function through(
  { orchestrator }: Running,
  gap: Gap,
  happen: () => Promise<void>,
): Promise<TestOrchestrator> {
  const answer = reexecute(orchestrator.controlSocket, { program: gap.program });
  await gap.entered();
  await happen();
  gap.leave();
  expect((await answer).process_id).toBe(orchestrator.program.processId);
  return await again(orchestrator);
}

skipUnless("another program in the orchestrator's place", root, () => {
  for (const place of allPlaces) {
    test(`children go on, twice in a row, no line is lost or doubled: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const long = 'log_lines = 100000\nlog_bytes = "16MiB"';
      const lines = `[process.it]\n@here\n${counter}\n${long}\n[process.still]\n${sleeper}\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      const { controlSocket } = orchestrator;
      const processId = await orchestrator.started("it");
      const still = await orchestrator.started("still");
      await waitFor("some lines", async () => (await told(orchestrator, "stdout")) > 20);
      const before = await orchestrator.show("it");
      const first = await aboutOf(controlSocket);
      const second = await reexecute(controlSocket);
      const third = await reexecute(controlSocket);
      expect(new Set([first, second, third].map(({ instance }) => instance)).size).toBe(3);
      for (const about of [second, third]) {
        expect(about).toEqual({
          ...first,
          instance: about.instance,
          started_at: about.started_at,
          // The next program has to ask it first.
          holder: { kept: about.holder?.kept ?? null, process_id: first.holder?.process_id ?? 0 },
        });
        expect(about.started_at > first.started_at).toBe(true);
      }
      const next = await again(orchestrator);
      const after = await next.show("it");
      expect(after.summary).toEqual({ ...before.summary, uptime_ms: after.summary.uptime_ms });
      expect(after.history).toEqual(before.history);
      const uptime = after.summary.uptime_ms ?? 0;
      expect(uptime).toBeGreaterThan(before.summary.uptime_ms ?? Number.POSITIVE_INFINITY);
      expect((await next.summary("still")).pid).toBe(still);
      const count = await told(next, "stdout");
      await waitFor("more lines", async () => (await told(next, "stdout")) > count + 20);
      await told(next, "stderr");
      // It is supervised: its end is told, with its status where the kernel or its parent tells.
      process.kill(processId, "SIGKILL");
      await next.events.nth("it", "started", 2);
      const ended = await next.events.nth("it", "ended");
      expect(ended.ending).toEqual({ kind: "signalled", signal: 9, core_dumped: false });
      next.client.close();
      expect(await orchestrator.stop()).toBe(0);
      expect(isAlive(still)).toBe(false);
    });
  }

  test("the process is as it was called, and nothing leaks, ten times", async () => {
    using folder = temporaryFolder();
    const nobody = `[process.nobody]\n${sleeper}\nuser = "nobody"\n`;
    // A holder is reached a little later, and has duplicates here.
    const lines = `${withoutHolder}[process.it]\n${sleeper}\n${nobody}`;
    await using running = await begin(localPlace, folder, lines, {
      orchestrator: { environment: { SOME: "thing", EMPTY: "" } },
    });
    const { orchestrator } = running;
    const { processId } = orchestrator.program;
    for (const name of ["it", "nobody"]) await orchestrator.started(name);
    const read = (name: string) => readFileSync(`/proc/${processId}/${name}`, "utf8");
    const link = (name: string) => readlinkSync(`/proc/${processId}/${name}`);
    /** What it is; of its descriptors those that are one certain file. */
    const seen = () => ({
      words: read("cmdline"),
      variables: read("environ")
        .split("\0")
        .filter((variable) => !variable.startsWith("HOSTLER_STATE=")),
      name: read("comm"),
      limits: read("limits"),
      signals: read("status").match(/^Sig(Blk|Ign):.*$/gm),
      rights: read("status").match(/^(Umask|Uid|Gid|Groups|Cap\w+|NoNewPrivs):.*$/gm),
      folder: link("cwd"),
      files: readdirSync(`/proc/${processId}/fd`)
        .map((number) => link(`fd/${number}`))
        .filter((file) => /^(pipe|socket|pidfd|\/)/.test(file))
        .toSorted(),
    });
    const count = () => readdirSync(`/proc/${processId}/fd`).length;
    const before = seen();
    const clientHasGone = () => seen().files.length === before.files.length;
    await reexecute(orchestrator.controlSocket);
    await waitFor("the end of the first client's connection", clientHasGone);
    const descriptors = count();
    for (let round = 2; round <= 10; round += 1) await reexecute(orchestrator.controlSocket);
    await waitFor("the end of the last client's connection", clientHasGone);
    expect(seen()).toEqual(before);
    expect(count()).toBe(descriptors);
  });

  test("half a line before it and half a line after it are one line", async () => {
    using folder = temporaryFolder();
    const gate = folder.file("gate");
    const script = `printf half; until [ -e ${gate} ]; do sleep 0.01; done; echo whole; sleep 1000`;
    const configuration = `[process.it]\n${shell(script)}\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await orchestrator.started("it");
    await reexecute(orchestrator.controlSocket);
    writeFileSync(gate, "");
    const next = await again(orchestrator);
    const lines = next.followLogs();
    const [line] = await lines.until("the line", (items) => items.length > 0 && items);
    expect(line?.line).toBe("halfwhole");
    next.client.close();
  });

  for (const place of [...bothPlaces, oldPartitionPlace]) {
    test(`an end in the gap is told, and the rule followed: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const gate = folder.file("gate");
      const ends = `until [ -e ${gate} ]; do sleep 0.01; done; echo last words; exit 7`;
      const lines = ["always", "on-failure", "never"].map(
        (rule) => `[process.${rule}]\n@here\n${shell(ends)}\nrestart = "${rule}"\n`,
      );
      const { running, gap } = await beginWithGap(place, folder, lines.join(""));
      await using _running = running;
      const names = ["always", "on-failure", "never"];
      const processIds = await Promise.all(names.map((name) => running.orchestrator.started(name)));
      const next = await through(running, gap, async () => {
        writeFileSync(gate, "");
        await waitFor("their ends", () => !processIds.some(isAlive));
        // The next instances live.
        unlinkSync(gate);
      });
      for (const name of names) {
        const ended = await next.events.nth(name, "ended");
        expect(ended.ending).toEqual({ kind: "exited", status: 7 });
        expect((await next.logs({ name }))[0]?.line).toBe("last words");
        expect(next.events.of(name, "died")).toHaveLength(1);
      }
      await next.events.nth("always", "started", 2);
      await next.events.nth("on-failure", "started", 2);
      expect((await next.summary("never")).phase).toBe("finished");
      next.client.close();
    });
  }

  for (const place of bothPlaces) {
    test(`while everything dies and is restarted all the time: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const names = Array.from({ length: 6 }, (_value, index) => `p${index}`);
      const lives = "select(undef, undef, undef, 0.02 + rand(0.05)); exit 3;";
      const children = names.map((name) => lonelyChild(folder, lives, name));
      const lines = names.map(
        (name, index) => `[process.${name}]\n@here\n${children[index]?.table}\nbackoff = "none"\n`,
      );
      await using running = await begin(place, folder, lines.join(""));
      const { orchestrator } = running;
      const { events } = orchestrator;
      for (let round = 1; round <= 10; round += 1) {
        await reexecute(orchestrator.controlSocket);
        const starts = events.of("p0", "started").length;
        await events.nth("p0", "started", starts + 3);
      }
      await orchestrator.client.request("change", { what: "stop", names });
      for (const name of names) {
        await orchestrator.client.request("wait", { name, until: "stopped" });
      }
      expect(children.map(({ metAnother }) => metAnother)).toEqual(names.map(() => false));
      expect(children.flatMap(({ alive }) => alive)).toEqual([]);
      for (const name of names) {
        const ends = events.of(name, "ended").slice(0, -1);
        expect(ends.map(({ ending }) => ending)).toEqual(
          ends.map(() => ({ kind: "exited", status: 3 })),
        );
        const once = (what: string) => events.of(name, what).map(({ invocation }) => invocation);
        const started = once("started");
        expect(new Set(started).size).toBe(started.length);
        expect(once("died")).toEqual(started);
        expect(once("ended").toSorted()).toEqual(started.toSorted());
        expect((await orchestrator.summary(name)).restarts).toBe(started.length - 1);
      }
    });
  }

  test("a process that is backing off waits no longer, and fails as before", async () => {
    using folder = temporaryFolder();
    const rules = 'backoff = {first = "2s", jitter = 0}\nstart_limit = {starts = 3, within = "1h"}';
    const configuration = `[process.it]\ncommand = ["false"]\n${rules}\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const before = await orchestrator.events.nth("it", "backing-off");
    await reexecute(orchestrator.controlSocket);
    const next = await again(orchestrator);
    expect(await next.summary("it")).toMatchObject({ phase: "backing-off", restarts: 1 });
    const third = await next.events.nth("it", "start-requested", 3);
    const waited = (third.monotonic_us - before.monotonic_us) / 1_000;
    expect(waited).toBeGreaterThan(1_900);
    expect(waited).toBeLessThan(3_500);
    await next.events.nth("it", "failed");
    expect((await next.summary("it")).phase).toBe("failed");
    next.client.close();
  });

  for (const place of bothPlaces) {
    test(`the grace of a stop goes on in the gap: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const stubborn = shell("trap '' TERM; echo set; while :; do sleep 0.05; done");
      const lines = `[process.it]\n@here\n${stubborn}\nstop_grace = "700ms"\n`;
      const { running, gap } = await beginWithGap(place, folder, lines);
      await using _running = running;
      const { orchestrator } = running;
      const processId = await orchestrator.started("it");
      await orchestrator.followLogs().until("the trap", (items) => items.length > 0);
      await orchestrator.client.request("stop", { name: "it" });
      const asked = await orchestrator.events.nth("it", "stop-requested");
      const next = await through(running, gap, async () => {
        const over = asked.monotonic_us / 1_000 + 700;
        await waitFor("the end of its grace", () => monotonicNow() > over);
        expect(isAlive(processId)).toBe(true);
      });
      await next.events.nth("it", "killed");
      expect((await next.events.nth("it", "ended")).ending).toMatchObject({ signal: 9 });
      await next.client.request("wait", { name: "it", until: "stopped" });
      expect((await next.summary("it")).phase).toBe("idle");
      next.client.close();
    });

    test(`a notice in the gap is heard, and checks go on: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const gate = folder.file("gate");
      const until = `until [ -e ${gate} ]; do sleep 0.01; done`;
      const notice = `${until}; exec perl -MSocket -e '
        socket(S, AF_UNIX, SOCK_DGRAM, 0);
        (my $name = $ENV{NOTIFY_SOCKET}) =~ s/^@/\\0/;
        send(S, "READY=1", 0, pack("S a*", AF_UNIX, $name)) or die "cannot send: $!";
        sleep 1000'`;
      const check = `ready = {command = ["test", "-e", "${gate}"]}`;
      const lines = [
        `[process.tells]\n@here\n${shell(notice)}\nready = "notify"\n`,
        `[process.asked]\n@here\n${sleeper}\n${check}\n`,
        `[process.after]\n@here\n${sleeper}\nafter = ["tells", "asked"]\n`,
      ];
      const { running, gap } = await beginWithGap(place, folder, lines.join(""));
      await using _running = running;
      const processIds = await Promise.all(
        ["tells", "asked"].map((name) => running.orchestrator.started(name)),
      );
      const next = await through(running, gap, async () => writeFileSync(gate, ""));
      for (const name of ["tells", "asked", "after"]) await next.events.nth(name, "ready");
      const now = await next.list();
      expect(now.map(({ pid }) => pid).slice(0, 2)).toEqual(processIds);
      next.client.close();
    });
  }

  test("who comes to the control socket in the gap waits, and is answered", async () => {
    using folder = temporaryFolder();
    const { running, gap } = await beginWithGap(localPlace, folder, `[process.it]\n${sleeper}\n`);
    await using _running = running;
    let answered: Promise<unknown> | undefined;
    const next = await through(running, gap, async () => {
      const socket = running.orchestrator.controlSocket;
      const connections = () => readFileSync("/proc/net/unix", "utf8").split(socket).length;
      const before = connections();
      answered = connectControl(socket).then(async (client) => {
        const list = await client.request("list");
        client.close();
        return list;
      });
      await waitFor("the connection in the queue", () => connections() > before);
    });
    expect(await answered).toMatchObject([{ name: "it", phase: "ready" }]);
    next.client.close();
  });

  test("who is connected goes on: followers miss nothing, and who waits is answered", async () => {
    using folder = temporaryFolder();
    const lines = `[process.it]\n${counter}\n[process.other]\n${sleeper}\n`;
    const { running, gap } = await beginWithGap(localPlace, folder, lines);
    await using _running = running;
    const { orchestrator } = running;
    const { client, events } = orchestrator;
    const processId = await orchestrator.started("other");
    const followed = orchestrator.followLogs({ name: "it" });
    const stopped = client.request("wait", { name: "other", until: "stopped" });
    const numbers = () =>
      followed.items.flatMap(({ stream, line }) => (stream === "stdout" ? [Number(line)] : []));
    for (let round = 1; round <= 2; round += 1) {
      const seen = numbers().length;
      await followed.until("more lines", () => numbers().length > seen + 20);
      const next = await through(running, gap, async () => {
        if (round === 1) process.kill(processId, "SIGKILL");
      });
      next.client.close();
      const after = numbers().length;
      await followed.until("lines of the next program", () => numbers().length > after + 20);
    }
    expect(numbers()).toEqual(numbers().map((_number, index) => index + 1));
    await events.nth("other", "started", 2);
    expect(events.items.map(({ sequence }) => sequence)).toEqual(
      events.items.map((_event, index) => index + 1),
    );
    await client.request("stop", { name: "other" });
    expect(await stopped).toMatchObject({ name: "other", phase: "idle" });
  });

  test("SIGTERM in the gap is heard: everything is stopped", async () => {
    using folder = temporaryFolder();
    const { running, gap } = await beginWithGap(localPlace, folder, `[process.it]\n${sleeper}\n`);
    await using _running = running;
    const { orchestrator } = running;
    const processId = await orchestrator.started("it");
    const answer = reexecute(orchestrator.controlSocket, { program: gap.program });
    answer.catch(() => {});
    await gap.entered();
    orchestrator.program.kill("SIGHUP");
    orchestrator.program.kill("SIGTERM");
    gap.leave();
    expect((await orchestrator.program.ended()).exitCode).toBe(0);
    expect(isAlive(processId)).toBe(false);
  });

  test("a build of another version goes on, and can be gone back from", async () => {
    using folder = temporaryFolder();
    const { path } = await build({
      folder: join(repositoryRoot, "dist"),
      name: "hostler-9.9.9",
      faults: false,
      version: "9.9.9",
    });
    const two = `[process.it]\n${sleeper}\n[process.nobody]\n${sleeper}\nuser = "nobody"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration: two });
    const { controlSocket } = orchestrator;
    const processIds = [await orchestrator.started("it"), await orchestrator.started("nobody")];
    const own = await aboutOf(controlSocket);
    const other = await digestOf(path);
    const command = [hostler(), "process", "reexecute", "--control-socket", controlSocket];
    const gone = await runProgram([...command, path, "--digest", other, "--json"]);
    expect(gone.stderr).toBe("");
    expect(JSON.parse(gone.stdout)).toMatchObject({
      version: "9.9.9",
      digest: other,
      program: path,
      process_id: own.process_id,
    });
    expect(readFileSync(`/proc/${own.process_id}/comm`, "utf8")).toBe("hostler\n");
    // By itself it goes on as the file that its unit would start.
    const back = await runProgram(command);
    expect(back.stdout).toContain(`SHA-256   ${own.digest}\n`);
    const next = await again(orchestrator);
    expect((await next.list()).map(({ pid, restarts }) => [pid, restarts])).toEqual(
      processIds.map((processId) => [processId, 0]),
    );
    // The launcher of the program that runs now starts what comes next.
    process.kill(processIds[1] as number, "SIGKILL");
    await next.events.nth("nobody", "started", 2);
    next.client.close();
  });

  test("the lock is held throughout, and the journal names all that runs", async () => {
    using folder = temporaryFolder();
    const configuration = `${withoutHolder}[process.it]\n${sleeper}\n`;
    const { running, gap } = await beginWithGap(localPlace, folder, configuration);
    await using _running = running;
    const { orchestrator } = running;
    await orchestrator.started("it");
    const invocation = (await orchestrator.summary("it")).invocation as string;
    const words = ["process", "orchestrator", "--config", folder.file("process.toml")];
    const second = [hostler(), ...words, "--control-socket", orchestrator.controlSocket];
    const expectRefused = async () => {
      const { exitCode, stderr } = await runProgram(second);
      expect([exitCode, stderr]).toEqual([111, expect.stringContaining("Another orchestrator")]);
    };
    const next = await through(running, gap, expectRefused);
    await expectRefused();
    expect(journaled(orchestrator.controlSocket)).toContain(invocation);
    next.client.close();
    // As after any kill: the next one ends what this one has left.
    orchestrator.program.kill("SIGKILL");
    await orchestrator.program.ended();
    await using other = await startOrchestrator({ folder, configuration });
    await other.started("it");
    expect(findInvocation(invocation).found).toEqual([]);
  });
});
