/** What an instance leaves behind is gone before the next one; and an agent's death makes none. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, rmdirSync } from "node:fs";
import { agentSteps } from "../../src/process/perform/agent-session.ts";
import { hostlerWithFaults } from "../support/binary.ts";
import { type LonelyChild, lonelyChild } from "../support/lonely-child.ts";
import type { TestOrchestrator } from "../support/orchestrator.ts";
import {
  begin,
  bothPlaces,
  oldPartitionPlace,
  partitionPlace,
  type Running,
} from "../support/orchestrator-partition.ts";
import { feature, root, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const keepDying = `exit 1;`;
/** Leaves a child in the background, which holds what its parent held, and dies. */
const leaveOneBehind = `
  use Socket;
  $SIG{HUP} = $SIG{TERM} = "IGNORE";
  socket(my $name, AF_UNIX, SOCK_STREAM, 0);
  if (!bind($name, pack_sockaddr_un("\\0$ENV{LONELY}"))) {
    open(my $two, ">>", "$ENV{LONELY}.two");
    print $two "two\\n";
    close $two;
  }
  if (!fork()) { sleep 1000000 while 1; }
`;
const dieSoon = `${leaveOneBehind} ${keepDying}`;
const dieAway = `${leaveOneBehind} sleep 1000000 while 1;`;
/** Leaves a grandchild in a session of its own. */
const leaveTheGroup = `
  use POSIX ();
  if (!fork()) {
    POSIX::setsid();
    if (!fork()) { sleep 1000000 while 1; }
    exit 0;
  }
`;

/** Every instance has met nobody, and only the running one and its child are alive. */
async function expectNoOther(running: Running, child: LonelyChild): Promise<void> {
  expect(child.metAnother).toBe(false);
  expect(await running.orchestrator.stop()).toBe(0);
  await waitFor("nobody is left", () => child.alive.length === 0);
}

