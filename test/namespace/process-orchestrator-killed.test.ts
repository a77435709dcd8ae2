/** The orchestrator is killed between any two of its steps; the next one leaves no double. */
import { expect, setDefaultTimeout, test } from "bun:test";
import type { EffectKind } from "../../src/process/lifecycle.ts";
import { hostlerWithFaults } from "../support/binary.ts";
import { keptDescriptors, killHolder, withoutHolder } from "../support/kept.ts";
import { type LonelyChild, lonelyChild } from "../support/lonely-child.ts";
import {
  spawnOrchestrator,
  startOrchestrator,
  type TestOrchestrator,
} from "../support/orchestrator.ts";
import {
  begin,
  bothPlaces,
  type Place,
  partitionPlace,
  type Running,
} from "../support/orchestrator-partition.ts";
import { rotating } from "../support/rotation.ts";
import { root, skipUnless } from "../support/skips.ts";
import { suspend } from "../support/suspend.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

/** How a test brings an orchestrator to perform an effect. */
interface KillTest {
  /** Further lines of the process table. */
  readonly table?: string;
  /** Passes of the kill point, from 1, that are worth a test each. */
  readonly passes?: readonly number[];
  readonly places?: readonly Place[];
  /** Where the agent dies, if it must. */
  readonly agentDiesAt?: string;
  /** What is done once the process is there, until the orchestrator is dead. */
  readonly provoke?: (orchestrator: TestOrchestrator) => Promise<void>;
}

const ask =
  (verb: string, fields: Readonly<Record<string, unknown>> = {}) =>
  async (orchestrator: TestOrchestrator) => {
    await orchestrator.started("it");
    await orchestrator.client.request(verb, { name: "it", ...fields });
  };

const killIt = async (orchestrator: TestOrchestrator) => {
  process.kill(await orchestrator.started("it"), "SIGKILL");
};

const alive = 'alive = {command = ["true"], interval = "10ms"}';

/** One for each effect: a new effect without one does not compile. */
const killTests: Record<EffectKind, KillTest> = {
  start: { passes: [1, 2], provoke: killIt },
  find: { places: [partitionPlace], agentDiesAt: "agent:start:spawned" },
  "watch-readiness": { table: 'ready = {command = ["true"]}' },
  "forget-readiness": { table: 'ready = {command = ["true"]}' },
  "watch-liveness": { table: alive },
  "forget-liveness": { table: alive, provoke: ask("stop") },
  signal: { provoke: ask("stop") },
  kill: { provoke: ask("stop", { now: true }) },
  clear: { provoke: killIt },
  record: { passes: [1, 2, 3, 4, 5, 6], provoke: killIt },
};

/** What its holder is good for. */
const ways = ["without a holder", "with a holder", "its holder is killed as well"] as const;
type Way = (typeof ways)[number];

interface KillCase {
  readonly way: Way;
  readonly effect: EffectKind;
  readonly when: "before" | "after";
  readonly pass: number;
  readonly place: Place;
}

const cases: KillCase[] = Object.entries(killTests).flatMap(([effect, killTest]) =>
  (["before", "after"] as const).flatMap((when) =>
    (killTest.passes ?? [1]).flatMap((pass) =>
      (killTest.places ?? bothPlaces).flatMap((place) =>
        ways.map((way) => ({ way, effect: effect as EffectKind, when, pass, place })),
      ),
    ),
  ),
);

/** Until it is dead, and it must have been its kill point. */
async function dies(running: Running): Promise<void> {
  const { signal } = await running.orchestrator.program.ended();
  expect(signal).toBe("SIGKILL");
}

/** Both ends of two pipes, and a journal: of a process that has not been started. */
const KEPT_UNSTARTED = 5;

/** The next orchestrator has one instance, and nothing of the last one's is left. */
async function expectFresh(next: TestOrchestrator, child: LonelyChild): Promise<void> {
  // Where its former start had not been written down it was never wanted.
  await next.client.request("start", { name: "it" });
  await next.client.request("wait", { name: "it", until: "ready" });
  const { pid } = await next.summary("it");
  // A check of readiness carries the same environment for as long as it runs.
  await waitFor("one instance", () => child.alive.length === 1 && child.alive[0] === pid);
  expect(child.metAnother).toBe(false);
  expect(await next.stop()).toBe(0);
  await waitFor("nobody is left", () => child.alive.length === 0);
}

