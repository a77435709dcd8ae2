/** The orchestrator is killed, and the next one goes on with what its holder has kept. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { adoptionSteps } from "../../src/process/perform/keeping.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { descriptorsIn, holderOf, holdersOf, noHolder } from "../support/holding.ts";
import { kept, killHolder, killOrchestrator } from "../support/kept.ts";
import { lonelyChild } from "../support/lonely-child.ts";
import {
  spawnOrchestrator,
  startOrchestrator,
  type TestOrchestrator,
} from "../support/orchestrator.ts";
import {
  allPlaces,
  begin,
  bothPlaces,
  localPlace,
  type Place,
  type Running,
} from "../support/orchestrator-partition.ts";
import { isAlive } from "../support/partition.ts";
import { aboutOf, again, reexecute } from "../support/reexecution.ts";
import { root, skipUnless } from "../support/skips.ts";
import { suspend } from "../support/suspend.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

/** The next orchestrator, at the same place. */
async function next(
  { partition }: Running,
  folder: TemporaryFolder,
  lines: string,
  options: { readonly binary?: string; readonly environment?: Record<string, string> } = {},
): Promise<TestOrchestrator> {
  const here = partition === undefined ? "" : 'partition = "qm"';
  const rest = partition === undefined ? "" : `[partition.qm]\nsocket = "${partition.socket}"\n`;
  const configuration = `${lines.replaceAll("@here", here)}\n${rest}`;
  return await startOrchestrator({ folder, configuration, ...options });
}

const faultsOf = ({ absent }: Place) =>
  absent === undefined
    ? {}
    : { binary: hostlerWithFaults(), environment: { HOSTLER_ABSENT: absent } };

/** Waits in Perl until a file is there. */
const until = (path: string) => `select(undef, undef, undef, 0.01) until -e "${path}";`;

