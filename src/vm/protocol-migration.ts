import * as v from "valibot";
import { cardsSchema } from "./cards.ts";
import { choiceSchema } from "./machine-record.ts";
import { namePattern, vmSpecSchema } from "./protocol.ts";

/**
 * The wire between two workers of which one gives a machine to the other: TLS 1.3 to the address of
 * a ticket, whose certificate is known by its pin. Each connection begins with one line of JSON
 * that says which migration and channel it is, and what only the ticket's owner can know. The
 * control channel goes on in lines; the others carry what two VMMs, or two image stores, say.
 */

/** Another version is refused in the first line. */
export const MIGRATION_PROTOCOL = 1;

/** Going over one is a refusal that a test shows. */
export const migrationLimits = {
  /** Tickets of one worker that are open. */
  tickets: 16,
  /** Bytes of a ticket. */
  ticketBytes: 4096,
  /** Milliseconds until a ticket that nobody used is worth nothing: the usual one, and the most. */
  ticketTime: 600_000,
  longestTicketTime: 86_400_000,
  /** Connections of one ticket, and of those who have not shown what they know. */
  connections: 32,
  unprovenConnections: 8,
  /** Bytes of a first line; nothing else is taken before it. */
  helloBytes: 1024,
  /** Milliseconds in which it must have come, with all of TLS. */
  helloTime: 10_000,
  /** Bytes of a line of the control channel: an offer is the longest. */
  lineBytes: 256 * 1024,
  /** Bytes that wait for a peer that does not read. */
  queuedBytes: 1024 * 1024,
  /** Between two words of a side that has nothing to say, and until a silent one is gone. */
  aliveEvery: 2_000,
  silence: 15_000,
  /** Milliseconds for a connection. */
  connectTime: 10_000,
  /** Milliseconds for an answer that needs no data to have come. */
  answerTime: 60_000,
  /** Milliseconds in which the other host is asked again whether it took the machine. */
  settleTime: 10_000,
  /** For so long after it took a machine, a host still answers whether it did. */
  lingerTime: 60_000,
  /** Characters of a reason that the other host gives. */
  textLength: 1024,
  /** Disks of one machine. */
  disks: 16,
  /** Of an image that is sent: entries, bytes of a path, bytes of all. */
  imageEntries: 10_000,
  imagePathBytes: 4096,
  imageBytes: 1024 ** 4,
} as const;

const text = v.pipe(v.string(), v.maxLength(migrationLimits.textLength));
const size = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const id = v.pipe(v.string(), v.regex(/^[0-9a-f]{32}$/, "Expected 32 hexadecimal digits"));
const secret = v.pipe(v.string(), v.regex(/^[\w-]{43}$/, "Expected 43 characters of base64url"));
const diskId = v.pipe(v.string(), v.regex(/^[a-z0-9-]{1,16}$/));
const name = v.pipe(v.string(), v.regex(namePattern));

/** What whoever sends a machine has to have. It is worth as much as the machine's memory. */
export const ticketSchema = v.strictObject({
  hostler_migration_ticket: v.literal(MIGRATION_PROTOCOL),
  name,
  migration: id,
  host: v.pipe(v.string(), v.ip()),
  port: v.pipe(v.number(), v.safeInteger(), v.minValue(1), v.maxValue(65_535)),
  /** SHA-256 of the certificate's DER, in hexadecimal. */
  pin: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, "Expected 64 hexadecimal digits")),
  secret,
  /** RFC 3339, UTC, by the clock of the host that made it: for people. */
  expires: text,
});
export type MigrationTicket = v.InferOutput<typeof ticketSchema>;

/** The first line of each connection. */
export const migrationHelloSchema = v.strictObject({
  hostler_migration: v.literal(MIGRATION_PROTOCOL),
  migration: id,
  secret,
  channel: v.variant("kind", [
    v.strictObject({ kind: v.literal("control") }),
    v.strictObject({ kind: v.literal("image") }),
    v.strictObject({ kind: v.literal("memory") }),
    v.strictObject({ kind: v.literal("disk"), disk: diskId }),
    /** After a control channel that was cut: says once more what was decided, and asks. */
    v.strictObject({
      kind: v.literal("verdict"),
      verdict: v.picklist(["hand-over-running", "hand-over-paused", "withdraw"]),
    }),
  ]),
});
export type MigrationHello = v.InferOutput<typeof migrationHelloSchema>;
export type MigrationChannel = MigrationHello["channel"];

