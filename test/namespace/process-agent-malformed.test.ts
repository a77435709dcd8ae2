/**
 * 100,000 malformed frames against each socket of the compiled agent and orchestrator; without
 * --all the tenth whose turn it is. Afterwards each serves at once and holds nothing of it.
 */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { connectControl } from "../../src/messaging/control-client.ts";
import { AgentClient, clientHello, openNull, RawClient } from "../support/agent-client.ts";
import { hostler } from "../support/binary.ts";
import { withoutHolder } from "../support/kept.ts";
import { countLines } from "../support/log-lines.ts";
import {
  anonymousMemoryOf,
  openLinksOf,
  type Target,
  throwMalformed,
} from "../support/malformed.ts";
import { startAgent } from "../support/partition.ts";
import { type Program, startProgram } from "../support/program.ts";
import { rotating } from "../support/rotation.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

const FRAMES_A_SEED = 1_000;
const seeds = Array.from({ length: 100 }, (_value, index) => 1 + index);
/** Garbage of the collector's kind is not freed at once; a leak of 100,000 frames is more. */
const MEMORY_BOUND = 160 * 1024;

let folder: TemporaryFolder;
let nothing: ReturnType<typeof openNull>;

beforeAll(() => {
  folder = temporaryFolder();
  nothing = openNull();
});

afterAll(() => {
  nothing[Symbol.dispose]();
  folder[Symbol.dispose]();
});

/** Throws at several places of one process, a seed at each, and looks at what is left. */
async function throwAt(
  name: string,
  processId: number,
  targets: readonly Target[],
  serves: () => Promise<void>,
): Promise<void> {
  await serves();
  const descriptors = openLinksOf(processId);
  const memory = anonymousMemoryOf(processId);
  const turn = rotating(name, seeds, { outOf: 10 });
  while (turn.length > 0) {
    const thrown = targets.map(async (target) => {
      const seed = turn.shift();
      if (seed !== undefined) await throwMalformed(target, { seed, frames: FRAMES_A_SEED });
    });
    await Promise.all(thrown);
    await serves();
  }
  await waitFor(`as few descriptors as before (${descriptors.length})`, () => {
    const now = openLinksOf(processId);
    if (now.length <= descriptors.length) return true;
    throw new Error(`Before: ${descriptors.toSorted()}; now: ${now.toSorted()}`);
  });
  expect(anonymousMemoryOf(processId) - memory).toBeLessThan(MEMORY_BOUND);
}

test("the agent's socket", async () => {
  await using agent = await startAgent(folder);
  const target = {
    connect: () => RawClient.connect(agent.socket),
    hello: clientHello,
    descriptor: nothing.number,
  };
  await throwAt("the agent's socket", agent.processId, [target], async () => {
    using client = await AgentClient.connect(agent.socket);
    const child = await client.start({ argv: ["/bin/true"] });
    expect(await child.told()).toEqual({ kind: "exited", status: 0 });
    child.process.close();
  });
}, 600_000);

async function startOrchestrator(configuration: string): Promise<{
  program: Program;
  control: string;
}> {
  const control = folder.file("control.sock");
  const file = folder.file("process.toml");
  // Descriptors are counted, and a holder has duplicates.
  writeFileSync(file, `${withoutHolder}${configuration}`);
  const words = ["--config", file, "--control-socket", control];
  const program = startProgram([hostler(), "process", "orchestrator", ...words]);
  await waitFor("the control socket", async () => {
    const client = await connectControl(control);
    client.close();
    return true;
  });
  return { program, control };
}

test("the orchestrator's control socket", async () => {
  const sleep = '[process.canary]\ncommand = ["/bin/sleep", "1000"]\n';
  const { program, control } = await startOrchestrator(sleep);
  await using orchestrator = program;
  const client = await connectControl(control);
  await client.request("wait", { name: "canary", until: "ready" });
  const show = async () => {
    const answer = (await client.request("show", { name: "canary" })) as {
      summary: { pid: number; restarts: number };
    };
    return answer.summary;
  };
  const before = await show();
  const target = {
    connect: () => RawClient.connect(control),
    hello: undefined,
    descriptor: nothing.number,
  };
  await throwAt("the control socket", orchestrator.processId, [target], async () => {
    const other = await connectControl(control);
    await other.request("list");
    other.close();
  });
  expect((await show()).pid).toBe(before.pid);
  client.close();
  orchestrator.kill("SIGTERM");
  expect((await orchestrator.ended()).exitCode).toBe(0);
}, 600_000);

test("the sockets on which the orchestrator waits for agents", async () => {
  const paths = Array.from({ length: 5 }, (_value, index) =>
    folder.file(`partition-${index}.sock`),
  );
  const partitions = paths.map((path, index) => `[partition.qm${index}]\nlisten = "${path}"\n`);
  const canary = '[process.canary]\npartition = "qm0"\ncommand = ["/bin/sleep", "1000"]\n';
  const configuration = `${partitions.join("")}${canary}autostart = false\n`;
  const { program, control } = await startOrchestrator(configuration);
  await using orchestrator = program;
  // They come when what an earlier orchestrator may have left has been looked for.
  await waitFor("the partitions' sockets", () => paths.every((path) => existsSync(path)));
  const client = await connectControl(control);
  const hello = { ...clientHello, role: "agent" };
  const targets = paths.map((path) => ({
    connect: () => RawClient.connect(path),
    hello,
    descriptor: nothing.number,
    oneAtATime: true,
  }));
  await throwAt("the partitions' sockets", orchestrator.processId, targets, async () => {
    await client.request("list");
  });
  const path = paths[0] ?? "";
  await using _agent = await startAgent(folder, { words: ["--connect", path] });
  // What the log says of one more connection may be held back by now.
  await client.request("start", { name: "canary" });
  await client.request("wait", { name: "canary", until: "ready" });
  client.close();
  orchestrator.kill("SIGTERM");
  const { exitCode, stderr } = await orchestrator.ended();
  expect(exitCode).toBe(0);
  expect(stderr).toContain("it broke the protocol");
  expect(countLines(stderr, /partition qm\d is away/)).toBeGreaterThan(500);
}, 600_000);
