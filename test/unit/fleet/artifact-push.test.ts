import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { ArtifactRefused } from "../../../src/artifact/artifact-refused.ts";
import { makeRelease } from "../../../src/artifact/make.ts";
import type { Envelope, Manifest } from "../../../src/artifact/protocol.ts";
import { pushRelease } from "../../../src/artifact/push.ts";
import { executable, type Release, Site } from "../../support/artifact.ts";
import { rejectionOf } from "../../support/wait-for.ts";

let site: Site;
let release: Release;
let target: string;
beforeEach(async () => {
  site = new Site();
  release = await site.release("1.5.0", executable({ size: 100_000, seed: 9 }));
  target = site.file("published");
});
afterEach(() => site[Symbol.dispose]());

const push = (to = `file://${target}`, more: { token?: string } = {}) =>
  pushRelease({
    ...{ folder: site.path, version: "1.5.0", to, ...more },
    signal: new AbortController().signal,
  });
async function refusalOf(work: Promise<unknown>): Promise<ArtifactRefused> {
  const error = await rejectionOf(work);
  if (error instanceof ArtifactRefused) return error;
  throw error;
}
const names = () => [
  `${release.digest}.zst`,
  `${release.digest}.blocks`,
  "hostler-1.5.0.manifest.json",
  "root-1.json",
  "metadata.json",
];

test("what a build that was ended has left goes with the next one, and no other's", async () => {
  const left = join(site.path, "1073741823.making");
  const own = join(site.path, "1.making");
  for (const path of [left, own]) writeFileSync(path, "frames");
  await site.release("1.6.0", executable({ size: 100_000, seed: 10 }));
  expect([existsSync(left), existsSync(own)]).toEqual([false, true]);
});

describe("a release is published in a folder", () => {
  test("with all that a device needs, metadata last", async () => {
    expect(await push()).toEqual({ sent: names(), kept: [] });
    expect(readdirSync(target).toSorted()).toEqual(names().toSorted());
    for (const name of names()) {
      expect(readFileSync(join(target, name))).toEqual(readFileSync(join(site.path, name)));
    }
  });

  test("again: what is named by its content stays", async () => {
    await push();
    expect(await push()).toEqual({ sent: names().slice(2), kept: names().slice(0, 2) });
  });

  test("with every root set that there was", async () => {
    site.write("root-2.json", site.keys.root(2, ["root-b"], { by: ["root-b"] }));
    const late = await refusalOf(push());
    expect(late).toMatchObject({ refusal: "metadata-below-threshold" });
    site.write("metadata.json", site.keys.metadata({ by: ["root-b"], version: 2 }));
    const { sent } = await push();
    expect(sent.slice(-3)).toEqual(["root-1.json", "root-2.json", "metadata.json"]);
    // However many there were: by their numbers, and not by their names.
    site.write("root-100.json", site.keys.root(100, ["root-b"], { by: ["root-b"] }));
    expect((await push()).sent.slice(-3)).toEqual([
      "root-2.json",
      "root-100.json",
      "metadata.json",
    ]);
  });
});

