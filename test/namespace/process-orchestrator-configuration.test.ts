/** The configuration is validated whole before anything starts. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { hostler } from "../support/binary.ts";
import { spawnOrchestrator, startOrchestrator } from "../support/orchestrator.ts";
import { runProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

setDefaultTimeout(60_000);

const circular = (name: string, other: string) =>
  `[process.${name}]\ncommand = ["true"]\nafter = ["${other}"]\n`;

skipUnless("configuration", root, () => {
  test("with mistakes: all of them are told, nothing starts, exit code 100", async () => {
    using folder = temporaryFolder();
    const mark = folder.file("mark");
    const configuration = `[process.good]
command = ["touch", "${mark}"]

[process.first]
command = []
restart = "sometimes"

[process.second]
command = ["true"]
after = ["god"]
partition = "nowhere"
backoff = {first = "1 fortnight"}

[process.third]
command = ["true"]
after = ["third"]
colour = "red"
`;
    await using program = spawnOrchestrator({ folder, configuration });
    const { exitCode, stderr, stdout } = await program.ended();
    expect({ exitCode, stdout }).toEqual({ exitCode: 100, stdout: "" });
    const file = folder.file("process.toml");
    const places = stderr
      .trim()
      .split("\n")
      .map((line) => line.replace(`${file}:`, "").split(": ").slice(0, 2).join(" "));
    expect(places).toEqual([
      "5:11 process.first.command",
      "6:11 process.first.restart",
      "10:10 process.second.after[0]",
      "11:13 process.second.partition",
      "12:20 process.second.backoff.first",
      "16:9 process.third.after",
      "17:1 process.third.colour",
    ]);
    expect(stderr).toMatch(/god.*good/);
    expect(existsSync(mark)).toBe(false);
    expect(existsSync(folder.file("control.sock"))).toBe(false);
    expect(existsSync(folder.file("control.sock.journal"))).toBe(false);
  });

  test.each([
    [
      "a file that is no TOML",
      "[process.it\ncommand = 1",
      /process\.toml:1:12: expected \] at the end/,
    ],
    ["a process without a command", "[process.it]\n", /process\.it.*command/],
    [
      "a cycle",
      ["a", "b"].map((name) => circular(name, name === "a" ? "b" : "a")).join(""),
      /a → b → a/,
    ],
    ["a partition with two ends", '[partition.qm]\nsocket = "/a"\nlisten = "/b"', /exactly one/],
  ])("%s: exit code 100", async (_what, configuration, expected) => {
    using folder = temporaryFolder();
    await using program = spawnOrchestrator({ folder, configuration });
    const { exitCode, stderr } = await program.ended();
    expect(stderr).toMatch(expected);
    expect(exitCode).toBe(100);
  });

  test("a file that is not there: exit code 100", async () => {
    using folder = temporaryFolder();
    const words = ["process", "orchestrator", "--config", folder.file("absent.toml")];
    const socket = ["--control-socket", folder.file("control.sock")];
    const { exitCode, stderr } = await runProgram([hostler(), ...words, ...socket]);
    expect(stderr).toMatch(/absent\.toml.*there is no such file/);
    expect(exitCode).toBe(100);
  });

  test("a control socket that cannot be: exit code 111, nothing starts", async () => {
    using folder = temporaryFolder();
    const mark = folder.file("mark");
    await Bun.write(folder.file("control.sock"), "a file of somebody");
    const configuration = `[process.it]\ncommand = ["touch", "${mark}"]\n`;
    await using program = spawnOrchestrator({ folder, configuration });
    const { exitCode, stderr } = await program.ended();
    expect(stderr).toMatch(/Cannot listen on .*control\.sock: expected a socket or nothing/);
    expect(exitCode).toBe(111);
    expect(stderr).not.toMatch(/\.ts:\d|\n {4}at /);
    expect(existsSync(mark)).toBe(false);
  });

  test("a listening socket of a partition that cannot be: exit code 111", async () => {
    using folder = temporaryFolder();
    await Bun.write(folder.file("qm.sock"), "a file of somebody");
    const mark = folder.file("mark");
    const configuration = `[partition.qm]\nlisten = "${folder.file("qm.sock")}"
      [process.it]\ncommand = ["touch", "${mark}"]\n`;
    await using program = spawnOrchestrator({ folder, configuration });
    const { exitCode, stderr } = await program.ended();
    expect(stderr).toMatch(/Cannot listen on .*qm\.sock: expected a socket or nothing/);
    expect(exitCode).toBe(111);
    expect(existsSync(mark)).toBe(false);
  });

  test("what is only unwise is warned of, and runs", async () => {
    using folder = temporaryFolder();
    const configuration = `[partition.qm]\nsocket = "${folder.file("absent.sock")}"
      [process.it]\ncommand = ["sleep", "1000"]\n`;
    await using orchestrator = await startOrchestrator({ folder, configuration });
    await orchestrator.started("it");
    await orchestrator.program.said(/warning: only uid 0 guards partition qm/);
    await orchestrator.program.said(/cannot reach the agent at .*absent\.sock: No such file/);
  });

  test("with no process at all it waits, and stops when asked", async () => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration: "" });
    expect(await orchestrator.list()).toEqual([]);
    expect(await orchestrator.stop()).toBe(0);
  });
});
