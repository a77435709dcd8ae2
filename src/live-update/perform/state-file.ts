import { readFileSync, renameSync } from "node:fs";
import * as v from "valibot";
import { writeDurably } from "../../journal/append-journal.ts";
import { withFile } from "../../journal/file-refused.ts";
import { loadedKernelSchema } from "../protocol.ts";
import { type Registry, registrySchema, updateTimesSchema } from "../registry.ts";

/**
 * What a daemon that is killed leaves to the next one of the same boot. Which sessions there are is
 * the holder's to say; here stands what they are for.
 */
const stateSchema = v.object({
  version: v.literal(1),
  /** The kernel's random id of this boot: a file of another boot says nothing. */
  boot: v.string(),
  loaded: v.nullable(loadedKernelSchema),
  /** The update under way. */
  update: v.nullable(v.string()),
  /** Its sessions are complete, and the new kernel is being entered. */
  entering: v.boolean(),
  last: v.nullable(
    v.object({
      id: v.string(),
      outcome: v.picklist(["aborted", "dry-run", "refused-by-kernel"]),
      reason: v.string(),
    }),
  ),
  /** Restored sessions of which nothing is to be done any more, or which are being finished. */
  settled: v.array(v.string()),
  finishing: v.array(v.string()),
  /** Sessions of updates that are over, of which a client may still have a duplicate. */
  given: v.optional(v.array(v.string()), []),
  /** The update that this kernel follows. */
  followed: v.nullable(updateTimesSchema),
  /** Wall clock in milliseconds: when sessions were first offered, and last claimed. */
  offered_at_ms: v.nullable(v.number()),
  /** The first of these by CLOCK_MONOTONIC, in milliseconds: to decide by. */
  offered_monotonic_ms: v.optional(v.nullable(v.number()), null),
  claimed_at_ms: v.nullable(v.number()),
});
export type SavedState = v.InferOutput<typeof stateSchema>;

export const emptyState = (boot: string): SavedState => ({
  version: 1,
  boot,
  loaded: null,
  update: null,
  entering: false,
  last: null,
  settled: [],
  finishing: [],
  given: [],
  followed: null,
  offered_at_ms: null,
  offered_monotonic_ms: null,
  claimed_at_ms: null,
});

/** This boot, as the kernel names it. */
export function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
}

/** The state of a daemon before this one; empty for another boot, or when there is none. */
export function readState(path: string, onTrouble: (message: string) => void): SavedState {
  const boot = bootId();
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as { code?: string }).code !== "ENOENT") {
      onTrouble(`cannot read ${path}: ${(error as Error).message}; going on without it`);
    }
    return emptyState(boot);
  }
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), stateSchema), text);
  if (!parsed.success) {
    setAside(path, onTrouble);
    return emptyState(boot);
  }
  return parsed.output.boot === boot ? parsed.output : emptyState(boot);
}

function setAside(path: string, onTrouble: (message: string) => void): void {
  try {
    renameSync(path, `${path}.damaged`);
    onTrouble(`${path} is damaged; it is kept as ${path}.damaged, and left aside`);
  } catch (error) {
    onTrouble(`${path} is damaged, and cannot be kept: ${(error as Error).message}`);
  }
}

/** A registry of this boot, for when the session that it came in is lost. */
const registryFileSchema = v.object({ boot: v.string(), registry: registrySchema });

/** The registry that a daemon of this boot has read; undefined when there is none. */
export function readSavedRegistry(path: string): Registry | undefined {
  try {
    const pipe = v.pipe(v.string(), v.parseJson(), registryFileSchema);
    const parsed = v.safeParse(pipe, readFileSync(path, "utf8"));
    return parsed.success && parsed.output.boot === bootId() ? parsed.output.registry : undefined;
  } catch {
    // There is none: the session is what counts.
    return undefined;
  }
}

/** The text of the file that `readSavedRegistry` reads. */
export function savedRegistry(registry: Registry): string {
  return `${JSON.stringify({ boot: bootId(), registry })}\n`;
}

/** Writes the state file when something in it has changed. */
export class StateFile {
  readonly #path: string;
  readonly #onTrouble: (message: string) => void;
  #written = "";
  #failed = false;

  constructor(path: string, onTrouble: (message: string) => void) {
    this.#path = path;
    this.#onTrouble = onTrouble;
  }

  /** @returns why it could not be written, and the mend; tried again at each change */
  write(state: SavedState): string | undefined {
    const text = JSON.stringify(state);
    if (text === this.#written) return undefined;
    const problem = this.writeBeside(this.#path, `${text}\n`);
    if (problem === undefined) this.#written = text;
    return problem;
  }

  /** Another file of the same kind. What hinders is logged once. @returns as `write` */
  writeBeside(path: string, text: string): string | undefined {
    try {
      const otherwise = "start luod with another --state-directory";
      withFile({ what: "write", path, otherwise }, () => writeDurably(path, text));
      this.#failed = false;
      return undefined;
    } catch (error) {
      const { message } = error as Error;
      if (!this.#failed) this.#onTrouble(`${message} It is tried again at each change.`);
      this.#failed = true;
      return message;
    }
  }
}
