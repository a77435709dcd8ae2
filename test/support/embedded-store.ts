/** An embedded store in a folder of the test's own, with clocks that the test sets. */
import type { StoreClocks } from "../../src/store/clocks.ts";
import { EmbeddedStore, type EmbeddedStoreOptions } from "../../src/store/embedded-store.ts";
import type { BucketDefinition } from "../../src/store/store.ts";
import { conformanceBuckets, freshWriteId } from "./store-conformance.ts";

export function testClocks(): StoreClocks & { pass: (milliseconds: number) => void } {
  let passed = 0;
  return {
    wall: () => Date.now() + passed,
    monotonic: () => performance.now() + passed,
    pass: (milliseconds) => {
      passed += milliseconds;
    },
  };
}

export function openStore(
  folder: string,
  options: Partial<EmbeddedStoreOptions> = {},
): EmbeddedStore {
  return EmbeddedStore.open({
    folder,
    buckets: conformanceBuckets,
    clocks: testClocks(),
    ...options,
  });
}

/** A put with a write id of its own. */
export function putOne(
  store: EmbeddedStore,
  ...[bucket, key, value]: [string, string, string]
): Promise<number> {
  return store.put(bucket, key, value, { writeId: freshWriteId() });
}

export function bucket(changes: Partial<BucketDefinition>): BucketDefinition {
  return {
    name: "facts",
    age: "forever",
    size: 64 * 1024 ** 2,
    expendable: false,
    volatile: false,
    ...changes,
  };
}
