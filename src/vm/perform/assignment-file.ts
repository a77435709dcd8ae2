import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import { writeDurably } from "../../journal/append-journal.ts";
import { refusalCode } from "../../journal/file-refused.ts";
import { type AssignmentState, noAssignment } from "../lifecycle-assignment.ts";
import { assignmentSchema, masterLimits } from "../protocol-master.ts";
import { passStep } from "./kill-points.ts";

/** Bytes: as many machines as one worker may have, each with as many domains as it may have. */
const mostBytes = 64 * 1024 * 1024;

const fileSchema = v.strictObject({
  format: v.literal(1),
  assignment: v.nullable(assignmentSchema.options[1]),
  stale: v.pipe(
    v.array(
      v.strictObject({
        name: v.string(),
        owner_generation: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
      }),
    ),
    v.maxLength(masterLimits.machinesOfWorker),
  ),
});

/** What the master said last, beside the machines: a worker without a master keeps to it. */
export class AssignmentFile {
  readonly path: string;

  constructor(artifactsFolder: string) {
    this.path = join(artifactsFolder, "assignment.json");
  }

  /** @returns a text that says why it is not understood */
  read(): AssignmentState | string {
    try {
      const { size } = statSync(this.path);
      if (size > mostBytes) return `expected at most ${mostBytes} bytes, received ${size}`;
      const parsed = v.safeParse(fileSchema, JSON.parse(readFileSync(this.path, "utf8")));
      if (!parsed.success) return parsed.issues[0].message;
      const { assignment, stale } = parsed.output;
      return {
        assignment: assignment ?? undefined,
        stale: new Map(stale.map((one) => [one.name, one.owner_generation])),
      };
    } catch (error) {
      if (refusalCode(error) === "ENOENT") return noAssignment;
      return error instanceof Error ? error.message : String(error);
    }
  }

  /** @throws Error (ENOSPC …): the former one stands */
  write({ assignment, stale }: AssignmentState): void {
    passStep("assignment:keeping");
    const content = {
      format: 1,
      assignment: assignment ?? null,
      stale: [...stale].map(([name, lost]) => ({ name, owner_generation: lost })),
    };
    writeDurably(this.path, `${JSON.stringify(content)}\n`);
    passStep("assignment:kept");
  }
}
