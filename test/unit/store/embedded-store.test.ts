/** The embedded store does what every store does, opened again and restored too. */
import { restore } from "../../../src/store/restore.ts";
import { openStore } from "../../support/embedded-store.ts";
import { describeStore } from "../../support/store-conformance.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

describeStore(
  "the embedded store",
  async (buckets) => {
    const folder = temporaryFolder();
    const place = folder.file("store");
    let store = openStore(place, { buckets });
    const reopen = async () => {
      await store[Symbol.asyncDispose]();
      store = openStore(place, { buckets });
      return store;
    };
    return {
      store,
      restart: reopen,
      rewind: {
        mark: async () => {
          await store.backup(folder.file("backup"));
        },
        back: async () => {
          await store[Symbol.asyncDispose]();
          restore({ folder: place, file: folder.file("backup"), withoutLedger: false });
          store = openStore(place, { buckets });
          return store;
        },
      },
      [Symbol.asyncDispose]: async () => {
        await store[Symbol.asyncDispose]();
        folder[Symbol.dispose]();
      },
    };
  },
  { countsBytes: true, restart: true, rewind: true },
);
