/** The embedded store on a small file system of its own, which is filled. */

import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { appendFileSync, existsSync, mkdirSync, rmSync, statfsSync } from "node:fs";
import type { EmbeddedStore } from "../../src/store/embedded-store.ts";
import { retentionLimits } from "../../src/store/retention.ts";
import { bucket, openStore, putOne } from "../support/embedded-store.ts";
import { root, skipUnless } from "../support/skips.ts";
import { describeStore, problemOf } from "../support/store-conformance.ts";
import { type TemporaryFolder, temporaryFolder } from "../support/temporary-folder.ts";

setDefaultTimeout(60_000);

const mebibyte = 1024 ** 2;

/** A tmpfs of so many MiB, until it is disposed of. */
function smallDisk(size: number): Disposable & { path: string; fill: (leave?: number) => void } {
  const folder: TemporaryFolder = temporaryFolder();
  const path = folder.file("disk");
  mkdirSync(path);
  const mounted = spawnSync("mount", [
    "-t",
    "tmpfs",
    "-o",
    `size=${size}m,mode=0700`,
    "none",
    path,
  ]);
  if (mounted.status !== 0) throw new Error(`${mounted.stderr}`);
  return {
    path,
    fill: (leave = 0) => {
      const { bavail, bsize } = statfsSync(path);
      try {
        appendFileSync(`${path}/filler`, new Uint8Array(Math.max(0, bavail * bsize - leave)));
      } catch (error) {
        // As much of it as there was room for was written.
        if ((error as { code?: string }).code !== "ENOSPC") throw error;
      }
    },
    [Symbol.dispose]: () => {
      spawnSync("umount", ["-l", path]);
      folder[Symbol.dispose]();
    },
  };
}

function clear(path: string): void {
  rmSync(`${path}/filler`, { force: true });
}

skipUnless("the embedded store on a disk that is filled", root, () => {
  describeStore(
    "the embedded store on a small disk",
    async (buckets) => {
      const disk = smallDisk(48);
      const store = openStore(`${disk.path}/store`, { buckets });
      return {
        store,
        disk: { fill: async () => disk.fill(), clear: async () => clear(disk.path) },
        [Symbol.asyncDispose]: async () => {
          await store[Symbol.asyncDispose]();
          disk[Symbol.dispose]();
        },
      };
    },
    { countsBytes: true, disk: true },
  );

  describe("nine tenths", () => {
    let disk: ReturnType<typeof smallDisk>;
    let store: EmbeddedStore;
    const buckets = [
      bucket({ name: "facts" }),
      bucket({ name: "logs", expendable: true }),
      bucket({ name: "notes", expendable: true }),
    ];
    beforeEach(() => {
      disk = smallDisk(48);
      store = openStore(`${disk.path}/store`, { buckets });
    });
    afterEach(async () => {
      await store[Symbol.asyncDispose]();
      disk[Symbol.dispose]();
    });

    const fill = (name: string, count: number) =>
      Promise.all(
        Array.from({ length: count }, (_, key) =>
          putOne(store, name, `k.${key}`, "v".repeat(32 * 1024)),
        ),
      );
    const isThere = async (name: string, key: number) =>
      (await store.get(name, `k.${key}`)) !== undefined;
    const used = () => {
      const { blocks, bavail } = statfsSync(disk.path);
      return 1 - bavail / blocks;
    };

    test("below it nothing goes; above it the oldest that may", async () => {
      await fill("facts", 100);
      await fill("logs", 300);
      await fill("notes", 300);
      await store.tend();
      expect(await isThere("logs", 0)).toBe(true);
      disk.fill(2 * mebibyte);
      expect(used()).toBeGreaterThan(retentionLimits.fullness);
      await store.tend();
      expect(used()).toBeLessThanOrEqual(retentionLimits.fullness);
      expect(await isThere("logs", 0)).toBe(false);
      expect(await isThere("notes", 299)).toBe(true);
      for (let key = 0; key < 100; key += 1) expect(await isThere("facts", key)).toBe(true);
    });

    test("at the very end facts still land: what may go goes at once", async () => {
      await fill("logs", 600);
      disk.fill();
      await fill("facts", 400);
      for (let key = 0; key < 400; key += 1) expect(await isThere("facts", key)).toBe(true);
      expect(await isThere("logs", 0)).toBe(false);
    });

    test("what may not go stays, and the ledger refuses as well; both go on later", async () => {
      await fill("facts", 100);
      disk.fill();
      rmSync(`${disk.path}/store/reserve`, { force: true });
      disk.fill();
      const spending = { kind: "token", id: "x".repeat(150), issued: store.revision };
      expect(await problemOf(fill("facts", 300))).toEqual({ kind: "full" });
      const spent: boolean[] = [];
      const problem = await problemOf(
        (async () => {
          for (let id = 0; id < 1_000; id += 1) {
            spent.push(await store.ledger.spend({ ...spending, id: `${spending.id}.${id}` }));
          }
        })(),
      );
      expect(problem).toEqual({ kind: "full" });
      expect(store.ledger.entries).toBe(spent.length);
      await store.tend();
      for (let key = 0; key < 100; key += 1) expect(await isThere("facts", key)).toBe(true);
      clear(disk.path);
      await fill("facts", 100);
      expect(await store.ledger.spend({ ...spending, id: `${spending.id}.${spent.length}` })).toBe(
        true,
      );
      await store.tend();
      expect(existsSync(`${disk.path}/store/reserve`)).toBe(true);
      await store[Symbol.asyncDispose]();
      store = openStore(`${disk.path}/store`, { buckets });
      expect(store.ledger.entries).toBe(spent.length + 1);
    });

    test("a store on a full disk is opened, with what it keeps in reserve", async () => {
      await fill("facts", 100);
      await store[Symbol.asyncDispose]();
      disk.fill();
      store = openStore(`${disk.path}/store`, { buckets });
      expect(await isThere("facts", 99)).toBe(true);
    });

    test("a backup that has no room is refused, and leaves nothing", async () => {
      await fill("facts", 300);
      disk.fill(2 * mebibyte);
      const before = used();
      const refused = await store.backup(`${disk.path}/backup`).catch((error: Error) => error);
      expect(String(refused)).toContain("room");
      expect(existsSync(`${disk.path}/backup`)).toBe(false);
      expect(Math.abs(used() - before)).toBeLessThan(0.02);
    });
  });
});
