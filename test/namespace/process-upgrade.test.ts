/** A file of hostler is brought to a host, proven, and taken by the running orchestrator. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, copyFileSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { hostler } from "../support/binary.ts";
import { startOrchestrator } from "../support/orchestrator.ts";
import { runProgram } from "../support/program.ts";
import { aboutOf, again } from "../support/reexecution.ts";
import { root, skipUnless } from "../support/skips.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";

setDefaultTimeout(120_000);

const configuration = '[process.it]\ncommand = ["sleep", "1000"]\n';

function brought(folder: TemporaryFolder, name: string, change: (path: string) => void): string {
  const path = folder.file(name);
  copyFileSync(hostler(), path);
  change(path);
  return path;
}

skipUnless("process upgrade", root, () => {
  test("the file that is called is proven, and gone on as; nothing is stopped", async () => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const { controlSocket } = orchestrator;
    const pid = await orchestrator.started("it");
    const before = await aboutOf(controlSocket);
    const path = brought(folder, "hostler-new", () => {});
    const words = ["process", "upgrade", "--control-socket", controlSocket];
    const { exitCode, stdout, stderr } = await runProgram([path, ...words]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    const same = `${before.version} (${before.commit})`;
    expect(stdout).toStartWith(`${same} → ${same}\n\nversion   ${same}\nprogram   ${path}\n`);
    // And back, by name, for a program.
    const back = await runProgram([path, ...words, "--binary", hostler(), "--json"]);
    expect(JSON.parse(back.stdout)).toMatchObject({
      before: { program: path, process_id: before.process_id },
      after: { program: before.program, process_id: before.process_id, digest: before.digest },
    });
    const next = await again(orchestrator);
    expect((await next.list()).map((one) => [one.pid, one.restarts])).toEqual([[pid, 0]]);
    next.client.close();
  });

  test("what does not prove itself is refused, and nothing has changed", async () => {
    using folder = temporaryFolder();
    await using orchestrator = await startOrchestrator({ folder, configuration });
    const { controlSocket } = orchestrator;
    const { instance } = await aboutOf(controlSocket);
    const script = (text: string) => (path: string) => writeFileSync(path, `#!/bin/sh\n${text}\n`);
    const size = readFileSync(hostler()).length;
    const files: readonly (readonly [path: string, why: RegExp])[] = [
      [folder.file("absent"), /Cannot read \S+absent: ENOENT.* Nothing has changed/],
      [folder.path, /Cannot read \S+: expected an executable file, received something else/],
      ["/dev/zero", /Cannot read \/dev\/zero: expected an executable file/],
      [brought(folder, "plain", (path) => chmodSync(path, 0o644)), /Cannot read \S+plain: EACCES/],
      [brought(folder, "empty", (path) => truncateSync(path, 0)), /--self-test passes, received/],
      [brought(folder, "half", (path) => truncateSync(path, size / 2)), /received exit/],
      [brought(folder, "other", script("echo it is well")), /exit 0, saying "it is well/],
      [brought(folder, "late", script("exit 3")), /--self-test passes, received exit 3/],
      [
        brought(
          folder,
          "failing",
          script(
            `echo '{"version": "1", "ok": false, "checks": [` +
              `{"check": "kernel", "status": "failed", "found": "too old"}]}'`,
          ),
        ),
        /received kernel: too old\. Nothing has changed; run it/,
      ],
    ];
    const other = ["--binary", hostler(), "--digest", "0".repeat(64)];
    const words = ["process", "upgrade", "--control-socket", controlSocket];
    const wrong = await runProgram([hostler(), ...words, ...other]);
    expect([wrong.exitCode, wrong.stderr]).toEqual([
      111,
      expect.stringContaining("0000, received"),
    ]);
    for (const [path, why] of files) {
      const { exitCode, stderr } = await runProgram([hostler(), ...words, "--binary", path]);
      expect(stderr).toMatch(why);
      expect(exitCode).toBe(111);
      expect((await aboutOf(controlSocket)).instance).toBe(instance);
    }
  });

  test("without an orchestrator that is said, and nothing is run", async () => {
    using folder = temporaryFolder();
    const ran = folder.file("ran");
    const path = brought(folder, "file", (one) => writeFileSync(one, `#!/bin/sh\n: > ${ran}\n`));
    const socket = folder.file("none.sock");
    const words = ["process", "upgrade", "--binary", path, "--control-socket", socket];
    const { exitCode, stderr } = await runProgram([hostler(), ...words]);
    expect(exitCode).toBe(111);
    expect(stderr).toContain("hostler process orchestrator --config FILE");
    expect(() => readFileSync(ran)).toThrow("ENOENT");
  });
});