describe("nothing is published", () => {
  const expectNothing = async (work: Promise<unknown>, refusal: string) => {
    expect(await refusalOf(work)).toMatchObject({ refusal });
    expect(readdirSync(site.file(".")).includes("published")).toBe(false);
  };

  test("of a manifest that nobody has signed, or a stranger", async () => {
    const envelope = JSON.parse(release.manifest) as Envelope;
    site.write("hostler-1.5.0.manifest.json", JSON.stringify({ ...envelope, signatures: [] }));
    await expectNothing(push(), "manifest-unsigned");
    await site.release("1.5.0", executable({ size: 100_000, seed: 9 }), { by: "stranger" });
    await expectNothing(push(), "manifest-unknown-key");
  });

  test("of which a byte was changed, or is missing", async () => {
    const frames = join(site.path, `${release.digest}.zst`);
    const right = readFileSync(frames);
    const changed = Buffer.from(right);
    changed[right.length - 20] = (changed[right.length - 20] ?? 0) ^ 1;
    for (const wrong of [changed, right.subarray(0, -1), Buffer.concat([right, Buffer.alloc(1)])]) {
      writeFileSync(frames, wrong);
      await expectNothing(push(), "wrong-bytes");
    }
    rmSync(frames);
    await expectNothing(push(), "wrong-bytes");
    writeFileSync(frames, right);
    const map = join(site.path, `${release.digest}.blocks`);
    writeFileSync(map, readFileSync(map).fill(0, 32, 33));
    await expectNothing(push(), "wrong-bytes");
  });

  test("without a root set", async () => {
    rmSync(join(site.path, "root-1.json"));
    expect((await rejectionOf(push())).message).toContain("hostler fleet root init makes it");
  });

  test("over another manifest of that version", async () => {
    await push();
    const before = readFileSync(join(target, "hostler-1.5.0.manifest.json"), "utf8");
    await site.release("1.5.0", executable({ size: 100_000, seed: 10 }));
    expect(await refusalOf(push())).toMatchObject({ refusal: "already-published" });
    expect(readFileSync(join(target, "hostler-1.5.0.manifest.json"), "utf8")).toBe(before);
  });

  test("over later metadata, or other metadata of that version", async () => {
    site.write("metadata.json", site.keys.metadata({ by: ["root-a"], version: 3 }));
    await push();
    const other = { by: ["root-a"], version: 3, expires: "2028-01-01T00:00:00Z" };
    site.write("metadata.json", site.keys.metadata(other));
    expect(await refusalOf(push())).toMatchObject({ refusal: "already-published" });
    site.write("metadata.json", site.keys.metadata({ by: ["root-a"], version: 2 }));
    expect(await refusalOf(push())).toMatchObject({ refusal: "already-published" });
    site.write("metadata.json", site.keys.metadata({ by: ["root-a"], version: 4 }));
    expect((await push()).sent).toContain("metadata.json");
  });

  test("where a folder cannot be made", async () => {
    writeFileSync(target, "a file");
    expect((await rejectionOf(push())).message).toContain("Cannot publish in");
  });
});

test("the same manifest with a signature more is published again", async () => {
  await push();
  const envelope = JSON.parse(release.manifest) as Envelope;
  site.write(
    "hostler-1.5.0.manifest.json",
    site.keys.sign("manifest", envelope, ["release", "release-2"]),
  );
  expect((await push()).sent).toContain("hostler-1.5.0.manifest.json");
});

describe("a release is published on a server", () => {
  /** Takes PUT of who has the token. */
  function receive(answer?: (request: Request) => Response | undefined) {
    const files = new Map<string, Buffer>();
    const order: string[] = [];
    const server = Bun.serve({
      ...{ hostname: "127.0.0.1", port: 0 },
      fetch: async (request) => {
        const other = answer?.(request);
        if (other !== undefined) return other;
        const name = basename(new URL(request.url).pathname);
        if (request.method === "PUT") {
          if (request.headers.get("authorization") !== "Bearer secret") {
            return new Response("no", { status: 401 });
          }
          files.set(name, Buffer.from(await request.arrayBuffer()));
          order.push(name);
          return new Response(null, { status: 201 });
        }
        const found = files.get(name);
        return found === undefined
          ? new Response("none", { status: 404 })
          : new Response(Uint8Array.from(found));
      },
    });
    const stop = async () => await server.stop(true);
    return { files, order, address: server.url.href, [Symbol.asyncDispose]: stop };
  }

  test("by PUT, with its token", async () => {
    await using server = receive();
    expect(await push(server.address, { token: "secret" })).toEqual({ sent: names(), kept: [] });
    expect(server.order).toEqual(names());
    for (const name of names()) {
      expect(server.files.get(name)).toEqual(readFileSync(join(site.path, name)));
    }
    const again = await push(server.address, { token: "secret" });
    expect(again.kept).toEqual(names().slice(0, 2));
  });

  test("that refuses: it says how", async () => {
    await using server = receive();
    const refused = await refusalOf(push(server.address, { token: "wrong" }));
    expect(refused).toMatchObject({ refusal: "push-refused" });
    expect(refused.message).toContain("received 401");
  });

  test("that redirects: nobody else is sent the token", async () => {
    await using other = receive();
    await using server = receive((request) =>
      request.method === "PUT" ? Response.redirect(other.address, 307) : undefined,
    );
    await rejectionOf(push(server.address, { token: "secret" }));
    expect(other.order).toEqual([]);
  });

  test("that is away, or fails: it is not taken for empty", async () => {
    await using server = receive(() => new Response("broken", { status: 500 }));
    const refused = await refusalOf(push(server.address));
    expect(refused).toMatchObject({ refusal: "unreachable" });
  });
});

