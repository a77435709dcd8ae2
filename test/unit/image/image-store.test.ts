/** Images: verified once while they are copied; what is refused leaves nothing; shared; removed. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import type { WantedFile } from "../../../src/image/image-file.ts";
import type { ImageRequest } from "../../../src/image/image-request.ts";
import { ImageStore } from "../../../src/image/image-store.ts";
import type { ImageLimits } from "../../../src/image/limits.ts";
import { formatHash, hashPath } from "../../../src/image/nar.ts";
import { pieceBytes } from "../../../src/image/pieces.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

let folder: TemporaryFolder;
let source: string;
let store: ImageStore;

const openStore = (limits: Partial<ImageLimits> = {}) =>
  ImageStore.open(folder.file("vms"), { limits, nixStore: folder.file("store") });

beforeEach(async () => {
  folder = temporaryFolder();
  source = folder.file("store/aaa-vm-image");
  write("vm-config.json", "{}");
  write("vmlinux", "kernel");
  write("disks/root.img", Buffer.alloc(pieceBytes + 5, "disk"));
  store = await openStore();
});
afterEach(() => folder[Symbol.dispose]());

function write(name: string, content: string | Uint8Array): void {
  const path = `${source}/${name}`;
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, content);
}

const inside = (name: string): WantedFile => ({ key: "kernel", file: { kind: "inside", name } });
const outside = (path: string): WantedFile => ({ key: "kernel", file: { kind: "outside", path } });
const sha256 = (content: string) =>
  formatHash(new Bun.CryptoHasher("sha256").update(content).digest());

async function requestOf(changes: Partial<ImageRequest> = {}): Promise<ImageRequest> {
  const expected = { kind: "nar", hash: await hashPath(source) } as const;
  return { source, expected, wanted: () => [], ...changes };
}

const add = async (changes: Partial<ImageRequest> = {}) => store.add(await requestOf(changes));
const stored = () => readdirSync(folder.file("vms/images"));

async function refusal(changes: Partial<ImageRequest> = {}) {
  const error = await rejectionOf(add(changes));
  expect(error).toMatchObject({ name: "ImageRefused" });
  // Nothing is left of it.
  expect(stored()).toEqual([]);
  return error;
}

describe("an image with the right hash", () => {
  test("is kept as it is, and nobody may write to it", async () => {
    chmodSync(`${source}/vmlinux`, 0o755);
    symlinkSync("disks/root.img", `${source}/disk.img`);
    using image = await add({ wanted: () => [inside("vmlinux"), inside("disk.img")] });
    const place = folder.file(`vms/images/${image.key}`);
    expect(image.key).toBe(
      `nar-${Buffer.from(image.record.hash.slice(7), "base64").toString("hex")}`,
    );
    expect(image.configuration()).toBe("{}");
    expect(image.record).toMatchObject({ verified: "nar", source, bytes: pieceBytes + 5 + 8 });
    expect(await hashPath(`${place}/tree`)).toBe(image.record.hash);
    const kernel = image.locate({ kind: "inside", name: "vmlinux" }, "kernel");
    expect(kernel).toBe(`${place}/tree/vmlinux`);
    expect(statSync(kernel).mode & 0o7777).toBe(0o555);
    const disk = image.locate({ kind: "inside", name: "disk.img" }, "disks[0].path");
    expect(disk).toBe(`${place}/tree/disks/root.img`);
    expect(statSync(disk).mode & 0o7777).toBe(0o444);
    for (const path of [folder.file("vms/images"), place, `${place}/tree`, `${place}/tree/disks`]) {
      expect(statSync(path).mode & 0o7777).toBe(0o711);
    }
    expect(statSync(`${place}/image.json`).mode & 0o7777).toBe(0o444);
  });

  test("is read once: the second time, the image may even be gone", async () => {
    const request = await requestOf();
    using first = await store.add(request);
    writeFileSync(`${source}/vmlinux`, "another");
    const wanted = () => {
      throw new Error("Nobody asks again.");
    };
    using second = await store.add({ ...request, wanted });
    expect(second.key).toBe(first.key);
    expect(stored()).toEqual([first.key]);
    // Another process finds it as well.
    const other = await openStore();
    expect(other.keys()).toEqual([first.key]);
    using third = other.get(first.key);
    expect(third?.record).toEqual(first.record);
  });

  test("gives its folder to whoever reads vm-config.json, without links in the path", async () => {
    symlinkSync(folder.file("store"), folder.file("link"));
    const seen: string[][] = [];
    const wanted = (...words: string[]) => {
      seen.push(words);
      return [];
    };
    using image = await add({ source: folder.file("link/aaa-vm-image"), wanted });
    expect(seen).toEqual([["{}", source]]);
    expect(image.record.source).toBe(source);
  });

  test("that two ask for at once is copied once", async () => {
    const request = await requestOf();
    let copied = 0;
    const onProgress = (done: number) => {
      copied = Math.max(copied, done);
    };
    let asked = 0;
    const wanted = () => {
      asked += 1;
      return [];
    };
    const images = await Promise.all(
      [1, 2, 3].map(() => store.add({ ...request, onProgress, wanted })),
    );
    expect(asked).toBe(1);
    expect(new Set(images.map(({ key }) => key)).size).toBe(1);
  });

  test("that fails for one is still tried for the next one", async () => {
    const request = await requestOf();
    const abort = new AbortController();
    abort.abort();
    const first = store.add({ ...request, signal: abort.signal });
    const second = store.add(request);
    expect((await rejectionOf(first)).name).toBe("AbortError");
    using image = await second;
    expect(stored()).toEqual([image.key]);
  });

  test("tells how far it is", async () => {
    const seen: number[] = [];
    const total = pieceBytes + 5 + 8;
    const onProgress = (done: number, of: number) => {
      expect(of).toBe(total);
      seen.push(done);
    };
    using _image = await add({ onProgress });
    expect(seen).toEqual(seen.toSorted((a, b) => a - b));
    expect(seen.at(-1)).toBe(total);
    expect(seen.length).toBe(4);
  });

  test("keeps its holes, and makes new ones of zeros", async () => {
    const file = openSync(`${source}/disks/root.img`, "w");
    ftruncateSync(file, 64 * 1024 * 1024);
    writeSync(file, Buffer.alloc(4 * 1024 * 1024), 0, 4 * 1024 * 1024, 1024 * 1024);
    writeSync(file, Buffer.from("data"), 0, 4, 40 * 1024 * 1024 + 100);
    using image = await add();
    const path = image.locate({ kind: "inside", name: "disks/root.img" }, "disk");
    const { size, blocks } = statSync(path);
    expect(size).toBe(64 * 1024 * 1024);
    expect(blocks * 512).toBeLessThanOrEqual(128 * 1024);
    expect(await hashPath(path)).toBe(await hashPath(`${source}/disks/root.img`));
  });

  test("whatever its hash is, when nobody knows it", async () => {
    using image = await add({ expected: { kind: "any" } });
    expect(image.record).toMatchObject({ verified: "nothing", hash: await hashPath(source) });
    using again = await add({ expected: { kind: "any" } });
    expect(again.key).toBe(image.key);
    expect(stored()).toEqual([image.key]);
  });
});

describe("files of /nix/store", () => {
  beforeEach(() => {
    mkdirSync(folder.file("store/bbb-linux"));
    writeFileSync(folder.file("store/bbb-linux/bzImage"), "the kernel");
    symlinkSync(folder.file("store/bbb-linux/bzImage"), folder.file("store/ccc-link"));
  });

  test("by a link, by a path, and by a link there, are copied with the image, once", async () => {
    symlinkSync(folder.file("store/bbb-linux"), `${source}/linux`);
    const path = folder.file("store/bbb-linux/bzImage");
    const linked = folder.file("store/ccc-link");
    const wanted = () => [inside("linux/bzImage"), outside(path), outside(linked)];
    using image = await add({ wanted });
    const located = image.locate({ kind: "inside", name: "linux/bzImage" }, "kernel");
    expect(readFileSync(located, "utf8")).toBe("the kernel");
    expect(statSync(located).mode & 0o7777).toBe(0o444);
    expect(image.locate({ kind: "outside", path }, "kernel")).toBe(located);
    expect(image.locate({ kind: "outside", path: linked }, "kernel")).toEndWith("/1-ccc-link");
    expect(image.record.outside[path]).toEqual({
      name: "0-bzImage",
      size: 10,
      hash: sha256("the kernel"),
    });
  });

  test("are refused for an image that is not there itself", async () => {
    const path = folder.file("store/bbb-linux/bzImage");
    source = folder.file("elsewhere");
    write("vm-config.json", "{}");
    symlinkSync(path, `${source}/vmlinux`);
    const link = await refusal({ wanted: () => [inside("vmlinux")] });
    expect(link.message).toBe(
      `Cannot use the image ${source}, kernel: expected links to files in the image, received a ` +
        `link to ${path}. Look at what the image's vm-config.json names.`,
    );
    const named = await refusal({ wanted: () => [outside(path)] });
    expect(named.message).toContain(`received ${path}`);
  });
});

describe("what leads out of the image", () => {
  test.each([
    ["/etc/passwd", "a link to /etc/passwd"],
    ["../../../etc/passwd", "a link to ../../../etc/passwd"],
    ["disks/../..", "a link to disks/../.."],
    ["nothing", "nothing at nothing"],
    ["disks", "the folder disks"],
    [".", "a link to ."],
    ["x", "more"],
  ])("a link to %s", async (target, received) => {
    symlinkSync(target, `${source}/x`);
    const { message } = await refusal({ wanted: () => [inside("x")] });
    expect(message).toContain(`, kernel: expected`);
    expect(message).toContain(`received ${received}.`);
    // Nobody who does not follow it minds.
    using _image = await add();
  });

  test("a link in /nix/store that leads out of it", async () => {
    writeFileSync(folder.file("secret"), "secret");
    symlinkSync(folder.file("secret"), folder.file("store/ddd"));
    const { message } = await refusal({ wanted: () => [outside(folder.file("store/ddd"))] });
    expect(message).toContain("expected a file in the image, or in");
    await refusal({ wanted: () => [outside(folder.file("store/none"))] });
    await refusal({ wanted: () => [outside(folder.file("store"))] });
  });

  test("an absolute link to the image itself is one inside", async () => {
    symlinkSync(`${source}/disks`, `${source}/x`);
    using image = await add({ wanted: () => [inside("x/root.img")] });
    expect(image.locate({ kind: "inside", name: "x/root.img" }, "disk")).toEndWith(
      "/tree/disks/root.img",
    );
  });

  test("a name that is asked for later", async () => {
    using image = await add();
    expect(() => image.locate({ kind: "inside", name: "../image.json" }, "kernel")).toThrow(
      "Cannot use the image",
    );
    expect(() => image.locate({ kind: "outside", path: "/etc/passwd" }, "kernel")).toThrow(
      "expected a file that was stored with the image, received /etc/passwd",
    );
  });
});

describe("a wrong hash", () => {
  test("names the image, what was expected and what was received", async () => {
    const { hash } = (await requestOf()).expected as { hash: string };
    write("vmlinux", "KERNEL");
    const received = await hashPath(source);
    const { message } = await refusal({ expected: { kind: "nar", hash } });
    expect(message).toBe(
      `Cannot use the image ${source}: expected ${hash}, received ${received}. Fetch the image ` +
        "again; if it is right, say its hash as received.",
    );
  });

  test("that is none", async () => {
    const { message } = await refusal({ expected: { kind: "nar", hash: "sha256-x" } });
    expect(message).toContain(`Say what nix hash path ${source} prints.`);
  });

  test("of what is changed in the middle of the copy is found by the hash", async () => {
    write("disks/root.img", Buffer.alloc(pieceBytes * 6, "disk"));
    let isChanged = false;
    const onProgress = (done: number) => {
      if (isChanged || done < pieceBytes) return;
      isChanged = true;
      const file = openSync(`${source}/disks/root.img`, "r+");
      writeSync(file, "CHANGED", pieceBytes * 5);
      utimesSync(`${source}/disks/root.img`, 1, 1);
    };
    const { message } = await refusal({ onProgress });
    expect(isChanged).toBe(true);
    expect(message).toContain("received sha256-");
  });
});

describe("a manifest", () => {
  const files = () =>
    new Map([
      ["vm-config.json", sha256("{}")],
      ["vmlinux", sha256("kernel")],
      ["disks/root.img", formatHash(hashFile("disks/root.img"))],
    ]);
  const hashFile = (name: string) =>
    new Bun.CryptoHasher("sha256").update(readFileSync(`${source}/${name}`)).digest();

  test("has the hash of every file; of itself it has none", async () => {
    write("manifest.json", "{}");
    using image = await add({ expected: { kind: "files", files: files() } });
    expect(image.key).toStartWith("files-");
    expect(image.record.verified).toBe("files");
    const reversed = new Map([...files()].toReversed());
    using again = await add({ expected: { kind: "files", files: reversed } });
    expect(again.key).toBe(image.key);
  });

  test("names the file that is another one", async () => {
    write("vmlinux", "KERNEL");
    const changed = files();
    changed.set("vmlinux", sha256("kernel"));
    const { message } = await refusal({ expected: { kind: "files", files: changed } });
    expect(message).toContain(
      `${source}, vmlinux: expected ${sha256("kernel")}, received ${sha256("KERNEL")}.`,
    );
  });

  test("misses a file, or has one too many; links have no hash", async () => {
    const fewer = files();
    fewer.delete("vmlinux");
    expect((await refusal({ expected: { kind: "files", files: fewer } })).message).toContain(
      "vmlinux: expected its hash in the manifest, received none",
    );
    const more = files().set("initrd", sha256(""));
    expect((await refusal({ expected: { kind: "files", files: more } })).message).toContain(
      "initrd: expected a file, received nothing",
    );
    symlinkSync("vmlinux", `${source}/link`);
    expect((await refusal({ expected: { kind: "files", files: files() } })).message).toContain(
      "link: expected files alone",
    );
  });

  test("names what is taken from /nix/store by its path there", async () => {
    const path = folder.file("store/bbb");
    writeFileSync(path, "out");
    const wanted = () => [outside(path)];
    const without = await refusal({ expected: { kind: "files", files: files() }, wanted });
    expect(without.message).toContain(`${path}: expected its hash in the manifest`);
    const wrong = files().set(path, sha256("OUT"));
    await refusal({ expected: { kind: "files", files: wrong }, wanted });
    const right = files().set(path, sha256("out"));
    using _image = await add({ expected: { kind: "files", files: right }, wanted });
  });
});

describe("what is no image", () => {
  test.each([
    ["vms", "expected an absolute path"],
    ["/nowhere/at/all", "expected a folder, received nothing"],
    ["/etc/passwd", "expected a folder, received a file"],
  ])("%s", async (path, words) => {
    const request = { source: path, expected: { kind: "any" }, wanted: () => [] } as const;
    const { message } = await rejectionOf(store.add(request));
    expect(message).toContain(words);
  });

  test("a link to an image: the image has the hash, not the link", async () => {
    const link = folder.file("result");
    symlinkSync(source, link);
    const request = { ...(await requestOf()), source: link };
    const { message } = await rejectionOf(store.add(request));
    expect(message).toContain(`received a symbolic link to ${source}. Name that one.`);
  });

  test("a folder without vm-config.json, and one with something else in its place", async () => {
    source = folder.file("store/empty");
    mkdirSync(source);
    expect((await refusal()).message).toContain(
      "vm-config.json: expected a file, received nothing",
    );
    mkdirSync(`${source}/vm-config.json`);
    expect((await refusal()).message).toContain("received something else");
  });

  test("a vm-config.json that is no text, or too long", async () => {
    write("vm-config.json", new Uint8Array([0xff]));
    expect((await refusal()).message).toContain("expected text in UTF-8");
    write("vm-config.json", Buffer.alloc(1024 * 1024 + 1, " "));
    expect((await refusal()).message).toContain("expected at most 1048576 bytes, received 1048577");
  });

  test("what the reader of vm-config.json refuses", async () => {
    const wanted = () => {
      throw new Error("no machine");
    };
    expect((await rejectionOf(add({ wanted }))).message).toBe("no machine");
    expect(stored()).toEqual([]);
  });
});

describe("limits", () => {
  test("files, depth and bytes", async () => {
    store = await openStore({ entries: 5, depth: 1, bytes: pieceBytes + 13 });
    using image = await add();
    image[Symbol.dispose]();
    await store.removeUnused(new Set());
    for (const [limits, words] of [
      [{ entries: 4 }, "at most 4 files, folders and links"],
      [{ depth: 0 }, "folders at most 0 deep"],
      [{ bytes: pieceBytes + 12 }, `at most ${pieceBytes + 12} bytes in all files`],
    ] as const) {
      store = await openStore(limits);
      expect((await refusal()).message).toContain(words);
    }
  });

  test("bytes of /nix/store count as well", async () => {
    writeFileSync(folder.file("store/bbb"), "12345");
    store = await openStore({ bytes: pieceBytes + 17 });
    const wanted = () => [outside(folder.file("store/bbb"))];
    expect((await refusal({ wanted })).message).toContain("bytes in all files");
  });

  test("links on the way", async () => {
    symlinkSync("vmlinux", `${source}/l0`);
    for (let index = 1; index <= 16; index += 1)
      symlinkSync(`l${index - 1}`, `${source}/l${index}`);
    const { message } = await refusal({ wanted: () => [inside("l16")] });
    expect(message).toContain("expected at most 16 links on the way, received more");
    using _image = await add({ wanted: () => [inside("l15")] });
  });
});

describe("images that nobody uses", () => {
  test("are removed; not those of machines, nor those that somebody holds", async () => {
    const image = await add();
    write("vmlinux", "second");
    const second = await add();
    expect(await store.removeUnused(new Set())).toEqual([]);
    image[Symbol.dispose]();
    image[Symbol.dispose]();
    second[Symbol.dispose]();
    expect(await store.removeUnused(new Set([second.key]))).toEqual([image.key]);
    expect(stored()).toEqual([second.key]);
    expect(store.get(image.key)).toBeUndefined();
    expect(await store.removeUnused(new Set())).toEqual([second.key]);
  });

  test("are not those that are just being added", async () => {
    const removed: Promise<readonly string[]>[] = [];
    const look = () => void removed.push(store.removeUnused(new Set()));
    const wanted = () => {
      // After the copy, in turns of the event loop while it is put in its place.
      setImmediate(look);
      setImmediate(() => setImmediate(look));
      return [];
    };
    using image = await add({ onProgress: look, wanted });
    look();
    expect((await Promise.all(removed)).flat()).toEqual([]);
    expect(stored()).toEqual([image.key]);
  });

  test("one that two hold is held until both let go", async () => {
    const image = await add();
    const again = store.get(image.key);
    image[Symbol.dispose]();
    expect(await store.removeUnused(new Set())).toEqual([]);
    again?.[Symbol.dispose]();
    expect(await store.removeUnused(new Set())).toEqual([image.key]);
  });

  test("a key that is none is a bug, and leads nowhere", () => {
    expect(() => store.get("../../etc")).toThrow(RangeError);
  });
});

describe("opening", () => {
  test("removes what a store that was killed left, and nothing else", async () => {
    using image = await add();
    for (const name of [".adding-1-1", `.removing-${image.key}`, "mine"]) {
      mkdirSync(folder.file(`vms/images/${name}/tree`), { recursive: true });
    }
    await openStore();
    expect(stored().toSorted()).toEqual(["mine", image.key].toSorted());
  });

  test("is refused where others may write", async () => {
    chmodSync(folder.file("vms/images"), 0o777);
    expect((await rejectionOf(openStore())).message).toContain("with mode 0777");
  });

  test("is refused where there can be no folder", async () => {
    writeFileSync(folder.file("file"), "");
    const refused = await rejectionOf(ImageStore.open(folder.file("file")));
    expect(refused).toMatchObject({ name: "FileRefused" });
  });

  test("something else in the place of an image is told, and stays", async () => {
    const request = await requestOf();
    using image = await store.add(request);
    const path = folder.file(`vms/images/${image.key}/image.json`);
    chmodSync(path, 0o600);
    for (const text of ["no JSON", '{"format":2}']) {
      writeFileSync(path, text);
      expect((await rejectionOf(store.add(request))).message).toContain("received something else");
    }
    expect(existsSync(path)).toBe(true);
    expect(stored()).toEqual([image.key]);
  });
});
