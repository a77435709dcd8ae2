import { readFileSync, rmSync, statfsSync, statSync } from "node:fs";
import { join } from "node:path";
import { wallClock } from "../event-loop/clock.ts";
import type { EventLoop } from "../event-loop/event-loop.ts";
import { keyOfNar } from "../image/image-request.ts";
import type { ImageStore } from "../image/image-store.ts";
import { parseHash } from "../image/nar.ts";
import type { Bytes } from "../units/units.ts";
import { hostlerVersion } from "../units/version.ts";
import { type MachineRecord, newRecord } from "./machine-record.ts";
import type { DiskPreparation } from "./perform/disk-preparation.ts";
import { MigrationRefused } from "./perform/migration-dial.ts";
import type { GiverProgress, MigrationGiver } from "./perform/migration-giver.ts";
import type { Reservation, Standing, TakerHost } from "./perform/migration-taker.ts";
import type { Migrations, TicketRequest } from "./perform/migrations.ts";
import type { WorkerNetworks } from "./perform/worker-networks.ts";
import {
  type MigrationOffer,
  type MigrationTicket,
  readTicket,
  refuseTicketHost,
  type TakerFacts,
} from "./protocol-migration.ts";
import { type CardRequest, withAddresses } from "./protocol-network.ts";
import type { Entry, MachineWorker } from "./worker.ts";

/** A machine's record, before it has a user of this host. */
export type UnallocatedRecord = Omit<MachineRecord, "allocation" | "boot"> & {
  readonly allocation: Pick<MachineRecord["allocation"], "cards">;
};

interface Desk {
  readonly worker: MachineWorker;
  readonly migrations: Migrations;
  readonly loop: EventLoop;
  readonly images: ImageStore;
  readonly preparation: DiskPreparation;
  readonly network: WorkerNetworks;
  readonly artifactsFolder: string;
  /** Why there can be no machine of that name. */
  readonly refuseName: (name: string) => string | undefined;
  /** Keeps a name for a machine that is on its way. */
  readonly hold: (name: string) => void;
  readonly release: (name: string) => void;
  /** @returns why there can be none */
  readonly add: (record: UnallocatedRecord) => string | undefined;
}

/** What a worker knows and does about machines that come from other hosts, and go there. */
export class MigrationDesk {
  readonly #desk: Desk;
  /** Machines that came, by their migration: a later one of the same name is another. */
  readonly #arrivals = new Map<string, Entry>();