/** A machine as it is offered: all that the other host has to agree to. */
export const offerSchema = v.strictObject({
  kind: v.literal("offer"),
  /** The version of hostler that offers, for people. */
  hostler: text,
  spec: vmSpecSchema,
  /** Its network cards, with the addresses that it keeps. */
  cards: cardsSchema,
  choice: choiceSchema,
  vmm_version: text,
  /** Why the same build of the VMM alone can take it; null where another version can as well. */
  same_build_only: v.nullable(v.pipe(v.string(), v.maxLength(8192))),
  wanted: v.picklist(["running", "paused"]),
  /** Bytes of memory. */
  memory: size,
  /** Of its image, whose hash the specification has: bytes of all of its files. */
  image: v.strictObject({ bytes: size }),
  /** Those that the machine writes to. */
  disks: v.pipe(
    v.array(v.strictObject({ id: diskId, format: v.picklist(["raw", "qcow2"]), bytes: size })),
    v.maxLength(migrationLimits.disks),
  ),
});
export type MigrationOffer = v.InferOutput<typeof offerSchema>;

/** What the giver says over the control channel. */
export const fromGiverSchema = v.variant("kind", [
  offerSchema,
  v.strictObject({ kind: v.literal("alive") }),
  /** The guest stands still, and its disks are whole: the taker lets go of their server. */
  v.strictObject({ kind: v.literal("disks-sent") }),
  /** The machine is the taker's, and does not run at the giver any more. */
  v.strictObject({ kind: v.literal("hand-over"), wanted: v.picklist(["running", "paused"]) }),
  /** The giver goes on with it. */
  v.strictObject({ kind: v.literal("withdraw"), reason: text }),
]);
export type FromGiver = v.InferOutput<typeof fromGiverSchema>;

/** What the taker says over it. */
export const fromTakerSchema = v.variant("kind", [
  v.strictObject({ kind: v.literal("welcome") }),
  v.strictObject({ kind: v.literal("alive") }),
  v.strictObject({ kind: v.literal("refused"), message: v.pipe(v.string(), v.maxLength(8192)) }),
  /** It can take the machine, and has its image or has not. */
  v.strictObject({ kind: v.literal("accepted"), has_image: v.boolean() }),
  /** Its VMM waits for disks and memory. */
  v.strictObject({ kind: v.literal("ready") }),
  v.strictObject({ kind: v.literal("disks-ended") }),
  v.strictObject({ kind: v.literal("arrived") }),
  v.strictObject({ kind: v.literal("taken") }),
  /** It did not take it, and never will. */
  v.strictObject({ kind: v.literal("not-taken"), reason: text }),
]);
export type FromTaker = v.InferOutput<typeof fromTakerSchema>;

/** Something of an image, before the bytes of a file. Paths are below its folder, in UTF-8. */
export const imageEntrySchema = v.variant("kind", [
  v.strictObject({ kind: v.literal("folder"), path: v.string() }),
  v.strictObject({ kind: v.literal("file"), path: v.string(), size, executable: v.boolean() }),
  v.strictObject({ kind: v.literal("link"), path: v.string(), target: v.string() }),
  v.strictObject({ kind: v.literal("end") }),
]);
export type ImageEntry = v.InferOutput<typeof imageEntrySchema>;

/** "10.77.0.2:40123", "[2001:db8::7]:40123" */
export const joinAddress = (host: string, port: number): string =>
  host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;

/** Of all addresses of a host: 0.0.0.0, and ::, however they are written. */
const everyAddress = ["0.0.0.0", "[::]", "[::ffff:0:0]"];

/** Why no other host can reach this one by an address; undefined of all that it may try. */
export function refuseTicketHost(host: string): string | undefined {
  const text = host.includes(":") ? `[${host}]` : host;
  const url = URL.canParse(`http://${text}`) ? new URL(`http://${text}`).hostname : text;
  if (!everyAddress.includes(url)) return undefined;
  return (
    `expected the address by which the other host reaches this one, received ${host}, which is ` +
    "none of them: the ticket would lead that host to itself. Choose one that ip address shows"
  );
}

export type Read<T> =
  | { readonly kind: "ok"; readonly value: T }
  | { readonly kind: "refused"; readonly reason: string };

