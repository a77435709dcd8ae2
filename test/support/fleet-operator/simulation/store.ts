/** A store whose answers are lost, doubled and late, and which goes back to what it was. */
import { fleetBuckets } from "../../../../src/fleet/protocol.ts";
import type { SeededChance } from "../../chance.ts";

export interface SimulatedEntry {
  readonly value: unknown;
  readonly revision: number;
  readonly writeId: string;
}

export type PutAnswer =
  | { readonly kind: "landed"; readonly revision: number }
  | { readonly kind: "conflict"; readonly entry: SimulatedEntry | undefined }
  /** It may have landed or not. */
  | { readonly kind: "lost" };

export interface StoreWorld {
  readonly chance: SeededChance;
  readonly isKind: boolean;
  after(delay: number, act: () => void): void;
  trace(line: string): void;
}

export type Watcher = (bucket: string, key: string, entry: SimulatedEntry | undefined) => void;

type Buckets = Map<string, Map<string, SimulatedEntry>>;

/** Revisions of a store that was put back begin so far above all others. */
const REWIND_JUMP = 1_000_000;
/** What a restarted server forgets, as it was told of it in the last so many writes. */
const RECENT = 40;

export class SimulatedStore {
  incarnation = 1;
  readonly counts = { writes: 0, lost: 0, doubled: 0, rewinds: 0, forgotten: 0 };
  readonly #world: StoreWorld;
  #buckets: Buckets = new Map();
  #backup: Buckets | undefined;
  #revision = 0;
  readonly #watchers = new Set<Watcher>();
  /** When what a watcher was told last of a key arrives: nothing overtakes it. */
  readonly #arrivals = new Map<string, number>();
  /** The last writes, with what was there before. */
  #recent: { bucket: string; key: string; before: SimulatedEntry | undefined }[] = [];
  #now = () => 0;
  onReset: () => void = () => {};

  constructor(world: StoreWorld, now: () => number) {
    this.#world = world;
    this.#now = now;
  }

  watch(watcher: Watcher): void {
    this.#watchers.add(watcher);
  }

  get(bucket: string, key: string): SimulatedEntry | undefined {
    return this.#buckets.get(bucket)?.get(key);
  }

  list(bucket: string): [string, SimulatedEntry][] {
    return [...(this.#buckets.get(bucket) ?? [])];
  }

  /** As a server does it; `expect` undefined takes whatever is there. */
  put(
    bucket: string,
    key: string,
    write: { readonly value: unknown; readonly writeId: string; readonly expect?: number },
  ): PutAnswer {
    const present = this.get(bucket, key);
    if (present?.writeId === write.writeId) return { kind: "landed", revision: present.revision };
    if (write.expect !== undefined && write.expect !== (present?.revision ?? 0)) {
      return { kind: "conflict", entry: present };
    }
    this.#revision += 1;
    this.counts.writes += 1;
    const { value, writeId } = write;
    const entry = { value, writeId, revision: this.#revision };
    this.#bucket(bucket).set(key, entry);
    if (bucket !== fleetBuckets.heartbeats) {
      this.#recent = [...this.#recent.slice(1 - RECENT), { bucket, key, before: present }];
    }
    this.#tell(bucket, key, entry);
    return { kind: "landed", revision: entry.revision };
  }

  /** The same over a network. */
  ask(
    bucket: string,
    key: string,
    write: { readonly value: unknown; readonly writeId: string; readonly expect?: number },
    answered: (answer: PutAnswer) => void,
  ): void {
    const { chance, isKind } = this.#world;
    const fate = isKind ? "both" : chance.pick(["both", "both", "both", "both", "there", "none"]);
    this.#world.after(5 + chance.below(60), () => {
      const answer = fate === "none" ? undefined : this.put(bucket, key, write);
      if (fate !== "both") this.counts.lost += 1;
      const told: PutAnswer = fate === "both" && answer !== undefined ? answer : { kind: "lost" };
      this.#world.after(5 + chance.below(fate === "both" ? 60 : 5_000), () => answered(told));
    });
  }

  #bucket(name: string): Map<string, SimulatedEntry> {
    const bucket = this.#buckets.get(name) ?? new Map<string, SimulatedEntry>();
    this.#buckets.set(name, bucket);
    return bucket;
  }

  #tell(bucket: string, key: string, entry: SimulatedEntry | undefined): void {
    const { chance, isKind } = this.#world;
    const isLate = !isKind && chance.happens(0.02);
    const delay = isLate ? chance.below(20_000) : chance.below(100);
    const place = `${bucket}/${key}`;
    const at = Math.max(this.#now() + delay, this.#arrivals.get(place) ?? 0);
    this.#arrivals.set(place, at);
    const times = !isKind && chance.happens(0.05) ? 2 : 1;
    if (times === 2) this.counts.doubled += 1;
    for (let time = 0; time < times; time += 1) {
      this.#world.after(at - this.#now(), () => {
        for (const watcher of this.#watchers) watcher(bucket, key, entry);
      });
    }
  }

  backUp(): void {
    this.#backup = copyOf(this.#buckets);
  }

  /** An older backup is put back, and everybody is told that all of it comes anew. */
  rewind(): boolean {
    if (this.#backup === undefined) return false;
    this.#world.trace("the store: an older backup is put back");
    this.counts.rewinds += 1;
    this.#buckets = copyOf(this.#backup);
    this.#buckets.delete(fleetBuckets.heartbeats);
    this.#revision += REWIND_JUMP;
    this.#recent = [];
    this.incarnation += 1;
    this.onReset();
    return true;
  }

  /** A server that was killed has lost what it had acknowledged last. */
  forget(): void {
    if (this.#recent.length === 0) return;
    const count = 1 + this.#world.chance.below(Math.min(5, this.#recent.length));
    this.#world.trace(`the store: ${count} acknowledged writes are lost`);
    for (const { bucket, key, before } of this.#recent.splice(-count).reverse()) {
      this.counts.forgotten += 1;
      if (before === undefined) this.#bucket(bucket).delete(key);
      else this.#bucket(bucket).set(key, before);
    }
    this.onReset();
  }
}

function copyOf(buckets: Buckets): Buckets {
  return new Map([...buckets].map(([name, entries]) => [name, new Map(entries)]));
}
