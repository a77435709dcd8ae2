import * as v from "valibot";
import { limits } from "./protocol.ts";

/**
 * The registry: who takes part in an update. The kernel cannot list sessions, so the daemon writes
 * it into a memfd that it preserves in a session of its own.
 */

/** A registry of another version is not understood, and its sessions are left alone. */
export const REGISTRY_VERSION = 1;

/** When an update did what, by the wall clock in milliseconds: a kexec keeps nothing else. */
const times = {
  update: v.string(),
  clients: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
  accepted_at_ms: v.number(),
  ready_at_ms: v.number(),
  /** Just before the call that enters the new kernel. */
  entered_at_ms: v.nullable(v.number()),
};
export const updateTimesSchema = v.object(times);
export type UpdateTimes = v.InferOutput<typeof updateTimesSchema>;

export const registrySchema = v.object({
  version: v.literal(REGISTRY_VERSION),
  ...times,
  sessions: v.pipe(
    v.array(
      v.object({
        name: v.string(),
        id: v.string(),
        part: v.string(),
        user: v.pipe(v.number(), v.safeInteger(), v.minValue(0)),
      }),
    ),
    v.maxLength(limits.subscriptions * limits.sessions),
  ),
  /**
   * Sessions of clients that went without. Where such a client still has its own duplicate, the
   * session comes over the kexec all the same, and nobody would ever claim it: it is finished.
   */
  left_out: v.optional(
    v.pipe(v.array(v.string()), v.maxLength(limits.subscriptions * limits.sessions)),
    [],
  ),
});
export type Registry = v.InferOutput<typeof registrySchema>;

/** Room for `entered_at_ms`, which is written into the file when its size is fixed already. */
const ROOM = 64;

const SPACE = 0x20;

/** Text as bytes, with spaces up to this size. */
function padded(text: string, size: number): Uint8Array {
  const bytes = new Uint8Array(size).fill(SPACE);
  bytes.set(new TextEncoder().encode(text));
  return bytes;
}

/** @throws RangeError above the limit of its size */
export function encodeRegistry(registry: Registry): Uint8Array {
  const text = JSON.stringify(registry);
  const size = new TextEncoder().encode(text).length + (registry.entered_at_ms === null ? ROOM : 0);
  if (size > limits.registryBytes) {
    throw new RangeError(`Expected at most ${limits.registryBytes} bytes, received ${size}`);
  }
  return padded(text, size);
}

/**
 * The same registry, with the same size: a preserved file neither grows nor shrinks. Undefined
 * when there is no room.
 */
export function encodeEntered(registry: Registry, size: number): Uint8Array | undefined {
  const text = JSON.stringify(registry);
  return new TextEncoder().encode(text).length > size ? undefined : padded(text, size);
}

/** The registry in these bytes, or why there is none. */
export function decodeRegistry(bytes: Uint8Array): Registry | { readonly problem: string } {
  let parsed: unknown;
  try {
    parsed = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return { problem: `expected JSON, received ${bytes.length} other bytes` };
  }
  const result = v.safeParse(registrySchema, parsed);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const where = v.getDotPath(issue) ?? "the registry";
  return { problem: `${where}: expected ${issue.expected}, received ${issue.received}` };
}
