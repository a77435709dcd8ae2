import { EpollWaiter } from "../../ffi/epoll.ts";

/** The key under which the main thread wakes the wait thread in order to end it. */
export const STOP_KEY = 0;
/** Ready descriptors taken in one turn. */
export const READY_LIMIT = 256;

/**
 * The body of the wait thread: blocks in epoll_wait and posts what is ready, as key and events in
 * turn. It knows nothing else. The first message it gets is the epoll descriptor's number.
 */
export function runWaitThread(): void {
  const port = globalThis as unknown as {
    onmessage: ((message: MessageEvent<number>) => void) | null;
    postMessage(ready: number[]): void;
    close(): void;
  };
  port.onmessage = (message) => {
    port.onmessage = null;
    const waiter = new EpollWaiter(message.data, READY_LIMIT);
    for (;;) {
      const ready = waiter.wait();
      if (ready.length === 0) continue;
      port.postMessage(ready);
      for (let index = 0; index < ready.length; index += 2) {
        if (ready[index] === STOP_KEY) {
          port.close();
          return;
        }
      }
    }
  };
}
