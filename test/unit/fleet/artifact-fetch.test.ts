import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ArtifactRefused } from "../../../src/artifact/artifact-refused.ts";
import { type FetchRequest, fetchVersion } from "../../../src/artifact/fetch.ts";
import { checkVersion } from "../../../src/artifact/installed.ts";
import type { ArtifactBuild, Envelope, Manifest } from "../../../src/artifact/protocol.ts";
import { readBlockMap } from "../../../src/artifact/protocol-blocks.ts";
import {
  type FetchClock,
  openSource,
  readWhole,
  transportLimits,
} from "../../../src/artifact/source.ts";
import { executable, type Release, Site } from "../../support/artifact.ts";
import { ArtifactServer, CuttingServer } from "../../support/artifact-server.ts";
import { makeCertificate } from "../../support/certificate.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

const blockBytes = 4_096;
const size = 64 * blockBytes + 777;
const bytes = executable({ size, seed: 5 });
/** Differs from it in three blocks, of which two are neighbours. */
const oldBytes = Buffer.from(bytes);
oldBytes.fill(1, 10 * blockBytes, 12 * blockBytes);
oldBytes.fill(1, 40 * blockBytes + 5, 40 * blockBytes + 6);

let site: Site;
let release: Release;
let build: ArtifactBuild;
let server: ArtifactServer;
let place: TemporaryFolder;

beforeAll(async () => {
  site = new Site();
  release = await site.release("1.5.0", bytes);
  build = buildOf(release);
});
afterAll(() => site[Symbol.dispose]());

const buildOf = ({ manifest }: Release): ArtifactBuild => {
  const { signed } = JSON.parse(manifest) as Envelope;
  const [first] = (JSON.parse(signed) as Manifest).builds;
  if (first === undefined) throw new Error("It has no build");
  return first;
};

/** Time that passes when somebody waits. */
class FalseClock implements FetchClock {
  time = 0;
  readonly waits: number[] = [];

  now(): number {
    return this.time;
  }

  wait(time: number, signal: AbortSignal): Promise<void> {
    // Silence is not waited for here: a test that is about it has a clock of its own.
    if (time > 20_000 && time <= transportLimits.silence) {
      return new Promise((resolve) => {
        signal.addEventListener("abort", () => resolve(), { once: true });
      });
    }
    this.time += time;
    this.waits.push(time);
    return Promise.resolve();
  }
}

