import type * as v from "valibot";
import type { Permission, Principal } from "./principal.ts";

/**
 * One thing that a networked role can be asked. The same route is served over HTTPS, and over the
 * control socket as a verb with the route's name; both go through `dispatch`, which checks the
 * permission and the schemas on both sides, and tells what was done to the audit log.
 */
export interface Route<
  Input extends v.GenericSchema = v.GenericSchema,
  Output extends v.GenericSchema = v.GenericSchema,
> {
  /** The verb on the control socket, and the operationId: "identity.hosts.list". */
  readonly name: string;
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  /** Parameters are words with a colon: "/v1/identity/hosts/:name". */
  readonly path: string;
  /** One line, for the OpenAPI document. */
  readonly summary: string;
  readonly permission: Permission;
  /**
   * Changes something: every call, refused ones too, stands in the audit log, and no client repeats
   * one that was lost. Without it a call may be made twice, and has to come to the same.
   */
  readonly mutates: boolean;
  /** Path parameters, query and JSON body as one object. */
  readonly input: Input;
  readonly output: Output;
  run(
    call: Call,
    input: v.InferOutput<Input>,
  ): Promise<v.InferInput<Output>> | v.InferInput<Output>;
}

/** A stream of events, served as text/event-stream; the client resumes by Last-Event-ID. */
export interface StreamRoute<Input extends v.GenericSchema = v.GenericSchema> {
  readonly name: string;
  readonly method: "GET";
  readonly path: string;
  readonly summary: string;
  readonly permission: Permission;
  readonly mutates: false;
  readonly input: Input;
  /** Schema of the data of each event. */
  readonly output: v.GenericSchema;
  /** `after` is the id that the client saw last; undefined for one that begins. */
  stream(
    call: Call,
    input: v.InferOutput<Input>,
    after: string | undefined,
  ): AsyncIterable<StreamEvent>;
}

export interface StreamEvent {
  readonly id: string;
  readonly event: string;
  readonly data: unknown;
}

/** One call that is being answered. */
export interface Call {
  readonly principal: Principal;
  /** Where it came from: "192.0.2.1:40112", or "control socket". */
  readonly from: string;
  /** Aborted when the client is gone, or when its session was ended. */
  readonly signal: AbortSignal;
  /** What the call is about, and how that changed; for the audit log. Secrets never go in. */
  changed(change: {
    readonly object: string;
    readonly before?: unknown;
    readonly after?: unknown;
  }): void;
}

/** What the dispatcher tells of a mutating call, when it has ended or was refused. */
export interface CallRecord {
  readonly who: string;
  readonly from: string;
  readonly verb: string;
  readonly object: string;
  readonly before?: unknown;
  readonly after?: unknown;
  /** "done", or the title of the problem. */
  readonly result: string;
  /** So many refusals like this one, which were not recorded by themselves; absent for one call. */
  readonly count?: number;
}

/** A route as its makers and clients see it: it knows the types of its schemas. */
export interface DefinedRoute<Input extends v.GenericSchema, Output extends v.GenericSchema>
  extends Route {
  readonly input: Input;
  readonly output: Output;
}

export interface DefinedStream<Input extends v.GenericSchema, Output extends v.GenericSchema>
  extends StreamRoute {
  readonly input: Input;
  readonly output: Output;
}

/** What a client knows of a route. */
export type RouteDefinition<Input extends v.GenericSchema, Output extends v.GenericSchema> = Omit<
  DefinedRoute<Input, Output>,
  "run"
>;
export type StreamDefinition<Input extends v.GenericSchema, Output extends v.GenericSchema> = Omit<
  DefinedStream<Input, Output>,
  "stream"
>;

/** Makes a route whose `run` knows the types of its schemas. */
export function defineRoute<Input extends v.GenericSchema, Output extends v.GenericSchema>(
  route: Route<Input, Output>,
): DefinedRoute<Input, Output> {
  return route as unknown as DefinedRoute<Input, Output>;
}

export function defineStream<Input extends v.GenericSchema, Output extends v.GenericSchema>(
  route: StreamRoute<Input> & { readonly output: Output },
): DefinedStream<Input, Output> {
  return route as unknown as DefinedStream<Input, Output>;
}
