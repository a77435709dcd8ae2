/** The keeper of a console, against a socket such as a VMM's serial port. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { chmodSync, mkdirSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { makeSocketPair } from "../../../ffi/unix-socket.ts";
import type { EventLoop } from "../../../src/event-loop/event-loop.ts";
import { StreamConnection } from "../../../src/messaging/stream-connection.ts";
import { ConsoleLines, LONGEST_LINE, plainConsoleText } from "../../../src/vm/console-text.ts";
import {
  type AttachOptions,
  ConsoleKeeper,
  INPUT_BYTES,
  MOST_VIEWERS,
  VIEWER_BYTES,
} from "../../../src/vm/perform/console.ts";
import {
  readScrollback,
  SCROLLBACK_BYTES,
  Scrollback,
} from "../../../src/vm/perform/console-scrollback.ts";
import { attachConsole, type ConsoleTerminal } from "../../../src/vm/perform/console-terminal.ts";
import { testEventLoop } from "../../support/event-loop.ts";
import { type TemporaryFolder, temporaryFolder } from "../../support/temporary-folder.ts";
import { waitFor, withDeadline } from "../../support/wait-for.ts";

let loop: EventLoop;
let folder: TemporaryFolder;
let server: Server;
let serial: Socket | undefined;
let typed = "";
let keeper: ConsoleKeeper;
const unkept: string[] = [];
const lines: string[] = [];

const makeKeeper = () =>
  new ConsoleKeeper(loop, {
    socketPath: folder.file("serial"),
    scrollbackPath: folder.file("console"),
    handlers: {
      onLine: (line) => lines.push(line),
      onUnreachable: () => {},
      onUnkept: (reason) => unkept.push(reason),
    },
  });

async function listenAsVmm(): Promise<void> {
  server = createServer((socket) => {
    serial = socket;
    socket.on("error", () => {});
    socket.on("data", (bytes) => {
      typed += String(bytes);
    });
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(folder.file("serial"), resolve);
  await promise;
}

const connected = () => waitFor("the keeper", () => keeper.isConnected && serial !== undefined);
const kept = () => Buffer.from(keeper.read()).toString("latin1");
const keeps = (text: string) => waitFor(`"${text}" to be kept`, () => kept().endsWith(text));

beforeEach(async () => {
  typed = "";
  serial = undefined;
  unkept.splice(0);
  lines.splice(0);
  loop = testEventLoop();
  folder = temporaryFolder();
  await listenAsVmm();
  keeper = makeKeeper();
  await connected();
});

afterEach(() => {
  keeper[Symbol.dispose]();
  serial?.destroy();
  server.close();
  folder[Symbol.dispose]();
  loop[Symbol.dispose]();
});

interface Looker {
  readonly seen: string;
  readonly isOpen: boolean;
  /** Bytes typed that its socket has not taken yet. */
  readonly queuedBytes: number;
  type(text: string): void;
  leave(): void;
}

const options: AttachOptions = { writes: true, takes: false, scrollback: true };

function look(chosen: Partial<AttachOptions> = {}) {
  const [ours, theirs] = makeSocketPair();
  const attachment = keeper.attach(theirs, { ...options, ...chosen });
  let seen = "";
  const stream = new StreamConnection(loop, ours, {
    queuedBytes: 1024 * 1024,
    handlers: {
      onBytes: (bytes) => {
        seen += Buffer.from(bytes).toString("latin1");
      },
      onEnd: () => {},
    },
  });
  const looker: Looker = {
    get seen() {
      return seen;
    },
    get isOpen() {
      return stream.isOpen;
    },
    get queuedBytes() {
      return stream.queuedBytes;
    },
    type: (text) => stream.send(new TextEncoder().encode(text)),
    leave: () => stream.close(),
  };
  return { attachment, looker };
}

describe("what is said", () => {
  test("is kept, told line by line, and shown with what was said before", async () => {
    serial?.write("first\r\nsecond");
    await keeps("second");
    const { attachment, looker } = look();
    expect(attachment).toEqual({ kind: "attached", writes: true });
    serial?.write(" half\r\n\u001b[31m");
    await waitFor("all of it", () => looker.seen === "first\r\nsecond half\r\n\u001b[31m");
    expect(lines).toEqual(["first", "second half"]);
    looker.leave();
  });

  test("is still there when another keeper comes, also of a machine that is gone", async () => {
    serial?.write("before\n");
    await keeps("before\n");
    keeper[Symbol.dispose]();
    expect(Buffer.from(readScrollback(folder.file("console"))).toString()).toBe("before\n");
    serial = undefined;
    keeper = makeKeeper();
    await connected();
    (serial as Socket | undefined)?.write("after\n");
    await keeps("before\nafter\n");
    expect(statSync(folder.file("console")).mode & 0o777).toBe(0o600);
  });

  test("goes on after the VMM's connection was lost", async () => {
    serial?.destroy();
    serial = undefined;
    await connected();
    (serial as Socket | undefined)?.write("again\n");
    await keeps("again\n");
  });
});

