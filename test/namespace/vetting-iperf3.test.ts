/** The stage Network by iperf3: the compiled file at both ends, with Debian's and hostile ones. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, writeFileSync } from "node:fs";
import { network } from "../../src/vetting/stages/network.ts";
import type { Network } from "../support/networks.ts";
import { runProgram } from "../support/program.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { makeLinkStage } from "../support/vetting/link-stage.ts";
import { hostInventory, judged, stageContext } from "../support/vetting-stage.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const tool = { engine: "tool", duration_s: 1 } as const;

/** Sockets that listen there: state 0A of /proc/net/tcp. */
async function listeners(of: Network): Promise<number> {
  const { stdout } = await runProgram([...of.enter, "cat", "/proc/net/tcp", "/proc/net/tcp6"]);
  return stdout.split("\n").filter((line) => / 0A /.test(line)).length;
}

/** Of the server alone: no end of a tool is left. */
const expectNoServerLeft = (of: Network) =>
  waitFor("the end of the tool's server", async () => (await listeners(of)) === 1);

const needs = [root, program("ip", "iproute2"), program("nsenter", "util-linux")];

skipUnless("a link that Debian's iperf3 measures", [...needs, program("iperf3", "iperf3")], () => {
  test("both ways, as the spec asks; and the stage says that nobody looked at bytes", async () => {
    await using stage = await makeLinkStage({ tool: true });
    const report = await stage.run(tool);
    if (report.throughput.kind !== "measured") throw new Error(report.throughput.reason);
    const { up, down, engine, corrupted, address } = report.throughput;
    expect([engine.name, corrupted, address]).toEqual(["iperf3", null, "10.77.0.1"]);
    expect(engine.version).toMatch(/^3\.\d+/);
    for (const { bytes, seconds } of [up, down]) {
      expect(bytes).toBeGreaterThan(1024 ** 2);
      expect(seconds).toBeGreaterThan(0.5);
    }
    await expectNoServerLeft(stage.orchestrator);
    const card = {
      ...{ name: "wire", mac: stage.mac, driver: "veth", firmware: null, pci: null },
      ...{ carrier: true, speed_mbps: 10_000, duplex: "full" as const },
      ...{ most_mtu: null, numa_node: null },
    };
    const inventory = hostInventory({ network: [card] });
    const context = stageContext({ Network: { engine: "tool" } }, { inventory });
    const found = judged(network, context, () => ({ kind: "report", report }));
    expect(found.outcome).toBe("PASS");
    expect(found.engines.map(({ engine }) => engine)).toEqual(["iperf3", "hostler"]);
    expect(found.findings.map(({ expected }) => expected)).toContain("network.content");
    expect(found.coverage).toMatchObject([{ unit: "links", covered: 1, total: 1 }]);
  });

  test("not where the spec of the run does not ask for it", async () => {
    await using stage = await makeLinkStage();
    const { throughput } = await stage.run(tool);
    expect(throughput).toEqual({
      kind: "failed",
      reason: "the server refuses: the spec of run 7 does not ask for iperf3",
    });
    expect((await stage.run({ duration_s: 0.5 })).throughput).toMatchObject({
      ...{ kind: "measured", corrupted: 0, engine: { name: "hostler" } },
    });
  });

  test("a client that dies leaves no server, and the next one has its turn", async () => {
    await using stage = await makeLinkStage({ tool: true });
    using folder = temporaryFolder();
    const path = installClient(folder.path, ["kill -9 $$"]);
    const { throughput } = await stage.run(tool, path);
    expect(throughput).toMatchObject({
      kind: "failed",
      reason: expect.stringMatching(/ended by SIGKILL/),
    });
    expect((await stage.run(tool)).throughput.kind).toBe("measured");
    await expectNoServerLeft(stage.orchestrator);
  });

  test("a task that is to end takes its tool with it, and the server's", async () => {
    await using stage = await makeLinkStage({ tool: true });
    const task = stage.start({ ...tool, duration_s: 30 });
    await waitFor("the tool's server", async () => (await listeners(stage.orchestrator)) === 2);
    task.stop();
    expect((await task.ended).exitCode).toBe(111);
    await expectNoServerLeft(stage.orchestrator);
  });

  test("a client's end that prints what is none of its JSON is a failure, with why", async () => {
    await using stage = await makeLinkStage({ tool: true });
    using folder = temporaryFolder();
    const path = installClient(folder.path, ["echo usage: iperf3", "echo no >&2", "exit 1"]);
    expect((await stage.run(tool, path)).throughput).toEqual({
      kind: "failed",
      reason: 'iperf3 (exit code 1): expected a JSON object, received "usage: iperf3". It said: no',
    });
  });
});

function installClient(folder: string, lines: readonly string[]): string {
  writeFileSync(`${folder}/iperf3`, ["#!/bin/sh", ...lines].join("\n"));
  chmodSync(`${folder}/iperf3`, 0o755);
  return folder;
}

skipUnless("a tool that is not there", needs, () => {
  test("on the host, and on the orchestrator's: each is told, with the mend", async () => {
    await using stage = await makeLinkStage({ tool: true, serverPath: "/nowhere" });
    expect((await stage.run(tool, "/nowhere")).throughput).toMatchObject({
      kind: "failed",
      reason: expect.stringMatching(/expected iperf3, .* put it into the image/),
    });
    using folder = temporaryFolder();
    const { throughput } = await stage.run(tool, installClient(folder.path, ["exit 0"]));
    expect(throughput).toEqual({
      kind: "failed",
      reason: "the server refuses: iperf3 is not installed on the orchestrator's host",
    });
  });
});
