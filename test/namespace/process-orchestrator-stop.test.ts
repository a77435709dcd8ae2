/** How processes are stopped, one by one and all together. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { statusOf } from "../../src/process/perform/process-table.ts";
import { Signal } from "../../src/units/signals.ts";
import { lonelyChild } from "../support/lonely-child.ts";
import type { TestOrchestrator } from "../support/orchestrator.ts";
import { begin, bothPlaces, localPlace } from "../support/orchestrator-partition.ts";
import { root, skipUnless } from "../support/skips.ts";
import { suspend } from "../support/suspend.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf, waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const told = (file: string) => `open(F, ">", "${file}"); close F;`;
/** Says by a file that it is past its beginning: a signal before that would meet no handler. */
const waits = (file: string) => `${told(file)} sleep 1000000 while 1;`;

async function stopAndWait(orchestrator: TestOrchestrator, fields: { now?: boolean } = {}) {
  await orchestrator.client.request("stop", { name: "it", ...fields });
  await orchestrator.client.request("wait", { name: "it", until: "stopped" });
  // Of a process in a partition this is known when it has been reaped, a little later.
  await orchestrator.events.nth("it", "ended");
  const { phase, pid, last_exit, restarts } = await orchestrator.summary("it");
  expect({ phase, pid, restarts }).toEqual({ phase: "idle", pid: null, restarts: 0 });
  return last_exit;
}

const killed = { kind: "signalled", signal: Signal.SIGKILL, core_dumped: false } as const;

