import {
  EPOLLERR,
  EPOLLHUP,
  EPOLLIN,
  EPOLLONESHOT,
  EPOLLOUT,
  EPOLLPRI,
  epollAdd,
  epollModify,
  epollRemove,
  makeEpoll,
} from "../../ffi/epoll.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import type { Milliseconds, MonotonicTime } from "../units/units.ts";
import { monotonicNow } from "./clock.ts";
import { openReadySource, type ReadySource } from "./ready-source.ts";
import { STOP_KEY } from "./wait-thread.ts";

/** What a descriptor is watched for. Hang-up and error are always told. */
export type Interest = "readable" | "writable" | "both" | "priority" | "hangup";

/** What is ready, told once; the watch is armed again after the handler returns. */
export interface Readiness {
  readonly readable: boolean;
  readonly writable: boolean;
  readonly hungUp: boolean;
  readonly failed: boolean;
}

/** A watched descriptor. Disposing it ends the watch and leaves the descriptor open. */
export interface Watch extends Disposable {
  /** Watches for something else from now on. */
  change(interest: Interest): void;
  /** Pauses the watch: nothing is told until `change`. */
  pause(): void;
}

const interestEvents: Record<Interest, number> = {
  readable: EPOLLIN,
  writable: EPOLLOUT,
  both: EPOLLIN | EPOLLOUT,
  priority: EPOLLPRI,
  hangup: 0,
};

interface Registration {
  readonly descriptor: OwnedDescriptor;
  readonly onReady: (ready: Readiness) => void;
  interest: Interest;
  /** False while its event is on the way or being handled, or while it is paused. */
  armed: boolean;
  paused: boolean;
}

/**
 * Watches foreign descriptors beside Bun's own loop: all of them in one epoll instance, of which a
 * ready source tells what is ready. Every watch is one-shot and armed again after it was handled;
 * the key is a rising number, never the descriptor, so that an event of a closed one is never
 * taken for another's.
 */
export class EventLoop implements Disposable {
  readonly #epoll = makeEpoll();
  readonly #registrations = new Map<number, Registration>();
  readonly #source: ReadySource;
  readonly #afterTurn: (() => void)[] = [];
  #inTurn = false;
  #nextKey = STOP_KEY + 1;
  #onFailure: (failure: unknown) => void = (failure) => {
    throw failure;
  };

  constructor(startWorker: () => Worker) {
    const handlers = {
      onReady: (ready: readonly number[]) => this.#dispatch(ready),
      onFailure: (failure: unknown) => this.#onFailure(failure),
    };
    this.#source = openReadySource(this.#epoll, handlers, startWorker);
  }

  /** Who is told when a handler throws, or the ready source fails: both are bugs. */
  onFailure(handler: (failure: unknown) => void): void {
    this.#onFailure = handler;
  }

  /** @throws SystemCallError when the descriptor cannot be watched (EPERM: a regular file). */
  watch(
    descriptor: OwnedDescriptor,
    interest: Interest,
    onReady: (ready: Readiness) => void,
  ): Watch {
    const key = this.#nextKey++;
    const registration = { descriptor, onReady, interest, armed: true, paused: false };
    const events = interestEvents[interest] | EPOLLONESHOT;
    epollAdd(this.#epoll, descriptor, { events, key });
    this.#registrations.set(key, registration);
    return {
      change: (next) => {
        registration.interest = next;
        registration.paused = false;
        if (this.#registrations.has(key)) this.#arm(key, registration);
      },
      pause: () => {
        registration.paused = true;
      },
      [Symbol.dispose]: () => {
        if (!this.#registrations.delete(key)) return;
        if (descriptor.isOpen) epollRemove(this.#epoll, descriptor);
      },
    };
  }

  /** Calls once at the given time, not before; disposing it takes it back. */
  wakeAt(time: MonotonicTime, onTime: () => void): Disposable {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const arm = () => {
      // A timer of Bun holds at most 2^31 - 1 ms; a later moment is waited for in steps.
      const wait = Math.min(Math.max(0, Math.ceil(time - monotonicNow())), 2_000_000_000);
      timer = setTimeout(() => {
        if (monotonicNow() >= time) this.#guard(onTime);
        else arm();
      }, wait);
    };
    arm();
    return { [Symbol.dispose]: () => clearTimeout(timer) };
  }

  /** Calls once when all that is ready now has been handled; in the order of asking. */
  afterTurn(call: () => void): void {
    this.#afterTurn.push(call);
    if (!this.#inTurn) queueMicrotask(() => this.#finishTurn());
  }

  #finishTurn(): void {
    for (let call = this.#afterTurn.shift(); call !== undefined; call = this.#afterTurn.shift()) {
      this.#guard(call);
    }
  }

  /**
   * Resolves when others have had their turn. At once where nobody has anything to do: a timer's
   * shortest time is a millisecond.
   */
  letOthers(): Promise<void> {
    return new Promise((resolve) => {
      setImmediate(resolve);
    });
  }

  /** Calls once after so many milliseconds. */
  wakeAfter(wait: Milliseconds, onTime: () => void): Disposable {
    return this.wakeAt(monotonicNow() + wait, onTime);
  }

  /** Tells what has gone wrong in something that a handler has begun and does not wait for. */
  fail(failure: unknown): void {
    this.#onFailure(failure);
  }

  #guard(call: () => void): void {
    try {
      call();
    } catch (failure) {
      this.#onFailure(failure);
    }
  }

  #arm(key: number, registration: Registration): void {
    const events = interestEvents[registration.interest] | EPOLLONESHOT;
    epollModify(this.#epoll, registration.descriptor, { events, key });
    registration.armed = true;
  }

  #dispatch(ready: readonly number[]): void {
    this.#inTurn = true;
    for (let index = 0; index < ready.length; index += 2) {
      const key = ready[index] as number;
      const events = ready[index + 1] as number;
      const registration = this.#registrations.get(key);
      if (registration === undefined) continue;
      registration.armed = false;
      this.#guard(() =>
        registration.onReady({
          readable: (events & (EPOLLIN | EPOLLPRI)) !== 0,
          writable: (events & EPOLLOUT) !== 0,
          hungUp: (events & EPOLLHUP) !== 0,
          failed: (events & EPOLLERR) !== 0,
        }),
      );
      const still = this.#registrations.get(key);
      if (still === undefined || still.armed || still.paused) continue;
      this.#arm(key, still);
    }
    this.#inTurn = false;
    this.#finishTurn();
  }

  /** Ends the ready source and all watches. */
  [Symbol.dispose](): void {
    this.#registrations.clear();
    this.#source[Symbol.dispose]();
  }
}
