import { join } from "node:path";
import { killPoint } from "../../../ffi/fault-hooks.ts";
import { writeDurably } from "../../journal/append-journal.ts";
import { withFile } from "../../journal/file-refused.ts";
import { describeError } from "../../logging/format.ts";
import type { Milliseconds } from "../../units/units.ts";
import { type CandidateStart, type Executor, ExecutorRefused, unknownEnding } from "../executor.ts";
import { folderOf, layoutLimits, layoutNames } from "../layout.ts";
import { encodeJournal } from "../lifecycle-journal.ts";
import type { AgentEffect, AgentEvent, EffectKind } from "../lifecycle-state.ts";
import { type Build, type EndingCause, fleetLimits, type Marker } from "../protocol.ts";
import { checkVersion, Installation, VersionRefused } from "./installation.ts";
import { programOf } from "./layout-files.ts";
import { ProofRefused, proveProgram } from "./prove.ts";

type Effect<K extends EffectKind> = Extract<AgentEffect, { readonly kind: K }>;
/** About a candidate, or the canonical agent. */
type Order = Effect<"start-candidate" | "find-candidate" | "stop-candidate" | "restart-canonical">;
type Progress = Extract<AgentEvent, { readonly kind: "progress" }>["progress"];

/** What is signed and fetched, which another room knows. Each rejects with what is in the way. */
export interface ArtifactSeam {
  check(
    effect: Effect<"check">,
    signal: AbortSignal,
  ): Promise<{ readonly floor: string | null; readonly metadataVersion: number }>;
  /** The version is in its folder, verified, when this resolves. */
  fetch(
    marker: Marker,
    onProgress: (progress: Progress) => void,
    signal: AbortSignal,
  ): Promise<void>;
  /** Once more, by its own manifest, a version whose file is damaged. */
  fetchAgain(build: Build, marker: Marker, signal: AbortSignal): Promise<void>;
}

export interface PerformerParts {
  /** Of the installation. */
  readonly folder: string;
  readonly executor: Executor;
  readonly artifacts: ArtifactSeam;
  /** What a candidate is started with, beside its program. */
  readonly candidate: (
    marker: Marker,
    instance: string,
  ) => Pick<CandidateStart, "words" | "environment" | "readyWithin">;
  /** Has every role go on from this version, and tells of them again and again. */
  readonly handOver: (build: Build) => void;
  /** Versions to keep beside those that are needed. */
  readonly keep?: number;
  readonly onEvent: (event: AgentEvent) => void;
  /** What failed, and ends nothing. */
  readonly onTrouble: (message: string) => void;
}

/**
 * Does on this host what an upgrade orders. Notes and links are done at once, in the order in which
 * they were ordered; what takes time is done one after the other where it is about candidates, and
 * beside that where it is about files. What comes of it becomes events.
 */
export class HostPerformer {
  readonly #parts: PerformerParts;
  /** Ends a check, a download or a proof. */
  #work = new AbortController();
  /** What is to be told when the effects of this turn are done. */
  readonly #known: AgentEvent[] = [];
  /** Instances that were told to stop: one for each upgrade of this process. */
  readonly #stopped = new Set<string>();
  /** Orders about candidates and the canonical agent. */
  #orders: Promise<void> = Promise.resolve();

  constructor(parts: PerformerParts) {
    this.#parts = parts;
  }

  /**
   * Those after a note that fails are left out. What is known at once is told when all are done,
   * and that a note failed before that.
   */
  perform(effects: readonly AgentEffect[]): void {
    for (const effect of effects) {
      killPoint(`fleet:${effect.kind}:before`);
      const isDone = this.#perform(effect);
      killPoint(`fleet:${effect.kind}:after`);
      if (!isDone) break;
    }
    for (let event = this.#known.shift(); event !== undefined; event = this.#known.shift()) {
      this.#parts.onEvent(event);
    }
  }

  /** Resolves when all orders about candidates that were given are carried out. */
  get settled(): Promise<void> {
    return this.#orders;
  }

