/** The hash of a path, as `nix hash path` prints it: vectors, and a second way to make it. */
import { describe, expect, test } from "bun:test";
import {
  appendFileSync,
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { ImageRefused } from "../../../src/image/image-refused.ts";
import { imageLimits } from "../../../src/image/limits.ts";
import { formatHash, hashPath, NarHasher, parseHash } from "../../../src/image/nar.ts";
import { pieceBytes } from "../../../src/image/pieces.ts";
import { walkTree } from "../../../src/image/tree.ts";
import { SeededChance } from "../../support/chance.ts";
import { runProgram } from "../../support/program.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

/** The same by recursion, in one piece of memory: it shares nothing with the product. */
function narOf(path: string): Uint8Array {
  const word = (content: string | Uint8Array) => {
    const bytes = typeof content === "string" ? Buffer.from(content) : content;
    const whole = Buffer.alloc(8 + Math.ceil(bytes.length / 8) * 8);
    whole.writeUInt32LE(bytes.length, 0);
    whole.set(bytes, 8);
    return whole;
  };
  const node = (at: string): Uint8Array => {
    const status = lstatSync(at);
    const inner: Uint8Array[] = [word("("), word("type")];
    if (status.isSymbolicLink()) {
      inner.push(word("symlink"), word("target"), word(readlinkSync(at)));
    } else if (status.isDirectory()) {
      inner.push(word("directory"));
      const names = readdirSync(at, { encoding: "buffer" }).toSorted(Buffer.compare);
      for (const name of names) {
        inner.push(word("entry"), word("("), word("name"), word(name), word("node"));
        inner.push(node(`${at}/${name}`), word(")"));
      }
    } else {
      inner.push(word("regular"));
      if ((status.mode & 0o100) !== 0) inner.push(word("executable"), word(""));
      inner.push(word("contents"), word(readFileSync(at)));
    }
    return Buffer.concat([...inner, word(")")]);
  };
  return Buffer.concat([word("nix-archive-1"), node(path)]);
}

const sha256 = (bytes: Uint8Array) =>
  formatHash(new Bun.CryptoHasher("sha256").update(bytes).digest());

/** A NAR as it stands in a hexadecimal dump: words of eight bytes, written out by hand. */
const byHand = (...lines: readonly string[]) =>
  Buffer.from(lines.join(" ").replaceAll(/\s/g, ""), "hex");

const magic = "0d00000000000000 6e69782d61726368 6976652d31000000";
const open = "0100000000000000 2800000000000000";
const close = "0100000000000000 2900000000000000";
const type = "0400000000000000 7479706500000000";
const regular = "0700000000000000 726567756c617200";
const directory = "0900000000000000 6469726563746f72 7900000000000000";
const symlink = "0700000000000000 73796d6c696e6b00";
const contents = "0800000000000000 636f6e74656e7473";
const executable = "0a00000000000000 65786563757461626c65000000000000 0000000000000000";
const entry = "0500000000000000 656e747279000000";
const name = "0400000000000000 6e616d6500000000";
const nodeWord = "0400000000000000 6e6f646500000000";
const target = "0600000000000000 7461726765740000";
const hello = "0500000000000000 68656c6c6f000000";

describe("vectors", () => {
  test("an empty folder: the hash that Nix tells when a fetcher fetched nothing", async () => {
    using folder = temporaryFolder();
    mkdirSync(folder.file("empty"));
    const nar = byHand(magic, open, type, directory, close);
    const hash = "sha256-pQpattmS9VmO3ZIQUFn66az8GSmB4IvYhTTCFn6SUmo=";
    expect(sha256(nar)).toBe(hash);
    expect(await hashPath(folder.file("empty"))).toBe(hash);
  });

  test("an empty file", async () => {
    using folder = temporaryFolder();
    writeFileSync(folder.file("x"), "");
    const nar = byHand(magic, open, type, regular, contents, "0000000000000000", close);
    const hash = "sha256-d6xi4mKdjkX2JFicDIv5niSzpyI0m/Hnm8GGAIU04kY=";
    expect(sha256(nar)).toBe(hash);
    expect(await hashPath(folder.file("x"))).toBe(hash);
  });

  test('a file with "hello", and the same one that can be executed', async () => {
    using folder = temporaryFolder();
    writeFileSync(folder.file("x"), "hello", { mode: 0o644 });
    const plain = byHand(magic, open, type, regular, contents, hello, close);
    expect(await hashPath(folder.file("x"))).toBe(sha256(plain));
    chmodSync(folder.file("x"), 0o700);
    const nar = byHand(magic, open, type, regular, executable, contents, hello, close);
    expect(await hashPath(folder.file("x"))).toBe(sha256(nar));
    // Its owner's bit alone counts, and no other mode.
    chmodSync(folder.file("x"), 0o455);
    expect(await hashPath(folder.file("x"))).toBe(sha256(plain));
  });

  test("a folder with a file and a link", async () => {
    using folder = temporaryFolder();
    mkdirSync(folder.file("d"));
    writeFileSync(folder.file("d/a"), "hello");
    symlinkSync("a", folder.file("d/b"));
    const a = "0100000000000000 6100000000000000";
    const b = "0100000000000000 6200000000000000";
    const nar = byHand(
      ...[magic, open, type, directory],
      ...[entry, open, name, a, nodeWord, open, type, regular, contents, hello, close, close],
      ...[entry, open, name, b, nodeWord, open, type, symlink, target, a, close, close],
      close,
    );
    expect(await hashPath(folder.file("d"))).toBe(sha256(nar));
    expect(await hashPath(folder.file("d"))).toMatchInlineSnapshot(
      `"sha256-KOSbMoqIoh6Xsgsm3z6rLKAKIYbizHv3mKKYafzjfHw="`,
    );
  });

  test("a link itself, which is not followed", async () => {
    using folder = temporaryFolder();
    symlinkSync("/nowhere/at all", folder.file("x"));
    expect(await hashPath(folder.file("x"))).toBe(sha256(narOf(folder.file("x"))));
  });
});

describe("against the second way", () => {
  test("names are in the order of their bytes, and not of any language", async () => {
    using folder = temporaryFolder();
    const names = ["a", "B", "a.b", "a-b", "ab", "é", "z", "\u{1f600}", "\ufb01", "A b", "~"];
    for (const file of names) writeFileSync(folder.file(file), file);
    expect(await hashPath(folder.path)).toBe(sha256(narOf(folder.path)));
  });

  test.each([1, 7, 8, 9, pieceBytes - 1, pieceBytes, pieceBytes + 1, pieceBytes * 4 + 5])(
    "a file of %d bytes",
    async (size) => {
      using folder = temporaryFolder();
      const bytes = new Uint8Array(size).map((_, index) => (index * 2_654_435_761) >>> 11);
      writeFileSync(folder.file("x"), bytes);
      let counted = 0;
      const onBytes = (count: number) => {
        counted += count;
      };
      expect(await hashPath(folder.file("x"), { onBytes })).toBe(sha256(narOf(folder.file("x"))));
      expect(counted).toBe(size);
    },
  );

  test("trees that grew by chance", async () => {
    const chance = new SeededChance(7);
    const grow = (at: string, depth: number): void => {
      mkdirSync(at);
      for (let count = chance.below(6); count > 0; count -= 1) {
        const path = `${at}/${chance.pick([..."abcXYZ-._"])}${count}`;
        if (depth < 4 && chance.happens(0.3)) grow(path, depth + 1);
        else if (chance.happens(0.3)) symlinkSync("x".repeat(1 + chance.below(20)), path);
        else {
          writeFileSync(path, "y".repeat(chance.below(40)));
          if (chance.happens(0.3)) chmodSync(path, 0o755);
        }
      }
    };
    for (let round = 0; round < 40; round += 1) {
      using folder = temporaryFolder();
      grow(folder.file("root"), 0);
      expect(await hashPath(folder.file("root"))).toBe(sha256(narOf(folder.file("root"))));
    }
  });
});

describe("what is refused", () => {
  test("a FIFO and a socket, by name; nothing is opened that could block", async () => {
    using folder = temporaryFolder();
    mkdirSync(folder.file("d"));
    await runProgram(["mkfifo", folder.file("d/pipe")]);
    expect(await rejectionOf(hashPath(folder.path))).toMatchObject({
      name: "ImageRefused",
      mismatch: {
        file: "d/pipe",
        expected: "files, folders and symbolic links",
        received: "a FIFO",
      },
    });
    await using server = createServer();
    await new Promise<void>((resolve) => server.listen(folder.file("a"), resolve));
    const refused = await rejectionOf(hashPath(folder.path));
    expect(refused.message).toContain("received a socket");
  });

  test("a name that is no text", async () => {
    using folder = temporaryFolder();
    writeFileSync(Buffer.from(`${folder.path}/a\xff`, "latin1"), "");
    const refused = await rejectionOf(hashPath(folder.path));
    expect(refused.message).toContain("expected names in UTF-8");
    expect(refused.message).toContain("61ff");
  });

  test("a path that is not there", async () => {
    expect((await rejectionOf(hashPath("/nowhere/image"))).message).toBe(
      "Cannot read the image /nowhere/image: expected a file there, received nothing (ENOENT). " +
        "Look at its name.",
    );
  });

  test("a file that becomes shorter; one that grows is read as it was", async () => {
    using folder = temporaryFolder();
    const path = folder.file("x");
    writeFileSync(path, Buffer.alloc(pieceBytes * 8, "x"));
    const whole = await hashPath(path);
    let isFirst = true;
    const atFirst = (act: () => void) => () => {
      if (isFirst) act();
      isFirst = false;
    };
    expect(await hashPath(path, { onBytes: atFirst(() => appendFileSync(path, "y")) })).toBe(whole);
    isFirst = true;
    const onBytes = atFirst(() => truncateSync(path, 5));
    const refused = await rejectionOf(hashPath(path, { onBytes }));
    expect(refused).toBeInstanceOf(ImageRefused);
    expect(refused.message).toContain("bytes, then its end");
  });

  test("more entries, depth and bytes than there may be", async () => {
    using folder = temporaryFolder();
    mkdirSync(folder.file("a/b/c"), { recursive: true });
    writeFileSync(folder.file("a/x"), "12345");
    const walk = (limits: object) =>
      rejectionOf(walkTree(folder.path, new NarHasher(), { ...imageLimits, ...limits }));
    await walkTree(folder.path, new NarHasher(), {
      ...imageLimits,
      entries: 5,
      depth: 3,
      bytes: 5,
    });
    expect((await walk({ entries: 4 })).message).toContain("at most 4 files, folders and links");
    expect((await walk({ depth: 2 })).message).toContain("folders at most 2 deep");
    expect((await walk({ bytes: 4 })).message).toContain("at most 4 bytes in all files");
  });

  test("going on after an abort", async () => {
    using folder = temporaryFolder();
    writeFileSync(folder.file("x"), Buffer.alloc(pieceBytes * 8));
    const abort = new AbortController();
    const options = { onBytes: () => abort.abort(), signal: abort.signal };
    expect((await rejectionOf(hashPath(folder.file("x"), options))).name).toBe("AbortError");
  });
});

describe("a hash as text", () => {
  test("is read and written", () => {
    const text = "sha256-pQpattmS9VmO3ZIQUFn66az8GSmB4IvYhTTCFn6SUmo=";
    expect(formatHash(parseHash(text) as Uint8Array)).toBe(text);
  });

  test.each([
    "",
    "sha256-",
    "sha256-...",
    "sha256-pQpattmS9VmO3ZIQUFn66az8GSmB4IvYhTTCFn6SUmo",
    "sha512-pQpattmS9VmO3ZIQUFn66az8GSmB4IvYhTTCFn6SUmo=",
    "sha256-pQpattmS9VmO3ZIQUFn66az8GSmB4IvYhTTCFn6SUmp=",
    "sha256-pQpattmS9VmO3ZIQUFn66az8GSmB4IvYhTTCFn6SUmo= ",
    "a50a5ab6d992f5598edd92105059fae9acfc192981e08bd88534c2167e92526a",
  ])("%p is none", (text) => {
    expect(parseHash(text)).toBeUndefined();
  });
});
