/** The program that writes audit logs in tests, run by the compiled file as its own Bun. */
import { writeFileSync } from "node:fs";
import type { AuditOptions } from "../../src/audit/log.ts";
import { testSigner } from "./audit.ts";
import { hostlerWithFaults, repositoryRoot } from "./binary.ts";
import { type Program, type ProgramResult, runProgram, startProgram } from "./program.ts";
import type { TemporaryFolder } from "./temporary-folder.ts";

export interface WriterOptions extends Omit<AuditOptions, "directory" | "signer" | "now"> {
  readonly directory?: string;
  /** "audit-written#2": where it is killed. */
  readonly killAt?: string;
  readonly environment?: Readonly<Record<string, string>>;
}

export class AuditWriter {
  readonly directory: string;
  /** The file for --key. */
  readonly publicKey: string;
  readonly #privateKey: string;
  readonly #story: string;

  private constructor(folder: TemporaryFolder, story: string) {
    this.directory = folder.file("audit");
    this.publicKey = folder.file("audit.pub");
    this.#privateKey = folder.file("audit.key");
    this.#story = story;
    const { privateKey, pem } = testSigner();
    writeFileSync(this.publicKey, pem);
    const text = privateKey.export({ format: "pem", type: "pkcs8" }).toString();
    writeFileSync(this.#privateKey, text, { mode: 0o600 });
  }

  /** Bundles it, with its kill points, into a folder. */
  static async make(folder: TemporaryFolder): Promise<AuditWriter> {
    const story = folder.file("audit-writer.js");
    const entry = "test/support/programs/audit-writer.ts";
    const words = ["build", "--target=bun", "--define=HOSTLER_FAULTS=true", `--outfile=${story}`];
    const options = { workingDirectory: repositoryRoot };
    const { exitCode, stderr } = await runProgram([process.execPath, ...words, entry], options);
    if (exitCode !== 0) throw new Error(`Cannot bundle ${entry}:\n${stderr}`);
    return new AuditWriter(folder, story);
  }

  #start(steps: readonly string[], options: WriterOptions) {
    const { killAt, environment, directory = this.directory, ...rest } = options;
    return {
      argv: [hostlerWithFaults(), "run", this.#story, ...steps],
      environment: {
        BUN_BE_BUN: "1",
        AUDIT_OPTIONS: JSON.stringify({ directory, ...rest }),
        AUDIT_KEY: this.#privateKey,
        ...(killAt !== undefined && { HOSTLER_KILL_AT: killAt }),
        ...environment,
      },
    };
  }

  async run(steps: readonly string[], options: WriterOptions = {}): Promise<ProgramResult> {
    const { argv, environment } = this.#start(steps, options);
    return await runProgram(argv, { environment });
  }

  start(steps: readonly string[], options: WriterOptions = {}): Program {
    const { argv, environment } = this.#start(steps, options);
    return startProgram(argv, { environment });
  }
}

/** The heads of the records that it said were written: "12:3f…". */
export function writtenHeads({ stdout }: { readonly stdout: string }): string[] {
  return [...stdout.matchAll(/^written (\S+)$/gm)].map(([, head = ""]) => head);
}