skipUnless("what a killed orchestrator left running", root, () => {
  for (const place of bothPlaces) {
    test(`logs throughout the gap, and loses no line: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const [go, done] = [folder.file("go"), folder.file("done")];
      const child = lonelyChild(
        folder,
        `$| = 1; print "before\\n"; ${until(go)} print "line $_\\n" for 1 .. 1000;
         open(my $file, ">", "${done}"); close $file; sleep 1000000 while 1;`,
      );
      const lines = `[process.it]\n@here\n${child.table}\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      const pid = await orchestrator.started("it");
      await kept(orchestrator);
      await waitFor("its first line", async () => (await orchestrator.logs()).length === 1);
      await killOrchestrator(orchestrator);
      writeFileSync(go, "");
      await waitFor("what it says in the gap", () => existsSync(done));
      await using second = await next(running, folder, lines);
      const event = await second.events.nth("it", "adopted");
      expect(event.pid).toBe(pid);
      const said = await waitFor("all that it said", async () => {
        const found = await second.logs();
        return found.length >= 1_000 && found.map(({ line }) => line);
      });
      expect(said).toEqual(Array.from({ length: 1_000 }, (_, index) => `line ${index + 1}`));
      const { pid: own, phase, reason } = await second.summary("it");
      expect({ own, phase, reason }).toEqual({
        own: pid,
        phase: "ready",
        reason: "adopted: found running",
      });
      expect(await child.lives()).toEqual([pid]);
      expect(await second.stop()).toBe(0);
      await waitFor("nobody is left", () => child.alive.length === 0);
      expect(child.metAnother).toBe(false);
      await noHolder(second.controlSocket);
      expect(existsSync(`${second.controlSocket}.holder`)).toBe(false);
    });
  }

  for (const place of allPlaces) {
    test(`ends in the gap: its exit is told, and the rule followed: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const go = folder.file("go");
      const rest = `exit 0 if -e "${go}.second"; ${until(go)} exit 7;`;
      const child = lonelyChild(folder, rest);
      const lines = `[process.it]\n@here\n${child.table}\nrestart = "on-failure"\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      const pid = await orchestrator.started("it");
      await kept(orchestrator);
      await killOrchestrator(orchestrator);
      writeFileSync(`${go}.second`, "");
      writeFileSync(go, "");
      await waitFor("its end", () => !isAlive(pid));
      await using second = await next(running, folder, lines, faultsOf(place));
      const { ending } = await second.events.nth("it", "ended", 1);
      if (place.absent === undefined) expect(ending).toEqual({ kind: "exited", status: 7 });
      else expect(ending).toMatchObject({ kind: "unknown" });
      await second.started("it");
      expect(second.events.story("adopted", "died")).toEqual(["it died"]);
      expect((await second.summary("it")).restarts).toBe(1);
      expect(child.metAnother).toBe(false);
    });

    test(`dies after it was adopted: told, and restarted: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const child = lonelyChild(folder);
      const lines = `[process.it]\n@here\n${child.table}\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      await orchestrator.started("it");
      await kept(orchestrator);
      await killOrchestrator(orchestrator);
      await using second = await next(running, folder, lines, faultsOf(place));
      const { pid = 0 } = await second.events.nth("it", "adopted");
      process.kill(pid, "SIGKILL");
      const { ending } = await second.events.nth("it", "ended");
      if (place.absent === undefined) {
        expect(ending).toMatchObject({ kind: "signalled", signal: 9 });
      } else expect(ending).toMatchObject({ kind: "unknown" });
      const restarted = await second.started("it");
      expect(await child.lives()).toEqual([restarted]);
      expect(child.metAnother).toBe(false);
    });
  }

  test("is told by its own kill, twice in a row", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const lines = `[process.it]\n${child.table}\n`;
    await using running = await begin(localPlace, folder, lines);
    const pid = await running.orchestrator.started("it");
    await kept(running.orchestrator);
    await killOrchestrator(running.orchestrator);
    await using second = await next(running, folder, lines);
    await second.events.nth("it", "adopted");
    await kept(second);
    await killOrchestrator(second);
    await using third = await next(running, folder, lines);
    expect((await third.events.nth("it", "adopted")).pid).toBe(pid);
    expect(await child.lives()).toEqual([pid]);
    expect(child.metAnother).toBe(false);
  });

  test("tells its readiness in the gap: it is heard", async () => {
    using folder = temporaryFolder();
    const [go, told] = [folder.file("go"), folder.file("told")];
    const notify = `use Socket; my $to = $ENV{NOTIFY_SOCKET}; ${until(go)}
      socket(my $socket, AF_UNIX, SOCK_DGRAM, 0); $to =~ s/^@/\\0/;
      send($socket, "READY=1", 0, pack_sockaddr_un($to)) or die "cannot send: $!";
      open(my $file, ">", "${told}"); close $file; sleep 1000000 while 1;`;
    const child = lonelyChild(folder, notify);
    const lines = `[process.it]\n${child.table}\nready = "notify"\n`;
    await using running = await begin(localPlace, folder, lines);
    const { orchestrator } = running;
    const pid = await orchestrator.started("it");
    await kept(orchestrator);
    await killOrchestrator(orchestrator);
    writeFileSync(go, "");
    await waitFor("its notice", () => existsSync(told));
    await using second = await next(running, folder, lines);
    await second.events.nth("it", "ready");
    expect(second.events.story()).toEqual(["it adopted", "it ready"]);
    expect(await child.lives()).toEqual([pid]);
  });

  test("was being stopped with everything: it is wanted as before", async () => {
    using folder = temporaryFolder();
    const stubborn = lonelyChild(folder, '$SIG{TERM} = "IGNORE"; sleep 1000000 while 1;');
    const lines = `[process.it]\n${stubborn.table}\nstop_grace = "1h"\n
      [process.other]\ncommand = ["sleep", "1000"]\nafter = ["it"]\n`;
    await using running = await begin(localPlace, folder, lines);
    const { orchestrator } = running;
    const pid = await orchestrator.started("it");
    await orchestrator.started("other");
    await kept(orchestrator, 2);
    orchestrator.program.kill("SIGTERM");
    await orchestrator.events.nth("it", "stop-requested");
    await killOrchestrator(orchestrator);
    await using second = await next(running, folder, lines);
    expect((await second.events.nth("it", "adopted")).pid).toBe(pid);
    await second.client.request("wait", { name: "other", until: "ready" });
    expect(stubborn.metAnother).toBe(false);
  });

  test("was stopped, had failed, or was waiting: it is so still", async () => {
    using folder = temporaryFolder();
    const lines = `
      [process.it]\ncommand = ["sleep", "1000"]
      [process.stopped]\ncommand = ["sleep", "1000"]
      [process.failed]\ncommand = ["false"]\nstart_limit = {starts = 3, within = "1h"}
      backoff = "none"
      [process.waits]\ncommand = ["false"]\nbackoff = {first = "1h", cap = "1h"}\n`;
    await using running = await begin(localPlace, folder, lines);
    const { orchestrator } = running;
    await orchestrator.started("stopped");
    await orchestrator.client.request("stop", { name: "stopped", now: true });
    await orchestrator.events.nth("failed", "failed");
    await orchestrator.events.nth("waits", "backing-off");
    await waitFor("the stop", async () => (await orchestrator.summary("stopped")).phase === "idle");
    await kept(orchestrator, 1);
    const before = await orchestrator.list();
    // What is told last is written down with it.
    process.kill(await orchestrator.started("it"), "SIGKILL");
    await orchestrator.started("it", 2);
    await kept(orchestrator, 3);
    await killOrchestrator(orchestrator);
    await using second = await next(running, folder, lines);
    await second.events.nth("it", "adopted");
    const after = await second.list();
    const of = (list: typeof before) =>
      list
        .filter(({ name }) => name !== "it")
        .map(({ name, phase, restarts }) => ({ name, phase, restarts }));
    expect(of(after)).toEqual(of(before));
    expect(after.find(({ name }) => name === "it")?.restarts).toBe(1);
  });
});