let clock: FalseClock;
beforeEach(() => {
  clock = new FalseClock();
  place = temporaryFolder();
  server = new ArtifactServer(site.path);
  return async () => {
    place[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  };
});

function get(change: Partial<FetchRequest> & { readonly from?: readonly string[] } = {}) {
  const { from = [server.address], ...more } = change;
  return fetchVersion({
    ...{ version: "1.5.0", build, manifest: release.manifest, rate: null, clock },
    ...{ versions: place.file("versions"), bases: [], signal: new AbortController().signal },
    sources: from.map((address) => openSource(address, { clock })),
    ...more,
  });
}

async function refusalOf(work: Promise<unknown>): Promise<ArtifactRefused> {
  const error = await rejectionOf(work);
  if (error instanceof ArtifactRefused) return error;
  throw error;
}

const frames = () => readFileSync(join(site.path, `${release.digest}.zst`));
const map = () => {
  const read = readBlockMap(readFileSync(join(site.path, `${release.digest}.blocks`)), size);
  if (!("blocks" in read)) throw new Error(read.expected);
  return read;
};
const framesAsked = () => server.asked.filter(({ name }) => name.endsWith(".zst"));

describe("a version", () => {
  test("is fetched whole, verified, and kept under its name", async () => {
    const told: number[] = [];
    const { folder, file, progress } = await get({
      onProgress: ({ bytes: now }) => told.push(now),
    });
    expect(folder).toBe(place.file(`versions/1.5.0-${release.digest.slice(0, 12)}`));
    expect(readFileSync(file)).toEqual(bytes);
    expect(statSync(file).mode & 0o777).toBe(0o755);
    expect(readdirSync(folder).toSorted()).toEqual(["hostler", "manifest.json", "verified"]);
    expect(readFileSync(join(folder, "manifest.json"), "utf8")).toBe(release.manifest);
    const sent = frames().length + build.blocks.size;
    expect(progress).toEqual({ bytes: size, of: size, fetched: sent, again: 0 });
    expect(told).toEqual(told.toSorted((one, other) => one - other));
    expect(told.at(-1)).toBe(size);
    expect(await checkVersion(folder)).toMatchObject({ version: "1.5.0", digest: release.digest });
  });

  test("that is here is not fetched again", async () => {
    await get();
    const count = server.asked.length;
    expect((await get()).progress).toEqual({ bytes: size, of: size, fetched: 0, again: 0 });
    expect(server.asked.length).toBe(count);
  });

  test("is fetched from a folder as well", async () => {
    const { file, progress } = await get({ from: [`file://${site.path}`] });
    expect(readFileSync(file)).toEqual(bytes);
    expect(progress.fetched).toBe(frames().length + build.blocks.size);
  });

  test("takes from the file that runs what is the same", async () => {
    const base = place.file("running");
    writeFileSync(base, oldBytes);
    const { file, progress } = await get({ bases: [place.file("none"), "/dev/null", base] });
    expect(readFileSync(file)).toEqual(bytes);
    expect(framesAsked().length).toBe(2);
    expect(progress.fetched - build.blocks.size).toBeLessThan(frames().length / 10);
    expect(progress.again).toBe(0);
  });

  test("takes blocks from wherever they are in another file", async () => {
    const base = place.file("running");
    // The same blocks the other way round, and each twice.
    const blocks = Array.from({ length: 64 }, (_none, index) =>
      bytes.subarray((63 - index) * blockBytes, (64 - index) * blockBytes),
    );
    writeFileSync(base, Buffer.concat([...blocks, ...blocks]));
    const { file } = await get({ bases: [base] });
    expect(readFileSync(file)).toEqual(bytes);
    expect(framesAsked()).toMatchObject([{ range: expect.anything() }]);
  });
});

describe("a connection that breaks", () => {
  test.each([10, 50, 99])("at %d percent is gone on from there", async (percent) => {
    const cut = Math.floor((frames().length * percent) / 100);
    const whole = map().blocks.filter((block) => block.framePosition + block.frameSize <= cut);
    await using cutting = new CuttingServer(server, ({ count }) => (count === 2 ? cut : undefined));
    const { file, progress } = await get({
      from: [cutting.address],
      onProgress: ({ bytes: now }) => {
        if (now === whole.length * blockBytes) cutting.drop();
      },
    });
    expect(readFileSync(file)).toEqual(bytes);
    const next = map().blocks[whole.length];
    expect(cutting.asked.at(-1)?.range?.[0]).toBe(next?.framePosition as number);
    expect(cutting.asked.length).toBe(3);
    // What came more than once is at most the frame that was not whole.
    expect(progress.again).toBeLessThan(next?.frameSize ?? 0);
    expect(progress.fetched).toBe(frames().length + build.blocks.size + progress.again);
    expect(clock.waits).toEqual([1_000]);
  });

  test("each time still brings it here, as long as something comes", async () => {
    await using cutting = new CuttingServer(server, ({ range }, length) =>
      range === undefined || length < 9_000 ? undefined : 9_000,
    );
    let blocks = 0;
    const { file, progress } = await get({
      from: [cutting.address],
      onProgress: () => {
        blocks += 1;
        if (blocks % 2 === 0) cutting.drop();
      },
    });
    expect(readFileSync(file)).toEqual(bytes);
    expect(cutting.asked.length).toBeGreaterThan(20);
    expect(progress.fetched).toBe(frames().length + build.blocks.size + progress.again);
  });

  test("before anything comes ends it after so many times, and the next one goes on", async () => {
    const half = Math.floor(frames().length / 2);
    const whole = map().blocks.filter((block) => block.framePosition + block.frameSize <= half);
    await using cutting = new CuttingServer(server, ({ count }) => {
      if (count === 1) return undefined;
      return count === 2 ? half : 0;
    });
    const work = get({
      from: [cutting.address],
      onProgress: ({ bytes: now }) => {
        if (now === whole.length * blockBytes) cutting.drop();
      },
    });
    expect((await refusalOf(work)).refusal).toBe("unreachable");
    // The one that was cut has brought something, and is the first of ten failures all the same.
    const asked = new Set(cutting.asked.map(({ range }) => range?.[0]));
    expect(asked.size).toBe(3);
    const { progress } = await get();
    expect(progress.fetched).toBeLessThan(frames().length * 0.55 + build.blocks.size);
  });

  test("at one of several sources has the next one asked", async () => {
    await using cutting = new CuttingServer(server, () => 0);
    const { file } = await get({ from: [cutting.address, server.address] });
    expect(readFileSync(file)).toEqual(bytes);
    expect(framesAsked().length).toBeGreaterThan(0);
  });

  test("that is silent is given up, and asked for again", async () => {
    const silence = 12_345;
    const over = Promise.withResolvers<void>();
    const patient = new FalseClock();
    const wait = patient.wait.bind(patient);
    let isSilent = true;
    // Later silences last for ever: nothing is to be given up then.
    patient.wait = (time, signal) => {
      if (time !== silence) return wait(time, signal);
      return isSilent ? over.promise : new Promise<void>(() => undefined);
    };
    server.misbehave = (asked) => {
      if (!isSilent || !asked.name.endsWith(".zst")) return undefined;
      isSilent = false;
      // As long as it may say nothing, and not a moment more, passes now.
      patient.time += silence;
      over.resolve();
      return new Promise<Response>(() => undefined);
    };
    const told: string[] = [];
    const { file } = await get({
      ...{ sources: [openSource(server.address, { clock: patient, silence })], clock: patient },
      onWait: (_time, why) => told.push(why),
    });
    expect(readFileSync(file)).toEqual(bytes);
    expect(framesAsked().length).toBe(2);
    expect(told).toEqual([expect.stringContaining("said nothing for 12.35 s")]);
  });
});

describe("a server", () => {
  test("that knows no Range sends all, of which what is missing is taken", async () => {
    const base = place.file("running");
    writeFileSync(base, oldBytes);
    server.misbehave = ({ name }) => server.answer({ name, range: undefined, count: 0 });
    const { file, progress } = await get({ bases: [base] });
    expect(readFileSync(file)).toEqual(bytes);
    expect(framesAsked().length).toBe(1);
    expect(progress.again).toBeGreaterThan(0);
    expect(progress.fetched).toBeLessThanOrEqual(frames().length + build.blocks.size);
  });

  test.each([429, 503])("that asks for patience by %d is waited for", async (status) => {
    let left = 3;
    server.misbehave = () => {
      left -= 1;
      const headers = { "retry-after": "7" };
      return left < 0 ? undefined : new Response("later", { status, headers });
    };
    const told: string[] = [];
    const { file } = await get({ onWait: (time, why) => told.push(`${time} ${why}`) });
    expect(readFileSync(file)).toEqual(bytes);
    expect(clock.waits).toEqual([7_000, 7_000, 7_000]);
    expect(told[0]).toBe("7000 the server asks for patience");
  });

  test("that asks for patience more often than others may fail is waited for", async () => {
    server.misbehave = ({ count }) =>
      count <= 40
        ? new Response("later", { status: 429, headers: { "retry-after": "1" } })
        : undefined;
    expect(readFileSync((await get()).file)).toEqual(bytes);
  });

  test.each([
    ["file:///etc/passwd", "expected a redirect to https: or http:, received one to file:"],
    ["ftp://example.org/", "received one to ftp:"],
    ["http://[", "expected a redirect to an address"],
  ])("that redirects to %s is not followed", async (location, why) => {
    server.misbehave = () => new Response(null, { status: 302, headers: { location } });
    const refused = await refusalOf(get());
    expect(refused.refusal).toBe("unreachable");
    expect(refused.message).toContain(why);
    expect(server.asked.length).toBe(1);
  });

  test("is followed to another one, with the range that was asked for", async () => {
    await using other = new ArtifactServer(site.path);
    server.misbehave = ({ name }) =>
      new Response(null, { status: 307, headers: { location: `${other.address}${name}` } });
    expect(readFileSync((await get()).file)).toEqual(bytes);
    expect(other.asked.at(-1)?.range).toBeDefined();
  });

  test("that redirects without an end is asked no more", async () => {
    server.misbehave = ({ count }) =>
      new Response(null, { status: 302, headers: { location: `/x${count}` } });
    expect((await refusalOf(get())).message).toContain("at most 5 redirects");
    expect(server.asked.length).toBe(6);
  });

  test("that certifies itself otherwise than is known is not believed, and then is", async () => {
    const { key, certificate } = makeCertificate("localhost");
    await using secure = new ArtifactServer(site.path, { key, cert: certificate });
    const address = secure.address.replace("127.0.0.1", "localhost");
    expect((await refusalOf(get({ from: [address] }))).refusal).toBe("unreachable");
    expect(secure.asked.length).toBe(0);
    const sources = [openSource(address, { clock, certificates: [certificate] })];
    expect(readFileSync((await get({ sources })).file)).toEqual(bytes);
    // From https: nobody goes back to http:.
    secure.misbehave = () =>
      new Response(null, { status: 302, headers: { location: server.address } });
    const versions = place.file("other");
    const refused = await refusalOf(get({ sources, versions }));
    expect(refused.message).toContain("expected a redirect to https:, received one to http:");
  });

  test("that has it not, or fails, has the next one asked", async () => {
    for (const status of [400, 401, 403, 404, 410]) {
      await using bad = new ArtifactServer(site.path);
      bad.misbehave = () => new Response("no", { status });
      const versions = place.file(`versions-${status}`);
      await get({ from: [bad.address, server.address], versions });
      expect(bad.asked.length).toBe(1);
    }
    server.misbehave = () => new Response("broken", { status: 500 });
    const refused = await refusalOf(get({ versions: place.file("last") }));
    expect(refused.message).toContain("received status 500");
  });

  test("that packs what it sends once more is not used", async () => {
    server.misbehave = (asked) => {
      const answer = server.answer(asked);
      answer.headers.set("content-encoding", "gzip");
      return answer;
    };
    expect((await refusalOf(get())).message).toContain("expected the bytes as they are");
  });

  test("that sends another part than it was asked for is not used", async () => {
    server.misbehave = (asked) => {
      if (!asked.name.endsWith(".zst")) return undefined;
      const answer = server.answer(asked);
      answer.headers.set("content-range", "bytes 5-9/100");
      return answer;
    };
    expect((await refusalOf(get())).message).toContain("bytes 5-9/100");
  });
});

describe("bytes that are not those that were signed", () => {
  const flip = (place_: number) => {
    server.misbehave = (asked) => {
      if (!asked.name.endsWith(".zst")) return undefined;
      const all = frames();
      all[place_] = (all[place_] ?? 0) ^ 1;
      const [from, end] = asked.range ?? [0, all.length];
      const headers = { "content-range": `bytes ${from}-${end - 1}/${all.length}` };
      return new Response(all.subarray(from, end), { status: 206, headers });
    };
  };

  test("are refused, and the rest is kept", async () => {
    flip(frames().length - 5);
    const refused = await refusalOf(get());
    expect(refused.refusal).toBe("unreachable");
    expect(refused.message).toContain("block 64 is not the one that was signed");
    const folder = place.file(`versions/1.5.0-${release.digest.slice(0, 12)}`);
    expect(readdirSync(folder)).toEqual(["hostler.partial"]);
    server.misbehave = () => undefined;
    const { progress } = await get();
    expect(progress.fetched - build.blocks.size).toBeLessThan(2_000);
  });

  test("are fetched from another source", async () => {
    flip(100);
    await using other = new ArtifactServer(site.path);
    expect(readFileSync((await get({ from: [server.address, other.address] })).file)).toEqual(
      bytes,
    );
  });

  test("of the block map are refused", async () => {
    server.misbehave = (asked) => {
      const map = Buffer.from(server.bytes(asked.name) ?? []);
      map[40] = (map[40] ?? 0) ^ 1;
      return new Response(map);
    };
    const refused = await refusalOf(get());
    expect(refused.message).toContain(`expected SHA-256 ${build.blocks.digest}`);
    expect(framesAsked()).toEqual([]);
  });

  test("that are fewer than there should be are refused", async () => {
    server.misbehave = (asked) => {
      if (!asked.name.endsWith(".zst")) return undefined;
      const part = frames().subarray(0, 5_000);
      const [from] = asked.range ?? [0];
      if (from >= part.length) return new Response(null, { status: 416 });
      const headers = { "content-range": `bytes ${from}-${part.length - 1}/${part.length}` };
      return new Response(part.subarray(from), { status: 206, headers });
    };
    expect((await refusalOf(get())).refusal).toBe("unreachable");
  });

  test("of a map that is signed and wrong are refused by the file's digest", async () => {
    const wrong = { ...build, digest: "ab".repeat(32) };
    for (const ending of ["blocks", "zst"]) {
      site.write(`${wrong.digest}.${ending}`, server.bytes(`${release.digest}.${ending}`) ?? "");
    }
    const refused = await refusalOf(get({ build: wrong }));
    expect(refused).toMatchObject({ refusal: "digest-after-write" });
    const folder = place.file(`versions/1.5.0-${wrong.digest.slice(0, 12)}`);
    expect(readdirSync(folder)).toEqual([]);
  });

  test("on the disk, afterwards, are found before it is run", async () => {
    const { folder, file } = await get();
    const changed = readFileSync(file);
    changed[50_000] = (changed[50_000] ?? 0) ^ 1;
    writeFileSync(file, changed);
    const refused = await refusalOf(checkVersion(folder));
    expect(refused).toMatchObject({ refusal: "not-verified" });
    // It is fetched again, and all but the one block is still right.
    const { progress } = await get();
    expect(readFileSync(file)).toEqual(bytes);
    expect(framesAsked().length).toBe(2);
    expect(progress.fetched - build.blocks.size).toBeLessThan(blockBytes);
  });

  test("and a version that is not whole is none", async () => {
    const { folder, file } = await get();
    expect((await refusalOf(checkVersion(place.file("versions")))).refusal).toBe("not-installed");
    writeFileSync(file, bytes.subarray(0, -4_000));
    expect((await refusalOf(checkVersion(folder))).refusal).toBe("not-verified");
    writeFileSync(join(folder, "verified"), "{");
    expect((await refusalOf(checkVersion(folder))).refusal).toBe("not-installed");
  });
});

describe("what is signed and cannot be run", () => {
  test.each<[string, Buffer, string]>([
    ["is for another architecture", executable({ size: 9_000, seed: 1, machine: 183 }), "arm64"],
    [
      "is for another libc",
      executable({ size: 9_000, seed: 1, interpreter: "/lib/ld-musl-x86_64.so.1" }),
      "x64 with musl",
    ],
  ])("because it %s is refused, and nothing of it stays", async (_what, wrong, received) => {
    using other = new Site();
    const made = await other.release("1.6.0", wrong);
    const claimed: ArtifactBuild = { ...buildOf(made), architecture: "x64", libc: "glibc" };
    const from = [`file://${other.path}`];
    const refused = await refusalOf(get({ build: claimed, version: "1.6.0", from }));
    expect(refused).toMatchObject({ refusal: "not-executable" });
    expect(refused.message).toContain(received);
    const folder = place.file(`versions/1.6.0-${made.digest.slice(0, 12)}`);
    expect(readdirSync(folder)).toEqual([]);
  });
});

describe("limits", () => {
  test("of a small file hold for a long one, and for one that never ends", async () => {
    let sent = 0;
    const endless = () =>
      new Response(
        new ReadableStream({
          pull: (controller) => {
            sent += 65_536;
            controller.enqueue(new Uint8Array(65_536));
          },
        }),
      );
    server.misbehave = endless;
    const source = openSource(server.address, { clock });
    const { signal } = new AbortController();
    const most = 32 * 1024;
    const read = await readWhole(source, "hostler-1.5.0.manifest.json", { most, signal });
    expect(read).toMatchObject({ kind: "absent", why: expect.stringContaining("at most 32768") });
    expect(sent).toBeLessThan(64 * 1024 * 1024);
    site.write("large", new Uint8Array(most + 1));
    server.misbehave = () => undefined;
    expect((await readWhole(source, "large", { most, signal })).kind).toBe("absent");
    expect((await readWhole(source, "large", { most: most + 1, signal })).kind).toBe("bytes");
  });

  test("of the rate are kept by waiting between requests", async () => {
    const rate = 16 * 1024;
    const { progress } = await get({ rate });
    expect(clock.time).toBeGreaterThanOrEqual((progress.fetched / rate) * 1_000 - 1);
    const largest = Math.max(...framesAsked().map(({ range: [from, end] = [0, 0] }) => end - from));
    expect(largest).toBeLessThanOrEqual(rate * 2);
  });

  test("of the rate are kept with a server that sends all at once", async () => {
    const rate = 16 * 1024;
    server.misbehave = ({ name }) => server.answer({ name, range: undefined, count: 0 });
    const { progress } = await get({ rate });
    expect(clock.time).toBeGreaterThanOrEqual((progress.fetched / rate) * 1_000 - 1);
  });

  test("of time are the caller's: what has come stays", async () => {
    const stop = new AbortController();
    const over = new Error("over");
    const work = get({
      ...{ signal: stop.signal, rate: 16 * 1024 },
      onProgress: ({ bytes: now }) => {
        if (now > size / 2) stop.abort(over);
      },
    });
    expect(await rejectionOf(work)).toBe(over);
    const { progress } = await get();
    expect(progress.fetched).toBeLessThan(frames().length * 0.6 + build.blocks.size);
  });
});

describe("an address", () => {
  test.each([
    ["hello", "no address"],
    ["ftp://example.org/x", "begins with ftp:"],
    ["https://user:secret@example.org/x", "a user's name"],
    ["https://example.org/x?y=1", "? or #"],
    ["file://other/x", "the host other"],
    ["data:text/plain,x", "begins with data:"],
  ])("%s is refused", (address, received) => {
    expect(() => openSource(address)).toThrow(received);
  });

  test("of a folder has what is in it, and no FIFO", async () => {
    const source = openSource(`file://${site.path}`);
    const { signal } = new AbortController();
    const opened = await source.open("none", undefined, signal);
    expect(opened).toMatchObject({ kind: "absent" });
    Bun.spawnSync(["mkfifo", join(site.path, "fifo")]);
    expect(existsSync(join(site.path, "fifo"))).toBe(true);
    expect(await source.open("fifo", undefined, signal)).toMatchObject({ kind: "absent" });
    const past = { position: 10 ** 9, bytes: 5 };
    const name = "metadata.json";
    expect(await source.open(name, past, signal)).toMatchObject({ kind: "wrong" });
  });
});
