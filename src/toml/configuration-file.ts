import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import type { Bytes } from "../units/units.ts";
import {
  type ConfigurationError,
  formatPath,
  type Mistake,
  type Reader,
  type Report,
} from "./configuration-reader.ts";
import { parseToml, type TomlTable } from "./toml-tree.ts";

/** A configuration's text, from its file to what its keys say; all mistakes are told at once. */

/** What is allowed, and most likely not meant. */
export interface ConfigurationWarning {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly key_path: string;
  readonly message: string;
  readonly mend: string;
}

export interface Refused {
  readonly kind: "refused";
  readonly errors: readonly ConfigurationError[];
}

/** Reads the file. What keeps it from being read is an error of the file as well. */
export function readConfigurationText(
  file: string,
  limit: Bytes,
): { readonly kind: "text"; readonly text: string } | Refused {
  const read = readText(file, limit);
  return "text" in read ? { kind: "text", ...read } : refuse(file, [wholeFile(read)]);
}

/**
 * Validates a whole text. Pure.
 * @param relations what the keys must be to each other, once each is known to be right or absent
 */
export function validateText<T extends object>(
  file: string,
  text: string,
  options: {
    readonly limit: Bytes;
    readonly reader: Reader<T>;
    readonly relations: (root: TomlTable, read: T, report: Report) => void;
  },
): { readonly kind: "read"; readonly root: TomlTable; readonly read: T } | Refused {
  const bytes = new TextEncoder().encode(text).length;
  if (bytes > options.limit) return refuse(file, [wholeFile(tooLarge(bytes, options.limit))]);
  const { root, refusals, guessedLines, isBroken } = parseToml(text);
  const mistakes: Mistake[] = refusals.map((refusal) => ({ ...refusal, path: [] }));
  if (root === undefined) return refuse(file, mistakes);
  const report = (mistake: Mistake) => {
    if (guessedLines.has(mistake.at.line)) return;
    mistakes.push(isBroken ? { ...mistake, isBeyondSyntax: true } : mistake);
  };
  const read = options.reader(root, [], report) ?? ({} as T);
  options.relations(root, read, report);
  if (mistakes.length > 0) return refuse(file, mistakes);
  return { kind: "read", root, read };
}

/** Mistakes in the order of the file. */
export function refuse(file: string, mistakes: readonly Mistake[]): Refused {
  const errors = mistakes
    .toSorted((left, right) => left.at.line - right.at.line || left.at.column - right.at.column)
    .map(({ at, path, expected, received, mend, isBeyondSyntax }) => ({
      file,
      line: at.line,
      column: at.column,
      key_path: formatPath(path),
      expected,
      received,
      ...(mend !== undefined && { mend }),
      ...(isBeyondSyntax === true && { beyond_syntax_error: true as const }),
    }));
  return { kind: "refused", errors };
}

interface FileRefusal {
  readonly expected: string;
  readonly received: string;
}

/** A mistake that stands nowhere in particular. */
export function wholeFile({ expected, received }: FileRefusal): Mistake {
  return { at: { line: 0, column: 0 }, path: [], expected, received };
}

function tooLarge(bytes: Bytes, limit: Bytes): FileRefusal {
  return { expected: `at most ${limit} bytes`, received: `${bytes} bytes` };
}

/** Reads a regular file, by a link as well; nothing that could block or never end. */
function readText(file: string, limit: Bytes): { readonly text: string } | FileRefusal {
  const expected = "a regular file that can be read";
  let descriptor: number | undefined;
  try {
    descriptor = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const status = fstatSync(descriptor);
    if (status.isDirectory()) return { expected, received: "a directory" };
    if (!status.isFile()) return { expected, received: "no regular file" };
    if (status.size > limit) return tooLarge(status.size, limit);
    return decode(readAll(descriptor, limit));
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    if (code !== "ENOENT") return { expected, received: message };
    // Of such bytes the runtime makes U+FFFD, by which no file can be opened.
    if (file.includes("\ufffd"))
      return { expected, received: "a name that is not UTF-8: rename it" };
    return { expected, received: "nothing: there is no such file" };
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

/** One byte more than the limit tells a file that grows. */
function readAll(descriptor: number, limit: Bytes): Uint8Array {
  const bytes = new Uint8Array(limit + 1);
  let length = 0;
  while (length < bytes.length) {
    const count = readSync(descriptor, bytes, length, bytes.length - length, null);
    if (count === 0) break;
    length += count;
  }
  return bytes.subarray(0, length);
}

function decode(bytes: Uint8Array): { readonly text: string } | FileRefusal {
  try {
    return { text: new TextDecoder("utf-8", { fatal: true }).decode(bytes) };
  } catch {
    return { expected: "text in UTF-8", received: "bytes that are none" };
  }
}
