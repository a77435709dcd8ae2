/** The compiled master, with workers that a test plays, and operators by its commands. */

import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, rmSync, writeFileSync } from "node:fs";
import { masterApi, masterLimits } from "../../src/vm/protocol-master.ts";
import { runHostler } from "../support/authority.ts";
import { hostlerWithFaults } from "../support/binary.ts";
import { rotating } from "../support/rotation.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { declaration, TestMaster } from "../support/vm-master/cluster.ts";
import { reported } from "../support/vm-master/reports.ts";

setDefaultTimeout(120_000);

const movable = "placement = { movable = true }";
const two = declaration({ db: "cpu = 2\nmemoryMb = 1024", web: movable });

describe("a master", () => {
  test("gives what is declared to workers, and shows what they say of it", async () => {
    await using master = await TestMaster.start();
    const [a, b] = [await master.worker("a"), await master.worker("b")];
    for (const worker of [a, b]) await worker.follow();
    // It waits for news, and is told as soon as there are any.
    const news = Promise.all([a.assignment(20_000), b.assignment(20_000)]);
    expect((await master.declares("diff", two)).exitCode).toBe(1);
    await master.apply(two);
    expect((await news).map(({ kind }) => kind)).toEqual(["assignment", "assignment"]);
    expect((await master.status()).convergence_percent).toBe(0);
    for (const worker of [a, b]) await worker.follow();
    const { convergence_percent, machines, workers, generation } = await master.status();
    expect({ convergence_percent, generation }).toEqual({
      convergence_percent: 100,
      generation: 1,
    });
    expect(machines.map(({ name, status }) => [name, status])).toEqual([
      ["db", "running"],
      ["web", "running"],
    ]);
    expect(new Set(machines.map(({ worker }) => worker))).toEqual(new Set(["a", "b"]));
    expect(workers.map(({ standing }) => standing)).toEqual(["healthy", "healthy"]);
    expect((await master.declares("diff", two)).exitCode).toBe(0);
    const records = (await master.authority.audit()).filter(({ verb }) => verb.startsWith("vm."));
    expect(records.map(({ verb, result }) => [verb, result])).toEqual([
      ["vm.desired.apply", "done"],
    ]);
    expect(await master.ask("cluster")).toContain("generation 1: 100 % as declared");
    expect(await master.ask("workers", "a")).toContain("healthy");
  });

  test("keeps what it decided when it is killed; the same again is no news", async () => {
    await using master = await TestMaster.start();
    const worker = await master.worker("a");
    await worker.follow();
    await master.apply(two);
    await worker.follow();
    const before = await worker.assignment();
    expect(before.kind).toBe("unchanged");
    const { observed } = worker;
    await master.authority.stop("SIGKILL");
    await master.start();
    const [db] = (await master.status()).machines;
    expect(db).toMatchObject({ name: "db", worker: "a", status: "pending" });
    await worker.open();
    await worker.report();
    expect((await worker.assignment()).kind).toBe("unchanged");
    expect(worker.observed).toEqual(observed);
    expect((await master.status()).convergence_percent).toBe(100);
    // The same again is nothing new: not even an assignment has another number.
    await master.apply(two);
    for (let count = 0; count < 3; count += 1) await worker.report();
    expect((await worker.assignment()).kind).toBe("unchanged");
  });

  test("is asked for by its own name where there is none", async () => {
    using folder = temporaryFolder();
    const [socket, file] = [folder.file("master.sock"), folder.file("machines.toml")];
    writeFileSync(file, "machine = []");
    for (const [words, flag] of [
      [["cluster"], "--control-socket"],
      [["apply", file, "--master"], "--master-socket"],
    ] as const) {
      const { exitCode, stderr } = await runHostler(["vm", ...words, flag, socket]);
      const mend = `No master runs at ${socket}. Start it by hostler vm master, give its ${flag}`;
      expect([exitCode, stderr]).toEqual([111, expect.stringContaining(mend)]);
    }
  });

  test("is not said to be refused by whoever has no way to it", async () => {
    using folder = temporaryFolder();
    const token = folder.file("token");
    writeFileSync(token, "x", { mode: 0o600 });
    const place = ["--authority", "https://203.0.113.1:7443", "--pin", "0".repeat(64)];
    const { exitCode, stderr } = await runHostler(
      ["vm", "cluster", ...place, "--token-file", token],
      { before: ["unshare", "--net"] },
    );
    const reason = "Cannot reach https://203.0.113.1:7443: there is no way to this network";
    expect([exitCode, stderr]).toEqual([111, expect.stringContaining(reason)]);
  });

  test("ends at once though workers wait for news", async () => {
    await using master = await TestMaster.start();
    const worker = await master.worker("a");
    await worker.follow();
    const waiting = worker.assignment(20_000);
    const another = worker.assignment(20_000);
    // One question at a time: the first is answered by the second.
    expect((await waiting).kind).toBe("unchanged");
    const ended = master.authority.stop();
    expect((await another).kind).toBe("unchanged");
    expect((await ended).exitCode).toBe(0);
  });

  test("asks for a role, and tells one host nothing of another", async () => {
    await using master = await TestMaster.start();
    const worker = await master.worker("a");
    await worker.follow();
    const viewer = await master.authority.operator("vera", "--role", "view");
    const operator = await master.authority.operator("otto", "--role", "operate");
    const { address } = master.authority;
    const tries = async (who: typeof viewer, ...words: readonly string[]) => {
      const flags = ["--authority", address, "--pin", who.pin, "--token-file", who.file];
      return await runHostler(["vm", ...words, ...flags]);
    };
    const file = master.file(two);
    expect((await tries(viewer, "cluster")).exitCode).toBe(0);
    const refused = await tries(viewer, "apply", file);
    expect(refused.exitCode).toBe(111);
    expect(refused.stderr).toContain("the permission operate");
    expect((await tries(operator, "apply", file)).exitCode).toBe(0);
    expect((await tries(operator, "cordon", "a")).exitCode).toBe(0);
    expect((await master.status()).workers[0]?.cordoned).toBe(true);
    expect((await worker.post("/v1/vm/desired", {})).status).toBe(403);
    expect((await worker.post(masterApi.cordon.path.replace(":worker", "a"), {})).status).toBe(403);
  });
});

