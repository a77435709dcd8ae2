import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { makeSocketPair } from "../../../ffi/unix-socket.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { StreamConnection } from "../../messaging/stream-connection.ts";

/** What the queue of a stream counts beside the bytes. */
const QUEUE_ROOM = 64 * 1024;

/**
 * A pair of sockets for a machine's state: QEMU gets one end by name, and reads or writes it as the
 * other side of a migration. No file is needed, and every version of QEMU takes a socket.
 */
export interface StateSource extends Disposable {
  /** What QEMU is to write to; closed here when it has it. */
  readonly end: OwnedDescriptor;
  /** All bytes, when QEMU has closed its end. @throws RangeError for more than the limit */
  readonly bytes: Promise<Uint8Array>;
}

/** @param most bytes; more of them end it */
export function receiveState(loop: EventLoop, most: number): StateSource {
  const [ours, end] = makeSocketPair();
  const pieces: Uint8Array[] = [];
  let size = 0;
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  // It may fail before anybody waits for it, and is asked for then.
  promise.catch(() => {});
  const stream = new StreamConnection(loop, ours, {
    queuedBytes: 0,
    handlers: {
      onBytes: (bytes, descriptors) => {
        for (const descriptor of descriptors) descriptor.close();
        size += bytes.length;
        if (size > most) {
          stream.close();
          reject(new RangeError(`expected a state of at most ${most} bytes, received more`));
          return;
        }
        pieces.push(bytes.slice());
      },
      onEnd: () => resolve(Buffer.concat(pieces)),
    },
  });
  return {
    end,
    bytes: promise,
    [Symbol.dispose]: () => {
      end.close();
      stream.close();
    },
  };
}

export interface StateSink extends Disposable {
  /** What QEMU is to read from; closed here when it has it. */
  readonly end: OwnedDescriptor;
}

/** Gives the bytes to whoever reads the other end, which ends after them. */
export function sendState(loop: EventLoop, bytes: Uint8Array): StateSink {
  const [ours, end] = makeSocketPair();
  const stream = new StreamConnection(loop, ours, {
    queuedBytes: bytes.length + QUEUE_ROOM,
    handlers: {
      onBytes: (_bytes, descriptors) => {
        for (const descriptor of descriptors) descriptor.close();
      },
      // A reader that went away says so by its own connection.
      onEnd: () => {},
    },
  });
  stream.send(bytes);
  stream.finish();
  return {
    end,
    [Symbol.dispose]: () => {
      end.close();
      stream.close();
    },
  };
}
