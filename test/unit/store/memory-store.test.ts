/** The store in memory does what every store does. */
import { MemoryStore } from "../../../src/store/memory-store.ts";
import { describeStore } from "../../support/store-conformance.ts";

describeStore(
  "the store in memory",
  async (buckets) => {
    const store = new MemoryStore({ buckets });
    return { store, [Symbol.asyncDispose]: () => store[Symbol.asyncDispose]() };
  },
  { countsBytes: true },
);