describe("what is wrong is refused, and changes nothing", () => {
  test("files with mistakes, each told in its place", async () => {
    await using master = await TestMaster.start();
    await master.apply(two);
    const wrong = await master.declares(
      "apply",
      declaration({ db: 'cpu = "two"', web: "placement = { movable = 1, where = 2 }" }),
    );
    expect(wrong.exitCode).toBe(100);
    expect(wrong.stderr).toContain("machine[0].cpu");
    expect(wrong.stderr).toContain("machine[1].placement.movable");
    expect(wrong.stderr).toContain("machine[1].placement.where");
    const twice = await master.declares("apply", `${two}\n${two}`);
    expect(twice.exitCode).toBe(100);
    expect(twice.stderr).toContain("a name that no other machine has");
    const old = await master.declares("apply", `generation = 0\n${two}`);
    expect(old.exitCode).toBe(111);
    expect(old.stderr).toContain("later declaration");
    expect((await master.declares("diff", two)).exitCode).toBe(0);
    expect((await master.tries("fence", "--confirm", "nobody")).stderr).toContain(
      "no worker nobody",
    );
  });

  test("reports and declarations over their limits", async () => {
    await using master = await TestMaster.start();
    const worker = await master.worker("a");
    await worker.follow();
    const { machinesOfWorker, declarationBytes } = masterLimits;
    const names = Array.from({ length: machinesOfWorker + 1 }, (_, index) => `m${index}`);
    const many = await worker.tries({ machines: names.map((name) => reported(name, null)) });
    expect([many.status, many.kind]).toEqual([400, "request"]);
    const large = { ...(await worker.report()), padding: "x".repeat(declarationBytes + 8_192) };
    const tooLarge = await worker.post(masterApi.report.path, large);
    expect([tooLarge.status, tooLarge.kind]).toEqual([413, "too-large"]);
    const tooLong = await worker.post(masterApi.assignment.path, {
      ...{ version: 1, last_seen: null, wait_ms: masterLimits.longestWait + 1 },
    });
    expect(tooLong.status).toBe(400);
    expect((await master.status()).workers.map(({ machines }) => machines)).toEqual([0]);
    const cmdline = `cmdline = "${"x".repeat(2_000)}"`;
    const all = Array.from({ length: 2_200 }, (_, index) => [`m${index}`, cmdline]);
    const whole = await master.declares("apply", declaration(Object.fromEntries(all)));
    expect(whole.exitCode).toBe(100);
    expect(whole.stderr).toContain("4194304");
  });

  test("a fence hook that cannot be run is told at the start, and until it can be", async () => {
    await using master = new TestMaster();
    const hook = master.script("exit 0");
    chmodSync(hook, 0o600);
    const configuration = master.file(`[fence]\ncommand = ["${hook}"]\n`);
    await master.start({ flags: ["--config", configuration] });
    const expected = `fence.command: expected a program that can be run, received ${hook}: `;
    expect(master.authority.daemon.output.stderr).toContain(expected);
    expect((await master.status()).warnings).toEqual([expect.stringContaining(expected)]);
    chmodSync(hook, 0o700);
    expect((await master.status()).warnings).toEqual([]);
    rmSync(hook);
    expect((await master.status()).warnings).toEqual([expect.stringContaining("ENOENT")]);
  });

  test("a configuration with mistakes, each told in its place", async () => {
    await using master = await TestMaster.start();
    const text =
      'silent_after = "1s"\nlost_after = "500ms"\n[fence]\ncommand = ["fence-it"]\nhow = 1\n';
    const { exitCode, stderr } = await runHostler(["vm", "master", "--config", master.file(text)]);
    expect(exitCode).toBe(100);
    for (const word of ["silent_after", "lost_after", "fence.how"]) expect(stderr).toContain(word);
  });
});

describe("a master that is killed while it writes", () => {
  const places = [
    "desired-part",
    "desired-current",
    "desired-old-part",
    "worker",
    "numbers",
  ].flatMap((write) => ["before", "after"].map((when) => `vm-master:${write}:${when}`));

  test.each(rotating("vm master kill points", places, { outOf: 4 }))("%s", async (place) => {
    await using master = await TestMaster.start();
    const worker = await master.worker("a");
    await worker.follow();
    await master.apply(declaration({ db: "" }));
    await worker.follow();
    await master.authority.stop();
    await master.start({ program: hostlerWithFaults(), environment: { HOSTLER_KILL_AT: place } });
    await worker.open();
    await worker.follow();
    const applied = await master.declares("apply", two);
    expect(applied.exitCode).toBe(111);
    expect((await master.authority.daemon.ended()).signal).toBe("SIGKILL");
    await master.start();
    // The whole of one declaration, never a part of each.
    const { generation, machines } = await master.status();
    const names = machines.map(({ name }) => name);
    expect([generation, names]).toEqual(generation === 1 ? [1, ["db"]] : [2, ["db", "web"]]);
    await master.apply(two);
    await worker.open();
    await worker.report();
    await worker.follow();
    expect((await master.status()).convergence_percent).toBe(100);
    const owners = (await master.status()).machines.map((machine) => machine.owner_generation);
    expect(new Set(owners).size).toBe(2);
  });
});
