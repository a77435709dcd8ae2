/**
 * What a store of images is killed in: run by the compiled file as its own Bun, with the kill
 * points of the build for fault tests. Says "DONE" at its end.
 */
import { join } from "node:path";
import { ImageStore } from "../../src/image/image-store.ts";

const [act = "", folder = ""] = process.argv.slice(2);
const nixStore = join(folder, "store");
const store = await ImageStore.open(join(folder, "vms"), { nixStore });

const acts: Readonly<Record<string, () => Promise<void>>> = {
  add: async () => {
    const path = join(nixStore, "linux");
    using image = await store.add({
      source: join(nixStore, "image"),
      expected: { kind: "any" },
      wanted: () => [{ key: "kernel", file: { kind: "outside", path } }],
    });
    process.stdout.write(`${image.key}\n`);
  },
  remove: async () => {
    await store.removeUnused(new Set());
  },
};

const run = acts[act];
if (run === undefined) throw new Error(`There is no act ${act}.`);
await run();
process.stdout.write("DONE\n");
