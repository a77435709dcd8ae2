/** Commands before each start and after each end. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { kept, killOrchestrator } from "../support/kept.ts";
import { lonelyChild } from "../support/lonely-child.ts";
import { startOrchestrator } from "../support/orchestrator.ts";
import { begin, bothPlaces } from "../support/orchestrator-partition.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const sleeper = 'command = ["sleep", "1000"]';
const shell = (script: string) => JSON.stringify(["sh", "-c", script]);

skipUnless("hooks", root, () => {
  for (const place of bothPlaces) {
    test(`one before each start, one after each end, in order: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const log = folder.file("log");
      const say = (word: string) => shell(`echo ${word} $COLOUR >> ${log}`);
      const script = shell(`echo runs $COLOUR >> ${log}; exec sleep 1000`);
      const lines = `[process.it]\n@here\ncommand = ${script}\nenvironment = {COLOUR = "red"}
        before_start = ${say("before")}\nafter_stop = ${say("after")}\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      const said = () =>
        existsSync(log) ? readFileSync(log, "utf8").split("\n").slice(0, -1) : [];
      for (const count of [1, 2, 3]) {
        const pid = await orchestrator.started("it", count);
        await waitFor("its word", () => said().length === 3 * count - 1);
        process.kill(pid, "SIGKILL");
      }
      await orchestrator.started("it", 4);
      await waitFor("its word", () => said().length === 11);
      expect(await orchestrator.stop()).toBe(0);
      const round = ["before red", "runs red", "after red"];
      expect(said()).toEqual([...round, ...round, ...round, ...round]);
    });

    test(`one that fails is a start that is refused: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const file = folder.file("may-start");
      const child = lonelyChild(folder);
      const lines = `[process.it]\n@here\n${child.table}
        before_start = ["test", "-e", "${file}"]\nafter_stop = ["false"]\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      const { detail } = await orchestrator.events.nth("it", "start-refused", 2);
      expect(detail).toBe("its before_start has failed: exit 1");
      expect(child.alive).toEqual([]);
      writeFileSync(file, "");
      const pid = await orchestrator.started("it");
      process.kill(pid, "SIGKILL");
      // One after the end is said, and holds up nothing.
      await orchestrator.program.said(/it: its after_stop has failed: exit 1/);
      await orchestrator.started("it", 2);
      expect(child.metAnother).toBe(false);
    });
  }

  test("one that hangs is ended with its time", async () => {
    using folder = temporaryFolder();
    const hang = folder.file("hang");
    writeFileSync(hang, "");
    const hook = shell(`test ! -e ${hang} || exec sleep 1000`);
    const configuration = `[process.it]\n${sleeper}\nbefore_start = ${hook}
      hook_timeout = "100ms"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const { detail } = await orchestrator.events.nth("it", "start-refused");
    expect(detail).toBe("its before_start has failed: it took longer than 100 ms");
    rmSync(hang);
    await orchestrator.started("it");
  });

  test("one that is stopped meanwhile is not started", async () => {
    using folder = temporaryFolder();
    const go = folder.file("go");
    const began = folder.file("began");
    const hook = shell(`touch ${began}; until [ -e ${go} ]; do sleep 0.01; done`);
    const child = lonelyChild(folder);
    const configuration = `[process.it]\n${child.table}\nbefore_start = ${hook}\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await waitFor("its hook", () => existsSync(began));
    await orchestrator.client.request("stop", { name: "it" });
    writeFileSync(go, "");
    await orchestrator.client.request("wait", { name: "it", until: "stopped" });
    expect(orchestrator.events.of("it", "started")).toEqual([]);
    expect(child.alive).toEqual([]);
  });

  test("an orchestrator that is killed in the middle of one: it is made again", async () => {
    using folder = temporaryFolder();
    const go = folder.file("go");
    const began = folder.file("began");
    const hook = shell(`echo began >> ${began}; until [ -e ${go} ]; do sleep 0.01; done`);
    const child = lonelyChild(folder);
    const configuration = `[process.it]\n${child.table}\nbefore_start = ${hook}\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await waitFor("its hook", () => existsSync(began));
    await kept(orchestrator, 0);
    await killOrchestrator(orchestrator);
    await using next = await startOrchestrator({ folder, configuration });
    const rounds = () => readFileSync(began, "utf8").split("\n").length - 1;
    await waitFor("the hook of the next start", () => rounds() === 2);
    writeFileSync(go, "");
    const pid = await next.started("it");
    expect(await child.lives()).toContain(pid);
    expect(child.metAnother).toBe(false);
  });
});
