/** That a guest of several kernels tells the truth: no scenario may pass by mistake. */
import { expect, test } from "bun:test";
import { liveUpdateFeatures, liveUpdateGuest, python } from "../support/guest/live-update-guest.ts";
import type { GuestStage } from "../support/guest/scenario.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";

const bootMilliseconds = 5 * 60_000;

/** It seems to have asked for a kexec, and nothing follows: the guest waits so many seconds. */
const impatient = ["HOSTLER_PATIENCE=1"];

const run = (name: string, stages: readonly GuestStage[], kernelWords: readonly string[] = []) =>
  liveUpdateGuest({ name, stages, kernelWords, files: { "greeting.txt": "from this machine\n" } });

onlyInAll(() => {
  skipUnless("a guest of several kernels", liveUpdateFeatures, () => {
    test(
      "goes through its stages in order, and keeps what is in /scenario and nothing else",
      async () => {
        const note = "echo stage $HOSTLER_STAGE $(cat seen 2>/dev/null)";
        const { passed, lines } = await run("stages in order", [
          { kexec: "init", script: `${note}; cat greeting.txt; echo one >seen; echo x >/run/x` },
          { kexec: "init", script: `${note}; test ! -e /run/x && echo two >>seen` },
          { script: `${note}; dmesg | grep 'KHO: exec from'` },
        ]);
        expect(lines).toContain("stage 1");
        expect(lines).toContain("from this machine");
        expect(lines).toContain("stage 2 one");
        expect(lines).toContain("stage 3 one two");
        expect(lines.join("\n")).toMatch(/KHO: exec from: .* \(count 2\)/);
        expect(passed).toBe(true);
      },
      bootMilliseconds,
    );

    test.each([
      ["a first stage that fails", [{ kexec: "init", script: "exit 3" }, { script: "exit 0" }]],
      ["a last stage that fails", [{ kexec: "init", script: "exit 0" }, { script: "exit 3" }]],
      ["a stage that enters no kernel", [{ script: "exit 0" }, { script: "exit 0" }]],
      ["a stage ended by nobody for a kexec", [{ script: "kill -9 $$" }, { script: "exit 0" }]],
      ["the last stage, killed", [{ script: "kill -9 $$" }]],
    ] as const satisfies [string, readonly GuestStage[]][])(
      "%s: the verdict is bad",
      async (name, stages) => expect((await run(name, stages, impatient)).passed).toBe(false),
      bootMilliseconds,
    );

    test(
      "has what a scenario needs",
      async () => {
        const { passed, lines } = await run("what is there", [
          {
            script: [
              "hostler --version && hostler-faults --version || exit 1",
              "luod --help && luoctl --help || exit 1",
              "test -c /dev/liveupdate && test -r /boot/vmlinuz && ! touch /etc/passwd",
            ].join("\n"),
          },
        ]);
        expect(passed, lines.join("\n")).toBe(true);
      },
      bootMilliseconds,
    );

    skipUnless("Python in a guest", python, () => {
      test(
        "speaks over sockets, passes descriptors, and calls the kernel",
        async () => {
          const modules = "array, ctypes, fcntl, hashlib, json, mmap, os, socket, struct, time";
          const client = `import ${modules}\nprint('client', hashlib.sha256(b'x').hexdigest()[:8])`;
          const { lines } = await liveUpdateGuest({
            name: "Python",
            stages: [{ script: "python3 client.py" }],
            files: { "client.py": client },
          });
          expect(lines).toContain("client 2d711642");
        },
        bootMilliseconds,
      );
    });
  });
});
