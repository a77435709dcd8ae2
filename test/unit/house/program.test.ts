import { expect, test } from "bun:test";
import { runProgram, startProgram } from "../../support/program.ts";
import { rejectionOf } from "../../support/wait-for.ts";

test("runProgram gives exit code and both outputs", async () => {
  const result = await runProgram(["/bin/sh", "-c", "cat; echo no >&2; exit 3"], { input: "yes" });
  expect(result).toEqual({ exitCode: 3, signal: null, stdout: "yes", stderr: "no\n" });
});

test("runProgram gives the signal that ended a program", async () => {
  const result = await runProgram(["/bin/sh", "-c", "kill -9 $$"]);
  expect(result).toMatchObject({ exitCode: null, signal: "SIGKILL" });
});

test("a program inherits no variable but the three that are named", async () => {
  process.env["HOSTLER_TEST_LEAK"] = "1";
  const { stdout } = await runProgram(["/usr/bin/env"], { environment: { WANTED: "2" } });
  delete process.env["HOSTLER_TEST_LEAK"];
  expect(stdout).toContain("WANTED=2");
  expect(stdout).not.toContain("HOSTLER_TEST_LEAK");
});

test("said gives a line that came and one that comes", async () => {
  await using program = startProgram(["/bin/sh", "-c", "echo one 1; read line; echo two"]);
  expect((await program.said(/one (\d)/))[1]).toBe("1");
  const ended = program.said(/three/);
  program.kill("SIGTERM");
  expect((await rejectionOf(ended)).message).toContain("ended without saying /three/");
});
