/** Who flees from an instance into another session, and has no cgroup around it. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { withVariable } from "../support/lonely-child.ts";
import { begin, bothPlaces } from "../support/orchestrator-partition.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

/** proc_pid_stat(5): the sixth field is the session. */
function sessionOf(processId: number): string | undefined {
  try {
    return /\) \w \d+ \d+ (\d+) /.exec(readFileSync(`/proc/${processId}/stat`, "latin1"))?.[1];
  } catch {
    return undefined;
  }
}

/** Until the second one is in a session of its own, it dies with the first. */
const haveFled = (alive: readonly number[]) =>
  alive.length === 2 && new Set(alive.map(sessionOf)).size === 2;

const flees = "use POSIX; if (!fork()) { POSIX::setsid(); sleep 1000000 } sleep 1000000";

skipUnless("who fled into another session", root, () => {
  for (const place of bothPlaces) {
    test(`is ended after the restart, and at the end: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const variable = `STRAY=${folder.path}`;
      const environment = `environment = {STRAY = "${folder.path}"}`;
      const table = `command = ["perl", "-e", ${JSON.stringify(flees)}]\n${environment}\n`;
      await using running = await begin(place, folder, `[process.it]\n@here\n${table}`);
      const { orchestrator } = running;
      const alive = () => withVariable(variable);
      for (const time of [1, 2]) {
        const pid = await orchestrator.started("it", time);
        await waitFor("both", () => haveFled(alive()));
        process.kill(pid, "SIGKILL");
        const told = await orchestrator.events.nth("it", "strays-ended", time);
        expect(told.detail).toStartWith("1 that had left");
      }
      await orchestrator.started("it", 3);
      await waitFor("the new ones alone", () => alive().length === 2);
      expect(await orchestrator.stop()).toBe(0);
      await waitFor("nobody", () => alive().length === 0);
    });
  }

  test("goes on with leftovers = keep", async () => {
    using folder = temporaryFolder();
    const environment = `environment = {STRAY = "${folder.path}"}\nleftovers = "keep"\n`;
    const table = `command = ["perl", "-e", ${JSON.stringify(flees)}]\n${environment}`;
    const other = `SWEPT=${folder.path}`;
    const command = `command = ["perl", "-e", ${JSON.stringify(flees)}]\n`;
    const mark = `environment = {SWEPT = "${folder.path}"}\n`;
    const swept = `[process.it]\n@here\n${table}[process.swept]\n${command}${mark}`;
    await using running = await begin(bothPlaces[0] as (typeof bothPlaces)[0], folder, swept);
    const { orchestrator } = running;
    const alive = () => withVariable(`STRAY=${folder.path}`);
    const pids = [await orchestrator.started("it"), await orchestrator.started("swept")];
    await waitFor("both", () => haveFled(alive()) && haveFled(withVariable(other)));
    for (const pid of pids) process.kill(pid, "SIGKILL");
    await orchestrator.events.nth("swept", "strays-ended");
    await orchestrator.started("it", 2);
    await waitFor("the kept one as well", () => alive().length === 3);
    expect(await orchestrator.stop()).toBe(0);
    // Those of both instances.
    expect(alive()).toHaveLength(2);
    for (const pid of alive()) process.kill(pid, "SIGKILL");
  });
});