  constructor(desk: Desk) {
    this.#desk = desk;
    // Of images that were on their way to a worker that is no more.
    rmSync(this.#incoming, { recursive: true, force: true });
  }

  get #incoming(): string {
    return join(this.#desk.artifactsFolder, "incoming");
  }

  /** @throws MigrationRefused */
  async openTicket(request: TicketRequest): Promise<MigrationTicket> {
    const { name, host, networks } = request;
    const refusal =
      this.#desk.refuseName(name) ??
      refuseTicketHost(host) ??
      (networks.length === 0
        ? undefined
        : this.#desk.network.refuse({ name, networks: [...networks] }));
    if (refusal !== undefined) throw new MigrationRefused(refusal);
    const expires = wallClock(this.#desk.worker.now + request.time);
    return await this.#desk.migrations.openTicket(this.#taking, request, expires);
  }

  /**
   * Offers a machine to the host of a ticket; nothing is done to the machine.
   * @throws MigrationRefused, with what is in the way
   */
  async offer(
    entry: Entry,
    text: string,
    options: {
      readonly signal: AbortSignal;
      readonly onProgress: (progress: GiverProgress) => void;
    },
  ): Promise<{ readonly giver: MigrationGiver; readonly ticket: MigrationTicket }> {
    const read = readTicket(text);
    if (read.kind === "refused") throw new MigrationRefused(`The ticket: ${read.reason}`);
    const ticket = read.value;
    const { record } = entry.machine;
    if (ticket.name !== record.spec.name) {
      throw new MigrationRefused(
        `Expected a ticket for ${record.spec.name}, received one for ${ticket.name}`,
      );
    }
    const offer = this.#offerOf(entry);
    const image = record.image === null ? undefined : this.#desk.images.get(record.image);
    if (image === undefined) throw new MigrationRefused("Its image is not in the store");
    using _held = image;
    const giver = await this.#desk.migrations.offer({ ticket, offer, image }, options);
    return { giver, ticket };
  }

  #offerOf({ machine, state }: Entry): MigrationOffer {
    const { record, attached } = machine;
    const { spec, choice, allocation } = record;
    if (record.assigned !== undefined) {
      throw new MigrationRefused(
        `${spec.name} was given to this worker by a master, which says where it runs: at the ` +
          "master, hostler vm cordon keeps new machines from a worker, and what is deleted there " +
          "and applied anew is made on another one",
      );
    }
    if (attached === undefined || choice === null) {
      throw new MigrationRefused(`${spec.name} is ${state.phase}: no VMM that answers has it`);
    }
    const { connection, driver, machine: specification } = attached;
    const stays = driver.whyStays(specification, connection.version);
    if (stays !== undefined) {
      throw new MigrationRefused(`${spec.name} cannot move: ${stays}. A newer one can send it`);
    }
    if (spec.hash === undefined) throw new MigrationRefused("A machine without an image stays");
    const bound = driver.boundToBuild(specification);
    const disks = specification.disks.filter(({ readOnly }) => !readOnly);
    const image = this.#desk.images.get(record.image ?? "");
    if (image === undefined) throw new MigrationRefused("Its image is not in the store");
    using held = image;
    return {
      kind: "offer",
      hostler: hostlerVersion,
      ...{ spec, cards: allocation.cards, choice, vmm_version: connection.version },
      same_build_only: bound.length === 0 ? null : bound.join("; "),
      wanted: state.wanted === "paused" ? "paused" : "running",
      memory: specification.memory,
      image: { bytes: held.record.bytes },
      disks: disks.map(({ id, format, path }) => ({ id, format, bytes: storedBytes(path) })),
    };
  }

  get #taking(): TakerHost {
    const { loop, preparation, worker } = this.#desk;
    return {
      loop,
      reserve: (offer, networks) => this.#reserve(offer, networks),
      facts: (offer, name) => this.#facts(offer, name),
      imageFolder: (migration) => join(this.#incoming, migration),
      dropImage: (folder) => rmSync(folder, { recursive: true, force: true }),
      storeImage: async (offer, folder) => {
        try {
          return await preparation.bring(this.#recordOf(offer), folder);
        } finally {
          rmSync(folder, { recursive: true, force: true });
        }
      },
      create: (offer, migration) => this.#create(offer, migration),
      standing: (name, migration) => this.#standing(name, migration),
      tell: (name, event) => worker.handle(name, event),
      onTurn: (call) => worker.onTurn(call),
    };
  }

  /** Keeps name and addresses for a machine that may come. @returns why not */
  #reserve(offer: MigrationOffer, wishes: readonly CardRequest[]): Reservation | string {
    const { spec, cards } = offer;
    const { network, refuseName, hold, release } = this.#desk;
    const { name } = spec;
    const taken = refuseName(name);
    if (taken !== undefined) return taken;
    const received = network.receive(spec, cards, wishes);
    if (received.kind === "refused") {
      const addresses = cards.map(({ address }) => address).join(", ") || "none";
      return `its addresses (${addresses}) cannot be its own here: ${received.message}`;
    }
    hold(name);
    const networks = withAddresses(spec.networks, received.cards);
    return {
      offer: {
        ...offer,
        spec: networks === undefined ? spec : { ...spec, networks },
        cards: received.cards,
      },
      [Symbol.dispose]: () => {
        release(name);
        network.unreserve(name);
      },
    };
  }

  #facts(offer: MigrationOffer, name: string): TakerFacts {
    const { worker, images, artifactsFolder } = this.#desk;
    const choice = worker.choose(offer.choice);
    const digest = parseHash(offer.spec.hash ?? "");
    using image = digest === undefined ? undefined : images.get(keyOfNar(digest));
    const { bavail, bsize } = statfsSync(artifactsFolder);
    return {
      name,
      refusal: digest === undefined ? "expected a machine of an image, received none" : undefined,
      program: choice.kind === "refused" ? { refused: choice.reason } : choice.program,
      hasImage: image !== undefined,
      freeDisk: bavail * bsize,
      freeMemory: freeMemory(),
    };
  }

  #recordOf({ spec, cards, choice }: MigrationOffer): MachineRecord {
    const digest = parseHash(spec.hash ?? "");
    const image = digest === undefined ? null : keyOfNar(digest);
    // A user of this host's, and its boot, when it is one of its machines.
    const allocation = { user: 1, cards };
    return newRecord({ spec, owner: "received", allocation, choice, image, boot: "" });
  }

  /** Whoever reserved its name and address gives them to the machine that there is then. */
  #create(offer: MigrationOffer, migration: string): string | undefined {
    const { add, worker, release } = this.#desk;
    const { name } = offer.spec;
    const refusal = add(this.#recordOf(offer));
    if (refusal !== undefined) return refusal;
    release(name);
    const entry = worker.machines.get(name);
    if (entry !== undefined) this.#arrivals.set(migration, entry);
    worker.handle(name, { kind: "create", wanted: offer.wanted, migration });
    return undefined;
  }

  #standing(name: string, migration: string): Standing {
    const arrival = this.#arrivals.get(migration);
    const entry = this.#desk.worker.machines.get(name);
    if (arrival === undefined || entry !== arrival) {
      this.#arrivals.delete(migration);
      return { kind: "gone", reason: arrival?.state.reason ?? "it is not there any more" };
    }
    const { phase, capture, wanted, reason } = entry.state;
    const isComing = capture?.id === migration && capture.stage === "arriving";
    if (isComing) return { kind: phase === "arrived" ? "arrived" : "coming" };
    if (wanted !== "absent") return { kind: "taken" };
    return { kind: "gone", reason: reason ?? "it is being removed" };
  }
}

/** What a file takes of its disk. */
function storedBytes(path: string): Bytes {
  const blockBytes = 512;
  return (statSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * blockBytes;
}

/** proc_meminfo(5): what can be had without swapping. */
function freeMemory(): Bytes {
  const line = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8"));
  return line === null ? Number.MAX_SAFE_INTEGER : Number(line[1]) * 1024;
}
