import * as v from "valibot";
import {
  FLEET_PROTOCOL_VERSION,
  fleetLimits,
  type Heartbeat,
  heartbeatSchema,
  type Marker,
  markerSchema,
} from "./protocol.ts";

/** What a device reads in the store: whatever stands there, a refusal is a value. */

export type Read<T> =
  | { readonly kind: "ok"; readonly value: T }
  /** What was expected, what was received, what follows from it. */
  | { readonly kind: "refused"; readonly reason: string };

/** Characters of a marker: its manifest, twice for what JSON escapes, and what is around it. */
export const MOST_MARKER = 2 * fleetLimits.manifestBytes + 32 * 1024;
/** Characters of a heartbeat. */
export const MOST_HEARTBEAT = 32 * 1024;

export function readMarker(text: string): Read<Marker> {
  return read(text, { schema: markerSchema, most: MOST_MARKER, what: "a marker" });
}

export function readHeartbeat(text: string): Read<Heartbeat> {
  return read(text, { schema: heartbeatSchema, most: MOST_HEARTBEAT, what: "a heartbeat" });
}

function read<T>(
  text: string,
  {
    schema,
    most,
    what,
  }: {
    readonly schema: v.GenericSchema<unknown, T>;
    readonly most: number;
    readonly what: string;
  },
): Read<T> {
  const refuse = (expected: string, received: string): Read<T> => ({
    kind: "refused",
    reason: `${what} is left alone: expected ${expected}, received ${received}`,
  });
  if (text.length > most) return refuse(`at most ${most} characters`, `${text.length}`);
  const parsed = v.safeParse(v.pipe(v.string(), v.parseJson()), text);
  if (!parsed.success) return refuse("JSON", "something else");
  const versioned = v.safeParse(v.looseObject({ protocol: v.number() }), parsed.output);
  const protocol = versioned.success ? versioned.output.protocol : undefined;
  if (protocol !== FLEET_PROTOCOL_VERSION) {
    const received = protocol === undefined ? "none" : `${protocol}, of another version`;
    return refuse(`protocol ${FLEET_PROTOCOL_VERSION}`, received);
  }
  const found = v.safeParse(schema, parsed.output);
  if (found.success) return { kind: "ok", value: found.output };
  const [issue] = found.issues;
  const place = v.getDotPath(issue);
  const expected = issue.expected ?? issue.message;
  return refuse(place === null ? expected : `${expected} at ${place}`, issue.received);
}
