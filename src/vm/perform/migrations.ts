import type { EventLoop } from "../../event-loop/event-loop.ts";
import { makeServerCertificate } from "../../identity/certificate.ts";
import { newSecret, systemRandom } from "../../identity/secrets.ts";
import type { StoredImage } from "../../image/stored-image.ts";
import { whyNotListening } from "../../units/listen-failure.ts";
import type { Milliseconds } from "../../units/units.ts";
import { newInvocation } from "../invocation.ts";
import type { MachineEvent } from "../lifecycle-state.ts";
import {
  joinAddress,
  MIGRATION_PROTOCOL,
  type MigrationOffer,
  type MigrationTicket,
  migrationLimits,
} from "../protocol-migration.ts";
import type { CardRequest } from "../protocol-network.ts";
import type { MachineMigrations, VmmPlace } from "./machine-tools.ts";
import { MigrationRefused } from "./migration-dial.ts";
import { type GiverProgress, MigrationGiver } from "./migration-giver.ts";
import { MigrationTaker, type TakerHost } from "./migration-taker.ts";
import type { AttachedVmm } from "./vmm-seat.ts";

/** What somebody asks for who wants to take a machine. */
export interface TicketRequest {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly time: Milliseconds;
  /** Where it may have another address than its own: this one, or any. */
  readonly networks: readonly CardRequest[];
}

/** All migrations of a worker, from it and to it. */
export class Migrations implements MachineMigrations, Disposable {
  readonly #loop: EventLoop;
  readonly #takers = new Map<string, MigrationTaker>();
  readonly #givers = new Map<string, MigrationGiver>();
  readonly #tell: (name: string, event: MachineEvent) => void;

  constructor(loop: EventLoop, tell: (name: string, event: MachineEvent) => void) {
    this.#loop = loop;
    this.#tell = tell;
  }

  /**
   * Listens for the one who has the ticket, until it is used or its time is over.
   * @throws MigrationRefused for one ticket too many, and where it cannot listen
   */
  async openTicket(
    host: TakerHost,
    request: TicketRequest,
    expires: string,
  ): Promise<MigrationTicket> {
    const own = [...this.#takers.values()].find(({ name }) => name === request.name);
    if (own !== undefined && !own.isUsed) own.end("another ticket was made");
    const open = [...this.#takers.values()].filter(({ isUsed }) => !isUsed);
    if (open.length >= migrationLimits.tickets) {
      throw new MigrationRefused(
        `Expected at most ${migrationLimits.tickets} open tickets, received one more: use them, ` +
          "or take one back by hostler vm receive --cancel",
      );
    }
    const migration = newInvocation();
    const secret = newSecret(systemRandom);
    const certificate = await makeServerCertificate({
      names: [request.host],
      random: systemRandom,
    });
    const parts = { ...request, migration, secret, certificate };
    let taker: MigrationTaker;
    try {
      taker = new MigrationTaker(host, parts, () => this.#takers.delete(migration));
    } catch (error) {
      const where = joinAddress(request.host, request.port);
      const why = whyNotListening(error);
      throw new MigrationRefused(`Cannot listen at ${where}: ${why}`, { cause: error });
    }
    this.#takers.set(migration, taker);
    return {
      hostler_migration_ticket: MIGRATION_PROTOCOL,
      ...{ name: request.name, migration, host: request.host, port: taker.port },
      ...{ pin: certificate.pin, secret, expires },
    };
  }

  /** @returns whether there was one that nobody had used */
  cancelTicket(name: string): boolean {
    const open = [...this.#takers.values()].filter((one) => one.name === name && !one.isUsed);
    for (const taker of open) taker.end("its ticket was taken back");
    return open.length > 0;
  }

  /**
   * Offers a machine to the host that a ticket is of. Nothing is done to the machine; afterwards it
   * can be sent. @throws MigrationRefused; what `signal` says
   */
  async offer(
    parts: {
      readonly ticket: MigrationTicket;
      readonly offer: MigrationOffer;
      readonly image: StoredImage;
    },
    options: {
      readonly signal: AbortSignal;
      readonly onProgress: (progress: GiverProgress) => void;
    },
  ): Promise<MigrationGiver> {
    const { name } = parts.offer.spec;
    const giver = new MigrationGiver({
      ...parts,
      loop: this.#loop,
      onProgress: options.onProgress,
      tell: (event) => this.#tell(name, event),
    });
    const abort = () => giver.abort("it was called off");
    options.signal.addEventListener("abort", abort);
    if (options.signal.aborted) abort();
    this.#givers.set(giver.migration, giver);
    try {
      await giver.prepare();
      return giver;
    } catch (error) {
      this.forget(giver);
      throw error;
    }
  }

  /** What it came to was told to whoever asked. */
  forget(giver: MigrationGiver): void {
    if (this.#givers.get(giver.migration) === giver) this.#givers.delete(giver.migration);
  }

  async send(migration: string, vmm: AttachedVmm, place: VmmPlace): Promise<void> {
    const giver = this.#givers.get(migration);
    if (giver === undefined) throw new MigrationRefused("Nobody waits for it any more");
    await giver.send(vmm, place.folder, place.user);
  }

  async receive(migration: string, vmm: AttachedVmm, place: VmmPlace): Promise<void> {
    const taker = this.#takers.get(migration);
    if (taker === undefined) throw new MigrationRefused("Nobody sends it any more");
    await taker.receive(vmm, place.folder);
  }

  abandon(migration: string, reason: string): void {
    this.#givers.get(migration)?.abort(reason);
  }

  /** What goes on of a machine that is not on its way yet; undefined of all others. */
  preparationOf(name: string): string | undefined {
    for (const giver of this.#givers.values()) {
      if (giver.name === name && giver.preparation !== undefined) return giver.preparation;
    }
    return undefined;
  }

  destinationOf(migration: string): string | undefined {
    return this.#givers.get(migration)?.destination;
  }

  /** Its answer is an event of the machine, after what is being decided. */
  handOver(migration: string, name: string, wanted: "running" | "paused"): void {
    const giver = this.#givers.get(migration);
    this.#loop.afterTurn(() => {
      if (giver !== undefined) {
        giver.handOver(wanted);
        return;
      }
      const reason = "nobody here can say it to the other host";
      this.#tell(name, { kind: "undecided", migration, reason });
    });
  }

  confirm(migration: string, what: "arrived" | "taken"): void {
    const taker = this.#takers.get(migration);
    this.#loop.afterTurn(() => taker?.confirm(what));
  }

  /** Its machines run on where they are; whoever waits for this host sees that it is gone. */
  [Symbol.dispose](): void {
    for (const taker of [...this.#takers.values()]) taker.close();
    for (const giver of [...this.#givers.values()]) giver.close();
  }
}
