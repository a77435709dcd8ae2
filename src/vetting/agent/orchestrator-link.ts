import { connect } from "node:net";
import type * as v from "valibot";
import { HttpClient } from "../../http/client.ts";
import { HttpPinRefused, HttpRefusal } from "../../http/client-error.ts";
import type { ProblemKind } from "../../http/problem.ts";
import type { RouteDefinition } from "../../http/route.ts";
import type { Milliseconds } from "../../units/units.ts";
import type { CallFailure } from "./lifecycle-state.ts";

/** Longest of one call: a heartbeat must be early, and a result may be 8 MB. */
const times = { beat: 5_000, call: 10_000, bulk: 60_000 } as const satisfies Record<
  string,
  Milliseconds
>;
export type CallClass = keyof typeof times;

/** An orchestrator's answers are small. */
const ANSWER_BYTES = 4 * 1024 ** 2;

/** Refusals that say that this agent is not the run's. */
const displacing: readonly (ProblemKind | undefined)[] = [
  "unauthenticated",
  "forbidden",
  "conflict",
  "gone",
  "not-found",
];
/** Refusals of what was asked, which no time mends. */
const lasting: readonly (ProblemKind | undefined)[] = [
  "request",
  "too-large",
  "media-type",
  "method",
];

/** Calls to one orchestrator, which is known by its certificate alone. */
export class OrchestratorLink {
  readonly #client: HttpClient;
  readonly #url: URL;

  /** @throws HttpAddressRefused */
  constructor(options: {
    readonly url: string;
    readonly pins: readonly string[];
    readonly token: () => string | undefined;
  }) {
    const { url, pins, token } = options;
    this.#url = new URL(url);
    const limits = { answerTime: times.call, answerBytes: ANSWER_BYTES };
    this.#client = new HttpClient({ url, pins, token, limits });
  }

  async call<Input extends v.GenericSchema, Output extends v.GenericSchema>(
    route: RouteDefinition<Input, Output>,
    input: v.InferInput<Input>,
    kind: CallClass,
  ): Promise<v.InferOutput<Output>> {
    return await this.#client.call(route, input, { answerTime: times[kind] });
  }

  /** The address that this host speaks from to its orchestrator; null where there is no way. */
  async sourceAddress(): Promise<string | null> {
    const found = Promise.withResolvers<string | null>();
    const port = Number(this.#url.port || 443);
    const host = this.#url.hostname.replace(/^\[|\]$/g, "");
    const socket = connect({ host, port, signal: AbortSignal.timeout(times.beat) });
    socket.once("connect", () => {
      found.resolve(socket.localAddress ?? null);
      socket.destroy();
    });
    socket.once("error", () => found.resolve(null));
    socket.once("close", () => found.resolve(null));
    return await found.promise;
  }
}

/** What came of a call that failed, for whoever decides. */
export function failureOf(error: unknown): CallFailure {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof HttpRefusal) {
    const { kind } = error;
    const retryAfter = error.retryAfter ?? null;
    if (displacing.includes(kind)) return { kind: "displaced", message, retryAfter };
    if (lasting.includes(kind)) return { kind: "refused", message, retryAfter };
    return { kind: "passing", message, retryAfter };
  }
  const hint =
    error instanceof HttpPinRefused ? ". Is the pin that this host was booted with right?" : "";
  return { kind: "passing", message: `${message}${hint}`, retryAfter: null };
}
