/** `run`: a program that knows nothing of live updates keeps its memfds through a kexec. */
import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { spawnSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { allProcesses } from "../../src/process/perform/process-table.ts";
import { hostlerWithFaults } from "../support/binary.ts";
import { compileProgram, Host, stateOfProcess } from "../support/carrying.ts";
import { LineClient } from "../support/live-update-daemon.ts";
import { type Program, runProgram } from "../support/program.ts";
import { program, root, skipUnless } from "../support/skips.ts";
import { suspend } from "../support/suspend.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(90_000);

let host: Host;
let carried: string;

beforeEach(async () => {
  host = await Host.start();
  carried = compileProgram("carried", host.folder.path);
});

afterEach(async () => {
  await host[Symbol.asyncDispose]();
});

interface Running {
  readonly run: Program;
  /** The program's own number, which is its group's. */
  readonly processId: number;
}

/** Starts the program below `run`, until it is up. */
async function start(
  words: readonly string[],
  options: {
    readonly flags?: readonly string[];
    readonly environment?: Readonly<Record<string, string>>;
  } = {},
): Promise<Running> {
  const { flags = [], environment } = options;
  const argv = ["--id", "db", ...flags, "--", carried, ...words];
  const run = host.client("run", argv, environment);
  const [, number = ""] = await run.said(/^pid (\d+)$/m);
  host.noteGroup(Number(number));
  await run.said(/^up$/m);
  return { run, processId: Number(number) };
}

/** As `start`, and luod knows it. */
async function startSubscribed(...given: Parameters<typeof start>): Promise<Running> {
  const running = await start(...given);
  await host.subscribed("db");
  return running;
}

/** What the program said of its files: name, bytes and hash of each. */
const filesOf = ({ run }: Running) =>
  run.output.stdout.split("\n").filter((line) => line.startsWith("file "));

const isStopped = (processId: number) => stateOfProcess(processId) === "T";

async function goesOn(processId: number): Promise<void> {
  await waitFor(`process ${processId} to go on`, () => stateOfProcess(processId) === "S");
}

/** What the last kernel left. */
const waiting = () => host.kernel.incoming.map(({ name }) => name);

async function settled(): Promise<void> {
  await waitFor("all sessions to be settled", () => waiting().length === 0);
}

/** The guards of a process group. */
function guardsOf(group: number): number[] {
  return allProcesses().filter((processId) => {
    try {
      const words = readFileSync(`/proc/${processId}/cmdline`, "utf8").split("\0");
      return words.includes("hostler-guard") && words.includes(String(group));
    } catch {
      return false;
    }
  });
}

/** Its output stays open as long as the program lives. */
async function killed({ processId }: Program): Promise<void> {
  const isDead = () => ["Z", undefined].includes(stateOfProcess(processId));
  await waitFor(`the death of process ${processId}`, isDead);
}

/** A client that never becomes ready, so that the barrier waits. */
async function holdBarrier(): Promise<void> {
  const socket = await Bun.connect({ unix: host.socket, socket: { data() {} } });
  socket.write(`${JSON.stringify({ cmd: "SUBSCRIBE", id: "slow" })}\n`);
  await host.subscribed("slow");
}

describe("through a kexec", () => {
  test("memfds of the program and its child, and what it parked, by name; twice", async () => {
    const words = ["--park", "--child"];
    const first = await startSubscribed(words);
    await first.run.said(/^child/m);
    await host.enterNextKernel();
    const second = await start(words);
    await second.run.said(/the restored memory is the program's alone/);
    expect(filesOf(second).toSorted()).toEqual(filesOf(first).toSorted());
    expect(filesOf(second).map((line) => line.split(" ")[1])).toEqual([
      "parked",
      "alpha",
      "be_ta",
      "gamma",
    ]);
    await settled();
    await host.subscribed("db");
    await host.enterNextKernel();
    const third = await start(words);
    expect(filesOf(third)).toEqual(filesOf(second));
  });

  test.each([
    // The kernel does not carry the memfd's own name, which was another.
    ["keeps its name as long as it is open", "--unpark", ["parked", "alpha", "be_ta"]],
    ["is gone when it is closed as well", "--drop", ["alpha", "be_ta"]],
  ])("what it parks no more %s", async (_what, word, names) => {
    await startSubscribed(["--park"]);
    await host.enterNextKernel();
    await startSubscribed([word]);
    await settled();
    await host.enterNextKernel();
    expect(filesOf(await start([])).map((line) => line.split(" ")[1])).toEqual(names);
  });

  test("with --ready notify it has its memory when it says so", async () => {
    const flags = ["--ready", "notify"];
    await startSubscribed([], { flags });
    await host.enterNextKernel();
    const silent = await start(["--no-ready"], { flags });
    await host.subscribed("db");
    expect(waiting()).toContain("db");
    silent.run.kill("SIGTERM");
    expect((await silent.run.ended()).exitCode).toBe(7);
    const words = ["--id", "db", ...flags, "--", carried, "--end-on-start"];
    expect((await host.client("run", words).ended()).exitCode).toBe(5);
    const last = await start([], { flags });
    await last.run.said(/program's alone/);
    expect(filesOf(last)).toHaveLength(2);
    await settled();
  });

  test("a program that cannot be started leaves its memory at luod", async () => {
    await startSubscribed([]);
    await host.enterNextKernel();
    const failed = await host.client("run", ["--id", "db", "--", "/no/such/program"]).ended();
    expect(failed.exitCode).toBe(111);
    expect(failed.stderr).toContain("Cannot start /no/such/program: No such file");
    const again = await start([]);
    expect(filesOf(again)).toHaveLength(2);
  });
});

test("a claim that the kernel refuses is made again", async () => {
  await startSubscribed([]);
  await host.enterNextKernel();
  host.kernel.refuse("retrieve-session", "EIO");
  const again = await start([]);
  expect(again.run.output.stderr).toContain("cannot claim yet: Cannot retrieve db");
  expect(filesOf(again)).toHaveLength(2);
});

test("a claim that is refused for too long ends it, and says why", async () => {
  await startSubscribed([]);
  await host.enterNextKernel();
  host.kernel.refuse("retrieve-session", "EIO", 1000);
  const words = ["--id", "db", "--wait", "100ms", "--", carried];
  const { exitCode, stderr } = await host.client("run", words).ended();
  expect(exitCode).toBe(111);
  expect(stderr).toMatch(/db: Cannot retrieve db: .* \(for 100 ms\)\. The program is not started/);
});

describe("an update that ends", () => {
  test("the program and its child are stopped, and go on; files grow again", async () => {
    const { run, processId } = await startSubscribed(["--child"]);
    const child = Number((await run.said(/^child (\d+)/m))[1]);
    {
      using held = host.kernel.hold("preserve");
      const dry = host.luoctl("kexec", "--dry-run");
      await waitFor("the first file to be preserved", () => held.waiting > 0);
      expect([processId, child].map(isStopped)).toEqual([true, true]);
      held[Symbol.dispose]();
      expect(await dry).toMatchObject({ exitCode: 0 });
    }
    await goesOn(processId);
    await goesOn(child);
    await waitFor("the end of its session", () => host.kernel.outgoing.length === 0);
    run.kill("SIGUSR2");
    await run.said(/^grown$/m);
    expect(await host.luoctl("kexec", "--dry-run")).toMatchObject({ exitCode: 0 });
  });

  test("aborted by the operator while it is ready", async () => {
    const { run, processId } = await startSubscribed([]);
    await holdBarrier();
    const kexec = host.beginKexec();
    await run.said(/ready after/);
    expect(isStopped(processId)).toBe(true);
    await host.luoctl("abort", "--reason", "the backup runs");
    await run.said(/the update ended: the backup runs; the program goes on/);
    await goesOn(processId);
    expect((await kexec.ended()).exitCode).toBe(111);
  });

  test("luod dies while it is ready: it goes on, and takes part in the next update", async () => {
    const { run, processId } = await startSubscribed([]);
    await holdBarrier();
    host.beginKexec();
    await run.said(/ready after/);
    host.luod.kill("SIGKILL");
    await goesOn(processId);
    await host.luod.ended();
    await host.startLuod();
    await run.said(/was aborted: the daemon was restarted/);
    await host.subscribed("db");
    await waitFor("the end of its session", () => host.kernel.outgoing.length === 0);
    await host.enterNextKernel();
    expect(filesOf(await start([]))).toHaveLength(2);
  });

  test("one that somebody else had stopped stays stopped", async () => {
    const { run, processId } = await startSubscribed([]);
    suspend(processId);
    await waitFor("its stop", () => isStopped(processId));
    expect(await host.luoctl("kexec", "--dry-run")).toMatchObject({ exitCode: 0 });
    await run.said(/the update ended/);
    expect(isStopped(processId)).toBe(true);
    process.kill(processId, "SIGCONT");
    await goesOn(processId);
  });
});

describe("a program that dies", () => {
  test("while it is preserved: the update is rolled back, its status is ours", async () => {
    const { run, processId } = await startSubscribed([]);
    // Its memory may be ready before its death is seen; nothing is entered meanwhile.
    await holdBarrier();
    using held = host.kernel.hold("preserve");
    const kexec = host.beginKexec();
    await waitFor("the first file to be preserved", () => held.waiting > 0);
    process.kill(processId, "SIGKILL");
    held[Symbol.dispose]();
    expect((await run.ended()).exitCode).toBe(128 + 9);
    expect(await kexec.ended()).toMatchObject({ exitCode: 111 });
    await waitFor("the end of its session", () => host.kernel.outgoing.length === 0);
  });

  test("by itself: its status is ours", async () => {
    const { run } = await start([]);
    run.kill("SIGTERM");
    expect((await run.ended()).exitCode).toBe(7);
  });

  test("signals reach it", async () => {
    const { run } = await start([]);
    run.kill("SIGUSR1");
    await run.said(/^got 10$/m);
    run.kill("SIGHUP");
    expect((await run.ended()).exitCode).toBe(9);
  });
});

describe("SIGTERM while it is ready", () => {
  test("before the commit: the update is rolled back, and the program ends by itself", async () => {
    const { run } = await startSubscribed([]);
    await holdBarrier();
    const kexec = host.beginKexec();
    await run.said(/ready after/);
    run.kill("SIGTERM");
    expect((await run.ended()).exitCode).toBe(7);
    expect((await kexec.ended()).stderr).toContain("received SIGTERM");
  });

  test("in the commit: the program does nothing more, and its memory is carried", async () => {
    const [hook, go] = [host.folder.file("hook"), host.folder.file("go")];
    spawnSync("mkfifo", [go]);
    // Opened for both, it waits for nobody, and keeps the line until the hook reads it.
    const gate = openSync(go, "r+");
    writeFileSync(hook, `#!/bin/sh\nread -r line < ${go}\n`);
    chmodSync(hook, 0o755);
    host.luod.kill("SIGTERM");
    await host.luod.ended();
    await host.startLuod("--kexec-hook", hook);
    const running = await startSubscribed([]);
    const kexec = host.beginKexec();
    await kexec.said(/preparing/);
    running.run.kill("SIGTERM");
    const { exitCode, stdout } = await running.run.ended();
    expect(exitCode).toBe(128 + 15);
    expect(stdout).not.toContain("got 15");
    writeSync(gate, "\n");
    await host.enteredNextKernel();
    closeSync(gate);
    expect(filesOf(await start([]))).toEqual(filesOf(running));
  });
});

describe("what cannot be preserved", () => {
  test.each([
    ["--park-socket", /line, which it parked: socket:/],
    ["--mapped", /memfd only-mapped, which process \d+ has mapped and open nowhere/],
  ])("%s is named, and aborts; --skip-others goes without", async (word, named) => {
    const { run, processId } = await startSubscribed([word]);
    const { exitCode, stderr } = await host.beginKexec().ended();
    expect(exitCode).toBe(111);
    expect(stderr).toMatch(named);
    await goesOn(processId);
    run.kill("SIGTERM");
    await run.ended();
    const second = await startSubscribed([word], { flags: ["--skip-others"] });
    await host.enterNextKernel();
    expect(second.run.output.stderr).toMatch(named);
    expect(filesOf(await start([]))).toHaveLength(2);
  });

  test("a file that the kernel refuses", async () => {
    const { run, processId } = await startSubscribed([]);
    host.kernel.refuse("preserve", "ENOENT");
    const { stderr } = await host.beginKexec().ended();
    expect(stderr).toContain("memfd alpha cannot be preserved: this kernel cannot preserve");
    await goesOn(processId);
    expect(run.output.stderr).toContain("cannot be preserved");
  });
});

describe("run is killed", () => {
  test.each(["stopped", "taken", "preserved", "manifest", "ready"])(
    "before the kexec, after %s: the program goes on with its memory",
    async (step) => {
      const environment = { HOSTLER_KILL_AT: `live-update:run:${step}` };
      const { run, processId } = await startSubscribed(["--child"], { environment });
      const child = Number((await run.said(/^child (\d+)/m))[1]);
      await holdBarrier();
      const kexec = host.beginKexec();
      await killed(run);
      await goesOn(processId);
      await goesOn(child);
      expect((await kexec.ended()).exitCode).toBe(111);
      await waitFor("the end of its session", () => host.kernel.outgoing.length === 0);
      process.kill(processId, "SIGKILL");
      process.kill(child, "SIGKILL");
    },
  );

  test.each(["claimed", "retrieved", "started"])(
    "after the kexec, after %s: the next one has the memory, and alone",
    async (step) => {
      const first = await startSubscribed(["--park"]);
      await host.enterNextKernel();
      const environment = { HOSTLER_KILL_AT: `live-update:run:${step}` };
      const words = ["--id", "db", "--", carried];
      const died = host.client("run", words, environment);
      const { signal, stdout } = await died.ended();
      expect(signal).toBe("SIGKILL");
      const program = Number(/^pid (\d+)/m.exec(stdout)?.[1] ?? 0);
      if (program > 0) {
        await waitFor("its program to be killed", () => "Z" === (stateOfProcess(program) ?? "Z"));
      }
      const again = await start([]);
      expect(filesOf(again).toSorted()).toEqual(filesOf(first).toSorted());
      await again.run.said(/program's alone/);
    },
  );

  test.each(["released", "finished"])(
    "after the kexec, after %s: the program goes on with it",
    async (step) => {
      await startSubscribed([]);
      await host.enterNextKernel();
      const environment = { HOSTLER_KILL_AT: `live-update:run:${step}` };
      const { run, processId } = await start([], { environment });
      await killed(run);
      // Whatever a guard would do it has done.
      await waitFor("no guard", () => guardsOf(processId).length === 0);
      process.kill(processId, "SIGUSR1");
      await run.said(/^got 10$/m);
      process.kill(processId, "SIGKILL");
    },
  );
});

describe("without luod", () => {
  test("one that must not lose its memory is not started; an optional one is", async () => {
    const socket = host.folder.file("nobody.sock");
    const flags = ["--socket", socket, "--id", "db", "--wait", "100ms"];
    const words = ["--", carried];
    const required = await host.startProgram(["run", ...flags, ...words]).ended();
    expect(required.exitCode).toBe(111);
    expect(required.stderr).toContain("Start luod, or say --optional to start without it.");
    expect(required.stdout).toBe("");
    const optional = host.startProgram(["run", "--optional", "--json", ...flags, ...words]);
    const [, number = ""] = await optional.said(/^pid (\d+)$/m);
    host.noteGroup(Number(number));
    const said = optional.output.stderr.trim().split("\n");
    expect(said.map((line) => JSON.parse(line).id)).toContain("db");
  });

  test("it is waited for", async () => {
    await startSubscribed([]);
    await host.enterNextKernel();
    host.luod.kill("SIGKILL");
    await host.luod.ended();
    const run = host.client("run", ["--id", "db", "--", carried]);
    await run.said(/luod cannot be reached/);
    expect(existsSync(host.socket)).toBe(true);
    await host.startLuod();
    await run.said(/restores 2 files/);
    const [, number = ""] = await run.said(/^pid (\d+)$/m);
    host.noteGroup(Number(number));
  });
});

test("two of one id: the second waits, and takes its place when the first ends", async () => {
  const first = await startSubscribed([]);
  const second = host.client("run", ["--id", "db", "--", carried]);
  await second.said(/The id db is subscribed by another connection/);
  const late = await host.client("run", ["--id", "db", "--wait", "100ms", "--", carried]).ended();
  expect(late).toMatchObject({ exitCode: 111, stdout: "" });
  expect(late.stderr).toContain("subscribed by another connection");
  expect(late.stderr).toContain("The program is not started: memory of an earlier kernel may wait");
  const optional = await start([], { flags: ["--optional"] });
  optional.run.kill("SIGTERM");
  await optional.run.ended();
  expect(second.output.stdout).toBe("");
  first.run.kill("SIGTERM");
  await first.run.ended();
  const [, number = ""] = await second.said(/^pid (\d+)$/m);
  host.noteGroup(Number(number));
  await second.said(/^up$/m);
  await host.subscribed("db");
  second.kill("SIGTERM");
  expect((await second.ended()).exitCode).toBe(7);
});

test("one that has memory waits for its id with it, and loses nothing", async () => {
  await startSubscribed([]);
  await host.enterNextKernel();
  const taker = await LineClient.connect(host.socket);
  await taker.hello();
  expect((await taker.ask({ cmd: "SUBSCRIBE", id: "db" })).event).toBe("OK");
  const run = host.client("run", ["--id", "db", "--", carried]);
  await run.said(/The id db is subscribed by another connection/);
  expect(run.output.stdout).toBe("");
  taker[Symbol.dispose]();
  await run.said(/restores 2 files/);
  const [, number = ""] = await run.said(/^pid (\d+)$/m);
  host.noteGroup(Number(number));
});

skipUnless("another user", [root, program("setpriv", "util-linux")], () => {
  test("one whose user luod refuses fails at once; an optional one is started", async () => {
    await host.endProcesses();
    await host.startLuod("--allow-uid", "65533");
    for (const path of [host.folder.path, host.socket]) chmodSync(path, 0o777);
    const asNobody = async (what: string, words: readonly string[]) => {
      const change = ["setpriv", "--reuid=65534", "--clear-groups"];
      const argv = [hostlerWithFaults(), "live-update", what, "--socket", host.socket, ...words];
      return await runProgram([...change, ...argv], { environment: host.kernel.environment });
    };
    const mend = expect.stringContaining("or start luod with --allow-uid 65534 as well.");
    const run = await asNobody("run", ["--id", "db", "--", "echo", "it runs"]);
    expect(run).toMatchObject({ exitCode: 111, stdout: "", stderr: mend });
    const hold = await asNobody("hold", ["--id", "db", "--once", host.folder.path]);
    expect(hold).toMatchObject({ exitCode: 111, stdout: mend });
    const optional = await asNobody("run", ["--id", "db", "--optional", "--", "echo", "it runs"]);
    expect(optional).toMatchObject({ exitCode: 0, stdout: "it runs\n" });
    // Root comes to whatever luod, but takes no id that a rule gives to another.
    await startSubscribed([]);
    await host.endProcesses();
    await host.startLuod("--allow-id", "db=65533");
    const refused = await host.client("run", ["--id", "db", "--", "echo", "it runs"]).ended();
    expect(refused).toMatchObject({ exitCode: 111, stdout: "" });
    expect(refused.stderr).toContain("User 0 may not use the id db");
  });
});

test("an id that cannot be, and two words that contradict each other", async () => {
  const refused = await host.client("run", ["--id", "hostler", "--", carried]).ended();
  expect(refused.exitCode).toBe(100);
  const both = ["--id", "x", "--required", "--optional", "--", carried];
  expect((await host.client("run", both).ended()).stderr).toContain("received both");
});
