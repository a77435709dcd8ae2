import { chownSync, rmSync } from "node:fs";
import { join } from "node:path";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { MigrationProgress } from "../../hypervisor/driver.ts";
import type { StoredImage } from "../../image/stored-image.ts";
import {
  ByteSocket,
  byteSocketHandlers,
  join as joinSockets,
  type SocketData,
} from "../../messaging/byte-socket.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";
import type { MachineEvent } from "../lifecycle-state.ts";
import {
  type FromGiver,
  type FromTaker,
  fromTakerSchema,
  joinAddress,
  type MigrationChannel,
  type MigrationHello,
  type MigrationOffer,
  type MigrationTicket,
  migrationLimits,
  readLine,
} from "../protocol-migration.ts";
import { ControlChannel } from "./control-channel.ts";
import { sendImage } from "./image-transfer.ts";
import { passMigrationStep } from "./kill-points.ts";
import { LineChannel } from "./line-channel.ts";
import { dialMigration, MigrationRefused } from "./migration-dial.ts";
import type { AttachedVmm } from "./vmm-seat.ts";

/** What is told of a migration while it goes on. */
export interface GiverProgress {
  readonly stage: "image" | MigrationProgress["stage"];
  readonly done: number;
  readonly of: number;
  readonly rounds: number;
}

/** What it came to, as the giver saw it. */
export interface MigrationResult {
  /** Bytes that went through the connections, in both directions, without TLS. */
  readonly bytes: number;
  readonly rounds: number;
  /** From the guest's stop to the word that it runs there. */
  readonly pause: Milliseconds;
  readonly time: Milliseconds;
}

type Verdict = Extract<MigrationHello["channel"], { kind: "verdict" }>["verdict"];
type Answered = Exclude<FromTaker["kind"], "welcome" | "alive" | "refused" | "not-taken">;

interface Options {
  readonly loop: EventLoop;
  readonly ticket: MigrationTicket;
  readonly offer: MigrationOffer;
  readonly image: StoredImage;
  readonly tell: (event: MachineEvent) => void;
  readonly onProgress: (progress: GiverProgress) => void;
}

/** A machine of this host on its way to another one. */
export class MigrationGiver {
  readonly migration: string;
  readonly #options: Options;
  readonly #controller = new AbortController();
  readonly #begunAt = monotonicNow();
  #control: ControlChannel<FromTaker> | undefined;
  readonly #waiting = new Map<Answered, PromiseWithResolvers<FromTaker>>();
  /** Why there will be no answer any more. */
  #end: Error | undefined;
  /** What goes on before anything is done to the machine. */
  #preparing: "offer" | "image" | undefined = "offer";
  #isSent = false;
  #verdict: Verdict | undefined;
  #outcome: "taken" | "not-taken" | undefined;
  #stoppedAt: number | undefined;
  #bytes = 0;
  #rounds = 0;
  #result: MigrationResult | undefined;

  constructor(options: Options) {
    this.migration = options.ticket.migration;
    this.#options = options;
  }

  get name(): string {
    return this.#options.offer.spec.name;
  }

  /** "10.77.0.2:40123", "[2001:db8::7]:40123" */
  get destination(): string {
    const { host, port } = this.#options.ticket;
    return joinAddress(host, port);
  }