describe("the scrollback", () => {
  const all = () => readScrollback(folder.file("kept"));
  const made = () => new Scrollback(folder.file("kept"), (reason) => unkept.push(reason));

  test("never has more than its limit, and always the end of what was said", () => {
    using scrollback = made();
    let said = "";
    for (let count = 0; count < 300; count++) {
      const piece = `${count},`.repeat(3_000);
      said += piece;
      scrollback.append(new TextEncoder().encode(piece));
      const now = Buffer.from(all()).toString();
      expect(now.length).toBeLessThanOrEqual(SCROLLBACK_BYTES);
      expect(now.length).toBeGreaterThanOrEqual(Math.min(said.length, SCROLLBACK_BYTES / 2));
      expect(said.endsWith(now)).toBe(true);
    }
  });

  test("takes a piece larger than itself", () => {
    using scrollback = made();
    scrollback.append(new Uint8Array(3 * SCROLLBACK_BYTES).fill(7));
    scrollback.append(Uint8Array.of(8));
    expect(all().length).toBeGreaterThanOrEqual(SCROLLBACK_BYTES / 2);
    expect(all().at(-1)).toBe(8);
  });

  test("goes through no symbolic link", () => {
    writeFileSync(folder.file("precious"), "precious");
    symlinkSync(folder.file("precious"), folder.file("kept"));
    using scrollback = made();
    scrollback.append(Uint8Array.of(1));
    expect(unkept).toEqual(["ELOOP"]);
    expect(all()).toHaveLength(0);
  });

  test("that cannot be written is told once, and again after it could", () => {
    using scrollback = made();
    mkdirSync(folder.file("kept"));
    scrollback.append(Uint8Array.of(1));
    scrollback.append(Uint8Array.of(2));
    expect(unkept).toEqual(["EISDIR"]);
    chmodSync(folder.file("kept"), 0o700);
  });
});

describe("who looks", () => {
  test("one writes, the next looks on, and takes the writing when asked", async () => {
    const first = look();
    const second = look();
    expect(second.attachment).toEqual({ kind: "attached", writes: false });
    second.looker.type("unheard");
    first.looker.type("heard");
    await waitFor("what was typed", () => typed === "heard");
    const third = look({ takes: true });
    expect(third.attachment).toEqual({ kind: "attached", writes: true });
    await waitFor("the notice", () => first.looker.seen.includes("somebody else writes now"));
    first.looker.type("unheard");
    third.looker.type(" too");
    await waitFor("what was typed", () => typed === "heard too");
    serial?.write("to all");
    for (const { looker } of [first, second, third]) {
      await waitFor("what was said", () => looker.seen.endsWith("to all"));
      looker.leave();
    }
  });

  test("who leaves gives the writing free", async () => {
    const first = look();
    first.looker.leave();
    await waitFor("that the keeper knows", () => keeper.viewerCount === 0);
    expect(look().attachment).toEqual({ kind: "attached", writes: true });
  });

  test("who would write, and may not, is told so", async () => {
    look();
    const second = look();
    expect(second.attachment).toEqual({ kind: "attached", writes: false });
    await waitFor("the word", () =>
      second.looker.seen.includes("somebody else writes; you look on"),
    );
    expect(look({ writes: false }).looker.seen).not.toContain("somebody else");
  });

  test("who only looks does not write, and keeps nobody from it", () => {
    expect(look({ writes: false }).attachment).toEqual({ kind: "attached", writes: false });
    expect(look().attachment).toEqual({ kind: "attached", writes: true });
  });

  test("one more than may look is refused, and its socket closed", async () => {
    for (let count = 0; count < MOST_VIEWERS; count++) look();
    const { attachment, looker } = look();
    expect(attachment).toMatchObject({ kind: "refused", received: "one more" });
    await waitFor("the end", () => !looker.isOpen);
  });

  test("who does not read is let go, and the others see on", async () => {
    const [ours, theirs] = makeSocketPair();
    keeper.attach(theirs, { ...options, writes: false });
    const { looker } = look();
    const piece = "y".repeat(64 * 1024);
    for (let sent = 0; sent < 2 * VIEWER_BYTES; sent += piece.length) serial?.write(piece);
    await waitFor("one to be let go", () => keeper.viewerCount === 1);
    await waitFor("all of it", () => looker.seen.length >= 2 * VIEWER_BYTES);
    ours.close();
  });

  test("what a guest does not read is thrown away beyond the limit", async () => {
    serial?.pause();
    const { looker } = look();
    const flood = 64;
    for (let count = 0; count < flood; count++) looker.type("z".repeat(INPUT_BYTES / 4));
    await waitFor("all of it to be sent", () => looker.queuedBytes === 0);
    looker.leave();
    // The end of a socket is told after all that was sent over it.
    await waitFor("all of it to be taken", () => keeper.viewerCount === 0);
    const { looker: other } = look();
    serial?.write("said meanwhile");
    await waitFor("the answer", () => other.seen.endsWith("said meanwhile"));
    serial?.resume();
    // What is typed after it comes after it, once the queue takes something again.
    await waitFor("what is typed later", () => {
      other.type("!");
      return typed.endsWith("!");
    });
    expect(typed.length).toBeLessThan((flood * INPUT_BYTES) / 4);
    expect(keeper.isConnected).toBe(true);
  });
});

