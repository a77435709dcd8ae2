import { randomBytes } from "node:crypto";
import type { Logger } from "../../logging/logger.ts";
import { Collection } from "../../store/collection.ts";
import { newWriteId, type OneWrite, putOnce } from "../../store/put-once.ts";
import { type Entry, type Store, StoreError, type WatchEvent } from "../../store/store.ts";
import type { Milliseconds, MonotonicTime } from "../../units/units.ts";
import type { OperatorWrite } from "../perform/operator-steps.ts";
import { candidateKey, canonicalKey, type DeviceStatus, fleetBuckets } from "../protocol.ts";
import type { Labels } from "../protocol-operator.ts";
import { HappeningBook } from "./event-book.ts";
import { EventJournal } from "./event-journal.ts";
import { OperatorCounts } from "./gauges.ts";
import { newFleet, step } from "./lifecycle.ts";
import { isSettled, meant } from "./lifecycle-slot.ts";
import type {
  DeviceEvent,
  FleetEffect,
  FleetEvent,
  FleetState,
  OperatorContext,
  OperatorSettings,
  Refusal,
  RolloutRecord,
} from "./lifecycle-state.ts";
import {
  decodeHeartbeat,
  decodeIncarnation,
  decodeMarker,
  decodeStatus,
  encodeIncarnation,
  INCARNATION_KEY,
  labelsCollection,
  readHeartbeatKey,
  rolloutCollection,
} from "./records.ts";

/** Before a write that the store had no room for is tried again. */
const STORE_RETRY: Milliseconds = 5_000;
/**
 * For so long after it has opened a store it writes as the version before it did: whoever goes back
 * to that one finds what it can read.
 */
export const FORMAT_AFTER: Milliseconds = 600_000;

export interface OperatorParts {
  readonly store: Store;
  /** Of the store; another one than the last time says that a backup was put back. */
  readonly incarnation: string;
  readonly settings: OperatorSettings;
  readonly logger: Pick<Logger, "info" | "warn" | "debug">;
  now(): MonotonicTime;
  /** Milliseconds since 1970: for maintenance windows, and people. */
  wall(): number;
  wakeAfter(wait: Milliseconds, call: () => void): Disposable;
  /** Kill points of the build for fault tests. */
  onWrite(write: OperatorWrite, when: "before" | "after"): void;
  onFailure(failure: unknown): void;
}

type Rollouts = Collection<
  typeof rolloutCollection.schema,
  NonNullable<typeof rolloutCollection.former>["schema"]
>;
type LabelsOfDevices = Collection<typeof labelsCollection.schema, never>;
type WriteEffect = Extract<FleetEffect, { readonly write: unknown }>;

const wordsOf = {
  "write-marker": { bucket: fleetBuckets.markers, write: "marker" },
  "write-labels": { bucket: fleetBuckets.labels, write: "labels" },
  "write-rollout": { bucket: fleetBuckets.rollouts, write: "rollout" },
} as const;

/** What became of an event: why nothing, or that what it wrote is durable. */
export interface Posted {
  readonly refusal: Refusal | undefined;
  /** Rejects with a StoreError where the store refuses the write for good. */
  readonly written: Promise<void>;
}

/**
 * Follows the store, has everything decided, and writes what was decided: entries side by side,
 * each one after the other. What became of a write whose answer was lost is read back.
 */
export class FleetOperator {
  /** From this process's start. */
  readonly counts = new OperatorCounts();
  readonly book: HappeningBook;
  readonly #parts: OperatorParts;
  readonly #events: EventJournal;
  readonly #rollouts: Rollouts;
  readonly #labels: LabelsOfDevices;
  #state: FleetState;
  #wake: Disposable | undefined;
  #wakeAt: MonotonicTime | undefined;
  /** What devices had said before this process looked was taken. */
  #hasStatuses = false;
  readonly #stopping = new AbortController();
  readonly #tasks = new Set<Promise<void>>();

  private constructor(
    parts: OperatorParts,
    opened: {
      readonly rollouts: Rollouts;
      readonly labels: LabelsOfDevices;
      readonly settlesAt: MonotonicTime | undefined;
      readonly events: Awaited<ReturnType<typeof EventJournal.open>>;
    },
  ) {
    this.#parts = parts;
    const { journal, events: former } = opened.events;
    this.#events = journal;
    this.book = new HappeningBook(randomBytes(4).toString("hex"), { former });
    this.#rollouts = opened.rollouts;
    this.#labels = opened.labels;
    this.#state = newFleet(parts.now(), opened.settlesAt);
  }

