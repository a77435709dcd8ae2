/** A watchdog for the build for fault tests: what its device is told, and when it was left. */
import { createServer, type Server, type Socket } from "node:net";

export class WatchdogDevice implements AsyncDisposable {
  /** "open 10", "ping", "V", and "closed" for the end of a descriptor. */
  readonly told: string[] = [];
  /** When it was opened, or fed, last; undefined once it was disarmed. */
  #fedAt: number | undefined;
  #timeout = 0;
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
    socket.on("data", (bytes) => {
      for (const line of bytes.toString().trimEnd().split("\n")) this.#hear(line);
    });
    socket.on("close", () => {
      this.#sockets.delete(socket);
      this.told.push("closed");
    });
    // The end of a process that was killed is an end like any other.
    socket.on("error", () => undefined);
  }

  #hear(line: string): void {
    this.told.push(line);
    const [, seconds] = /^open (\d+)$/.exec(line) ?? [];
    if (seconds !== undefined) this.#timeout = Number(seconds) * 1_000;
    this.#fedAt = line === "V" ? undefined : performance.now();
  }

  /** Its time is over: it counts on when it is closed, unless it was told "V" before. */
  get hasReset(): boolean {
    return this.#fedAt !== undefined && performance.now() - this.#fedAt > this.#timeout;
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