/** Ends what was left and starts anew; every loss is said. */
async function expectAnew(second: TestOrchestrator, pid: number, reason: RegExp): Promise<void> {
  await second.client.request("wait", { name: "it", until: "ready" });
  const lost = await second.events.nth("it", "lost");
  expect(lost.detail).toMatch(reason);
  expect(isAlive(pid)).toBe(false);
  const summary = await second.summary("it");
  expect(summary.pid).not.toBe(pid);
  expect(summary.reason).toMatch(reason);
}

skipUnless("what cannot be gone on with", root, () => {
  for (const place of bothPlaces) {
    test(`the holder is killed as well: ended, and started anew: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const child = lonelyChild(folder);
      const lines = `[process.it]\n@here\n${child.table}\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      const pid = await orchestrator.started("it");
      await kept(orchestrator);
      await killOrchestrator(orchestrator);
      await killHolder(orchestrator.controlSocket);
      await using second = await next(running, folder, lines);
      await expectAnew(second, pid, /nothing was kept of it/);
      await second.program.said(/ended what an orchestrator that was killed had left running/);
      expect(child.metAnother).toBe(false);
      expect(await second.stop()).toBe(0);
    });
  }

  test("the holder alone is killed: another one is filled, and is as good", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const lines = `[process.it]\n${child.table}\n`;
    await using running = await begin(localPlace, folder, lines);
    const { orchestrator } = running;
    const pid = await orchestrator.started("it");
    await kept(orchestrator);
    const first = await holderOf(orchestrator.controlSocket);
    process.kill(first, "SIGKILL");
    await waitFor("another holder that has all", async () => {
      const [processId] = holdersOf(orchestrator.controlSocket);
      if (processId === undefined || processId === first) return false;
      const pipes = [...descriptorsIn(processId).values()].filter((to) => to.startsWith("pipe:"));
      return pipes.length >= 4;
    });
    await kept(orchestrator);
    await killOrchestrator(orchestrator);
    await using second = await next(running, folder, lines);
    expect((await second.events.nth("it", "adopted")).pid).toBe(pid);
  });

  test("the holder hangs: it is killed, and what was left is ended", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const lines = `[process.it]\n${child.table}\n`;
    await using running = await begin(localPlace, folder, lines);
    const { orchestrator } = running;
    const pid = await orchestrator.started("it");
    await kept(orchestrator);
    const holder = await holderOf(orchestrator.controlSocket);
    await killOrchestrator(orchestrator);
    suspend(holder);
    await using second = await next(running, folder, lines);
    await second.program.said(/has not handed over what it keeps within 5.00 s, and is killed/);
    await expectAnew(second, pid, /nothing was kept of it/);
    expect(child.metAnother).toBe(false);
    await kept(second);
    expect(await holderOf(second.controlSocket)).not.toBe(holder);
  });

  test("it is told to stop while the holder hangs: it stops what it ends with", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const lines = `[process.it]\n${child.table}\n`;
    await using running = await begin(localPlace, folder, lines);
    const { orchestrator } = running;
    await orchestrator.started("it");
    await kept(orchestrator);
    const holder = await holderOf(orchestrator.controlSocket);
    await killOrchestrator(orchestrator);
    suspend(holder);
    await using second = spawnOrchestrator({ folder, configuration: lines });
    await waitFor("its hold on the lock", () => {
      const said = readFileSync(`${orchestrator.controlSocket}.lock`, "utf8");
      return Number(said) === second.processId;
    });
    second.kill("SIGTERM");
    expect((await second.ended()).exitCode).toBe(0);
    await waitFor("nobody is left", () => child.alive.length === 0);
  });

  test("holder = false: no holder, and what was left is ended", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const lines = `[orchestrator]\nholder = false\n[process.it]\n${child.table}\n`;
    await using running = await begin(localPlace, folder, lines);
    const { orchestrator } = running;
    const pid = await orchestrator.started("it");
    await orchestrator.client.request("wait", { name: "it", until: "ready" });
    await killOrchestrator(orchestrator);
    expect(holdersOf(orchestrator.controlSocket)).toEqual([]);
    await using second = await next(running, folder, lines);
    await second.client.request("wait", { name: "it", until: "ready" });
    expect(isAlive(pid)).toBe(false);
    expect(child.metAnother).toBe(false);
    expect(holdersOf(orchestrator.controlSocket)).toEqual([]);
  });

  test("holder = false after one that had a holder: that one is let go", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const lines = `[process.it]\n${child.table}\n`;
    await using running = await begin(localPlace, folder, lines);
    const { orchestrator } = running;
    const pid = await orchestrator.started("it");
    await kept(orchestrator);
    await killOrchestrator(orchestrator);
    const without = `[orchestrator]\nholder = false\n${lines}`;
    await using second = await next(running, folder, without);
    await second.client.request("wait", { name: "it", until: "ready" });
    expect(isAlive(pid)).toBe(false);
    await noHolder(orchestrator.controlSocket);
  });

  test("its configuration has changed: it is started as it says now", async () => {
    using folder = temporaryFolder();
    const lines = `[process.it]\ncommand = ["sleep", "1000"]\n`;
    await using running = await begin(localPlace, folder, lines);
    const { orchestrator } = running;
    const pid = await orchestrator.started("it");
    await kept(orchestrator);
    await killOrchestrator(orchestrator);
    await using second = await next(running, folder, lines.replace("1000", "1001"));
    await expectAnew(second, pid, /its configuration has changed/);
  });

  test("it is not in the configuration any more: it is ended", async () => {
    using folder = temporaryFolder();
    const other = `[process.other]\ncommand = ["sleep", "1000"]\n`;
    const lines = `[process.it]\ncommand = ["sleep", "1000"]\n${other}`;
    await using running = await begin(localPlace, folder, lines);
    const { orchestrator } = running;
    const pid = await orchestrator.started("it");
    const otherPid = await orchestrator.started("other");
    await kept(orchestrator, 2);
    await killOrchestrator(orchestrator);
    await using second = await next(running, folder, other);
    expect((await second.events.nth("other", "adopted")).pid).toBe(otherPid);
    expect(isAlive(pid)).toBe(false);
  });

  test("the crash journal on the disk is removed: what was kept is enough to go on", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const lines = `[process.it]\n${child.table}\n`;
    await using running = await begin(localPlace, folder, lines);
    const { orchestrator } = running;
    const pid = await orchestrator.started("it");
    await kept(orchestrator);
    await killOrchestrator(orchestrator);
    rmSync(`${orchestrator.controlSocket}.journal`);
    await using second = await next(running, folder, lines);
    await second.program.said(/crash journal .* is missing/);
    expect((await second.events.nth("it", "adopted")).pid).toBe(pid);
    expect(await child.lives()).toEqual([pid]);
  });

  test("the journal that was kept is damaged: told, and ended", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const lines = `[process.it]\n${child.table}\n`;
    await using running = await begin(localPlace, folder, lines);
    const { orchestrator } = running;
    const pid = await orchestrator.started("it");
    await kept(orchestrator);
    await killOrchestrator(orchestrator);
    const holder = await holderOf(orchestrator.controlSocket);
    for (const [number, to] of descriptorsIn(holder)) {
      if (!to.startsWith("/memfd:hostler-journal")) continue;
      const path = `/proc/${holder}/fd/${number}`;
      writeFileSync(path, readFileSync(path, "utf8").replace('"phase"', '"face"'));
    }
    await using second = await next(running, folder, lines);
    await second.program.said(/the journal that the holder kept is damaged: expected a process/);
    await expectAnew(second, pid, /nothing was kept of it/);
    expect(child.metAnother).toBe(false);
  });
});

