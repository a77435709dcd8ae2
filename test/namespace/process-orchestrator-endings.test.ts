/** How a process ended, when its agent, which alone knows, does not say it. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readlinkSync } from "node:fs";
import { UNTOLD_LIMIT } from "../../src/process/perform/untold-endings.ts";
import { hostler } from "../support/binary.ts";
import { withoutHolder } from "../support/kept.ts";
import { startOrchestrator } from "../support/orchestrator.ts";
import { begin, partitionPlace, startPartition } from "../support/orchestrator-partition.ts";
import { runProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { suspend } from "../support/suspend.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

setDefaultTimeout(60_000);

skipUnless("an agent that hangs", root, () => {
  test("how what was stopped meanwhile ended is unknown everywhere, until it tells", async () => {
    using folder = temporaryFolder();
    const lines = '[process.it]\n@here\ncommand = ["sleep", "1000"]\n';
    await using running = await begin(partitionPlace, folder, lines);
    const { orchestrator, agent } = running;
    await orchestrator.started("it");
    suspend(agent);
    await orchestrator.client.request("stop", { name: "it", now: true });
    const last_exit = { kind: "unknown", reason: "nobody told within 5.00 s" };
    const waited = orchestrator.client.request("wait", { name: "it", until: "stopped" });
    expect(await waited).toMatchObject({ phase: "idle", last_exit });
    expect(await orchestrator.summary("it")).toMatchObject({ last_exit });
    expect(await orchestrator.list()).toMatchObject([{ last_exit }]);
    expect(await orchestrator.events.nth("it", "ended")).toMatchObject({ ending: last_exit });
    process.kill(agent, "SIGCONT");
    const told = { kind: "signalled", signal: 9 };
    expect(await orchestrator.events.nth("it", "ended", 2)).toMatchObject({ ending: told });
    expect(await orchestrator.summary("it")).toMatchObject({ last_exit: told });
  });

  test("what is stopped, started or restarted in vain is given up in time", async () => {
    using folder = temporaryFolder();
    const lines = '[process.it]\n@here\ncommand = ["sleep", "1000"]\n';
    await using running = await begin(partitionPlace, folder, `${lines}autostart = false`);
    const { orchestrator, agent } = running;
    await orchestrator.program.said(/is connected/);
    suspend(agent);
    const ask = (...words: readonly string[]) =>
      runProgram([hostler(), "process", ...words, "--control-socket", orchestrator.controlSocket]);
    for (const verb of ["start", "restart"]) {
      const { exitCode, stderr } = await ask(verb, "it", "--wait", "--timeout", "100ms");
      expect(stderr).toMatch(/it is not ready after 100 ms: starting/);
      expect(exitCode).toBe(111);
    }
    const stop = await ask("stop", "it", "--wait", "--timeout", "0.1s");
    expect(stop.stderr).toMatch(/it is not stopped after 100 ms: starting/);
    expect(stop.exitCode).toBe(111);
    const alone = await ask("stop", "it", "--timeout", "1s");
    expect(alone.stderr).toMatch(/Expected --wait beside --timeout/);
    expect(alone.exitCode).toBe(100);
    process.kill(agent, "SIGCONT");
  });
});

/** Descriptors of processes that a daemon holds: named so before Linux 6.9 and since. */
const heldProcesses = (processId: number) =>
  readdirSync(`/proc/${processId}/fd`).filter((descriptor) => {
    try {
      return readlinkSync(`/proc/${processId}/fd/${descriptor}`).includes("pidfd");
    } catch {
      // It was closed meanwhile.
      return false;
    }
  }).length;

skipUnless("a partition in which nobody reaps", root, () => {
  test("a few of the dead are kept, the others are unknown, and why is said once", async () => {
    using folder = temporaryFolder();
    await using partition = await startPartition(folder, { reaps: false });
    // Descriptors are counted, and a holder has duplicates.
    const configuration =
      `${withoutHolder}[partition.qm]\nsocket = "${partition.socket}"\n` +
      '[process.it]\npartition = "qm"\ncommand = ["sleep", "1000"]\nbackoff = "none"\n';
    let agent = await partition.startAgent();
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const rounds = UNTOLD_LIMIT + 4;
    for (let round = 1; round <= rounds; round += 1) {
      const pid = await orchestrator.started("it", round);
      process.kill(agent, "SIGKILL");
      await orchestrator.program.said(new RegExp(`(partition qm is away[\\s\\S]*){${round}}`));
      process.kill(pid, "SIGKILL");
      await orchestrator.events.nth("it", "died", round);
      agent = await partition.startAgent();
    }
    await orchestrator.started("it", rounds + 1);
    expect(heldProcesses(orchestrator.program.processId)).toBeLessThanOrEqual(UNTOLD_LIMIT + 1);
    const givenUp = orchestrator.events.of("it", "ended").map(({ detail }) => detail);
    const reason =
      "unknown: nobody reaped it: its agent is gone, and whoever inherited it does not wait";
    expect(givenUp.filter((detail) => detail === reason)).toHaveLength(rounds - UNTOLD_LIMIT);
    const { stderr } = orchestrator.program.output;
    const cause = `expected that process ${partition.processId}, which inherited it, waits for it`;
    expect(stderr.split(cause)).toHaveLength(2);
  });
});

skipUnless("stopping what others come after", root, () => {
  test("names those that still run, unless they are stopped as well", async () => {
    using folder = temporaryFolder();
    const sleeps = 'command = ["sleep", "1000"]\n';
    const others = `[process.b]\n${sleeps}after = ["a"]\n[process.c]\n${sleeps}after = ["a"]\n`;
    const configuration = `[process.a]\n${sleeps}${others}[process.d]\n${sleeps}`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    for (const name of ["b", "c", "d"]) await orchestrator.started(name);
    const stop = (...names: readonly string[]) =>
      runProgram([
        ...[hostler(), "process", "stop", ...names, "--wait", "--timeout", "20s"],
        ...["--control-socket", orchestrator.controlSocket],
      ]);
    expect((await stop("d")).stderr).toBe("");
    expect(await stop("a", "b")).toMatchObject({
      exitCode: 0,
      stderr: "a: what comes after it runs on: c\n",
    });
    expect((await orchestrator.summary("c")).phase).toBe("ready");
  });
});
