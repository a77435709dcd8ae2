/** The crash journal is removed or damaged: what was left running is ended all the same. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { withoutHolder } from "../support/kept.ts";
import { lonelyChild } from "../support/lonely-child.ts";
import { journaled, startOrchestrator } from "../support/orchestrator.ts";
import { begin, bothPlaces } from "../support/orchestrator-partition.ts";
import { isAlive } from "../support/partition.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

/** What looks like no journal, the same each time. */
function noise(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => 128 + ((index * 73 + 11) % 127));
}

const damages: [string, (journal: string) => void, RegExp][] = [
  ["removed", (path) => rmSync(path), /crash journal .* is missing/],
  ["overwritten by noise", (path) => writeFileSync(path, noise(5_000)), /is damaged: 1 broken/],
  [
    "with noise before its first line",
    (path) => writeFileSync(path, Buffer.concat([noise(40), readFileSync(path)])),
    /is damaged: 1 broken/,
  ],
  ["of JSON that says nothing", (path) => writeFileSync(path, "{}\n[]\n"), /is damaged: 2 broken/],
];

skipUnless("a crash journal", root, () => {
  for (const place of bothPlaces) {
    test.each(damages)(`%s: told, and one instance: ${place.title}`, async (_, damage, words) => {
      using folder = temporaryFolder();
      const child = lonelyChild(folder);
      const lines = `${withoutHolder}[process.it]\n@here\n${child.table}\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator, partition } = running;
      const pid = await orchestrator.started("it");
      orchestrator.program.kill("SIGKILL");
      await orchestrator.program.ended();
      damage(`${orchestrator.controlSocket}.journal`);
      const here = partition === undefined ? "" : 'partition = "qm"';
      const rest =
        partition === undefined ? "" : `[partition.qm]\nsocket = "${partition.socket}"\n`;
      const configuration = `${lines.replaceAll("@here", here)}\n${rest}`;
      await using next = await startOrchestrator({ folder, configuration });
      await next.program.said(words);
      await next.program.said(/it: ended what an orchestrator that was killed had left running/);
      await next.client.request("wait", { name: "it", until: "ready" });
      expect(isAlive(pid)).toBe(false);
      expect(child.metAnother).toBe(false);
      const { pid: own } = await next.summary("it");
      await waitFor("one instance", () => child.alive.length === 1 && child.alive[0] === own);
    });
  }

  test("with a socket elsewhere, and what may be kept: neither is touched", async () => {
    using folder = temporaryFolder();
    using other = temporaryFolder();
    const child = lonelyChild(folder);
    const kept = `[process.kept]\nleftovers = "keep"\ncommand = ["sleep", "100001"]\n`;
    await using first = await startOrchestrator({
      folder,
      configuration: `[process.it]\n${child.table}\n${kept}`,
    });
    const pid = await first.started("it");
    const keptPid = await first.started("kept");
    await using elsewhere = await startOrchestrator({
      folder: other,
      configuration: '[process.a]\ncommand = ["true"]\nrestart = "never"\n',
    });
    await elsewhere.started("a");
    expect(await child.lives()).toEqual([pid]);
    const environment = readFileSync(`/proc/${keptPid}/environ`, "latin1");
    expect(environment).not.toContain("HOSTLER_ORCHESTRATOR");
    expect(readFileSync(`/proc/${pid}/environ`, "latin1")).toMatch(
      /\0HOSTLER_ORCHESTRATOR=[0-9a-f]{32}\/[0-9a-f]{8}\/[0-9a-f:]+\/it\0/,
    );
  });

  test.each(["journal", "lock"])("removed alone, the %s is made anew", async (what) => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({
      folder,
      configuration: '[process.it]\ncommand = ["sleep", "1000"]\n',
    });
    await orchestrator.started("it");
    const path = `${orchestrator.controlSocket}.${what}`;
    rmSync(path);
    await orchestrator.program.said(/the (lock|crash journal) .*removed .*it is made anew/);
    expect(existsSync(path)).toBe(true);
    const { invocation } = await orchestrator.summary("it");
    expect(journaled(orchestrator.controlSocket)).toContain(invocation ?? "");
  });

  test("written over while it is used, it is made anew", async () => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({
      folder,
      configuration: '[process.it]\ncommand = ["sleep", "1000"]\n',
    });
    await orchestrator.started("it");
    writeFileSync(`${orchestrator.controlSocket}.journal`, noise(5_000));
    await orchestrator.program.said(/crash journal .*removed or changed by somebody; it is made/);
    const { invocation } = await orchestrator.summary("it");
    expect(journaled(orchestrator.controlSocket)).toContain(invocation ?? "");
  });
});
