/** The demo of a fleet, as a stranger runs it; its two cases take turns. */
import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { hostler, repositoryRoot } from "../support/binary.ts";
import { startProgram } from "../support/program.ts";
import { rotating } from "../support/rotation.ts";
import { feature, root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

/** The demo itself has to be done in four; two versions are built before it. */
const demoMilliseconds = 5 * 60_000;
const ip = feature("no ip (Debian: iproute2)", () => Bun.which("ip") !== null);

/** With a folder for temporary files of its own, and no terminal. */
function startDemo(folder: string) {
  const argv = [process.execPath, "scripts/demo.ts", "fleet", "--program", hostler()];
  return startProgram(argv, {
    workingDirectory: repositoryRoot,
    environment: { TMPDIR: folder },
  });
}

async function tellsAll(): Promise<void> {
  using folder = temporaryFolder();
  await using demo = startDemo(folder.path);
  const { exitCode, stdout, stderr } = await demo.ended(demoMilliseconds);
  expect(stdout, stderr).toMatch(/^24 of 24 seen, 0 failed$/m);
  expect(stdout).not.toContain("\u001b[");
  expect(stdout).toMatch(/✓ +6\. box-\d is dead at once: \d processes before, 0 after/);
  expect(stdout).toMatch(/✓ +9\. the rollout paused by itself: paused: 1 of 1 have failed; 0 may/);
  expect({ exitCode, left: readdirSync(folder.path) }).toEqual({ exitCode: 0, left: [] });
  // How long is for a machine at rest to say; the demo itself gives up after four minutes.
  expect(stdout).toMatch(/\nTook [0-9.]+ s; nothing is left behind\.\n$/);
}

async function isInterrupted(): Promise<void> {
  using folder = temporaryFolder();
  await using demo = startDemo(folder.path);
  const [, first] = await demo.said(/it is there: process (\d+)/, demoMilliseconds);
  await demo.said(/the operator hears its candidate/, demoMilliseconds);
  demo.kill("SIGINT");
  const { exitCode, stderr } = await demo.ended();
  expect(stderr).toContain("Interrupted by SIGINT");
  expect({ exitCode, left: readdirSync(folder.path) }).toEqual({ exitCode: 130, left: [] });
  // With the first process of a PID namespace the kernel ends all others.
  expect(readdirSync("/proc")).not.toContain(`${first}`);
}

skipUnless("the demo of a fleet", [root, ip], () => {
  test.each(
    rotating(
      "fleet demo",
      [
        { what: "sees every step, and leaves nothing behind", run: tellsAll },
        { what: "ends at once by Ctrl-C, and cleans up", run: isInterrupted },
      ],
      { outOf: 2 },
    ),
  )("$what", async ({ run }) => await run(), demoMilliseconds);
});
