/** Two hosts with a worker each, and a wire between them. */
import { writeFileSync } from "node:fs";
import { runProgram } from "./program.ts";
import { type TemporaryFolder, temporaryFolder } from "./temporary-folder.ts";
import { VmHost } from "./vm-worker.ts";

/** Each has its end of the wire, with this address. */
const addresses = { giver: "10.77.0.1", taker: "10.77.0.2" } as const;

export class VmPair implements AsyncDisposable {
  readonly giver: VmHost;
  readonly taker: VmHost;
  readonly #owned: AsyncDisposableStack;
  readonly #folder: TemporaryFolder;
  #tickets = 0;

  private constructor(
    giver: VmHost,
    taker: VmHost,
    folder: TemporaryFolder,
    owned: AsyncDisposableStack,
  ) {
    this.giver = giver;
    this.taker = taker;
    this.#folder = folder;
    this.#owned = owned;
  }

  static async make(): Promise<VmPair> {
    await using owned = new AsyncDisposableStack();
    const folder = owned.use(temporaryFolder());
    const giver = owned.use(await VmHost.make());
    const taker = owned.use(await VmHost.make());
    const onWire = async (host: VmHost, ...words: readonly string[]) =>
      await host.on("ip", ...words);
    const [space, first] = [firstOf(giver), firstOf(taker)];
    const words = ["link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", first];
    const made = await runProgram(["nsenter", "-t", space, "-n", "--", "ip", ...words]);
    if (made.exitCode !== 0) throw new Error(made.stderr);
    for (const [one, address] of [
      [giver, addresses.giver],
      [taker, addresses.taker],
    ] as const) {
      await onWire(one, "address", "add", `${address}/24`, "dev", "wire");
      await onWire(one, "link", "set", "wire", "up");
    }
    return new VmPair(giver, taker, folder, owned.move());
  }

  /** A ticket of the taker for this machine, in a file. */
  ticket(name = "web", ...words: readonly string[]): Promise<string> {
    return this.ticketOf(this.taker, name, ...words);
  }

  async ticketOf(host: VmHost, name = "web", ...words: readonly string[]): Promise<string> {
    this.#tickets += 1;
    const path = this.#folder.file(`${this.#tickets}.ticket`);
    const address = host === this.taker ? addresses.taker : addresses.giver;
    await host.say("receive", name, "--listen", `${address}:0`, "--out", path, ...words);
    return path;
  }

  async cut(): Promise<void> {
    await this.giver.on("ip", "link", "set", "wire", "down");
  }

  async mend(): Promise<void> {
    await this.giver.on("ip", "link", "set", "wire", "up");
  }

  /** A ticket of these words, in a file. */
  writeTicket(text: string): string {
    this.#tickets += 1;
    const path = this.#folder.file(`${this.#tickets}.ticket`);
    writeFileSync(path, text, { mode: 0o600 });
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }
}

/** The number of a host's first process, as this process has it. */
function firstOf({ enter }: VmHost): string {
  const number = enter[enter.indexOf("-t") + 1];
  if (number === undefined) throw new Error("Expected a host that is entered by its first process");
  return number;
}
