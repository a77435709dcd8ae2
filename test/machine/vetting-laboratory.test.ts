/** The tester is proven: the real live image in emulated hosts, against a real orchestrator. */
import { beforeAll, expect, test } from "bun:test";
import * as v from "valibot";
import type { LiveImage } from "../../scripts/live-image.ts";
import { dossierSchema } from "../../src/vetting/protocol-operator.ts";
import { faults } from "../../src/vetting/prove/faults.ts";
import { hostler } from "../support/binary.ts";
import { guestFeatures } from "../support/machine.ts";
import { runProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";
import { laboratoryImage, laboratoryPatience } from "../support/vetting-laboratory.ts";

let image: LiveImage;

/** @returns what `hostler vetting prove` says of each host */
async function prove(
  names: readonly string[],
  milliseconds: number,
  { kernel, initramfs }: LiveImage = image,
) {
  const words = ["--kernel", kernel, "--initramfs", initramfs, "--only", names.join(",")];
  const outcome = await runProgram([hostler(), "vetting", "prove", ...words, "--json"], {
    deadlineMilliseconds: milliseconds,
  });
  const schema = v.object({
    proofs: v.array(
      v.object({
        ...{ name: v.string(), proof: v.looseObject({ kind: v.string() }), took: v.number() },
        dossier: v.optional(dossierSchema),
      }),
    ),
  });
  const { proofs } = v.parse(schema, JSON.parse(outcome.stdout));
  for (const { name, proof, took } of proofs) {
    console.log(`${name}: ${proof.kind} in ${Math.round(took)} ms`);
  }
  return { ...outcome, proofs };
}

skipUnless("vetting in the laboratory", guestFeatures, () => {
  beforeAll(async () => {
    image = await laboratoryImage();
  }, laboratoryPatience);

  test(
    "a healthy host walks all stages, and nothing is told of it",
    async () => {
      const { exitCode, proofs } = await prove(["healthy"], laboratoryPatience);
      expect(proofs.map(({ proof }) => proof)).toEqual([{ kind: "proven", seen: [] }]);
      expect(exitCode).toBe(0);
    },
    laboratoryPatience,
  );

  onlyInAll(() => {
    const whole = faults.length * laboratoryPatience;
    test(
      "each fault is found, and nothing else",
      async () => {
        const { exitCode, proofs } = await prove(
          faults.map(({ name }) => name),
          whole,
        );
        expect(proofs.filter(({ proof }) => proof.kind !== "proven")).toEqual([]);
        expect(exitCode).toBe(0);
      },
      whole,
    );

    test(
      "with Debian's tools in the image they look, and the results name them",
      async () => {
        const tools = await laboratoryImage({ tools: true });
        const { proofs } = await prove(["healthy"], laboratoryPatience, tools);
        expect(proofs.map(({ proof }) => proof)).toEqual([{ kind: "proven", seen: [] }]);
        const named = (proofs[0]?.dossier?.results ?? []).map(({ stage, report }) => {
          return [stage, [...new Set(report.engines.map(({ engine }) => engine))].toSorted()];
        });
        // What Debian has no tool for with answers that a program can read is hostler's own.
        expect(Object.fromEntries(named)).toEqual({
          Inventory: ["hostler"],
          SMART: ["smartctl"],
          CPUStress: ["hostler"],
          Storage: ["hostler", "smartctl"],
          Network: ["hostler"],
          GPU: [],
          PSU: ["ipmitool"],
        });
      },
      laboratoryPatience,
    );
  });
});