skipUnless("the orchestrator is killed while it goes on with what was left", root, () => {
  for (const step of adoptionSteps) {
    for (const place of bothPlaces) {
      test(`at ${step}: the one after it does: ${place.title}`, async () => {
        using folder = temporaryFolder();
        const child = lonelyChild(folder);
        const lines = `[process.it]\n@here\n${child.table}\n`;
        await using running = await begin(place, folder, lines);
        const { orchestrator, partition } = running;
        const pid = await orchestrator.started("it");
        await kept(orchestrator);
        await killOrchestrator(orchestrator);
        const here = partition === undefined ? "" : 'partition = "qm"';
        const rest =
          partition === undefined ? "" : `[partition.qm]\nsocket = "${partition.socket}"\n`;
        await using dying = spawnOrchestrator({
          folder,
          configuration: `${lines.replaceAll("@here", here)}\n${rest}`,
          binary: hostlerWithFaults(),
          environment: { HOSTLER_KILL_AT: step },
        });
        expect((await dying.ended()).signal).toBe("SIGKILL");
        await using third = await next(running, folder, lines);
        expect((await third.events.nth("it", "adopted")).pid).toBe(pid);
        expect(await child.lives()).toEqual([pid]);
        expect(child.metAnother).toBe(false);
      });
    }
  }
});