skipUnless("stop", root, () => {
  for (const place of bothPlaces) {
    test(`SIGTERM is respected: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const up = folder.file("up");
      const child = lonelyChild(folder, `$SIG{TERM} = sub { exit 5 }; ${waits(up)}`);
      await using running = await begin(place, folder, `[process.it]\n@here\n${child.table}\n`);
      await waitFor("its beginning", () => existsSync(up));
      const ending = await stopAndWait(running.orchestrator);
      expect(ending).toEqual({ kind: "exited", status: 5 });
      expect(running.orchestrator.events.of("it", "killed")).toEqual([]);
      await waitFor("nobody is left", () => child.alive.length === 0);
    });

    test(`the stop signal is the one of the configuration: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const up = folder.file("up");
      const handlers = `$SIG{TERM} = sub { exit 5 }; $SIG{QUIT} = sub { exit 6 };`;
      const child = lonelyChild(folder, `${handlers} ${waits(up)}`);
      const lines = `[process.it]\n@here\n${child.table}\nstop_signal = "SIGQUIT"\n`;
      await using running = await begin(place, folder, lines);
      await waitFor("its beginning", () => existsSync(up));
      const ending = await stopAndWait(running.orchestrator);
      expect(ending).toEqual({ kind: "exited", status: 6 });
    });

    test(`SIGTERM ignored: SIGKILL to the group after the grace: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const up = folder.file("up");
      const ignore = `$SIG{TERM} = "IGNORE"; fork(); fork();`;
      const child = lonelyChild(folder, `${ignore} ${waits(up)}`);
      const lines = `[process.it]\n@here\n${child.table}\nstop_grace = "150ms"\n`;
      await using running = await begin(place, folder, lines);
      await waitFor("four of them", () => existsSync(up) && child.alive.length === 4);
      const ending = await stopAndWait(running.orchestrator);
      expect(ending).toEqual(killed);
      const story = running.orchestrator.events.of("it").map((event) => event.what);
      const tail = ["stop-requested", "killed", "died", "ended"];
      expect(story.filter((what) => tail.includes(what))).toEqual(tail);
      await waitFor("nobody is left", () => child.alive.length === 0);
    });

    test(`stopped by SIGSTOP: it dies after the grace all the same: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const child = lonelyChild(folder);
      const lines = `[process.it]\n@here\n${child.table}\nstop_grace = "100ms"\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      const processId = await orchestrator.started("it");
      suspend(processId);
      await waitFor("the standstill", () => statusOf(processId)?.state === "T");
      expect(await stopAndWait(orchestrator)).toEqual(killed);
      await waitFor("nobody is left", () => child.alive.length === 0);
    });

    test(`forks away: the child in its group is ended: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const child = lonelyChild(folder, "if (fork()) { exit 0 } sleep 1000000 while 1;");
      const lines = `[process.it]\n@here\n${child.table}\nrestart = "never"\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      await orchestrator.client.request("wait", { name: "it", until: "stopped" });
      expect((await orchestrator.summary("it")).phase).toBe("finished");
      await waitFor("nobody", () => child.alive.length === 0);
    });

    test(`closes its descriptors: it is watched all the same: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const close = "close STDIN; close STDOUT; close STDERR;";
      const child = lonelyChild(
        folder,
        `use POSIX (); POSIX::close($_) for 0 .. 2; ${close}
        sleep 1000000 while 1;`,
      );
      await using running = await begin(place, folder, `[process.it]\n@here\n${child.table}\n`);
      const { orchestrator } = running;
      process.kill(await orchestrator.started("it"), "SIGKILL");
      await orchestrator.started("it", 2);
      await orchestrator.client.request("stop", { name: "it" });
      await orchestrator.client.request("wait", { name: "it", until: "stopped" });
      expect(child.metAnother).toBe(false);
    });

    test(`stop --now waits for no grace: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const up = folder.file("up");
      const child = lonelyChild(folder, `$SIG{TERM} = "IGNORE"; ${waits(up)}`);
      const lines = `[process.it]\n@here\n${child.table}\nstop_grace = "1h"\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      await waitFor("its beginning", () => existsSync(up));
      await orchestrator.client.request("stop", { name: "it" });
      await orchestrator.events.nth("it", "stop-requested");
      expect((await orchestrator.summary("it")).phase).toBe("stopping");
      expect(await stopAndWait(orchestrator, { now: true })).toEqual(killed);
    });

    test(`restart stops it and starts it anew: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const up = folder.file("up");
      const child = lonelyChild(folder, `$SIG{TERM} = sub { exit 0 }; ${waits(up)}`);
      await using running = await begin(place, folder, `[process.it]\n@here\n${child.table}\n`);
      const { orchestrator } = running;
      await waitFor("its beginning", () => existsSync(up));
      const first = await orchestrator.started("it");
      await orchestrator.client.request("restart", { name: "it" });
      const second = await orchestrator.started("it", 2);
      expect(second).not.toBe(first);
      expect(orchestrator.events.of("it", "backing-off")).toEqual([]);
      expect(child.metAnother).toBe(false);
    });

    test(`signal reaches the process: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const [up, hit] = [folder.file("up"), folder.file("hit")];
      const child = lonelyChild(folder, `$SIG{USR2} = sub { ${told(hit)} }; ${waits(up)}`);
      await using running = await begin(place, folder, `[process.it]\n@here\n${child.table}\n`);
      const { orchestrator } = running;
      await waitFor("its beginning", () => existsSync(up));
      await orchestrator.client.request("signal", { name: "it", signal: Signal.SIGUSR2 });
      await waitFor("its answer", () => existsSync(hit));
      expect((await orchestrator.summary("it")).restarts).toBe(0);
      await orchestrator.client.request("stop", { name: "it", now: true });
      await orchestrator.client.request("wait", { name: "it", until: "stopped" });
      const refusal = await rejectionOf(
        orchestrator.client.request("signal", { name: "it", signal: Signal.SIGUSR2 }),
      );
      expect(refusal.message).toBe("it does not run");
    });
  }
});

