import type { AdditionGround } from "../../authority/addition.ts";
import type { MetricsRegistry } from "../../http/metrics.ts";
import type { SharedStoreConfiguration } from "../../store/nats/configuration.ts";
import { patienceFor, putOnce } from "../../store/put-once.ts";
import { termLimits } from "../../store/term/lifecycle-term.ts";
import { type Seat, SharedSeat } from "../../store/term/shared-seat.ts";
import { FencedStore } from "./fenced-store.ts";
import type { ClusterMaster, MasterOpener } from "./master.ts";
import { masterBucket } from "./records.ts";

/** Where a shared store says which master acts. */
const termPlace = { bucket: masterBucket.name, key: "acting" } as const;
/** Where this host's own store remembers how far it has seen the shared one. */
export const witnessPlace = { bucket: masterBucket.name, key: "shared-witness" } as const;

export interface SharedParts {
  readonly ground: AdditionGround;
  readonly shared: SharedStoreConfiguration;
  readonly openMaster: MasterOpener;
}

/** One of several masters over NATS. */
export class SharedMaster {
  readonly #seat: SharedSeat<ClusterMaster>;

  /** @throws FileRefused, StoreError for what the configuration names and cannot be used */
  static async open({ ground, shared, openMaster }: SharedParts): Promise<SharedMaster> {
    const seat = await SharedSeat.open({
      ...{ ground, shared, term: termPlace, witness: witnessPlace, buckets: [masterBucket] },
      words: {
        role: "master",
        whole: "the cluster",
        meanwhile: "no master acts by this one, and workers keep what they have",
        program: "hostler vm master",
      },
      open: (taken) => openOver(ground, taken, openMaster),
    });
    return new SharedMaster(seat);
  }

  private constructor(seat: SharedSeat<ClusterMaster>) {
    this.#seat = seat;
  }

  /** What this one decides; undefined while it stands by. */
  get master(): ClusterMaster | undefined {
    return this.#seat.holder;
  }

  /** @throws ProblemError */
  acting(): ClusterMaster {
    return this.#seat.acting();
  }

  measure(metrics: MetricsRegistry): void {
    const help = "1: this master acts; 0: it stands by";
    const name = "hostler_vm_master_acting";
    metrics.gauge({ name, help }, () => (this.#seat.isActing ? 1 : 0));
  }

  stop(): Promise<void> {
    return this.#seat.stop();
  }
}

async function openOver(
  ground: AdditionGround,
  { store: shared, held, isActing }: Seat,
  openMaster: MasterOpener,
): Promise<ClusterMaster> {
  const { jump, incarnation } = held.entry;
  const store = new FencedStore({
    ...{ store: shared, jump, isActing },
    isOther: (key) => key === termPlace.key,
    onOvertaken: (key) => ground.end(`another master has written ${masterBucket.name}/${key}`),
    write: async (write) => {
      using patience = patienceFor(ground.loop, termLimits.term);
      return await putOnce(shared, write, patience);
    },
  });
  await store.adopt();
  return await openMaster({ store, incarnation, isActing });
}
