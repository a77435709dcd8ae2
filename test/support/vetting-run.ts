/** A run of a laboratory's host by an orchestrator of its own, and commands as people type them. */
import { writeFileSync } from "node:fs";
import * as v from "valibot";
import type { LiveImage } from "../../scripts/live-image.ts";
import { type Dossier, dossierSchema } from "../../src/vetting/protocol-operator.ts";
import type { Stage } from "../../src/vetting/protocol-result.ts";
import { proverSpec } from "../../src/vetting/prove/faults.ts";
import { type GuestChange, guestCards, hostAddress } from "../../src/vetting/prove/guest.ts";
import { runHostler, saysDone, TestAuthority } from "./authority.ts";
import { LaboratoryHost, laboratoryPatience } from "./vetting-laboratory.ts";
import { waitFor } from "./wait-for.ts";

/** Lines of the host's console that an error ends with. */
const CONSOLE_LINES = 60;

export class LaboratoryRun implements AsyncDisposable {
  readonly orchestrator: TestAuthority;
  readonly host: LaboratoryHost;
  #run = 0;

  private constructor(orchestrator: TestAuthority, host: LaboratoryHost) {
    this.orchestrator = orchestrator;
    this.host = host;
  }

  /** The host has no power yet. */
  static async start(image: LiveImage, change: GuestChange = {}): Promise<LaboratoryRun> {
    const orchestrator = await TestAuthority.start({ role: ["vetting", "orchestrator"] });
    const run = new LaboratoryRun(orchestrator, new LaboratoryHost({ image, change }));
    try {
      const spec = orchestrator.folder.file("spec.json");
      writeFileSync(spec, JSON.stringify(proverSpec));
      await run.does("spec", "put", spec);
      await run.does("host", "add", guestCards.first, "--name", "lab", "--spec", "prove");
      const started = await run.does("start", "lab", "--window", "2h", "--json");
      run.#run = v.parse(v.object({ run: v.number() }), JSON.parse(started)).run;
      return run;
    } catch (error) {
      await run[Symbol.asyncDispose]();
      throw error;
    }
  }

  get number(): string {
    return `${this.#run}`;
  }

  async does(...words: readonly string[]): Promise<string> {
    const socket = ["--control-socket", this.orchestrator.controlSocket];
    return await saysDone(["vetting", ...words, ...socket]);
  }

  /** With a token of this boot. */
  async boot(kernelWords: readonly string[] = []): Promise<void> {
    const address = `https://${hostAddress}:${this.orchestrator.port}`;
    const line = await this.does("token", this.number, "--replace", "--address", address);
    await this.host.boot([...line.trim().split(" "), ...kernelWords]);
  }

  /**
   * Returns in the moment in which the agent has begun this attempt: it says so on its console
   * when the orchestrator has counted it, and before it starts anything of the stage.
   */
  async begins(stage: Stage, attempt: number): Promise<void> {
    await this.host.said(new RegExp(`attempt ${attempt} of ${stage} begins`));
  }

  async dossier(): Promise<Dossier> {
    const socket = ["--control-socket", this.orchestrator.controlSocket];
    const words = ["vetting", "show", this.number, "--json", ...socket];
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
      const last = this.host.console.split("\n").slice(-CONSOLE_LINES);
      (error as Error).message += `\n${last.join("\n")}`;
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.host[Symbol.asyncDispose]();
    await this.orchestrator[Symbol.asyncDispose]();
  }
}
