/** A process that is ready, and does its work no more: by a check, and by its own word. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostler } from "../support/binary.ts";
import { kept, killOrchestrator } from "../support/kept.ts";
import { lonelyChild } from "../support/lonely-child.ts";
import { startOrchestrator, type TestOrchestrator } from "../support/orchestrator.ts";
import { begin, bothPlaces, partitionPlace } from "../support/orchestrator-partition.ts";
import { runProgram } from "../support/program.ts";
import { again, reexecute } from "../support/reexecution.ts";
import { root, skipUnless } from "../support/skips.ts";
import { suspend } from "../support/suspend.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const sleeper = 'command = ["sleep", "1000"]';

/** A check that succeeds as long as a file is there, every 20 ms. */
const whileThere = (path: string, more = "") =>
  `alive = {command = ["test", "-e", "${path}"], interval = "20ms"${more}}`;

/** Says WATCHDOG=1 every 20 ms as long as a file is there; ready from its first word on. */
const beats = (path: string) => `
  use Socket;
  socket(my $notify, PF_UNIX, SOCK_DGRAM, 0);
  my $name = $ENV{NOTIFY_SOCKET};
  $name =~ s/^@/\\0/;
  my $address = pack("S a*", AF_UNIX, $name);
  sub say_word { send($notify, $_[0], 0, $address); }
  say_word("READY=1\\nWATCHDOG=1");
  $| = 1;
  print "every $ENV{WATCHDOG_USEC}\\n";
  while (1) {
    say_word("WATCHDOG=1") if -e "${path}";
    select(undef, undef, undef, 0.02);
  }
`;

const reasonOf = async (orchestrator: TestOrchestrator) =>
  (await orchestrator.summary("it")).reason;

