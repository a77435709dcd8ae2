/** All that a guest says on its serial port, from now on, as a viewer hears it. */

import type { VmHost } from "./vm-worker.ts";
import { waitFor } from "./wait-for.ts";

export class ConsoleTap implements AsyncDisposable {
  readonly #pieces: Uint8Array[] = [];
  #socket: Bun.Socket | undefined;

  static async open(host: VmHost, name: string): Promise<ConsoleTap> {
    using client = await host.client();
    const path = await client.console(name);
    const tap = new ConsoleTap();
    tap.#socket = await Bun.connect({
      unix: path,
      socket: {
        data: (_socket, bytes) => {
          tap.#pieces.push(Uint8Array.from(bytes));
        },
        error: () => {},
      },
    });
    tap.#socket.write("r");
    await waitFor("the console", () => tap.#pieces.length > 0);
    return tap;
  }

  get text(): string {
    return Buffer.concat(this.#pieces).toString("latin1");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket?.end();
  }
}