skipUnless("the orchestrator is killed", root, () => {
  for (const { way, effect, when, pass, place } of rotating("kill points", cases, { outOf: 3 })) {
    test(`${effect}, ${when}, pass ${pass}: ${place.title}, ${way}`, async () => {
      const { table = "", agentDiesAt, provoke } = killTests[effect];
      using folder = temporaryFolder();
      const child = lonelyChild(folder);
      const before = way === "without a holder" ? withoutHolder : "";
      const lines = `${before}[process.it]\n@here\n${child.table}\n${table}\n`;
      const agent = agentDiesAt === undefined ? {} : dyingAt(agentDiesAt);
      const orchestrator = dyingAt(`orchestrator:${effect}:${when}#${pass}`);
      const options = { agent, orchestrator };
      await using running = await begin(place, folder, `${lines}autostart = false`, options);
      if (way !== "without a holder") {
        await keptDescriptors(running.orchestrator, KEPT_UNSTARTED);
      }
      // It is dead before it answers, or before what is waited for comes.
      const { client } = running.orchestrator;
      await client.request("start", { name: "it" }).catch(() => undefined);
      await provoke?.(running.orchestrator).catch(() => undefined);
      await dies(running);
      if (way === "its holder is killed as well") {
        await killHolder(running.orchestrator.controlSocket);
      }
      if (agentDiesAt !== undefined) await running.partition?.startAgent();
      await using next = await startNext(running, folder, lines);
      await expectFresh(next, child);
    });
  }
});

/** Another orchestrator with the same control socket, on the same partition. */
async function startNext(
  running: Running,
  folder: TemporaryFolder,
  lines: string,
): Promise<TestOrchestrator> {
  const { partition } = running;
  const here = partition === undefined ? "" : 'partition = "qm"';
  const rest = partition === undefined ? "" : `[partition.qm]\nsocket = "${partition.socket}"\n`;
  return await startOrchestrator({
    folder,
    configuration: `${lines.replaceAll("@here", here)}\n${rest}`,
  });
}

skipUnless("two orchestrators", root, () => {
  test("a second one with the same control socket is refused while the first lives", async () => {
    using folder = temporaryFolder();
    const configuration = `[process.it]\n${lonelyChild(folder).table}\n`;
    await using first = await startOrchestrator({ folder, configuration });
    const pid = await first.started("it");
    await using second = spawnOrchestrator({ folder, configuration });
    const { exitCode, stderr } = await second.ended();
    expect(stderr).toMatch(/Another orchestrator runs with the control socket .*control\.sock/);
    expect(stderr).toMatch(/another --control-socket/);
    expect(exitCode).toBe(111);
    expect(stderr).not.toMatch(/\.ts:|at async/);
    expect((await first.summary("it")).pid).toBe(pid);
  });

  test("one that is killed while it ends the leftovers of another loses none of them", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const configuration = `[process.it]\n${child.table}\n`;
    await using first = await startOrchestrator({ folder, configuration });
    await first.started("it");
    first.program.kill("SIGKILL");
    await first.program.ended();
    expect(await child.lives()).toHaveLength(1);
    await using second = spawnOrchestrator({ folder, configuration });
    second.kill("SIGKILL");
    await second.ended();
    await using third = await startOrchestrator({ folder, configuration });
    await expectFresh(third, child);
  });

  for (const place of bothPlaces) {
    test(`a check of readiness that hangs does not outlive both: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const child = lonelyChild(folder);
      const lines = `[process.it]\n@here\n${child.table}\n`;
      const hangs = `${lines}ready = {command = ["sleep", "100000"]}\n`;
      await using running = await begin(place, folder, hangs);
      await waitFor("the check", () => child.alive.length === 2);
      running.orchestrator.program.kill("SIGKILL");
      await running.orchestrator.program.ended();
      await using next = await startNext(running, folder, lines);
      await expectFresh(next, child);
    });
  }

  test("a start that the agent takes up after its asker's death makes no double", async () => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder);
    const lines = `[process.it]\n@here\n${child.table}\n`;
    await using running = await begin(partitionPlace, folder, `${lines}autostart = false\n`);
    const { orchestrator, agent } = running;
    await waitFor("the agent", () => /is connected/.test(orchestrator.program.output.stderr));
    suspend(agent);
    await orchestrator.client.request("start", { name: "it" });
    await orchestrator.events.nth("it", "start-requested");
    orchestrator.program.kill("SIGKILL");
    await orchestrator.program.ended();
    await using next = await startNext(running, folder, lines);
    process.kill(agent, "SIGCONT");
    await expectFresh(next, child);
  });
});

function dyingAt(place: string) {
  return { binary: hostlerWithFaults(), environment: { HOSTLER_KILL_AT: place } };
}
