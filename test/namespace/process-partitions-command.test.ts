/** `hostler process partitions`: who is there, since when, and why not. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync } from "node:fs";
import * as v from "valibot";
import { type PartitionSummary, partitionSummarySchema } from "../../src/process/protocol.ts";
import { hostler } from "../support/binary.ts";
import { startOrchestrator } from "../support/orchestrator.ts";
import { startAgent } from "../support/partition.ts";
import { runProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

skipUnless("hostler process partitions", root, () => {
  test("an agent that comes, goes and is refused, one that never came, and none", async () => {
    using folder = temporaryFolder();
    const socket = folder.file("agent.sock");
    const configuration = [
      `[partition.here]\nsocket = "${socket}"\n`,
      `[partition.never]\nlisten = "${folder.file("never.sock")}"\n`,
      `[partition.holden]\nsocket = "${folder.file("holden.sock")}"\nprotocol = "holden"\n`,
      '[process.a]\ncommand = ["sleep", "1000"]\npartition = "here"\n',
      '[process.b]\ncommand = ["sleep", "1000"]\npartition = "here"\n',
    ].join("");
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const words = [hostler(), "process", "partitions"];
    const command = [...words, "--control-socket", orchestrator.controlSocket];
    const here = async (look: (found: PartitionSummary) => boolean) =>
      await waitFor("the partition to be so", async () => {
        const { stdout } = await runProgram([...command, "--json"]);
        const [found] = v.parse(v.array(partitionSummarySchema), JSON.parse(stdout));
        return found !== undefined && look(found) ? found : undefined;
      });
    expect(await here(({ reason }) => reason?.includes("cannot reach") === true)).toMatchObject({
      name: "here",
      state: "away",
      reason: expect.stringContaining("No such file or directory"),
      agent_version: null,
      agent_pid: null,
      protocol: "hostler",
      endpoint: { connect: socket },
      processes: ["a", "b"],
    });
    {
      await using agent = await startAgent(folder);
      const found = await here(({ state }) => state === "connected");
      expect(found).toMatchObject({
        reason: null,
        agent_version: expect.stringMatching(/^\d+\.\d+\.\d+/),
        agent_pid: agent.processId,
      });
      const { stdout } = await runProgram(command);
      expect(stdout).toMatch(
        /^NAME +STATE +SINCE +AGENT +PID +PROTOCOL +ENDPOINT +PROCESSES +REASON/,
      );
      expect(stdout).toMatch(/^here +connected +\S+Z +\S+ +\d+ +hostler +connect \S+ +a,b *$/m);
      expect(stdout).toMatch(/^never +away .* listen \S+ +- +its agent has not come yet$/m);
      expect(stdout).toMatch(/^holden +away .* holden +connect \S+ +- +\S+: No such file or dir/m);
    }
    const away = await here(({ state }) => state === "away");
    expect(away.agent_pid).toBeNull();
    chmodSync(folder.path, 0o777);
    const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    await runProgram(["rm", "-f", socket]);
    await using _other = await startAgent(folder, { before: nobody });
    const refused = await here(({ reason }) => reason?.includes("user 65534") === true);
    expect(refused).toMatchObject({ state: "away", since: away.since });
  });

  test("none: the head of the table alone", async () => {
    await using orchestrator = await startOrchestrator({
      configuration: '[process.a]\ncommand = ["sleep", "1000"]\n',
    });
    const words = ["process", "partitions", "--control-socket", orchestrator.controlSocket];
    expect((await runProgram([hostler(), ...words])).stdout).toMatch(/^NAME +STATE .*\n$/);
    expect(JSON.parse((await runProgram([hostler(), ...words, "--json"])).stdout)).toEqual([]);
  });
});
