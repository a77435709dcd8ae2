import { readFileSync } from "node:fs";
import { killPoint } from "../../../ffi/fault-hooks.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { HolderClient, holderCommand, isHolderLeft } from "../../holding/holder-client.ts";
import { refusalCode } from "../../journal/file-refused.ts";
import { SocketPathError } from "../../messaging/listener.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";
import { keptNames, newestJournal } from "../protocol-kept.ts";
import { KeptJournal } from "./kept-journal.ts";

/** Where a fault test can kill the orchestrator while it goes on with what another one left. */
export const adoptionSteps = [
  "adoption:fetched",
  "adoption:decided",
  "adoption:watched",
  "adoption:told",
] as const;
export type AdoptionStep = (typeof adoptionSteps)[number];
export const adoptionKillPoint = (step: AdoptionStep): void => killPoint(step);

/** What is to be kept is said this long after it came to be: a start's first work comes before. */
const KEEP_AFTER: Milliseconds = 2;
/** Requests to the holder that are not answered yet; others wait, each name once. */
const OPEN_REQUESTS = 32;
/** So long a holder that is there may take to hand over what it keeps. */
const FETCH_LIMIT: Milliseconds = 5_000;
/** So long it may take to let go of everything at the end. */
const RELEASE_LIMIT: Milliseconds = 1_000;

/** Who has descriptors kept by name, for the orchestrator after this one. */
export interface Keeper {
  /** From now on; it stays the caller's. */
  keep(name: string, descriptor: OwnedDescriptor): void;
  forget(name: string): void;
}

/** Keeps nothing. */
export const keepsNothing: Keeper = { keep: () => {}, forget: () => {} };

interface Options {
  readonly controlSocket: string;
  readonly onTrouble: (message: string) => void;
}

/** How an orchestrator's holder stands, for people. */
export interface HolderStanding {
  /** 0 while there is none. */
  readonly processId: number;
  /** Descriptors that it keeps; undefined until it has said so. */
  readonly kept: number | undefined;
}

/**
 * The orchestrator's side of its holder. What is to be kept is told a little later, all at once,
 * and nobody waits for it: a restart is made first. In front of it stands the journal, so that what
 * is forgotten was written down before.
 */
export class Keeping implements Keeper, Disposable {
  readonly #loop: EventLoop;
  readonly #options: Options;
  readonly #wanted = new Map<string, OwnedDescriptor>();
  /** What the holder has, or is about to have; undefined for what is none of ours. */
  readonly #kept = new Map<string, OwnedDescriptor | undefined>();
  /** Names of which the two above may differ. */
  readonly #dirty = new Set<string>();
  /** What the one before had kept, until somebody takes it. */
  readonly #found = new Map<string, OwnedDescriptor>();
  /** The last line of each process. */
  readonly #lines = new Map<string, string>();
  /** Lines of all that has changed since it was asked the last time. */
  #changes: () => Iterable<readonly [name: string, line: string]> = () => [];
  /** The newest last; those before it until the holder has that. */
  #journals: KeptJournal[] = [];
  #generation = 0;
  /** The holder has a journal of this orchestrator. */
  #hasJournal = false;
  #client: HolderClient | undefined;
  #isReady = false;
  /** Nothing is told until it is known what of the one before is gone on with. */
  #isPaused = true;
  /** What the holder has of the names that are wanted is the same: this was another program. */
  #goesOn = false;
  /** Said once, until it goes again. */
  #isFailing = false;
  #open = 0;
  #flush: Disposable | undefined;
  #onReleased: (() => void) | undefined;

  constructor(loop: EventLoop, options: Options) {
    this.#loop = loop;
    this.#options = options;
  }

