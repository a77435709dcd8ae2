import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { MetadataSeen } from "../../../src/artifact/lifecycle-verify.ts";
import { artifactLimits, type Envelope, type Metadata } from "../../../src/artifact/protocol.ts";
import { type PublishedTexts, readPublishedManifest } from "../../../src/artifact/published.ts";
import { TrustFolder } from "../../../src/artifact/trust-folder.ts";
import { Keys } from "../../support/artifact.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

const keys = new Keys();
const place = temporaryFolder();
afterAll(() => {
  keys[Symbol.dispose]();
  place[Symbol.dispose]();
});

let count = 0;
let folder = "";
let published: Map<string, string>;
beforeEach(() => {
  count += 1;
  folder = place.file(`trust-${count}`);
  published = new Map([
    ["root-1.json", keys.root(1, ["a", "b"], { by: ["a"] })],
    ["metadata.json", keys.metadata({ by: ["a"], version: 3 })],
  ]);
});

const from: PublishedTexts = {
  read: async (name) => {
    const text = published.get(name);
    return text === undefined ? { kind: "absent", why: "404" } : { kind: "text", text };
  },
};
const waits: number[] = [];
const patience = {
  signal: new AbortController().signal,
  clock: {
    now: () => 0,
    wait: async (time: number) => {
      waits.push(time);
    },
  },
};
const none: MetadataSeen = { version: 0, digest: null };
const now = "2026-06-01T00:00:00Z";
const asked = { from: [from], journaled: none, patience };
const look = async (trust: TrustFolder, journaled = none) =>
  await trust.refresh({ from: [from], journaled, now, patience });
const pin = () => TrustFolder.pin(folder, published.get("root-1.json") ?? "");

const manifest = (by: string) => {
  const builds = [
    {
      ...{ architecture: "x64", libc: "glibc", digest: "ab".repeat(32), size: 100 },
      blocks: { digest: "cd".repeat(32), size: 100 },
    },
  ];
  const value = {
    ...{ format: 1, product: "hostler", version: "1.5.0", floor: "1.0.0", channel: "stable" },
    ...{ labels: {}, issued: "2026-01-01T00:00:00Z", builds },
  };
  const envelope: Envelope = { format: 1, signed: JSON.stringify(value), signatures: [] };
  return keys.sign("manifest", envelope, [by]);
};
const judge = (trust: TrustFolder, by = "release", journaled = none) =>
  trust.judge({
    ...{ manifest: manifest(by), ordered: null, journaled },
    device: { architecture: "x64", libc: "glibc", floor: null, channels: null },
  });

