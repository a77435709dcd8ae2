/**
 * What a store is killed in: run by the compiled file as its own Bun, with the kill points of the
 * build for fault tests. Says a line for everything that was acknowledged: "PUT KEY REVISION",
 * "SPENT ID", and "DONE".
 */
import { machineClocks } from "../../src/store/clocks.ts";
import { EmbeddedStore } from "../../src/store/embedded-store.ts";
import { newWriteId } from "../../src/store/put-once.ts";
import { restore } from "../../src/store/restore.ts";
import { conformanceBuckets } from "./store-conformance.ts";

const [act = "", folder = "", file = ""] = process.argv.slice(2);

/** At once and whole: a killed process has said what it has said. */
function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function open(): EmbeddedStore {
  return EmbeddedStore.open({ folder, buckets: conformanceBuckets, clocks: machineClocks });
}

async function put(store: EmbeddedStore, key: string, value = key): Promise<void> {
  say(`PUT ${key} ${await store.put("facts", key, value, { writeId: newWriteId() })}`);
}

async function spend(store: EmbeddedStore, id: string): Promise<void> {
  const issued = store.revision;
  if (await store.ledger.spend({ kind: "token", id, issued })) say(`SPENT ${id}`);
}

const acts: Readonly<Record<string, () => Promise<void>>> = {
  /** Rounds of writes that share a transaction, and a token in each. */
  write: async () => {
    await using store = open();
    const run = newWriteId().slice(0, 6);
    for (let round = 0; round < 5; round += 1) {
      const keys = Array.from({ length: 20 }, (_, index) => `k.${run}.${round}.${index}`);
      await Promise.all(keys.map((key) => put(store, key)));
      await spend(store, `t.${run}.${round}`);
    }
  },
  /** Writes until it is killed. */
  endless: async () => {
    await using store = open();
    const run = newWriteId().slice(0, 6);
    for (let round = 0; ; round += 1) {
      const keys = Array.from({ length: 5 }, (_, index) => `k.${run}.${round}.${index}`);
      await Promise.all(keys.map((key) => put(store, key)));
      await spend(store, `t.${run}.${round}`);
    }
  },
  compact: async () => {
    await using store = open();
    await spend(store, "before");
    const ids = Array.from({ length: 12_000 }, (_, index) => `${"i".repeat(100)}.${index}`);
    store.ledger.add(ids.map((id) => ({ kind: "address", id, issued: 1 })));
    await store.ledger.settle("address", 2);
    await spend(store, "after");
  },
  upgrade: async () => {
    await using store = open();
    await store.commitFormat(2);
  },
  backup: async () => {
    await using store = open();
    await store.backup(file);
  },
  restore: async () => {
    restore({ folder, file, withoutLedger: false });
  },
  "restore-without-ledger": async () => {
    restore({ folder, file, withoutLedger: true });
  },
};

const run = acts[act];
if (run === undefined) throw new Error(`There is no act ${act}.`);
await run();
say("DONE");