describe("a terminal", () => {
  class FakeTerminal implements ConsoleTerminal {
    readonly raw: boolean[] = [];
    shown = "";
    take: ((bytes: Uint8Array) => void) | undefined;
    end: (() => void) | undefined;
    setRaw(raw: boolean): void {
      this.raw.push(raw);
    }
    onTyped(take: (bytes: Uint8Array) => void, onEnd: () => void): Disposable {
      this.take = take;
      this.end = onEnd;
      return { [Symbol.dispose]: () => (this.take = undefined) };
    }
    write(bytes: Uint8Array): void {
      this.shown += Buffer.from(bytes).toString("latin1");
    }
    type(text: string): void {
      this.take?.(Buffer.from(text, "latin1"));
    }
  }

  function attach() {
    const [ours, theirs] = makeSocketPair();
    keeper.attach(theirs, options);
    const terminal = new FakeTerminal();
    return { terminal, over: attachConsole(loop, ours, terminal), socket: ours };
  }

  test("is raw until Ctrl-], and what was typed before is sent", async () => {
    const { terminal, over } = attach();
    serial?.write("\u001b[2Jraw\u0000");
    await waitFor("what was said", () => terminal.shown === "\u001b[2Jraw\u0000");
    terminal.type("\u0003ls\r");
    terminal.type("more\u001dnever");
    expect(await withDeadline("the end", over)).toEqual({ kind: "detached" });
    expect(terminal.raw).toEqual([true, false]);
    expect(terminal.take).toBeUndefined();
    await waitFor("what was typed", () => typed === "\u0003ls\rmore");
    await waitFor("that the keeper knows", () => keeper.viewerCount === 0);
  });

  test("is given back when the worker ends, or the input does", async () => {
    const first = attach();
    keeper[Symbol.dispose]();
    expect(await withDeadline("the end", first.over)).toMatchObject({ kind: "ended" });
    expect(first.terminal.raw).toEqual([true, false]);
    keeper = makeKeeper();
    const second = attach();
    second.terminal.end?.();
    expect(await withDeadline("the end", second.over)).toEqual({ kind: "detached" });
  });
});

describe("plain text", () => {
  test("has nothing that drives a terminal, or turns what is read around", () => {
    const bytes = new TextEncoder().encode(
      "fine\r\n\u001b]0;title\u0007\n\u009b31m\u202egnp.exe\n\u2028ü\tx\nlast",
    );
    expect(plainConsoleText(bytes)).toBe(
      "fine\n\\u001b]0;title\\u0007\n\\u009b31m\\u202egnp.exe\n\\u2028ü\\tx\nlast\n",
    );
    expect(plainConsoleText(bytes, 1)).toBe("last\n");
    expect(plainConsoleText(bytes, 0)).toBe("");
    expect(plainConsoleText(new Uint8Array(0))).toBe("");
    expect(plainConsoleText(Uint8Array.of(0xff, 0xfe, 0x0a))).toBe("\ufffd\ufffd\n");
  });

  test("lines come whole from any pieces, and a line without end comes in pieces", () => {
    const heard: string[] = [];
    const reading = new ConsoleLines((line) => heard.push(line));
    for (const byte of new TextEncoder().encode("ü1\r\n\n3")) reading.push(Uint8Array.of(byte));
    expect(heard).toEqual(["ü1", ""]);
    reading.push(new TextEncoder().encode("x".repeat(3 * LONGEST_LINE)));
    expect(heard.slice(2).map((line) => line.length)).toEqual([
      LONGEST_LINE,
      LONGEST_LINE,
      LONGEST_LINE,
    ]);
  });
});