  /** @returns false when what follows is left out */
  #perform(effect: AgentEffect): boolean {
    switch (effect.kind) {
      case "note":
        return this.#note(effect);
      case "abandon":
        this.#work.abort();
        this.#work = new AbortController();
        break;
      case "check":
      case "fetch":
      case "prove":
      case "find-way-back":
        this.#begin(effect);
        break;
      case "hash":
        this.#hash(effect);
        break;
      case "swap":
      case "swap-back":
        this.#swap(effect);
        break;
      case "start-candidate":
      case "find-candidate":
      case "stop-candidate":
      case "restart-canonical":
        this.#order(effect);
        break;
      case "hand-over":
        this.#parts.handOver(effect.build);
        break;
      case "collect":
        this.#collect(effect);
        break;
    }
    return true;
  }

  #note({ journal }: Effect<"note">): boolean {
    const { folder, onEvent } = this.#parts;
    const path = join(folder, layoutNames.journal);
    try {
      withFile({ what: "write the journal", path, otherwise: "give another --folder" }, () =>
        writeDurably(path, encodeJournal(journal)),
      );
    } catch (error) {
      onEvent({ kind: "note-failed", reason: textOf(error) });
      return false;
    }
    const { life } = journal;
    if (life.phase === "done") this.#change((to) => to.prove(folderOf(life.build)));
    return true;
  }

  /** Beside all others, and told only as long as nobody has abandoned it. */
  #begin(effect: Effect<"check" | "fetch" | "prove" | "find-way-back">): void {
    const { signal } = this.#work;
    void this.#answer(effect, signal).then(
      (event) => {
        if (!signal.aborted) this.#parts.onEvent(event);
      },
      (error: unknown) => {
        if (signal.aborted) return;
        this.#parts.onEvent(failure(effect.ticket, error, causeOf(error, "artifact")));
      },
    );
  }

  async #answer(
    effect: Effect<"check" | "fetch" | "prove" | "find-way-back">,
    signal: AbortSignal,
  ): Promise<AgentEvent> {
    const { artifacts, executor, folder, onEvent } = this.#parts;
    const { ticket } = effect;
    switch (effect.kind) {
      case "check":
        return { kind: "accepted", ticket, ...(await artifacts.check(effect, signal)) };
      case "fetch":
        await artifacts.fetch(
          effect.marker,
          (progress) => {
            if (!signal.aborted) onEvent({ kind: "progress", ticket, progress });
          },
          signal,
        );
        return { kind: "fetched", ticket };
      case "prove": {
        const name = folderOf(effect.marker.build);
        requireWhole(folder, name);
        await proveProgram(folder, name, executor.runConfined.bind(executor));
        return { kind: "proved", ticket };
      }
      case "find-way-back": {
        const { build, marker } = effect;
        const isWhole = checkVersion(folder, folderOf(build)).kind === "whole";
        if (!isWhole) await artifacts.fetchAgain(build, marker, signal);
        requireWhole(folder, folderOf(build));
        return { kind: "way-back", ticket };
      }
    }
  }

  #hash({ ticket, build, wayBack }: Effect<"hash">): void {
    const { folder } = this.#parts;
    try {
      for (const one of [build, wayBack]) requireWhole(folder, folderOf(one));
      this.#known.push({ kind: "intact", ticket });
    } catch (error) {
      this.#known.push(failure(ticket, error, causeOf(error, "host")));
    }
  }

  #swap(effect: Effect<"swap" | "swap-back">): void {
    const { folder } = this.#parts;
    const { ticket } = effect;
    try {
      using installation = Installation.open(folder, { make: false });
      const current = folderOf(effect.current);
      if (effect.kind === "swap") {
        installation.swap({ current, previous: folderOf(effect.previous) });
      } else {
        const previous = effect.previous === null ? null : folderOf(effect.previous);
        installation.swapBack({ current, previous });
      }
      this.#known.push({ kind: "swapped", ticket });
    } catch (error) {
      this.#known.push(failure(ticket, error, causeOf(error, "host")));
    }
  }

  /** One after the other: one candidate is gone before the next one is started. */
  #order(effect: Order): void {
    this.#orders = this.#orders.then(() => this.#carryOut(effect));
  }

  async #carryOut(effect: Order): Promise<void> {
    const { executor, onEvent, onTrouble } = this.#parts;
    try {
      switch (effect.kind) {
        case "start-candidate":
          return await this.#startCandidate(effect);
        case "find-candidate":
          return this.#awaitEnd(effect.instance);
        case "stop-candidate": {
          const { instance } = effect;
          this.#stopped.add(instance);
          const lastWords = await executor.stopCandidate(instance);
          return onEvent({ kind: "candidate-ended", instance, lastWords: known(lastWords) });
        }
        case "restart-canonical":
          return await executor.restartCanonical();
      }
    } catch (error) {
      if (effect.kind === "restart-canonical") onEvent(failure(effect.ticket, error, "host"));
      // It is asked for again when it does not answer in time.
      else onTrouble(textOf(error));
    }
  }

  async #startCandidate({ marker, instance, endsAfter }: Effect<"start-candidate">): Promise<void> {
    const { folder, executor, candidate, onEvent } = this.#parts;
    const name = folderOf(marker.build);
    const ended = (ending: string) => {
      const lastWords = { ...unknownEnding, ending: ending.slice(0, fleetLimits.textLength) };
      onEvent({ kind: "candidate-ended", instance, lastWords });
    };
    try {
      using installation = Installation.open(folder, { make: false });
      installation.setCandidate(name);
    } catch (error) {
      return ended(textOf(error));
    }
    const program = programOf(folder, name);
    try {
      const start = { ...candidate(marker, instance), instance, program, endsAfter };
      const outcome = await executor.startCandidate(start);
      if (outcome.kind === "ended") {
        const { lastWords } = outcome;
        return onEvent({ kind: "candidate-ended", instance, lastWords });
      }
      onEvent({ kind: "candidate-ready", instance });
      this.#awaitEnd(instance);
    } catch (error) {
      if (!(error instanceof ExecutorRefused)) throw error;
      ended(error.message);
    }
  }

  #awaitEnd(instance: string): void {
    const { executor, onEvent, onTrouble } = this.#parts;
    executor.candidateEnd(instance).then(
      (lastWords) => {
        // Whoever has ordered its end is told by that.
        if (this.#stopped.has(instance)) return;
        onEvent({ kind: "candidate-ended", instance, lastWords: known(lastWords) });
      },
      (error: unknown) => onTrouble(textOf(error)),
    );
  }

  /** Only room is lost where it fails. */
  #collect({ keep }: Effect<"collect">): void {
    const spare = new Set(keep.map(folderOf));
    this.#change((to) => to.collect({ keep: this.#parts.keep ?? layoutLimits.keep, spare }));
  }

  #change(change: (installation: Installation) => void): void {
    const { folder, onTrouble } = this.#parts;
    try {
      using installation = Installation.open(folder, { make: false });
      change(installation);
    } catch (error) {
      onTrouble(textOf(error));
    }
  }
}

function failure(ticket: number, error: unknown, cause: EndingCause): AgentEvent {
  return { kind: "failed", ticket, reason: textOf(error), cause, lastWords: null };
}

/** How long a candidate may take until it says that it is ready, when nobody says otherwise. */
export const READY_WITHIN: Milliseconds = 60_000;

/** @throws VersionRefused */
function requireWhole(folder: string, name: string): void {
  const found = checkVersion(folder, name);
  if (found.kind === "whole") return;
  throw new VersionRefused(
    `Cannot use ${name}: expected ${found.expected}, received ${found.received}. Fetch it again.`,
  );
}

/** What is fetched is to blame, or this host is. */
function causeOf(error: unknown, otherwise: EndingCause): EndingCause {
  return error instanceof VersionRefused || error instanceof ProofRefused ? "artifact" : otherwise;
}

/** null where nothing is known of it. */
const known = (words: typeof unknownEnding) =>
  words.ending === unknownEnding.ending ? null : words;

const textOf = (error: unknown) => describeError(error).slice(0, fleetLimits.textLength);
