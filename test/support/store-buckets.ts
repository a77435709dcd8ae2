/** The buckets of the conformance suite, for programs that are no tests. */
import type { BucketDefinition } from "../../src/store/store.ts";

/** The buckets that a store of the suite has. */
export const conformanceBuckets: readonly BucketDefinition[] = [
  { name: "facts", age: "forever", size: 4 * 1024 ** 2, expendable: false, volatile: false },
  { name: "records", age: 3_600_000, size: 64 * 1024, expendable: true, volatile: false },
  { name: "beats", age: 3_600_000, size: 1024 ** 2, expendable: true, volatile: true },
  { name: "few", age: "forever", size: 4_096, expendable: false, volatile: false },
];
