/** The doctor where live update works, where the device is held, and where the kernel refuses. */
import { beforeAll, expect, test } from "bun:test";
import { findLiveUpdateKernel } from "../../scripts/guest-kernel.ts";
import type { Advice } from "../../src/doctor/judgement.ts";
import { hostler } from "../support/binary.ts";
import { writeImage } from "../support/guest/image.ts";
import { liveUpdateFeatures } from "../support/guest/live-update-guest.ts";
import { runGuest } from "../support/machine.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

/** The kernel's own errors go into no line of an answer: one of a host without room did. */
const init = `#!/bin/busybox sh
/bin/busybox dmesg -n 1
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
ask() {
  /bin/hostler doctor live-update --json > /tmp/answer
  echo "HOSTLER-ANSWER $1 $? $(/bin/busybox tr -d '\\n' < /tmp/answer)"
}
ask free
exec 7<>/dev/liveupdate && ask held
exec 7>&-
/bin/busybox chmod 666 /dev/liveupdate && ask public
echo 1 > /proc/sys/kernel/kexec_load_disabled
ask disabled
echo HOSTLER-VERDICT passed
/bin/busybox poweroff -f
`;

interface Answer {
  readonly exitCode: number;
  /** The lines that are not ok. */
  readonly trouble: readonly Advice[];
}

async function boot(words: readonly string[]): Promise<ReadonlyMap<string, Answer>> {
  using folder = temporaryFolder();
  const image = folder.file("image");
  const programs = { "/bin/busybox": "/bin/busybox", "/bin/hostler": hostler() };
  writeImage(image, { programs, files: {}, init });
  const kernel = findLiveUpdateKernel();
  if (kernel === undefined) throw new Error("a suite whose features are absent was defined");
  const run = await runGuest({
    kernel,
    root: { image },
    kernelWords: words,
    memoryMebibytes: 3072,
    deadlineMilliseconds: 4 * 60_000,
  });
  const answers = run.lines.flatMap((line) => {
    const [, name = "", code, json = ""] = /^HOSTLER-ANSWER (\w+) (\d+) (.*)$/.exec(line) ?? [];
    if (name === "") return [];
    const trouble = (JSON.parse(json) as Advice[]).filter(({ status }) => status !== "ok");
    return [[name, { exitCode: Number(code), trouble }] as const];
  });
  return new Map(answers);
}

skipUnless("the doctor of a host with live update", liveUpdateFeatures, () => {
  let answers: ReadonlyMap<string, Answer> = new Map();
  beforeAll(async () => {
    answers = await boot(["liveupdate=on", "kho=on", "kho_scratch=16M,256M,0"]);
  }, 5 * 60_000);

  test("finds nothing to mend where the device is free", () => {
    expect(answers.get("free")).toEqual({ exitCode: 0, trouble: [] });
  });

  test("names who holds the device", () => {
    const { exitCode, trouble = [] } = answers.get("held") ?? {};
    expect(exitCode).toBe(111);
    expect(trouble.map(({ check }) => check)).toEqual(["device_open"]);
    expect(trouble[0]?.found).toMatch(/^EBUSY: held by 1 \(/);
  });

  test("warns where everybody may open the device", () => {
    const { exitCode, trouble = [] } = answers.get("public") ?? {};
    expect(exitCode).toBe(0);
    expect(trouble.map(({ check }) => check)).toEqual(["device_node"]);
  });

  test("names the setting that forbids loading a kernel", () => {
    const { exitCode, trouble = [] } = answers.get("disabled") ?? {};
    expect(exitCode).toBe(111);
    expect(trouble.find(({ check }) => check === "kexec_load_disabled")?.status).toBe("missing");
  });
});

onlyInAll(() => {
  skipUnless("the doctor of a host without room for a handover", liveUpdateFeatures, () => {
    test("gives the kernel's own reason", async () => {
      const answers = await boot(["liveupdate=on", "kho=on", "kho_scratch=16M,8G,0"]);
      const { exitCode, trouble = [] } = answers.get("free") ?? {};
      expect(exitCode).toBe(111);
      expect(trouble.map(({ check }) => check)).toEqual(["device_node", "device_open"]);
      expect(trouble[0]?.mend).toMatch(/^The kernel says: KHO: .*scratch.*kho_scratch=/);
    }, 300_000);

    test("and what the command line lacks", async () => {
      const { trouble = [] } = (await boot(["kho=on liveupdate=off"])).get("free") ?? {};
      expect(trouble[0]).toMatchObject({ check: "liveupdate_on", found: "liveupdate=off" });
    }, 300_000);
  });
});
