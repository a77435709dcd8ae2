import type { Milliseconds } from "../../units/units.ts";
import { unknownBucket } from "../memory-store.ts";
import {
  type BucketDefinition,
  type Capabilities,
  type Entry,
  type Revision,
  refused,
  StoreError,
} from "../store.ts";
import { configOf, differencesOf, isFixed } from "./bucket-stream.ts";
import {
  type DurabilityProof,
  judgeDurability,
  type Monitored,
  readMonitoring,
  type ServerFacts,
} from "./durability.ts";
import type { JetStream, StreamInfo } from "./jet-stream.ts";

export interface BucketKeeperOptions {
  readonly buckets: readonly BucketDefinition[];
  /**
   * An owner makes the streams, and changes them to what the configuration says. A user, who has
   * no leave for that, takes them as they are; it needs STREAM.INFO of its buckets.
   */
  readonly role: "owner" | "user";
  /** Servers that keep each bucket: 1, 3 or 5. */
  readonly replicas?: 1 | 3 | 5;
  readonly proof: DurabilityProof;
  readonly deadline: Milliseconds;
}

/** The highest revision that was seen, and of what: a stream that has it not was put back. */
type Anchor = Pick<Entry, "key" | "revision" | "writeId">;

interface Kept {
  readonly definition: BucketDefinition;
  anchor: Anchor | undefined;
  /** Why nothing may be written, for people; undefined before the first look too. */
  refusal: string | undefined;
  acknowledgement: Capabilities["acknowledgement"] | undefined;
}

/** The buckets of a store in NATS: made, compared with what they should be, and remembered. */
export class BucketKeeper {
  readonly #options: BucketKeeperOptions;
  readonly #buckets: ReadonlyMap<string, Kept>;