/** One line, as one of those. Nothing of it is believed unseen. */
export function readLine<Schema extends v.GenericSchema>(
  schema: Schema,
  line: string,
): Read<v.InferOutput<Schema>> {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return { kind: "refused", reason: "expected a line of JSON, received something else" };
  }
  const parsed = v.safeParse(schema, value);
  if (parsed.success) return { kind: "ok", value: parsed.output };
  const [issue] = parsed.issues;
  const where = v.getDotPath(issue) ?? "the line";
  return { kind: "refused", reason: `${where}: ${issue.message}`.slice(0, 500) };
}

/** @returns the ticket, or why the text is none: what it says is in no refusal */
export function readTicket(text: string): Read<MigrationTicket> {
  const { ticketBytes } = migrationLimits;
  const mend = "Give what hostler vm receive printed, as it is";
  if (text.length > ticketBytes) {
    const reason = `expected a ticket of at most ${ticketBytes} bytes, received ${text.length}`;
    return { kind: "refused", reason: `${reason}. ${mend}` };
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { kind: "refused", reason: `expected a ticket, received no JSON. ${mend}` };
  }
  const parsed = v.safeParse(ticketSchema, value);
  if (parsed.success) return { kind: "ok", value: parsed.output };
  const keys = parsed.issues.map((issue) => v.getDotPath(issue) ?? "the ticket");
  return {
    kind: "refused",
    reason: `expected a ticket, and not right are ${keys.join(", ")}. ${mend}`,
  };
}

/** Why a path of an image's entry is none; undefined when it is below its folder. */
export function refuseImagePath(path: string): string | undefined {
  const { imagePathBytes } = migrationLimits;
  if (new TextEncoder().encode(path).length > imagePathBytes) {
    return `expected a path of at most ${imagePathBytes} bytes`;
  }
  if (path === "") return undefined;
  const isPlain = path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
  return isPlain && !path.includes("\0") ? undefined : "expected a path below the image's folder";
}

/** What a host has, against what is offered to it. */
export interface TakerFacts {
  readonly name: string;
  /** Why it can have no machine of that name, or with that address; undefined when it can. */
  readonly refusal: string | undefined;
  /** Its program for such a machine, or why there is none. */
  readonly program:
    | { readonly hypervisor: string; readonly version: string }
    | { readonly refused: string };
  readonly hasImage: boolean;
  /** Bytes that are free where images and disks are kept; of memory. */
  readonly freeDisk: number;
  readonly freeMemory: number;
}

function isOlder(version: string, [major, minor]: readonly [number, number]): boolean {
  const [own = 0, ownMinor = 0] = version.split(".").map(Number);
  return own < major || (own === major && ownMinor < minor);
}

/** Why a host cannot take a machine, before anything of it moves; undefined when it can. */
export function refuseOffer(offer: MigrationOffer, facts: TakerFacts): string | undefined {
  const { spec, choice, same_build_only: bound, vmm_version: version } = offer;
  if (spec.name !== facts.name) {
    return `expected the machine ${facts.name}, which the ticket is for, received ${spec.name}`;
  }
  if (facts.refusal !== undefined) return facts.refusal;
  const { program } = facts;
  if ("refused" in program) return `no hypervisor here can run it: ${program.refused}`;
  if (bound !== null && program.version !== version) {
    return (
      `expected ${program.hypervisor} ${version}, which runs it, received ${program.version}: ` +
      `${bound}. Install that version here`
    );
  }
  const type = /^pc-q35-(\d+)\.(\d+)$/.exec(choice.machine_type ?? "");
  if (type !== null && isOlder(program.version, [Number(type[1]), Number(type[2])])) {
    return (
      `expected a QEMU that has ${choice.machine_type}, received ${program.version}: install ` +
      `${type[1]}.${type[2]} or a newer one here`
    );
  }
  const image = facts.hasImage ? 0 : offer.image.bytes;
  const need = offer.disks.reduce((sum, { bytes }) => sum + bytes, image);
  if (need > facts.freeDisk) {
    return `expected ${need} bytes of room for its disks and image, received ${facts.freeDisk}`;
  }
  if (offer.memory > facts.freeMemory) {
    return `expected ${offer.memory} bytes of free memory, received ${facts.freeMemory}`;
  }
  return undefined;
}
