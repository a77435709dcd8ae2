import type { EventLoop } from "../event-loop/event-loop.ts";
import { newWriteId, type Patience, putOnce } from "../store/put-once.ts";
import { type Store, StoreError, type WatchEvent } from "../store/store.ts";
import type { Milliseconds } from "../units/units.ts";
import {
  candidateKey,
  canonicalKey,
  type DeviceStatus,
  FLEET_PROTOCOL_VERSION,
  fleetBuckets,
  HEARTBEAT_EVERY,
  type Heartbeat,
  type Marker,
} from "./protocol.ts";
import { readHeartbeat, readMarker } from "./protocol-read.ts";

/** Between two attempts to follow a key that the store did not let us follow. */
const FOLLOW_AGAIN: Milliseconds = 30_000;

export interface DeviceLinkParts {
  readonly store: Store;
  readonly loop: Pick<EventLoop, "wakeAfter">;
  /** The name of the device, which is its key. */
  readonly device: string;
  /** As it is when it is sent. */
  heartbeat(): Omit<Heartbeat, "protocol" | "sequence">;
  /** A heartbeat of this process is in the store. */
  onHeard(): void;
  /** Survived. */
  onTrouble(message: string, cause: unknown): void;
}

export interface CanonicalParts extends DeviceLinkParts {
  onMarker(marker: Marker): void;
  /** A heartbeat of that instance is in the store, and has come since this process listens. */
  onCandidateHeard(instance: string): void;
}

/**
 * One agent's heartbeats, and nothing else: all that a candidate says. One that the store has not
 * answered when the next is due is left to itself, and no other is sent until it was.
 */
export class HeartbeatLink implements Disposable {
  readonly #parts: DeviceLinkParts;
  readonly #key: string;
  #every: Milliseconds;
  #sequence = 0;
  #isSending = false;
  #isStopped = false;
  #wake: Disposable | undefined;

  constructor(
    parts: DeviceLinkParts,
    who: "canonical" | "candidate",
    every: Milliseconds = HEARTBEAT_EVERY,
  ) {
    this.#parts = parts;
    this.#every = every;
    this.#key = who === "canonical" ? canonicalKey(parts.device) : candidateKey(parts.device);
    this.#beat();
  }

