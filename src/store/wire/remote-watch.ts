import { type Revision, StoreError, type WatchEvent, type WatchOptions } from "../store.ts";
import { fromWireEntry, limits, type ServerMessage } from "./protocol.ts";
import { WatchQueue } from "./watch-queue.ts";

export interface RemoteWatchLink {
  /** Sends now, or says false when there is no link. */
  send(text: string): boolean;
  /** Another id under which messages come, in place of the former. */
  enter(former: number): number;
}

/**
 * One watch of a remote store. Over a lost connection it goes on after the last revision that it
 * received; while it had not received all there is, it begins anew, and says so by `reset`.
 */
export class RemoteWatch {
  readonly #place: { readonly bucket: string; readonly pattern: string };
  readonly #link: RemoteWatchLink;
  #id = 0;
  readonly #queue = new WatchQueue({
    limit: limits.pendingBytes,
    onOverflow: () => this.#overflow(),
  });
  #since: Revision | undefined;
  /** listing: before the first `synced`; resuming: before one that nobody has to hear of. */
  #phase: "listing" | "following" | "resuming" | "overflown" | "ended" = "listing";
  /** Something was told, or waits, of a list that is not whole. */
  #isPartial = false;

  constructor(
    watch: WatchOptions & { readonly bucket: string; readonly pattern: string },
    link: RemoteWatchLink,
  ) {
    const { bucket, pattern, since } = watch;
    this.#place = { bucket, pattern };
    this.#since = since;
    this.#link = link;
  }

  /** Its latest; 0 before the first. */
  get id(): number {
    return this.#id;
  }

  /** The link stands, anew perhaps. */
  begin(): void {
    if (this.#phase === "ended" || this.#phase === "overflown") return;
    if (this.#phase === "following") this.#phase = "resuming";
    // With a revision to go on after, what is told twice does no harm; without one, what was
    // deleted and forgotten meanwhile would stay.
    if (this.#isPartial && this.#since === undefined) this.#queue.reset();
    this.#isPartial = false;
    this.#ask();
  }

  /** What is known is of another store. */
  restart(): void {
    if (this.#phase === "ended" || this.#phase === "overflown") return;
    this.#forget();
    this.#ask();
  }

  #forget(): void {
    this.#since = undefined;
    this.#phase = "listing";
    this.#isPartial = false;
    this.#queue.reset();
  }

  #ask(): void {
    const since = this.#since;
    this.#id = this.#link.enter(this.#id);
    this.#link.send(JSON.stringify({ kind: "watch", id: this.#id, ...this.#place, since }));
  }

  onMessage(message: Exclude<ServerMessage, { kind: "welcome" | "pong" }>): void {
    if (this.#phase === "ended" || this.#phase === "overflown") return;
    switch (message.kind) {
      case "entries":
        for (const entry of message.entries) this.#entry(entry);
        return;
      case "synced":
        if (this.#phase !== "resuming") this.#queue.synced(message.revision);
        this.#phase = "following";
        this.#isPartial = false;
        this.#since = Math.max(this.#since ?? 0, message.revision);
        return;
      case "reset":
        this.#forget();
        return;
      case "refused":
        this.#phase = "ended";
        this.#queue.end(new StoreError(`The watch has ended: ${message.message}`, message.problem));
        return;
      default:
        return;
    }
  }

  #entry(entry: Parameters<typeof fromWireEntry>[0]): void {
    this.#queue.entry(fromWireEntry(entry));
    // While it is listed the order says nothing.
    if (this.#phase === "following") this.#since = Math.max(this.#since ?? 0, entry.revision);
    else this.#isPartial = true;
  }

  /** Whoever watches does not take what comes: it is told a reset when it does. */
  #overflow(): void {
    this.unwatch();
    this.#phase = "overflown";
  }

  async *events(): AsyncGenerator<WatchEvent, void> {
    for await (const event of this.#queue.events()) {
      if (event.kind === "reset" && this.#phase === "overflown") {
        this.#since = undefined;
        this.#phase = "listing";
        this.#isPartial = false;
        this.#ask();
      }
      yield event;
    }
  }

  stop(): void {
    this.#queue.end();
  }

  unwatch(): void {
    this.#link.send(JSON.stringify({ kind: "unwatch", id: this.#id }));
  }
}
