/** The database at luod: it subscribes, puts its table into the session, and claims it again. */
import type { OwnedDescriptor } from "../../../../ffi/owned-descriptor.ts";
import { connectUnix, makeUnixSocket } from "../../../../ffi/unix-socket.ts";
import type { EventLoop } from "../../../../src/event-loop/event-loop.ts";
import { LineConnection } from "../../../../src/messaging/line-connection.ts";

const luodSocket = "/run/luod/liveupdate.sock";
const lineLimits = { lineBytes: 65_536, queuedBytes: 65_536, descriptors: 4 };

/** What luod says, as far as a client with one id and one session needs it. */
interface Line {
  readonly event: string;
  readonly reason?: string;
  readonly error?: { readonly kind: string; readonly message: string };
}

export interface LuodHandlers {
  /** Preserve in this session, which is open until the update is over. */
  onStart(session: OwnedDescriptor): void;
  /** Nothing is preserved any more. */
  onAborted(reason: string): void;
}

export class LuodConnection {
  readonly #connection: LineConnection;
  readonly #id: string;
  readonly #handlers: LuodHandlers;
  readonly #claim = Promise.withResolvers<OwnedDescriptor | undefined>();
  #session: OwnedDescriptor | undefined;

  /** @param loop for all that comes @throws Error when luod is not there */
  constructor(id: string, handlers: LuodHandlers, loop: EventLoop) {
    this.#id = id;
    this.#handlers = handlers;
    const socket = makeUnixSocket("stream");
    const result = connectUnix(socket, luodSocket);
    if (result < 0) throw new Error(`Cannot connect to ${luodSocket}: error ${-result}`);
    this.#connection = new LineConnection(loop, socket, {
      limits: lineLimits,
      handlers: {
        onLine: (line, takeDescriptor) => this.#onLine(line as Line, takeDescriptor),
        onEnd: (reason) => this.#claim.reject(new Error(`luod ended the connection: ${reason}`)),
      },
    });
    this.#connection.send({ cmd: "HELLO", protocol: 1, program: "the demo's database" });
  }

  /** What this id had saved before the kernel was changed; undefined when that is nothing. */
  claim(): Promise<OwnedDescriptor | undefined> {
    this.#connection.send({ cmd: "CLAIM", id: this.#id });
    return this.#claim.promise;
  }

  /** What was claimed has all been taken out. */
  finished(): void {
    this.#connection.send({ cmd: "FINISHED", id: this.#id });
  }

  /** From now on no update is made without this client. */
  subscribe(): void {
    this.#connection.send({ cmd: "SUBSCRIBE", id: this.#id, required: true, deadline_ms: 60_000 });
  }

  ready(bytes: number): void {
    this.#connection.send({ cmd: "READY", id: this.#id, bytes });
  }

  #onLine(line: Line, takeDescriptor: () => OwnedDescriptor | undefined): void {
    switch (line.event) {
      case "CLAIMED":
        this.#claim.resolve(takeDescriptor());
        break;
      case "ERROR":
        this.#onError(line);
        break;
      case "START_PRESERVATION":
        this.#session = takeDescriptor();
        if (this.#session !== undefined) this.#handlers.onStart(this.#session);
        break;
      case "ABORTED":
        this.#session?.close();
        this.#session = undefined;
        this.#handlers.onAborted(line.reason ?? "");
        break;
    }
  }

  #onError({ error }: Line): void {
    // Nothing waits for this id: it begins with an empty table.
    if (error?.kind === "unknown") this.#claim.resolve(undefined);
    else this.#claim.reject(new Error(`luod refuses: ${error?.message}`));
  }
}
