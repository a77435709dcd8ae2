import { isSameFile, linkTarget } from "../../../ffi/descriptor.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { SystemCallError } from "../../../ffi/system-call-error.ts";
import type { EventLoop, Watch } from "../../event-loop/event-loop.ts";
import { limits, refuseName } from "../../holding/protocol.ts";
import { keptNames, type ParkedName, readParked } from "../protocol-kept.ts";
import type { CarriedParked } from "../protocol-state.ts";
import type { Keeper, Keeping } from "./keeping.ts";
import type { Luggage, Unpacking } from "./luggage.ts";

/** The first that a child gets beside standard input, output and error: sd_listen_fds(3). */
const FIRST = 3;

interface Parked extends ParkedName {
  readonly descriptor: OwnedDescriptor;
  readonly watch: Watch | undefined;
}

/** What a start gets of them. */
export interface Passed {
  readonly descriptors: readonly { readonly source: number; readonly target: number }[];
  /** NAME=value; LISTEN_PID is the launcher's to say. */
  readonly variables: readonly string[];
}

/**
 * What a process has parked (FDSTORE=1 of sd_notify(3)): its next instance gets it, the program
 * after this one, and through the holder the orchestrator that follows a killed one.
 */
export class ParkedDescriptors {
  readonly #loop: EventLoop;
  readonly #process: string;
  readonly #keeper: Keeper;
  readonly #onTrouble: (message: string) => void;
  readonly #parked: Parked[] = [];
  #capacity: number;
  #newest = 0;
  /** Said once, until there is room again. */
  #isFull = false;

  constructor(
    loop: EventLoop,
    process: string,
    options: {
      readonly capacity: number;
      readonly keeper: Keeper;
      readonly onTrouble: (message: string) => void;
    },
  ) {
    this.#loop = loop;
    this.#process = process;
    this.#capacity = options.capacity;
    this.#keeper = options.keeper;
    this.#onTrouble = options.onTrouble;
  }

  /** With a smaller one nobody loses what is parked; nothing more is taken until it fits. */
  set capacity(most: number) {
    this.#capacity = most;
  }

  get all(): readonly { readonly name: string; readonly is: string }[] {
    return this.#parked.map(({ name, descriptor }) => ({ name, is: linkTarget(descriptor) }));
  }

  /** Takes descriptors, which are its own from now on: one that is parked already is closed. */
  park(
    descriptors: readonly OwnedDescriptor[],
    { name, isPolled }: Omit<ParkedName, "slot">,
  ): void {
    for (const descriptor of descriptors) {
      const why = this.#whyNot(descriptor, name);
      if (why === undefined) this.#add(descriptor, { slot: this.#newest + 1, isPolled, name });
      else {
        descriptor.close();
        if (why !== "known") this.#onTrouble(`${this.#process}: ${why}`);
      }
    }
  }

  #whyNot(descriptor: OwnedDescriptor, name: string): "known" | (string & {}) | undefined {
    if (this.#parked.some((one) => isSameFile(one.descriptor, descriptor))) return "known";
    const slot = this.#newest + 1;
    const kept = keptNames.parked(this.#process, { slot, isPolled: true, name });
    if (refuseName(kept) !== undefined) {
      const most = limits.nameBytes - (kept.length - name.length);
      return (
        `FDNAME=${name.slice(0, 40)}…: expected at most ${most} letters for a process of this ` +
        `name, received ${name.length}: it is closed`
      );
    }
    if (this.#parked.length < this.#capacity) return undefined;
    if (this.#isFull) return "known";
    this.#isFull = true;
    return (
      `FDSTORE=1: ${this.#capacity} descriptors are parked, and no more are taken. Raise its ` +
      "descriptor_store, or have it remove some (FDSTOREREMOVE=1)"
    );
  }

  #add(descriptor: OwnedDescriptor, named: ParkedName): void {
    const { slot, isPolled } = named;
    const watch = isPolled ? this.#watchFor(descriptor, slot) : undefined;
    this.#newest = Math.max(this.#newest, slot);
    this.#parked.push({ ...named, descriptor, watch });
    this.#keeper.keep(keptNames.parked(this.#process, named), descriptor);
  }

  /** Files cannot be watched, and do not hang up. */
  #watchFor(descriptor: OwnedDescriptor, slot: number): Watch | undefined {
    try {
      return this.#loop.watch(descriptor, "hangup", () => this.#let((one) => one.slot === slot));
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      return undefined;
    }
  }

  remove(name: string): void {
    this.#let((one) => one.name === name);
  }

  /** Nobody asks for them any more. */
  release(): void {
    this.#let(() => true);
  }

  #let(goes: (one: Parked) => boolean): void {
    const [left, gone] = [this.#parked.filter((one) => !goes(one)), this.#parked.filter(goes)];
    this.#parked.splice(0, this.#parked.length, ...left);
    if (gone.length > 0) this.#isFull = false;
    for (const one of gone) {
      this.#keeper.forget(keptNames.parked(this.#process, one));
      one.watch?.[Symbol.dispose]();
      one.descriptor.close();
    }
  }

  /** For a start: none where nothing is parked. */
  pass(): Passed | undefined {
    if (this.#parked.length === 0) return undefined;
    return {
      descriptors: this.#parked.map(({ descriptor }, index) => ({
        source: descriptor.number,
        target: FIRST + index,
      })),
      variables: [
        `LISTEN_FDS=${this.#parked.length}`,
        `LISTEN_FDNAMES=${this.#parked.map(({ name }) => name).join(":")}`,
      ],
    };
  }

  pack(luggage: Luggage): CarriedParked[] {
    return this.#parked.map(({ slot, isPolled, name, descriptor }) => ({
      ...{ slot, isPolled, name },
      descriptor: luggage.pack(descriptor),
    }));
  }

  /** @throws WrongLuggage */
  unpack(carried: readonly CarriedParked[], unpacking: Unpacking): void {
    for (const { descriptor, ...named } of carried) this.#add(unpacking.take(descriptor), named);
  }

  /** Takes what an orchestrator that was killed had parked for the process. */
  fetch(keeping: Keeping): void {
    const found = keeping.found.flatMap((kept) => {
      const named = readParked(this.#process, kept);
      return named === undefined ? [] : [{ kept, named }];
    });
    for (const { kept, named } of found.toSorted((a, b) => a.named.slot - b.named.slot)) {
      const descriptor = keeping.take(kept);
      if (descriptor !== undefined) this.#add(descriptor, named);
    }
  }

  /** Lets go of the descriptors themselves: whoever follows has them. */
  close(): void {
    for (const { watch, descriptor } of this.#parked) {
      watch?.[Symbol.dispose]();
      descriptor.close();
    }
  }
}
