/** Candidates and the canonical agent as units of a real systemd, which is isolated from ours. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { readPackage } from "../../scripts/setup.ts";
import { Installation } from "../../src/fleet/perform/installation.ts";
import { programOf } from "../../src/fleet/perform/layout-files.ts";
import type { LastWords } from "../../src/fleet/protocol.ts";
import { agentUnit } from "../../src/fleet/units.ts";
import { hostler, hostlerWithFaults } from "../support/binary.ts";
import { storeScript, writeScript } from "../support/fleet-installation.ts";
import {
  type IsolatedSystemd,
  isolatedSystemdFeatures,
  startIsolatedSystemd,
} from "../support/isolated-systemd.ts";
import { skipUnless } from "../support/skips.ts";
import { buildStory } from "../support/story.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(120_000);

skipUnless("the executor of systemd", isolatedSystemdFeatures, () => {
  let folder: TemporaryFolder;
  let systemd: IsolatedSystemd;
  let story: string;
  let instances = 0;

  beforeAll(async () => {
    folder = temporaryFolder();
    story = await buildStory(folder, "fleet-executor-story.ts", { faults: false });
    systemd = await startIsolatedSystemd(folder);
  });
  afterAll(async () => {
    await systemd[Symbol.asyncDispose]();
    folder[Symbol.dispose]();
  });

  function newInstance(): string {
    instances += 1;
    return String(instances).padStart(32, "0");
  }

  async function act(instance: string, ...words: readonly string[]): Promise<unknown> {
    const argv = [hostler(), "run", story, "", instance, ...words];
    const { stdout, stderr } = await systemd.run(argv, { BUN_BE_BUN: "1" });
    if (stdout === "") throw new Error(stderr);
    return JSON.parse(stdout);
  }

  /** A candidate that does this. */
  async function start(text: string, ...words: readonly string[]) {
    const instance = newInstance();
    const program = writeScript(folder, `candidate-${instance}`, text);
    const said = await act(instance, "start", program, ...words);
    return { instance, said };
  }

  async function endOf(instance: string): Promise<LastWords> {
    return ((await act(instance, "end")) as { done: LastWords }).done;
  }

  const lives = "systemd-notify --ready; echo I am ready; exec sleep 1000";

  test("a candidate that is ready outlives who started it, is found, and is stopped", async () => {
    const { instance, said } = await start(lives);
    expect(said).toEqual({ done: { kind: "ready" } });
    expect(await act(instance, "find")).toEqual({ done: true });
    expect(await act(instance, "stop")).toMatchObject({
      done: { ending: "ended by SIGTERM", log: "I am ready\n" },
    });
    expect(await act(instance, "find")).toEqual({ done: false });
    // Once more, and of one that never was: nothing is done.
    expect(await act(instance, "stop")).toMatchObject({ done: { ending: "ended by SIGTERM" } });
    expect(await act(newInstance(), "stop")).toMatchObject({
      done: { ending: "it is gone, and nobody saw how" },
    });
  });

  test("its words and its environment are what it was given", async () => {
    const { instance } = await start(`echo "$#:$2:$HOSTLER_TRANSACTION"; ${lives}`);
    const said = (await act(instance, "stop")) as { done: LastWords };
    expect(said.done.log).toBe("2:two words:a b\nI am ready\n");
  });

  test.each([
    ["that crashes", "echo no configuration >&2; exit 3", "exited with 3", "no configuration\n"],
    ["that is ended by a signal", "kill -SEGV $$", /^ended by SIGSEGV/, ""],
    ["that ends and says nothing", "exit 0", "it never said that it is ready: exited with 0", ""],
  ])("one %s before it is ready has ended", async (_, text, ending, log) => {
    const { said } = await start(text);
    const { done } = said as { done: { kind: string; lastWords: LastWords } };
    expect(done.kind).toBe("ended");
    expect(done.lastWords.ending).toMatch(ending);
    expect(done.lastWords.log).toBe(log);
  });

  test("one that never says that it is ready is ended", async () => {
    const { instance, said } = await start("exec sleep 1000", "60000", "1000");
    expect(said).toMatchObject({
      done: { kind: "ended", lastWords: { ending: "its time was over: ended by SIGTERM" } },
    });
    expect(await act(instance, "find")).toEqual({ done: false });
  });

  test("one whose file cannot be run has ended, and one without a file is refused", async () => {
    const instance = newInstance();
    const program = folder.file("garbage");
    writeFileSync(program, "\x7fELF and nothing of it", { mode: 0o755 });
    expect(await act(instance, "start", program)).toMatchObject({
      done: { kind: "ended", lastWords: { ending: "exited with 203" } },
    });
    expect(await act(newInstance(), "start", folder.file("none"))).toEqual({
      refused: expect.stringContaining("No such file or directory"),
    });
  });

  test("the dead man's switch ends it, whoever lives", async () => {
    const { instance, said } = await start(lives, "1000");
    expect(said).toEqual({ done: { kind: "ready" } });
    expect((await endOf(instance)).ending).toBe("its time was over: ended by SIGTERM");
  });

  test("how it ended is told to whoever asks later, with the end of what it said", async () => {
    const lines = "seq 1 3000";
    const { instance } = await start(`${lines}; systemd-notify --ready; kill -KILL $$`);
    const { ending, log } = await endOf(instance);
    expect(ending).toBe("ended by SIGKILL");
    expect(log).toStartWith("2801\n");
    expect(log).toEndWith("\n2999\n3000\n");
  });

  test("what it has started ends with it, also what left its session", async () => {
    const pid = folder.file("orphan");
    const { instance } = await start(`setsid sleep 1000 & echo $! > ${pid}; ${lives}`);
    const orphan = readFileSync(pid, "utf8").trim();
    expect((await systemd.run(["test", "-d", `/proc/${orphan}`])).exitCode).toBe(0);
    await act(instance, "stop");
    expect((await systemd.run(["test", "-d", `/proc/${orphan}`])).exitCode).toBe(1);
  });

  test("what is left of another candidate is ended before one is started", async () => {
    const { instance } = await start(lives);
    const { instance: next } = await start(lives);
    expect(await act(instance, "find")).toEqual({ done: false });
    expect((await endOf(instance)).ending).toBe("ended by SIGTERM");
    expect(await act(next, "find")).toEqual({ done: true });
    const program = folder.file(`candidate-${next}`);
    expect(await act(next, "start", program)).toEqual({ done: { kind: "ready" } });
    expect((await systemd.run(["pgrep", "-c", "-f", "sleep 1000"])).stdout).toBe("1\n");
    await act(next, "stop");
  });

  test("a restart has the canonical agent start from what current leads to by then", async () => {
    const place = folder.file("fleet");
    const agent = (version: string) => `echo ${version} > ${folder.file("runs")}; ${lives}`;
    const first = storeScript(folder, "1.0.0", agent("1.0.0"));
    const second = storeScript(folder, "1.1.0", agent("1.1.0"));
    symlinkSync(`versions/${first}`, join(place, "current"));
    await systemd.writeUnit(
      agentUnit,
      `[Service]\nType=notify\nExecStart=${place}/current/hostler\n`,
    );
    expect((await systemd.run(["systemctl", "start", agentUnit])).exitCode).toBe(0);
    expect(readFileSync(folder.file("runs"), "utf8")).toBe("1.0.0\n");
    symlinkSync(`versions/${second}`, join(place, "next"));
    await systemd.run(["mv", "-T", join(place, "next"), join(place, "current")]);
    expect(await act("0", "restart")).toEqual({ done: null });
    await waitFor(
      "the second version to run",
      () => readFileSync(folder.file("runs"), "utf8") === "1.1.0\n",
    );
  });

  test("a version proves itself in a sandbox, and one that is damaged does not", async () => {
    const place = folder.file("proven");
    using installation = Installation.open(place, { make: true });
    const { version } = readPackage();
    const { name } = installation.store(hostler(), version);
    expect(await act("0", "prove", place, name)).toEqual({ done: null });
    const renamed = installation.store(hostlerWithFaults(), "1.0.0");
    expect(await act("0", "prove", place, renamed.name)).toEqual({
      refused: expect.stringContaining(`received one that says ${version} of itself`),
    });
    // The header's padding: nothing but its hash tells.
    const file = openSync(programOf(place, name), "r+");
    writeSync(file, Buffer.from([1, 2, 3, 4]), 0, 4, 12);
    closeSync(file);
    expect(await act("0", "prove", place, name)).toEqual({
      refused: expect.stringMatching(/Cannot use \S+ .* this file: Expected SHA-256/s),
    });
  });

  test("the sandbox has neither network nor place to write; nonsense proves nothing", async () => {
    const place = folder.file("sandboxed");
    const script = `grep -q eth0 /proc/net/dev && exit 1; touch ${place}/x 2>/dev/null && exit 2
echo '{"version":"1.0.0","ok":true,"checks":[]}'`;
    const name = storeScript(folder, "1.0.0", script, place);
    expect(await act("0", "prove", place, name)).toEqual({ done: null });
    expect(existsSync(join(place, "x"))).toBe(false);
    const other = storeScript(folder, "1.1.0", "echo nonsense", place);
    expect(await act("0", "prove", place, other)).toEqual({
      refused: expect.stringContaining("received exit 0, saying"),
    });
  });

  test("it is the executor of such a host, but for an agent below a supervisor", async () => {
    expect(await act("0", "kind", folder.path)).toEqual({ done: "systemd" });
    const below = await systemd.run([hostler(), "run", story, "", "0", "kind", folder.path], {
      BUN_BE_BUN: "1",
      HOSTLER_FLEET_SUPERVISOR: folder.file("none"),
    });
    expect(JSON.parse(below.stdout)).toEqual({ done: "supervise" });
    // The root of these namespaces is read-only.
    expect(await act("0", "kind", "/opt")).toEqual({ done: "immutable" });
  });

  test("nothing is left of units that have ended, nor anything outside", async () => {
    const { stdout } = await systemd.run([
      "systemctl",
      "list-units",
      "--all",
      "--plain",
      "hostler-fleet-candidate-*",
    ]);
    expect(stdout).not.toContain(".service");
    expect(existsSync("/run/hostler/fleet")).toBe(false);
    expect(readdirSync("/run").filter((name) => name === "units")).toEqual([]);
  });
});