skipUnless("another program in the place of the orchestrator", root, () => {
  test("leaks no descriptor to the holder or beside it, three times", async () => {
    const configuration = '[process.it]\ncommand = ["sleep", "1000"]\n';
    await using orchestrator = await startOrchestrator({ configuration });
    const { controlSocket, program } = orchestrator;
    await orchestrator.started("it");
    const count = () => readdirSync(`/proc/${program.processId}/fd`).length;
    // Four ends of pipes, a pidfd, and one journal.
    const keepsAll = async () => (await aboutOf(controlSocket)).holder?.kept === 6;
    await waitFor("all to be kept", keepsAll);
    const holder = await holderOf(controlSocket);
    const before = count();
    for (let round = 1; round <= 3; round += 1) {
      await reexecute(controlSocket);
      await waitFor("all to be kept, and nothing else", keepsAll);
      await waitFor(`${before} descriptors`, () => count() === before);
    }
    expect(await holderOf(controlSocket)).toBe(holder);
  });

  test("goes on with what was adopted, and when it is killed the next one does", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const lines = `[process.it]\n${child.table}\n`;
    await using running = await begin(localPlace, folder, lines);
    const pid = await running.orchestrator.started("it");
    await kept(running.orchestrator);
    await killOrchestrator(running.orchestrator);
    await using second = await next(running, folder, lines);
    await second.events.nth("it", "adopted");
    await kept(second);
    await reexecute(second.controlSocket, { program: hostler() });
    const other = await again(second);
    expect((await other.summary("it")).pid).toBe(pid);
    await kept(other);
    process.kill(pid, "SIGKILL");
    const { ending } = await other.events.nth("it", "ended");
    expect(ending).toMatchObject({ kind: "signalled", signal: 9 });
    const restarted = await other.started("it");
    await kept(other);
    await killOrchestrator(other);
    other.client.close();
    await using third = await next(running, folder, lines);
    expect((await third.events.nth("it", "adopted")).pid).toBe(restarted);
    expect(await child.lives()).toEqual([restarted]);
    expect(child.metAnother).toBe(false);
  });
});
