import { sha256 } from "./hash.ts";
import { auditLimits } from "./limits.ts";

/**
 * What may stand in a record. Whoever calls must not put secrets in; this is the guard behind
 * that: it takes out what is named like a secret, or looks like one, and bounds the rest. It
 * throws for nothing, because a record that is refused would be an act that nobody sees.
 */

/** In the place of what must not be read. */
export const redacted = "[redacted]";

/** Words in a field's name that make its value a secret. */
const secretWords: ReadonlySet<string> = new Set([
  ...["token", "tokens", "secret", "secrets", "password", "passwords", "passwd", "passphrase"],
  ...["credential", "credentials", "cookie", "cookies", "authorization", "bearer", "seed"],
  ...["csrf", "jwt", "nkey", "pem", "pkcs8", "pfx", "d", "otp"],
]);
/** "key" alone may be a name in a store; after one of these words it is key material. */
const secretKeys = /\b(private|secret|signing|api|master|encryption|shared) ?key\b/;
const keyMaterial = /\bkey ?(material|bytes|data|pem|file contents?)\b/;
/** Last words of a name that only tells of a secret: token_id, password_changed. */
const describingWords: ReadonlySet<string> = new Set([
  ...["id", "ids", "name", "names", "kind", "count", "fingerprint", "fingerprints", "number"],
  ...["expires", "expiry", "expired", "created", "changed", "used", "revoked", "issued", "age"],
  ...["limit", "length", "bytes", "path", "file", "role"],
]);

/** "-----BEGIN EC PRIVATE KEY-----" and all that follows, also when it is cut off. */
const privatePem =
  /-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|$)/g;
const bearer = /\b(Bearer|Basic|Digest|Negotiate) +[\w.~+/=-]{8,}/gi;
/** token=…, password: … inside of a text, such as a query or a command line. */
const assigned = new RegExp(
  [
    /\b((?:\w+[_-])?(?:token|secret|password|passphrase|passwd|api[_-]?key))/,
    /(["']?\s*[=:]\s*)(?:"[^"]*"|'[^']*'|[^\s&,;"']+)/,
  ]
    .map((part) => part.source)
    .join(""),
  "gi",
);

/** @returns whether the value of a field of this name is a secret */
export function isSecretName(name: string): boolean {
  const words = wordsOf(name);
  const text = words.join(" ");
  const isKey = secretKeys.test(text) || keyMaterial.test(text);
  if (!isKey && !words.some((word) => secretWords.has(word))) return false;
  const last = words.at(-1) ?? "";
  if (keyMaterial.test(text)) return true;
  return !(words.length > 1 && describingWords.has(last));
}

/** "enrolmentTokenId" as enrolment, token, id. */
function wordsOf(name: string): string[] {
  return name
    .slice(0, 256)
    .replace(/([a-z0-9])([A-Z])/g, "$1 $2")
    .replace(/([A-Z])([A-Z][a-z])/g, "$1 $2")
    .toLowerCase()
    .split(/[^a-z0-9]+/)
    .filter((word) => word !== "");
}

/** A text without what looks like key material or credentials. */
export function redactText(text: string): string {
  return text
    .replace(privatePem, redacted)
    .replace(bearer, (_found, scheme: string) => `${scheme} ${redacted}`)
    .replace(assigned, (_found, name: string, sign: string) => `${name}${sign}${redacted}`);
}

/** A text for a record: redacted, and of at most so many bytes as JSON. */
export function boundText(text: string): string {
  // What is far too long is cut before it is searched, so that no caller chooses our time.
  const isFar = text.length > 4 * auditLimits.textBytes;
  const clean = redactText(isFar ? text.slice(0, 4 * auditLimits.textBytes) : text);
  if (!isFar && jsonBytes(clean) <= auditLimits.textBytes) return clean;
  const ending = `… (cut; ${text.length} characters)`;
  let length = Math.min(clean.length, auditLimits.textBytes);
  while (length > 0 && jsonBytes(clean.slice(0, length) + ending) > auditLimits.textBytes) {
    // The most that one character takes as JSON is six bytes: \u0000.
    const over = jsonBytes(clean.slice(0, length) + ending) - auditLimits.textBytes;
    length -= Math.max(1, Math.floor(over / 6));
  }
  return clean.slice(0, length) + ending;
}

/**
 * What a record can hold of a value: plain JSON without secrets. What is too long is
 * `{replaced: "too long", bytes, sha256}` of the JSON that would have stood there.
 * @returns undefined for a value that is absent
 */
export function redact(value: unknown): unknown {
  if (value === undefined) return undefined;
  const clean = new Walk().visit(value, 0);
  const text = JSON.stringify(clean) ?? "null";
  const bytes = Buffer.byteLength(text);
  if (bytes <= auditLimits.changeBytes) return clean;
  return { replaced: "too long", bytes, sha256: sha256(text) };
}

/** One value, with a bound on how much of it is looked at. */
class Walk {
  #left = auditLimits.changeValues as number;

  visit(value: unknown, depth: number): unknown {
    this.#left -= 1;
    if (this.#left < 0) return "[too many values]";
    if (depth > auditLimits.changeDepth) return "[too deep]";
    switch (typeof value) {
      case "string":
        return redactText(value);
      case "number":
        return Number.isFinite(value) ? value : String(value);
      case "boolean":
        return value;
      case "bigint":
        return String(value);
      case "object":
        return value === null ? null : this.#visitObject(value, depth);
      default:
        return `[${typeof value}]`;
    }
  }

  #visitObject(value: object, depth: number): unknown {
    if (Array.isArray(value)) return this.#visitList(value, depth);
    if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
    // Bytes may be a key; what they are is not ours to tell.
    if (ArrayBuffer.isView(value) || value instanceof ArrayBuffer) {
      return `[${value.byteLength} bytes]`;
    }
    const prototype: unknown = Object.getPrototypeOf(value);
    if (prototype !== Object.prototype && prototype !== null) return `[${nameOf(value)}]`;
    return this.#visitFields(value as Readonly<Record<string, unknown>>, depth);
  }

  #visitList(list: readonly unknown[], depth: number): unknown[] {
    const result: unknown[] = [];
    for (const item of list) {
      result.push(item === undefined ? null : this.visit(item, depth + 1));
      if (this.#left < 0) break;
    }
    return result;
  }

  #visitFields(fields: Readonly<Record<string, unknown>>, depth: number): object {
    const entries: [string, unknown][] = [];
    for (const [name, value] of Object.entries(fields)) {
      if (value === undefined) continue;
      entries.push([
        redactText(name),
        isSecretName(name) && value !== null ? redacted : this.visit(value, depth + 1),
      ]);
      if (this.#left < 0) break;
    }
    return Object.fromEntries(entries);
  }
}

function nameOf(value: object): string {
  const { name } = (value as { constructor?: { name?: unknown } }).constructor ?? {};
  return typeof name === "string" && name !== "" ? name.slice(0, 64) : "object";
}

/** Bytes of a text as JSON, its quotes included. */
function jsonBytes(text: string): number {
  return Buffer.byteLength(JSON.stringify(text));
}
