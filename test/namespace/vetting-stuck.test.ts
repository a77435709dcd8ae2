/** A child that no signal ends: told as stuck, and everything else goes on. */
import { expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { repositoryRoot } from "../support/binary.ts";
import { runProgram } from "../support/program.ts";
import { feature, root, skipUnless } from "../support/skips.ts";

const fuse = feature("no /dev/fuse", () => existsSync("/dev/fuse"));

skipUnless("a child that is stuck in the kernel", [root, fuse], () => {
  test("it is told with where it is, stays counted, and others run beside it", async () => {
    const story = join(repositoryRoot, "test/support/vetting/stuck-story.ts");
    const { exitCode, stdout, stderr } = await runProgram(
      ["unshare", "--mount", process.execPath, story],
      { deadlineMilliseconds: 60_000 },
    );
    if (exitCode !== 0) throw new Error(stderr);
    const told = JSON.parse(stdout);
    expect(told.ending.kind).toBe("stuck");
    expect(told.ending.stack).toContain("state D");
    expect(told.ending.stack).toContain("thread");
    expect(told.whileStuck).toEqual({ count: 1, stuck: ["look"] });
    expect(told.beside).toEqual({ kind: "report", report: { text: "beside" } });
    expect(told.after).toEqual([]);
  });
});
