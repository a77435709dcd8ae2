import * as v from "valibot";

/**
 * The wire between a daemon and its holder: JSON frames of `messaging`. The holder outlives the
 * daemon and its upgrades, so names and numbers here are never used again for something else.
 */

/** The version of the wire: a hello with another one is refused. */
export const PROTOCOL_VERSION = 1;

/** The limits of a holder; going over one is a refusal that a test shows. */
export const limits = {
  /** Bytes of a name. */
  nameBytes: 128,
  /** Bytes of a session's name, as the kernel has it: 64 with its zero. */
  sessionBytes: 63,
  /** Descriptors that one holder keeps. */
  descriptors: 4096,
  /** Descriptors of the holder's own process that are not for keeping. */
  ownDescriptors: 128,
  /** Requests of the daemon that are not answered yet. */
  openRequests: 64,
  /** Bytes of a frame to the holder: a name is six times as long when all of it is escaped. */
  requestBytes: 4096,
  /** Bytes of a frame from the holder: all names at once. */
  answerBytes: 4 * 1024 * 1024,
  /** Bytes that wait for a daemon that does not read. */
  queuedBytes: 8 * 1024 * 1024,
  /** Milliseconds in which a connection must say its hello. */
  helloTime: 10_000,
  /**
   * Milliseconds without a word of a holder that owes one, after which it hangs: an answer takes as
   * long as the device is tried again, and no longer.
   */
  silenceTime: 10_000,
  /** Milliseconds for which a device that another has open is tried again. */
  deviceTime: 5_000,
  /** Connections that are told why they may not stay, and have not left yet. */
  refusedConnections: 16,
} as const;

/** Where the holder of a daemon listens, and the lock that there is one of it. */
export const holderSocketOf = (controlSocket: string) => `${controlSocket}.holder`;
export const holderLockOf = (controlSocket: string) => `${controlSocket}.holder.lock`;

/** What the kernel or a limit said no to. */
export interface HolderRefusal {
  /** The name of an error number, such as "EEXIST". */
  readonly code: string;
  readonly message: string;
}

const sizeOf = (text: string) => new TextEncoder().encode(text).length;

/** Why nothing can be kept under a name; undefined when it can. */
export function refuseName(
  name: string,
  most: number = limits.nameBytes,
): HolderRefusal | undefined {
  const size = sizeOf(name);
  if (size > most) {
    const message = `Expected a name of at most ${most} bytes, received one of ${size}`;
    return { code: "ENAMETOOLONG", message };
  }
  if (size > 0 && !name.includes("\0") && name.isWellFormed()) return undefined;
  const message = `Expected a name without a zero byte, received ${JSON.stringify(name)}`;
  return { code: "EINVAL", message };
}

const identifier = v.pipe(v.number(), v.safeInteger(), v.minValue(0));

/** The first frame of either side. */
export const helloSchema = v.strictObject({
  kind: v.literal("hello"),
  protocol: v.literal(PROTOCOL_VERSION),
  /** The version of the program, for people. */
  version: v.string(),
});
export type Hello = v.InferOutput<typeof helloSchema>;

/** What a daemon asks of its holder. */
export const requestSchema = v.variant("kind", [
  /** Keeps the descriptor that comes with it. A name that is in use is refused: EEXIST. */
  v.strictObject({ kind: v.literal("put"), id: identifier, name: v.string() }),
  v.strictObject({ kind: v.literal("get"), id: identifier, name: v.string() }),
  v.strictObject({ kind: v.literal("drop"), id: identifier, name: v.string() }),
  v.strictObject({ kind: v.literal("list"), id: identifier }),
  /** Has the kernel make an outgoing session, and keeps it under the name. */
  v.strictObject({
    kind: v.literal("create-session"),
    id: identifier,
    session: v.string(),
    name: v.string(),
  }),
  /** Takes an incoming session from the kernel, and keeps it under the name. */
  v.strictObject({
    kind: v.literal("retrieve-session"),
    id: identifier,
    session: v.string(),
    name: v.string(),
  }),
]);
export type HolderRequest = v.InferOutput<typeof requestSchema>;
export type RequestKind = HolderRequest["kind"];

export const requestKinds: readonly RequestKind[] = requestSchema.options.map(
  (option) => option.entries.kind.literal,
);

/** What the holder does with a request; each is a kill point of the build for fault tests. */
export const requestSteps = ["received", "performed", "answered"] as const;
export type HolderStep = `holder:${RequestKind}:${(typeof requestSteps)[number]}`;
export const holderSteps: readonly HolderStep[] = requestKinds.flatMap((kind) =>
  requestSteps.map((step): HolderStep => `holder:${kind}:${step}`),
);

const refusal = v.strictObject({ code: v.string(), message: v.string() });

/** What a holder says. */
export const answerSchema = v.variant("kind", [
  v.strictObject({ kind: v.literal("done"), id: identifier }),
  /** With a duplicate of the descriptor. */
  v.strictObject({ kind: v.literal("found"), id: identifier }),
  v.strictObject({ kind: v.literal("absent"), id: identifier }),
  v.strictObject({ kind: v.literal("names"), id: identifier, names: v.array(v.string()) }),
  v.strictObject({ kind: v.literal("error"), id: identifier, error: refusal }),
]);
export type HolderAnswer = v.InferOutput<typeof answerSchema>;

/** In place of the holder's hello: why this connection may not stay. */
export const refusedSchema = v.strictObject({ kind: v.literal("refused"), error: refusal });
