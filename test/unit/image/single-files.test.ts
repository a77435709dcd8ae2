/** Images of single files: verified while they are copied, each once, whoever asks. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { ImageStore } from "../../../src/image/image-store.ts";
import type { FilesRequest, SingleFile } from "../../../src/image/single-files.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

let folder: TemporaryFolder;
let store: ImageStore;
beforeEach(async () => {
  folder = temporaryFolder();
  store = await ImageStore.open(folder.path);
});
afterEach(() => folder[Symbol.dispose]());

const sha256 = (text: string) =>
  `sha256-${new Bun.CryptoHasher("sha256").update(text).digest("base64")}`;

function fileOf(name: string, text: string): SingleFile {
  const path = folder.file(`${name}.bin`);
  writeFileSync(path, text);
  return { key: `${name}Path`, name, path, hash: sha256(text) };
}

const requestOf = (...files: readonly SingleFile[]): FilesRequest => ({
  files,
  configuration: "{}\n",
});
const inStore = () => readdirSync(folder.file("images"));

test("are there under one key, and shared by whoever asks for the same", async () => {
  const kernel = fileOf("kernel", "kernel");
  const told: [number, number][] = [];
  const request = { ...requestOf(kernel, fileOf("disk", "disk")) };
  const [one, other] = await Promise.all([
    store.addFiles({ ...request, onProgress: (done, of) => told.push([done, of]) }),
    store.addFiles(request),
  ]);
  expect(other.key).toBe(one.key);
  expect(told.at(-1)).toEqual([10, 10]);
  expect(inStore()).toEqual([one.key]);
  const path = one.locate({ kind: "inside", name: "kernel" }, "kernel");
  expect(readFileSync(path, "utf8")).toBe("kernel");
  expect(statSync(path).mode & 0o777).toBe(0o444);
  expect(one.configuration()).toBe("{}\n");
  writeFileSync(kernel.path, "changed");
  const again = await store.addFiles(request);
  expect(again.key).toBe(one.key);
  expect(readFileSync(path, "utf8")).toBe("kernel");
});

test("are found by links, and are other images when anything differs", async () => {
  const kernel = fileOf("kernel", "kernel");
  const link = folder.file("link");
  symlinkSync(kernel.path, link);
  const one = await store.addFiles(requestOf({ ...kernel, path: link }));
  const same = await store.addFiles(requestOf(kernel));
  expect(same.key).toBe(one.key);
  const other = await store.addFiles({ ...requestOf(kernel), configuration: "{} \n" });
  expect(other.key).not.toBe(one.key);
});

test("are refused by their keys, and leave nothing", async () => {
  const kernel = fileOf("kernel", "kernel");
  mkdirSync(folder.file("folder"));
  const refused = async (changes: Partial<SingleFile>, words: string) => {
    const request = requestOf(kernel, { ...fileOf("disk", "disk"), ...changes });
    const error = await rejectionOf(store.addFiles(request));
    expect(String(error)).toContain(words);
    expect(inStore()).toEqual([]);
  };
  await refused({ hash: sha256("else") }, `diskPath: expected ${sha256("else")}, received sha256-`);
  await refused({ hash: "sha256-" }, "diskPath: expected sha256-, received sha256-");
  await refused({ path: folder.file("folder") }, "diskPath: expected a file, received something");
  await refused({ path: folder.file("none") }, "diskPath");
  const gone = AbortSignal.abort(new Error("given up"));
  const request = { ...requestOf(kernel), signal: gone };
  expect(String(await rejectionOf(store.addFiles(request)))).toContain("given up");
  expect(inStore()).toEqual([]);
});

test("have the store's limit of bytes", async () => {
  const small = await ImageStore.open(folder.path, { limits: { bytes: 9 } });
  const request = requestOf(fileOf("kernel", "kernel"), fileOf("disk", "disk"));
  const error = await rejectionOf(small.addFiles(request));
  expect(String(error)).toContain("expected at most 9 bytes in all files, received 10 bytes");
  expect(inStore()).toEqual([]);
});
