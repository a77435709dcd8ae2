import { randomBytes } from "node:crypto";
import * as v from "valibot";
import { ExitCode } from "../../units/exit-code.ts";
import type { Milliseconds } from "../../units/units.ts";
import { type OneWrite, type Patience, putOnce } from "../put-once.ts";
import { type Entry, type Revision, type Store, StoreError } from "../store.ts";
import {
  holderOf,
  isActing,
  type SeenTerm,
  stepTerm,
  type TermEffect,
  type TermEntry,
  type TermEvent,
  type TermState,
  type TermWitness,
  termLimits,
} from "./lifecycle-term.ts";

/** The entry that says who acts. */
export interface TermPlace {
  readonly bucket: string;
  readonly key: string;
}

/** The entry is none that this version understands. */
export class TermRefused extends Error {
  override readonly name = "TermRefused";
  readonly exitCode = ExitCode.refused;
}

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const entrySchema: v.GenericSchema<unknown, TermEntry> = v.strictObject({
  version: v.literal(1),
  holder: v.string(),
  run: v.string(),
  term: count,
  incarnation: v.string(),
  jump: count,
  isReleased: v.boolean(),
});

export interface TermParts {
  readonly store: Store;
  readonly place: TermPlace;
  /** Of this host, for people. */
  readonly holder: string;
  readonly witness: TermWitness | undefined;
  /** Milliseconds of a clock that goes on while the host is suspended. */
  now(): number;
  wakeAfter(wait: Milliseconds, call: () => void): Disposable;
  patience(duration: Milliseconds): Patience & Disposable;
  /** Remembers on this host what was seen of the store, over its end. */
  noteWitness(witness: TermWitness): Promise<void>;
  /** This one acts from now on. */
  onBegin(held: SeenTerm): void;
  /** It acts no more, for good. */
  onEnd(reason: string): void;
  onFailure(failure: unknown): void;
}

/** Follows who acts, takes over, renews, releases: what `stepTerm` decides, done. */
export class TermKeeper {
  readonly #parts: TermParts;
  readonly #run = randomBytes(16).toString("hex");
  readonly #closed = new AbortController();
  #state: TermState = { phase: "looking" };
  #witness: TermWitness | undefined;
  #timer: Disposable | undefined;
  #writing: Promise<void> | undefined;
  /** Effects, one after the other. */
  #tail: Promise<void> = Promise.resolve();

  constructor(parts: TermParts) {
    this.#parts = parts;
    this.#witness = parts.witness;
  }

  get isActing(): boolean {
    return isActing(this.#state, this.#parts.now());
  }

  /** Who acts, while it is another one and known. */
  get holder(): string | undefined {
    return holderOf(this.#state);
  }

  start(): void {
    this.#follow().catch((error: unknown) => {
      if (error instanceof TermRefused) this.#parts.onEnd(error.message);
      else if (!this.#closed.signal.aborted) this.#parts.onFailure(error);
    });
  }

  /** Tells the others that they need not wait, where that can be told. */
  async release(): Promise<void> {
    this.#take({ kind: "release" });
    await this.#writing;
    this.close();
  }

  close(): void {
    this.#closed.abort();
    this.#timer?.[Symbol.dispose]();
  }

  async #follow(): Promise<void> {
    const { signal } = this.#closed;
    const { store, place } = this.#parts;
    let seen: SeenTerm | undefined;
    let isSynced = false;
    for await (const event of store.watch(place.bucket, place.key, { signal })) {
      if (event.kind === "reset") {
        seen = undefined;
        isSynced = false;
        this.#take({ kind: "reset" });
        continue;
      }
      if (event.kind === "synced") isSynced = true;
      else seen = seenIn(event.entry);
      if (isSynced) this.#take({ kind: "seen", seen });
    }
  }

  #take(event: TermEvent): void {
    const { now, holder } = this.#parts;
    const step = stepTerm(this.#state, event, {
      ...{ now: now(), holder, run: this.#run, witness: this.#witness },
      chance: randomBytes(16).toString("hex"),
    });
    this.#state = step.state;
    for (const effect of step.effects) this.#perform(effect);
    this.#timer?.[Symbol.dispose]();
    this.#timer = undefined;
    if (step.wakeAt === undefined || this.#closed.signal.aborted) return;
    const wait = Math.max(0, step.wakeAt - now());
    this.#timer = this.#parts.wakeAfter(wait, () => this.#take({ kind: "time" }));
  }

  #perform(effect: TermEffect): void {
    switch (effect.kind) {
      case "write":
        this.#writing = this.#write(effect.entry, effect.expect);
        return;
      case "witness":
        this.#witness = effect.witness;
        this.#after(() => this.#parts.noteWitness(effect.witness));
        return;
      case "begin":
        this.#after(() => this.#parts.onBegin(effect.held));
        return;
      case "end":
        this.#parts.onEnd(effect.reason);
    }
  }

  #after(act: () => void | Promise<void>): void {
    this.#tail = this.#tail.then(act).catch((error: unknown) => this.#parts.onFailure(error));
  }

  async #write(entry: TermEntry, expect: Revision): Promise<void> {
    const { store, place } = this.#parts;
    const value = JSON.stringify(entry);
    const write: OneWrite = { ...place, value, expect };
    try {
      using patience = this.#parts.patience(termLimits.term);
      const revision = await putOnce(store, write, patience);
      this.#take({ kind: "written", revision });
    } catch (error) {
      if (!(error instanceof StoreError)) {
        this.#parts.onFailure(error);
        return;
      }
      const isConflict = error.problem.kind === "conflict";
      this.#take({ kind: "refused", isConflict, reason: error.message });
    }
  }
}

/** @throws TermRefused for one of another version */
function seenIn({ bucket, key, operation, value, revision }: Entry): SeenTerm | undefined {
  if (operation === "delete") return undefined;
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), entrySchema), value);
  if (parsed.success) return { revision, entry: parsed.output };
  throw new TermRefused(
    `${bucket}/${key} is a record of another version, or damaged: ${parsed.issues[0].message}. ` +
      "It is left as it is: start the hostler that wrote it",
  );
}
