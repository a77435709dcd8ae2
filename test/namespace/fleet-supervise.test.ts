/** hostler fleet supervise, as the first process of a container: agent, candidate and orphans. */
import {
  afterAll,
  afterEach,
  beforeAll,
  beforeEach,
  describe,
  expect,
  setDefaultTimeout,
  test,
} from "bun:test";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { linked } from "../../src/fleet/layout.ts";
import { Installation } from "../../src/fleet/perform/installation.ts";
import { programOf, readLayout } from "../../src/fleet/perform/layout-files.ts";
import type { LastWords } from "../../src/fleet/protocol.ts";
import type { SuperviseStatus } from "../../src/fleet/protocol-supervise.ts";
import { connectControl } from "../../src/messaging/control-client.ts";
import { isLivingProcess } from "../../src/process/perform/process-table.ts";
import { hostler } from "../support/binary.ts";
import { storeScript, writeScript } from "../support/fleet-installation.ts";
import { writeSwapped } from "../support/fleet-swapped.ts";
import { type Program, runProgram, startProgram } from "../support/program.ts";
import { file, root, skipUnless } from "../support/skips.ts";
import { buildStory } from "../support/story.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf, waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

const lives = "systemd-notify --ready; exec sleep 1000";
/** As a shell that hears signals. */
const waits = "sleep 1000 & wait";

