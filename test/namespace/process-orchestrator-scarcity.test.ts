/** The orchestrator when something of the machine runs out. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { hostler } from "../support/binary.ts";
import { startOrchestrator } from "../support/orchestrator.ts";
import { runProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { waitFor } from "../support/wait-for.ts";

setDefaultTimeout(60_000);

skipUnless("scarcity", root, () => {
  test("a full disk does not end supervision", async () => {
    using outer = temporaryFolder();
    const path = outer.file("small");
    mkdirSync(path);
    const mounted = await runProgram(["mount", "-t", "tmpfs", "-o", "size=64k", "none", path]);
    expect(mounted.exitCode).toBe(0);
    try {
      const folder = {
        path,
        file: (name: string) => `${path}/${name}`,
        [Symbol.dispose]: () => {},
      };
      const configuration = '[process.it]\ncommand = ["sleep", "1000"]\nbackoff = "none"\n';
      await using orchestrator = await startOrchestrator({ configuration, folder });
      const first = await orchestrator.started("it");
      const filler = `${path}/filler`;
      // To the last byte: what is left of a page of the journal takes some lines more.
      await runProgram(["dd", "if=/dev/zero", `of=${filler}`, "bs=4k", "count=64"]);
      const { stderr } = orchestrator.program.output;
      expect(stderr).not.toContain("bug");
      let count = 1;
      process.kill(first, "SIGKILL");
      while (!orchestrator.program.output.stderr.includes("cannot be written")) {
        count += 1;
        process.kill(await orchestrator.started("it", count), "SIGKILL");
      }
      const last = await orchestrator.started("it", count + 1);
      expect((await orchestrator.summary("it")).pid).toBe(last);
      rmSync(filler);
      process.kill(last, "SIGKILL");
      await orchestrator.started("it", count + 2);
      await waitFor("the journal to be written again", () =>
        orchestrator.program.output.stderr.includes("is written again"),
      );
      expect(orchestrator.program.output.stderr.split("cannot be written")).toHaveLength(2);
      expect(await orchestrator.stop()).toBe(0);
    } finally {
      await runProgram(["umount", path]);
    }
  });

  test("too few descriptors are said before anything starts", async () => {
    using folder = temporaryFolder();
    const tables = Array.from(
      { length: 40 },
      (_, index) => `[process.n${index}]\ncommand = ["touch", "${folder.file("mark")}"]\n`,
    );
    writeFileSync(folder.file("many.toml"), tables.join(""));
    const words = [
      ...["prlimit", "--nofile=64:64", hostler(), "process", "orchestrator"],
      ...["--config", folder.file("many.toml")],
      ...["--control-socket", folder.file("control.sock")],
    ];
    const { exitCode, stderr } = await runProgram(words);
    expect(exitCode).toBe(111);
    expect(stderr).toMatch(/Expected room for \d+ open descriptors.*limit of 64.*LimitNOFILE=/);
    expect(await Bun.file(folder.file("mark")).exists()).toBe(false);
  });
});
