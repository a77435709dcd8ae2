/** Processes that come after others: when one of these fails, and how many start at once. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { startOrchestrator } from "../support/orchestrator.ts";
import { begin, bothPlaces } from "../support/orchestrator-partition.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const sleeper = 'command = ["sleep", "1000"]';

skipUnless("processes that come after others", root, () => {
  for (const place of bothPlaces) {
    const title = "who comes after it is restarted with it, or stopped, or runs on";
    test(`${title}: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const after = (policy: string) =>
        `[process.${policy}]\n@here\n${sleeper}\nafter = ["base"]
          on_dependency_failure = "${policy}"\n`;
      const policies = ["restart", "stop", "ignore"];
      const lines = `[process.base]\n@here\n${sleeper}\n${policies.map(after).join("")}`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      const pids = new Map<string, number>();
      for (const name of ["base", ...policies]) pids.set(name, await orchestrator.started(name));
      process.kill(pids.get("base") ?? 0, "SIGKILL");
      const { detail } = await orchestrator.events.nth("restart", "dependency-failed");
      expect(detail).toBe("of base, which it comes after");
      await orchestrator.events.nth("restart", "ready", 2);
      const told = orchestrator.events.story("ready").slice(4);
      expect(told).toEqual(["base ready", "restart ready"]);
      await waitFor("its end", async () => (await orchestrator.summary("stop")).phase === "idle");
      expect((await orchestrator.summary("ignore")).pid).toBe(pids.get("ignore") ?? 0);
      // An operator's restart of it means it alone.
      await orchestrator.client.request("restart", { name: "base" });
      await orchestrator.started("base", 3);
      expect(orchestrator.events.of("restart", "dependency-failed")).toHaveLength(1);
      expect(await orchestrator.stop()).toBe(0);
    });
  }

  test("one at a time, and the others say what they wait for", async () => {
    using folder = temporaryFolder();
    const names = ["a", "b", "c"];
    const table = (name: string) =>
      `[process.${name}]\n${sleeper}
        ready = {command = ["test", "-e", "${folder.file(name)}"]}\n`;
    const configuration = `[orchestrator]\nconcurrent_starts = 1\n${names.map(table).join("")}`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    for (const [index, name] of names.entries()) {
      await orchestrator.started(name);
      const phases = (await orchestrator.list()).map(({ phase }) => phase);
      const expected = names.map((_name, other) => {
        if (other === index) return "running";
        return other < index ? "ready" : "waiting";
      });
      expect(phases).toEqual(expected);
      const last = names.at(-1) ?? "";
      const { reason } = await orchestrator.summary(last);
      if (name !== last) expect(reason).toBe(`waits for its turn, as 1 start at once: ${name}`);
      writeFileSync(folder.file(name), "");
    }
    await orchestrator.events.nth("c", "ready");
    expect(await orchestrator.stop()).toBe(0);
  });
});
