/** The README's first command: the demo, on the machine's own kernel and as on an older one. */
import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { repositoryRoot } from "../support/binary.ts";
import { startProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

/** The demo itself has to be done within a minute; the build may come before it. */
const demoMilliseconds = 120_000;

/** Starts it with a folder for temporary files of its own, and no terminal. */
function startDemo(folder: string, ...words: readonly string[]) {
  return startProgram([process.execPath, "run", "demo", ...words], {
    workingDirectory: repositoryRoot,
    environment: { TMPDIR: folder },
  });
}

async function runDemo(...words: readonly string[]) {
  using folder = temporaryFolder();
  await using demo = startDemo(folder.path, ...words);
  const result = await demo.ended(demoMilliseconds);
  return { ...result, left: readdirSync(folder.path) };
}

skipUnless("the demo", root, () => {
  test(
    "sees every step, and leaves nothing behind",
    async () => {
      const { exitCode, stdout, stderr, left } = await runDemo();
      expect(stdout).toMatch(/\n(\d+) of \1 seen, 0 failed\nTook [0-9.]+ s/);
      expect(stdout).not.toContain("✗");
      expect(stdout).not.toContain("\u001b[");
      expect(stdout).toMatch(/✓ +\d+\. how media ended: SIGKILL/);
      expect(stdout).toMatch(/✓ +\d+\. how diagnosis ended: exit status 7/);
      expect({ exitCode, left }).toEqual({ exitCode: 0, left: [] });
      expect(stderr).not.toContain("error:");
      const [, seconds] = /\nTook ([0-9.]+) s/.exec(stdout) ?? [];
      expect(Number(seconds)).toBeLessThan(60);
    },
    demoMilliseconds,
  );

  test(
    "below Linux 6.15: the agent's notice, and after its death unknown, with the reason",
    async () => {
      const { exitCode, stdout } = await runDemo("--old-kernel");
      expect(stdout).toMatch(/the agent's notice says it/);
      expect(stdout).toMatch(/✓ +5\. how media ended: SIGKILL/);
      expect(stdout).toMatch(/✓ +6\. how diagnosis ended: exit status 7/);
      expect(stdout).toMatch(/✓ +8\. how media ended: unknown, because .*6\.15/);
      expect(stdout).toMatch(/✓ +10\. how navigation ended: unknown, because .*6\.15/);
      expect(exitCode).toBe(0);
    },
    demoMilliseconds,
  );

  test(
    "Ctrl-C ends it at once, and it cleans up",
    async () => {
      using folder = temporaryFolder();
      await using demo = startProgram([process.execPath, "scripts/demo.ts"], {
        workingDirectory: repositoryRoot,
        environment: { TMPDIR: folder.path },
      });
      const [, media] = await demo.said(/media +qm +ready +(\d+)/, demoMilliseconds);
      demo.kill("SIGINT");
      const { exitCode, stderr } = await demo.ended();
      expect(stderr).toContain("Interrupted by SIGINT");
      expect({ exitCode, left: readdirSync(folder.path) }).toEqual({ exitCode: 130, left: [] });
      expect(readdirSync("/proc")).not.toContain(`${media}`);
    },
    demoMilliseconds,
  );

  test("somebody who is not root is told what is missing", async () => {
    // Another number for the same user, so that Bun may still be read where only root may.
    await using demo = startProgram(
      ["unshare", "--user", "--map-user=65534", process.execPath, "scripts/demo.ts"],
      { workingDirectory: repositoryRoot },
    );
    const { exitCode, stderr } = await demo.ended();
    expect(stderr).toContain("Missing: root");
    expect(exitCode).toBe(100);
  });

  test("a wrong word is refused", async () => {
    await using demo = startDemo("/tmp", "--olde-kernel");
    const { exitCode, stderr } = await demo.ended();
    expect(stderr).toContain("Usage: run demo");
    expect(exitCode).toBe(100);
  });
});
