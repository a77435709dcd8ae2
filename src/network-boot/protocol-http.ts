import { type Parsed, refuse } from "../network/dhcp/options.ts";
import { LONGEST_HEAD, MOST_FIELDS } from "./limits.ts";

/** As much of HTTP/1.1 as firmware speaks to get a file: RFC 9112, RFC 9110. Pure. */

export interface HttpRequest {
  readonly method: string;
  /** As it was sent, without the query. */
  readonly path: string;
  /** With its question mark, or empty. */
  readonly search: string;
  /** By name in lower case; one that comes twice is joined with a comma. */
  readonly fields: ReadonlyMap<string, string>;
  readonly keepsAlive: boolean;
  /** Bytes of the head in what was read. */
  readonly length: number;
}

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** @returns undefined when the head is not whole yet */
export function parseRequest(bytes: Uint8Array): Parsed<HttpRequest> | undefined {
  const end = indexOfEnd(bytes);
  if (end === undefined) {
    if (bytes.length <= LONGEST_HEAD) return undefined;
    return refuse("head", `at most ${LONGEST_HEAD} bytes`, bytes.length);
  }
  if (end > LONGEST_HEAD) return refuse("head", `at most ${LONGEST_HEAD} bytes`, end);
  const head = String.fromCharCode(...bytes.subarray(0, end - 4));
  const [line = "", ...rest] = head.split("\r\n");
  const words = /^([A-Z]{1,16}) (\/[\x21-\x7e]*|http:\/\/[\x21-\x7e]+) HTTP\/1\.([01])$/.exec(line);
  if (words === null) return refuse("request line", "METHOD /path HTTP/1.1", "something else");
  const [, method = "", target = "", minor] = words;
  const fields = readFields(rest);
  if (!fields.ok) return fields;
  const asked = targetOf(target);
  const connection = (fields.value.get("connection") ?? "").toLowerCase();
  if (minor === "1" && !fields.value.has("host")) return refuse("Host", "one", "none");
  return {
    ok: true,
    value: {
      method,
      ...asked,
      fields: fields.value,
      keepsAlive: minor === "1" && !/(^|,)\s*close\s*(,|$)/.test(connection),
      length: end,
    },
  };
}

function indexOfEnd(bytes: Uint8Array): number | undefined {
  for (let at = 0; at + 3 < bytes.length; at += 1) {
    if (bytes[at] !== 13 || bytes[at + 1] !== 10) continue;
    if (bytes[at + 2] === 13 && bytes[at + 3] === 10) return at + 4;
  }
  return undefined;
}

function readFields(lines: readonly string[]): Parsed<ReadonlyMap<string, string>> {
  if (lines.length > MOST_FIELDS)
    return refuse("head", `at most ${MOST_FIELDS} fields`, lines.length);
  const fields = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon).toLowerCase();
    const value = line.slice(colon + 1).trim();
    // A field that is folded, and one with a space before its colon, have hidden requests.
    if (colon < 1 || !TOKEN.test(name) || /[\0\r\n]/.test(value)) {
      return refuse("field", "name: value", "something else");
    }
    const before = fields.get(name);
    fields.set(name, before === undefined ? value : `${before}, ${value}`);
  }
  return { ok: true, value: fields };
}

/** A proxy's form names a host, which is not looked at: only one is served here. */
function targetOf(target: string): { path: string; search: string } {
  const local = target.startsWith("/") ? target : target.replace(/^http:\/\/[^/?]*/, "");
  const question = local.indexOf("?");
  const path = question < 0 ? local : local.slice(0, question);
  return { path: path === "" ? "/" : path, search: question < 0 ? "" : local.slice(question) };
}

/** Whether a body comes with it: nothing here takes one. */
export function hasBody({ fields }: HttpRequest): boolean {
  const length = fields.get("content-length");
  return fields.has("transfer-encoding") || (length !== undefined && length !== "0");
}

export type Range =
  | { readonly kind: "whole" }
  /** Both included. */
  | { readonly kind: "part"; readonly first: number; readonly last: number }
  | { readonly kind: "unsatisfiable" };

/** What of a file is asked for: RFC 9110, 14. Several parts, and other units, get the whole. */
export function rangeOf(
  fields: ReadonlyMap<string, string>,
  { size, tag }: { readonly size: number; readonly tag: string },
): Range {
  const text = fields.get("range");
  if (text === undefined) return { kind: "whole" };
  const condition = fields.get("if-range");
  if (condition !== undefined && condition !== tag) return { kind: "whole" };
  const [, from = "", to = ""] = /^bytes=\s*(\d{0,15})-(\d{0,15})$/.exec(text) ?? [];
  if (from === "" && to === "") return { kind: "whole" };
  if (from === "") {
    const length = Math.min(Number(to), size);
    if (length === 0) return { kind: "unsatisfiable" };
    return { kind: "part", first: size - length, last: size - 1 };
  }
  const first = Number(from);
  const last = to === "" ? size - 1 : Math.min(Number(to), size - 1);
  if (to !== "" && Number(to) < first) return { kind: "whole" };
  return first >= size ? { kind: "unsatisfiable" } : { kind: "part", first, last };
}

const reasons: Readonly<Record<number, string>> = {
  200: "OK",
  206: "Partial Content",
  400: "Bad Request",
  404: "Not Found",
  405: "Method Not Allowed",
  413: "Content Too Large",
  416: "Range Not Satisfiable",
  429: "Too Many Requests",
  503: "Service Unavailable",
};

/** The head of an answer. */
export function encodeHead(
  status: number,
  fields: Readonly<Record<string, string | number>>,
): Uint8Array<ArrayBuffer> {
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  return new TextEncoder().encode(
    `HTTP/1.1 ${status} ${reasons[status] ?? "Answer"}\r\n${lines.join("")}\r\n`,
  );
}
