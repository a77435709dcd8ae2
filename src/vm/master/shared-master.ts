import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import * as v from "valibot";
import type { AdditionGround } from "../../authority/addition.ts";
import { bootClockNow, monotonicNow } from "../../event-loop/clock.ts";
import type { MetricsRegistry } from "../../http/metrics.ts";
import { ProblemError } from "../../http/problem.ts";
import { withFile } from "../../journal/file-refused.ts";
import { NatsStore } from "../../store/nats/nats-store.ts";
import { newWriteId, patienceFor, putOnce } from "../../store/put-once.ts";
import { type Store, StoreError } from "../../store/store.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";
import type { SharedStoreConfiguration } from "./configuration.ts";
import { FencedStore } from "./fenced-store.ts";
import { type SeenTerm, type TermWitness, termLimits } from "./lifecycle-term.ts";
import type { ClusterMaster, MasterOpener } from "./master.ts";
import { masterBucket } from "./records.ts";
import { SharedLink } from "./shared-link.ts";
import { TermKeeper, termKey } from "./term-keeper.ts";

/** Where this host's own store remembers how far it has seen the shared one. */
const WITNESS_KEY = "shared-witness";
/** Older ones name the incarnation as well, which nobody asks for. */
const witnessSchema = v.object({
  position: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
});
/** What an ending master waits for a store that may be away. */
const STOP_TIME: Milliseconds = 3_000;

export interface SharedParts {
  readonly ground: AdditionGround;
  readonly shared: SharedStoreConfiguration;
  readonly openMaster: MasterOpener;
}

/**
 * One of several masters over NATS: it stands by until it may act, and ends when it may no more, to
 * be started anew and stand by.
 */
export class SharedMaster {
  readonly #parts: SharedParts;
  readonly #store: NatsStore;
  readonly #keeper: TermKeeper;
  readonly #link: SharedLink;
  #master: ClusterMaster | undefined;

  /** @throws FileRefused, StoreError for what the configuration names and cannot be used */
  static async open(parts: SharedParts): Promise<SharedMaster> {
    return new SharedMaster(parts, await readWitness(parts.ground.store));
  }

