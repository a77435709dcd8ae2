import * as v from "valibot";
import { describeIssues } from "../../messaging/describe-issues.ts";
import { formatBytes } from "../../units/bytes.ts";
import { formatDuration, type Milliseconds } from "../../units/units.ts";
import { VmmRefused, VmmUnreachable } from "../driver.ts";
import type { CloudHypervisorLimits } from "./limits.ts";

/** Where the API begins: HTTP_ROOT of vmm/src/api/http. */
const ROOT = "http://localhost/api/v1/";
/** Letters of a VMM's own words that are told. */
const LONGEST_REASON = 1_000;

/** A refusal: the VMM's errors, the outermost first; older ones say one text. */
const refusalSchema = v.union([v.array(v.string()), v.string()]);

/** It answered with this status of HTTP. */
export class ApiRefused extends VmmRefused {
  readonly status: number;

  constructor(message: string, status: number) {
    super(message);
    this.status = status;
  }
}

/** Nobody took the connection: the process has ended, or does not listen yet. */
export class NobodyListens extends VmmUnreachable {}
/** It went away in the middle of a call, which may have been done. */
export class AnswerLost extends VmmUnreachable {}

export interface Call {
  readonly method: "GET" | "PUT";
  /** "vm.boot". */
  readonly endpoint: string;
  readonly body?: unknown;
  /** Other than the usual. */
  readonly time?: Milliseconds;
}

/** cloud-hypervisor's REST API on its Unix socket: a connection for each call. */
export class CloudHypervisorApi {
  readonly #path: string;
  readonly #limits: CloudHypervisorLimits;
  readonly #signal: AbortSignal;
  #open = 0;

  /** @param signal calls all of them off */
  constructor(path: string, limits: CloudHypervisorLimits, signal: AbortSignal) {
    this.#path = path;
    this.#limits = limits;
    this.#signal = signal;
  }

  /** @throws VmmRefused, VmmUnreachable */
  async put(endpoint: string, body?: unknown, time?: Milliseconds): Promise<void> {
    await this.#call({ method: "PUT", endpoint, body, ...(time !== undefined && { time }) });
  }

  /** @throws VmmRefused, VmmUnreachable (what it says is not what the schema says) */
  async get<Schema extends v.GenericSchema>(
    endpoint: string,
    schema: Schema,
  ): Promise<v.InferOutput<Schema>> {
    const text = await this.#call({ method: "GET", endpoint });
    const checked = v.safeParse(schema, parse(text));
    if (checked.success) return checked.output;
    throw new VmmUnreachable(
      `${this.#path} answered ${endpoint} with what is no answer: ` +
        describeIssues(checked.issues),
    );
  }

  async #call(call: Call): Promise<string> {
    const { openCalls } = this.#limits;
    if (this.#open >= openCalls) {
      const reason = `${openCalls} calls are not answered: ${call.endpoint} was not sent`;
      throw new VmmUnreachable(`${this.#path}: ${reason}`);
    }
    this.#open += 1;
    try {
      return await this.#exchange(call);
    } finally {
      this.#open -= 1;
    }
  }

  async #exchange(call: Call): Promise<string> {
    const time = call.time ?? this.#limits.answerTime;
    const limit = AbortSignal.timeout(time);
    let response: Response;
    let text: string;
    try {
      response = await this.#send(call, AbortSignal.any([limit, this.#signal]));
      text = await this.#read(response);
    } catch (failure) {
      throw this.#translate(failure, call, limit.aborted ? time : undefined);
    }
    if (response.ok) return text;
    const { status } = response;
    const reason = readRefusal(text).slice(0, LONGEST_REASON);
    const message = `cloud-hypervisor refused ${call.endpoint} (${status}): ${reason}`;
    throw new ApiRefused(message, status);
  }

  #send({ method, endpoint, body }: Call, signal: AbortSignal): Promise<Response> {
    return fetch(`${ROOT}${endpoint}`, {
      ...{ method, signal, unix: this.#path, redirect: "manual", decompress: false },
      // One for each call: it takes ten at once, and an idle one would be one of them.
      keepalive: false,
      // Its HTTP knows two types alone, and passes over a header that it does not know.
      headers: { accept: "application/json", "content-type": "application/json" },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
  }

  async #read(response: Response): Promise<string> {
    if (response.body === null) return "";
    const { answerBytes } = this.#limits;
    const chunks: Uint8Array[] = [];
    let size = 0;
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return new TextDecoder().decode(Buffer.concat(chunks));
      size += value.length;
      if (size > answerBytes) {
        reader.cancel().catch(() => {});
        throw new VmmUnreachable(
          `expected an answer of at most ${formatBytes(answerBytes)}, received a longer one`,
        );
      }
      chunks.push(value);
    }
  }

  #translate(failure: unknown, { endpoint }: Call, late: Milliseconds | undefined): VmmUnreachable {
    const what = `${this.#path} did not answer ${endpoint}`;
    const options = { cause: failure };
    if (late !== undefined) {
      return new VmmUnreachable(`${what} within ${formatDuration(late)}: it hangs`, options);
    }
    if (this.#signal.aborted) return new VmmUnreachable(`${what}: it was called off`, options);
    if (failure instanceof VmmUnreachable) {
      return new VmmUnreachable(`${what}: ${failure.message}`, options);
    }
    const code = codeOf(failure);
    if (nobodyCodes.has(code)) return new NobodyListens(`${what}: nobody listens there`, options);
    if (lostCodes.has(code)) {
      return new AnswerLost(`${what}: it closed the connection`, options);
    }
    return new VmmUnreachable(`${what}: it spoke no HTTP (${code})`, options);
  }
}

/** Bun's names of what befell a call. */
const nobodyCodes = new Set(["ConnectionRefused", "ECONNREFUSED", "FailedToOpenSocket", "ENOENT"]);
const lostCodes = new Set(["ConnectionClosed", "ECONNRESET", "ConnectionReset", "EPIPE"]);

function codeOf(failure: unknown): string {
  if (typeof failure !== "object" || failure === null) return String(failure);
  if ("code" in failure) return String(failure.code);
  return "name" in failure ? String(failure.name) : "unknown";
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A VMM's words, the outermost first; those of an older version are one text. */
function readRefusal(text: string): string {
  const checked = v.safeParse(refusalSchema, parse(text));
  const words = checked.success ? [checked.output].flat().join(": ") : text.trim();
  return words === "" ? "it said nothing" : words;
}
