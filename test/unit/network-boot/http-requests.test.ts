/** HTTP as firmware speaks it: heads, ranges, and what is refused. */
import { describe, expect, test } from "bun:test";
import { LONGEST_HEAD, MOST_FIELDS } from "../../../src/network-boot/limits.ts";
import {
  encodeHead,
  hasBody,
  parseRequest,
  rangeOf,
} from "../../../src/network-boot/protocol-http.ts";
import { SeededChance } from "../../support/chance.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

function read(text: string): unknown {
  const parsed = parseRequest(bytes(text));
  if (parsed === undefined) return "not whole";
  if (!parsed.ok) return parsed.refusal.key;
  const { method, path, search, keepsAlive, length } = parsed.value;
  return `${method} ${path} ${search} ${keepsAlive ? "keep" : "close"} ${length}`;
}

describe("heads", () => {
  test.each([
    ["GET /vmlinuz HTTP/1.1\r\nHost: a\r\n\r\nmore", "GET /vmlinuz  keep 34"],
    // OVMF, of edk2's HttpBootDxe, and iPXE.
    [
      "HEAD /snponly.efi HTTP/1.1\r\nHost: 10.0.0.1\r\nAccept: */*\r\n" +
        "User-Agent: UefiHttpBoot/1.0\r\n\r\n",
      "HEAD /snponly.efi  keep 89",
    ],
    [
      "GET /boot.ipxe?mac=1&uuid=2 HTTP/1.1\r\nConnection: keep-alive\r\n" +
        "User-Agent: iPXE/1.0\r\nHost: a:8067\r\n\r\n",
      "GET /boot.ipxe ?mac=1&uuid=2 keep 100",
    ],
    ["GET / HTTP/1.0\r\n\r\n", "GET /  close 18"],
    ["GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n", "GET /  close 46"],
    ["GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n", "GET /b ?c keep 38"],
    ["GET /b HTTP/1.1\r\nHost: a\r\n", "not whole"],
    ["", "not whole"],
    ["GET /b HTTP/1.1\r\n\r\n", "Host"],
    ["GET /b HTTP/2.0\r\nHost: a\r\n\r\n", "request line"],
    ["GET b HTTP/1.1\r\nHost: a\r\n\r\n", "request line"],
    ["GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "request line"],
    ["GET /b HTTP/1.1\r\nHost : a\r\n\r\n", "field"],
    ["GET /b HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", "field"],
    ["GET /b HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "field"],
    ["GET /b HTTP/1.1\r\n: a\r\n\r\n", "field"],
  ])("%j", (text, expected) => {
    expect(read(text)).toBe(expected);
  });

  test("too long, and too many fields", () => {
    expect(read("G".repeat(LONGEST_HEAD))).toBe("not whole");
    expect(read("G".repeat(LONGEST_HEAD + 1))).toBe("head");
    const fields = Array.from({ length: MOST_FIELDS + 1 }, (_, at) => `X${at}: a\r\n`).join("");
    expect(read(`GET / HTTP/1.0\r\n${fields}\r\n`)).toBe("head");
  });

  test("a body is seen", () => {
    const bodied = (field: string) => {
      const parsed = parseRequest(bytes(`GET / HTTP/1.0\r\n${field}\r\n\r\n`));
      return parsed?.ok === true && hasBody(parsed.value);
    };
    expect(bodied("Content-Length: 5")).toBe(true);
    expect(bodied("Transfer-Encoding: chunked")).toBe(true);
    expect(bodied("Content-Length: 0")).toBe(false);
    expect(bodied("Accept: */*")).toBe(false);
  });

  test("no bytes at all can make it throw", () => {
    const chance = new SeededChance(9_112);
    const whole = bytes("GET /a?b HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n");
    for (let round = 0; round < 20_000; round += 1) {
      const copy = whole.slice();
      for (let count = chance.below(4); count >= 0; count -= 1) {
        copy[chance.below(copy.length)] = chance.below(256);
      }
      const parsed = parseRequest(copy);
      if (parsed?.ok === true) rangeOf(parsed.value.fields, { size: 10, tag: '"x"' });
    }
  });
});

describe("ranges of 1,000 bytes", () => {
  test.each([
    ["bytes=0-0", "0-0"],
    ["bytes=10-19", "10-19"],
    ["bytes=990-", "990-999"],
    ["bytes=-10", "990-999"],
    ["bytes=-2000", "0-999"],
    ["bytes=900-5000", "900-999"],
    ["bytes=1000-", "unsatisfiable"],
    ["bytes=-0", "unsatisfiable"],
    ["bytes=5-4", "whole"],
    ["bytes=0-1,4-5", "whole"],
    ["bytes=-", "whole"],
    ["lines=1-2", "whole"],
    ["bytes=a-b", "whole"],
  ])("%s", (range, expected) => {
    const told = rangeOf(new Map([["range", range]]), { size: 1_000, tag: '"x"' });
    expect(told.kind === "part" ? `${told.first}-${told.last}` : told.kind).toBe(expected);
  });

  test("of another file than it began with it is the whole", () => {
    const fields = (tag: string) =>
      new Map([
        ["range", "bytes=5-"],
        ["if-range", tag],
      ]);
    const file = { size: 10, tag: '"x"' };
    expect(rangeOf(fields('"x"'), file).kind).toBe("part");
    expect(rangeOf(fields('"y"'), file).kind).toBe("whole");
    expect(rangeOf(new Map(), file).kind).toBe("whole");
  });
});

test("the head of an answer", () => {
  expect(new TextDecoder().decode(encodeHead(206, { "Content-Length": 3 }))).toBe(
    "HTTP/1.1 206 Partial Content\r\nContent-Length: 3\r\n\r\n",
  );
});