  /**
   * Fetches what a holder keeps that an orchestrator before this one had. At once where no holder
   * is left.
   */
  async fetch(): Promise<void> {
    if (!isHolderLeft(this.#options.controlSocket)) return;
    const fetched = Promise.withResolvers<boolean>();
    using _limit = this.#loop.wakeAfter(FETCH_LIMIT, () => fetched.resolve(false));
    if (!this.#reach(() => fetched.resolve(true))) return;
    if (!(await fetched.promise)) {
      this.#giveUp(`within ${formatDuration(FETCH_LIMIT)}, and is killed`);
      this.#client?.kill();
      return;
    }
    try {
      for (const name of this.#kept.keys()) {
        const descriptor = this.#client?.duplicate(name);
        if (descriptor !== undefined) this.#found.set(name, descriptor);
      }
    } catch (error) {
      if (refusalCode(error) === undefined) throw error;
      this.#giveUp(`to where there is room: ${(error as Error).message}`);
      for (const descriptor of this.#found.values()) descriptor.close();
      this.#found.clear();
    }
  }

  /** Without what was kept nobody can go on with what was left. */
  #giveUp(how: string): void {
    this.#options.onTrouble(
      `the holder has not handed over what it keeps ${how}. What was left running is ended, ` +
        "and started anew",
    );
  }

  /** Nobody has been killed: the program before this one goes on in this one. */
  goOn(): void {
    this.#goesOn = true;
  }

  /** Begins to keep, with what was taken; the rest of what was found is let go. */
  begin(): void {
    for (const descriptor of this.#found.values()) descriptor.close();
    this.#found.clear();
    for (const name of this.#kept.keys()) this.#dirty.add(name);
    this.#isPaused = false;
    if (this.#reach(() => {})) this.flushLater();
  }

  /** Reaches for the holder, or starts one. False where there can be none, which is said. */
  #reach(onReady: () => void): boolean {
    if (this.#client !== undefined) return true;
    const { controlSocket, onTrouble } = this.#options;
    try {
      this.#client = new HolderClient(this.#loop, {
        controlSocket,
        command: holderCommand(),
        goesOnByExec: true,
        onTrouble,
        onReady: () => {
          // Another holder is filled with what the first one had.
          if (this.#isReady) return;
          this.#becomeReady();
          onReady();
        },
      });
      return true;
    } catch (error) {
      const isRefused = error instanceof SocketPathError || refusalCode(error) !== undefined;
      if (!isRefused) throw error;
      onTrouble(`there is no holder, so that a crash ends what runs: ${(error as Error).message}`);
      return false;
    }
  }

  #becomeReady(): void {
    const names = this.#client?.names ?? [];
    this.#isReady = true;
    this.#generation = newestJournal(names);
    for (const name of names) {
      const isSame = this.#goesOn && newestJournal([name]) === 0;
      this.#kept.set(name, isSame ? this.#wanted.get(name) : undefined);
      this.#dirty.add(name);
    }
    this.flushLater();
  }

  /** What was found under a name, which is the taker's from now on. */
  take(name: string): OwnedDescriptor | undefined {
    const descriptor = this.#found.get(name);
    if (!this.#found.delete(name)) return undefined;
    this.#kept.set(name, descriptor);
    return descriptor;
  }

  has(name: string): boolean {
    return this.#found.has(name);
  }

  /** The names of what was found, and nobody has taken. */
  get found(): readonly string[] {
    return [...this.#found.keys()];
  }

  /** The text of the newest journal that was found. */
  readJournal(): string | undefined {
    const file = this.#found.get(keptNames.journal(this.#generation));
    return file === undefined ? undefined : readFileSync(`/proc/self/fd/${file.number}`, "utf8");
  }

  get standing(): HolderStanding {
    const kept = this.#isReady ? this.#client?.names.length : undefined;
    return { processId: this.#client?.processId ?? 0, kept };
  }

  keep(name: string, descriptor: OwnedDescriptor): void {
    this.#wanted.set(name, descriptor);
    this.#dirty.add(name);
    this.flushLater();
  }

  forget(name: string): void {
    if (!this.#wanted.delete(name)) return;
    this.#dirty.add(name);
    this.flushLater();
  }

  /** A process is no more: the next journal has nothing of it. */
  forgetLine(name: string): void {
    this.#lines.delete(name);
  }

  /** From now on the journal is written, by these lines. */
  journal(changes: () => Iterable<readonly [name: string, line: string]>): void {
    this.#changes = changes;
    this.flushLater();
  }

  /** Something has changed: told in a moment, with all that changes until then. */
  flushLater(): void {
    if (this.#isPaused || !this.#isReady) return;
    this.#flush ??= this.#loop.wakeAfter(KEEP_AFTER, () => {
      this.#flush = undefined;
      this.#flushNow();
    });
  }

  /** Another program is about to go on: what is forgotten from now on, that one forgets. */
  pause(): void {
    this.#flushNow();
    this.#isPaused = true;
  }

  resume(): void {
    this.#isPaused = false;
    this.flushLater();
  }

  #flushNow(): void {
    if (this.#isPaused || !this.#isReady) return;
    this.#writeJournal();
    this.#tell();
  }

  #writeJournal(): void {
    try {
      const changed = [...this.#changes()];
      for (const [name, line] of changed) this.#lines.set(name, line);
      const newest = this.#journals.at(-1);
      if (this.#lines.size === 0) return;
      if (newest === undefined || newest.isFull) this.#beginJournal();
      else if (changed.length > 0) {
        const lines = changed.map(([, line]) => line).join("");
        for (const journal of this.#journals) journal.write(lines);
      }
      this.#isFailing = false;
    } catch (error) {
      if (refusalCode(error) === undefined) throw error;
      if (!this.#isFailing) {
        const { message } = error as Error;
        this.#options.onTrouble(`the journal that the holder keeps is not written: ${message}`);
      }
      this.#isFailing = true;
    }
  }

  #beginJournal(): void {
    this.#generation += 1;
    const journal = new KeptJournal(this.#generation);
    journal.write([...this.#lines.values()].join(""));
    this.#journals.push(journal);
    this.keep(keptNames.journal(this.#generation), journal.file);
  }

  /** The holder has it: those before it are of no use any more. */
  #onKept(name: string): void {
    const generation = newestJournal([name]);
    if (generation === 0) return;
    this.#hasJournal = true;
    for (const journal of this.#journals) {
      if (journal.generation >= generation) continue;
      this.forget(keptNames.journal(journal.generation));
      journal[Symbol.dispose]();
    }
    this.#journals = this.#journals.filter((journal) => journal.generation >= generation);
  }

  /** Journals of the one before are let go when the holder has one of ours. */
  #isNeeded(name: string): boolean {
    return newestJournal([name]) > 0 && this.#onReleased === undefined && !this.#hasJournal;
  }

  #tell(): void {
    const client = this.#client;
    if (client === undefined) return;
    for (const name of this.#dirty) {
      if (this.#open >= OPEN_REQUESTS) return;
      if (!this.#wanted.has(name) && this.#isNeeded(name)) continue;
      this.#dirty.delete(name);
      this.#settle(client, name);
    }
    if (this.#open === 0 && this.#kept.size === 0) this.#onReleased?.();
  }

  #settle(client: HolderClient, name: string): void {
    const descriptor = this.#wanted.get(name);
    // One that was closed meanwhile is about to be forgotten.
    const wanted = descriptor?.isOpen === true ? descriptor : undefined;
    if (this.#kept.has(name)) {
      if (wanted !== undefined && this.#kept.get(name) === wanted) return;
      this.#kept.delete(name);
      this.#open += 1;
      client.drop(name, () => this.#onAnswer());
    }
    if (wanted === undefined) return;
    this.#kept.set(name, wanted);
    this.#open += 1;
    client.put(name, wanted, (refusal) => {
      if (refusal === undefined) this.#onKept(name);
      else {
        this.#kept.delete(name);
        this.#options.onTrouble(`the holder does not keep ${name}: ${refusal.message}`);
      }
      this.#onAnswer();
    });
  }

  #onAnswer(): void {
    this.#open -= 1;
    if (!this.#isPaused) this.#tell();
  }

  /** All is stopped: the holder lets go of everything, and ends when this ends. */
  async release(): Promise<void> {
    if (this.#client === undefined) return;
    const released = Promise.withResolvers<void>();
    this.#onReleased = released.resolve;
    this.#changes = () => [];
    this.#lines.clear();
    this.#wanted.clear();
    for (const name of this.#kept.keys()) this.#dirty.add(name);
    this.#isPaused = false;
    using _limit = this.#loop.wakeAfter(RELEASE_LIMIT, released.resolve);
    // One that was just started is told when it is there.
    this.#flushNow();
    await released.promise;
  }

  [Symbol.dispose](): void {
    this.#flush?.[Symbol.dispose]();
    this.#client?.[Symbol.dispose]();
    for (const descriptor of this.#found.values()) descriptor.close();
    for (const journal of this.#journals) journal[Symbol.dispose]();
  }
}

/** An orchestrator that shall have no holder: what one before it had kept is let go. */
export async function releaseLeftHolder(loop: EventLoop, options: Options): Promise<void> {
  if (!isHolderLeft(options.controlSocket)) return;
  using keeping = new Keeping(loop, options);
  keeping.begin();
  await keeping.release();
}
