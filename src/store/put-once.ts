import type { EventLoop } from "../event-loop/event-loop.ts";
import type { Milliseconds } from "../units/units.ts";
import { type PutOptions, type Revision, type Store, StoreError } from "./store.ts";

/** A write that is to be there once, whatever becomes of its tries. */
export interface OneWrite {
  readonly bucket: string;
  readonly key: string;
  readonly value: string;
  /** A deletion when "delete". */
  readonly operation?: "put" | "delete";
  readonly expect?: Revision;
  /** The write id of an earlier try of the same write; else a new one. */
  readonly writeId?: string;
}

export interface Patience {
  /** Ends the waiting: what is known then is told as `ambiguous` or `unavailable`. */
  readonly signal: AbortSignal;
  /** Waits between two tries, at most until the signal. */
  readonly wait: (duration: Milliseconds, signal: AbortSignal) => Promise<void>;
}

export const putOnceLimits = {
  /** The wait after the first try that failed; each next one is twice as long. */
  shortestWait: 50,
  longestWait: 2_000,
} as const;

/** A write id that no other write has: 128 bits of chance. */
export function newWriteId(): string {
  return Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString("hex");
}

/**
 * Writes until it has landed. After an ambiguous try it reads back: the write id that is there
 * says whether it was its own. Else the same write id is tried again, which lands at most once
 * as long as the key has one writer, or `expect` is given.
 * @throws StoreError conflict, denied, refused, full, damaged; ambiguous or unavailable when
 *   `patience` ended before anything was known
 */
export async function putOnce(
  store: Store,
  write: OneWrite,
  patience: Patience,
): Promise<Revision> {
  const writeId = write.writeId ?? newWriteId();
  const options = { writeId, ...(write.expect !== undefined && { expect: write.expect }) };
  let doubt: StoreError | undefined;
  let wait: Milliseconds = putOnceLimits.shortestWait;
  for (;;) {
    try {
      return await tryOnce(store, write, { options, isInDoubt: doubt !== undefined });
    } catch (error) {
      if (!mayPass(error)) throw error;
      if (error.problem.kind === "ambiguous" || doubt === undefined) doubt = error;
    }
    if (!patience.signal.aborted) await patience.wait(wait, patience.signal);
    if (patience.signal.aborted) throw doubt;
    wait = Math.min(2 * wait, putOnceLimits.longestWait);
  }
}

async function tryOnce(
  store: Store,
  write: OneWrite,
  state: { readonly options: PutOptions; readonly isInDoubt: boolean },
): Promise<Revision> {
  const { bucket, key, value, operation } = write;
  const { options } = state;
  if (state.isInDoubt) {
    const there = await store.get(bucket, key);
    if (there?.writeId === options.writeId) return there.revision;
  }
  if (operation === "delete") return await store.delete(bucket, key, options);
  return await store.put(bucket, key, value, options);
}

/** Whether trying again can help. */
function mayPass(error: unknown): error is StoreError {
  if (!(error instanceof StoreError)) return false;
  return error.problem.kind === "ambiguous" || error.problem.kind === "unavailable";
}

/** Patience for so long, on the monotonic clock; disposing it lets go of its timer. */
export function patienceFor(loop: EventLoop, duration: Milliseconds): Patience & Disposable {
  const end = new AbortController();
  const timer = loop.wakeAfter(duration, () => end.abort());
  const wait = async (pause: Milliseconds, signal: AbortSignal) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const onAbort = () => resolve();
    signal.addEventListener("abort", onAbort);
    using _pause = loop.wakeAfter(pause, resolve);
    await promise;
    signal.removeEventListener("abort", onAbort);
  };
  return { signal: end.signal, wait, [Symbol.dispose]: () => timer[Symbol.dispose]() };
}
