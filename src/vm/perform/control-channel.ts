import type * as v from "valibot";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { ByteSocket } from "../../messaging/byte-socket.ts";
import { formatDuration } from "../../units/units.ts";
import { migrationLimits, readLine } from "../protocol-migration.ts";
import { LineChannel } from "./line-channel.ts";

/**
 * The control channel of a migration, from either side: words that are checked, and a word now and
 * then from whoever has nothing to say. Who is silent is gone, whatever the kernel says of TCP.
 */
export class ControlChannel<Message> implements Disposable {
  readonly #lines: LineChannel;
  readonly #loop: EventLoop;
  #heardAt = monotonicNow();
  #timer: Disposable | undefined;

  constructor(
    loop: EventLoop,
    socket: ByteSocket,
    options: {
      readonly schema: v.GenericSchema<unknown, Message>;
      readonly onMessage: (message: Message) => void;
      /** Once; not after `finish`. */
      readonly onLost: (reason: string) => void;
    },
  ) {
    this.#loop = loop;
    this.#lines = new LineChannel(socket, migrationLimits, {
      onLine: (line) => {
        this.#heardAt = monotonicNow();
        const read = readLine(options.schema, line);
        if (read.kind === "ok") options.onMessage(read.value);
        else socket.terminate(`it broke the rules of the wire: ${read.reason}`);
      },
      onViolation: (reason) => socket.terminate(`it broke the rules of the wire: ${reason}`),
    });
    void socket.closed.then((reason) => {
      this.#timer?.[Symbol.dispose]();
      if (!this.#isFinished) options.onLost(reason);
    });
    this.#beat();
  }

  #isFinished = false;

  get isOpen(): boolean {
    return this.#lines.socket.isOpen;
  }

  #beat(): void {
    const { aliveEvery, silence } = migrationLimits;
    this.#timer = this.#loop.wakeAfter(aliveEvery, () => {
      if (monotonicNow() - this.#heardAt > silence) {
        this.#lines.socket.terminate(`it has said nothing for ${formatDuration(silence)}`);
        return;
      }
      this.#lines.send({ kind: "alive" });
      if (this.isOpen) this.#beat();
    });
  }

  /** @returns false when it certainly does not come: nothing of it was written */
  send(message: object): boolean {
    return this.#lines.send(message);
  }

  /** Ends after what was said has been taken. */
  finish(): void {
    this.#isFinished = true;
    this.#timer?.[Symbol.dispose]();
    this.#lines.socket.finish();
  }

  [Symbol.dispose](): void {
    this.#isFinished = true;
    this.#timer?.[Symbol.dispose]();
    this.#lines.socket.terminate("it was given up");
  }
}