  /** From now on so often: where that is another interval, the first one is now. */
  beatEvery(every: Milliseconds): void {
    if (every === this.#every || this.#isStopped) return;
    this.#every = every;
    this.#wake?.[Symbol.dispose]();
    this.#beat();
  }

  [Symbol.dispose](): void {
    this.#isStopped = true;
    this.#wake?.[Symbol.dispose]();
  }

  #beat(): void {
    this.#wake = this.#parts.loop.wakeAfter(this.#every, () => this.#beat());
    if (!this.#isSending) void this.#send();
  }

  async #send(): Promise<void> {
    const { store, onTrouble } = this.#parts;
    this.#isSending = true;
    this.#sequence += 1;
    const heartbeat: Heartbeat = {
      ...this.#parts.heartbeat(),
      protocol: FLEET_PROTOCOL_VERSION,
      sequence: this.#sequence,
    };
    try {
      const options = { writeId: newWriteId() };
      await store.put(fleetBuckets.heartbeats, this.#key, JSON.stringify(heartbeat), options);
      if (!this.#isStopped) this.#parts.onHeard();
    } catch (error) {
      // That it was not heard says enough where the store is away; another refusal is told.
      if (!isAway(error)) onTrouble("a heartbeat was refused, ignoring", error);
    } finally {
      this.#isSending = false;
    }
  }
}

/** The canonical agent's: its heartbeats, its status, its marker, its candidate's heartbeats. */
export class DeviceLink implements Disposable {
  readonly #parts: CanonicalParts;
  readonly #heartbeats: HeartbeatLink;
  readonly #stopping = new AbortController();
  /** The newest that is not in the store. */
  #status: DeviceStatus | undefined;
  #told: DeviceStatus | undefined;
  #isWriting = false;

  constructor(parts: CanonicalParts) {
    this.#parts = parts;
    this.#heartbeats = new HeartbeatLink(parts, "canonical");
    const { device } = parts;
    void this.#follow(fleetBuckets.markers, device, (event) => this.#onMarker(event));
    const heartbeats = this.#candidateListener();
    void this.#follow(fleetBuckets.heartbeats, candidateKey(device), heartbeats);
  }

  /** One after the other, and of those that wait the newest alone. */
  tellStatus(status: DeviceStatus): void {
    this.#status = status;
    if (!this.#isWriting) void this.#writeStatus();
  }

  /** See HeartbeatLink. */
  beatEvery(every: Milliseconds): void {
    this.#heartbeats.beatEvery(every);
  }

  [Symbol.dispose](): void {
    this.#stopping.abort(new Error("the agent ends"));
    this.#heartbeats[Symbol.dispose]();
  }

  async #writeStatus(): Promise<void> {
    const { signal } = this.#stopping;
    this.#isWriting = true;
    for (let status = this.#status; status !== undefined; status = this.#status) {
      this.#status = undefined;
      await this.#writeOne(status);
      if (signal.aborted) break;
    }
    this.#isWriting = false;
  }

  async #writeOne(status: DeviceStatus): Promise<void> {
    const { store, device, onTrouble } = this.#parts;
    const value = JSON.stringify(status);
    try {
      await putOnce(store, { bucket: fleetBuckets.statuses, key: device, value }, this.#patience);
      this.#told = status;
    } catch (error) {
      if (this.#stopping.signal.aborted) return;
      onTrouble("the status was refused, and is told with the next one, ignoring", error);
    }
  }

  /** For as long as this process lives: the store comes back, or somebody else is canonical. */
  get #patience(): Patience {
    const { signal } = this.#stopping;
    return { signal, wait: (duration, until) => this.#wait(duration, until) };
  }

  async #wait(duration: Milliseconds, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const onAbort = () => resolve();
    signal.addEventListener("abort", onAbort);
    using _wake = this.#parts.loop.wakeAfter(duration, resolve);
    await promise;
    signal.removeEventListener("abort", onAbort);
  }

  async #follow(bucket: string, key: string, onEvent: (event: WatchEvent) => void): Promise<void> {
    const { store, onTrouble } = this.#parts;
    const { signal } = this.#stopping;
    while (!signal.aborted) {
      try {
        for await (const event of store.watch(bucket, key, { signal })) onEvent(event);
      } catch (error) {
        if (!signal.aborted) onTrouble(`${bucket}/${key} cannot be followed, ignoring`, error);
      }
      if (!signal.aborted) await this.#wait(FOLLOW_AGAIN, signal);
    }
  }

  #onMarker(event: WatchEvent): void {
    // A store that forgot, or went back, is told again: what the device says is right.
    if (event.kind === "reset" && this.#told !== undefined) this.tellStatus(this.#told);
    if (event.kind !== "entry" || event.entry.operation !== "put") return;
    const read = readMarker(event.entry.value);
    if (read.kind === "ok") this.#parts.onMarker(read.value);
    else this.#parts.onTrouble(read.reason, undefined);
  }

  /** What was there before this process listened says nothing of now. */
  #candidateListener(): (event: WatchEvent) => void {
    let isListening = false;
    return (event) => {
      if (event.kind !== "entry") {
        isListening = event.kind === "synced";
        return;
      }
      if (!isListening || event.entry.operation !== "put") return;
      const read = readHeartbeat(event.entry.value);
      if (read.kind === "ok") this.#parts.onCandidateHeard(read.value.instance);
      else this.#parts.onTrouble(read.reason, undefined);
    };
  }
}

function isAway(error: unknown): boolean {
  if (!(error instanceof StoreError)) return false;
  return error.problem.kind === "unavailable" || error.problem.kind === "ambiguous";
}
