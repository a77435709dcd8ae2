/** What killed daemons leave of cgroups, and who removes it. */
import { expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync } from "node:fs";
import { AgentClient } from "../support/agent-client.ts";
import { cgroupFolder, writableCgroup } from "../support/cgroup.ts";
import { withoutHolder } from "../support/kept.ts";
import { startOrchestrator } from "../support/orchestrator.ts";
import { isAlive, startAgent } from "../support/partition.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

const foldersIn = (path: string) =>
  readdirSync(path, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => entry.name);
const membersOf = (path: string) =>
  readFileSync(`${path}/cgroup.procs`, "utf8").split("\n").filter(Boolean).map(Number);

skipUnless("cgroups of instances", [root, writableCgroup], () => {
  const sleep = { argv: ["/bin/sleep", "1000"] };

  test("an agent removes the empty folders of one that was killed, and no other", async () => {
    using own = temporaryFolder();
    using cgroup = cgroupFolder();
    const parent = cgroup.file("services");
    const constraints = { cgroup: parent };
    const first = await startAgent(own);
    let populated: string;
    let empty: string;
    let survivor: number;
    {
      await using _killed = first;
      using client = await AgentClient.connect(first.socket);
      const lives = await client.start({ ...sleep, constraints });
      const dies = await client.start({ ...sleep, constraints });
      process.kill(first.processId, "SIGKILL");
      await first.program.ended();
      process.kill(dies.hostProcessId, "SIGKILL");
      await waitFor("its end", () => !isAlive(dies.hostProcessId));
      populated = lives.invocation;
      empty = dies.invocation;
      survivor = lives.hostProcessId;
    }
    cgroup.file("services/f00d");
    cgroup.file(`services/${"A".repeat(32)}`);
    expect(foldersIn(parent)).toContain(empty);
    await using agent = await startAgent(own);
    using client = await AgentClient.connect(agent.socket);
    const child = await client.start({ ...sleep, constraints });
    const expected = [populated, child.invocation, "f00d", "A".repeat(32)];
    expect(foldersIn(parent).sort()).toEqual(expected.sort());
    expect(isAlive(survivor)).toBe(true);
    process.kill(survivor, "SIGKILL");
    await waitFor("its end", () => !isAlive(survivor));
    child.signal(9);
    await child.told();
    await client.start({ ...sleep, constraints }).then(async (next) => {
      expect(foldersIn(parent)).not.toContain(populated);
      next.signal(9);
      await next.told();
    });
    await waitFor("the folders to go", () => foldersIn(parent).length === 2);
  });

  test("an agent that ends takes down the parents that it made, where nobody is", async () => {
    using own = temporaryFolder();
    using cgroup = cgroupFolder();
    const [made, kept] = [`${cgroup.path}/made/below`, `${cgroup.path}/kept/below`];
    const there = cgroup.file("there");
    const agent = await startAgent(own);
    await using _agent = agent;
    using client = await AgentClient.connect(agent.socket);
    for (const parent of [made, there]) {
      const child = await client.start({ ...sleep, constraints: { cgroup: parent } });
      child.signal(9);
      await child.told();
      await waitFor("its folder to go", () => foldersIn(parent).length === 0);
    }
    const stays = await client.start({ ...sleep, constraints: { cgroup: kept } });
    agent.program.kill("SIGTERM");
    expect((await agent.program.ended()).exitCode).toBe(0);
    expect(foldersIn(cgroup.path).sort()).toEqual(["kept", "there"]);
    expect(membersOf(`${kept}/${stays.invocation}`)).toEqual([stays.hostProcessId]);
    process.kill(stays.hostProcessId, "SIGKILL");
    await waitFor("the group to empty", () => {
      return membersOf(`${kept}/${stays.invocation}`).length === 0;
    });
  });

  test("a parent that cannot be used is not left half made", async () => {
    using own = temporaryFolder();
    await using agent = await startAgent(own);
    using client = await AgentClient.connect(agent.socket);
    const parent = own.file("no/cgroup");
    const refusal = await client.refusal({ ...sleep, constraints: { cgroup: parent } });
    expect(refusal.message).toContain("expected a folder of cgroup v2");
    expect(existsSync(own.file("no"))).toBe(false);
  });

  const title = "an orchestrator ends whoever a killed one left in its cgroups, whatever they are";
  test(title, async () => {
    using folder = temporaryFolder();
    using cgroup = cgroupFolder();
    const parent = `${cgroup.path}/made`;
    // Without its environment nothing names it but its cgroup.
    const script = "env -i setsid sleep 1000 & exec sleep 1000";
    const configuration = [
      `${withoutHolder}[process.it]`,
      `command = ["/bin/sh", "-c", "${script}"]`,
      `cgroup = "${parent}"`,
      "",
    ].join("\n");
    const first = await startOrchestrator({ folder, configuration });
    await first.started("it");
    const left = await waitFor("both", () => {
      const [name] = foldersIn(parent);
      const members = name === undefined ? [] : membersOf(`${parent}/${name}`);
      return members.length === 2 && { name, members };
    });
    process.kill(first.program.processId, "SIGKILL");
    await first.program.ended();
    mkdirSync(`${parent}/${"0".repeat(32)}`);
    await using second = await startOrchestrator({ folder, configuration });
    await second.started("it");
    expect(left.members.filter(isAlive)).toEqual([]);
    expect(foldersIn(parent)).toHaveLength(1);
    expect(foldersIn(parent)).not.toContain(left.name);
    expect(await second.stop()).toBe(0);
    // The one that was killed made the parent, and wrote that down.
    expect(existsSync(parent)).toBe(false);
    await first[Symbol.asyncDispose]();
  });

  test("what was made anew after a killed orchestrator is left to who made it", async () => {
    using folder = temporaryFolder();
    using cgroup = cgroupFolder();
    const parent = `${cgroup.path}/made`;
    const it = `[process.it]\ncommand = ["/bin/sleep", "1000"]\ncgroup = "${parent}"\n`;
    const configuration = `${withoutHolder}${it}`;
    const first = await startOrchestrator({ folder, configuration });
    const pid = await first.started("it");
    const [name] = foldersIn(parent);
    process.kill(first.program.processId, "SIGKILL");
    await first.program.ended();
    process.kill(pid, "SIGKILL");
    await waitFor("its group to be empty", () => membersOf(`${parent}/${name}`).length === 0);
    for (const path of [`${parent}/${name}`, parent]) rmdirSync(path);
    mkdirSync(parent);
    await using second = await startOrchestrator({ folder, configuration });
    await second.started("it");
    expect(await second.stop()).toBe(0);
    expect(foldersIn(cgroup.path)).toEqual(["made"]);
    await first[Symbol.asyncDispose]();
  });

  test("an orchestrator that ends takes down what it made", async () => {
    using folder = temporaryFolder();
    using cgroup = cgroupFolder();
    const parent = `${cgroup.path}/made/below`;
    const configuration = `[process.it]\ncommand = ["/bin/sleep", "1000"]\ncgroup = "${parent}"\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await orchestrator.started("it");
    expect(foldersIn(parent)).toHaveLength(1);
    expect(await orchestrator.stop()).toBe(0);
    expect(foldersIn(cgroup.path)).toEqual([]);
  });
});