skipUnless("leftovers", root, () => {
  for (const place of bothPlaces) {
    test(`what stays in the background is gone before the restart: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const child = lonelyChild(folder, dieSoon);
      const configuration = `[process.it]\n@here\n${child.table}\nbackoff = "none"\n`;
      await using running = await begin(place, folder, configuration);
      await running.orchestrator.started("it", 30);
      await expectNoOther(running, child);
    });

    test(`a stop ends what stays in the background: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const child = lonelyChild(folder, dieAway);
      const lines = `[process.it]\n@here\n${child.table}\nstop_grace = "100ms"\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      await orchestrator.started("it");
      await waitFor("both of them", () => child.alive.length === 2);
      await orchestrator.client.request("stop", { name: "it" });
      await orchestrator.client.request("wait", { name: "it", until: "stopped" });
      await waitFor("nobody is left", () => child.alive.length === 0);
      await expectNoOther(running, child);
    });

    test(`leftovers = "keep" keeps it: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const child = lonelyChild(folder, dieAway);
      const lines = `[process.it]\n@here\n${child.table}\nleftovers = "keep"\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator } = running;
      const first = await orchestrator.started("it");
      const [kept] = await waitFor("both of them", () => {
        const others = child.alive.filter((processId) => processId !== first);
        return others.length === 1 && others;
      });
      process.kill(first, "SIGKILL");
      await orchestrator.started("it", 2);
      await waitFor("the meeting", () => child.metAnother);
      expect(await child.lives()).toContain(kept as number);
      process.kill(kept as number, "SIGKILL");
    });
  }
});

/** A cgroup v2 hierarchy can be mounted beside the old kind. */
class GroupFolder implements Disposable {
  readonly path: string;
  readonly #mount: string;

  constructor(folder: TemporaryFolder) {
    this.#mount = folder.file("cgroup");
    mkdirSync(this.#mount);
    const mounted = spawnSync("mount", ["-t", "cgroup2", "none", this.#mount]);
    if (mounted.status !== 0) throw new Error(`Cannot mount cgroup2: ${mounted.stderr}`);
    this.path = `${this.#mount}/hostler-test-${process.pid}`;
    mkdirSync(this.path);
  }

  [Symbol.dispose](): void {
    rmdirSync(this.path);
    spawnSync("umount", [this.#mount]);
  }
}

const cgroups = feature("no cgroup v2 that may be written", () => {
  try {
    using folder = temporaryFolder();
    using group = new GroupFolder(folder);
    return existsSync(`${group.path}/cgroup.kill`);
  } catch {
    return false;
  }
});

skipUnless("leftovers in a cgroup", [root, cgroups], () => {
  for (const place of bothPlaces) {
    test(`who left its group and session is gone as well: ${place.title}`, async () => {
      using folder = temporaryFolder();
      using group = new GroupFolder(folder);
      const child = lonelyChild(folder, `${leaveTheGroup}\n${dieSoon}`);
      const cgroup = `cgroup = "${group.path}"\nbackoff = "none"\n`;
      const lines = `[process.it]\n@here\n${child.table}\n${cgroup}`;
      await using running = await begin(place, folder, lines);
      await running.orchestrator.started("it", 10);
      await expectNoOther(running, child);
      await waitFor("no folder of an instance", () => foldersIn(group.path).length === 0);
    });
  }
});

function foldersIn(path: string): string[] {
  return readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name);
}

skipUnless("the agent is killed", root, () => {
  for (const place of [partitionPlace, oldPartitionPlace]) {
    test(`what it started goes on, is watched, and restarted: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const child = lonelyChild(folder, dieAway);
      await using running = await begin(place, folder, `[process.it]\n@here\n${child.table}\n`);
      const { orchestrator, partition, agent } = running;
      const first = await orchestrator.started("it");
      process.kill(agent, "SIGKILL");
      await orchestrator.program.said(/partition qm is away/);
      const undisturbed = await orchestrator.summary("it");
      expect([undisturbed.pid, undisturbed.phase]).toEqual([first, "ready"]);
      process.kill(first, "SIGKILL");
      await orchestrator.events.nth("it", "died");
      const ended = await orchestrator.events.nth("it", "ended");
      if (place.absent === undefined) {
        expect(ended.ending).toEqual({ kind: "signalled", signal: 9, core_dumped: false });
      } else {
        expect(ended.ending?.kind).toBe("unknown");
        expect(ended.detail).toMatch(/unknown: this kernel tells only the parent .* agent is gone/);
      }
      await untilItWaits(orchestrator);
      await partition?.startAgent(faultsOf(place.absent));
      await orchestrator.started("it", 2);
      await expectNoOther(running, child);
    });

    test(`an exit status without an agent: ${place.title}`, async () => {
      using folder = temporaryFolder();
      const gate = folder.file("gate");
      const script = `while ! [ -e ${gate} ]; do sleep 0.01; done; exit 7`;
      const command = JSON.stringify(["sh", "-c", script]);
      const lines = `[process.it]\n@here\ncommand = ${command}\nrestart = "on-failure"\n`;
      await using running = await begin(place, folder, lines);
      const { orchestrator, agent } = running;
      await orchestrator.started("it");
      process.kill(agent, "SIGKILL");
      await orchestrator.program.said(/partition qm is away/);
      await Bun.write(gate, "");
      const ended = await orchestrator.events.nth("it", "ended");
      // Nobody knows that it failed, and unknown is no success: it is wanted again.
      const known = { kind: "exited", status: 7 } as const;
      if (place.absent === undefined) expect(ended.ending).toEqual(known);
      else expect(ended.ending?.kind).toBe("unknown");
      await untilItWaits(orchestrator);
    });
  }

  test.each([...agentSteps])("at %s: one instance, and every death is heard", async (step) => {
    using folder = temporaryFolder();
    const child = lonelyChild(folder, dieAway);
    const agent = { binary: hostlerWithFaults(), environment: { HOSTLER_KILL_AT: step } };
    const lines = `[process.it]\n@here\n${child.table}\n`;
    await using running = await begin(partitionPlace, folder, lines, { agent });
    const { orchestrator, partition } = running;
    if (step.startsWith("agent:exit")) process.kill(await orchestrator.started("it"), "SIGKILL");
    await orchestrator.program.said(/partition qm is away/);
    await partition?.startAgent();
    await orchestrator.client.request("wait", { name: "it", until: "ready" });
    const { pid } = await orchestrator.summary("it");
    await waitFor("its environment", () => child.alive.includes(pid as number));
    expect(child.metAnother).toBe(false);
    const deaths = orchestrator.events.of("it", "died").length;
    process.kill(pid as number, "SIGKILL");
    await orchestrator.events.nth("it", "ended", deaths + 1);
    await orchestrator.client.request("wait", { name: "it", until: "ready" });
    await expectNoOther(running, child);
  });
});

/** Its rest is cleared, and it is wanted again as soon as there is an agent. */
async function untilItWaits(orchestrator: TestOrchestrator): Promise<void> {
  const waiting = await waitFor("the wait for an agent", async () => {
    const summary = await orchestrator.summary("it");
    return summary.phase === "waiting" && summary;
  });
  expect(waiting.reason).toBe("waits for partition qm");
}

function faultsOf(absent: string | undefined) {
  if (absent === undefined) return {};
  return { binary: hostlerWithFaults(), environment: { HOSTLER_ABSENT: absent } };
}
