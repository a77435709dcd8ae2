/** An orchestrator that becomes another program: by itself, or with the gap held open. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { connectControl } from "../../src/messaging/control-client.ts";
import { type About, aboutSchema } from "../../src/process/protocol.ts";
import { TestOrchestrator } from "./orchestrator.ts";
import type { TemporaryFolder } from "./temporary-folder.ts";
import { waitFor } from "./wait-for.ts";

/** Asks one thing on a connection of its own. */
export async function askOnce(
  controlSocket: string,
  verb: string,
  fields: Readonly<Record<string, unknown>> = {},
): Promise<unknown> {
  const client = await connectControl(controlSocket);
  try {
    return await client.request(verb, fields);
  } finally {
    client.close();
  }
}

/** Asks for it, and gives what the new program says of itself. */
export const reexecute = async (
  controlSocket: string,
  fields: { readonly program?: string; readonly digest?: string } = {},
): Promise<About> => v.parse(aboutSchema, await askOnce(controlSocket, "reexecute", fields));

/** What runs now. */
export const aboutOf = async (controlSocket: string): Promise<About> =>
  v.parse(aboutSchema, await askOnce(controlSocket, "about"));

/**
 * The same orchestrator after it has become another program, whose events are heard from the first;
 * the one that it was is disposed of as before. Only its client is to be closed.
 */
export async function again(orchestrator: TestOrchestrator): Promise<TestOrchestrator> {
  const { program, controlSocket } = orchestrator;
  const client = await connectControl(controlSocket);
  return new TestOrchestrator(program, client, { controlSocket, disposables: [] });
}

/** A program in the place of hostler that holds the gap open: test/support/programs/gap.c. */
export class Gap {
  readonly program: string;
  readonly #folder: string;
  /** What the orchestrator needs in its environment. */
  readonly environment: Readonly<Record<string, string>>;

  constructor(folder: TemporaryFolder, real: string) {
    this.#folder = folder.file("gap");
    mkdirSync(this.#folder);
    this.program = folder.file("hostler-gap");
    const source = join(import.meta.dirname, "programs/gap.c");
    const words = ["-O1", "-Wall", "-Werror", "-o", this.program, source];
    const compiler = spawnSync("gcc", words, { encoding: "utf8" });
    if (compiler.status !== 0) throw new Error(`Cannot compile ${source}:\n${compiler.stderr}`);
    this.environment = { GAP_FOLDER: this.#folder, GAP_REAL: real };
  }

  /** What a dry run does, or it as the orchestrator. */
  set(what: "try" | "become", word: string): void {
    writeFileSync(join(this.#folder, what), word);
  }

  /** It has become the orchestrator, and nobody supervises. */
  async entered(): Promise<void> {
    await waitFor("the gap", () => existsSync(join(this.#folder, "in")));
  }

  /** Lets it go on. */
  leave(): void {
    writeFileSync(join(this.#folder, "go"), "");
  }
}