  /** What goes on while the machine only runs, for people; undefined when its own phase says it. */
  get preparation(): string | undefined {
    if (this.#preparing === undefined) return undefined;
    return this.#preparing === "offer"
      ? `it is offered to ${this.destination}`
      : `its image is being sent to ${this.destination}`;
  }

  /** Once it was taken. */
  get result(): MigrationResult | undefined {
    return this.#result;
  }

  get isHandedOver(): boolean {
    return this.#verdict === "hand-over-running" || this.#verdict === "hand-over-paused";
  }

  /**
   * Offers the machine, and sends its image where the other host has none. Returns when a VMM waits
   * there; nothing was done to the machine. @throws MigrationRefused, saying why; what `abort` gave
   */
  async prepare(): Promise<void> {
    const { loop, offer, ticket } = this.#options;
    const { signal } = this.#controller;
    try {
      const socket = await dialMigration(loop, ticket, { kind: "control" }, signal);
      this.#control = new ControlChannel(loop, socket, {
        schema: fromTakerSchema,
        onMessage: (message) => this.#hear(message),
        onLost: (reason) => this.#lose(reason),
      });
      const accepted = this.#answer("accepted");
      const ready = this.#answer("ready");
      this.#say(offer);
      const answer = await accepted;
      if (answer.kind === "accepted" && !answer.has_image) await this.#sendImage();
      await ready;
    } catch (error) {
      this.#giveUp(error instanceof Error ? error.message : String(error));
      throw error;
    } finally {
      this.#preparing = undefined;
    }
  }

  async #sendImage(): Promise<void> {
    const { loop, ticket, image, offer, onProgress } = this.#options;
    const { signal } = this.#controller;
    this.#preparing = "image";
    const socket = await dialMigration(loop, ticket, { kind: "image" }, signal);
    const of = offer.image.bytes;
    let done = 0;
    const onBytes = (count: number) => {
      done += count;
      this.#bytes += count;
      onProgress({ stage: "image", done, of, rounds: 0 });
    };
    try {
      await sendImage(socket, image.tree, { signal, onBytes });
      socket.finish();
    } catch (error) {
      socket.terminate("it was given up");
      // What the other host says of it is worth more than that it closed the connection.
      if (this.#end !== undefined) throw this.#end;
      throw error;
    }
  }

  /**
   * Sends disks and memory, and returns when all of it is there. The guest stands still then.
   * @throws MigrationRefused, VmmRefused, VmmUnreachable: the machine is this host's, and may be
   *   paused
   */
  async send({ connection, machine }: AttachedVmm, folder: string, user: number): Promise<void> {
    const { migration } = connection;
    const { signal } = this.#controller;
    const ids = machine.disks.filter(({ readOnly }) => !readOnly).map(({ id }) => id);
    using ways = new DisposableStack();
    const way = (name: string, channel: MigrationChannel) => {
      const path = join(folder, name);
      ways.use(this.#openWay(path, user, channel));
      return path;
    };
    try {
      const memory = way("memory-out", { kind: "memory" });
      const disks = ids.map((id) => ({
        id,
        socket: way(`disk-${id}-out`, { kind: "disk", disk: id }),
      }));
      const arrived = this.#answer("arrived");
      passMigrationStep("send:begun");
      await migration.send({
        ...{ memory, disks, signal },
        onProgress: (progress) => {
          this.#rounds = progress.rounds;
          this.#options.onProgress(progress);
        },
        onStopped: () => {
          this.#stoppedAt = monotonicNow();
        },
        onDisksSent: async () => {
          passMigrationStep("send:stopped");
          const ended = this.#answer("disks-ended");
          this.#say({ kind: "disks-sent" });
          await ended;
        },
      });
      passMigrationStep("send:sent");
      await arrived;
      signal.throwIfAborted();
      passMigrationStep("send:arrived");
      this.#isSent = true;
      // Where nobody wants it to be given after all, the other host is to know.
      const { answerTime } = migrationLimits;
      this.#options.loop.wakeAfter(answerTime, () => {
        if (this.#verdict === undefined) this.#giveUp("nobody gave it in the end");
      });
    } catch (error) {
      const cause = this.#end ?? error;
      this.#giveUp(cause instanceof Error ? cause.message : String(cause));
      await migration.abandon().catch(() => undefined);
      throw cause;
    }
  }

  /** A Unix socket for the VMM to connect to, once, which leads to a channel of the other host. */
  #openWay(path: string, user: number, channel: MigrationChannel): Disposable {
    rmSync(path, { force: true });
    const sockets = new Set<ByteSocket>();
    const server = Bun.listen<SocketData>({
      unix: path,
      data: { peer: undefined },
      socket: {
        ...byteSocketHandlers,
        open: (raw) => {
          const socket = new ByteSocket(raw);
          sockets.add(socket);
          server.stop();
          void this.#lead(socket, channel);
        },
      },
    });
    chownSync(path, user, user);
    return {
      [Symbol.dispose]: () => {
        server.stop();
        rmSync(path, { force: true });
        // All that was sent is there by now, or of no use.
        for (const socket of sockets) socket.terminate("the migration is over");
      },
    };
  }

  async #lead(socket: ByteSocket, channel: MigrationChannel): Promise<void> {
    const { loop, ticket } = this.#options;
    try {
      const far = await dialMigration(loop, ticket, channel, this.#controller.signal);
      joinSockets(socket, far, (count) => {
        this.#bytes += count;
      });
    } catch (error) {
      socket.terminate("the other host takes it no more");
      const failure = error instanceof Error ? error : new Error(String(error));
      this.#fail(failure);
    }
  }

  /** Calls it off, as long as it was not handed over. */
  abort(reason: string): void {
    if (this.isHandedOver) return;
    const error = new MigrationRefused(reason);
    this.#fail(error);
    this.#controller.abort(error);
    if (this.#isSent) this.#giveUp(reason);
  }

  /** This host goes on with it, and the other one is told, if need be over another connection. */
  #giveUp(reason: string): void {
    if (this.#verdict !== undefined) return;
    this.#verdict = "withdraw";
    const text = reason.slice(0, migrationLimits.textLength);
    const isTold = this.#control?.send({ kind: "withdraw", reason: text }) === true;
    this.#control?.finish();
    if (!isTold && this.#control !== undefined) void this.#deliver("withdraw");
  }

  /** The machine is the other host's from now on: it was noted to be. */
  handOver(wanted: "running" | "paused"): void {
    const { loop } = this.#options;
    if (this.#verdict !== undefined || this.#control === undefined) {
      this.#tellNotTaken("it was not handed over any more");
      return;
    }
    passMigrationStep("hand-over:begun");
    this.#verdict = `hand-over-${wanted}`;
    if (!this.#control.send({ kind: "hand-over", wanted })) {
      // Nothing of it was said, and nothing will be.
      this.#verdict = "withdraw";
      this.#tellNotTaken("the connection ended before it was handed over");
      void this.#deliver("withdraw");
      return;
    }
    passMigrationStep("hand-over:said");
    loop.wakeAfter(migrationLimits.settleTime, () => {
      const time = formatDuration(migrationLimits.settleTime);
      this.#undecided(`the other host has not answered for ${time}`);
    });
  }

  /** An operator decides from here on: what was said and not taken must not come any more. */
  #undecided(reason: string): void {
    if (this.#outcome !== undefined || this.#isClosed) return;
    const { migration } = this;
    this.#closing.abort(new Error(reason));
    this.#control?.[Symbol.dispose]();
    this.#options.tell({ kind: "undecided", migration, reason });
  }

  #tellNotTaken(reason: string): void {
    if (this.#outcome !== undefined) return;
    this.#outcome = "not-taken";
    const { migration } = this;
    this.#options.tell({ kind: "not-taken", migration, reason });
  }

  /** It waits for nothing any more: there is nothing to withdraw. */
  #endRefused(reason: string): void {
    if (this.#verdict === undefined) {
      this.#verdict = "withdraw";
      this.#control?.finish();
    }
    this.#fail(new MigrationRefused(`The other host refused it: ${reason}`));
  }

  #hear(message: FromTaker): void {
    switch (message.kind) {
      case "alive":
      case "welcome":
        return;
      case "refused":
        this.#endRefused(message.message);
        return;
      case "not-taken":
        this.#fail(new MigrationRefused(`The other host did not take it: ${message.reason}`));
        if (this.isHandedOver) this.#tellNotTaken(message.reason);
        return;
      case "taken":
        this.#take();
        return;
      default:
        this.#waiting.get(message.kind)?.resolve(message);
        this.#waiting.delete(message.kind);
    }
  }

  #take(): void {
    // Of a machine that was never handed over nobody can have it.
    if (!this.isHandedOver || this.#outcome !== undefined) return;
    this.#outcome = "taken";
    const now = monotonicNow();
    this.#result = {
      bytes: this.#bytes,
      rounds: this.#rounds,
      pause: Math.round(now - (this.#stoppedAt ?? now)),
      time: Math.round(now - this.#begunAt),
    };
    this.#control?.finish();
    const { migration } = this;
    this.#options.tell({ kind: "taken", migration });
  }

  #lose(reason: string): void {
    this.#fail(new MigrationRefused(`The connection to the other host ended: ${reason}`));
    if (!this.isHandedOver || this.#outcome !== undefined) return;
    // It may have heard it: only the other host can tell.
    if (this.#verdict !== undefined) void this.#deliver(this.#verdict);
  }

  /** Says the verdict over a connection of its own, again and again for a while. */
  async #deliver(verdict: Verdict): Promise<void> {
    const { loop, ticket } = this.#options;
    const until = monotonicNow() + migrationLimits.settleTime;
    const again = 500;
    while (this.#outcome !== "taken" && monotonicNow() < until && !this.#isClosed) {
      try {
        const channel = { kind: "verdict", verdict } as const;
        const signal = this.#closing.signal;
        const socket = await dialMigration(loop, ticket, channel, signal);
        const message = await this.#oneLine(socket);
        if (verdict === "withdraw") return;
        this.#hear(message);
        if (this.#outcome !== undefined) return;
      } catch {
        // Nobody answers there yet.
      }
      await new Promise<void>((resolve) => {
        loop.wakeAfter(again, resolve);
      });
    }
    if (verdict === "withdraw") return;
    const time = formatDuration(migrationLimits.settleTime);
    this.#undecided(`the other host could not be reached for ${time}`);
  }

  readonly #closing = new AbortController();
  get #isClosed(): boolean {
    return this.#closing.signal.aborted;
  }

  async #oneLine(socket: ByteSocket): Promise<FromTaker> {
    const { promise, resolve, reject } = Promise.withResolvers<FromTaker>();
    const lines = new LineChannel(socket, migrationLimits, {
      onLine: (line) => {
        lines.release();
        const read = readLine(fromTakerSchema, line);
        if (read.kind === "ok") resolve(read.value);
        else reject(new MigrationRefused(read.reason));
      },
      onViolation: (reason) => reject(new MigrationRefused(reason)),
    });
    void socket.closed.then((reason) => reject(new MigrationRefused(reason)));
    const end = () => socket.terminate("no answer");
    this.#closing.signal.addEventListener("abort", end, { once: true });
    using _late = this.#options.loop.wakeAfter(migrationLimits.connectTime, end);
    return await promise;
  }

  #fail(error: Error): void {
    if (this.#end !== undefined) return;
    this.#end = error;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    if (!this.isHandedOver) this.#controller.abort(error);
  }

  #answer(kind: Answered): Promise<FromTaker> {
    const waiting = Promise.withResolvers<FromTaker>();
    waiting.promise.catch(() => undefined);
    if (this.#end === undefined) this.#waiting.set(kind, waiting);
    else waiting.reject(this.#end);
    return waiting.promise;
  }

  #say(message: FromGiver): void {
    if (this.#control?.send(message) === true) return;
    throw this.#end ?? new MigrationRefused("The connection to the other host has ended");
  }

  /** The worker ends. */
  close(): void {
    this.#closing.abort(new Error("the worker ends"));
    this.#controller.abort(new Error("the worker ends"));
    this.#control?.[Symbol.dispose]();
  }
}
