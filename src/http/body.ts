import { formatBytes } from "../units/bytes.ts";
import type { Bytes } from "../units/units.ts";
import { ProblemError } from "./problem.ts";

/**
 * Reads the body of a request as JSON, counting: one that is too large is refused by what it
 * announces, or where it goes over the limit, and never held as a whole.
 * @returns undefined for no body
 * @throws ProblemError too-large, media-type, request, slow
 */
export async function readJsonBody(
  request: Request,
  limits: { readonly bodyBytes: Bytes; readonly signal: AbortSignal },
): Promise<unknown> {
  const { bodyBytes, signal } = limits;
  const announced = Number(request.headers.get("content-length") ?? 0);
  if (announced > bodyBytes) throw tooLarge(bodyBytes, formatBytes(announced));
  if (request.body === null) return undefined;
  const bytes = await readBytes(request.body, { bodyBytes, signal });
  if (bytes.length === 0) return undefined;
  const type = request.headers.get("content-type") ?? "none";
  // A form of another site cannot send this type without being asked for leave first.
  if (!/^application\/json *(; *charset="?utf-8"?)?$/i.test(type)) {
    throw new ProblemError("media-type", "The body is of a type that is not taken", {
      expected: "application/json",
      received: type.slice(0, 100),
    });
  }
  return parseJson(bytes);
}

async function readBytes(
  body: ReadableStream<Uint8Array>,
  limits: { readonly bodyBytes: Bytes; readonly signal: AbortSignal },
): Promise<Uint8Array> {
  const { bodyBytes, signal } = limits;
  const reader = body.getReader();
  const aborted = Promise.withResolvers<never>();
  aborted.promise.catch(() => {});
  const onAbort = () => aborted.reject(signal.reason);
  if (signal.aborted) onAbort();
  signal.addEventListener("abort", onAbort, { once: true });
  const chunks: Uint8Array[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await Promise.race([reader.read(), aborted.promise]);
      if (done) return Buffer.concat(chunks);
      size += value.length;
      if (size > bodyBytes) throw tooLarge(bodyBytes, "more");
      chunks.push(value);
    }
  } catch (failure) {
    reader.cancel().catch(() => {});
    throw failure instanceof ProblemError
      ? failure
      : new ProblemError("ended", "The body did not come as a whole", { cause: failure });
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function tooLarge(limit: Bytes, received: string): ProblemError {
  const expected = `a body of at most ${formatBytes(limit)}`;
  return new ProblemError("too-large", "The body is too large", { expected, received });
}

/** @throws ProblemError request */
export function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (failure) {
    throw notJson(failure as Error);
  }
}

function notJson(failure: Error): ProblemError {
  return new ProblemError("request", "The body is no JSON", {
    expected: "JSON in UTF-8",
    received: failure.message.slice(0, 200),
    cause: failure,
  });
}

/**
 * Path parameters, query and body as one object. A name that stands twice in the text of the body
 * is here once: JSON.parse has kept the last one (ECMA-262, 25.5.1).
 * @throws ProblemError when a name is given twice: nobody could say which one counts
 */
export function joinInput(parts: {
  readonly parameters: Readonly<Record<string, string>>;
  readonly query: URLSearchParams;
  readonly body: unknown;
}): unknown {
  const { parameters, query, body } = parts;
  const isTable = typeof body === "object" && body !== null && !Array.isArray(body);
  if (body !== undefined && !isTable) {
    throw new ProblemError("request", "The body is not what is expected", {
      expected: "an object",
      received: Array.isArray(body) ? "an array" : String(body).slice(0, 100),
    });
  }
  const entries = [
    ...Object.entries(parameters),
    ...query.entries(),
    ...Object.entries((body ?? {}) as Readonly<Record<string, unknown>>),
  ];
  const seen = new Set<string>();
  for (const [name] of entries) {
    if (seen.has(name)) {
      throw new ProblemError("request", "A value is given twice", {
        expected: "each name once in path, query and body",
        received: `${name.slice(0, 100)} twice`,
      });
    }
    seen.add(name);
  }
  return Object.fromEntries(entries);
}