  constructor(options: BucketKeeperOptions) {
    this.#options = options;
    this.#buckets = new Map(
      options.buckets.map((definition) => [
        definition.name,
        { definition, anchor: undefined, refusal: undefined, acknowledgement: undefined },
      ]),
    );
  }

  /** What an acknowledgement of the least of the buckets is worth that are not volatile. */
  get acknowledgement(): Capabilities["acknowledgement"] {
    const durable = [...this.#buckets.values()].filter(({ definition }) => !definition.volatile);
    if (durable.length === 0 && this.#buckets.size > 0) return "memory";
    const worst = ["interval", "unknown", "replicated", "fsync"] as const;
    const found = durable.map(({ acknowledgement }) => acknowledgement ?? "unknown");
    return worst.find((one) => found.includes(one)) ?? "unknown";
  }

  /** @throws StoreError refused, for a bucket that nobody defined */
  definition(bucket: string): BucketDefinition {
    return this.#kept(bucket).definition;
  }

  #kept(bucket: string): Kept {
    const kept = this.#buckets.get(bucket);
    if (kept === undefined) throw unknownBucket(bucket, [...this.#buckets.keys()]);
    return kept;
  }

  /** @throws StoreError refused, while what is acknowledged could be lost */
  checkWritable(bucket: string): void {
    const { refusal } = this.#kept(bucket);
    if (refusal !== undefined) throw refused("a bucket that can be relied upon", refusal);
  }

  /** What came, or was written: the highest revision is remembered. */
  saw({ bucket, key, revision, writeId }: Pick<Entry, "bucket" | "key" | "revision" | "writeId">) {
    const kept = this.#kept(bucket);
    if (kept.anchor === undefined || kept.anchor.revision < revision) {
      kept.anchor = { key, revision, writeId };
    }
  }

  /**
   * Makes what is missing, compares what is there, and asks what acknowledgements are worth.
   * @returns what an operator must know, and the buckets that were put back
   * @throws StoreError unavailable, denied, ambiguous: to be tried again
   */
  async prepare(
    stream: JetStream,
    server: ServerFacts,
  ): Promise<{ readonly refusals: readonly string[]; readonly rewound: readonly string[] }> {
    const { proof, deadline } = this.#options;
    const monitored =
      proof.kind === "monitoring" ? await readMonitoring(proof.address, deadline) : undefined;
    const refusals: string[] = [];
    const rewound: string[] = [];
    for (const kept of this.#buckets.values()) {
      const found = await this.#make(stream, kept.definition).catch(refusalIn);
      if (typeof found === "string") kept.refusal = found;
      else {
        if (await isRewound(stream, kept, found)) rewound.push(kept.definition.name);
        this.#judge(kept, found, { server, monitored });
      }
      if (kept.refusal !== undefined) refusals.push(kept.refusal);
    }
    return { refusals, rewound };
  }

  #judge(
    kept: Kept,
    found: StreamInfo,
    seen: { readonly server: ServerFacts; readonly monitored: Monitored | undefined },
  ): void {
    const { name, volatile } = kept.definition;
    const facts = {
      bucket: name,
      volatile,
      replicas: Number(found.config["num_replicas"] ?? 1),
      leader: found.leader,
      persistence: textOf(found.config["persist_mode"]),
    };
    const judged = judgeDurability(facts, this.#options.proof, seen);
    kept.refusal = "refusal" in judged ? judged.refusal : undefined;
    kept.acknowledgement = "refusal" in judged ? "interval" : judged.acknowledgement;
  }

  async #make(stream: JetStream, definition: BucketDefinition): Promise<StreamInfo> {
    const { role, replicas = 1 } = this.#options;
    const wanted = configOf(definition, replicas);
    const found = await stream.info(definition.name);
    if (role === "user") return found ?? absent(definition.name);
    if (found === undefined) await stream.create(wanted);
    else {
      const differences = differencesOf(wanted, found.config);
      const fixed = differences.find(isFixed);
      if (fixed !== undefined) throw otherStream(definition.name, fixed);
      if (differences.length === 0) return found;
      // What the server lets nobody change stays as it is.
      const { max_consumers: kept = -1 } = found.config;
      await stream.update({ ...found.config, ...wanted, max_consumers: Number(kept) });
    }
    return (await stream.info(definition.name)) ?? absent(definition.name);
  }

  /** What a stream has now. @throws StoreError */
  async look(
    stream: JetStream,
    bucket: string,
  ): Promise<{
    readonly first: Revision;
    readonly last: Revision;
    readonly isRewound: boolean;
  }> {
    const found = (await stream.info(bucket)) ?? absent(bucket);
    const isBack = await isRewound(stream, this.#kept(bucket), found);
    return { first: found.first, last: found.last, isRewound: isBack };
  }

  /** Whether a watch may go on: nothing that it has to hear of has been removed. */
  vouches(
    bucket: string,
    since: Revision,
    { first, last }: { readonly first: Revision; readonly last: Revision },
  ): boolean {
    const { age, expendable } = this.#kept(bucket).definition;
    const mayForget = age !== "forever" || expendable;
    // In a bucket that forgets, a deletion itself may be gone.
    return since <= last && (!mayForget || first <= since + 1);
  }
}

/**
 * Whether a stream is older than what was seen of it: restored, or begun anew. One that has since
 * gone beyond, and wrote this very key again, is not found out.
 */
async function isRewound(stream: JetStream, kept: Kept, found: StreamInfo): Promise<boolean> {
  const { anchor, definition } = kept;
  if (anchor === undefined) return false;
  if (found.last >= anchor.revision) {
    const present = await stream.get(definition.name, anchor.key);
    const isGone = present === undefined && definition.age === "forever" && !definition.expendable;
    const isOlder = present !== undefined && present.revision < anchor.revision;
    const isOther = present?.revision === anchor.revision && present.writeId !== anchor.writeId;
    if (!isGone && !isOlder && !isOther) return false;
  }
  kept.anchor = undefined;
  return true;
}

/** What no second try makes better, for people. @throws any other error as it is */
function refusalIn(error: unknown): string {
  const kind = error instanceof StoreError ? error.problem.kind : undefined;
  if (kind === "refused" || kind === "denied") return (error as StoreError).message;
  throw error;
}

function absent(bucket: string): never {
  const said = `The bucket ${bucket} is not there: whoever owns it has not made it yet`;
  throw new StoreError(said, { kind: "unavailable" });
}

function otherStream(
  bucket: string,
  { name, expected, received }: { name: string; expected: string; received: string },
): StoreError {
  const message =
    `The stream KV_${bucket} cannot be the bucket ${bucket}: expected ${name} ${expected}, ` +
    `received ${received}, which NATS cannot change. Remove the stream, or give it another name`;
  return new StoreError(message, { kind: "refused", expected, received });
}

const textOf = (value: unknown) => (typeof value === "string" ? value : undefined);
