import { readInto } from "../../../ffi/descriptor.ts";
import { NativeMemory } from "../../../ffi/memory.ts";
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { Listener, listenAt } from "../../messaging/listener.ts";
import type { Milliseconds } from "../../units/units.ts";
import { ConsoleKeeper } from "./console.ts";

/** What a viewer says first, in one byte: w writes when nobody does, t takes that from whoever. */
export const viewerModes = { r: "read", w: "write", t: "take" } as const;
export type ViewerMode = keyof typeof viewerModes;

/** A viewer that says nothing for so long is let go. */
const MODE_TIME: Milliseconds = 5_000;

/** The console of one machine, and the socket at which viewers come. */
export class MachineConsole implements Disposable {
  readonly #loop: EventLoop;
  readonly #keeper: ConsoleKeeper;
  readonly #listener: Listener;
  readonly #waiting = new Set<Disposable>();

  /** @throws SocketPathError when the viewers' socket cannot be made */
  constructor(
    loop: EventLoop,
    options: {
      readonly vmmSocket: string;
      readonly viewerSocket: string;
      readonly scrollbackPath: string;
      /** What its guest says, line by line. */
      readonly onLine: (line: string) => void;
      readonly onTrouble: (message: string) => void;
    },
  ) {
    const { vmmSocket, viewerSocket, scrollbackPath, onLine, onTrouble } = options;
    this.#loop = loop;
    this.#listener = new Listener(loop, listenAt(viewerSocket), {
      path: viewerSocket,
      onConnection: (socket) => this.#greet(socket),
      onExhausted: (error) => onTrouble(`cannot take a viewer: ${error.message}`),
    });
    this.#keeper = new ConsoleKeeper(loop, {
      socketPath: vmmSocket,
      scrollbackPath,
      handlers: {
        onLine,
        onUnreachable: () => {},
        onUnkept: (reason) => onTrouble(`its console is not kept: ${reason}`),
      },
    });
  }

  /** Its VMM answers: its console is connected to before its guest says anything. */
  connect(): void {
    this.#keeper.connect();
  }

  /** As ConsoleKeeper.moveTo. */
  moveTo(vmmSocket: string): void {
    this.#keeper.moveTo(vmmSocket);
  }

  /** Waits for the one byte that says what the viewer wants. */
  #greet(socket: OwnedDescriptor): void {
    const memory = new NativeMemory(1);
    const end = (attach: ViewerMode | undefined) => {
      this.#waiting.delete(waiting);
      waiting[Symbol.dispose]();
      if (attach === undefined) socket.close();
      else this.#attach(socket, attach);
    };
    const watch = this.#loop.watch(socket, "readable", () => {
      const count = readInto(socket, memory);
      if (count < 0) return;
      const mode = String.fromCharCode(memory.bytes[0] ?? 0);
      end(count === 1 && mode in viewerModes ? (mode as ViewerMode) : undefined);
    });
    const limit = this.#loop.wakeAfter(MODE_TIME, () => end(undefined));
    const waiting = {
      [Symbol.dispose]: () => {
        watch[Symbol.dispose]();
        limit[Symbol.dispose]();
      },
    };
    this.#waiting.add(waiting);
  }

  #attach(socket: OwnedDescriptor, mode: ViewerMode): void {
    this.#keeper.attach(socket, { writes: mode !== "r", takes: mode === "t", scrollback: true });
  }

  [Symbol.dispose](): void {
    for (const waiting of this.#waiting) waiting[Symbol.dispose]();
    this.#listener.close();
    this.#keeper[Symbol.dispose]();
  }
}
