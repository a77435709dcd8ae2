import type { Bytes, Milliseconds } from "../units/units.ts";

/** So many at once at most, and so many a second in the long run. */
export interface Rate {
  readonly burst: number;
  readonly perSecond: number;
}

/** Limits of a server; going over one is a refusal. README.md says what each costs. */
export interface HttpLimits {
  readonly bodyBytes: Bytes;
  /** For the whole request, its body included; a handler that takes longer is aborted. */
  readonly requestTime: Milliseconds;
  /** A connection on which nothing is sent or received for so long is closed; at most 255 s. */
  readonly idleTime: Milliseconds;
  readonly concurrentRequests: number;
  readonly addressRate: Rate;
  readonly principalRate: Rate;
  /** Addresses, and principals, of which a rate is remembered. */
  readonly rememberedCallers: number;
  readonly streams: number;
  readonly streamsPerPrincipal: number;
  /** What a client of a stream has yet to take; one that is further behind is dropped. */
  readonly streamQueueBytes: Bytes;
  readonly streamHeartbeat: Milliseconds;
  /** A client of a stream that takes nothing for so long, while there is something, is dropped. */
  readonly streamStallTime: Milliseconds;
  readonly webSockets: number;
  readonly webSocketsPerPrincipal: number;
  readonly webSocketMessageBytes: Bytes;
  readonly webSocketQueueBytes: Bytes;
  /** Connections over TLS; fewer where the limit of descriptors allows no more. */
  readonly connections: number;
  readonly connectionsPerAddress: number;
  /** Connections on which no request has come yet; for one more goes one of who has the most. */
  readonly unproven: number;
  readonly unprovenPerAddress: number;
  readonly unprovenTime: Milliseconds;
  /** Descriptors that are left to the rest of the daemon. */
  readonly reservedDescriptors: number;
}

export const defaultHttpLimits: HttpLimits = {
  bodyBytes: 1024 * 1024,
  requestTime: 30_000,
  idleTime: 60_000,
  concurrentRequests: 1_024,
  addressRate: { burst: 400, perSecond: 100 },
  principalRate: { burst: 200, perSecond: 50 },
  rememberedCallers: 16_384,
  streams: 4_096,
  streamsPerPrincipal: 32,
  streamQueueBytes: 256 * 1024,
  streamHeartbeat: 15_000,
  streamStallTime: 30_000,
  webSockets: 4_096,
  webSocketsPerPrincipal: 32,
  webSocketMessageBytes: 1024 * 1024,
  webSocketQueueBytes: 16 * 1024 * 1024,
  connections: 8_192,
  connectionsPerAddress: 4_096,
  unproven: 1_024,
  unprovenPerAddress: 128,
  unprovenTime: 10_000,
  reservedDescriptors: 256,
};
