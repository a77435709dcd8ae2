import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { writeDurably } from "../../journal/append-journal.ts";
import { refusalCode } from "../../journal/file-refused.ts";
import type { Declared } from "../desired-state.ts";
import { givenSchema } from "../machine-record.ts";
import { desiredSchema, limits, machineNameSchema } from "../protocol.ts";

/** Bytes: a thousand machines, each with as many domains as it may have, have less. */
const mostBytes = 64 * 1024 * 1024;

const fileSchema = v.strictObject({
  ...desiredSchema.entries,
  given: v.optional(
    v.pipe(
      v.array(v.strictObject({ name: machineNameSchema, ...givenSchema.entries })),
      v.maxLength(limits.machines),
    ),
  ),
});

/** What was declared last, beside the machines: a worker that is started anew keeps to it. */
export class DesiredFile {
  readonly #path: string;

  constructor(artifactsFolder: string) {
    this.#path = join(artifactsFolder, "desired.json");
  }

  /** @returns what was declared; undefined for nothing; a text that says why it is unreadable */
  read(): Declared | string | undefined {
    try {
      if (statSync(this.#path).size > mostBytes) return `expected at most ${mostBytes} bytes`;
      const parsed = v.safeParse(fileSchema, JSON.parse(readFileSync(this.#path, "utf8")));
      if (!parsed.success) return parsed.issues[0].message;
      return { ...parsed.output, generation: parsed.output.generation ?? 0 };
    } catch (error) {
      if (refusalCode(error) === "ENOENT") return undefined;
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** @throws Error (ENOSPC …): the former one stands */
  write(desired: Declared): void {
    writeDurably(this.#path, `${JSON.stringify(desired, null, 2)}\n`);
  }

  get path(): string {
    return this.#path;
  }
}
