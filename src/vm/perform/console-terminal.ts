import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { StreamConnection } from "../../messaging/stream-connection.ts";
import type { Bytes } from "../../units/units.ts";

/** Ctrl-], as virsh and telnet have it: the byte that a terminal gives for it. */
export const DETACH_BYTE = 0x1d;
/** What may wait for a worker that does not read. */
const QUEUED_BYTES: Bytes = 1024 * 1024;

/** Where somebody looks at a console. */
export interface ConsoleTerminal {
  /** Every key is given at once, and nothing is echoed; false gives the terminal back. */
  setRaw(raw: boolean): void;
  /** Takes what is typed until disposed of. */
  onTyped(take: (bytes: Uint8Array) => void, onEnd: () => void): Disposable;
  write(bytes: Uint8Array): void;
}

/** How an attachment ended: the person left, or the worker did. */
export type Detachment =
  | { readonly kind: "detached" }
  | { readonly kind: "ended"; readonly reason: string };

/**
 * Connects a terminal with a console, raw both ways, until Ctrl-] is typed, the input ends, or the
 * worker ends it. What comes from the guest drives the terminal: whoever attaches wants that.
 */
export function attachConsole(
  loop: EventLoop,
  socket: OwnedDescriptor,
  terminal: ConsoleTerminal,
): Promise<Detachment> {
  const over = Promise.withResolvers<Detachment>();
  const stream = new StreamConnection(loop, socket, {
    queuedBytes: QUEUED_BYTES,
    handlers: {
      onBytes: (bytes, descriptors) => {
        for (const descriptor of descriptors) descriptor.close();
        terminal.write(bytes);
      },
      onEnd: (reason) => over.resolve({ kind: "ended", reason }),
    },
  });
  terminal.setRaw(true);
  const typing = terminal.onTyped(
    (bytes) => {
      const detach = bytes.indexOf(DETACH_BYTE);
      const typed = detach < 0 ? bytes : bytes.subarray(0, detach);
      if (typed.length > 0) stream.send(typed);
      if (detach >= 0) over.resolve({ kind: "detached" });
    },
    () => over.resolve({ kind: "detached" }),
  );
  return over.promise.finally(() => {
    typing[Symbol.dispose]();
    terminal.setRaw(false);
    // What was typed before the end is still sent.
    stream.finish();
  });
}

/** This process's own. Without a terminal on standard input, bytes are taken as they come. */
export function processTerminal(): ConsoleTerminal {
  const { stdin, stdout } = process;
  return {
    setRaw: (raw) => {
      if (stdin.isTTY) stdin.setRawMode(raw);
    },
    onTyped: (take, onEnd) => {
      stdin.on("data", take);
      stdin.once("end", onEnd);
      return {
        [Symbol.dispose]: () => {
          stdin.off("data", take);
          stdin.off("end", onEnd);
          stdin.pause();
        },
      };
    },
    // A copy: the bytes are valid only now, and stdout may write them later.
    write: (bytes) => void stdout.write(bytes.slice()),
  };
}