/** c comes after b, b after a; d stands alone. */
function chain(folder: { file(name: string): string }, body: string): string {
  const table = (name: string, after: readonly string[]) => {
    const up = folder.file(`up-${name}`);
    const command = JSON.stringify(["perl", "-e", `${body} ${waits(up)}`]);
    return `[process.${name}]\ncommand = ${command}\nafter = ${JSON.stringify(after)}\n@here\n`;
  };
  return ["a", "b", "c", "d"]
    .map((name) => table(name, name === "b" || name === "c" ? [name === "b" ? "a" : "b"] : []))
    .join("");
}

async function allUp(folder: { file(name: string): string }): Promise<void> {
  const names = ["a", "b", "c", "d"];
  await waitFor("all of them", () => names.every((name) => existsSync(folder.file(`up-${name}`))));
}

const notD = (line: string) => !line.startsWith("d ");

skipUnless("the orchestrator stops", root, () => {
  for (const place of bothPlaces) {
    test(`SIGTERM stops all in reverse order, exit code 0: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const configuration = chain(folder, "$SIG{TERM} = sub { exit 0 };");
      await using running = await begin(place, folder, configuration);
      const { orchestrator } = running;
      await allUp(folder);
      expect(await orchestrator.stop()).toBe(0);
      const story = orchestrator.events.story("stop-requested", "died").filter(notD);
      const order = ["c stop-requested", "c died", "b stop-requested", "b died"];
      expect(story).toEqual([...order, "a stop-requested", "a died"]);
      // It depends on nobody, and is asked in the first turn.
      const asked = orchestrator.events.story("stop-requested", "died").slice(0, 2).toSorted();
      expect(asked).toEqual(["c stop-requested", "d stop-requested"]);
      expect(orchestrator.events.story("killed")).toEqual([]);
      expect(existsSync(orchestrator.controlSocket)).toBe(false);
    });

    test(`a second SIGTERM hurries: ${place.title}`, async () => {
      using folder = temporaryFolder();
      await using running = await begin(place, folder, chain(folder, '$SIG{TERM} = "IGNORE";'));
      const { orchestrator } = running;
      await allUp(folder);
      orchestrator.program.kill("SIGTERM");
      await orchestrator.events.nth("c", "stop-requested");
      expect(await orchestrator.stop()).toBe(0);
      expect(
        orchestrator.events
          .story("died")
          .map((line) => line[0])
          .toSorted(),
      ).toEqual([..."abcd"]);
    });
  }

  test("while it stops it starts nothing", async () => {
    using folder = temporaryFolder();
    const configuration = chain(folder, '$SIG{TERM} = "IGNORE";');
    await using running = await begin(localPlace, folder, configuration);
    const { orchestrator } = running;
    await allUp(folder);
    orchestrator.program.kill("SIGTERM");
    await orchestrator.events.nth("c", "stop-requested");
    for (const verb of ["start", "restart"]) {
      const refusal = await rejectionOf(orchestrator.client.request(verb, { name: "a" }));
      expect(refusal.message).toBe("The orchestrator is stopping");
    }
    expect(await orchestrator.stop()).toBe(0);
    expect(orchestrator.events.story("started")).toHaveLength(4);
  });

  test("with nothing to stop it ends at once", async () => {
    using folder = temporaryFolder();
    const lines = '[process.it]\ncommand = ["/absent"]\nbackoff = {first = "1h", cap = "1h"}\n';
    await using running = await begin(localPlace, folder, lines);
    await running.orchestrator.events.nth("it", "backing-off");
    expect(await running.orchestrator.stop()).toBe(0);
  });

  test("an agent that is away does not keep it from stopping what runs there", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const lines = `[process.it]\n@here\n${child.table}\n`;
    await using running = await begin({ title: "", partition: true }, folder, lines);
    await running.orchestrator.started("it");
    process.kill(running.agent, "SIGKILL");
    await running.orchestrator.program.said(/partition qm is away/);
    expect(await running.orchestrator.stop()).toBe(0);
    await waitFor("nobody is left", () => child.alive.length === 0);
  });
});
