import { expect, test } from "bun:test";
import { type CompiledLayouts, compileLayouts, toolchains } from "../../scripts/make-layouts.ts";
import { file, program, skipUnless } from "../support/skips.ts";
import checkedIn from "./layouts.json" with { type: "json" };

skipUnless(
  "layouts.json is what gcc says now",
  [program("gcc", "gcc"), file("/usr/include/stdio.h", "libc6-dev")],
  () => {
    test("for x86-64", async () => {
      expect(await compileLayouts(toolchains.x64)).toEqual(checkedIn.x64);
    });
  },
);

skipUnless(
  "layouts.json is what the arm64 gcc says now",
  [
    program("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    file("/usr/aarch64-linux-gnu/include/stdio.h", "libc6-dev-arm64-cross"),
    program("qemu-aarch64-static", "qemu-user-static"),
  ],
  () => {
    test("for arm64", async () => {
      expect(await compileLayouts(toolchains.arm64)).toEqual(checkedIn.arm64);
    });
  },
);

skipUnless(
  "musl lays out the same",
  [program("musl-gcc", "musl-tools"), file("/usr/include/stdio.h", "libc6-dev")],
  () => {
    test("but for the first real-time signal and the tail of sched_param", async () => {
      const expected: CompiledLayouts = {
        ...checkedIn.x64,
        structures: {
          ...checkedIn.x64.structures,
          sched_param: { size: 48, sched_priority: 0 },
        },
        signals: { ...checkedIn.x64.signals, SIGRTMIN: 35 },
      };
      expect(await compileLayouts(toolchains.musl)).toEqual(expected);
    });
  },
);
