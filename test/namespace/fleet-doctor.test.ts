/** hostler doctor fleet, compiled: what it finds on a host, and that its mend mends. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { rmSync } from "node:fs";
import type { Advice } from "../../src/doctor/judgement.ts";
import { hostler } from "../support/binary.ts";
import { runProgram } from "../support/program.ts";
import { root, skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

setDefaultTimeout(120_000);

skipUnless("hostler doctor fleet", root, () => {
  test("names what a host lacks, and what it says to type links the version again", async () => {
    using folder = temporaryFolder();
    const place = folder.file("fleet");
    const ask = async (): Promise<ReadonlyMap<string, Advice>> => {
      const places = ["--folder", place, "--identity", folder.file("identity")];
      const { stdout, stderr } = await runProgram([
        ...[hostler(), "doctor", "fleet", "--json", ...places],
      ]);
      expect(stderr).toBe("");
      const advice = JSON.parse(stdout) as Advice[];
      return new Map(advice.map((line) => [line.check, line]));
    };
    const where = ["--folder", place, "--prefix", folder.file("usr")];
    const installed = await runProgram([
      ...[hostler(), "fleet", "install", "--without-units", "--volatile", ...where],
    ]);
    expect(installed).toMatchObject({ exitCode: 0 });
    const whole = await ask();
    for (const check of ["installation", "current", "previous", "journal", "room"]) {
      expect(whole.get(`fleet_${check}`)).toMatchObject({ status: "ok", mend: null });
    }
    expect(whole.get("fleet_trust")).toMatchObject({ status: "missing" });
    expect(whole.get("fleet_identity")?.mend).toContain("hostler fleet enroll");
    rmSync(`${place}/current`);
    const lost = (await ask()).get("fleet_current");
    expect(lost).toMatchObject({ status: "missing", found: "the link is not there" });
    const [, words = ""] = /linked again: (.+)\.$/.exec(lost?.mend ?? "") ?? [];
    expect(await runProgram(words.split(" "))).toMatchObject({ exitCode: 0 });
    expect((await ask()).get("fleet_current")).toMatchObject({ status: "ok" });
  });

  test("takes places of a fleet with fleet alone", async () => {
    const words = [hostler(), "doctor", "process", "--folder", "/data"];
    const { exitCode, stderr } = await runProgram(words);
    expect(exitCode).toBe(100);
    expect(stderr).toContain("Expected --folder with fleet alone, received it with process.");
  });
});
