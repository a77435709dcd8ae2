import { join } from "node:path";
import { monotonicNow } from "../../event-loop/clock.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import type { ServerCertificate } from "../../identity/certificate.ts";
import {
  type ByteSocket,
  connectUnixBytes,
  join as joinSockets,
} from "../../messaging/byte-socket.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";
import type { MachineEvent } from "../lifecycle-state.ts";
import {
  type FromGiver,
  type FromTaker,
  fromGiverSchema,
  type MigrationChannel,
  type MigrationOffer,
  migrationLimits,
  refuseOffer,
  type TakerFacts,
} from "../protocol-migration.ts";
import type { CardRequest } from "../protocol-network.ts";
import { ControlChannel } from "./control-channel.ts";
import { receiveImage } from "./image-transfer.ts";
import { passMigrationStep } from "./kill-points.ts";
import { MigrationRefused } from "./migration-dial.ts";
import { MigrationListener } from "./migration-listener.ts";
import type { AttachedVmm } from "./vmm-seat.ts";

type Outcome = Extract<FromTaker, { kind: "taken" | "not-taken" }>;

/** How a machine of a migration stands on the host that takes it. */
export type Standing =
  | { readonly kind: "coming" | "arrived" }
  /** It is this host's own. */
  | { readonly kind: "taken" }
  /** It is not there any more, or another's: why. */
  | { readonly kind: "gone"; readonly reason: string };

/** Name and addresses that are kept for a machine, until it is disposed of. */
export interface Reservation extends Disposable {
  /** With the addresses that it has here. */
  readonly offer: MigrationOffer;
}

/** What the worker is for one who takes a machine. */
export interface TakerHost {
  readonly loop: EventLoop;
  /** @param networks where it may have another address than its own @returns why not */
  reserve(offer: MigrationOffer, networks: readonly CardRequest[]): Reservation | string;
  facts(offer: MigrationOffer, name: string): TakerFacts;
  /** Where an image is put that comes. */
  imageFolder(migration: string): string;
  /** What came of one that did not come to its end. */
  dropImage(folder: string): void;
  /** Verifies what came, and removes the folder. @throws ImageRefused */
  storeImage(offer: MigrationOffer, folder: string): Promise<Disposable>;
  /** @returns why there can be no such machine */
  create(offer: MigrationOffer, migration: string): string | undefined;
  standing(name: string, migration: string): Standing;
  tell(name: string, event: MachineEvent): void;
  onTurn(call: () => void): Disposable;
}

/** One ticket, and the machine that comes by it. */
export class MigrationTaker {
  readonly name: string;
  readonly migration: string;
  readonly #host: TakerHost;
  readonly #listener: MigrationListener;
  readonly #onOver: () => void;
  readonly #networks: readonly CardRequest[];
  /** When a ticket that nobody used is worth nothing, by the monotonic clock. */
  readonly #expiresAt: Milliseconds;
  readonly #owned = new DisposableStack();
  #control: ControlChannel<FromGiver> | undefined;
  #isUsed = false;
  #isOffered = false;
  #wantsImage: ((socket: ByteSocket) => void) | undefined;
  /** Sockets of the VMM by channel, each for one connection. */
  readonly #routes = new Map<string, string>();
  #endDisks: (() => Promise<void>) | undefined;
  /** Why the machine cannot come any more. */
  readonly #lost = Promise.withResolvers<never>();
  #isCreated = false;
  #isArrived = false;
  /** Said once, it is not taken back by anybody who has the ticket. */
  #isHandedOver = false;
  #outcome: Outcome | undefined;
  /** Who asks for the outcome, over a connection of its own. */
  readonly #askers: ByteSocket[] = [];
  #linger: Disposable | undefined;
  #isOver = false;

