import type { EventLoop } from "../../event-loop/event-loop.ts";
import { ALLOW_TIME, MOST_ATTEMPTS, MOST_IN_FLIGHT, MOST_IN_FLIGHT_A_MACHINE } from "./limits.ts";
import {
  type Answer,
  encodeAnswer,
  type OwnAnswer,
  parseAnswer,
  type Query,
  responseCodes,
  withId,
} from "./message.ts";
import { isNeverAllowed } from "./policy.ts";
import { type Asked, askByTcp, askByUdp, type Upstream } from "./upstream.ts";

/** A question's way to an upstream and back. */

/** What a machine is about to be told, and may reach from then on. */
export interface Allowed {
  readonly vmAddress: string;
  /** As it was asked for, in lower case. */
  readonly name: string;
  readonly addresses: readonly string[];
  /** Seconds, as the upstream said: 0 is possible, and the asker connects after it. */
  readonly timeToLive: number;
}

export interface ForwardingCounters {
  forwarded: number;
  /** Messages that came from an upstream and were no answer. */
  mismatched: number;
  /** Attempts at an upstream that came to nothing. */
  unanswered: number;
  /** Answers that cannot be read, or speak of addresses that no list lets through. */
  withheld: number;
  overLimit: number;
  /** `onAllowed` threw, or took too long. */
  notAllowed: number;
}

export interface ForwarderOptions {
  readonly loop: EventLoop;
  readonly upstreams: () => readonly Upstream[];
  readonly onAllowed: (allowed: Allowed) => Promise<void>;
  readonly counters: ForwardingCounters;
  /** Chance: 0 to 65,535, not to be guessed. */
  readonly random16: () => number;
  readonly signal: AbortSignal;
}

export type Transport = "udp" | "tcp";

const failure: OwnAnswer = { code: "serverFailure" };

export class Forwarding {
  readonly #options: ForwarderOptions;
  readonly #inFlight = new Map<string, number>();
  #total = 0;

  constructor(options: ForwarderOptions) {
    this.#options = options;
  }

  /** @returns the bytes for the asker, under its own id */
  async forward(
    query: Query,
    asker: { readonly vmAddress: string; readonly tell: boolean; readonly transport: Transport },
  ): Promise<Uint8Array> {
    const { vmAddress } = asker;
    const { counters } = this.#options;
    const own = this.#inFlight.get(vmAddress) ?? 0;
    if (own >= MOST_IN_FLIGHT_A_MACHINE || this.#total >= MOST_IN_FLIGHT) {
      counters.overLimit += 1;
      return encodeAnswer(query, failure);
    }
    this.#inFlight.set(vmAddress, own + 1);
    this.#total += 1;
    try {
      counters.forwarded += 1;
      return await this.#ask(query, asker);
    } finally {
      this.#total -= 1;
      const left = (this.#inFlight.get(vmAddress) ?? 1) - 1;
      if (left === 0) this.#inFlight.delete(vmAddress);
      else this.#inFlight.set(vmAddress, left);
    }
  }

  async #ask(
    query: Query,
    asker: { readonly vmAddress: string; readonly tell: boolean; readonly transport: Transport },
  ): Promise<Uint8Array> {
    const asked = await this.#askAnybody(query, asker.transport);
    if (asked === undefined) {
      return encodeAnswer(query, { ...failure, extendedError: "noReachableAuthority" });
    }
    const { counters } = this.#options;
    const parsed = parseAnswer(asked, query.question);
    if (!parsed.ok) {
      counters.withheld += 1;
      return encodeAnswer(query, failure);
    }
    const answer = parsed.value;
    // What did not fit is asked for over TCP, and so is nothing told of it.
    if (answer.truncated) return encodeAnswer(query, { code: "noError", truncated: true });
    if (asker.tell && !(await this.#allow(query, answer, asker.vmAddress))) {
      return encodeAnswer(query, failure);
    }
    return withId(asked, query.id);
  }

  /** The first answer that says something; else that of the last one who refused to. */
  async #askAnybody(query: Query, transport: Transport): Promise<Uint8Array | undefined> {
    const { loop, counters, random16, signal } = this.#options;
    const upstreams = this.#options.upstreams();
    let refused: Uint8Array | undefined;
    for (let attempt = 0; attempt < MOST_ATTEMPTS && upstreams.length > 0; attempt += 1) {
      const upstream = upstreams[attempt % upstreams.length];
      if (upstream === undefined || signal.aborted) break;
      const onMismatch = () => {
        counters.mismatched += 1;
      };
      const { bytes, question } = query;
      const asking = { loop, upstream, question, onMismatch, signal, query: bytes, id: random16() };
      const asked: Asked = await (transport === "udp" ? askByUdp(asking) : askByTcp(asking));
      if (asked.kind === "failed") {
        counters.unanswered += 1;
        continue;
      }
      const code = (asked.bytes[3] ?? 0) & 0x0f;
      const isRefusal = code === responseCodes.serverFailure || code === responseCodes.refused;
      if (!isRefusal) return asked.bytes;
      refused = asked.bytes;
      // Asked again, the same one would say the same.
      if (attempt + 1 >= upstreams.length) break;
    }
    return refused;
  }

  /** The caller lets the addresses through before the asker knows them. */
  async #allow(query: Query, answer: Answer, vmAddress: string): Promise<boolean> {
    const { addresses, timeToLive } = answer;
    const { loop, onAllowed, counters } = this.#options;
    if (addresses.length === 0) return true;
    if (addresses.some(isNeverAllowed)) {
      counters.withheld += 1;
      return false;
    }
    const late = Promise.withResolvers<boolean>();
    using _deadline = loop.wakeAfter(ALLOW_TIME, () => late.resolve(false));
    const { name } = query.question;
    const allowing = (async () => {
      await onAllowed({ vmAddress, name, addresses, timeToLive });
      return true;
    })();
    const isAllowed = await Promise.race([allowing.catch(() => false), late.promise]);
    if (!isAllowed) counters.notAllowed += 1;
    return isAllowed;
  }
}
