import type { Revision } from "../../store/store.ts";

/**
 * An entry of the store that this operator alone writes, as a pure value: one write at a time, each
 * by the revision that was there. What is meant counts from the moment it is decided; what must
 * follow from it waits until it has landed.
 */
export interface Slot<T> {
  /** As the store has it; undefined where nothing is. */
  readonly stored: T | undefined;
  /** What the next write expects; 0 where nothing is. */
  readonly revision: Revision;
  /** On its way; its value is undefined for a deletion. */
  readonly pending: { readonly value: T | undefined } | undefined;
  /** Goes on its way when what is pending has landed. */
  readonly next: { readonly value: T | undefined } | undefined;
}

/** A write that has to be done, and answered by what came of it. */
export interface SlotWrite<T> {
  readonly value: T | undefined;
  readonly expect: Revision;
}

export interface Written<T> {
  readonly slot: Slot<T>;
  readonly write: SlotWrite<T> | undefined;
}

/** What the store was found to have, by a first list or after a conflict. */
export interface Found<T> {
  readonly value: T | undefined;
  readonly revision: Revision;
}

export const emptySlot = { stored: undefined, revision: 0, pending: undefined, next: undefined };

/** What counts: the newest that was decided. */
export function meant<T>({ stored, pending, next }: Slot<T>): T | undefined {
  if (next !== undefined) return next.value;
  return pending === undefined ? stored : pending.value;
}

/** Whether a value is in the store, and is not about to be another. */
export const isSettled = (slot: Slot<unknown>): boolean => slot.pending === undefined;

export function put<T>(slot: Slot<T>, value: T | undefined): Written<T> {
  if (slot.pending !== undefined) return { slot: { ...slot, next: { value } }, write: undefined };
  return {
    slot: { ...slot, pending: { value } },
    write: { value, expect: slot.revision },
  };
}

/** @param revision of the entry that was written; 0 after a deletion */
export function landed<T>(slot: Slot<T>, revision: Revision): Written<T> {
  const { pending, next } = slot;
  if (pending === undefined) return { slot, write: undefined };
  const stored: Slot<T> = { stored: pending.value, revision, pending: undefined, next: undefined };
  return next === undefined ? { slot: stored, write: undefined } : put(stored, next.value);
}

/**
 * The store has something else than it should. An older entry, or none, is one that it has lost:
 * whoever alone writes it writes it again. A newer one is another operator's, and counts.
 */
export function found<T>(slot: Slot<T>, entry: Found<T>): Written<T> {
  const isSame = entry.revision === slot.revision;
  if (isSame && slot.pending === undefined) return { slot, write: undefined };
  // It was refused for what is there by now: the same again, with the same expectation.
  const isLost = entry.revision < slot.revision;
  if (!isLost && !isSame) {
    return {
      slot: { ...emptySlot, stored: entry.value, revision: entry.revision },
      write: undefined,
    };
  }
  return put({ ...emptySlot, stored: entry.value, revision: entry.revision }, meant(slot));
}
