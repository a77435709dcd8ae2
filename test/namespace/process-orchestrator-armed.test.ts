/** Restarts that were decided before the death: one instance, and only while it is wanted. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { agentSteps } from "../../src/process/perform/agent-session.ts";
import { statusOf } from "../../src/process/perform/process-table.ts";
import { Signal } from "../../src/units/signals.ts";
import { hostlerWithFaults } from "../support/binary.ts";
import { kept, withoutHolder } from "../support/kept.ts";
import { type LonelyChild, lonelyChild } from "../support/lonely-child.ts";
import { journaled, startOrchestrator, type TestOrchestrator } from "../support/orchestrator.ts";
import {
  type BeginOptions,
  begin,
  partitionPlace,
  type Running,
} from "../support/orchestrator-partition.ts";
import { isAlive } from "../support/partition.ts";
import { root, skipUnless } from "../support/skips.ts";
import { suspend } from "../support/suspend.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

/** Milliseconds in which what was asked must come, though an agent hangs. */
const SOON = 5_000;

/** A child that cannot bear another one, and counts its starts. */
class CountedChild {
  readonly child: LonelyChild;
  readonly #file: string;

  constructor(folder: TemporaryFolder, options: { rest?: string; name?: string } = {}) {
    const { rest = "sleep 1000000 while 1;", name = "it" } = options;
    this.#file = folder.file(`starts-of-${name}`);
    const count = `open(my $c, ">>", "${this.#file}"); syswrite($c, "$$\\n"); close $c;`;
    this.child = lonelyChild(folder, `${count} ${rest}`, name);
  }

