/** A watchdog for the build for fault tests: what its device is told, and when it was left. */
import { createServer, type Server, type Socket } from "node:net";

export class WatchdogDevice implements AsyncDisposable {
  /** "open 10", "ping", "V", and "closed" for the end of a descriptor. */
  readonly told: string[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  static async at(path: string): Promise<WatchdogDevice> {
    const server = createServer();
    const device = new WatchdogDevice(server);
    server.on("connection", (socket) => device.#take(socket));
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(path, resolve);
    await promise;
    return device;
  }

  #take(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("data", (bytes) => this.told.push(...bytes.toString().trimEnd().split("\n")));
    socket.on("close", () => {
      this.#sockets.delete(socket);
      this.told.push("closed");
    });
    // The end of a process that was killed is an end like any other.
    socket.on("error", () => undefined);
  }

  get feedings(): number {
    return this.told.filter((line) => line === "ping").length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    await promise;
  }
}
