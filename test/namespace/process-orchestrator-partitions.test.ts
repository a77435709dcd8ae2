/** Agents that dial out, that come back, that are not let in; and a quick program's notice. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { hostlerWithFaults } from "../support/binary.ts";
import { withoutHolder } from "../support/kept.ts";
import { lonelyChild } from "../support/lonely-child.ts";
import { startOrchestrator } from "../support/orchestrator.ts";
import { begin, partitionPlace, startPartition } from "../support/orchestrator-partition.ts";
import { startAgent } from "../support/partition.ts";
import { root, skipUnless } from "../support/skips.ts";
import { suspend } from "../support/suspend.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

skipUnless("partitions", root, () => {
  test("an agent that dials out is used, killed, and comes back", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const path = folder.file("dialled.sock");
    const configuration = `[process.it]\npartition = "qm"\n${child.table}
      [partition.qm]\nlisten = "${path}"\n`;
    await using partition = await startPartition(folder);
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const waiting = await orchestrator.summary("it");
    expect([waiting.phase, waiting.reason]).toEqual(["waiting", "waits for partition qm"]);
    const agent = await partition.startAgent({ words: ["--connect", path] });
    const first = await orchestrator.started("it");
    process.kill(agent, "SIGKILL");
    await orchestrator.program.said(/partition qm is away/);
    process.kill(first, "SIGKILL");
    await orchestrator.events.nth("it", "ended");
    await partition.startAgent({ words: ["--connect", path] });
    await orchestrator.started("it", 2);
    expect(child.metAnother).toBe(false);
    expect(await orchestrator.stop()).toBe(0);
    await waitFor("nobody is left", () => child.alive.length === 0);
  });

  test("an agent that dies with a start in flight: the next one makes it at once", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const path = folder.file("dialled.sock");
    const configuration = `[process.it]\npartition = "qm"\nbackoff = "none"\n${child.table}
      [partition.qm]\nlisten = "${path}"\n`;
    await using partition = await startPartition(folder);
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const agent = await partition.startAgent({ words: ["--connect", path] });
    const first = await orchestrator.started("it");
    suspend(agent);
    process.kill(first, "SIGKILL");
    await orchestrator.events.nth("it", "start-requested", 2);
    process.kill(agent, "SIGKILL");
    await orchestrator.program.said(/partition qm is away/);
    await partition.startAgent({ words: ["--connect", path] });
    await orchestrator.started("it", 2);
    expect(orchestrator.events.story("start-refused", "backing-off")).toEqual([]);
    expect((await orchestrator.summary("it")).restarts).toBe(1);
    expect(child.metAnother).toBe(false);
  });

  test("an agent that dials out finds a new orchestrator again", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const path = folder.file("dialled.sock");
    const configuration = `${withoutHolder}[process.it]\npartition = "qm"\n${child.table}
      [partition.qm]\nlisten = "${path}"\n`;
    await using partition = await startPartition(folder);
    await partition.startAgent({ words: ["--connect", path] });
    await using first = await startOrchestrator({ folder, configuration });
    await first.started("it");
    first.program.kill("SIGKILL");
    await first.program.ended();
    await using second = await startOrchestrator({ folder, configuration });
    await second.started("it");
    await waitFor("one instance", () => child.alive.length === 1);
    expect(child.metAnother).toBe(false);
    expect(await second.stop()).toBe(0);
  });

  test("an agent of another user is refused, and said why", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    await using partition = await startPartition(folder);
    await partition.startAgent();
    const configuration = `[process.it]\npartition = "qm"\n${child.table}
      [partition.qm]\nsocket = "${partition.socket}"\nallow_uid = [4711]\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await orchestrator.program.said(/refused the agent of qm: expected user 4711.*user 0/);
    expect((await orchestrator.summary("it")).reason).toBe("waits for partition qm");
    expect(await orchestrator.stop()).toBe(0);
  });

  test("an agent that dials out and is refused: both say why, once", async () => {
    using folder = temporaryFolder();
    const path = folder.file("dialled.sock");
    const configuration =
      `[partition.qm]\nlisten = "${path}"\nother_pid_namespace = true\n` +
      '[process.it]\npartition = "qm"\ncommand = ["sleep", "1000"]\n';
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await using agent = await startAgent(folder, { words: ["--connect", path] });
    // The agent says each attempt, because it was asked for more.
    const { output } = agent.program;
    const refusals = (text: string) =>
      [...text.matchAll(/expected a peer in another PID namespace/g)].length;
    await waitFor("several attempts", () => refusals(output.stderr) >= 4);
    await agent.program.said(/not connected to .*: it refused this agent: expected a peer/);
    expect(await orchestrator.stop()).toBe(0);
    const { stderr } = orchestrator.program.output;
    expect(stderr).toMatch(/partition qm: refused the agent of qm: expected .*; received process/);
    expect(refusals(stderr)).toBe(1);
  });

  test("two partitions: the death of one agent does not touch the other", async () => {
    using folder = temporaryFolder();
    using otherFolder = temporaryFolder();
    const one = lonelyChild(folder, undefined, "one");
    const two = lonelyChild(folder, undefined, "two");
    await using first = await startPartition(folder);
    await using second = await startPartition(otherFolder);
    const agent = await first.startAgent();
    await second.startAgent();
    const configuration = `
      [partition.a]\nsocket = "${first.socket}"\n[partition.b]\nsocket = "${second.socket}"
      [process.one]\npartition = "a"\n${one.table}
      [process.two]\npartition = "b"\n${two.table}\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const pidOne = await orchestrator.started("one");
    const pidTwo = await orchestrator.started("two");
    process.kill(agent, "SIGKILL");
    await orchestrator.program.said(/partition a is away/);
    process.kill(pidOne, "SIGKILL");
    process.kill(pidTwo, "SIGKILL");
    await orchestrator.started("two", 2);
    await orchestrator.events.nth("one", "ended");
    const summaries = await orchestrator.list();
    expect(summaries.map(({ name, phase }) => `${name} ${phase}`)).toEqual([
      "one waiting",
      "two ready",
    ]);
    expect(await orchestrator.stop()).toBe(0);
  });

  test("a notice of readiness counts for an instance whose start was not answered", async () => {
    using folder = temporaryFolder();
    const notify = `
      use Socket;
      my $to = $ENV{NOTIFY_SOCKET};
      $to =~ s/^@/\\0/;
      socket(my $socket, AF_UNIX, SOCK_DGRAM, 0);
      send($socket, "READY=1", 0, pack_sockaddr_un($to));
      sleep 1000000 while 1;
    `;
    const child = lonelyChild(folder, notify);
    const agent = {
      binary: hostlerWithFaults(),
      environment: { HOSTLER_KILL_AT: "agent:start:spawned" },
    };
    const lines = `[process.it]\n@here\n${child.table}\nready = "notify"\nready_timeout = "5s"\n`;
    await using running = await begin(partitionPlace, folder, lines, { agent });
    const { orchestrator, partition } = running;
    await orchestrator.program.said(/partition qm is away/);
    await partition?.startAgent();
    await orchestrator.events.nth("it", "ready");
    expect(orchestrator.events.of("it", "readiness-timeout")).toEqual([]);
    expect(child.metAnother).toBe(false);
  });

  test("constraints go through the launcher, in the partition as well", async () => {
    using folder = temporaryFolder();
    const script = "id -u; id -G; ulimit -n; grep NoNewPrivs /proc/self/status; exec sleep 1000";
    const command = JSON.stringify(["sh", "-c", script]);
    const table = `command = ${command}\nuser = 4242\ngroup = 4243\ngroups = [4244]
      limits = {nofile = 321}\nno_new_privileges = true\n`;
    const lines = `[process.here]\n${table}[process.there]\npartition = "qm"\n${table}`;
    await using running = await begin(partitionPlace, folder, lines);
    for (const name of ["here", "there"]) {
      const follower = running.orchestrator.followLogs({ name });
      const seen = await follower.until("four lines", (items) => items.length === 4 && items);
      expect(seen.map(({ line }) => line)).toEqual(["4242", "4243 4244", "321", "NoNewPrivs:\t1"]);
    }
  });
});
