/** The contract of ffi/ in compiled files: here, on an emulated arm64, and on musl. */
import { describe, expect, test } from "bun:test";
import { buildForTarget, type TargetName } from "../../scripts/release.ts";
import { emulated, emulatorFeatures } from "../support/emulator.ts";
import { makeMuslLibrary, muslFeatures } from "../support/musl/musl-library.ts";
import { runProgram } from "../support/program.ts";
import { skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

/** A whole run takes seconds, an emulated one on a loaded machine some more. */
const deadlineMilliseconds = 240_000;
const entry = "test/contract/ffi-main.ts";

async function expectContract(
  argv: readonly string[],
  options: { expected: RegExp; environment?: Record<string, string> },
): Promise<void> {
  const result = await runProgram(argv, {
    deadlineMilliseconds,
    environment: { PATH: process.env["PATH"] ?? "/usr/bin:/bin", ...options.environment },
  });
  expect(`${result.stdout}${result.stderr}`).toContain("All checks passed.");
  expect(result.stdout).toMatch(options.expected);
  expect(result.exitCode).toBe(0);
}

async function build(target: TargetName): Promise<string> {
  return await buildForTarget(target, { entry });
}

describe("ffi keeps its contract in a compiled file", () => {
  test(
    "for this machine",
    async () => {
      const target = process.arch === "arm64" ? "arm64" : "x64";
      await expectContract([await build(target)], { expected: new RegExp(`^${process.arch},`) });
    },
    deadlineMilliseconds,
  );
});

skipUnless("ffi keeps its contract on arm64", emulatorFeatures, () => {
  test(
    "under qemu's user emulation",
    async () => {
      const self = emulated(await build("arm64"));
      const words = [`--self=${JSON.stringify(self)}`, "--emulated", "--errno-calls=200000"];
      await expectContract([...self, ...words], { expected: /^arm64,/ });
    },
    deadlineMilliseconds,
  );
});

skipUnless("ffi keeps its contract on musl", muslFeatures, () => {
  test(
    "on x86-64",
    async () => {
      using folder = temporaryFolder();
      const binary = await build("x64-musl");
      await makeMuslLibrary(binary, folder.path);
      const library = `LD_LIBRARY_PATH=${folder.path}`;
      const self = ["/usr/bin/env", library, binary];
      await expectContract([...self, `--self=${JSON.stringify(self)}`], {
        expected: /^x64, musl,/,
      });
    },
    deadlineMilliseconds,
  );
});
