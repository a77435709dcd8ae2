/** The demo of virtual machines, as a stranger runs it. */
import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { hostler, repositoryRoot } from "../support/binary.ts";
import { guestFeatures } from "../support/machine.ts";
import { startProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

/** The demo itself has to be done in 90 s; Debian's kernel may be fetched before it. */
const demoMilliseconds = 5 * 60_000;

/** With a folder for temporary files of its own, and no terminal. */
function startDemo(folder: string, ...words: readonly string[]) {
  const argv = [process.execPath, "scripts/demo.ts", "vm", "--program", hostler(), ...words];
  return startProgram(argv, {
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

skipUnless("the demo of virtual machines", [root, ...guestFeatures], () => {
  test(
    "with guests that count: every step is seen, and nothing is left behind",
    async () => {
      const { exitCode, stdout, stderr, left } = await runDemo("--small");
      expect(stdout, stderr).toMatch(/^26 of 26 seen, 0 failed$/m);
      expect(stdout).toMatch(/✓ +9\. no image is left: 0/);
      expect({ exitCode, left }).toEqual({ exitCode: 0, left: [] });
    },
    demoMilliseconds,
  );

  test("Ctrl-C ends it at once, and it cleans up", async () => {
    using folder = temporaryFolder();
    await using demo = startDemo(folder.path, "--small");
    const [, first] = await demo.said(/it is there: process (\d+)/, demoMilliseconds);
    await demo.said(/db runs: running/, demoMilliseconds);
    demo.kill("SIGINT");
    const { exitCode, stderr } = await demo.ended();
    expect(stderr).toContain("Interrupted by SIGINT");
    expect({ exitCode, left: readdirSync(folder.path) }).toEqual({ exitCode: 130, left: [] });
    // With the first process of a PID namespace the kernel ends all others.
    expect(readdirSync("/proc")).not.toContain(`${first}`);
  }, 60_000);

  onlyInAll(() => {
    test(
      "with Linux: they get addresses, talk, and are adopted; the guest outlives its VMM",
      async () => {
        const { exitCode, stdout, stderr, left } = await runDemo();
        expect(stdout, stderr).toMatch(/^31 of 31 seen, 0 failed$/m);
        expect(stdout).toMatch(/✓ +6\. web reaches db: .* 0% packet loss/);
        expect({ exitCode, left }).toEqual({ exitCode: 0, left: [] });
      },
      demoMilliseconds,
    );
  });
});
