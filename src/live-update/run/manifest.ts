import * as v from "valibot";

/**
 * What `run` carries beside the memory: which file is which. It stands under token 0 of the
 * session, and the files under the tokens that it names.
 */

/** A manifest of another version is not understood, and its session is left alone. */
export const RUN_MANIFEST_VERSION = 1;

export const runLimits = {
  /** Files of one program. Linux 6.19 takes 128 of a session. */
  files: 4096,
  /** Descriptors that it has parked by sd_notify. */
  parked: 128,
  /** The manifest, with the command and its environment: exec takes 2 MiB of these. */
  manifestBytes: 8 * 1024 * 1024,
  /** Bytes of a name in LISTEN_FDNAMES: sd_pid_notify_with_fds(3). */
  nameBytes: 255,
  /** Processes of its group. */
  processes: 4096,
  /** Milliseconds until all of the group have stopped. */
  stopTime: 5_000,
} as const;

const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

export const carriedFileSchema = v.object({
  /** Its place in the session, as decimal digits: a u64. */
  token: v.pipe(v.string(), v.regex(/^\d{1,20}$/)),
  /** Its name in LISTEN_FDNAMES. */
  name: v.pipe(v.string(), v.maxLength(runLimits.nameBytes)),
  bytes: count,
  /** Of the open file, as fcntl(2) has them. */
  flags: count,
  /** Found in the program, or parked by it with FDSTORE=1. */
  source: v.picklist(["program", "parked"]),
  /** Which descriptor it was, and of which process; null for a parked one. */
  process: v.nullable(count),
  number: v.nullable(count),
});
export type CarriedFile = v.InferOutput<typeof carriedFileSchema>;

export const runManifestSchema = v.object({
  version: v.literal(RUN_MANIFEST_VERSION),
  kind: v.literal("run"),
  command: v.pipe(v.array(v.string()), v.minLength(1)),
  /** NAME=value. */
  environment: v.array(v.string()),
  working_directory: v.string(),
  /** In the order of the descriptors from 3 on. */
  files: v.pipe(v.array(carriedFileSchema), v.maxLength(runLimits.files)),
});
export type RunManifest = v.InferOutput<typeof runManifestSchema>;

/** @throws RangeError above the limit of its size */
export function encodeRunManifest(manifest: RunManifest): Uint8Array {
  const bytes = new TextEncoder().encode(JSON.stringify(manifest));
  if (bytes.length <= runLimits.manifestBytes) return bytes;
  throw new RangeError(
    `Expected a manifest of at most ${runLimits.manifestBytes} bytes, received ${bytes.length}`,
  );
}

/** The manifest in these bytes, or why there is none. */
export function decodeRunManifest(bytes: Uint8Array): RunManifest | { readonly problem: string } {
  return decode(runManifestSchema, bytes);
}

/** JSON of a schema in these bytes, or what is wrong with them. */
export function decode<T>(
  schema: v.GenericSchema<unknown, T>,
  bytes: Uint8Array,
): T | { readonly problem: string } {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return { problem: `expected JSON, received ${bytes.length} other bytes` };
  }
  const result = v.safeParse(schema, parsed);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const where = v.getDotPath(issue) ?? "the manifest";
  return { problem: `${where}: expected ${issue.expected}, received ${issue.received}` };
}

/**
 * A name as LISTEN_FDNAMES can carry it: printable ASCII without the colon that divides names.
 * @param given such as the NAME of "/memfd:NAME (deleted)", which may be anything
 */
export function listenName(given: string, otherwise: string): string {
  const safe = given.replace(/[^\x20-\x7e]|:/g, "_").slice(0, runLimits.nameBytes);
  return safe === "" ? otherwise : safe;
}

/**
 * How a memfd is shown that came from an earlier kernel, which does not carry its name: seen on
 * Linux 7.3. Of what else may be shown so the kernel says that it cannot be preserved.
 */
const namelessTarget = "/ (deleted)";

/** NAME of "/memfd:NAME (deleted)", "" of one without a name; undefined for what is no memfd. */
export function memoryFileName(target: string): string | undefined {
  if (target === namelessTarget) return "";
  return /^\/memfd:(.*) \(deleted\)$/s.exec(target)?.[1];
}

/**
 * The memfds of /proc/PID/maps: proc_pid_maps(5). The key is the same as of `fileKey`.
 */
export function mappedMemoryFiles(maps: string): { readonly key: string; readonly name: string }[] {
  const found = new Map<string, string>();
  const pattern = /^\S+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+) +(\/memfd:.*|\/ \(deleted\))$/;
  for (const line of maps.split("\n")) {
    const [, major = "", minor = "", inode = "", target = ""] = pattern.exec(line) ?? [];
    if (inode === "") continue;
    const key = `${Number.parseInt(major, 16)}:${Number.parseInt(minor, 16)}:${inode}`;
    found.set(key, memoryFileName(target) ?? target);
  }
  return [...found].map(([key, name]) => ({ key, name }));
}

/** Which file it is, whatever descriptors lead to it; the numbers as stat(2) gives them. */
export function fileKey({ dev, ino }: { readonly dev: number; readonly ino: number }): string {
  // makedev(3): the minor number stands around the major one.
  const minor = (dev & 0xff) | ((Math.floor(dev / 0x1000) >>> 0) & ~0xff);
  return `${(dev >>> 8) & 0xfff}:${minor >>> 0}:${ino}`;
}