describe("a device", () => {
  test("pins a root set, and learns the metadata", async () => {
    const trust = pin();
    expect(judge(trust)).toMatchObject({ refusal: "metadata-missing" });
    expect(await look(trust)).toMatchObject({
      ...{ rootVersion: 1, metadataVersion: 3, freshness: "fresh", refused: [] },
      seen: { version: 3 },
    });
    expect(judge(trust).kind).toBe("ok");
    // And knows it when it begins again, without asking anybody.
    expect(judge(TrustFolder.open(folder)).kind).toBe("ok");
  });

  test("keeps what it has pinned when it is told to pin again", async () => {
    await look(pin());
    published.set("root-1.json", keys.root(1, ["x"], { by: ["x"] }));
    expect(pin().trust.root.keys).toContain(keys.public("a"));
  });

  test("that has pinned nothing, or what is no root set, says so", () => {
    expect(() => TrustFolder.open(folder)).toThrow("hostler fleet install --root FILE");
    expect(() => TrustFolder.pin(folder, "{}")).toThrow("Cannot pin the root set");
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "root.json"), published.get("metadata.json") ?? "");
    expect(() => TrustFolder.open(folder)).toThrow("expected a root set");
  });

  test("that was away for two rotations follows them", async () => {
    const trust = pin();
    await look(trust);
    published.set("root-2.json", keys.root(2, ["b", "c"], { by: ["b"] }));
    published.set("root-3.json", keys.root(3, ["c", "d"], { by: ["c"] }));
    published.set("metadata.json", keys.metadata({ by: ["d"], version: 4 }));
    expect(await look(trust)).toMatchObject({ rootVersion: 3, metadataVersion: 4, refused: [] });
    expect(TrustFolder.open(folder).trust).toMatchObject({
      ...{ root: { version: 3 }, metadata: { version: 4 } },
    });
  });

  test("that was away for very many goes on the next time it looks", async () => {
    const trust = pin();
    for (let version = 2; version <= artifactLimits.rootChain + 3; version += 1) {
      const name = `root-${version}.json`;
      published.set(name, keys.root(version, ["a", "b"], { by: ["a"] }));
    }
    expect(await look(trust)).toMatchObject({ rootVersion: 1 + artifactLimits.rootChain });
    expect(await look(trust)).toMatchObject({ rootVersion: 3 + artifactLimits.rootChain });
  });

  test("does not follow to a root set that the old keys have not signed, and goes on", async () => {
    const trust = pin();
    published.set("root-2.json", keys.root(2, ["x"], { by: ["x"] }));
    const found = await look(trust);
    expect(found).toMatchObject({ rootVersion: 1, metadataVersion: 3 });
    expect(found.refused).toMatchObject([{ refusal: "root-below-old-threshold" }]);
    expect(judge(trust).kind).toBe("ok");
  });

  test("takes after a rotation no metadata that the old keys alone have signed", async () => {
    const trust = pin();
    await look(trust);
    published.set("root-2.json", keys.root(2, ["c"], { by: ["a", "c"] }));
    const found = await look(trust);
    expect(found).toMatchObject({ rootVersion: 2, metadataVersion: null, freshness: "none" });
    expect(judge(trust)).toMatchObject({ refusal: "metadata-missing" });
    // What it has seen it does not forget for that.
    published.set("metadata.json", keys.metadata({ by: ["c"], version: 2 }));
    expect((await look(trust, found.seen)).refused).toMatchObject([
      { refusal: "metadata-replayed" },
    ]);
    // Also not when it begins again, with nothing but its folder.
    const again = await look(TrustFolder.open(folder));
    expect(again.refused).toMatchObject([{ refusal: "metadata-replayed" }]);
    published.set("metadata.json", keys.metadata({ by: ["c"], version: 4 }));
    expect(await look(trust, found.seen)).toMatchObject({ metadataVersion: 4, refused: [] });
  });

  test("takes nothing of a stolen signing key once it was revoked", async () => {
    const trust = pin();
    await look(trust);
    expect(judge(trust, "release").kind).toBe("ok");
    const previous = trust.trust.metadata as Metadata;
    const revoking = { by: ["b"], previous, signers: ["release-2"], revokedKeys: ["release"] };
    const before = published.get("metadata.json") ?? "";
    published.set("metadata.json", keys.metadata(revoking));
    const { seen } = await look(trust);
    expect(judge(trust, "release")).toMatchObject({ refusal: "manifest-revoked-key" });
    expect(judge(trust, "release-2").kind).toBe("ok");
    // Whoever has stolen it serves the old metadata again.
    published.set("metadata.json", before);
    expect((await look(trust)).refused).toMatchObject([{ refusal: "metadata-replayed" }]);
    expect(judge(trust, "release")).toMatchObject({ refusal: "manifest-revoked-key" });
    // Its folder is restored from before: the device's own journal still knows.
    writeFileSync(join(folder, "metadata.json"), before);
    const restored = TrustFolder.open(folder);
    expect(judge(restored, "release", seen)).toMatchObject({ refusal: "metadata-replayed" });
    expect((await look(restored, seen)).refused).toMatchObject([{ refusal: "metadata-replayed" }]);
  });

  test("that is kept from news says that what it has is stale, and goes on", async () => {
    const trust = pin();
    await look(trust);
    const late = await trust.refresh({ ...asked, now: "2045-01-01T00:00:00Z" });
    expect(late).toMatchObject({ freshness: "stale", refused: [] });
    const unsure = await trust.refresh({ ...asked, now: null });
    expect(unsure.freshness).toBe("unknown");
    expect(judge(trust).kind).toBe("ok");
    published.clear();
    const away = await look(trust);
    expect(away).toMatchObject({ metadataVersion: 3, freshness: "fresh" });
    expect(away.refused).toMatchObject([{ kind: "failed" }]);
    expect(judge(trust).kind).toBe("ok");
  });

  test("whose metadata is damaged on the disk fetches it again", async () => {
    await look(pin());
    writeFileSync(join(folder, "metadata.json"), "{");
    const trust = TrustFolder.open(folder);
    expect(judge(trust)).toMatchObject({ refusal: "metadata-missing" });
    await look(trust);
    expect(judge(trust).kind).toBe("ok");
  });

  test("looks at every source, because one may lag behind", async () => {
    const trust = pin();
    const lagging: PublishedTexts = { read: from.read };
    const newer = new Map(published);
    newer.set("root-2.json", keys.root(2, ["a", "b"], { by: ["a"] }));
    newer.set("metadata.json", keys.metadata({ by: ["a"], version: 9 }));
    const ahead: PublishedTexts = {
      read: async (name) => ({ kind: "text", text: newer.get(name) ?? "" }),
    };
    await trust.refresh({ ...asked, from: [ahead], now });
    const found = await trust.refresh({ ...asked, from: [lagging, ahead], now });
    expect(found).toMatchObject({ rootVersion: 2, metadataVersion: 9 });
    expect(TrustFolder.open(folder).trust.metadata?.version).toBe(9);
  });
});

