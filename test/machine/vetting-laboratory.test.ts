/** Vetting from end to end: the real live image in emulated hosts, against a real orchestrator. */
import { beforeAll, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import * as v from "valibot";
import type { LiveImage } from "../../scripts/live-image.ts";
import { type Dossier, dossierSchema } from "../../src/vetting/protocol-operator.ts";
import type { Stage } from "../../src/vetting/protocol-result.ts";
import { faults, proverSpec } from "../../src/vetting/prove/faults.ts";
import { guestCards, hostAddress } from "../../src/vetting/prove/guest.ts";
import { runHostler, saysDone, TestAuthority } from "../support/authority.ts";
import { hostler } from "../support/binary.ts";
import { guestFeatures } from "../support/machine.ts";
import { runProgram } from "../support/program.ts";
import { onlyInAll } from "../support/rotation.ts";
import { skipUnless } from "../support/skips.ts";
import {
  LaboratoryHost,
  laboratoryImage,
  laboratoryPatience,
} from "../support/vetting-laboratory.ts";
import { waitFor } from "../support/wait-for.ts";

let image: LiveImage;

/** @returns what `hostler vetting prove` says of each host */
async function prove(names: readonly string[], milliseconds: number) {
  const { kernel, initramfs } = image;
  const words = ["--kernel", kernel, "--initramfs", initramfs, "--only", names.join(",")];
  const outcome = await runProgram([hostler(), "vetting", "prove", ...words, "--json"], {
    deadlineMilliseconds: milliseconds,
  });
  const schema = v.object({
    proofs: v.array(
      v.object({ name: v.string(), proof: v.looseObject({ kind: v.string() }), took: v.number() }),
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

    definePowerCuts();
  });
});

/** A host of an orchestrator of its own, by the commands that a person types. */
class Vetting implements AsyncDisposable {
  readonly orchestrator: TestAuthority;
  readonly host: LaboratoryHost;
  #run = 0;

  private constructor(orchestrator: TestAuthority, host: LaboratoryHost) {
    this.orchestrator = orchestrator;
    this.host = host;
  }

  static async start(): Promise<Vetting> {
    const orchestrator = await TestAuthority.start({ role: ["vetting", "orchestrator"] });
    const vetting = new Vetting(orchestrator, new LaboratoryHost({ image }));
    const spec = orchestrator.folder.file("spec.json");
    writeFileSync(spec, JSON.stringify(proverSpec));
    await vetting.does("spec", "put", spec);
    await vetting.does("host", "add", guestCards.first, "--name", "lab", "--spec", "prove");
    const started = await vetting.does("start", "lab", "--window", "2h", "--json");
    vetting.#run = v.parse(v.object({ run: v.number() }), JSON.parse(started)).run;
    return vetting;
  }

  async does(...words: readonly string[]): Promise<string> {
    const socket = ["--control-socket", this.orchestrator.controlSocket];
    return await saysDone(["vetting", ...words, ...socket]);
  }

  /** With a token of this boot. */
  async boot(kernelWords: readonly string[] = []): Promise<void> {
    const address = `https://${hostAddress}:${this.orchestrator.port}`;
    const line = await this.does("token", `${this.#run}`, "--replace", "--address", address);
    await this.host.boot([...line.trim().split(" "), ...kernelWords]);
  }

  async dossier(): Promise<Dossier> {
    const socket = ["--control-socket", this.orchestrator.controlSocket];
    const words = ["vetting", "show", `${this.#run}`, "--json", ...socket];
    return v.parse(dossierSchema, JSON.parse((await runHostler(words)).stdout));
  }

  async until(what: string, is: (dossier: Dossier) => boolean): Promise<Dossier> {
    try {
      return await waitFor(
        what,
        async () => {
          const dossier = await this.dossier();
          return is(dossier) ? dossier : undefined;
        },
        laboratoryPatience,
      );
    } catch (error) {
      (error as Error).message += `\n${this.host.console.split("\n").slice(-60).join("\n")}`;
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.host[Symbol.asyncDispose]();
    await this.orchestrator[Symbol.asyncDispose]();
  }
}

const attemptsOf = ({ view }: Dossier, stage: Stage) =>
  view.stages.find((one) => one.stage === stage)?.attempts ?? 0;

function definePowerCuts(): void {
  const stages = ["Inventory", "SMART", "CPUStress", "Storage", "Network"] as const;
  const whole = (stages.length + 1) * laboratoryPatience;
  test(
    "a power cut in each stage: the run goes on there, and the attempt is counted",
    async () => {
      await using vetting = await Vetting.start();
      for (const stage of stages) {
        await vetting.boot();
        await vetting.until(`an attempt of ${stage}`, (at) => attemptsOf(at, stage) === 1);
        await vetting.host.cutPower();
      }
      await vetting.boot();
      const ended = await vetting.until("the end", ({ view }) => view.verdict !== null);
      expect(ended.view.state).toBe("Completed");
      expect(stages.map((stage) => attemptsOf(ended, stage))).toEqual([2, 2, 2, 2, 2]);
    },
    whole,
  );

  test(
    "a host whose kernel dies in a stage again and again has failed, with what the kernel said",
    async () => {
      await using vetting = await Vetting.start();
      const { attempts } = proverSpec.stages.SMART;
      for (let crash = 1; crash <= attempts; crash++) {
        await vetting.boot(["unknown_nmi_panic"]);
        await vetting.until(`attempt ${crash}`, (at) => attemptsOf(at, "SMART") === crash);
        await vetting.host.command("inject-nmi");
        await vetting.host.said(/Kernel panic - not syncing/);
        await vetting.host.said(/live: .*[\s\S]*live: hostler/);
        await vetting.host.cutPower();
      }
      await vetting.boot();
      const held = await vetting.until("the hold", ({ view }) => view.state === "FailedHolding");
      const result = held.results.find(({ stage }) => stage === "SMART");
      expect(result).toMatchObject({ source: "orchestrator", report: { outcome: "FAIL" } });
      const evidence = result?.report.evidence.map(({ text }) => text).join("\n");
      expect(evidence).toContain("Kernel panic");
    },
    whole,
  );
}
