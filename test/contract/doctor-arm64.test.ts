import { expect, test } from "bun:test";
import { buildForTarget } from "../../scripts/release.ts";
import type { Advice } from "../../src/doctor/judgement.ts";
import { emulated, emulatorFeatures } from "../support/emulator.ts";
import { runProgram } from "../support/program.ts";
import { skipUnless } from "../support/skips.ts";

const deadlineMilliseconds = 240_000;

skipUnless("the arm64 release's doctor", emulatorFeatures, () => {
  test(
    "finds an emulated host fit; the emulator has no PIDFD_GET_INFO",
    async () => {
      const words = [...emulated(await buildForTarget("arm64")), "doctor", "process", "--json"];
      const result = await runProgram(words, { deadlineMilliseconds });
      expect(result).toMatchObject({ exitCode: 0, stderr: "" });
      const advice = JSON.parse(result.stdout) as Advice[];
      const statusOf = (check: string) => advice.find((line) => line.check === check)?.status;
      expect(statusOf("pidfd_open")).toBe("ok");
      expect(statusOf("close_range")).toBe("ok");
      expect(statusOf("exit_information")).toBe("warning");
    },
    deadlineMilliseconds,
  );
});
