/** An image from one host to another: what comes is what was, or nothing that leads elsewhere. */
import { afterEach, beforeEach, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { hashPath } from "../../../src/image/nar.ts";
import {
  ByteSocket,
  byteSocketHandlers,
  connectUnixBytes,
  type SocketData,
} from "../../../src/messaging/byte-socket.ts";
import { receiveImage, sendImage } from "../../../src/vm/perform/image-transfer.ts";
import { migrationLimits } from "../../../src/vm/protocol-migration.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf, waitFor, withDeadline } from "../../support/wait-for.ts";

let folder: TemporaryFolder;
let near: ByteSocket;
let far: ByteSocket;
let server: { stop(): void };

beforeEach(async () => {
  folder = temporaryFolder();
  const arrived = Promise.withResolvers<ByteSocket>();
  server = Bun.listen<SocketData>({
    unix: folder.file("socket"),
    data: { peer: undefined },
    socket: { ...byteSocketHandlers, open: (socket) => arrived.resolve(new ByteSocket(socket)) },
  });
  near = await connectUnixBytes(folder.file("socket"));
  far = await arrived.promise;
});
afterEach(() => {
  near.terminate("over");
  far.terminate("over");
  server.stop();
  folder[Symbol.dispose]();
});

const never = new AbortController().signal;
const target = () => folder.file("incoming/there");
const MEBIBYTE = 1024 ** 2;

function makeImage(): string {
  const image = folder.file("image");
  mkdirSync(join(image, "deep/er"), { recursive: true });
  writeFileSync(join(image, "vm-config.json"), "{}");
  writeFileSync(join(image, "empty"), "");
  writeFileSync(join(image, "deep/large"), Buffer.alloc(5 * MEBIBYTE, "large"));
  writeFileSync(join(image, "deep/er/run"), "#!/bin/sh\n");
  chmodSync(join(image, "deep/er/run"), 0o755);
  symlinkSync("deep/large", join(image, "link"));
  return image;
}

test("all of it comes, with what is executable, and links: its hash is the same", async () => {
  const image = makeImage();
  let told = 0;
  const onBytes = (count: number) => {
    told += count;
  };
  await Promise.all([
    sendImage(near, image, { signal: never, onBytes }),
    receiveImage(far, target(), { bytes: 6 * MEBIBYTE }),
  ]);
  expect(await hashPath(target())).toBe(await hashPath(image));
  expect(told).toBe(5 * MEBIBYTE + 12);
  expect(readlinkSync(join(target(), "link"))).toBe("deep/large");
  expect(statSync(target()).mode & 0o077).toBe(0);
});

test("more bytes than were offered are refused, and whoever sends sees it", async () => {
  const sent = sendImage(near, makeImage(), { signal: never, onBytes: () => {} });
  const error = await rejectionOf(receiveImage(far, target(), { bytes: 1000 }));
  expect(error.message).toContain("more bytes, received 5242880");
  expect((await rejectionOf(sent)).message).toContain("took no more of the image");
});

test("one that is called off ends at once", async () => {
  const off = new AbortController();
  const sent = sendImage(near, makeImage(), {
    signal: off.signal,
    onBytes: () => off.abort(new Error("called off")),
  });
  const received = receiveImage(far, target(), { bytes: 6 * MEBIBYTE });
  expect((await rejectionOf(sent)).message).toBe("called off");
  near.terminate("called off");
  expect((await rejectionOf(received)).message).toContain("did not come to its end");
});

test("one that is called off while nobody reads it ends at once", async () => {
  const off = new AbortController();
  const sent = sendImage(near, makeImage(), { signal: off.signal, onBytes: () => {} });
  await waitFor("more to be sent than is taken", () => near.unsentBytes > 0);
  off.abort(new Error("it has said nothing"));
  const error = await withDeadline("the sending to end", rejectionOf(sent));
  expect(error.message).toBe("it has said nothing");
});

const line = (entry: object) => `${JSON.stringify(entry)}\n`;
const root = line({ kind: "folder", path: "" });

test("nothing is written beside its folder, whatever the entries say", async () => {
  const away = Buffer.from(folder.file("away")).toString("base64");
  const file = { kind: "file", size: 1, executable: false };
  const hostile: readonly [string, string][] = [
    [root + line({ ...file, path: "../out" }), "below the image's folder"],
    [root + line({ ...file, path: "/etc/out" }), "below the image's folder"],
    [
      line({ kind: "link", path: "", target: away }) + line({ ...file, path: "out" }),
      "links after",
    ],
    [
      root + line({ kind: "link", path: "a", target: away }) + line({ ...file, path: "a" }),
      "links",
    ],
    [`${root}no entry\n`, "expected a line of JSON"],
    [root + line({ kind: "device", path: "a" }), "An entry"],
    [root + root, "EEXIST"],
    ["x".repeat(4 * migrationLimits.imagePathBytes + 1), "an entry of at most"],
  ];
  for (const [bytes, reason] of hostile) {
    const pair = await pairOf();
    const received = receiveImage(pair.far, target(), { bytes: MEBIBYTE });
    pair.near.write(Buffer.from(bytes));
    expect((await rejectionOf(received)).message).toContain(reason);
    pair.near.terminate("over");
    expect(existsSync(folder.file("away"))).toBeFalse();
    expect(existsSync(folder.file("incoming/out"))).toBeFalse();
  }
  const beside = readdirSync(folder.file("incoming")).filter((name) => name !== "there");
  expect(beside).toEqual([]);
});

test("more entries than an image has are refused", async () => {
  const received = receiveImage(far, target(), { bytes: MEBIBYTE, entries: 3 });
  const names = ["a", "b", "c"].map((path) => line({ kind: "folder", path }));
  near.write(Buffer.from(root + names.join("")));
  expect((await rejectionOf(received)).message).toContain("at most 3 entries");
});

/** A connection of its own. */
async function pairOf(): Promise<{ readonly near: ByteSocket; readonly far: ByteSocket }> {
  const path = folder.file(`socket-${readdirSync(folder.path).length}`);
  const arrived = Promise.withResolvers<ByteSocket>();
  const own = Bun.listen<SocketData>({
    unix: path,
    data: { peer: undefined },
    socket: { ...byteSocketHandlers, open: (socket) => arrived.resolve(new ByteSocket(socket)) },
  });
  const opened = await connectUnixBytes(path);
  const taken = await arrived.promise;
  own.stop();
  return { near: opened, far: taken };
}
