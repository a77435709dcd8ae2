/** `hostler process about`: the file that runs, and not the one at its path. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { copyFileSync, renameSync, writeFileSync } from "node:fs";
import * as v from "valibot";
import { digestOf } from "../../src/process/perform/own-program.ts";
import { aboutSchema } from "../../src/process/protocol.ts";
import { hostler } from "../support/binary.ts";
import { startOrchestrator } from "../support/orchestrator.ts";
import { runProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

setDefaultTimeout(60_000);

skipUnless("hostler process about", root, () => {
  test("tells version, digest and process of what runs, whatever stands at its path", async () => {
    using folder = temporaryFolder();
    const binary = folder.file("hostler");
    copyFileSync(hostler(), binary);
    const configuration = '[process.it]\ncommand = ["sleep", "1000"]\n';
    await using orchestrator = await startOrchestrator({ folder, configuration, binary });
    writeFileSync(folder.file("other"), "another file");
    renameSync(folder.file("other"), binary);
    const words = [hostler(), "process", "about", "--control-socket", orchestrator.controlSocket];
    const { stdout } = await runProgram([...words, "--json"]);
    const about = v.parse(aboutSchema, JSON.parse(stdout));
    expect(about).toMatchObject({
      version: expect.stringMatching(/^\d+\.\d+\.\d+/),
      digest: await digestOf(hostler()),
      program: `${binary} (deleted)`,
      process_id: orchestrator.program.processId,
    });
    const text = await runProgram(words);
    expect(text.stdout).toContain(`SHA-256   ${about.digest}\n`);
    expect(text.stdout).toContain(`instance  ${about.instance}\n`);
  });
});
