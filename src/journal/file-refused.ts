import { ExitCode } from "../units/exit-code.ts";

/** A file or a folder that cannot be used: what was expected, what was received, the mend. */
export class FileRefused extends Error {
  override readonly name = "FileRefused";
  readonly exitCode: ExitCode = ExitCode.refused;
}

/** A file that the command line names, and that cannot be used: the command line is wrong. */
export class NamedFileRefused extends FileRefused {
  override readonly exitCode = ExitCode.usage;
}

interface Reason {
  readonly expected: string;
  readonly received: string;
  readonly mend: string;
}

const noRoom: Reason = {
  expected: "room on its file system",
  received: "none",
  mend: "Make room there (df and df -i say how much there is)",
};
const noLeave: Reason = {
  expected: "that this user may write there",
  received: "a refusal by its mode, its owner, or a security module",
  mend: "Run this as the owner of the folder, or change that",
};
const noFolder: Reason = {
  expected: "folders alone on the way there",
  received: "a file in the place of one",
  mend: "Remove that file",
};
const noDescriptor: Reason = {
  expected: "a free descriptor",
  received: "none",
  mend: "Raise LimitNOFILE= in the unit, or ulimit -n",
};

/** By the name of the error number: open(2), mkdir(2), write(2), bind(2). */
const reasons: Readonly<Record<string, Reason>> = {
  ENOSPC: noRoom,
  EDQUOT: noRoom,
  EACCES: noLeave,
  EPERM: noLeave,
  EISDIR: {
    expected: "a file, or nothing there",
    received: "a folder",
    mend: "Remove it",
  },
  ENOTDIR: noFolder,
  EEXIST: noFolder,
  ENOENT: { expected: "a folder above it", received: "none", mend: "Make it by mkdir -p" },
  ELOOP: { expected: "a file, or nothing there", received: "a symbolic link", mend: "Remove it" },
  EROFS: {
    expected: "a file system that can be written",
    received: "one that is read-only",
    mend: "Mount it for writing",
  },
  ENAMETOOLONG: {
    expected: "a name of at most 255 bytes, in a path of at most 4095",
    received: "a longer one",
    mend: "Choose a shorter one",
  },
  EADDRINUSE: {
    expected: "a path that nobody uses",
    received: "one in use",
    mend: "Stop who uses it",
  },
  EMFILE: noDescriptor,
  ENFILE: noDescriptor,
};

/** The same of a file that is only read: open(2). */
const readingReasons: Readonly<Record<string, Reason>> = {
  ENOENT: { expected: "a file there", received: "nothing", mend: "Look at its name" },
  ENOTDIR: {
    expected: "folders alone on the way there",
    received: "a file in the place of one",
    mend: "Look at its name",
  },
  EISDIR: { expected: "a file", received: "a folder", mend: "Name the file in it" },
  EACCES: {
    expected: "that this user may read it",
    received: "a refusal by its mode, its owner, or a security module",
    mend: "Run this as its owner",
  },
  ELOOP: {
    expected: "a file",
    received: "symbolic links that lead in a circle",
    mend: "Look at where it leads",
  },
  ENAMETOOLONG: {
    expected: "a name of at most 255 bytes, in a path of at most 4095",
    received: "a longer one",
    mend: "Look at its name",
  },
};

/**
 * Tries to make a file or a folder that a command line names and that nobody has: what is there
 * is kept.
 * @throws as withNamedFile
 */
export function withNewFile<T>(file: Parameters<typeof withFile>[0], act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw takenOf(file, error) ?? refusalOf(file, error);
  }
}

function takenOf({ what, path, otherwise }: Parameters<typeof withFile>[0], error: unknown) {
  if (refusalCode(error) !== "EEXIST") return undefined;
  return new NamedFileRefused(
    `Cannot ${what} ${path}: expected nothing there, received something (EEXIST). It is ` +
      `left as it is: ${otherwise}.`,
  );
}

/** Why a file cannot be used, as half a sentence, and what to do about it. */
export function describeRefusal(code: string): { readonly why: string; readonly mend: string } {
  return described(code, reasons[code]);
}

/** The same of a file that is only read. */
export function describeReadingRefusal(code: string): ReturnType<typeof describeRefusal> {
  return described(code, readingReasons[code] ?? reasons[code]);
}

function described(code: string, found: Reason | undefined) {
  if (found === undefined) {
    return { why: `expected to be let, received ${code}`, mend: "See errno(3) for what it means" };
  }
  return {
    why: `expected ${found.expected}, received ${found.received} (${code})`,
    mend: found.mend,
  };
}

/** The name of the kernel's error number; undefined for an error that is none of the kernel's. */
export function refusalCode(error: unknown): string | undefined {
  const { code } = error as { readonly code?: unknown };
  return typeof code === "string" ? code : undefined;
}

/**
 * Tries something with a file; what the kernel refuses is told with its mend.
 * @param what such as "write the crash journal"
 * @param otherwise what else can be done, such as "give another --control-socket"
 * @throws FileRefused for what the kernel refused; any other error as it is
 */
export function withFile<T>(
  file: { readonly what: string; readonly path: string; readonly otherwise: string },
  act: () => T,
): T {
  try {
    return act();
  } catch (error) {
    throw refusalOf(file, error);
  }
}

/**
 * `withFile`, for reading a file that the command line names.
 * @throws NamedFileRefused; FileRefused for what is not the file's fault, such as ENFILE; any other
 *   error as it is
 */
export function withNamedFile<T>(file: Parameters<typeof withFile>[0], act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw namedRefusalOf(file, error) ?? refusalOf(file, error);
  }
}

function namedRefusalOf(file: Parameters<typeof withFile>[0], error: unknown) {
  const code = refusalCode(error) ?? "";
  const reason = readingReasons[code];
  if (reason === undefined) return undefined;
  const { why, mend } = described(code, reason);
  return new NamedFileRefused(
    `Cannot ${file.what} ${file.path}: ${why}. ${mend}, or ${file.otherwise}.`,
  );
}

function refusalOf(
  file: { readonly what: string; readonly path: string; readonly otherwise: string },
  error: unknown,
): unknown {
  const code = refusalCode(error);
  if (code === undefined || error instanceof FileRefused) return error;
  const { why, mend } = describeRefusal(code);
  const { what, path, otherwise } = file;
  // Without the error as its cause, which would say the same again, in the kernel's words.
  return new FileRefused(`Cannot ${what} ${path}: ${why}. ${mend}, or ${otherwise}.`);
}
