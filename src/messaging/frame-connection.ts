import type { OwnedDescriptor } from "../../ffi/owned-descriptor.ts";
import type { PeerCredentials } from "../../ffi/unix-socket.ts";
import { encodeFrame, type FrameLimits, FrameReader, type FrameRefusal } from "./frame.ts";
import type { StreamConnection } from "./stream-connection.ts";

/** What a peer did that ends its connection. */
export interface Violation {
  readonly kind: string;
  readonly expected: string;
  readonly received: string;
}

export interface FrameHandlers {
  /** One whole frame. Its descriptors are the handler's to close. */
  onFrame(body: unknown, descriptors: OwnedDescriptor[]): void;
  /** The peer broke the rules of the wire; the connection is closed already. */
  onViolation(violation: Violation): void;
  /** The connection is over. */
  onEnd(reason: string): void;
  /** What was queued for a peer that reads slowly has been sent. */
  onDrained?(): void;
}

/** Frames with descriptors over a stream: each belongs to the frame that announces it. */
export class FrameConnection implements Disposable {
  readonly #stream: StreamConnection;
  readonly #reader: FrameReader;
  #limits: FrameLimits;
  #handlers: FrameHandlers;
  #descriptors: OwnedDescriptor[] = [];
  #sender: PeerCredentials | undefined;

  constructor(stream: StreamConnection, limits: FrameLimits, handlers: FrameHandlers) {
    this.#stream = stream;
    this.#limits = limits;
    this.#reader = new FrameReader(limits);
    this.#handlers = handlers;
    stream.setHandlers({
      onBytes: (bytes, descriptors, sender) => {
        this.#sender = sender;
        this.receive(bytes, descriptors);
      },
      onEnd: (reason) => this.#onEnd(reason),
      onDrained: () => this.#handlers.onDrained?.(),
    });
  }

  get stream(): StreamConnection {
    return this.#stream;
  }

  /** Who sent what was received last, where the socket was told to receive credentials. */
  get sender(): PeerCredentials | undefined {
    return this.#sender;
  }

  get isOpen(): boolean {
    return this.#stream.isOpen;
  }

  /** It is between two frames, both ways: whoever gets the socket can go on with it. */
  get isIdle(): boolean {
    const isBetween = this.#reader.pending === 0 && this.#descriptors.length === 0;
    return isBetween && this.#stream.isIdle;
  }

  /** Bytes that the peer has not taken yet. */
  get queuedBytes(): number {
    return this.#stream.queuedBytes;
  }

  setHandlers(handlers: FrameHandlers): void {
    this.#handlers = handlers;
  }

  setLimits(limits: FrameLimits): void {
    this.#limits = limits;
    this.#reader.setLimits(limits);
  }

  /** Sends a frame; false when the connection is over. The descriptors stay the caller's. */
  send(body: unknown, descriptors: readonly number[] = []): boolean {
    return this.#stream.send(encodeFrame(body, descriptors.length), descriptors);
  }

  /** As `send`, but with all others of this turn, at its end or before the next frame. */
  sendLater(body: unknown, descriptors: readonly number[] = []): void {
    this.#stream.sendLater(encodeFrame(body, descriptors.length), descriptors);
  }

  /** Sends now what was to be sent later. */
  flush(): void {
    this.#stream.sendGathered();
  }

  /** Takes bytes that were read from the stream, as whoever looked at the first byte has them. */
  receive(bytes: Uint8Array, descriptors: OwnedDescriptor[]): void {
    this.#descriptors.push(...descriptors);
    this.#reader.push(bytes);
    while (this.isOpen) {
      const frame = this.#reader.next();
      if (frame === undefined) break;
      if ("refusal" in frame) {
        this.#violate(frame.refusal);
        return;
      }
      if (frame.descriptors > this.#descriptors.length) {
        const received = `${this.#descriptors.length}`;
        const expected = `${frame.descriptors} descriptors on the frame's first byte`;
        this.#violate({ kind: "descriptors", expected, received });
        return;
      }
      this.#handlers.onFrame(frame.body, this.#descriptors.splice(0, frame.descriptors));
    }
    this.#checkSurplus();
  }

  #checkSurplus(): void {
    const most = this.#reader.pending === 0 ? 0 : this.#limits.frameDescriptors;
    if (!this.isOpen || this.#descriptors.length <= most) return;
    const received = `${this.#descriptors.length} descriptors that no frame announces`;
    this.#violate({ kind: "descriptors", expected: "announced descriptors only", received });
  }

  #violate(violation: FrameRefusal | Violation): void {
    this.close();
    this.#handlers.onViolation(violation);
  }

  #onEnd(reason: string): void {
    this.#dropDescriptors();
    const refusal = this.#reader.atEnd();
    const detail = refusal === undefined ? "" : `, in the middle of a frame (${refusal.received})`;
    this.#handlers.onEnd(`${reason}${detail}`);
  }

  #dropDescriptors(): void {
    for (const descriptor of this.#descriptors) descriptor.close();
    this.#descriptors = [];
  }

  /** Closes after what is queued has been sent. */
  finish(): void {
    this.#dropDescriptors();
    this.#stream.finish();
  }

  close(): void {
    this.#dropDescriptors();
    this.#stream.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
