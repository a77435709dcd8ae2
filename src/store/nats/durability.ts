import * as v from "valibot";
import type { Milliseconds } from "../../units/units.ts";
import type { Capabilities } from "../store.ts";

/** How it is known that what a server acknowledged is not lost. */
export type DurabilityProof =
  /**
   * The server's monitoring, "http://127.0.0.1:8222" or https://, whose /varz tells
   * `sync_always` (nats-server 2.10 and later). Its server must be the one that is spoken to.
   */
  | { readonly kind: "monitoring"; readonly address: string }
  /** The operator says so: durable_acknowledgements = "checked". */
  | { readonly kind: "operator" }
  /** Nothing is known: three replicas, or volatile buckets alone. */
  | { readonly kind: "none" };

export interface ServerFacts {
  readonly id: string;
  readonly version: string;
}

export interface StreamFacts {
  readonly bucket: string;
  readonly volatile: boolean;
  readonly replicas: number;
  /** Of a cluster: the server whose disk decides. */
  readonly leader: string | undefined;
  /** "async" of nats-server 2.12 acknowledges before it writes. */
  readonly persistence: string | undefined;
}

/** What /varz says, as far as it matters here. */
export interface Monitored {
  readonly id: string;
  readonly name: string;
  readonly syncsAlways: boolean;
}

export type Durability =
  | { readonly acknowledgement: Capabilities["acknowledgement"] }
  /** Half a sentence, and the mend. */
  | { readonly refusal: string };

const mend =
  "Set jetstream { sync_interval: always } in the server's configuration (nats-server 2.10 and " +
  "later) and name its monitoring address, or use three replicas, or say " +
  'durable_acknowledgements = "checked"';

/**
 * What an acknowledgement of this stream is worth. By default a server acknowledges what is in its
 * memory, and calls fsync every two minutes: nats-server #7564.
 */
export function judgeDurability(
  stream: StreamFacts,
  proof: DurabilityProof,
  seen: { readonly server: ServerFacts; readonly monitored: Monitored | undefined },
): Durability {
  if (stream.volatile) return { acknowledgement: "memory" };
  const { bucket, persistence } = stream;
  if (persistence === "async") {
    return refuse(bucket, "persist_mode is async: it is acknowledged before it is written");
  }
  if (stream.replicas >= 3) return { acknowledgement: "replicated" };
  if (proof.kind === "operator") return { acknowledgement: "unknown" };
  if (proof.kind === "none") return refuse(bucket, "nothing says that the server calls fsync");
  return judgeMonitored(stream, seen);
}

function judgeMonitored(
  { bucket, leader }: StreamFacts,
  { server, monitored }: { server: ServerFacts; monitored: Monitored | undefined },
): Durability {
  if (monitored === undefined) return refuse(bucket, "the server's monitoring cannot be read");
  if (leader === undefined && monitored.id !== server.id) {
    return refuse(bucket, `the monitoring is of ${monitored.id}, the connection to ${server.id}`);
  }
  if (leader !== undefined && leader !== monitored.name) {
    return refuse(bucket, `the monitoring is of ${monitored.name}, the bucket on ${leader}`);
  }
  if (monitored.syncsAlways) return { acknowledgement: "fsync" };
  return refuse(bucket, `nats-server ${server.version} acknowledges before it calls fsync`);
}

function refuse(bucket: string, why: string): Durability {
  return { refusal: `What is written to ${bucket} could be lost: ${why}. ${mend}.` };
}

const varzSchema = v.object({
  server_id: v.string(),
  server_name: v.string(),
  jetstream: v.object({
    config: v.object({ sync_always: v.optional(v.boolean(), false) }),
  }),
});

/** Bytes of /varz that are read; it has some six thousand. */
const LONGEST_ANSWER = 1024 * 1024;

/** @returns undefined when it does not answer as /varz does */
export async function readMonitoring(
  address: string,
  deadline: Milliseconds,
): Promise<Monitored | undefined> {
  if (!isMonitoringAddress(address)) return undefined;
  const url = `${address.replace(/\/+$/, "")}/varz`;
  try {
    const signal = AbortSignal.timeout(deadline);
    const response = await fetch(url, { signal, redirect: "error" });
    const text = await response.text();
    if (!response.ok || text.length > LONGEST_ANSWER) return undefined;
    const { server_id: id, server_name: name, jetstream } = v.parse(varzSchema, JSON.parse(text));
    return { id, name, syncsAlways: jetstream.config.sync_always };
  } catch {
    return undefined;
  }
}

/** Over a network it is read with TLS alone: whoever is between could say anything. */
export function isMonitoringAddress(address: string): boolean {
  return /^(https:\/\/|http:\/\/(127\.\d+\.\d+\.\d+|\[::1\]|localhost)(:|\/|$))/.test(address);
}
