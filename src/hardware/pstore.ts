import { readdirSync, rmSync, statSync } from "node:fs";
import { inflateRawSync, inflateSync } from "node:zlib";
import { type HostTree, reasonOf, tidyText } from "./host-tree.ts";
import { pstoreLimits } from "./pstore-limits.ts";
import { withoutSecrets } from "./secrets.ts";

/**
 * What a kernel wrote as it died, into memory that lasts (ACPI ERST, EFI variables, ramoops), and
 * the next one shows as files: Documentation/ABI/testing/pstore. Reading and removing are two
 * calls, so that nothing is lost before somebody has it.
 */

export const PSTORE_FOLDER = "sys/fs/pstore";

export interface Crash {
  /** "Panic", "Oops", "Emergency"; "console" and "pmsg" where only such was kept. */
  readonly reason: string;
  /** Seconds since 1970, as the kernel that died had them; it may have had none. */
  readonly at: number;
  readonly text: string;
  /** Names of the files that it was in. */
  readonly files: readonly string[];
}

export interface Crashes {
  /** The latest last. */
  readonly crashes: readonly Crash[];
  /** Why there may be more: it is not mounted, a file cannot be read, a limit was met. */
  readonly refusals: readonly string[];
}

interface Part {
  readonly name: string;
  readonly kind: string;
  readonly reason: string;
  readonly count: number;
  readonly number: number;
  readonly at: number;
  readonly text: string;
}

export function readCrashes(tree: HostTree): Crashes {
  const refusals: string[] = [];
  const parts: Part[] = [];
  const names = listFiles(tree, refusals);
  for (const name of names) {
    const part = readPart(tree, name);
    if (typeof part === "string") refusals.push(part);
    else if (part !== undefined) parts.push(part);
  }
  const crashes = groupParts(parts);
  if (crashes.length > pstoreLimits.crashes) {
    refusals.push(`there are ${crashes.length} crashes, of which the last are told`);
  }
  return { crashes: crashes.slice(-pstoreLimits.crashes), refusals };
}

function listFiles(tree: HostTree, refusals: string[]): string[] {
  try {
    const names = readdirSync(tree.path(PSTORE_FOLDER)).sort();
    if (names.length > pstoreLimits.files) {
      refusals.push(`there are ${names.length} files, of which ${pstoreLimits.files} are read`);
    }
    return names.slice(0, pstoreLimits.files);
  } catch (error) {
    refusals.push(`/${PSTORE_FOLDER}: ${reasonOf(error)}`);
    return [];
  }
}

/** undefined: a file of another kind, such as of MCE's own records. A string: why it is unread. */
function readPart(tree: HostTree, name: string): Part | undefined | string {
  const match = /^(dmesg|console|pmsg)-[\w-]+?-?\d*(\.enc\.z)?$/.exec(name);
  if (match === null) return undefined;
  const path = `${PSTORE_FOLDER}/${name}`;
  const read = tree.bytes(path, pstoreLimits.fileBytes);
  if (read.value === null) return `${name}: ${read.reason}`;
  const text = match[2] === undefined ? decode(read.value) : unpack(read.value);
  if (text === undefined) return `${name}: it is packed, and cannot be unpacked`;
  const at = statSync(tree.path(path), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const kind = match[1] ?? "dmesg";
  const head = /^(\w+)#(\d{1,9}) Part(\d{1,9})\n/.exec(text);
  return {
    ...{ name, kind, at: Math.floor(at / 1_000) },
    reason: head?.[1] ?? (kind === "dmesg" ? "unknown" : kind),
    count: Number(head?.[2] ?? 0),
    number: Number(head?.[3] ?? 1),
    text: head === null ? text : text.slice(head[0].length),
  };
}

const decode = (bytes: Uint8Array): string =>
  withoutSecrets(tidyText(new TextDecoder().decode(bytes)));

/** The kernel leaves packed what it could not unpack itself: zlib's, with a head or without. */
function unpack(bytes: Uint8Array): string | undefined {
  for (const inflate of [inflateSync, inflateRawSync]) {
    try {
      return decode(inflate(bytes, { maxOutputLength: pstoreLimits.fileBytes }));
    } catch {
      // It was packed in the other way, or in none of both.
    }
  }
  return undefined;
}

/** Seconds between the first and the last part of one crash, at most. */
const ONE_CRASH = 60;

/**
 * Part 1 is the end of the log, and higher ones go back in time. Of two boots both first panics
 * are "Panic#1": where a part comes again, or much later, it is of another crash.
 */
export function groupParts(parts: readonly Part[]): Crash[] {
  const inOrder = [...parts].sort((one, other) => one.at - other.at || one.number - other.number);
  const groups: Part[][] = [];
  for (const part of inOrder) {
    const own = groups.findLast((group) => {
      const first = group[0];
      return (
        first?.kind === part.kind &&
        first.reason === part.reason &&
        first.count === part.count &&
        part.at - first.at <= ONE_CRASH &&
        !group.some(({ number }) => number === part.number)
      );
    });
    if (own === undefined) groups.push([part]);
    else own.push(part);
  }
  return groups.map((group) => {
    const ordered = [...group].sort((one, other) => other.number - one.number);
    return {
      reason: group[0]?.reason ?? "unknown",
      at: group[0]?.at ?? 0,
      text: ordered
        .map(({ text }) => text.trimEnd())
        .join("\n")
        .slice(-pstoreLimits.text),
      files: ordered.map(({ name }) => name),
    };
  });
}

/** Removes files by their names, so that they are not told again. @returns those that stayed */
export function removeCrashFiles(tree: HostTree, names: readonly string[]): string[] {
  return names.flatMap((name) => {
    if (name.includes("/") || name.startsWith(".")) return [`${name}: it is no file of pstore`];
    try {
      rmSync(tree.path(`${PSTORE_FOLDER}/${name}`), { force: true });
      return [];
    } catch (error) {
      return [`${name}: ${reasonOf(error)}`];
    }
  });
}
