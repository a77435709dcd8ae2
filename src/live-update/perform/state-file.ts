import { readFileSync, renameSync } from "node:fs";
import * as v from "valibot";
import { writeDurably } from "../../journal/append-journal.ts";
import { loadedKernelSchema } from "../protocol.ts";
import { updateTimesSchema } from "../registry.ts";

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
  /** The update that this kernel follows. */
  followed: v.nullable(updateTimesSchema),
  /** Wall clock in milliseconds: when sessions were first offered, and last claimed. */
  offered_at_ms: v.nullable(v.number()),
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
  followed: null,
  offered_at_ms: null,
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
    renameSync(path, `${path}.damaged`);
    onTrouble(`${path} is damaged; it is kept as ${path}.damaged, and left aside`);
    return emptyState(boot);
  }
  return parsed.output.boot === boot ? parsed.output : emptyState(boot);
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

  write(state: SavedState): void {
    const text = JSON.stringify(state);
    if (text === this.#written) return;
    try {
      writeDurably(this.#path, `${text}\n`);
      this.#written = text;
      this.#failed = false;
    } catch (error) {
      if (!this.#failed) {
        const { message } = error as Error;
        this.#onTrouble(`cannot write ${this.#path}: ${message}; tried again at each change`);
      }
      this.#failed = true;
    }
  }
}
