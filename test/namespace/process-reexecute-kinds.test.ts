/** What else goes on in another program: cgroups, Holden's processes, agents that dial out. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import * as v from "valibot";
import { processSummarySchema } from "../../src/process/protocol.ts";
import { hostler } from "../support/binary.ts";
import { cgroupFolder, writableCgroup } from "../support/cgroup.ts";
import { startOrchestrator } from "../support/orchestrator.ts";
import { isAlive } from "../support/partition.ts";
import { startProgram } from "../support/program.ts";
import { aboutOf, askOnce, reexecute } from "../support/reexecution.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const listOf = async (controlSocket: string) =>
  v.parse(v.array(processSummarySchema), await askOnce(controlSocket, "list"));

skipUnless("cgroups through a re-execution", [root, writableCgroup], () => {
  test("all of an instance is ended with it, and what was made is taken down", async () => {
    using cgroup = cgroupFolder();
    const parent = `${cgroup.path}/made`;
    const flees = ["sh", "-c", "setsid sleep 1000 & exec sleep 1000"];
    const command = `command = ${JSON.stringify(flees)}`;
    const configuration = `[process.it]\n${command}\ncgroup = "${parent}"\n`;
    await using orchestrator = await startOrchestrator({ configuration });
    const processId = await orchestrator.started("it");
    const [first = ""] = readdirSync(parent).filter((name) => /^[0-9a-f]{32}$/.test(name));
    const members = () =>
      readFileSync(`${parent}/${first}/cgroup.procs`, "utf8").trim().split("\n");
    await waitFor("who fled", () => members().length === 2);
    const all = members().map(Number);
    await reexecute(orchestrator.controlSocket);
    expect(all.every(isAlive)).toBe(true);
    process.kill(processId, "SIGKILL");
    await orchestrator.started("it", 2);
    expect(all.some(isAlive)).toBe(false);
    expect(existsSync(`${parent}/${first}`)).toBe(false);
    await reexecute(orchestrator.controlSocket);
    expect(await orchestrator.stop()).toBe(0);
    expect(existsSync(parent)).toBe(false);
  });
});

skipUnless("Holden's names through a re-execution", root, () => {
  test("its two processes go on, and are restarted by the next program", async () => {
    using folder = temporaryFolder();
    const socket = folder.file("holden.sock");
    const controlSocket = folder.file("control.sock");
    const [agentName, name] = [folder.file("holden-agent"), folder.file("holden-orchestrator")];
    symlinkSync(hostler(), agentName);
    symlinkSync(hostler(), name);
    const environment = { HOLDEN_SOCKET_PATH: socket };
    await using _agent = startProgram([agentName], { environment });
    await waitFor("the agent", () => existsSync(socket));
    const commands = ["/bin/sleep 1000", "/bin/sleep 1001"];
    const words = [name, ...commands, "--control-socket", controlSocket];
    await using program = startProgram(words, { environment });
    const ready = async () => {
      const found = await listOf(controlSocket);
      return found.every(({ phase }) => phase === "ready") ? found : undefined;
    };
    const before = await waitFor("both to be ready", ready);
    const about = await reexecute(controlSocket);
    expect(about.process_id).toBe(program.processId);
    const after = await listOf(controlSocket);
    expect(after.map(({ pid, phase }) => [pid, phase])).toEqual(
      before.map(({ pid }) => [pid, "ready"]),
    );
    for (const { pid } of before) process.kill(pid as number, "SIGKILL");
    const restarted = async () =>
      (await ready())?.every(({ restarts }) => restarts === 1) === true ? true : undefined;
    await waitFor("both to be restarted", restarted);
    program.kill("SIGTERM");
    expect((await program.ended()).exitCode).toBe(0);
  });
});

skipUnless("an agent that dials out, through a re-execution", root, () => {
  test("its connection goes on, and a second one is refused as before", async () => {
    using folder = temporaryFolder();
    const listen = folder.file("qm.sock");
    const lines = '[process.it]\npartition = "qm"\ncommand = ["sleep", "1000"]\n';
    const configuration = `${lines}[partition.qm]\nlisten = "${listen}"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const dial = () => startProgram([hostler(), "process", "agent", "--connect", listen]);
    await using agent = dial();
    const processId = await orchestrator.started("it");
    await reexecute(orchestrator.controlSocket);
    await using second = dial();
    await second.said(/refused this agent: .*another one while it is connected/);
    await reexecute(orchestrator.controlSocket);
    expect(agent.output.stderr.match(/connected/g) ?? []).toHaveLength(1);
    agent.kill("SIGKILL");
    await agent.ended();
    // The second one tries for ever: it is the agent now.
    process.kill(processId, "SIGKILL");
    const next = await orchestrator.started("it", 2);
    expect(isAlive(next)).toBe(true);
    expect((await aboutOf(orchestrator.controlSocket)).process_id).toBe(
      orchestrator.program.processId,
    );
  });
});
