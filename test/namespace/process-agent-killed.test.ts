/** The agent killed between any two of its steps: exactly one instance, and nobody disturbed. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync, symlinkSync } from "node:fs";
import { type AgentStep, agentSteps } from "../../src/process/perform/agent-session.ts";
import { allProcesses, statusOf } from "../../src/process/perform/process-table.ts";
import { AgentClient } from "../support/agent-client.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { begin, partitionPlace, type Running } from "../support/orchestrator-partition.ts";
import {
  compilePrograms,
  isAlive,
  makePartition,
  type TestPartition,
} from "../support/partition.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

interface KillTest {
  /** What makes the agent come to the step: the second start, or the end of its second child. */
  readonly cause: "start" | "end";
  /** What the orchestrator makes of it; "either": its start may have come before the end. */
  readonly outcome: "started again" | "adopted" | "known" | "either";
}

/** A new step has no test until it stands here, and does not compile. */
const killTests: Record<AgentStep, KillTest> = {
  "agent:start:received": { cause: "start", outcome: "started again" },
  "agent:start:spawned": { cause: "start", outcome: "adopted" },
  "agent:start:sent": { cause: "start", outcome: "known" },
  "agent:exit:noticed": { cause: "end", outcome: "started again" },
  "agent:exit:told": { cause: "end", outcome: "either" },
};

/** Living processes that were started by this name. */
function namedAs(path: string): number[] {
  return allProcesses().filter((processId) => {
    try {
      const words = readFileSync(`/proc/${processId}/cmdline`, "utf8");
      return words.startsWith(`${path}\0`) && isAlive(processId);
    } catch {
      return false;
    }
  });
}

class Scene implements AsyncDisposable {
  readonly folder: TemporaryFolder = temporaryFolder();
  /** The program of the process that the test is about, under a name of its own. */
  readonly sleeper: string = this.folder.file("sleeper");
  #running: Running | undefined;

  async begin(step: AgentStep): Promise<Running> {
    symlinkSync("/bin/sleep", this.sleeper);
    const { cause } = killTests[step];
    // The other one's start is the first; its end never comes.
    const at = cause === "start" ? `${step}#2` : step;
    const configuration = `
[process.canary]
command = ["/bin/sleep", "1000"]
[process.other]
partition = "qm"
command = ["/bin/sleep", "1000"]
[process.it]
partition = "qm"
after = ["other"]
command = ["${this.sleeper}", "1000"]
`;
    this.#running = await begin(partitionPlace, this.folder, configuration, {
      agent: { binary: hostlerWithFaults(), environment: { HOSTLER_KILL_AT: at } },
    });
    return this.#running;
  }

  get living(): number[] {
    return namedAs(this.sleeper);
  }

  /** Who lives, as soon as somebody does: in the middle of its exec a process has no name. */
  async lived(): Promise<number[]> {
    return await waitFor("somebody to live", () => this.living.length > 0 && this.living);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running?.[Symbol.asyncDispose]();
    this.folder[Symbol.dispose]();
  }
}

skipUnless("the agent is killed", root, () => {
  for (const step of agentSteps) {
    const { cause, outcome } = killTests[step];
    test(`at ${step}: ${outcome}`, async () => {
      await using scene = new Scene();
      const { orchestrator, agent, partition } = await scene.begin(step);
      const canary = await orchestrator.started("canary");
      const other = await orchestrator.started("other");
      if (cause === "end") {
        const first = await orchestrator.started("it");
        process.kill(first, "SIGKILL");
        await waitFor("its end", () => !isAlive(first));
      }
      // Its other threads may hold the socket when the first one is dead already.
      await waitFor("the agent's end", () => statusOf(agent) === undefined);
      const survives = outcome === "adopted" || outcome === "known";
      const [survivor] = survives ? await scene.lived() : scene.living;
      if (outcome === "started again") expect(survivor).toBeUndefined();
      await partition?.startAgent({ binary: hostler() });
      const { client, events } = orchestrator;
      await client.request("wait", { name: "it", until: "ready" });
      const [now = 0, ...more] = await scene.lived();
      expect(more).toEqual([]);
      if (survivor !== undefined) expect(now).toBe(survivor);
      const adopted = events.of("it", "adopted").length > 0;
      if (outcome !== "either") expect(adopted).toBe(outcome === "adopted");
      expect((await orchestrator.summary("it")).pid).toBe(now);
      // Whoever started it: its death is heard, and the new agent starts the next one.
      process.kill(now, "SIGKILL");
      await waitFor("the next one", async () => {
        const { pid, phase } = await orchestrator.summary("it");
        return pid !== now && phase === "ready";
      });
      expect(await scene.lived()).toHaveLength(1);
      expect((await orchestrator.summary("canary")).pid).toBe(canary);
      expect((await orchestrator.summary("other")).pid).toBe(other);
      expect([canary, other].every(isAlive)).toBe(true);
    });
  }
});

skipUnless("an agent after another", program("gcc", "gcc"), () => {
  let folder: TemporaryFolder;
  let partition: TestPartition;

  beforeAll(async () => {
    folder = temporaryFolder();
    partition = await makePartition(folder, compilePrograms(folder).reaper);
  });

  afterAll(async () => {
    await partition[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  describe("takes requests at once, and the children of the one before live on", () => {
    for (const step of agentSteps) {
      test(`killed at ${step}`, async () => {
        const { cause } = killTests[step];
        const environment = { HOSTLER_KILL_AT: cause === "start" ? `${step}#2` : step };
        const first = await partition.startAgent({ binary: hostlerWithFaults(), environment });
        using client = await AgentClient.connect(first.socket);
        const child = await client.start({ argv: ["/bin/sleep", "1000"] });
        const number = child.hostProcessId;
        if (cause === "start") {
          await client.requestStart({ argv: ["/bin/sleep", "0"] }).catch(() => {});
        } else child.signal(9);
        await first.program.ended();
        expect(isAlive(number)).toBe(cause === "start");
        const second = await partition.startAgent();
        using next = await AgentClient.connect(second.socket);
        const other = await next.start({ argv: ["/bin/true"] });
        expect(await other.told()).toEqual({ kind: "exited", status: 0 });
        if (cause === "start") expect(child.signal(9)).toBe(true);
        // The partition's first process reaps whom the agent left.
        await child.reaped();
        process.kill(second.processId, "SIGKILL");
        await second.program.ended();
      });
    }
  });
});
