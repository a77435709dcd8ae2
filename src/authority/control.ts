import type { Caller, Dispatcher } from "../http/dispatch.ts";
import { ProblemError, toControlError } from "../http/problem.ts";
import type { Route, StreamEvent, StreamRoute } from "../http/route.ts";
import type { ControlCall } from "../messaging/control-server.ts";
import { nearest } from "../units/nearest.ts";
import type { AuthorityRequest, StreamItem } from "./protocol.ts";

/** Answers requests of the control socket by the same routes as HTTPS does. */
export class ControlRoutes {
  readonly #dispatcher: Dispatcher;
  readonly #routes: ReadonlyMap<string, Route>;
  readonly #streams: ReadonlyMap<string, StreamRoute>;
  readonly #stopping = new AbortController();

  constructor(
    dispatcher: Dispatcher,
    served: { readonly routes: readonly Route[]; readonly streams: readonly StreamRoute[] },
  ) {
    this.#dispatcher = dispatcher;
    this.#routes = new Map(served.routes.map((route) => [route.name, route]));
    this.#streams = new Map(served.streams.map((stream) => [stream.name, stream]));
  }

  /** What was begun is answered, streams end, and nothing is taken any more. */
  stop(): void {
    this.#stopping.abort();
  }

  /** Never rejects: whatever it comes to, the client is told. */
  async answer(request: AuthorityRequest, call: ControlCall): Promise<void> {
    if (this.#stopping.signal.aborted) {
      const hint = "Ask again when it is started";
      const stopping = new ProblemError("unavailable", "The authority is stopping", { hint });
      call.refuse(toControlError(stopping.problem));
      return;
    }
    const gone = new AbortController();
    call.onGone(() => gone.abort());
    const { user, processId } = call.peer;
    const caller: Caller = {
      principal: { kind: "local", user, process: processId },
      from: "control socket",
      signal: gone.signal,
    };
    const stream = this.#streams.get(request.verb);
    if (stream !== undefined) {
      const signal = AbortSignal.any([gone.signal, this.#stopping.signal]);
      await this.#follow(stream, { request, call, caller: { ...caller, signal } });
      return;
    }
    const route = this.#routes.get(request.verb);
    if (route === undefined) {
      call.refuse(toControlError(this.#unknown(request.verb).problem));
      return;
    }
    const outcome = await this.#dispatcher.dispatch(route, caller, request.input);
    if (outcome.kind === "done") call.done(outcome.result);
    else call.refuse(toControlError(outcome.refusal.problem));
  }

  async #follow(
    stream: StreamRoute,
    asked: {
      readonly request: AuthorityRequest;
      readonly call: ControlCall;
      readonly caller: Caller;
    },
  ): Promise<void> {
    const { request, call, caller } = asked;
    const { input, after } = request;
    const opened = await this.#dispatcher.openStream(stream, caller, { input, after });
    if (opened.kind === "refused") {
      call.refuse(toControlError(opened.refusal.problem));
      return;
    }
    try {
      for await (const event of opened.events) await tell(call, event, caller.signal);
      call.done(null);
    } catch (failure) {
      if (!(failure instanceof ProblemError)) throw failure;
      call.refuse(toControlError(failure.problem));
    }
  }

  #unknown(verb: string): ProblemError {
    const known = [...this.#routes.keys(), ...this.#streams.keys()];
    const meant = nearest(verb, known);
    return new ProblemError("not-found", `There is no verb ${verb}`, {
      expected: "the name of a route",
      received: verb,
      ...(meant !== undefined && { hint: `Did you mean ${meant}?` }),
    });
  }
}

/** A client that is behind is waited for, so that a slow one costs no memory here. */
async function tell(call: ControlCall, event: StreamEvent, gone: AbortSignal): Promise<void> {
  const { id, event: name, data } = event;
  call.item({ id, event: name, data } satisfies StreamItem);
  if (!call.isBehind || gone.aborted) return;
  const drained = Promise.withResolvers<void>();
  call.onDrained(() => drained.resolve());
  const onAbort = () => drained.resolve();
  gone.addEventListener("abort", onAbort, { once: true });
  await drained.promise;
  gone.removeEventListener("abort", onAbort);
}