  private constructor(parts: SharedParts, witness: TermWitness | undefined) {
    const { ground, shared } = parts;
    const { loop, logger } = ground;
    this.#parts = parts;
    this.#store = openNats(ground, shared);
    this.#store.ready().catch((error: Error) => ground.end(error.message));
    this.#keeper = new TermKeeper({
      store: this.#store,
      holder: shared.name ?? hostname(),
      witness,
      now: bootClockNow,
      wakeAfter: (wait, call) => loop.wakeAfter(wait, call),
      patience: (duration) => patienceFor(loop, duration),
      noteWitness: (seen) => noteWitness(ground, seen),
      onBegin: (held) => this.#begin(held),
      onEnd: (reason) => ground.end(`this master acts no more: ${reason}`),
      onFailure: ground.onFailure,
    });
    logger.info(`stands by: follows in NATS which master acts, at ${shared.servers.join(", ")}`);
    this.#link = new SharedLink({
      store: this.#store,
      ...{ servers: shared.servers, loop, logger, now: monotonicNow },
      onFailure: ground.onFailure,
    });
    this.#keeper.start();
  }

  get isActing(): boolean {
    return this.#master !== undefined && this.#keeper.isActing;
  }

  /** What this one decides; undefined while it stands by. */
  get master(): ClusterMaster | undefined {
    return this.isActing ? this.#master : undefined;
  }

  /** @throws ProblemError */
  acting(): ClusterMaster {
    if (this.master !== undefined) return this.master;
    const { lostFor, where } = this.#link;
    if (lostFor !== undefined) {
      throw new ProblemError(
        "unavailable",
        `This master stands by: NATS is not reached at ${where}`,
        {
          expected: "a NATS server that answers",
          received: `none for ${formatDuration(lostFor)}`,
          hint: "Look at that server, and at [store] of the master's configuration",
        },
      );
    }
    const { holder } = this.#keeper;
    const who = holder === undefined ? "which one acts is not known yet" : `${holder} acts`;
    throw new ProblemError("unavailable", `This master stands by: ${who}`, {
      expected: "the master that acts for the cluster",
      received: "another one",
      hint: `Ask that one; when it is gone, another acts within ${TAKEOVER_SECONDS} s`,
    });
  }

  #begin(held: SeenTerm): void {
    this.#open(held).catch((error: unknown) => {
      const { ground } = this.#parts;
      // The store is away again, or another one was quicker: as a term that is over.
      if (error instanceof StoreError) ground.end(`this master cannot act: ${error.message}`);
      else if (error instanceof Error && "exitCode" in error) ground.end(error.message);
      else ground.onFailure(error);
    });
  }

  async #open({ entry }: SeenTerm): Promise<void> {
    const { ground, openMaster } = this.#parts;
    const isActing = () => this.#keeper.isActing;
    const store = new FencedStore({
      store: this.#store,
      isOther: (key) => key === termKey,
      jump: entry.jump,
      isActing,
      onOvertaken: (key) => ground.end(`another master has written ${masterBucket.name}/${key}`),
      write: async (write) => {
        using patience = patienceFor(ground.loop, termLimits.term);
        return await putOnce(this.#store, write, patience);
      },
    });
    await store.adopt();
    this.#master = await openMaster({ store, incarnation: entry.incarnation, isActing });
    ground.logger.info(`acts for the cluster: term ${entry.term}, as ${entry.holder}`);
  }

  measure(metrics: MetricsRegistry): void {
    const help = "1: this master acts; 0: it stands by";
    metrics.gauge({ name: "hostler_vm_master_acting", help }, () => (this.isActing ? 1 : 0));
  }

  async stop(): Promise<void> {
    // What waits for a store that is away is let go of with it.
    using _limit = this.#parts.ground.loop.wakeAfter(STOP_TIME, () => void this.#close());
    await this.#master?.stop();
    await this.#keeper.release();
    await this.#close();
  }

  async #close(): Promise<void> {
    this.#keeper.close();
    this.#link.close();
    await this.#store[Symbol.asyncDispose]();
  }
}

const TAKEOVER_SECONDS = (termLimits.term + termLimits.margin) / 1_000;

function openNats({ loop, logger }: AdditionGround, shared: SharedStoreConfiguration): NatsStore {
  const { servers, credentials, tls, replicas, proof } = shared;
  const read = (path: string | undefined) => (path === undefined ? undefined : readText(path));
  const [ca, certificate, key] = [read(tls.ca), read(tls.certificate), read(tls.key)];
  const isPlain = ca === undefined && certificate === undefined && key === undefined;
  return new NatsStore(loop, {
    servers,
    credentials,
    replicas,
    proof,
    ...(!isPlain && {
      tls: {
        ...(ca !== undefined && { ca }),
        ...(certificate !== undefined && { certificate }),
        ...(key !== undefined && { key }),
      },
    }),
    program: "hostler vm master",
    role: "owner",
    buckets: [masterBucket],
    onTrouble: (message) => logger.warn(message),
  });
}

/** @throws FileRefused */
function readText(path: string): string {
  const otherwise = "name another file in [store] of the master's configuration";
  const what = "read what TLS to NATS is made with";
  return withFile({ what, path, otherwise }, () => readFileSync(path, "utf8"));
}

/** How far this host has seen of the shared store. Exported for its test. */
export async function readWitness(store: Pick<Store, "get">): Promise<TermWitness | undefined> {
  const entry = await store.get(masterBucket.name, WITNESS_KEY);
  if (entry?.operation !== "put") return undefined;
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), witnessSchema), entry.value);
  // Its own word, in a database with checksums: what is not understood is of another version.
  return parsed.success ? parsed.output : undefined;
}

async function noteWitness({ store, logger }: AdditionGround, witness: TermWitness): Promise<void> {
  try {
    const options = { writeId: newWriteId() };
    await store.put(masterBucket.name, WITNESS_KEY, JSON.stringify(witness), options);
  } catch (error) {
    logger.warn(`what was seen of the shared store is not noted: ${(error as Error).message}`);
  }
}
