/** The other side of QMP as a script: it says what a test has it say, and notes what it hears. */
import type { OwnedDescriptor } from "../../../ffi/owned-descriptor.ts";
import { acceptConnection, bindUnix, listen, makeUnixSocket } from "../../../ffi/unix-socket.ts";
import { RawClient } from "../agent-client.ts";
import { waitFor } from "../wait-for.ts";

export const greeting = {
  QMP: { version: { qemu: { micro: 22, minor: 2, major: 7 }, package: "test" }, capabilities: [] },
};

export interface Command {
  readonly execute: string;
  readonly arguments: Readonly<Record<string, unknown>>;
  readonly id: number;
}

/** A socket at which a QEMU would listen. */
export class QmpListener implements Disposable {
  readonly path: string;
  readonly #socket: OwnedDescriptor;
  readonly #peers: QmpPeer[] = [];

  constructor(path: string) {
    this.path = path;
    this.#socket = makeUnixSocket("stream");
    bindUnix(this.#socket, path);
    listen(this.#socket, 4);
  }

  /** The next who connects. Nothing is said to it. */
  async accept(): Promise<QmpPeer> {
    const socket = await waitFor("a connection", () => acceptConnection(this.#socket));
    const peer = new QmpPeer(socket);
    this.#peers.push(peer);
    return peer;
  }

  /** The next who connects, greeted, its capabilities agreed on. */
  async serve(): Promise<QmpPeer> {
    const peer = await this.accept();
    await peer.say(greeting);
    await peer.answer("qmp_capabilities", {});
    return peer;
  }

  [Symbol.dispose](): void {
    for (const peer of this.#peers) peer[Symbol.dispose]();
    this.#socket.close();
  }
}

export class QmpPeer extends RawClient {
  readonly #lines: Command[] = [];
  #rest = "";

  protected override take(bytes: Uint8Array<ArrayBuffer>): void {
    const [...lines] = (this.#rest + new TextDecoder().decode(bytes)).split("\n");
    this.#rest = lines.pop() ?? "";
    this.#lines.push(...lines.map((line) => JSON.parse(line) as Command));
  }

  /** QEMU ends its lines by two bytes. */
  async say(body: unknown): Promise<void> {
    await this.sayText(`${JSON.stringify(body)}\r\n`);
  }

  async sayText(text: string): Promise<void> {
    await this.sendBytes(new TextEncoder().encode(text));
  }

  /** The next command, which has to be this one. */
  async heard(name: string): Promise<Command> {
    const command = await waitFor(`the command ${name}`, () => {
      this.look();
      return this.#lines.shift();
    });
    if (command.execute !== name) throw new Error(`Expected ${name}, heard ${command.execute}`);
    return command;
  }

  async answer(name: string, value: unknown): Promise<Command> {
    const command = await this.heard(name);
    await this.say({ return: value, id: command.id });
    return command;
  }

  async refuse(name: string, description: string): Promise<void> {
    const { id } = await this.heard(name);
    await this.say({ id, error: { class: "GenericError", desc: description } });
  }

  async tell(event: string, data: Readonly<Record<string, unknown>> = {}): Promise<void> {
    await this.say({ event, data, timestamp: { seconds: 1, microseconds: 2 } });
  }
}