describe("a release is made", () => {
  const make = (files: readonly string[]) =>
    makeRelease({
      ...{ files, folder: site.file("made"), blockBytes: 4_096, level: 1 },
      release: {
        ...{ version: "2.0.0", floor: "1.0.0", channel: "stable", labels: {} },
        issued: "2026-01-01T00:00:00Z",
      },
    });
  const write = (name: string, bytes: Uint8Array) => {
    writeFileSync(site.file(name), bytes);
    return site.file(name);
  };

  test("of a file for each architecture and libc, which zstd itself unpacks", async () => {
    const glibc = executable({ size: 50_000, seed: 1 });
    const musl = executable({ size: 50_001, seed: 2, interpreter: "/lib/ld-musl-aarch64.so.1" });
    musl.writeUInt16LE(183, 18);
    const { manifest, path } = await make([write("one", glibc), write("two", musl)]);
    expect(manifest.builds).toMatchObject([
      { architecture: "x64", libc: "glibc", size: 50_000 },
      { architecture: "arm64", libc: "musl", size: 50_001 },
    ]);
    for (const [index, bytes] of [glibc, musl].entries()) {
      const digest = createHash("sha256").update(bytes).digest("hex");
      expect(manifest.builds[index]?.digest).toBe(digest);
      const frames = readFileSync(site.file(`made/${digest}.zst`));
      expect(Buffer.from(Bun.zstdDecompressSync(frames))).toEqual(bytes);
    }
    const envelope = JSON.parse(readFileSync(path, "utf8")) as Envelope;
    expect(envelope.signatures).toEqual([]);
    expect(JSON.parse(envelope.signed) as Manifest).toEqual(manifest);
    expect(readdirSync(site.file("made")).filter((name) => name.includes("making"))).toEqual([]);
  });

  test("the same from the same", async () => {
    const file = write("one", executable({ size: 300_000, seed: 1 }));
    const { path } = await make([file]);
    const before = readFileSync(path);
    await make([file]);
    expect(readFileSync(path)).toEqual(before);
  });

  test("of no file that is too large, and with no map that is", async () => {
    const file = write("one", executable({ size: 5_000, seed: 1 }));
    truncateSync(file, 1024 ** 3 + 1);
    const large = await rejectionOf(make([file]));
    expect(large.message).toContain("expected at most 1073741824 bytes, received 1073741825");
    truncateSync(file, 1024 ** 3);
    const small = await rejectionOf(make([file]));
    expect(small.message).toContain("a block map of at most 8388608 bytes, received 17825824");
  });

  test("of no script, and of no architecture twice", async () => {
    const script = write("script", Buffer.from("#!/bin/sh\n"));
    expect((await rejectionOf(make([script]))).message).toContain("received no ELF file");
    const file = write("one", executable({ size: 5_000, seed: 1 }));
    expect((await rejectionOf(make([file, file]))).message).toContain("a second one for x64");
    expect((await rejectionOf(make([site.file("none")]))).message).toContain("Cannot read");
    mkdirSync(site.file("folder"));
    expect((await rejectionOf(make([site.file("folder")]))).message).toContain("Cannot read");
  });
});