  /** @throws RecordRefused, StoreError, ValueUnreadable */
  static async open(parts: OperatorParts): Promise<FleetOperator> {
    const { store, incarnation, settings } = parts;
    const rollouts = await Collection.open(store, rolloutCollection);
    const labels = await Collection.open(store, labelsCollection);
    const known = await store.get(fleetBuckets.operator, INCARNATION_KEY);
    const last = known?.operation === "put" ? decodeIncarnation(known.value) : incarnation;
    const settlesAt = last === incarnation ? undefined : parts.now() + settings.settle;
    const events = await EventJournal.open(parts);
    const operator = new FleetOperator(parts, { rollouts, labels, settlesAt, events });
    await operator.#load();
    await store.put(fleetBuckets.operator, INCARNATION_KEY, encodeIncarnation(incarnation), {
      writeId: newWriteId(),
    });
    operator.#follow();
    operator.post({ kind: "opened" });
    return operator;
  }

  get state(): FleetState {
    return this.#state;
  }

  /** As it is for whoever only looks. */
  get context(): OperatorContext {
    const { now, wall, settings } = this.#parts;
    return {
      now: now(),
      wall: wall(),
      settings,
      get nextTransaction() {
        return randomBytes(16).toString("hex");
      },
    };
  }

  /** Decides, and begins to write. */
  post(event: FleetEvent): Posted {
    const { state, effects, refusal, wakeAt } = step(this.#state, event, this.context);
    this.#state = state;
    // What a first list tells ended before this process was there.
    const isNews = event.kind === "device" && event.event.kind === "status" && !event.event.listed;
    const writes = effects.flatMap((effect) => ("write" in effect ? [this.#write(effect)] : []));
    for (const effect of effects) {
      if (effect.kind === "tell") this.#tell(effect.happening);
      if (isNews && effect.kind === "tell") this.#count(effect.happening);
      if (effect.kind === "delete-device") writes.push(this.#deleteDevice(effect.device));
    }
    for (const write of writes) this.#task(write);
    this.#wakeFor(wakeAt);
    return { refusal, written: writes.length === 0 ? nothing : allOf(writes) };
  }

  /** Nothing is begun any more, and what is being written is written, or not known. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#wake?.[Symbol.dispose]();
    await Promise.all(this.#tasks);
    await this.#events.stop();
  }

  #task(work: Promise<void>): void {
    const task = work
      .catch((failure: unknown) => {
        if (!(failure instanceof StoreError)) this.#parts.onFailure(failure);
      })
      .finally(() => this.#tasks.delete(task));
    this.#tasks.add(task);
  }

  #tell({ what, device, rollout, message }: Extract<FleetEffect, { kind: "tell" }>["happening"]) {
    const happening = { what, device, rollout, message, time: this.#parts.wall() };
    this.#events.add({ id: this.book.add(happening), happening });
    const { logger } = this.#parts;
    if (loud.has(what)) logger.warn(message);
    else if (rollout !== null && device === null) logger.info(message);
    else logger.debug(message);
  }

  #count({ what, device }: Extract<FleetEffect, { kind: "tell" }>["happening"]): void {
    if (device === null || !["done", "failed", "returned"].includes(what)) return;
    this.counts.ended(this.#state.devices.get(device));
  }

  #wakeFor(time: MonotonicTime | undefined): void {
    if (time === this.#wakeAt) return;
    this.#wake?.[Symbol.dispose]();
    this.#wake = undefined;
    this.#wakeAt = time;
    if (time === undefined || this.#stopping.signal.aborted) return;
    this.#wake = this.#parts.wakeAfter(Math.max(0, time - this.#parts.now()), () => {
      this.#wakeAt = undefined;
      this.post({ kind: "time" });
    });
  }

  // What the store has.

  /** @throws RecordRefused, StoreError */
  async #load(): Promise<void> {
    const { store } = this.#parts;
    for await (const event of store.watch(fleetBuckets.markers, "")) {
      if (event.kind === "synced") break;
      if (event.kind !== "entry" || event.entry.operation === "delete") continue;
      const { key, value, revision } = event.entry;
      this.#postDevice(key, { kind: "found", value: decodeMarker(key, value), revision });
    }
    for await (const event of this.#labels.watch("")) {
      if (event.kind === "synced") break;
      if (event.kind === "unreadable") throw event.problem;
      if (event.kind !== "entry" || event.entry.value === undefined) continue;
      const { key: device, value, revision } = event.entry;
      this.post({ kind: "labels-found", device, value, revision });
    }
    for await (const event of this.#rollouts.watch("")) {
      if (event.kind === "synced") break;
      if (event.kind === "unreadable") throw event.problem;
      if (event.kind !== "entry" || event.entry.value === undefined) continue;
      const { key: rollout, value, revision } = event.entry;
      this.post({ kind: "rollout-found", rollout, value, revision });
    }
  }

  /** What devices tell, for as long as it runs. */
  #follow(): void {
    const { store } = this.#parts;
    const { signal } = this.#stopping;
    const watch = async (bucket: string, take: (entry: Entry, listed: boolean) => void) => {
      let listed = true;
      for await (const event of store.watch(bucket, "", { signal })) {
        listed = isListed(event, listed);
        if (event.kind === "entry" && event.entry.operation === "put") take(event.entry, listed);
        if (event.kind === "synced" && bucket === fleetBuckets.statuses) this.#hasStatuses = true;
      }
    };
    this.#task(watch(fleetBuckets.statuses, (entry, listed) => this.#takeStatus(entry, listed)));
    this.#task(watch(fleetBuckets.heartbeats, (entry, listed) => this.#hear(entry, listed)));
  }

  #takeStatus({ key, value, revision }: Entry, listed: boolean): void {
    const read = decodeStatus(value);
    if (read.kind === "ok") {
      this.#postDevice(key, { kind: "status", status: read.value, revision, listed });
      this.#lookForMarker(key, read.value);
    } else this.#postDevice(key, { kind: "unreadable", reason: read.reason });
  }

  /**
   * Who follows a marker that is not known here was told by an operator before this one, whose last
   * write came late: what the store has is taken up.
   */
  #lookForMarker(device: string, { transaction }: DeviceStatus): void {
    const slot = this.#state.devices.get(device)?.marker;
    if (slot === undefined || !isSettled(slot)) return;
    if (transaction === null || transaction === meant(slot)?.transaction) return;
    this.#task(this.#readMarker(device, slot.revision));
  }

  /** @param beyond a revision up to which nothing is news: a replica may be behind */
  async #readMarker(device: string, beyond = -1): Promise<void> {
    const entry = await this.#parts.store.get(fleetBuckets.markers, device);
    const isThere = entry?.operation === "put";
    const revision = isThere ? entry.revision : 0;
    if (revision <= beyond) return;
    const value = isThere ? decodeMarker(device, entry.value) : undefined;
    this.#postDevice(device, { kind: "found", value, revision });
  }