skipUnless("a supervisor", [root, file("/usr/bin/systemd-notify", "systemd")], () => {
  let programs: TemporaryFolder;
  let story: string;
  let folder: TemporaryFolder;
  let place: string;
  let socket: string;
  let instances = 0;

  beforeAll(async () => {
    programs = temporaryFolder();
    story = await buildStory(programs, "fleet-executor-story.ts", { faults: false });
  });
  afterAll(() => programs[Symbol.dispose]());
  beforeEach(() => {
    folder = temporaryFolder();
    place = folder.file("fleet");
    socket = folder.file("supervise.sock");
  });
  afterEach(() => folder[Symbol.dispose]());

  /** A version whose agent writes its name down, and does this; as a guard it says nothing. */
  const agent = (version: string, text = lives) => {
    const told = `echo ${version} "$@" >> ${folder.file("runs")}`;
    return storeScript(folder, version, `test "$2" != guard || exit 0; ${told}; ${text}`);
  };
  const runs = () => readFileSync(folder.file("runs"), "utf8").split("\n").filter(Boolean);
  const leadTo = (name: string) => symlinkSync(`versions/${name}`, join(place, "current"));

  const words = (flags: readonly string[] = ["--volatile"]) => [
    ...["fleet", "supervise", "--folder", place, "--control-socket", socket, ...flags],
    ...["--", "--more"],
  ];
  const asFirst = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGKILL"];

  async function supervise(
    prefix: readonly string[] = asFirst,
    flags: readonly string[] = [],
  ): Promise<Program> {
    const program = startProgram([...prefix, hostler(), ...words(["--volatile", ...flags])]);
    await program.said(/supervises/);
    return program;
  }

  async function status(): Promise<SuperviseStatus> {
    const client = await connectControl(socket);
    try {
      return (await client.request("status")) as SuperviseStatus;
    } finally {
      client.close();
    }
  }

  async function act(instance: string, ...rest: readonly string[]): Promise<unknown> {
    const argv = [hostler(), "run", story, socket, instance, ...rest];
    const { stdout, stderr } = await runProgram(argv, { environment: { BUN_BE_BUN: "1" } });
    if (stdout === "") throw new Error(stderr);
    return JSON.parse(stdout);
  }

  function newInstance(): string {
    instances += 1;
    return String(instances).padStart(32, "0");
  }

  async function start(text: string, ...rest: readonly string[]) {
    const instance = newInstance();
    const program = writeScript(folder, `candidate-${instance}`, text);
    return { instance, said: await act(instance, "start", program, ...rest) };
  }

  describe("the agent", () => {
    test("is what current leads to, started again whenever it ends", async () => {
      leadTo(agent("1.0.0", "echo $$; systemd-notify --ready; exit 3"));
      await using program = await supervise();
      await waitFor("a second start", () => runs().length >= 2);
      expect(runs()[0]).toBe(`1.0.0 fleet agent --folder ${place} --more`);
      expect(program.output.stderr).toContain("the agent exited with 3");
    });

    test("that ends at once again and again is started ever later", async () => {
      leadTo(agent("1.0.0", "exit 100"));
      await using program = await supervise();
      await program.said(/waits 2\.00 s before the next start/);
      expect(runs()).toHaveLength(4);
      expect(program.output.stderr).not.toContain("waits 1.00 s");
    });

    test("starts from where current leads by then when a restart is asked for", async () => {
      const [first, second] = [agent("1.0.0"), agent("1.1.0")];
      leadTo(first);
      await using _program = await supervise();
      await waitFor("the first start", async () => (await status()).canonical !== null);
      using installation = Installation.open(place, { make: false });
      installation.swap({ current: second, previous: first });
      expect(await act("0".repeat(32), "restart")).toEqual({ done: null });
      await waitFor("the second version", () => runs().at(-1)?.startsWith("1.1.0") === true);
      expect((await status()).canonical?.program).toEndWith(`/versions/${second}/hostler`);
    });

    test("that cannot be kept running gives way to the former version", async () => {
      const guarding = `case "$2" in guard) exec ${hostler()} "$@" ;; esac
echo former >> ${folder.file("runs")}; ${lives}`;
      const former = storeScript(folder, "1.0.0", guarding);
      writeSwapped(place, former, agent("1.1.0", "exit 1"));
      await using _program = await supervise();
      await waitFor("the former version", () => runs().includes("former"));
      expect(runs().map((line) => line.split(" ")[0])).toEqual([
        "1.1.0",
        "1.1.0",
        "1.1.0",
        "former",
      ]);
      expect(linked(readLayout(place), "current")).toBe(former);
    });

    test("that has said that it lives, and does not any more, is ended", async () => {
      leadTo(agent("1.0.0", `systemd-notify WATCHDOG=1; ${lives}`));
      await using program = await supervise([], ["--watchdog", "300ms"]);
      await program.said(/the agent has not said for 300 ms that it lives/);
      await program.said(/the agent ended by SIGABRT/);
      await waitFor("the next start", () => runs().length >= 2);
    });

    test("that never says so is left alone", async () => {
      leadTo(agent("1.0.0", `echo "$WATCHDOG_USEC" > ${folder.file("watchdog")}; ${lives}`));
      await using _program = await supervise();
      await waitFor("the variable", () => {
        return readFileSync(folder.file("watchdog"), "utf8") === "30000000\n";
      });
    });

    test("that no link leads to any more is linked again where it was proven", async () => {
      const name = agent("1.0.0");
      {
        using installation = Installation.open(place, { make: false });
        installation.prove(name);
      }
      await using _program = await supervise();
      await waitFor("the start", async () => (await status()).canonical !== null);
      expect(linked(readLayout(place), "current")).toBe(name);
    });

    test("is not there where nothing was installed: that ends it", async () => {
      mkdirSync(place);
      const { exitCode, stderr } = await runProgram([...asFirst, hostler(), ...words()]);
      expect({ exitCode, stderr }).toMatchObject({
        exitCode: 111,
        stderr: expect.stringContaining("Make it: hostler fleet install."),
      });
    });

    test("where current leads nowhere there is none until it leads somewhere", async () => {
      const name = agent("1.0.0");
      await using program = await supervise();
      await program.said(/current leads to no program/);
      leadTo(name);
      await waitFor("the start", async () => (await status()).canonical !== null);
    });
  });

  describe("a candidate", () => {
    let program: Program;
    beforeEach(async () => {
      leadTo(agent("1.0.0"));
      program = await supervise();
    });
    afterEach(async () => await program[Symbol.asyncDispose]());

    test("runs beside the agent, is found, and is stopped", async () => {
      const before = await waitFor(
        "the agent",
        async () => (await status()).canonical ?? undefined,
      );
      const { instance, said } = await start(`echo "$2:$HOSTLER_TRANSACTION"; ${lives}`);
      expect(said).toEqual({ done: { kind: "ready" } });
      expect(await act(instance, "find")).toEqual({ done: true });
      expect((await status()).candidate?.instance).toBe(instance);
      expect(await act(instance, "stop")).toMatchObject({
        done: { ending: "ended by SIGTERM", log: "two words:a b\n" },
      });
      expect(await act(instance, "find")).toEqual({ done: false });
      expect((await status()).canonical).toEqual(before);
      expect(await act(newInstance(), "stop")).toMatchObject({
        done: { ending: "it is gone, and nobody saw how" },
      });
    });

    test("waits for a supervisor that was killed, and is started again", async () => {
      program.kill("SIGKILL");
      await waitFor("its end", async () => (await program.ended()) !== undefined);
      rmSync(socket, { force: true });
      const started = start(lives);
      program = await supervise();
      const { instance, said } = await started;
      expect(said).toEqual({ done: { kind: "ready" } });
      await act(instance, "stop");
    });

    test.each([
      ["crashes", "echo no configuration >&2; exit 3", "exited with 3", "no configuration\n"],
      ["is ended by a signal", "kill -SEGV $$", /^ended by SIGSEGV/, ""],
      ["ends and says nothing", "exit 0", "it never said that it is ready: exited with 0", ""],
    ])("that %s before it is ready has ended", async (_, text, ending, log) => {
      const { said } = await start(text);
      const { done } = said as { done: { kind: string; lastWords: LastWords } };
      expect(done.kind).toBe("ended");
      expect(done.lastWords.ending).toMatch(ending);
      expect(done.lastWords.log).toBe(log);
    });

    test.each([
      ["never says that it is ready", "exec sleep 1000", ["60000", "300"]],
      ["outlives its time", lives, ["600"]],
    ])("that %s is ended", async (_, text, limits) => {
      const { instance } = await start(text, ...limits);
      expect(await act(instance, "end")).toMatchObject({
        done: { ending: "its time was over: ended by SIGTERM" },
      });
    });

    test("takes with it what it has started, and its last words are kept short", async () => {
      const pid = folder.file("pid");
      const { instance } = await start(`sleep 1000 & echo $! > ${pid}; seq 1 9000; ${lives}`);
      const said = (await act(instance, "stop")) as { done: LastWords };
      expect(said.done.log).toHaveLength(4_096);
      expect(said.done.log).toEndWith("\n8999\n9000\n");
      const { stdout } = await runProgram(["pgrep", "-f", "--", "sleep 1000", "--ns", "1"]);
      expect(stdout).not.toContain(readFileSync(pid, "utf8").trim());
    });

    test("ends when another one is started, and a file that is none is refused", async () => {
      const { instance } = await start(lives);
      const { instance: next } = await start(lives);
      expect(await act(instance, "find")).toEqual({ done: false });
      expect(await act(next, "find")).toEqual({ done: true });
      expect(await act(newInstance(), "start", folder.file("none"))).toEqual({
        refused: expect.stringContaining("expected a program that can be run"),
      });
    });

    test("is asked for in no other words", async () => {
      const client = await connectControl(socket);
      const refused = (fields: Record<string, unknown>) =>
        rejectionOf(client.request("start-candidate", fields));
      const right = {
        ...{ instance: newInstance(), program: "/bin/true", words: [], environment: {} },
        ...{ ends_after_ms: 1_000, ready_within_ms: 1_000 },
      };
      for (const wrong of [
        { instance: "x" },
        { program: "bin/true" },
        { words: Array.from({ length: 65 }, () => "w") },
        { environment: { "A=B": "c" } },
        { environment: Object.fromEntries(Array.from({ length: 65 }, (_, at) => [`A${at}`, ""])) },
        { ends_after_ms: 0 },
        { ends_after_ms: 604_800_001 },
      ]) {
        expect((await refused({ ...right, ...wrong })).message).toContain("The request is wrong");
      }
      client.close();
    });
  });

  describe("as the first process", () => {
    test("it reaps whoever lost their parent", async () => {
      // The shell between ends at once; what it started does so a little later, and is an orphan.
      leadTo(agent("1.0.0", `sh -c '(sh -c "exit 7" &) &'; ${lives}`));
      await using program = await supervise();
      await waitFor("the start", async () => (await status()).canonical !== null);
      await waitFor("no dead child to be left", async () => {
        const { stdout } = await runProgram(["ps", "-eo", "stat,ppid"]);
        const first = await childOf(program.processId);
        return !new RegExp(`^Z\\S* +${first}$`, "m").test(stdout);
      });
    });

    test("SIGTERM ends it with all that it has started", async () => {
      leadTo(agent("1.0.0"));
      await using program = await supervise();
      await waitFor("the start", async () => (await status()).canonical !== null);
      await start(lives);
      process.kill(Number(await childOf(program.processId)), "SIGTERM");
      expect(await program.ended()).toMatchObject({ exitCode: 0 });
      expect(program.output.stderr).toContain("ends the candidate: the supervisor stops");
    });
  });

  describe("a supervisor that goes on as another version", () => {
    /** current leads to the real program, while the agent that runs is a former one. */
    async function upgrade(): Promise<string> {
      const former = linked(readLayout(place), "current") ?? "";
      using installation = Installation.open(place, { make: false });
      const { name } = installation.store(hostler(), "2.0.0");
      installation.swap({ current: name, previous: former });
      return programOf(place, name);
    }

    test.each([
      ["as the first process", asFirst],
      ["as any process", []],
    ])(
      "%s: its agent stays, is heard and waited for, and candidates can be started",
      async (_, prefix) => {
        leadTo(agent("1.0.0", `trap 'exit 5' USR1; systemd-notify --ready; ${waits}`));
        await using program = await supervise(prefix);
        const before = await waitFor(
          "the agent",
          async () => (await status()).canonical ?? undefined,
        );
        const next = await upgrade();
        expect(await act("0".repeat(32), "renew")).toEqual({ done: null });
        await program.said(/goes on with .*versions\/1\.0\.0-/);
        const outer =
          prefix.length === 0 ? program.processId : Number(await childOf(program.processId));
        expect(readlinkSync(`/proc/${outer}/exe`)).toBe(next);
        expect((await status()).canonical).toEqual(before);
        const { instance, said } = await start(lives);
        expect(said).toEqual({ done: { kind: "ready" } });
        await act(instance, "stop");
        // Its end is seen, and how: nobody but its parent is told that.
        const agentProcess = prefix.length === 0 ? before.process : Number(await childOf(outer));
        process.kill(agentProcess, "SIGUSR1");
        await program.said(/the agent exited with 5/);
      },
    );

    test("does not while a candidate runs, nor as what is damaged", async () => {
      leadTo(agent("1.0.0"));
      await using _program = await supervise();
      const before = await waitFor(
        "the agent",
        async () => (await status()).canonical ?? undefined,
      );
      const { instance } = await start(lives);
      const client = await connectControl(socket);
      const { message } = await rejectionOf(client.request("renew"));
      client.close();
      expect(message).toContain("expected no candidate, received one that runs");
      await act(instance, "stop");
      const next = await upgrade();
      writeFileSync(next, "damaged");
      expect(await act("0".repeat(32), "renew")).toEqual({
        refused: expect.stringContaining("expected a current version that is whole"),
      });
      expect((await status()).canonical).toEqual(before);
    });

    test("does when its agent asks for it, which ends a candidate before", async () => {
      leadTo(agent("1.0.0"));
      await using program = await supervise();
      await waitFor("the agent", async () => (await status()).canonical ?? undefined);
      const { instance } = await start(lives);
      await upgrade();
      expect(await act("0".repeat(32), "renew")).toEqual({ done: null });
      await program.said(/the candidate ended by SIGTERM/);
      await program.said(/goes on with .*versions\/1\.0\.0-/);
      expect(await act(instance, "find")).toEqual({ done: false });
    });
  });

  describe("an installation", () => {
    test("has one supervisor", async () => {
      leadTo(agent("1.0.0"));
      await using _program = await supervise([]);
      const second = await runProgram([hostler(), ...words()]);
      expect(second.exitCode).toBe(111);
      expect(second.stderr).toContain(`Cannot supervise ${place}: expected that nobody else does`);
    });

    test("whose supervisor was killed has one agent again, not two", async () => {
      leadTo(agent("1.0.0"));
      await using first = await supervise([]);
      const before = await waitFor(
        "the agent",
        async () => (await status()).canonical ?? undefined,
      );
      first.kill("SIGKILL");
      // Its agent has its output, so that only its process ends.
      await waitFor("its end", () => !existsSync(`/proc/${first.processId}`));
      await using second = await supervise([]);
      expect(second.output.stderr).toContain("ended 1 processes of a supervisor that was killed");
      const after = await waitFor("the agent", async () => (await status()).canonical ?? undefined);
      expect(after.process).not.toBe(before.process);
      expect(isLivingProcess(before.process)).toBe(false);
    });

    test("with a control socket that another one has is refused, and ends nobody", async () => {
      leadTo(agent("1.0.0"));
      await using _program = await supervise([]);
      const before = await waitFor(
        "the agent",
        async () => (await status()).canonical ?? undefined,
      );
      const other = folder.file("other");
      storeScript(folder, "1.0.0", lives, other);
      const argv = words().map((word) => (word === place ? other : word));
      const { exitCode, stderr } = await runProgram([hostler(), ...argv]);
      expect(exitCode).toBe(111);
      expect(stderr).toContain("somebody listens there already");
      expect(stderr).not.toContain("ended");
      expect((await status()).canonical).toEqual(before);
      expect(isLivingProcess(before.process)).toBe(true);
    });

    test("that has another agent's control socket after it leaves that agent alone", async () => {
      leadTo(agent("1.0.0"));
      await using first = await supervise([]);
      const before = await waitFor(
        "the agent",
        async () => (await status()).canonical ?? undefined,
      );
      const { instance } = await start(lives);
      first.kill("SIGKILL");
      await waitFor("its end", () => !existsSync(`/proc/${first.processId}`));
      const other = folder.file("other");
      storeScript(folder, "1.0.0", lives, other);
      const argv = words().map((word) => (word === place ? other : word));
      const second = startProgram([hostler(), ...argv]);
      await second.said(/supervises/);
      expect(isLivingProcess(before.process)).toBe(true);
      await second[Symbol.asyncDispose]();
      // Its own supervisor ends it, and the candidate as well, which had nobody's clock any more.
      await using third = await supervise([]);
      expect(third.output.stderr).toContain("ended 2 processes of a supervisor that was killed");
      expect(isLivingProcess(before.process)).toBe(false);
      expect(await act(instance, "find")).toEqual({ done: false });
    });

    test("that is gone with the container is not supervised: update the image", async () => {
      const mount = `mount -t tmpfs none ${place} && exec "$@"`;
      agent("1.0.0");
      const { exitCode, stderr } = await runProgram([
        ...["unshare", "--mount", "sh", "-c", mount, "sh", hostler()],
        ...words([]),
      ]);
      expect(exitCode).toBe(111);
      expect(stderr).toContain("expected a volume that lasts, received tmpfs");
      expect(stderr).toContain("Update the image");
      rmSync(place, { recursive: true });
    });
  });
});

/** The process that unshare has started, as the machine numbers it. */
async function childOf(processId: number): Promise<string> {
  return await waitFor("its child", () => {
    const path = `/proc/${processId}/task/${processId}/children`;
    return readFileSync(path, "utf8").trim() || undefined;
  });
}
