/** The suite of the process system for one kernel: its two stories, told in guests. */
import { beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { bundle } from "../../../scripts/guest/bundle.ts";
import type { GuestKernel } from "../../../scripts/guest-kernel/kernel-image.ts";
import { exitStatusCases } from "../../machine/guest/exit-status-cases.ts";
import { type CaseResult, readCases } from "../../machine/guest/story.ts";
import { hostler, repositoryRoot } from "../binary.ts";
import { type GuestRun, runGuest } from "../machine.ts";
import { temporaryFolder } from "../temporary-folder.ts";
import { writeImage } from "./image.ts";

/** What the stories need built into the kernel, beyond what every guest needs. */
export const processGuestOptions = [
  "CONFIG_CGROUPS",
  "CONFIG_CGROUP_PIDS",
  "CONFIG_PID_NS",
  "CONFIG_NET_NS",
  "CONFIG_IPC_NS",
  "CONFIG_INET",
] as const;

/** Generous: a processor is emulated, on a machine that may have much else to do. */
const storyMilliseconds = 8 * 60_000;
const testMilliseconds = storyMilliseconds + 3 * 60_000;

const stories = {
  "process-exit-status": { entry: "test/machine/guest/process-exit-status.ts", words: "" },
  demo: { entry: "scripts/demo.ts", words: "--program /usr/bin/hostler" },
} as const;
type Story = keyof typeof stories;

const accounts = {
  "/etc/passwd": "root:x:0:0:root:/:/bin/sh\nprobe:x:42:43::/:/bin/sh\n",
  "/etc/group": "root:x:0:\nprobe:x:43:\nextra:x:44:probe\n",
};

export interface ProcessGuest {
  readonly kernel: () => Promise<GuestKernel>;
  /** Who tells how somebody else's child ended, as long as both are there. */
  readonly teller: "kernel" | "agent";
}

/** Defines the tests; to be called within a describe. */
export function defineProcessGuest(guest: ProcessGuest): void {
  let cases: CaseResult[] = [];
  let run: GuestRun | undefined;
  beforeAll(async () => {
    run = await tellStory(guest, "process-exit-status");
    cases = readCases(run.lines);
  }, testMilliseconds);
  for (const name of exitStatusCases) {
    test(name, () => {
      const result = cases.find((candidate) => candidate.name === name);
      expect(result, lastOf(run)).toMatchObject({ outcome: "ok" });
    });
  }
  test(
    "the demo",
    async () => {
      const told = await tellStory(guest, "demo");
      expect(told.passed, lastOf(told)).toBe(true);
      const untold = told.lines.some((line) => /how \S+ ended: unknown, because/.test(line));
      expect(untold, lastOf(told)).toBe(guest.teller === "agent");
    },
    testMilliseconds,
  );
}

function lastOf(run: GuestRun | undefined): string {
  return run?.lines.slice(-100).join("\n") ?? "the guest did not run";
}

async function tellStory(guest: ProcessGuest, story: Story): Promise<GuestRun> {
  using folder = temporaryFolder();
  const kernel = await guest.kernel();
  const image = folder.file("image");
  const program = await bundle(stories[story].entry, folder.file("story"));
  writeImage(image, {
    programs: {
      "/usr/bin/hostler": hostler(),
      "/bin/busybox": "/bin/busybox",
      "/bin/sh": "/bin/dash",
      "/usr/bin/unshare": "/usr/bin/unshare",
      "/usr/bin/nsenter": "/usr/bin/nsenter",
    },
    files: {
      ...accounts,
      [`/story/${story}.js`]: readFileSync(program, "utf8"),
      "/story/words": stories[story].words,
    },
    init: readFileSync(join(repositoryRoot, "test/machine/guest/init"), "utf8"),
  });
  const run = await runGuest({
    kernel,
    root: { image },
    variables: {
      HOSTLER_STORY: story,
      HOSTLER_TELLER: guest.teller,
      HOSTLER_RELEASE: kernel.release,
      HOSTLER_CORE: kernel.options?.get("CONFIG_COREDUMP") === undefined ? "no" : "yes",
    },
    deadlineMilliseconds: storyMilliseconds,
  });
  console.log(run.lines.filter((line) => line.startsWith("HOSTLER-")).join("\n"));
  return run;
}
