import type { AdditionGround } from "../../authority/addition.ts";
import type { SharedStoreConfiguration } from "../../store/nats/configuration.ts";
import { RelayStore } from "../../store/relay-store.ts";
import { type BucketDefinition, type Store, StoreError } from "../../store/store.ts";
import { type Seat, SharedSeat } from "../../store/term/shared-seat.ts";
import { fleetBuckets } from "../protocol.ts";
import type { FleetOperator } from "./operator.ts";

/** Where a shared store says which operator acts. */
const termPlace = { bucket: fleetBuckets.operator, key: "acting" } as const;
/** Where this host's own store remembers how far it has seen the shared one. */
const witnessPlace = { bucket: fleetBuckets.operator, key: "shared-witness" } as const;

/** What devices ask for: the rest is the operator's alone. */
const devicesBuckets: readonly string[] = [
  fleetBuckets.markers,
  fleetBuckets.statuses,
  fleetBuckets.heartbeats,
];
/** Of these a device watches a key of its own. */
const watchedBuckets = [fleetBuckets.markers, fleetBuckets.heartbeats] as const;

/** @throws RecordRefused, StoreError, ValueUnreadable */
export type OperatorOpener = (over: {
  readonly store: Store;
  readonly incarnation: string;
}) => Promise<FleetOperator>;

/**
 * One of several operators over NATS. One acts; all of them serve devices, whichever a device
 * speaks to: what it may write and read is decided here, by the session of its host.
 */
export class SharedOperator {
  readonly #seat: SharedSeat<FleetOperator>;
  readonly #relay: RelayStore;

  /** @throws FileRefused, StoreError for what the configuration names and cannot be used */
  static async open(parts: {
    readonly ground: AdditionGround;
    readonly shared: SharedStoreConfiguration;
    /** Of the fleet, with the bounds that this operator was told. */
    readonly buckets: readonly BucketDefinition[];
    readonly openOperator: OperatorOpener;
  }): Promise<SharedOperator> {
    const { ground, shared, buckets, openOperator } = parts;
    const seat: SharedSeat<FleetOperator> = await SharedSeat.open({
      ...{ ground, shared, term: termPlace, witness: witnessPlace, buckets },
      words: {
        role: "operator",
        whole: "the fleet",
        meanwhile: "nothing is begun or committed by this operator, and devices keep what they run",
        program: "hostler fleet operator",
      },
      open: ({ store, held, isActing }: Seat) => {
        // A plan can have thousands of markers to write: they wait their turn.
        const queued = new RelayStore({ store, mirrored: [], onLost: ground.onFailure });
        const { incarnation } = held.entry;
        return openOperator({ store: whileActing(queued, isActing), incarnation });
      },
    });
    return new SharedOperator(seat, ground);
  }

  private constructor(seat: SharedSeat<FleetOperator>, ground: AdditionGround) {
    this.#seat = seat;
    this.#relay = new RelayStore({
      store: seat.store,
      mirrored: watchedBuckets,
      onLost: (reason) => {
        if (reason instanceof StoreError) ground.end(`devices hear nothing: ${reason.message}`);
        else ground.onFailure(reason);
      },
    });
  }

  /** undefined while it stands by. */
  get operator(): FleetOperator | undefined {
    return this.#seat.holder;
  }

  /** @throws ProblemError while it stands by */
  acting(): FleetOperator {
    return this.#seat.acting();
  }

  storeOf(bucket: string): Store | undefined {
    return devicesBuckets.includes(bucket) ? this.#relay : undefined;
  }

  async stop(): Promise<void> {
    this.#relay.retire();
    await this.#seat.stop();
  }
}

/** A store that takes nothing from an operator whose term is over. Exported for its test. */
export function whileActing(store: Store, isActing: () => boolean): Store {
  const check = (key: string) => {
    if (isActing()) return;
    const message = `Cannot write ${key}: this operator does not act`;
    throw new StoreError(message, { kind: "unavailable" });
  };
  return {
    get capabilities() {
      return store.capabilities;
    },
    get: (bucket, key) => store.get(bucket, key),
    put: async (bucket, key, value, options) => {
      check(key);
      return await store.put(bucket, key, value, options);
    },
    delete: async (bucket, key, options) => {
      check(key);
      return await store.delete(bucket, key, options);
    },
    watch: (bucket, pattern, options) => store.watch(bucket, pattern, options),
    link: (signal) => store.link(signal),
    [Symbol.asyncDispose]: async () => {},
  };
}