  get starts(): number {
    if (!existsSync(this.#file)) return 0;
    return readFileSync(this.#file, "utf8").split("\n").length - 1;
  }

  async started(count: number): Promise<void> {
    await waitFor(`start ${count} (have ${this.starts})`, () => this.starts === count);
  }

  /** The process that lives in place of another one. */
  async inPlaceOf(former: number): Promise<number> {
    const other = () => this.child.alive.find((processId) => processId !== former);
    return await waitFor("another instance", other);
  }

  expectNobody(starts: number): void {
    expect(this.child.alive).toEqual([]);
    expect(this.child.metAnother).toBe(false);
    expect(this.starts).toBe(starts);
  }
}

const tableOf = ({ child }: CountedChild, name = "it") =>
  `[process.${name}]\n@here\n${child.table}\nbackoff = "none"\n`;

/**
 * The next start of each of so many processes that run stands in the journal; the order to the
 * agent is sent in the same turn.
 */
async function armed({ orchestrator }: Running, processes = 1): Promise<void> {
  const isWritten = () => journaled(orchestrator.controlSocket).length === 2 * processes;
  await waitFor("the next start to be armed", isWritten);
  await orchestrator.list();
}

async function stopIt(orchestrator: TestOrchestrator, fields = {}, deadline?: number) {
  await orchestrator.client.request("stop", { name: "it", ...fields });
  const isStopped = async () => (await orchestrator.summary("it")).phase === "idle";
  await waitFor("its stop", isStopped, deadline);
}

/** The stop may have been quicker. */
function killIfThere(processId: number): void {
  try {
    process.kill(processId, "SIGKILL");
  } catch (error) {
    if ((error as { code?: unknown }).code !== "ESRCH") throw error;
  }
}

const connections = ({ program }: TestOrchestrator) =>
  [...program.output.stderr.matchAll(/partition qm is connected/g)].length;

/** An armed instance of one process. */
async function beginArmed(
  folder: TemporaryFolder,
  it: CountedChild,
  options: BeginOptions & { readonly before?: string } = {},
) {
  const { before = "", ...rest } = options;
  const running = await begin(partitionPlace, folder, `${before}${tableOf(it)}`, rest);
  const first = await running.orchestrator.started("it");
  await it.started(1);
  await armed(running);
  return { running, first };
}

/** Does something while the orchestrator can decide nothing. */
async function withoutOrchestrator<T>({ orchestrator }: Running, act: () => Promise<T>) {
  const { processId } = orchestrator.program;
  suspend(processId);
  try {
    await waitFor("its standstill", () => statusOf(processId)?.state === "T");
    return await act();
  } finally {
    process.kill(processId, "SIGCONT");
  }
}

/** It is killed, and its agent starts the next one without being asked. */
async function expectMade(running: Running, it: CountedChild, former: number): Promise<number> {
  const next = await withoutOrchestrator(running, async () => {
    process.kill(former, "SIGKILL");
    return await it.inPlaceOf(former);
  });
  await waitFor("the orchestrator to know it", async () => {
    return (await running.orchestrator.summary("it")).pid === next;
  });
  return next;
}

skipUnless("an armed restart", root, () => {
  test("is made while the orchestrator can decide nothing, again and again", async () => {
    using folder = temporaryFolder();
    const it = new CountedChild(folder);
    const begun = await beginArmed(folder, it);
    await using running = begun.running;
    let former = begun.first;
    for (let count = 2; count < 6; count++) {
      former = await expectMade(running, it, former);
      await it.started(count);
      await armed(running);
    }
    const { events } = running.orchestrator;
    const deaths = events.of("it", "ended").map(({ ending }) => ending);
    expect(deaths).toEqual(
      Array(4).fill({ kind: "signalled", signal: Signal.SIGKILL, core_dumped: false }),
    );
    expect(events.of("it", "uncertain")).toEqual([]);
    expect(await running.orchestrator.stop()).toBe(0);
    it.expectNobody(5);
  });

  test("never comes after a stop, 50 times", async () => {
    using folder = temporaryFolder();
    const it = new CountedChild(folder);
    await using running = (await beginArmed(folder, it)).running;
    const { orchestrator } = running;
    for (let count = 1; count <= 50; count++) {
      await it.started(count);
      await armed(running);
      await stopIt(orchestrator, count % 2 === 0 ? { now: true } : {});
      it.expectNobody(count);
      if (count < 50) await orchestrator.client.request("start", { name: "it" });
    }
    expect(orchestrator.events.of("it", "died")).toHaveLength(50);
    expect(orchestrator.events.of("it", "uncertain")).toEqual([]);
    expect(await orchestrator.stop()).toBe(0);
    it.expectNobody(50);
  });

  test("is none beside the one of a restart that is asked for, 20 times", async () => {
    using folder = temporaryFolder();
    const it = new CountedChild(folder);
    await using running = (await beginArmed(folder, it)).running;
    const { orchestrator } = running;
    for (let count = 1; count <= 20; count++) {
      await it.started(count);
      await armed(running);
      await orchestrator.client.request("restart", { name: "it" });
      await orchestrator.started("it", count + 1);
    }
    await it.started(21);
    expect(await orchestrator.stop()).toBe(0);
    it.expectNobody(21);
  });

  test("of one that dies by itself while it is stopped is ended, 30 times", async () => {
    using folder = temporaryFolder();
    const it = new CountedChild(folder);
    await using running = (await beginArmed(folder, it)).running;
    const { orchestrator } = running;
    for (let count = 1; count <= 30; count++) {
      await armed(running);
      const { pid } = await orchestrator.summary("it");
      const stopped = stopIt(orchestrator);
      killIfThere(pid as number);
      await stopped;
      expect(it.child.alive).toEqual([]);
      await orchestrator.client.request("start", { name: "it" });
      await orchestrator.client.request("wait", { name: "it", until: "ready" });
    }
    expect(await orchestrator.stop()).toBe(0);
    expect(it.child.alive).toEqual([]);
    expect(it.child.metAnother).toBe(false);
  });

  test("stays armed after a signal that is sent to the process", async () => {
    using folder = temporaryFolder();
    const heard = folder.file("heard");
    const up = folder.file("up");
    const touch = (file: string) => `open(F, ">", "${file}"); close F;`;
    const onHup = `$SIG{HUP} = sub { ${touch(heard)} }; ${touch(up)}`;
    const it = new CountedChild(folder, { rest: `${onHup} sleep 1000000 while 1;` });
    const { running, first } = await beginArmed(folder, it);
    await using _running = running;
    await waitFor("its handler", () => existsSync(up));
    await running.orchestrator.client.request("signal", { name: "it", signal: Signal.SIGHUP });
    await waitFor("the signal to be heard", () => existsSync(heard));
    await expectMade(running, it, first);
    await it.started(2);
    expect(await running.orchestrator.stop()).toBe(0);
    it.expectNobody(2);
  });

  test("waits as long as its back-off says", async () => {
    using folder = temporaryFolder();
    const it = new CountedChild(folder);
    const lines = `[process.it]\n@here\n${it.child.table}\n`;
    await using running = await begin(partitionPlace, folder, lines);
    const { orchestrator } = running;
    process.kill(await orchestrator.started("it"), "SIGKILL");
    const second = await orchestrator.started("it", 2);
    await armed(running);
    process.kill(second, "SIGKILL");
    const waits = await orchestrator.events.nth("it", "backing-off");
    const died = await orchestrator.events.nth("it", "died", 2);
    await orchestrator.started("it", 3);
    const asked = await orchestrator.events.nth("it", "start-requested", 3);
    expect(asked.sequence).toBeGreaterThan(waits.sequence);
    expect(asked.monotonic_us - died.monotonic_us).toBeGreaterThan(89_000);
    expect(await orchestrator.stop()).toBe(0);
    expect(it.child.metAnother).toBe(false);
  });

  test("is none over the start limit", async () => {
    using folder = temporaryFolder();
    const it = new CountedChild(folder);
    const limit = 'start_limit = {starts = 2, within = "1h"}\n';
    await using running = await begin(partitionPlace, folder, `${tableOf(it)}${limit}`);
    const { orchestrator } = running;
    await it.started(1);
    process.kill(await orchestrator.started("it"), "SIGKILL");
    await it.started(2);
    await armed(running);
    process.kill(await orchestrator.started("it", 2), "SIGKILL");
    await orchestrator.events.nth("it", "failed");
    it.expectNobody(2);
  });

  test("may be ready before its orchestrator knows that it was made", async () => {
    using folder = temporaryFolder();
    const tell = `
      use Socket;
      sub tell_it {
        (my $to = $ENV{NOTIFY_SOCKET}) =~ s/^@/\\0/;
        socket(my $s, AF_UNIX, SOCK_DGRAM, 0);
        send($s, $_[0], 0, pack_sockaddr_un($to)) or die $!;
      }
      $SIG{USR1} = sub { tell_it("STATUS=ends"); kill 9, $$ };
      tell_it("READY=1");`;
    const it = new CountedChild(folder, { rest: `${tell} sleep 1000000 while 1;` });
    const notify = 'ready = "notify"\nready_timeout = "1h"\n';
    await using running = await begin(partitionPlace, folder, `${tableOf(it)}${notify}`);
    const { orchestrator } = running;
    await orchestrator.client.request("wait", { name: "it", until: "ready" });
    await armed(running);
    const { pid } = await orchestrator.summary("it");
    await withoutOrchestrator(running, async () => {
      process.kill(pid as number, "SIGUSR1");
      const next = await it.inPlaceOf(pid as number);
      // After its notice it sleeps.
      await waitFor("its notice", () => statusOf(next)?.state === "S" && it.starts === 2);
    });
    await orchestrator.events.nth("it", "ready", 2);
    expect(await orchestrator.stop()).toBe(0);
    it.expectNobody(2);
  });
});

skipUnless("an agent hangs", root, () => {
  test("a stop comes through, and nothing is started in its place afterwards", async () => {
    using folder = temporaryFolder();
    const it = new CountedChild(folder);
    const { running, first } = await beginArmed(folder, it);
    await using _running = running;
    const { orchestrator, agent } = running;
    suspend(agent);
    await stopIt(orchestrator, {}, SOON);
    expect(isAlive(first)).toBe(false);
    expect(orchestrator.program.output.stderr).toMatch(/did not take back a start within 1000 ms/);
    process.kill(agent, "SIGCONT");
    await waitFor("the agent to come back", () => connections(orchestrator) === 2);
    it.expectNobody(1);
    await orchestrator.client.request("start", { name: "it" });
    await it.started(2);
    expect(await orchestrator.stop()).toBe(0);
    it.expectNobody(2);
  });

  test("a shutdown of several that are armed comes through", async () => {
    using folder = temporaryFolder();
    const names = ["it", "second", "third"];
    const children = names.map((name) => new CountedChild(folder, { name }));
    const lines = children.map((child, index) => tableOf(child, names[index]));
    await using running = await begin(partitionPlace, folder, lines.join("\n"));
    const { orchestrator, agent } = running;
    for (const child of children) await child.started(1);
    await armed(running, names.length);
    suspend(agent);
    expect(await orchestrator.stop(SOON)).toBe(0);
    process.kill(agent, "SIGCONT");
    for (const child of children) child.expectNobody(1);
  });
});

/** Lines of an orchestrator that follows another one in the same folder. */
async function startNext(running: Running, folder: TemporaryFolder, it: CountedChild) {
  const lines = tableOf(it).replaceAll("@here", 'partition = "qm"');
  const partition = `[partition.qm]\nsocket = "${running.partition?.socket}"\n`;
  return await startOrchestrator({ folder, configuration: `${lines}\n${partition}` });
}

skipUnless("an agent that holds an armed start is killed", root, () => {
  test("what it would replace goes on, and is restarted by the next agent", async () => {
    using folder = temporaryFolder();
    const it = new CountedChild(folder);
    const { running, first } = await beginArmed(folder, it);
    await using _running = running;
    const { orchestrator, partition, agent } = running;
    process.kill(agent, "SIGKILL");
    await orchestrator.program.said(/partition qm is away/);
    await partition?.startAgent();
    await waitFor("the next agent", () => connections(orchestrator) === 2);
    expect((await orchestrator.summary("it")).pid).toBe(first);
    process.kill(first, "SIGKILL");
    await it.started(2);
    const story = orchestrator.events.of("it").map(({ what }) => what);
    expect(story.filter((what) => what === "uncertain" || what === "adopted")).toEqual([]);
    expect(await orchestrator.stop()).toBe(0);
    it.expectNobody(2);
  });

  for (const step of agentSteps) {
    test(`at ${step}: one instance, and every death is heard`, async () => {
      using folder = temporaryFolder();
      const it = new CountedChild(folder);
      const at = step.startsWith("agent:exit") ? step : `${step}#2`;
      const agent = { binary: hostlerWithFaults(), environment: { HOSTLER_KILL_AT: at } };
      const { running, first } = await beginArmed(folder, it, { agent });
      await using _running = running;
      const { orchestrator, partition } = running;
      process.kill(first, "SIGKILL");
      await waitFor("the agent's end", () => statusOf(running.agent) === undefined);
      await orchestrator.program.said(/partition qm is away/);
      await partition?.startAgent();
      await orchestrator.client.request("wait", { name: "it", until: "ready" });
      const { pid } = await orchestrator.summary("it");
      await waitFor("one instance", () => it.child.alive.length === 1 && it.child.alive[0] === pid);
      const deaths = orchestrator.events.of("it", "died").length;
      process.kill(pid as number, "SIGKILL");
      await orchestrator.events.nth("it", "ended", deaths + 1);
      await it.inPlaceOf(pid as number);
      expect(await orchestrator.stop()).toBe(0);
      expect(it.child.alive).toEqual([]);
      expect(it.child.metAnother).toBe(false);
    });
  }

  test("after it was made, and its end is seen before the death: nobody is lost", async () => {
    using folder = temporaryFolder();
    const it = new CountedChild(folder);
    const other = new CountedChild(folder, { name: "other" });
    const configuration = `${tableOf(it)}\n${tableOf(other, "other")}`;
    const environment = { HOSTLER_KILL_AT: "agent:start:spawned#3" };
    const agent = { binary: hostlerWithFaults(), environment };
    await using running = await begin(partitionPlace, folder, configuration, { agent });
    const { orchestrator } = running;
    await it.started(1);
    await other.started(1);
    await armed(running, 2);
    const first = await orchestrator.started("it");
    await withoutOrchestrator(running, async () => {
      // What it reads first makes it write to the agent, and find that nobody is there.
      void orchestrator.client.request("stop", { name: "other" }).catch(() => undefined);
      process.kill(first, "SIGKILL");
      await it.started(2);
      await waitFor("the agent's end", () => statusOf(running.agent) === undefined);
    });
    // Where the death is seen first after all, what was made is found and adopted.
    await waitFor("it to be known, or gone", async () => {
      const { phase, pid } = await orchestrator.summary("it");
      const { alive } = it.child;
      const isKnown = phase === "ready" && alive[0] === pid && it.starts === 2;
      return phase === "waiting" ? alive.length === 0 : isKnown;
    });
    await stopIt(orchestrator);
    await waitFor("the stop of the other", () => other.child.alive.length === 0);
    it.expectNobody(2);
    other.expectNobody(1);
  });
});

skipUnless("an orchestrator that has armed its agent is killed", root, () => {
  const orders: readonly [string, (kill: { it(): void; orchestrator(): void }) => void][] = [
    ["and then the process dies", ({ it, orchestrator }) => [orchestrator, it].map((k) => k())],
    ["when the process has died", ({ it, orchestrator }) => [it, orchestrator].map((k) => k())],
  ];
  for (const [name, inOrder] of orders) {
    test(`${name}: the next one has one instance`, async () => {
      using folder = temporaryFolder();
      const it = new CountedChild(folder);
      const { running, first } = await beginArmed(folder, it);
      await using _running = running;
      const { orchestrator } = running;
      inOrder({
        it: () => process.kill(first, "SIGKILL"),
        orchestrator: () => orchestrator.program.kill("SIGKILL"),
      });
      await orchestrator.program.ended();
      await using next = await startNext(running, folder, it);
      await next.client.request("wait", { name: "it", until: "ready" });
      const { pid } = await next.summary("it");
      await waitFor("one instance", () => it.child.alive.length === 1 && it.child.alive[0] === pid);
      expect(it.child.metAnother).toBe(false);
      expect(await next.stop()).toBe(0);
      expect(it.child.alive).toEqual([]);
    });
  }

  test("when the start was made, and the holder has the rest: the next one goes on", async () => {
    using folder = temporaryFolder();
    const it = new CountedChild(folder);
    const { running, first } = await beginArmed(folder, it);
    await using _running = running;
    const { orchestrator } = running;
    await kept(orchestrator);
    suspend(orchestrator.program.processId);
    process.kill(first, "SIGKILL");
    const made = await it.inPlaceOf(first);
    await it.started(2);
    orchestrator.program.kill("SIGKILL");
    await orchestrator.program.ended();
    await using next = await startNext(running, folder, it);
    expect((await next.events.nth("it", "adopted")).pid).toBe(made);
    const { ending } = await next.events.nth("it", "ended");
    expect(ending).toMatchObject({ kind: "signalled", signal: Signal.SIGKILL });
    expect((await next.summary("it")).restarts).toBe(1);
    expect(await next.stop()).toBe(0);
    it.expectNobody(2);
  });

  test("when the start was made and nobody was told, without a holder: it is ended", async () => {
    using folder = temporaryFolder();
    const it = new CountedChild(folder);
    const { running, first } = await beginArmed(folder, it, { before: withoutHolder });
    await using _running = running;
    const { orchestrator } = running;
    suspend(orchestrator.program.processId);
    process.kill(first, "SIGKILL");
    const made = await it.inPlaceOf(first);
    await it.started(2);
    orchestrator.program.kill("SIGKILL");
    await orchestrator.program.ended();
    await using next = await startNext(running, folder, it);
    await next.program.said(/it: ended what an orchestrator that was killed had left running/);
    expect(isAlive(made)).toBe(false);
    await it.started(3);
    expect(await next.stop()).toBe(0);
    it.expectNobody(3);
  });
});
