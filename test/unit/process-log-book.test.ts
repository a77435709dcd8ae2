/** What a process writes is kept within its limits, and what fell out is counted. */
import { describe, expect, test } from "bun:test";
import { LogBook } from "../../src/process/log-book.ts";

const encode = (text: string) => new TextEncoder().encode(text);

function write(book: LogBook, text: string, stream: "stdout" | "stderr" = "stdout"): void {
  book.push(stream, encode(text), 1);
}

const linesOf = (book: LogBook) => book.after(0).lines.map(({ line }) => line);

describe("a log book", () => {
  test("keeps the last lines, and counts those that fell out", () => {
    const book = new LogBook({ lines: 3, bytes: 1_000 });
    write(book, "a\nb\nc\nd\ne\n");
    expect(linesOf(book)).toEqual(["c", "d", "e"]);
    expect(book.dropped).toBe(2);
    expect(book.after(0).dropped).toBe(2);
  });

  test("keeps no more than so many bytes", () => {
    const book = new LogBook({ lines: 1_000, bytes: 10 });
    for (let count = 0; count < 100; count++) write(book, "12345\n");
    expect(linesOf(book)).toEqual(["12345", "12345"]);
    expect(book.size).toEqual({ lines: 2, bytes: 10 });
    expect(book.dropped).toBe(98);
  });

  test("stays within its limits under a flood", () => {
    const book = new LogBook({ lines: 100, bytes: 10_000 });
    for (let count = 0; count < 100_000; count++) write(book, `line ${count}\n`);
    expect(book.size.lines).toBe(100);
    expect(book.dropped).toBe(99_900);
    expect(linesOf(book).at(-1)).toBe("line 99999");
  });

  test("puts lines together from pieces, each stream for itself", () => {
    const book = new LogBook({ lines: 10, bytes: 1_000 });
    write(book, "one ");
    write(book, "error\n", "stderr");
    write(book, "line\n");
    expect(book.after(0).lines.map(({ stream, line }) => [stream, line])).toEqual([
      ["stderr", "error"],
      ["stdout", "one line"],
    ]);
  });

  test("a line without an end is told when its writer is gone", () => {
    const book = new LogBook({ lines: 10, bytes: 1_000 });
    write(book, "half");
    expect(linesOf(book)).toEqual([]);
    book.flush(2);
    expect(linesOf(book)).toEqual(["half"]);
  });

  test("a line that never ends is cut", () => {
    const book = new LogBook({ lines: 10, bytes: 1_000_000 });
    for (let count = 0; count < 40; count++) write(book, "x".repeat(1_000));
    expect(linesOf(book).map((line) => line.length)).toEqual([16_384, 16_384]);
  });

  test("goes on after a number, and says how many a slow reader has missed", () => {
    const book = new LogBook({ lines: 2, bytes: 1_000 });
    write(book, "a\nb\n");
    const last = book.after(0).lines.at(-1)?.sequence ?? 0;
    write(book, "c\nd\ne\n");
    const { lines, dropped } = book.after(last);
    expect(lines.map(({ line }) => line)).toEqual(["d", "e"]);
    expect(dropped).toBe(1);
    expect(book.sequenceBefore(1)).toBe(lines[0]?.sequence ?? -1);
  });
});
