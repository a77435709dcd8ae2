/** The commands of the process system, on the compiled file, against a real orchestrator. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { symlinkSync, writeFileSync } from "node:fs";
import { hostler } from "../support/binary.ts";
import { startOrchestrator } from "../support/orchestrator.ts";
import { runProgram, startProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

setDefaultTimeout(60_000);

const sleeper = 'command = ["sleep", "1000"]';
const configuration = `
[process.quiet]
command = ["/bin/sleep", "1000"]

[process.speaker]
command = ["/bin/sh", "-c", "echo one; echo two >&2; exec sleep 1000"]
after = ["quiet"]

[process.optional]
command = ["/bin/sleep", "1000"]
autostart = false
`;

skipUnless("commands of the process system", root, () => {
  test("list, show, stop, start, restart, signal, wait, logs and events", async () => {
    await using orchestrator = await startOrchestrator({ configuration });
    const socket = ["--control-socket", orchestrator.controlSocket];
    const command = (...words: string[]) => runProgram([hostler(), "process", ...words, ...socket]);
    await orchestrator.events.nth("speaker", "ready");

    const list = JSON.parse((await command("list", "--json")).stdout) as { name: string }[];
    expect(list.map(({ name }) => name)).toEqual(["quiet", "speaker", "optional"]);
    expect((await command("list")).stdout).toMatch(
      /^NAME +PARTITION +PHASE +PID .*\nquiet +- +ready/,
    );

    const stopped = await command("stop", "speaker", "quiet", "--wait");
    expect(stopped).toMatchObject({
      exitCode: 0,
      stdout: "speaker: idle; the last exit: SIGTERM\nquiet: idle; the last exit: SIGTERM\n",
    });
    const waited = await command("wait", "quiet", "--until", "ready", "--timeout", "10ms");
    expect(waited.exitCode).toBe(111);
    expect(waited.stderr).toContain("quiet is not ready after 10 ms: idle");
    expect((await command("start", "speaker", "--wait")).stdout).toMatch(
      /^speaker: ready, process/,
    );
    expect((await command("wait", "quiet")).stdout).toMatch(/^quiet: ready, process \d+\n$/);
    expect((await command("restart", "quiet", "--wait")).exitCode).toBe(0);

    expect((await command("signal", "quiet", "KILL")).exitCode).toBe(0);
    await orchestrator.events.nth("quiet", "ended", 3);
    expect((await command("show", "quiet")).stdout).toMatch(/ ended +SIGKILL\n/);

    const logs = await command("logs", "speaker", "-n", "2");
    expect(logs.stdout).toMatch(/^\S+Z speaker stdout one\n\S+Z speaker stderr two\n$/);
    const events = await command("events", "--json");
    const [first] = events.stdout.split("\n");
    expect(JSON.parse(first ?? "")).toMatchObject({ sequence: 1, name: "quiet" });

    const refused = await command("stop", "quite", "optional");
    expect(refused).toMatchObject({ exitCode: 111, stdout: "optional: idle\n" });
    expect(refused.stderr).toContain(
      "There is no process quite in the configuration. Did you mean",
    );
    expect((await command("signal", "optional", "HUP")).stderr).toContain("optional does not run");
  });

  test("200 are waited for at once, which succeed, and others that do not", async () => {
    const names = Array.from({ length: 200 }, (_value, index) => `p${index}`);
    const tables = names.map((name) => `[process.${name}]\n${sleeper}\nautostart = false\n`);
    const never = `[process.never]\n${sleeper}\nready = "notify"\nautostart = false\n`;
    const comeAfter = tables.map((table) => `${table}after = ["never"]\n`).join("");
    const orchestrated = { configuration: tables.join("") };
    {
      await using orchestrator = await startOrchestrator(orchestrated);
      const socket = ["--control-socket", orchestrator.controlSocket];
      const words = [hostler(), "process", "start", ...names, "--wait", ...socket];
      const { exitCode, stdout, stderr } = await runProgram(words);
      expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
      expect(stdout.match(/^p\d+: ready, process \d+$/gm)).toHaveLength(200);
    }
    await using orchestrator = await startOrchestrator({ configuration: never + comeAfter });
    const socket = ["--control-socket", orchestrator.controlSocket];
    const waits = ["--wait", "--timeout", "300ms"];
    const vain = await runProgram([hostler(), "process", "start", ...names, ...waits, ...socket]);
    expect(vain.exitCode).toBe(111);
    expect(vain.stderr.match(/p\d+ is not ready after 300 ms/g)).toHaveLength(200);
  });

  test("start --wait of a job is decided by what became of it", async () => {
    const job = (name: string, words: string) =>
      `[process.${name}]\n${words}\nrestart = "never"\nautostart = false\n`;
    const unready = 'ready = {command = ["false"]}';
    const configuration =
      job("works", 'command = ["true"]') +
      job("ends", `command = ["true"]\n${unready}`) +
      job("fails", `command = ["sh", "-c", "exit 3"]\n${unready}`);
    await using orchestrator = await startOrchestrator({ configuration });
    const socket = ["--control-socket", orchestrator.controlSocket];
    const command = (...words: string[]) => runProgram([hostler(), "process", ...words, ...socket]);
    for (const verb of ["start", "restart", "start"]) {
      for (const name of ["works", "ends"]) {
        expect(await command(verb, name, "--wait")).toMatchObject({ exitCode: 0, stderr: "" });
      }
      const failed = await command(verb, "fails", "--wait");
      expect(failed.exitCode).toBe(111);
      expect(failed.stderr).toContain(
        "fails has finished: exit 3, and will not be ready by itself",
      );
    }
    // Of three starts one was by `restart`; the others are no restarts, wherever it is told.
    const shown = (await command("show", "works")).stdout;
    expect(shown).toMatch(/^restarts +1; the last exit: exit 0$/m);
    const listed = JSON.parse((await command("list", "--json")).stdout) as object[];
    expect(listed).toMatchObject([{ name: "works", restarts: 1 }, {}, {}]);
    expect(await command("wait", "works")).toMatchObject({
      exitCode: 0,
      stdout: "works: finished; the last exit: exit 0\n",
    });
    expect((await command("wait", "fails")).exitCode).toBe(111);
  });

  test("signal takes what kill(1) takes", async () => {
    await using orchestrator = await startOrchestrator({ configuration });
    const socket = ["--control-socket", orchestrator.controlSocket];
    const signal = (...words: string[]) =>
      runProgram([hostler(), "process", "signal", ...socket, ...words]);
    const forms: string[][] = [
      ["quiet", "-9"],
      ["-9", "quiet"],
      ["quiet", "-KILL"],
      ["-SIGKILL", "quiet"],
      ["-kill", "--", "quiet"],
      ["quiet", "--", "-9"],
      ["--", "quiet", "SIGKILL"],
      ["quiet", "kill"],
    ];
    for (const [index, words] of forms.entries()) {
      await orchestrator.events.nth("quiet", "ready", index + 1);
      expect([words, (await signal(...words)).exitCode]).toEqual([words, 0]);
      const { ending } = await orchestrator.events.nth("quiet", "ended", index + 1);
      expect(ending).toMatchObject({ kind: "signalled", signal: 9 });
      await runProgram([hostler(), "process", "start", "quiet", "--wait", ...socket]);
    }
    const wrong: [string[], string][] = [
      [["quiet", "-FOO"], "Expected a name such as SIGTERM, TERM or SIGRTMIN+1, or a number"],
      [["quiet", "SIGHPU"], 'received "SIGHPU". Did you mean SIGHUP?'],
      [["quiet", "-9", "-15"], "Expected one <signal>, received -15 as well"],
      [["quiet", "-9", "HUP"], "Expected no further word, received HUP"],
      [["quiet", "--signal"], "Unknown flag --signal."],
      [["-9"], "Expected <name>, received nothing"],
    ];
    for (const [words, message] of wrong) {
      const { exitCode, stderr } = await signal(...words);
      expect([words, exitCode]).toEqual([words, 100]);
      expect(stderr).toContain(message);
    }
    expect((await signal("-h")).stdout).toContain("Usage:");
  });

  test("no listing is lost in silence where stdout is closed: 111", async () => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await orchestrator.events.nth("speaker", "ready");
    const listings = [
      ...["list", "list --json", "show quiet", "logs", "events", "list --watch", "stop optional"],
    ].map((words) => `process ${words} --control-socket ${orchestrator.controlSocket}`);
    const file = folder.file("process.toml");
    const others = ["doctor", "completions fish", "--version", "--help", `process check ${file}`];
    for (const words of [...listings, ...others]) {
      const closed = await runProgram(["sh", "-c", `exec ${hostler()} ${words} >&-`]);
      expect([words, closed.exitCode]).toEqual([words, 111]);
      expect(closed.stderr).toContain("Cannot write to stdout: expected an open descriptor 1");
    }
    for (const target of [">/dev/null", "1<>/dev/null", `>${folder.file("out")}`]) {
      const open = await runProgram(["sh", "-c", `exec ${hostler()} ${listings[0]} ${target}`]);
      expect([target, open.exitCode, open.stderr]).toEqual([target, 0, ""]);
    }
  });

  test("list --watch, logs -f and events -f go on with what comes", async () => {
    await using orchestrator = await startOrchestrator({ configuration });
    const socket = ["--control-socket", orchestrator.controlSocket];
    const follow = (...words: string[]) =>
      startProgram([hostler(), "process", ...words, ...socket]);
    await orchestrator.events.nth("speaker", "ready");
    await using watch = follow("list", "--watch");
    await using logs = follow("logs", "-f");
    await using events = follow("events", "-f");
    await Promise.all([
      watch.said(/optional idle; 0 restarts\n/),
      logs.said(/speaker stdout one\n/),
      events.said(/speaker ready/),
    ]);
    await runProgram([hostler(), "process", "start", "optional", ...socket]);
    await runProgram([hostler(), "process", "restart", "speaker", ...socket]);
    await Promise.all([
      watch.said(/optional ready, process \d+; 0 restarts\n/),
      logs.said(/speaker stdout one\n[\s\S]*speaker stdout one\n/),
      events.said(/optional ready/),
    ]);
  });

  test("an orchestrator that goes away ends who follows it: 111", async () => {
    const orchestrator = await startOrchestrator({ configuration });
    const socket = ["--control-socket", orchestrator.controlSocket];
    await using events = startProgram([hostler(), "process", "events", "-f", ...socket]);
    await events.said(/quiet ready/);
    await orchestrator[Symbol.asyncDispose]();
    const { exitCode, stderr } = await events.ended();
    expect(exitCode).toBe(111);
    expect(stderr).toContain("closed the connection");
  });
});

describe("check", () => {
  test("errors and what is fine, for people and programs", async () => {
    using folder = temporaryFolder();
    const [good, bad] = [folder.file("good.toml"), folder.file("bad.toml")];
    writeFileSync(good, configuration);
    writeFileSync(bad, "[process.a]\ncomand = ['/bin/a']\n");
    const check = (...words: string[]) => runProgram([hostler(), "process", "check", ...words]);
    expect(await check(good)).toMatchObject({
      exitCode: 0,
      stdout: "ok: 3 processes, 0 partitions\nstarts quiet, optional\n  then speaker\n",
      stderr: "",
    });
    const refused = await check(bad);
    expect(refused).toMatchObject({ exitCode: 100, stdout: "" });
    expect(refused.stderr.split("\n")[0]).toBe(
      `${bad}:1:1: process.a.command: expected the key command; received nothing`,
    );
    const report = JSON.parse((await check(bad, "--json")).stdout) as { errors: unknown[] };
    expect(report).toMatchObject({ ok: false, errors: [{ line: 1 }, { line: 2, column: 1 }] });
  });
});

describe("called by Holden's names", () => {
  test("it is that", async () => {
    using folder = temporaryFolder();
    for (const name of ["holden-agent", "holden-orchestrator"]) {
      symlinkSync(hostler(), folder.file(name));
      const { exitCode, stdout } = await runProgram([folder.file(name), "--help"]);
      expect(exitCode).toBe(0);
      expect(stdout).toContain(`Usage:\n  ${name} [options]`);
    }
    const { exitCode, stderr } = await runProgram([folder.file("holden-orchestrator"), "x"]);
    expect(exitCode).toBe(100);
    expect(stderr).toContain("Expected <agent-command>, received nothing");
  });

  test("each logs under the name that it was called by, and helps with its own paths", async () => {
    using folder = temporaryFolder();
    const environment = { HOLDEN_SOCKET_PATH: folder.file("holden.sock") };
    const [agent, orchestrator] = [folder.file("holden-agent"), folder.file("holden-orchestrator")];
    for (const path of [agent, orchestrator]) symlinkSync(hostler(), path);
    const words = ["sleep 1000", "sleep 1000", "--control-socket", folder.file("control.sock")];
    await using keeper = startProgram([orchestrator, ...words], { environment });
    await using starter = startProgram([agent], { environment });
    await Promise.all([
      keeper.said(/^holden-orchestrator: partition \S+ is connected/m),
      starter.said(/^holden-agent: listening at/m),
    ]);
    keeper.kill("SIGTERM");
    expect((await keeper.ended()).stderr).not.toMatch(/^hostler/m);
    for (const path of [agent, orchestrator]) {
      const { stdout } = await runProgram([path, "--help"]);
      expect(stdout.replaceAll(/\s+/g, " ")).toMatch(
        /HOLDEN_SOCKET_PATH[, (]+(else|default) \/tmp\/process_orchestrator\.sock/,
      );
      expect(stdout).not.toContain("/run/holden/qm_orchestrator.sock)");
    }
  });

  test("HOLDEN_SOCKET_PATH is honoured under those names alone", async () => {
    using folder = temporaryFolder();
    const environment = { HOLDEN_SOCKET_PATH: folder.file("holden.sock") };
    symlinkSync(hostler(), folder.file("holden-agent"));
    await using agent = startProgram([folder.file("holden-agent")], { environment });
    await agent.said(/listening at .*holden\.sock/);
    const long = { HOLDEN_SOCKET_PATH: "x".repeat(108) };
    const refused = await runProgram([folder.file("holden-agent")], { environment: long });
    expect(refused.exitCode).toBe(100);
  });
});
