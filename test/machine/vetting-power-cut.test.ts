/** A host of the laboratory whose power is cut, or whose kernel dies, in the middle of a stage. */
import { beforeAll, expect, test } from "bun:test";
import type { LiveImage } from "../../scripts/live-image.ts";
import type { Dossier } from "../../src/vetting/protocol-operator.ts";
import { stages } from "../../src/vetting/protocol-result.ts";
import { proverSpec } from "../../src/vetting/prove/faults.ts";
import { guestFeatures } from "../support/machine.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";
import { laboratoryImage, laboratoryPatience } from "../support/vetting-laboratory.ts";
import { LaboratoryRun } from "../support/vetting-run.ts";

let image: LiveImage;

/** Of each stage: how many attempts were begun, and how many of them have a result. */
function countsOf({ view, results }: Dossier) {
  return stages.map((stage) => {
    const begun = view.stages.find((one) => one.stage === stage)?.attempts ?? 0;
    return { stage, begun, told: results.filter((result) => result.stage === stage).length };
  });
}

onlyInAll(() => {
  skipUnless("vetting over power cuts", guestFeatures, () => {
    beforeAll(async () => {
      image = await laboratoryImage();
    }, laboratoryPatience);
    definePowerCuts();
    defineCrashes();
  });
});

function definePowerCuts(): void {
  test(
    "a power cut in each stage: the run goes on there, and the attempt is counted",
    async () => {
      await using run = await LaboratoryRun.start(image);
      for (const [index, stage] of stages.entries()) {
        await run.boot();
        await run.begins(stage, 1);
        await run.host.cutPower();
        // In its middle: it was begun, those before it were done at their second attempt.
        const counts = countsOf(await run.dossier());
        expect(counts).toEqual(
          stages.map((one, at) => ({
            stage: one,
            begun: at < index ? 2 : Number(at === index),
            told: Number(at < index),
          })),
        );
      }
      await run.boot();
      const ended = await run.until("the end", ({ view }) => view.verdict !== null);
      expect(ended.view.state).toBe("Completed");
      expect(countsOf(ended)).toEqual(stages.map((stage) => ({ stage, begun: 2, told: 1 })));
      expect(ended.results.map(({ attempt, source }) => `${attempt} ${source}`)).toEqual(
        stages.map(() => "2 agent"),
      );
    },
    (stages.length + 1) * laboratoryPatience,
  );
}

function defineCrashes(): void {
  const { attempts } = proverSpec.stages.SMART;
  test(
    "a host whose kernel dies in a stage again and again has failed, with what the kernel said",
    async () => {
      await using run = await LaboratoryRun.start(image);
      for (let crash = 1; crash <= attempts; crash++) {
        await run.boot(["unknown_nmi_panic"]);
        await run.begins("SMART", crash);
        await run.host.command("inject-nmi");
        await run.host.said(/Kernel panic - not syncing/);
        // It is booted anew by its own kernel: what firmware was to keep, it has.
        await run.host.said(/Kernel panic[\s\S]*live: hostler/);
        await run.host.cutPower();
        const smart = countsOf(await run.dossier()).find(({ stage }) => stage === "SMART");
        expect(smart).toEqual({ stage: "SMART", begun: crash, told: 0 });
      }
      await run.boot();
      const held = await run.until("the hold", ({ view }) => view.state === "FailedHolding");
      const result = held.results.find(({ stage }) => stage === "SMART");
      expect(result).toMatchObject({
        source: "orchestrator",
        attempt: attempts,
        report: { outcome: "FAIL", findings: [{ code: "host-died" }] },
      });
      const evidence = result?.report.evidence.filter(({ name }) => name === "pstore") ?? [];
      expect(evidence.map(({ text }) => text).join("\n")).toContain("Kernel panic");
      expect(held.view.stages.find(({ stage }) => stage === "SMART")?.attempts).toBe(attempts);
    },
    (attempts + 1) * laboratoryPatience,
  );
}
