import { ReadableSignal } from "../../ffi/aio.ts";
import { duplicate, makeEventCounter, signalEventCounter } from "../../ffi/descriptor.ts";
import { EPOLLIN, EpollWaiter, epollAdd } from "../../ffi/epoll.ts";
import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import { READY_LIMIT, STOP_KEY } from "./wait-thread.ts";

/** Who says what is ready on an epoll instance, as key and events in turn, flat. */
export interface ReadySource extends Disposable {
  readonly kind: "kernel" | "thread";
}

export interface ReadyHandlers {
  readonly onReady: (ready: readonly number[]) => void;
  readonly onFailure: (failure: unknown) => void;
}

/**
 * Bun waits for an event counter itself, and the kernel counts it up when the epoll instance is
 * readable: a death wakes the main thread and no other.
 */
function openKernelSource(
  epoll: OwnedDescriptor,
  handlers: ReadyHandlers,
): ReadySource | undefined {
  const counter = makeEventCounter();
  const signal = ReadableSignal.open(epoll, counter);
  if (signal === undefined) {
    counter.close();
    return undefined;
  }
  const waiter = new EpollWaiter(epoll.number, READY_LIMIT);
  // The stream closes the descriptor that it was given; ours stays for the kernel to count up.
  const reader = Bun.file(duplicate(counter.number).release()).stream().getReader();
  let open = true;
  const run = async () => {
    while (open) {
      const { done } = await reader.read();
      if (done || !open) return;
      const ready = waiter.poll();
      if (ready.length > 0) handlers.onReady(ready);
      // What became ready meanwhile completes the next request at once.
      if (open) signal.again();
    }
  };
  run().catch(handlers.onFailure);
  return {
    kind: "kernel",
    [Symbol.dispose]: () => {
      open = false;
      signal[Symbol.dispose]();
      reader.cancel().catch(handlers.onFailure);
      counter.close();
    },
  };
}

/** A thread of our own waits: where the kernel has no asynchronous poll. */
function openThreadSource(
  epoll: OwnedDescriptor,
  handlers: ReadyHandlers,
  startWorker: () => Worker,
): ReadySource {
  const stopper = makeEventCounter();
  epollAdd(epoll, stopper, { events: EPOLLIN, key: STOP_KEY });
  const worker = startWorker();
  worker.onmessage = (message: MessageEvent<number[]>) => handlers.onReady(message.data);
  worker.onerror = (event) => handlers.onFailure(new Error(`Wait thread: ${event.message}`));
  worker.postMessage(epoll.number);
  return {
    kind: "thread",
    [Symbol.dispose]: () => {
      signalEventCounter(stopper);
      worker.unref();
    },
  };
}

/** The quicker source that this kernel offers. */
export function openReadySource(
  epoll: OwnedDescriptor,
  handlers: ReadyHandlers,
  startWorker: () => Worker,
): ReadySource {
  return openKernelSource(epoll, handlers) ?? openThreadSource(epoll, handlers, startWorker);
}