  constructor(
    host: TakerHost,
    ticket: {
      readonly name: string;
      readonly migration: string;
      readonly secret: string;
      readonly certificate: ServerCertificate;
      readonly host: string;
      readonly port: number;
      readonly time: Milliseconds;
      readonly networks: readonly CardRequest[];
    },
    onOver: () => void,
  ) {
    this.name = ticket.name;
    this.migration = ticket.migration;
    this.#networks = ticket.networks;
    this.#expiresAt = monotonicNow() + ticket.time;
    this.#host = host;
    this.#onOver = onOver;
    this.#lost.promise.catch(() => undefined);
    this.#listener = new MigrationListener(host.loop, {
      ...ticket,
      onChannel: (channel) => this.#admit(channel),
    });
    this.#expire();
  }

  /** Until somebody uses it. */
  #expire(): void {
    const time = Math.max(0, this.#expiresAt - monotonicNow());
    this.#linger = this.#host.loop.wakeAfter(time, () => this.end("its time is over"));
  }

  get port(): number {
    return this.#listener.port;
  }

  get isUsed(): boolean {
    return this.#isUsed;
  }

  #admit(channel: MigrationChannel): string | ((socket: ByteSocket) => void) {
    switch (channel.kind) {
      case "control":
        if (this.#isUsed) return "the ticket was used: make another one, by hostler vm receive";
        this.#isUsed = true;
        this.#linger?.[Symbol.dispose]();
        this.#linger = undefined;
        return (socket) => this.#converse(socket);
      case "image": {
        const take = this.#wantsImage;
        if (take === undefined) return "no image is asked for";
        this.#wantsImage = undefined;
        return take;
      }
      case "memory":
      case "disk": {
        const key = channel.kind === "memory" ? "memory" : `disk:${channel.disk}`;
        const path = this.#routes.get(key);
        if (path === undefined) return `nobody waits for ${key}`;
        this.#routes.delete(key);
        return (socket) => void this.#connect(socket, path);
      }
      case "verdict":
        return (socket) => this.#hearVerdict(socket, channel.verdict);
    }
  }

  #converse(socket: ByteSocket): void {
    const control: ControlChannel<FromGiver> = new ControlChannel(this.#host.loop, socket, {
      schema: fromGiverSchema,
      // Of an offer that was declined nothing counts any more.
      onMessage: (message) => {
        if (this.#control === control) this.#hear(message);
      },
      onLost: (reason) => this.#loseControl(`the connection to the other host ended: ${reason}`),
    });
    this.#control = control;
  }

  async #connect(socket: ByteSocket, path: string): Promise<void> {
    try {
      joinSockets(socket, await connectUnixBytes(path));
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      socket.terminate(reason);
      this.#lost.reject(new MigrationRefused(`Its VMM takes nothing at ${path}: ${reason}`));
    }
  }

  #hear(message: FromGiver): void {
    switch (message.kind) {
      case "alive":
        return;
      case "offer":
        void this.#take(message);
        return;
      case "disks-sent":
        void this.#letDisksGo();
        return;
      case "hand-over":
        this.#takeOver(message.wanted);
        return;
      case "withdraw":
        this.#withdraw(message.reason);
    }
  }

  async #take(offered: MigrationOffer): Promise<void> {
    if (this.#isOffered) return;
    this.#isOffered = true;
    const facts = this.#host.facts(offered, this.name);
    const refusal = refuseOffer(offered, facts);
    const kept = refusal ?? this.#host.reserve(offered, this.#networks);
    if (typeof kept === "string") {
      this.#decline(kept);
      return;
    }
    using reservation = new DisposableStack();
    const { offer } = reservation.use(kept);
    try {
      const coming = facts.hasImage ? undefined : this.#takeImage(offer);
      this.#control?.send({ kind: "accepted", has_image: facts.hasImage });
      using _image = await coming;
      const refused = this.#isOver ? "it was given up" : this.#host.create(offer, this.migration);
      if (refused !== undefined) {
        this.#refuse(refused);
        return;
      }
      this.#isCreated = true;
      this.#owned.use(this.#host.onTurn(() => this.#look()));
      // They are the machine's now.
      reservation.move();
      this.#look();
    } catch (error) {
      this.#refuse(error instanceof Error ? error.message : String(error));
    }
  }

  /** What comes is verified before anything is made of it. */
  async #takeImage(offer: MigrationOffer): Promise<Disposable> {
    const asked = Promise.withResolvers<ByteSocket>();
    this.#wantsImage = asked.resolve;
    const socket = await Promise.race([asked.promise, this.#lost.promise]);
    const folder = this.#host.imageFolder(this.migration);
    const received = receiveImage(socket, folder, offer.image);
    try {
      await Promise.race([received, this.#lost.promise]);
    } catch (error) {
      socket.terminate("it was given up");
      await received.catch(() => undefined);
      this.#host.dropImage(folder);
      throw error;
    }
    socket.finish();
    return await this.#host.storeImage(offer, folder);
  }

  /**
   * Nothing has come of what was offered, and nobody waits for it: when what is in the way is gone,
   * the same ticket can be tried again.
   */
  #decline(message: string): void {
    this.#control?.send({ kind: "refused", message: message.slice(0, 8192) });
    this.#control?.finish();
    this.#control = undefined;
    this.#isOffered = false;
    this.#isUsed = false;
    this.#expire();
  }

  /** Before there is a machine: the other host has it, and goes on. */
  #refuse(message: string): void {
    this.#control?.send({ kind: "refused", message: message.slice(0, 8192) });
    this.#control?.finish();
    this.end(message);
  }

  /** Lets the VMM take what comes. Returns when all of it is here. @throws MigrationRefused, … */
  async receive({ connection, machine }: AttachedVmm, folder: string): Promise<void> {
    const { migration } = connection;
    const ids = machine.disks.filter(({ readOnly }) => !readOnly).map(({ id }) => id);
    const memory = join(folder, "memory-in");
    const socket = join(folder, "disks-in");
    const arrival = await migration.receive({ memory, disks: { ids, socket } });
    this.#endDisks = () => arrival.endDisks();
    this.#routes.set("memory", memory);
    for (const id of ids) this.#routes.set(`disk:${id}`, socket);
    if (this.#control?.send({ kind: "ready" }) !== true) {
      throw new MigrationRefused("The other host is gone");
    }
    passMigrationStep("receive:ready");
    await Promise.race([arrival.arrived, this.#lost.promise]);
    passMigrationStep("receive:arrived");
  }

  async #letDisksGo(): Promise<void> {
    try {
      await this.#endDisks?.();
      this.#control?.send({ kind: "disks-ended" });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#lost.reject(new MigrationRefused(`Its VMM does not let go of its disks: ${reason}`));
    }
  }

  /** What the lifecycle has noted is told. */
  confirm(what: "arrived" | "taken"): void {
    if (what === "arrived") {
      this.#isArrived = true;
      if (this.#control?.isOpen === true) this.#control.send({ kind: "arrived" });
      else this.#undecided("the connection to the other host has ended");
      return;
    }
    this.#settle({ kind: "taken" });
  }

  #takeOver(wanted: "running" | "paused"): void {
    const { name, migration } = this;
    const standing = this.#host.standing(name, migration);
    if (standing.kind === "arrived") {
      this.#isHandedOver = true;
      this.#host.tell(name, { kind: "handed-over", migration, wanted });
    } else if (standing.kind === "coming") {
      const reason = "it was handed over before all of it had come";
      this.#lost.reject(new MigrationRefused(reason));
      this.#settle({ kind: "not-taken", reason });
    } else {
      // Where it is this host's already, that is told when it is on the disk.
      this.#look();
    }
    this.#answerAskers();
  }

  #withdraw(reason: string): void {
    const { name, migration } = this;
    if (this.#isHandedOver) return;
    this.#lost.reject(new MigrationRefused(`The other host goes on with it: ${reason}`));
    if (this.#isArrived) this.#host.tell(name, { kind: "withdrawn", migration, reason });
    else if (!this.#isCreated) this.end(reason);
    if (this.#outcome === undefined) this.#settle({ kind: "not-taken", reason });
  }

  #hearVerdict(socket: ByteSocket, verdict: string): void {
    this.#askers.push(socket);
    if (!this.#isUsed) {
      this.#answerAskers({ kind: "not-taken", reason: "nothing is offered by this ticket" });
      return;
    }
    if (verdict === "withdraw") this.#withdraw("it was called off");
    else this.#takeOver(verdict === "hand-over-paused" ? "paused" : "running");
    this.#answerAskers();
  }

  #answerAskers(outcome: Outcome | undefined = this.#outcome): void {
    if (outcome === undefined) return;
    for (const socket of this.#askers.splice(0)) {
      socket.write(Buffer.from(`${JSON.stringify(outcome)}\n`));
      socket.finish();
    }
  }

  #loseControl(reason: string): void {
    this.#lost.reject(new MigrationRefused(reason));
    if (this.#outcome !== undefined) return;
    if (this.#isArrived) this.#undecided(reason);
    else if (!this.#isCreated) this.end(reason);
  }

  #undecided(reason: string): void {
    const { name, migration } = this;
    this.#host.tell(name, { kind: "undecided", migration, reason });
  }

  /** The machine may have ended, or been deleted: the other host hears that it goes on there. */
  #look(): void {
    if (!this.#isCreated || this.#outcome !== undefined) return;
    const standing = this.#host.standing(this.name, this.migration);
    if (standing.kind === "gone") this.#settle({ kind: "not-taken", reason: standing.reason });
  }

  /** How it ended, for whoever asks yet. */
  #settle(outcome: Outcome): void {
    if (this.#outcome !== undefined) return;
    this.#outcome =
      outcome.kind === "taken"
        ? outcome
        : { ...outcome, reason: outcome.reason.slice(0, migrationLimits.textLength) };
    this.#control?.send(this.#outcome);
    this.#answerAskers();
    if (this.#isOver) return;
    const { lingerTime } = migrationLimits;
    const why = `${formatDuration(lingerTime)} have passed since`;
    this.#linger = this.#host.loop.wakeAfter(lingerTime, () => this.end(why));
  }

  /** Nobody listens any more; a machine that is here is left as it is. */
  end(reason: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#linger?.[Symbol.dispose]();
    this.#lost.reject(new MigrationRefused(reason));
    this.#owned.dispose();
    this.#listener[Symbol.dispose]();
    if (this.#outcome !== undefined) this.#listener.endAll(reason);
    this.#onOver();
  }

  /** The worker ends: whoever is connected sees it. */
  close(): void {
    this.end("the worker ends");
    this.#listener.endAll("the worker ends");
    this.#control?.[Symbol.dispose]();
  }
}
