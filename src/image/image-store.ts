import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  renameSync,
  statSync,
} from "node:fs";
import { rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { withFile } from "../journal/file-refused.ts";
import { copyImage } from "./addition.ts";
import { makeFolder, synchroniseFolder } from "./copy.ts";
import { nixStore } from "./image-file.ts";
import { fromKernel, ImageRefused } from "./image-refused.ts";
import { type ImageRequest, keyOf } from "./image-request.ts";
import { passStep } from "./kill-points.ts";
import { type ImageLimits, imageLimits } from "./limits.ts";
import { copySingleFiles, type FilesRequest, keyOfRequest } from "./single-files.ts";
import { type ImageRecord, readRecord, StoredImage } from "./stored-image.ts";

/**
 * Images that were verified, each once: while they were copied here, in one reading. Machines
 * start from these copies, to which nobody writes.
 *
 *     images/nar-<64 hex>/   image.json, tree/ (what was in the folder), outside/ (from /nix/store)
 *
 * Folders are 0711 and files 0444: each VMM has a uid of its own, goes through and reads, and sees
 * no names. An image holds no secret of a machine; those are on the machine's own disks.
 *
 * One process at a time: its owner holds a lock on the folder above.
 */
export class ImageStore {
  readonly #folder: string;
  readonly #limits: ImageLimits;
  readonly #nixStore: string;
  /** How many hold an image, by its key. */
  readonly #holds = new Map<string, number>();
  /** The last of those who add the image of this key. */
  readonly #turns = new Map<string, Promise<unknown>>();
  #additions = 0;

  private constructor(folder: string, limits: ImageLimits, packages: string) {
    this.#folder = folder;
    this.#limits = limits;
    this.#nixStore = packages;
  }

  /**
   * Opens the store, making it where there is none, and removes what one that was killed left.
   * @param options limits and /nix/store, for tests
   * @throws FileRefused when the folder cannot be used, or others may write there
   */
  static async open(
    artifactsFolder: string,
    options: { readonly limits?: Partial<ImageLimits>; readonly nixStore?: string } = {},
  ): Promise<ImageStore> {
    const folder = join(artifactsFolder, "images");
    const place = { what: "keep images in", path: folder, otherwise: "give another folder" };
    withFile(place, () => {
      mkdirSync(folder, { recursive: true });
      const { mode, uid } = statSync(folder);
      const isOthers = (mode & 0o022) !== 0 || uid !== process.getuid?.();
      if (isOthers) {
        throw new ImageRefused("keep images in", folder, {
          file: undefined,
          expected: "a folder of this user that nobody else may write to",
          received: `one of uid ${uid} with mode 0${(mode & 0o777).toString(8)}`,
          mend: "See who has written there; then remove it.",
        });
      }
      chmodSync(folder, 0o711);
    });
    const limits = { ...imageLimits, ...options.limits };
    const store = new ImageStore(folder, limits, options.nixStore ?? nixStore);
    await store.#sweep();
    return store;
  }

  /**
   * Verifies an image and keeps it, or finds that it is kept: then nothing is read.
   * @returns the image; whoever has it disposes of it when no machine needs it any more
   * @throws ImageRefused, naming file, expected and received; the signal's reason; what `wanted`
   *   throws. Nothing of it is left.
   */
  async add(request: ImageRequest): Promise<StoredImage> {
    return await this.#once(keyOf(request), () => this.#addNow(request));
  }

  /**
   * The same of single files, which need not be in one folder.
   * @throws as `add`
   */
  async addFiles(request: FilesRequest): Promise<StoredImage> {
    const [first] = request.files;
    if (first === undefined) throw new RangeError("Expected a file");
    return await this.#once(keyOfRequest(request), async () => {
      const copy = (partial: string) => copySingleFiles(request, { partial, limits: this.#limits });
      return await this.#addBy(first.path, copy);
    });
  }

  /** @param key undefined where only its contents tell */
  async #once(key: string | undefined, make: () => Promise<StoredImage>): Promise<StoredImage> {
    // Who asks for the same image waits, and then finds it.
    const before = key === undefined ? undefined : this.#turns.get(key);
    const turn = (async () => {
      await before?.then(undefined, () => undefined);
      const found = key === undefined ? undefined : this.get(key);
      return found ?? (await make());
    })();
    if (key === undefined) return await turn;
    this.#turns.set(key, turn);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(key) === turn) this.#turns.delete(key);
    }
  }

  /** An image by its key, as a `StoredImage` had it; undefined when it is not here. */
  get(key: string): StoredImage | undefined {
    const folder = this.#folderOf(key);
    const record = readRecord(folder);
    if (record === undefined) return undefined;
    this.#holds.set(key, (this.#holds.get(key) ?? 0) + 1);
    let isHeld = true;
    const release = () => {
      if (!isHeld) return;
      isHeld = false;
      const count = (this.#holds.get(key) ?? 1) - 1;
      if (count === 0) this.#holds.delete(key);
      else this.#holds.set(key, count);
    };
    return new StoredImage({ key, folder, record, release });
  }

  keys(): string[] {
    return readdirSync(this.#folder)
      .filter((name) => keyPattern.test(name))
      .toSorted();
  }

  /**
   * Removes the images that no machine uses and nobody holds.
   * @returns their keys
   */
  async removeUnused(used: ReadonlySet<string>): Promise<string[]> {
    const unused = this.keys().filter((key) => !used.has(key) && !this.#holds.has(key));
    for (const key of unused) {
      const aside = join(this.#folder, `${asidePrefix}${key}`);
      await rm(aside, { recursive: true, force: true });
      if (used.has(key) || this.#holds.has(key)) continue;
      renameSync(this.#folderOf(key), aside);
      await synchroniseFolder(this.#folder);
      passStep("set-aside");
      await rm(aside, { recursive: true, force: true });
      passStep("removed");
    }
    return unused;
  }

  async #addNow(request: ImageRequest): Promise<StoredImage> {
    const source = this.#sourceOf(request.source);
    const links = source.startsWith(`${this.#nixStore}/`) ? this.#nixStore : null;
    const limits = this.#limits;
    return await this.#addBy(request.source, (partial) =>
      copyImage({ request, source, partial, links, limits }),
    );
  }

  async #addBy(
    image: string,
    copy: (partial: string) => ReturnType<typeof copyImage>,
  ): Promise<StoredImage> {
    this.#additions += 1;
    const partial = join(this.#folder, `${partialPrefix}${process.pid}-${this.#additions}`);
    try {
      makeFolder(partial);
      passStep("begun");
      const { record, key } = await copy(partial);
      return await this.#place(partial, key, record);
    } catch (error) {
      throw fromKernel(error, { ...storing, image, file: undefined });
    } finally {
      await removeLeftover(partial);
    }
  }

  /** Gives a whole image its name, unless one is there already. */
  async #place(partial: string, key: string, record: ImageRecord): Promise<StoredImage> {
    const folder = this.#folderOf(key);
    if (existsSync(folder) && readRecord(folder) === undefined) {
      throw new ImageRefused("store the image", record.source, {
        file: undefined,
        expected: `nothing at ${folder}, or an image that was stored there`,
        received: "something else",
        mend: "See who has written there, and remove it.",
      });
    }
    if (!existsSync(folder)) renameSync(partial, folder);
    // Held from now on: nobody removes it while its name goes to the disk.
    const stored = this.get(key);
    if (stored === undefined) throw new Error(`Bug: the image ${key} vanished`);
    try {
      await synchroniseFolder(this.#folder);
    } catch (error) {
      stored[Symbol.dispose]();
      throw error;
    }
    passStep("placed");
    return stored;
  }

  #sourceOf(written: string): string {
    const refuse = (expected: string, received: string, mend: string) =>
      new ImageRefused("read the image", written, { file: undefined, expected, received, mend });
    if (!written.startsWith("/")) {
      throw refuse("an absolute path", "another", "Name it from the root on.");
    }
    const status = lstatSync(written, { throwIfNoEntry: false });
    if (status === undefined) throw refuse("a folder", "nothing", "Look at its name.");
    const real = realpathSync(written);
    if (status.isSymbolicLink()) {
      throw refuse("a folder", `a symbolic link to ${real}`, "Name that one.");
    }
    if (!status.isDirectory()) throw refuse("a folder", "a file", "Name the folder it is in.");
    return real;
  }

  #folderOf(key: string): string {
    if (!keyPattern.test(key)) throw new RangeError(`Expected an image's key, received ${key}`);
    return join(this.#folder, key);
  }

  async #sweep(): Promise<void> {
    for (const name of readdirSync(this.#folder)) {
      if (!name.startsWith(partialPrefix) && !name.startsWith(asidePrefix)) continue;
      await rm(join(this.#folder, basename(name)), { recursive: true, force: true });
    }
  }
}

const partialPrefix = ".adding-";
const asidePrefix = ".removing-";
const keyPattern = /^(nar|files)-[\da-f]{64}$/;
const storing = { what: "store the image", isReading: false } as const;

/** What is to be told is what refused the image, and not that its begin cannot be removed. */
async function removeLeftover(partial: string): Promise<void> {
  await rm(partial, { recursive: true, force: true }).catch(() => undefined);
}