  #hear({ key, value, revision }: Entry, listed: boolean): void {
    const place = readHeartbeatKey(key);
    if (place === undefined) return;
    const { device, who: kind } = place;
    const read = decodeHeartbeat(value);
    if (read.kind === "ok") {
      this.#postDevice(device, { kind, heartbeat: read.value, revision, listed });
    } else this.#postDevice(device, { kind: "unreadable", reason: read.reason });
  }

  #postDevice(device: string, event: DeviceEvent): void {
    const isListedBeat = event.kind !== "status" && "listed" in event && event.listed;
    const isOfBefore = event.kind !== "written" && (!this.#hasStatuses || isListedBeat);
    const { refusal } = this.post({ kind: "device", device, event, isOfBefore });
    if (refusal !== undefined) this.#parts.logger.warn(refusal.message);
  }

  // What is written.

  /** Returns when it is known what came of it; a refusal for good leaves it to be tried again. */
  async #write(effect: WriteEffect): Promise<void> {
    const { onWrite, logger, wakeAfter } = this.#parts;
    const { bucket, write } = wordsOf[effect.kind];
    const key = effect.kind === "write-rollout" ? effect.rollout : effect.device;
    try {
      if (effect.kind === "write-rollout") await this.#commitFormat();
      onWrite(write, "before");
      const revision = await this.#timed(write, () =>
        this.#putOnce({ bucket, key, ...this.#encoded(effect) }),
      );
      onWrite(write, "after");
      this.#landed(effect, revision);
    } catch (error) {
      if (!(error instanceof StoreError) || this.#stopping.signal.aborted) throw error;
      if (error.problem.kind === "conflict") {
        await this.#readBack(effect, { bucket, key });
        return;
      }
      this.counts.refusals += 1;
      logger.warn(`${bucket}/${key} is not written: ${error.message}; it is tried again`);
      wakeAfter(STORE_RETRY, () => {
        if (!this.#stopping.signal.aborted) this.#task(this.#write(effect));
      });
      throw error;
    }
  }

  /** Records of the version before go on being read; from now on none is written. */
  async #commitFormat(): Promise<void> {
    if (this.#rollouts.committed === rolloutCollection.version) return;
    if (this.#parts.now() - this.#state.started < FORMAT_AFTER) return;
    await this.#rollouts.commit();
  }

  #encoded(effect: WriteEffect): Pick<OneWrite, "value" | "operation" | "expect"> {
    const { expect } = effect.write;
    const value = this.#encode(effect);
    if (value === undefined) return { value: "", operation: "delete", expect };
    return { value, expect };
  }

  #encode(effect: WriteEffect): string | undefined {
    switch (effect.kind) {
      case "write-marker":
        return effect.write.value === undefined ? undefined : JSON.stringify(effect.write.value);
      case "write-labels":
        return effect.write.value && this.#labels.encode(effect.write.value);
      case "write-rollout":
        return effect.write.value && this.#rollouts.encode(effect.write.value);
    }
  }

  async #timed<T>(write: OperatorWrite, act: () => Promise<T>): Promise<T> {
    const { counts } = this;
    const since = this.#parts.now();
    counts.waiting += 1;
    try {
      const answer = await act();
      counts.wrote(write, (this.#parts.now() - since) / 1_000);
      return answer;
    } finally {
      counts.waiting -= 1;
    }
  }

  async #putOnce(write: OneWrite): Promise<number> {
    const { signal } = this.#stopping;
    return await putOnce(this.#parts.store, write, { signal, wait: (time) => this.#pause(time) });
  }

  async #pause(time: Milliseconds): Promise<void> {
    const { signal } = this.#stopping;
    const { promise, resolve } = Promise.withResolvers<void>();
    const onAbort = () => resolve();
    signal.addEventListener("abort", onAbort, { once: true });
    using _wake = this.#parts.wakeAfter(time, resolve);
    await promise;
    signal.removeEventListener("abort", onAbort);
  }

  #landed(effect: WriteEffect, written: number): void {
    // Of a deletion nothing is there, and that is what the next write expects.
    const revision = effect.write.value === undefined ? 0 : written;
    if (effect.kind === "write-marker") {
      this.#postDevice(effect.device, { kind: "written", revision });
    } else if (effect.kind === "write-labels") {
      this.post({ kind: "labels-written", device: effect.device, revision });
    } else this.post({ kind: "rollout-written", rollout: effect.rollout, revision });
  }

  /** Another operator was there, or the store has lost what was: what is there is taken up. */
  async #readBack(
    effect: WriteEffect,
    { bucket, key }: { readonly bucket: string; readonly key: string },
  ): Promise<void> {
    if (effect.kind === "write-marker") {
      await this.#readMarker(key);
      return;
    }
    const entry = await this.#parts.store.get(bucket, key);
    const revision = entry?.operation === "put" ? entry.revision : 0;
    if (effect.kind === "write-labels") {
      const value: Labels | undefined = (await this.#labels.get(key))?.value;
      this.post({ kind: "labels-found", device: key, value, revision });
    } else {
      const value: RolloutRecord | undefined = (await this.#rollouts.get(key))?.value;
      this.post({ kind: "rollout-found", rollout: key, value, revision });
    }
  }

  async #deleteDevice(device: string): Promise<void> {
    const places = [
      [fleetBuckets.markers, device],
      [fleetBuckets.statuses, device],
      [fleetBuckets.labels, device],
      [fleetBuckets.heartbeats, canonicalKey(device)],
      [fleetBuckets.heartbeats, candidateKey(device)],
    ] as const;
    for (const [bucket, key] of places) {
      await this.#putOnce({ bucket, key, value: "", operation: "delete" });
    }
  }
}

const nothing = Promise.resolve();

/** Whoever does not wait for it is told by the log. */
function allOf(writes: readonly Promise<void>[]): Promise<void> {
  const written = Promise.all(writes).then(() => {});
  written.catch(() => {});
  return written;
}

const loud: ReadonlySet<string> = new Set([
  "failed",
  "device-unreadable",
  "rollout-paused",
  "store-lost",
]);

function isListed(event: WatchEvent, listed: boolean): boolean {
  if (event.kind === "reset") return true;
  return event.kind === "synced" ? false : listed;
}
