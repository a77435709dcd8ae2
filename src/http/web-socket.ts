import type * as v from "valibot";
import type { Permission } from "./principal.ts";
import type { Call } from "./route.ts";

/** A WebSocket that a server offers; who may open it is checked as with any route. */
export interface WebSocketRoute<Input extends v.GenericSchema = v.GenericSchema> {
  readonly name: string;
  readonly method: "GET";
  readonly path: string;
  readonly summary: string;
  readonly permission: Permission;
  /** Path parameters and query. */
  readonly input: Input;
  /** `call.signal` is aborted when the session ends; the socket is closed by then. */
  open(socket: ServerWebSocket, call: Call, input: v.InferOutput<Input>): WebSocketHandlers;
}

export interface WebSocketHandlers {
  message(data: string | Uint8Array): void;
  /** All that was queued has been sent. */
  drain?(): void;
  close(code: number, reason: string): void;
}

export interface ServerWebSocket {
  /**
   * "queued": it waits, with `queuedBytes` of others, and `drain` will be called. Over the limit
   * of the queue the socket is closed, and "closed" is the answer.
   */
  send(data: string | Uint8Array): "sent" | "queued" | "closed";
  close(code: number, reason: string): void;
  readonly queuedBytes: number;
}

/** Why a server closes a WebSocket: RFC 6455, section 7.4.1. */
export const closeCodes = {
  goingAway: 1001,
  /** The session was ended: revoked, or logged out. */
  policy: 1008,
  tooBig: 1009,
  bug: 1011,
} as const;

export function defineWebSocket<Input extends v.GenericSchema>(
  route: WebSocketRoute<Input>,
): WebSocketRoute {
  return route as unknown as WebSocketRoute;
}