skipUnless("a process that does its work no more", root, () => {
  for (const place of bothPlaces) {
    test(`its check fails so often in a row: restarted: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const file = folder.file("well");
      writeFileSync(file, "");
      const child = lonelyChild(folder);
      const lines = `[process.it]\n@here\n${child.table}\n${whileThere(file)}\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      const pid = await orchestrator.started("it");
      rmSync(file);
      const { detail } = await orchestrator.events.nth("it", "unhealthy");
      expect(detail).toBe("its check fails (exit 1), 3 times in a row");
      const { ending } = await orchestrator.events.nth("it", "ended");
      expect(ending).toMatchObject({ kind: "signalled", signal: 15 });
      const second = await orchestrator.started("it", 2);
      expect(second).not.toBe(pid);
      // Quickly again: it waits, and says what for.
      await orchestrator.events.nth("it", "backing-off");
      writeFileSync(file, "");
      await orchestrator.started("it", 3);
      expect(child.metAnother).toBe(false);
      const shown = await runProgram([
        ...[hostler(), "process", "show", "it"],
        ...["--control-socket", orchestrator.controlSocket],
      ]);
      expect(shown.stdout).toMatch(
        /^alive +command test -e \S+ every 20 ms, 3 failures in a row; else restart$/m,
      );
      expect(await orchestrator.stop()).toBe(0);
    });

    test(`its watchdog is silent: restarted: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const file = folder.file("well");
      writeFileSync(file, "");
      const command = JSON.stringify(["perl", "-e", beats(file)]);
      const lines = `[process.it]\n@here\ncommand = ${command}\nready = "notify"
        alive = {watchdog = "400ms"}\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      await orchestrator.events.nth("it", "ready");
      const logs = orchestrator.followLogs();
      await logs.until("its variable", (all) => all.some(({ line }) => line === "every 400000"));
      rmSync(file);
      const { detail } = await orchestrator.events.nth("it", "unhealthy");
      expect(detail).toBe("no WATCHDOG=1 for 400 ms");
      writeFileSync(file, "");
      await orchestrator.started("it", 2);
      expect(await orchestrator.stop()).toBe(0);
    });
  }

  test("a few failures are none, and one that takes too long is one", async () => {
    using folder = temporaryFolder();
    const counter = folder.file("count");
    const script = `n=$(cat ${counter} 2>/dev/null || echo 0); echo $((n+1)) > ${counter};
      test $((n % 3)) -eq 2 || test $n -gt 30`;
    const check = JSON.stringify(["sh", "-c", script]);
    const slow = JSON.stringify(["sleep", "1000"]);
    const lines = `[process.it]\n${sleeper}
      alive = {command = ${check}, interval = "5ms", failures = 3}
      [process.slow]\n${sleeper}
      alive = {command = ${slow}, interval = "5ms", timeout = "50ms", failures = 2}\n`;
    await using orchestrator = await startOrchestrator({ configuration: lines });
    await waitFor("many checks", () => {
      return existsSync(counter) && Number(readFileSync(counter, "utf8")) > 31;
    });
    const { detail } = await orchestrator.events.nth("slow", "unhealthy");
    expect(detail).toBe("its check takes longer than 50 ms, 2 times in a row");
    expect(orchestrator.events.of("it", "unhealthy")).toEqual([]);
    expect(await orchestrator.stop()).toBe(0);
  });

  for (const [way, target] of [
    ["tcp", '"127.0.0.1:PORT"'],
    ["unix", '"PATH"'],
  ] as const) {
    test(`nobody listens any more: ${way}`, async () => {
      using folder = temporaryFolder();
      const path = folder.file("listens");
      const listener =
        way === "tcp"
          ? Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data: () => {} } })
          : Bun.listen({ unix: path, socket: { data: () => {} } });
      const port = "port" in listener ? String(listener.port) : "";
      const there = target.replace("PORT", port).replace("PATH", path);
      const lines = `[process.it]\n${sleeper}
        alive = {${way} = ${there}, interval = "10ms", failures = 1, on_failure = "degrade"}\n`;
      await using orchestrator = await startOrchestrator({ configuration: lines });
      const pid = await orchestrator.started("it");
      listener.stop(true);
      const { detail } = await orchestrator.events.nth("it", "degraded");
      const why = way === "tcp" ? /^its check fails \(.*Connection refused/ : /nobody takes/;
      expect(detail).toMatch(why);
      expect(await reasonOf(orchestrator)).toBe(`degraded: ${detail}`);
      expect((await orchestrator.summary("it")).pid).toBe(pid);
    });
  }

  test("one that is left running recovers, which is told", async () => {
    using folder = temporaryFolder();
    const file = folder.file("well");
    writeFileSync(file, "");
    const lines = `[process.it]\n${sleeper}\n${whileThere(file, ', on_failure = "degrade"')}\n`;
    await using orchestrator = await startOrchestrator({ configuration: lines });
    rmSync(file);
    await orchestrator.events.nth("it", "degraded");
    writeFileSync(file, "");
    await orchestrator.events.nth("it", "recovered");
    expect(await reasonOf(orchestrator)).toBeNull();
    rmSync(file);
    await orchestrator.events.nth("it", "degraded", 2);
    expect(orchestrator.events.story("started", "degraded", "recovered")).toEqual([
      "it started",
      "it degraded",
      "it recovered",
      "it degraded",
    ]);
  });

  test("an orchestrator that is held up hears what was said meanwhile", async () => {
    using folder = temporaryFolder();
    const file = folder.file("well");
    writeFileSync(file, "");
    const command = JSON.stringify(["perl", "-e", beats(file)]);
    const lines = `[process.it]\ncommand = ${command}\nready = "notify"
      alive = {watchdog = "300ms"}\n`;
    await using orchestrator = await startOrchestrator({ configuration: lines });
    await orchestrator.events.nth("it", "ready");
    suspend(orchestrator.program.processId);
    // It is the clock that is waited for: twice as long as its watchdog may be silent.
    const until = performance.now() + 600;
    await waitFor("the time in which it would be unhealthy", () => performance.now() > until);
    orchestrator.program.kill("SIGCONT");
    const { stdout } = await runProgram([
      ...[hostler(), "process", "events"],
      ...["--control-socket", orchestrator.controlSocket],
    ]);
    expect(stdout).not.toContain("unhealthy");
    rmSync(file);
    await orchestrator.events.nth("it", "unhealthy");
  });

  test("an agent that is away says nothing of its processes", async () => {
    using folder = temporaryFolder();
    const counter = folder.file("count");
    const count = JSON.stringify(["sh", "-c", `printf x >> ${counter}`]);
    const lines = `[process.it]\n@here\n${sleeper}
      alive = {tcp = "127.0.0.1:1", interval = "10ms", failures = 40, on_failure = "degrade"}
      [process.other]\n${sleeper}\nalive = {command = ${count}, interval = "10ms"}\n`;
    await using running = await begin(partitionPlace, folder, lines);
    const { orchestrator, partition } = running;
    await orchestrator.started("it");
    process.kill(running.agent, "SIGKILL");
    await orchestrator.program.said(/partition qm is away/);
    await waitFor("many checks of the other", () => {
      return existsSync(counter) && readFileSync(counter, "latin1").length > 60;
    });
    expect(orchestrator.events.of("it", "degraded")).toEqual([]);
    await partition?.startAgent();
    await orchestrator.events.nth("it", "degraded", 1);
  });

  test("an agent that hangs says nothing of its processes either", async () => {
    using folder = temporaryFolder();
    const counter = folder.file("count");
    const count = JSON.stringify(["sh", "-c", `printf x >> ${counter}`]);
    const lines = `[process.it]\n@here\n${sleeper}
      alive = {command = ["true"], interval = "20ms", timeout = "100ms", failures = 1}
      [process.other]\n${sleeper}\nalive = {command = ${count}, interval = "20ms"}\n`;
    await using running = await begin(partitionPlace, folder, lines);
    const { orchestrator, agent } = running;
    await orchestrator.started("it");
    suspend(agent);
    const before = existsSync(counter) ? readFileSync(counter, "latin1").length : 0;
    await waitFor("many checks of the other", () => {
      return existsSync(counter) && readFileSync(counter, "latin1").length > before + 20;
    });
    process.kill(agent, "SIGCONT");
    expect(orchestrator.events.of("it", "unhealthy")).toEqual([]);
  });

  test("the next orchestrator, and the next program, look on", async () => {
    using folder = temporaryFolder();
    const file = folder.file("well");
    writeFileSync(file, "");
    const table = (name: string, more: string) =>
      `[process.${name}]\ncommand = ${JSON.stringify(["perl", "-e", beats(file)])}\n${more}\n`;
    const lines = table("it", 'ready = "notify"\nalive = {watchdog = "500ms"}');
    await using orchestrator = await startOrchestrator({ folder, configuration: lines });
    await orchestrator.events.nth("it", "ready");
    await kept(orchestrator);
    await reexecute(orchestrator.controlSocket);
    const after = await again(orchestrator);
    after.client.close();
    await killOrchestrator(orchestrator);
    await using next = await startOrchestrator({ folder, configuration: lines });
    await next.events.nth("it", "adopted");
    expect(next.events.of("it", "unhealthy")).toEqual([]);
    rmSync(file);
    await next.events.nth("it", "unhealthy");
    writeFileSync(file, "");
    await next.events.nth("it", "ready");
  });

  test("a reload begins to look, and ends it", async () => {
    using folder = temporaryFolder();
    const file = folder.file("well");
    const lines = (more: string) => `[process.it]\n${sleeper}\n${more}\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration: lines("") });
    const pid = await orchestrator.started("it");
    const reload = async (more: string) => {
      writeFileSync(folder.file("process.toml"), lines(more));
      const { controlSocket } = orchestrator;
      const words = ["process", "reload", "--wait", "--control-socket", controlSocket];
      return await runProgram([hostler(), ...words]);
    };
    const degrade = whileThere(file, ', on_failure = "degrade"');
    expect((await reload(degrade)).stdout).toContain("changed while it runs: it (alive)");
    await orchestrator.events.nth("it", "degraded");
    expect((await reload("")).exitCode).toBe(0);
    expect(await reasonOf(orchestrator)).toBeNull();
    // Another check takes up where the one before it was.
    expect((await reload(degrade)).exitCode).toBe(0);
    writeFileSync(file, "");
    await orchestrator.events.nth("it", "recovered");
    rmSync(file);
    await orchestrator.events.nth("it", "degraded", 2);
    expect((await orchestrator.summary("it")).pid).toBe(pid);
  });
});
