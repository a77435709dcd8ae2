/** The test of a link, by the compiled file, over cables that the test made. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import type { Inventory } from "../../src/hardware/inventory.ts";
import type { TaskLine } from "../../src/vetting/protocol-task.ts";
import { network } from "../../src/vetting/stages/network.ts";
import { judgePairs } from "../../src/vetting/stages/network-pairs.ts";
import { LINK_TASK, type LinkInput, linkReportSchema } from "../../src/vetting/tasks/link.ts";
import { PAIRS_TASK, type PairsInput, pairsReportSchema } from "../../src/vetting/tasks/pairs.ts";
import { hostler, repositoryRoot } from "../support/binary.ts";
import { runProgram, startProgram } from "../support/program.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import {
  addCard,
  ip,
  LINK_KEY as KEY,
  linkOf,
  makeLinkStage as makeStage,
} from "../support/vetting/link-stage.ts";
import { reportOfTask, startTask } from "../support/vetting/run-task.ts";
import { DurableOrchestrator } from "../support/vetting-orchestrator/daemon.ts";
import { hostInventory, judged, stageContext } from "../support/vetting-stage.ts";
import { waitFor, withDeadline } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

const needs = [root, program("ip", "iproute2"), program("nsenter", "util-linux")];

skipUnless("the test of a link", needs, () => {
  describe("a link that is well", () => {
    test("carries bytes both ways, all of them right, and changes nothing", async () => {
      await using stage = await makeStage();
      const report = await stage.run();
      expect(report).toMatchObject({
        ...{ name: "wire", mac: stage.mac, brought_up: false, carrier: true },
        ...{ speed_mbps: 10_000, duplex: "full", carrier_changes: 0, errors: [] },
        throughput: { kind: "measured", corrupted: 0, address: "10.77.0.1" },
      });
      if (report.throughput.kind !== "measured") throw new Error("Expected a measure");
      const { up, down } = report.throughput;
      for (const { bytes, seconds } of [up, down]) {
        expect(bytes).toBeGreaterThan(10 * 1024 ** 2);
        expect(seconds).toBeGreaterThan(0.2);
      }
      expect((await linkOf(stage.host, "wire")).flags).toContain("UP");
    });

    test("by an address of the link alone, where the card has no other", async () => {
      await using stage = await makeStage();
      await ip(stage.host, "address", "flush", "dev", "wire", "scope", "global");
      const { stdout } = await runProgram([
        ...stage.orchestrator.enter,
        ...["ip", "-6", "-o", "address", "show", "dev", "bridge", "scope", "link"],
      ]);
      const host = /inet6 (\S+)\//.exec(stdout)?.[1] ?? "";
      const { throughput } = await stage.run({
        test: { host, port: stage.port, run: 7, key: KEY },
      });
      expect(throughput).toMatchObject({ kind: "measured", corrupted: 0, address: host });
    });

    test("a card that is down is brought up, and put back", async () => {
      await using stage = await makeStage();
      await ip(stage.host, "link", "set", "wire", "down");
      const report = await stage.run();
      expect(report).toMatchObject({ brought_up: true, carrier: true, carrier_changes: 0 });
      expect(report.throughput.kind).toBe("measured");
      expect((await linkOf(stage.host, "wire")).flags).not.toContain("UP");
    });

    test("a carrier that comes late is waited for", async () => {
      await using stage = await makeStage();
      await ip(stage.orchestrator, "link", "set", "port-1", "down");
      const running = stage.run();
      await ip(stage.orchestrator, "link", "set", "port-1", "up");
      expect(await running).toMatchObject({ carrier: true, throughput: { kind: "measured" } });
    });
  });

  describe("a link that is not", () => {
    test("no carrier, after its time", async () => {
      await using stage = await makeStage();
      await ip(stage.orchestrator, "link", "set", "port-1", "down");
      const report = await stage.run({ carrier_wait_s: 0.3 });
      expect(report).toMatchObject({ carrier: false, throughput: { kind: "not-seen" } });
      expect(report.waited_s).toBeGreaterThanOrEqual(0.3);
    });

    test("a carrier that goes and comes during the test fails the card", async () => {
      await using stage = await makeStage();
      const running = stage.run({ duration_s: 3 });
      await waitFor("bytes of the test", async () => {
        const { stats64 } = await linkOf(stage.orchestrator, "port-1");
        return stats64.rx.bytes > 1024 ** 2;
      });
      await ip(stage.orchestrator, "link", "set", "port-1", "down");
      await ip(stage.orchestrator, "link", "set", "port-1", "up");
      const report = await running;
      expect(report.carrier_changes).toBeGreaterThanOrEqual(2);
      const card: Inventory["network"][number] = {
        ...{ name: "wire", mac: stage.mac, driver: "veth", firmware: null, pci: null },
        ...{ carrier: true, speed_mbps: 10_000, duplex: "full" },
        ...{ most_mtu: null, numa_node: null },
      };
      const inventory = hostInventory({ network: [card] });
      const context = stageContext({}, { inventory });
      const found = judged(network, context, () => ({ kind: "report", report }));
      expect(found.outcome).toBe("FAIL");
      expect(found.findings.map(({ code }) => code)).toContain("carrier-changes");
    });

    test("where nothing is sent the carrier is watched, and its changes count", async () => {
      await using stage = await makeStage();
      const watched = Promise.withResolvers<void>();
      const onLine = (line: TaskLine) => {
        if (line.kind === "log" && line.text.includes("its carrier is watched")) watched.resolve();
      };
      const running = stage.start({ test: null, duration_s: 8 }, onLine);
      await withDeadline("its word", watched.promise);
      await ip(stage.orchestrator, "link", "set", "port-1", "down");
      await ip(stage.orchestrator, "link", "set", "port-1", "up");
      const report = await reportOfTask(running, linkReportSchema);
      expect(report.throughput.kind).toBe("not-seen");
      expect(report.carrier_changes).toBeGreaterThanOrEqual(2);
    });

    test("no address, another key, a server that dies, another card: each is told", async () => {
      await using stage = await makeStage();
      const wrongKey = await stage.run({
        test: { host: "10.77.0.1", port: stage.port, run: 7, key: "0".repeat(32) },
      });
      expect(wrongKey.throughput).toMatchObject({
        kind: "failed",
        reason: expect.stringMatching(/refuses: no test of run 7/),
      });
      const { last } = await stage.start({ mac: "02:00:00:00:00:01" }).ended;
      expect(last).toMatchObject({ kind: "failure", message: expect.stringMatching(/Expected/) });
      const { last: none } = await stage.start({ name: "eth77" }).ended;
      expect(none).toMatchObject({ kind: "failure", message: expect.stringMatching(/eth77/) });

      const running = stage.run({ duration_s: 20 });
      await waitFor("bytes of the test", async () => {
        const { stats64 } = await linkOf(stage.orchestrator, "port-1");
        return stats64.rx.bytes > 1024 ** 2;
      });
      stage.server.kill("SIGKILL");
      expect((await running).throughput.kind).toBe("failed");

      await ip(stage.host, "address", "flush", "dev", "wire", "scope", "global");
      const unreachable = await stage.run();
      expect(unreachable.throughput).toMatchObject({
        kind: "not-seen",
        reason: expect.stringMatching(/no address from which 10.77.0.1/),
      });
    });

    test("what is to end puts its card back", async () => {
      await using stage = await makeStage();
      await ip(stage.host, "link", "set", "wire", "down");
      const task = stage.start({ duration_s: 20 });
      await waitFor("bytes of the test", async () => {
        const { stats64 } = await linkOf(stage.orchestrator, "port-1");
        return stats64.rx.bytes > 1024 ** 2;
      });
      task.stop();
      expect((await task.ended).exitCode).toBe(111);
      expect((await linkOf(stage.host, "wire")).flags).not.toContain("UP");
    });
  });
});

skipUnless("frames from each card to each other one", needs, () => {
  type Stage = Awaited<ReturnType<typeof makeStage>>;
  const tryPairs = async ({ host, mac }: Stage, second: string) => {
    const cards = [
      { name: "wire", mac },
      { name: "second", mac: second },
    ];
    const input: PairsInput = { cards, frames: 64, carrier_wait_s: 10 };
    const task = startTask([...host.enter, hostler()], { task: PAIRS_TASK, input });
    const { pairs } = await reportOfTask(task, pairsReportSchema);
    return pairs;
  };

  test("two cards at one switch: all of them come, both ways, and need no address", async () => {
    await using stage = await makeStage();
    const second = await addCard(stage, { name: "second", at: "bridge" });
    await ip(stage.host, "address", "flush", "dev", "wire", "scope", "global");
    await ip(stage.host, "link", "set", "second", "down");
    expect(await tryPairs(stage, second)).toEqual([
      { from: "wire", to: "second", sent: 64, received: 64, wrong: 0 },
      { from: "second", to: "wire", sent: 64, received: 64, wrong: 0 },
    ]);
    expect((await linkOf(stage.host, "second")).flags).not.toContain("UP");
    expect((await linkOf(stage.host, "wire")).flags).toContain("UP");
  });

  test("a switch that takes nothing of a new card at first is waited for", async () => {
    await using stage = await makeStage();
    const second = await addCard(stage, { name: "second", at: "nothing" });
    await ip(stage.host, "link", "set", "second", "down");
    const running = tryPairs(stage, second);
    await waitFor("a frame that came to nothing", async () => {
      const { stats64 } = await linkOf(stage.orchestrator, "port-second");
      return stats64.rx.bytes > 0;
    });
    await ip(stage.orchestrator, "link", "set", "port-second", "master", "bridge");
    expect((await running).map(({ sent, received }) => [sent, received])).toEqual([
      [64, 64],
      [64, 64],
    ]);
  });

  test("frames of others, however many, do not keep it", async () => {
    await using stage = await makeStage();
    const second = await addCard(stage, { name: "second", at: "bridge" });
    const script = `${repositoryRoot}/test/support/programs/frame-flood.ts`;
    const words = [process.execPath, script, "bridge", "88b5", second];
    await using flood = startProgram([...stage.orchestrator.enter, ...words]);
    await flood.said(/sending/);
    const pairs = await tryPairs(stage, second);
    expect(pairs.map(({ sent }) => sent)).toEqual([64, 64]);
    expect(pairs.every(({ wrong }) => wrong === 0)).toBe(true);
  });

  test("two cards that have no way to each other: none, and few are sent", async () => {
    await using stage = await makeStage();
    const second = await addCard(stage, { name: "second", at: "nothing" });
    const pairs = await tryPairs(stage, second);
    expect(pairs.map(({ sent, received }) => [sent, received])).toEqual([
      [1, 0],
      [1, 0],
    ]);
  });

  test("a switch that takes no long frames loses them, and the stage fails", async () => {
    await using stage = await makeStage();
    const second = await addCard(stage, { name: "second", at: "bridge" });
    await ip(stage.orchestrator, "link", "set", "port-second", "mtu", "1000");
    const pairs = await tryPairs(stage, second);
    expect(pairs.map(({ received }) => received)).toEqual([32, 32]);
    const { findings } = judgePairs(stageContext({}).settings.Network, 2, { pairs });
    expect(findings.map(({ outcome, code }) => `${outcome} ${code}`)).toEqual([
      "FAIL pair-lost",
      "FAIL pair-lost",
    ]);
  });
});

skipUnless("the highest MTU of a card", needs, () => {
  test("is what the kernel says of its driver", async () => {
    await using stage = await makeStage();
    const script = `${repositoryRoot}/test/support/programs/ask-card.ts`;
    const words = [...stage.host.enter, process.execPath, script, "wire"];
    const { stdout } = await runProgram(words);
    const told = JSON.parse(await ip(stage.host, "-d", "-j", "link", "show", "wire"));
    expect(JSON.parse(stdout).mostMtu).toBe(told[0].max_mtu);
    expect(told[0].max_mtu).toBeGreaterThan(1_500);
  });
});

skipUnless("a link that is slow", [...needs, program("tc", "iproute2")], () => {
  test("is measured as slow as it is", async () => {
    await using stage = await makeStage();
    const words = ["tc", "qdisc", "add", "dev", "wire", "root", "tbf"];
    const rate = ["rate", "100mbit", "burst", "64kb", "latency", "50ms"];
    const { exitCode, stderr } = await runProgram([...stage.host.enter, ...words, ...rate]);
    expect(`${exitCode} ${stderr}`).toBe("0 ");
    const { throughput } = await stage.run({ duration_s: 2 });
    if (throughput.kind !== "measured") throw new Error(JSON.stringify(throughput));
    const mbps = (throughput.up.bytes * 8) / throughput.up.seconds / 1e6;
    expect(mbps).toBeLessThan(130);
    expect(mbps).toBeGreaterThan(30);
  });
});

skipUnless("the orchestrator's own server", [root], () => {
  test("tests cards of runs that are open, with the key that a claim told", async () => {
    await using orchestrator = new DurableOrchestrator();
    orchestrator.flags = ["--throughput", "127.0.0.1:0"];
    await orchestrator.start();
    const run = await orchestrator.prepare();
    const agent = await orchestrator.agent(run, await orchestrator.mint(run));
    const { network_test: told } = await agent.claim();
    if (told === null) throw new Error("Expected a test of links");
    const input: LinkInput = {
      ...{ name: "lo", mac: "00:00:00:00:00:00", carrier_wait_s: 1 },
      ...{ duration_s: 0.5, turn_wait_s: 20, test: told },
    };
    const measure = (test: LinkInput["test"]) =>
      reportOfTask(
        startTask([hostler()], { task: LINK_TASK, input: { ...input, test } }),
        linkReportSchema,
      );
    expect((await measure(told)).throughput).toMatchObject({ kind: "measured", corrupted: 0 });
    expect((await measure({ ...told, run: run + 1 })).throughput).toMatchObject({
      kind: "failed",
      reason: expect.stringMatching(/refuses/),
    });
  });
});
