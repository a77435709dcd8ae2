/** Manifests: both forms, what is refused by key or line. */
import { describe, expect, test } from "bun:test";
import { imageLimits } from "../../../src/image/limits.ts";
import { parseManifest } from "../../../src/image/manifest.ts";

const empty = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
const digits = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

function told(text: string): string[] {
  const outcome = parseManifest(text);
  if (outcome.kind === "ok") return [];
  return outcome.errors.map(({ key, expected, received }) => `${key}: ${expected}; ${received}`);
}

describe("what is valid", () => {
  test("manifest.json", () => {
    const files = {
      "disk.img": empty,
      "boot/vmlinux": empty,
      "/nix/store/abc-linux/bzImage": empty,
    };
    expect(parseManifest(JSON.stringify({ files }))).toEqual({
      kind: "ok",
      files: new Map(Object.entries(files)),
    });
  });

  test("SHA256SUMS, as sha256sum writes it", () => {
    const text = `${digits}  disk.img\n${digits.toUpperCase()} *./boot/a b\n\n`;
    expect(parseManifest(text)).toEqual({
      kind: "ok",
      files: new Map([
        ["disk.img", empty],
        ["boot/a b", empty],
      ]),
    });
  });
});

const nameExpected = 'a name without "." and ".."';
const hashExpected = '"sha256-" and 44 letters of base64';

describe("what is refused", () => {
  test.each([
    ['{"files": {}}', ": at least one file; none"],
    ["", ": at least one file; none"],
    ["{", ": JSON; "],
    ['{"file": {}}', 'files: {"files": {"disk.img": "sha256-…="}}; '],
    [`{"files": {"../x": "${empty}"}}`, `files.../x: ${nameExpected}; "../x"`],
    [`{"files": {"a//b": "${empty}"}}`, `files.a//b: ${nameExpected}; "a//b"`],
    [`{"files": {"": "${empty}"}}`, `files.: ${nameExpected}; ""`],
    ['{"files": {"a": 5}}', `files.a: ${hashExpected}; "5"`],
    [`{"files": {"a": "${digits}"}}`, `files.a: ${hashExpected}; "${digits}"`],
    [
      `${digits} disk.img`,
      'line 1: 64 hexadecimal digits, two spaces and a name; "e3b0c44298fc1c149afbf4c8996fb924',
    ],
    [`${digits}  a\n${digits}  a`, "line 2: each file once; a again"],
    [`\n${digits}  a/../b`, `line 2: ${nameExpected}; "a/../b"`],
  ])("%p", (text, expected) => {
    const [first = "", ...more] = told(text);
    expect(first).toStartWith(expected);
    expect(more).toEqual([]);
  });
});

describe("limits", () => {
  test("bytes", () => {
    const text = `${digits}  a\n`;
    const { textBytes } = imageLimits;
    expect(told(text.padEnd(textBytes, "\n"))).toEqual([]);
    const expected = `: at most ${textBytes} bytes; ${textBytes + 1} bytes`;
    expect(told(text.padEnd(textBytes + 1, "\n"))).toEqual([expected]);
  });

  test("files", () => {
    const lines = Array.from(
      { length: imageLimits.entries + 1 },
      (_, index) => `${digits}  ${index}`,
    );
    expect(told(lines.slice(1).join("\n"))).toEqual([]);
    expect(told(lines.join("\n"))).toEqual([": at most 10000 files; 10001 files"]);
  });
});
