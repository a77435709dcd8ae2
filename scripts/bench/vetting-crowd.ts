/**
 * Agents as an orchestrator sees them, by their bytes alone: one process has thousands of them, and
 * the client of the product keeps 64 connections in a process at most (Bun 1.4.5). They check no
 * certificate; what the product checks costs the orchestrator nothing.
 */
import { connect, type TLSSocket } from "node:tls";
import { agentPath, VETTING_PROTOCOL_VERSION } from "../../src/vetting/protocol.ts";
import { ownIdentity } from "../../test/support/vetting-orchestrator/runs.ts";

/** A connection on which one request waits for its answer at a time. */
class Line {
  readonly #socket: TLSSocket;
  readonly #host: string;
  #received: Buffer = Buffer.alloc(0);
  #waiting: PromiseWithResolvers<unknown> | undefined;
  #ended: Error | undefined;

  private constructor(socket: TLSSocket, host: string) {
    this.#socket = socket;
    this.#host = host;
    socket.setNoDelay(true);
    socket.on("data", (bytes: Buffer) => this.#take(bytes));
    socket.on("error", (error) => this.#end(error));
    socket.on("close", () => this.#end(new Error("The orchestrator closed the connection")));
  }

  static async open(host: string, port: number): Promise<Line> {
    const opened = Promise.withResolvers<void>();
    const socket = connect({ host, port, rejectUnauthorized: false, minVersion: "TLSv1.3" });
    const refuse = (error: Error) => opened.reject(error);
    socket.once("error", refuse);
    socket.once("secureConnect", () => opened.resolve());
    await opened.promise;
    socket.removeListener("error", refuse);
    return new Line(socket, `${host}:${port}`);
  }

  get isOpen(): boolean {
    return this.#ended === undefined;
  }

  /** @returns the answer's body @throws Error for a status that is not 200 */
  async ask(path: string, token: string, body: unknown): Promise<unknown> {
    if (this.#ended !== undefined) throw this.#ended;
    if (this.#waiting !== undefined) throw new Error("Bug: one request at a time");
    const waiting = Promise.withResolvers<unknown>();
    this.#waiting = waiting;
    const text = JSON.stringify(body);
    this.#socket.write(
      `POST ${path} HTTP/1.1\r\nHost: ${this.#host}\r\nAuthorization: Bearer ${token}\r\n` +
        "Content-Type: application/json\r\n" +
        `Content-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
    );
    return await waiting.promise;
  }

  #take(bytes: Buffer): void {
    this.#received = this.#received.length === 0 ? bytes : Buffer.concat([this.#received, bytes]);
    const end = this.#received.indexOf("\r\n\r\n");
    if (end < 0) return;
    const head = this.#received.toString("latin1", 0, end);
    const length = /^content-length: (\d+)\r?$/im.exec(head)?.[1];
    if (length === undefined) {
      this.#socket.destroy(new Error(`Expected an answer with a length, received: ${head}`));
      return;
    }
    const whole = end + 4 + Number(length);
    if (this.#received.length < whole) return;
    const body = this.#received.toString("utf8", end + 4, whole);
    this.#received = this.#received.subarray(whole);
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (head.startsWith("HTTP/1.1 200 ")) waiting?.resolve(JSON.parse(body));
    else waiting?.reject(new Error(`${head.split("\r\n")[0]}: ${body.slice(0, 300)}`));
  }

  #end(error: Error): void {
    this.#ended ??= error;
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }
}

/** What an agent is in: its run, its card, and the token of its boot. */
export interface Seat {
  readonly run: number;
  readonly mac: string;
  readonly token: string;
}

/** What is asked beside each other has a connection each, as a real agent's client has. */
type Kind = "beats" | "told";

/** An agent that says what it is told to. */
export class CrowdAgent implements Disposable {
  readonly mac: string;
  readonly #url: URL;
  readonly #run: number;
  readonly #instance: string;
  readonly #lines: Partial<Record<Kind, Line>> = {};
  #token: string;
  #sequence = 0;

  private constructor(url: URL, seat: Seat) {
    this.mac = seat.mac;
    this.#url = url;
    this.#run = seat.run;
    this.#instance = seat.run.toString(16).padStart(32, "0");
    this.#token = seat.token;
  }

  /** Claims, and says that the inventory begins. */
  static async begin(url: URL, seat: Seat): Promise<CrowdAgent> {
    const agent = new CrowdAgent(url, seat);
    const claimed = await agent.#ask("beats", "claim", {
      ...{
        protocol: VETTING_PROTOCOL_VERSION,
        version: "1.0.0",
        instance: agent.#instance,
        boot_id: "boot-1",
      },
      ...{ mac: seat.mac, macs: [seat.mac], address: "127.0.0.1", identity: identityOf(seat) },
    });
    agent.#token = (claimed as { session: string }).session;
    const attempt = seat.run.toString(16).padStart(32, "a");
    const begun = { attempt, instance: agent.#instance, stage: "Inventory" };
    await agent.#ask("beats", "attempt", begun);
    return agent;
  }

  async beat(): Promise<void> {
    await this.#ask("beats", "heartbeat", {
      ...{ instance: this.#instance, boot_id: "boot-1", dropped: 0 },
      ...{ activity: { kind: "idle" }, acknowledged: [] },
    });
  }

  async log(texts: readonly string[]): Promise<void> {
    const time = new Date().toISOString();
    const lines = texts.map((text) => {
      return { sequence: this.#next(), time, level: "info", stage: null, text };
    });
    await this.#ask("told", "log", { instance: this.#instance, lines });
  }

  /** So many readings of so many sensors, as they gathered since the last time. */
  async readings(count: number, sensors: number): Promise<void> {
    const time = new Date().toISOString();
    const readings = Array.from({ length: count }, () => {
      const sequence = this.#next();
      const values = Array.from({ length: sensors }, (_one, index) => {
        const value = 40 + ((sequence + index) % 20);
        return { kind: "temperature", key: `coretemp.0/Core ${index}`, critical: 100, value };
      });
      return { sequence, time, stage: null, sensors: values, errors: {}, missing: [] };
    });
    await this.#ask("told", "sensor", { instance: this.#instance, readings });
  }

  #next(): number {
    this.#sequence += 1;
    return this.#sequence;
  }

  async #ask(kind: Kind, call: string, body: Readonly<Record<string, unknown>>): Promise<unknown> {
    // One that was idle for long was closed by the orchestrator.
    const kept = this.#lines[kind];
    const line = kept?.isOpen ? kept : await Line.open(this.#url.hostname, Number(this.#url.port));
    this.#lines[kind] = line;
    const path = agentPath(call).replace(":run", String(this.#run));
    return await line.ask(path, this.#token, body);
  }

  [Symbol.dispose](): void {
    for (const line of Object.values(this.#lines)) line[Symbol.dispose]();
  }
}

/** Each host has serials of its own. */
function identityOf({ mac }: Seat) {
  return { ...ownIdentity, board_serial: `B-${mac}`, system_serial: `S-${mac}` };
}