describe("a device whose sources fail", () => {
  const failing: PublishedTexts = { read: async () => ({ kind: "failed", why: "away" }) };
  beforeEach(() => {
    waits.length = 0;
  });

  test("and that has no metadata asks a few times more", async () => {
    const trust = pin();
    const found = await trust.refresh({ ...asked, from: [failing], now });
    expect(found.refused).toEqual([
      { kind: "failed", why: "away" },
      { kind: "failed", why: "away" },
    ]);
    expect(waits).toEqual([1_000, 2_000, 4_000]);
  });

  test("or ask for patience waits for as long as it takes", async () => {
    const trust = pin();
    let left = 20;
    const busy: PublishedTexts = {
      read: async (name, most) => {
        if (name !== "metadata.json") return await from.read(name, most);
        left -= 1;
        return left < 0 ? await from.read(name, most) : { kind: "patience", wait: 7_000 };
      },
    };
    expect(await trust.refresh({ ...asked, from: [busy], now })).toMatchObject({ refused: [] });
    expect(waits).toEqual(Array.from({ length: 20 }, () => 7_000));
    // Whoever has some goes on with that.
    left = 20;
    const found = await trust.refresh({ ...asked, from: [busy], now });
    expect(found).toMatchObject({ metadataVersion: 3, refused: [{ kind: "failed" }] });
    expect(waits.length).toBe(20);
  });

  test("reads the manifest from the one that has it", async () => {
    published.set("hostler-1.5.0.manifest.json", "it");
    expect(await readPublishedManifest("1.5.0", [failing, from], patience)).toBe("it");
    expect(waits).toEqual([]);
  });

  test("and none has the manifest is told what each of them did", async () => {
    const work = readPublishedManifest("1.5.0", [failing, from], patience);
    const refused = await rejectionOf(work);
    expect(refused).toMatchObject({ refusal: "unreachable" });
    expect(refused.message).toContain("away; 404");
    expect(waits).toEqual([1_000, 2_000, 4_000]);
  });

  test("and whose time is over ends with that", async () => {
    const stop = new AbortController();
    const over = new Error("over");
    const from_ = { read: async () => ({ kind: "patience", wait: 1_000 }) as const };
    const clock = { now: () => 0, wait: async () => stop.abort(over) };
    const work = pin().refresh({
      ...{ from: [from_], journaled: none, now, patience: { signal: stop.signal, clock } },
    });
    expect(await rejectionOf(work)).toBe(over);
  });
});
