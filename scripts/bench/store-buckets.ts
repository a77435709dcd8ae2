/** The bucket of the store's bench. */
import type { BucketDefinition } from "../../src/store/store.ts";

export const benchBuckets: readonly BucketDefinition[] = [
  { name: "facts", age: "forever", size: 256 * 1024 ** 2, expendable: false, volatile: false },
];
