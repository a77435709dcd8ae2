/** What a guest's end tells when it is a bad one: no suite with guests may pass by mistake. */
import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fetchDebianKernel } from "../../scripts/guest-kernel.ts";
import { hostler, repositoryRoot } from "../support/binary.ts";
import { writeImage } from "../support/guest/image.ts";
import { type GuestRun, guestFeatures, runGuest } from "../support/machine.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { rejectionOf } from "../support/wait-for.ts";

const bootMilliseconds = 5 * 60_000;
const usualInit = readFileSync(join(repositoryRoot, "test/machine/guest/init"), "utf8");

interface Content {
  readonly init?: string;
  readonly story?: string;
  readonly deadlineMilliseconds?: number;
}

async function run({ init, story, deadlineMilliseconds }: Content): Promise<GuestRun> {
  using folder = temporaryFolder();
  const image = folder.file("image");
  writeImage(image, {
    programs: { "/usr/bin/hostler": hostler(), "/bin/busybox": "/bin/busybox" },
    files: { "/story/told.js": story ?? "", "/story/words": "" },
    init: init ?? usualInit,
  });
  return await runGuest({
    kernel: await fetchDebianKernel(),
    root: { image },
    variables: { HOSTLER_STORY: "told" },
    deadlineMilliseconds: deadlineMilliseconds ?? bootMilliseconds,
  });
}

onlyInAll(() => {
  skipUnless("a guest's end", guestFeatures, () => {
    test.each([
      ["passed", "console.log('here', process.versions.bun);", true],
      ["failed", "process.exitCode = 1;", false],
      ["thrown", "throw new Error('on purpose');", false],
    ])(
      "the verdict is the story's: %s",
      async (_name, story, passed) => expect((await run({ story })).passed).toBe(passed),
      bootMilliseconds,
    );

    test(
      "a first process that ends without a verdict is a failure, and its words are told",
      async () => {
        const error = await rejectionOf(run({ init: "#!/bin/busybox sh\necho only this\n" }));
        expect(error.message).toContain("gave no verdict");
        expect(error.message).toContain("only this");
      },
      bootMilliseconds,
    );

    test(
      "a guest that does not end is ended at the deadline",
      async () => {
        const init = "#!/bin/busybox sh\nwhile :; do /bin/busybox sleep 1000; done\n";
        const error = await rejectionOf(run({ init, deadlineMilliseconds: 10_000 }));
        expect(error.message).toContain("gave no verdict");
      },
      bootMilliseconds,
    );
  });
});
