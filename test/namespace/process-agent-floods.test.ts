/** Peers that are refused, or break the protocol, again and again: the log stays bounded. */
import { expect, test } from "bun:test";
import { LINES_AN_INTERVAL } from "../../src/logging/limiter.ts";
import { RawClient } from "../support/agent-client.ts";
import { countLines } from "../support/log-lines.ts";
import { startOrchestrator } from "../support/orchestrator.ts";
import { startAgent } from "../support/partition.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const MANY = 10_000;

/** Connections that are there at once. */
const AT_ONCE = 100;

async function knockOnce(path: string, words: string): Promise<void> {
  using client = await RawClient.connect(path);
  if (words !== "") client.trySend(new TextEncoder().encode(words));
  await client.closed();
}

/** Connects so often, says something, and waits for each end. */
async function knock(path: string, times: number, words: string): Promise<void> {
  for (let count = 0; count < times; count += AT_ONCE) {
    await Promise.all(Array.from({ length: AT_ONCE }, () => knockOnce(path, words)));
  }
}

/** Lines that may be said of one kind while the test runs: an interval may begin meanwhile. */
const mostLines = (began: number) =>
  (LINES_AN_INTERVAL + 1) * (2 + Math.floor((performance.now() - began) / 30_000));

test("10,000 refused connections to the agent are a few lines, and all are counted", async () => {
  using folder = temporaryFolder();
  await using agent = await startAgent(folder, {
    words: ["--socket", folder.file("agent.sock"), "--allow-uid", "1234"],
  });
  const began = performance.now();
  await knock(agent.socket, MANY, "");
  agent.program.kill("SIGTERM");
  const { exitCode, stderr } = await agent.program.ended();
  expect(exitCode).toBe(0);
  const kind = /refused a connection: /;
  expect(countLines(stderr, kind)).toBe(MANY);
  expect(stderr).toMatch(/refused a connection: … \d+ more like it in the last 30/);
  const lines = stderr.split("\n").filter((line) => kind.test(line));
  expect(lines.length).toBeLessThanOrEqual(mostLines(began));
}, 300_000);

test("clients that break the protocol of the control socket", async () => {
  using folder = temporaryFolder();
  const configuration = '[process.it]\ncommand = ["/bin/sleep", "1000"]\n';
  await using orchestrator = await startOrchestrator({ folder, configuration });
  const began = performance.now();
  await knock(orchestrator.controlSocket, MANY / 10, "no frame, and none to come\n".repeat(4));
  expect((await orchestrator.summary("it")).phase).toBe("ready");
  expect(await orchestrator.stop()).toBe(0);
  const { stderr } = orchestrator.program.output;
  const kind = /a client broke the protocol: /;
  expect(countLines(stderr, kind)).toBe(MANY / 10);
  const lines = stderr.split("\n").filter((line) => kind.test(line));
  expect(lines.length).toBeLessThanOrEqual(mostLines(began));
}, 300_000);

test("agents that come while one is connected", async () => {
  using folder = temporaryFolder();
  const path = folder.file("partition.sock");
  const configuration =
    `[partition.qm]\nlisten = "${path}"\n` +
    '[process.it]\npartition = "qm"\ncommand = ["/bin/sleep", "1000"]\n';
  await using orchestrator = await startOrchestrator({ folder, configuration });
  await using _agent = await startAgent(folder, { words: ["--connect", path] });
  const pid = await orchestrator.started("it");
  await knock(path, MANY / 10, "");
  expect((await orchestrator.summary("it")).pid).toBe(pid);
  expect(await orchestrator.stop()).toBe(0);
  const { stderr } = orchestrator.program.output;
  // Whoever is refused tries again: it is one state, however often.
  expect(stderr.match(/partition qm: refused a second agent: /g)).toHaveLength(1);
}, 300_000);
