/** Every released file is run where this machine can: the foreign ones through emulation. */
import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { makeArchive } from "../../scripts/archive.ts";
import { buildForTarget } from "../../scripts/release.ts";
import { readPackage } from "../../scripts/setup.ts";
import { repositoryRoot } from "../support/binary.ts";
import { emulated, emulatorFeatures } from "../support/emulator.ts";
import { makeMuslLibrary, muslFeatures } from "../support/musl/musl-library.ts";
import { runProgram } from "../support/program.ts";
import { skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

/** Building and emulating on a loaded machine. */
const slowMilliseconds = 180_000;

const { version } = readPackage();

describe("archive", () => {
  const entries = [
    { path: "b/two", mode: 0o755, content: new TextEncoder().encode("second") },
    { path: "a/one", mode: 0o644, content: new Uint8Array(1025) },
  ];

  test("tar reads it: sorted, time 0, owner 0", async () => {
    using folder = temporaryFolder();
    writeFileSync(folder.file("x.tar"), makeArchive(entries));
    const listed = await runProgram(
      ["tar", "--list", "--verbose", "--numeric-owner", "--utc", "-f", folder.file("x.tar")],
      {},
    );
    expect(listed.stderr).toBe("");
    expect(listed.stdout.replaceAll(/ +/g, " ")).toBe(
      "-rw-r--r-- 0/0 1025 1970-01-01 00:00 a/one\n-rwxr-xr-x 0/0 6 1970-01-01 00:00 b/two\n",
    );
    const content = await runProgram(["tar", "-xOf", folder.file("x.tar"), "b/two"]);
    expect(content.stdout).toBe("second");
  });

  test("the order in which entries are given does not count", () => {
    expect(makeArchive(entries)).toEqual(makeArchive(entries.toReversed()));
  });

  test("a path that does not fit is refused", () => {
    const entry = { path: "x".repeat(101), mode: 0o644, content: new Uint8Array(0) };
    expect(() => makeArchive([entry])).toThrow("at most 100 bytes");
  });
});

test("a runtime that is not the pinned one is refused", async () => {
  using cache = temporaryFolder();
  writeFileSync(cache.file(`bun-linux-aarch64-v${Bun.version}`), "something else");
  const script =
    'import { buildForTarget } from "./scripts/release.ts"; await buildForTarget("arm64");';
  const result = await runProgram([process.execPath, "--eval", script], {
    workingDirectory: repositoryRoot,
    environment: { BUN_INSTALL_CACHE_DIR: cache.path },
  });
  expect(result.exitCode).toBe(1);
  expect(result.stderr).toContain("the pinned one is");
});

skipUnless("the arm64 release runs", emulatorFeatures, () => {
  test(
    "--version",
    async () => {
      const words = [...emulated(await buildForTarget("arm64")), "--version"];
      const result = await runProgram(words, { deadlineMilliseconds: slowMilliseconds });
      expect(result).toMatchObject({ exitCode: 0, stderr: "" });
      expect(result.stdout).toContain(version);
    },
    slowMilliseconds,
  );
});

skipUnless("the x64-musl release runs", muslFeatures, () => {
  test(
    "--version",
    async () => {
      using folder = temporaryFolder();
      const binary = await buildForTarget("x64-musl");
      await makeMuslLibrary(binary, folder.path);
      const result = await runProgram([binary, "--version"], {
        environment: { LD_LIBRARY_PATH: folder.path },
      });
      expect(result).toMatchObject({ exitCode: 0, stderr: "" });
      expect(result.stdout).toContain(version);
    },
    slowMilliseconds,
  );
});
