/** A host that writes its requests itself, word for word; what it signs is a test's to choose. */
import { createHash, generateKeyPairSync, sign } from "node:crypto";
import { readFileSync } from "node:fs";
import {
  type Challenge,
  enrolText,
  type SessionAnswer,
  sessionText,
} from "../../src/identity/protocol.ts";
import { identityPaths } from "../../src/identity/protocol-paths.ts";
import { type EnrolmentToken, parseToken } from "../../src/identity/protocol-token.ts";
import { storePath } from "../../src/store/wire/protocol.ts";
import { waitFor } from "./wait-for.ts";

export interface RawAnswer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
  /** Of a problem: the last word of its type. */
  readonly kind: string | undefined;
  readonly headers: Headers;
}

/** Asks whoever answers, whatever certificate is shown: a test knows whom it has started. */
export async function askRaw(
  url: string,
  options: {
    readonly method?: string;
    readonly body?: unknown;
    readonly bearer?: string;
    readonly headers?: Readonly<Record<string, string>>;
  } = {},
): Promise<RawAnswer> {
  const { method = "GET", body, bearer, headers = {} } = options;
  const response = await fetch(url, {
    method,
    tls: { rejectUnauthorized: false },
    headers: {
      ...headers,
      ...(bearer !== undefined && { authorization: `Bearer ${bearer}` }),
      ...(body !== undefined && { "content-type": "application/json" }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  const text = await response.text();
  const answer = (text === "" ? {} : JSON.parse(text)) as RawAnswer["body"];
  const kind = String(answer["type"] ?? "")
    .split(":")
    .pop();
  return {
    status: response.status,
    body: answer,
    kind: response.ok ? undefined : kind,
    headers: response.headers,
  };
}

/** This boot, as whoever runs the test sees it. */
export const ownBoot: string = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();

/** What a request says instead of what is true. */
export interface SessionChange {
  readonly host?: string;
  readonly boot?: string;
  readonly certificate?: string;
  readonly authority?: string;
  readonly nonce?: string;
  readonly key?: string;
}

export class RawHost {
  readonly token: EnrolmentToken;
  readonly #pair = generateKeyPairSync("ed25519");
  readonly #spki = this.#pair.publicKey.export({ type: "spki", format: "der" });
  readonly fingerprint: string = createHash("sha256").update(this.#spki).digest("hex");

  constructor(text: string) {
    const parsed = parseToken(text);
    if (parsed.kind !== "token") throw new Error(`No token: ${text}`);
    this.token = parsed.token;
  }

  sign(text: string): string {
    return sign(null, Buffer.from(text), this.#pair.privateKey).toString("base64url");
  }

  async ask(path: string, options: Parameters<typeof askRaw>[1] = {}): Promise<RawAnswer> {
    return await askRaw(`${this.token.address}${path}`, options);
  }

  async nonce(): Promise<string> {
    const answer = await this.ask(identityPaths.challenges, { method: "POST", body: {} });
    return (answer.body as unknown as Challenge).nonce;
  }

  /** @param signed what is signed, where it is not what is sent */
  async enrol(change: { secret?: string; nonce?: string } = {}): Promise<RawAnswer> {
    const { id, pins, authority } = this.token;
    const [certificate = ""] = pins;
    const { nonce = await this.nonce(), secret = this.token.secret } = change;
    const signed = { token: id, boot: ownBoot, nonce, certificate };
    const text = enrolText({ ...signed, authority, key: this.fingerprint });
    const key = this.#spki.toString("base64");
    const body = { version: 1, ...signed, secret, key, signature: this.sign(text) };
    return await this.ask(identityPaths.enrolments, { method: "POST", body });
  }

  /**
   * @param said what the request says
   * @param signed what its signature is made for, when that is something else
   */
  async open(
    host: string,
    said: SessionChange = {},
    signed: SessionChange = said,
  ): Promise<RawAnswer> {
    const [certificate = ""] = this.token.pins;
    const base = {
      host,
      key: this.fingerprint,
      boot: ownBoot,
      nonce: said.nonce ?? (await this.nonce()),
      certificate,
      pins: [...this.token.pins],
    };
    const { authority: _authority, ...words } = said;
    const text = sessionText({ ...base, authority: this.token.authority, ...signed });
    const body = { version: 1, ...base, ...words, signature: this.sign(text) };
    return await this.ask(identityPaths.sessions, { method: "POST", body });
  }

  /** @returns the session's token. @throws Error when it was refused */
  async bearer(host: string): Promise<string> {
    const answer = await this.open(host);
    const { bearer } = answer.body as unknown as SessionAnswer;
    if (answer.status === 200 && bearer !== undefined) return bearer;
    throw new Error(`No session: ${answer.status} ${JSON.stringify(answer.body)}`);
  }
}

/** An event stream, read as it comes. */
export class RawStream {
  text = "";
  /** Why it ended; undefined while it is open. */
  end: string | undefined;
  readonly #stop = new AbortController();

  /** @throws Error when the answer is none of a stream */
  static async open(url: string, headers: Readonly<Record<string, string>>): Promise<RawStream> {
    const stream = new RawStream();
    const { signal } = stream.#stop;
    const response = await fetch(url, { headers, signal, tls: { rejectUnauthorized: false } });
    if (response.status !== 200 || response.body === null) {
      throw new Error(`No stream: ${response.status} ${await response.text()}`);
    }
    void stream.#follow(response.body);
    return stream;
  }

  /** Data of its events. */
  get events(): Readonly<Record<string, unknown>>[] {
    const data = this.text.matchAll(/^data: (.*)$/gm);
    return [...data].map(([, json = ""]) => JSON.parse(json));
  }

  close(): void {
    this.#stop.abort();
  }

  async #follow(body: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder();
    try {
      for await (const bytes of body) this.text += decoder.decode(bytes, { stream: true });
      this.end = "done";
    } catch (error) {
      this.end = String(error);
    }
  }
}

/** A link with the store, as a host has it, without a client's own mind. */
export class RawLink {
  readonly said: Readonly<Record<string, unknown>>[] = [];
  closed: { readonly code: number; readonly reason: string } | undefined;
  readonly #socket: WebSocket;
  #id = 0;

  constructor(address: string, bearer: string) {
    const url = `${address.replace(/^https/, "wss")}${storePath}`;
    const options = { headers: { authorization: `Bearer ${bearer}` }, tls: unchecked };
    this.#socket = new WebSocket(url, options as unknown as string[]);
    this.#socket.onopen = () => this.say({ kind: "hello", version: 1 });
    this.#socket.onmessage = ({ data }) => this.said.push(JSON.parse(String(data)));
    this.#socket.onclose = ({ code, reason }) => {
      this.closed = { code, reason };
    };
  }

  say(message: object): void {
    this.#socket.send(JSON.stringify(message));
  }

  /** @returns the number of the request */
  put(bucket: string, key: string, value: string): number {
    this.#id += 1;
    this.say({ kind: "put", id: this.#id, bucket, key, value, write_id: `${this.#id}-${ownBoot}` });
    return this.#id;
  }

  /** What it is told by this word, or of the request with this number. */
  async heard(what: string | number): Promise<Readonly<Record<string, unknown>>> {
    const found = await waitFor(`what is said of ${what}`, () => {
      const said = this.said.find(({ kind, id }) => kind === what || id === what);
      return said ?? (this.closed === undefined ? undefined : ("closed" as const));
    });
    if (found !== "closed") return found;
    throw new Error(`Closed before it was told ${what}: ${JSON.stringify(this.closed)}`);
  }

  async ended(): Promise<{ readonly code: number; readonly reason: string }> {
    return await waitFor("the end of the link", () => this.closed);
  }

  close(): void {
    this.#socket.close();
  }
}

const unchecked = { rejectUnauthorized: false };
