import { NativeMemory } from "../../ffi/memory.ts";
import { connectUnix, makeUnixSocket, sendMessage } from "../../ffi/unix-socket.ts";

/**
 * Tells the service manager about this process: sd_notify(3). Does nothing without NOTIFY_SOCKET,
 * which is taken out of the environment at the first call so that no child inherits it.
 */
export class ServiceNotifier {
  readonly #path: string | undefined;
  /** Milliseconds after which the service manager takes silence for a hang; undefined: never. */
  readonly watchdog: number | undefined;

  constructor() {
    this.#path = process.env["NOTIFY_SOCKET"];
    const microseconds = Number(process.env["WATCHDOG_USEC"]);
    const owner = process.env["WATCHDOG_PID"];
    const ours = owner === undefined || owner === String(process.pid);
    this.watchdog = ours && microseconds > 0 ? microseconds / 1_000 : undefined;
    delete process.env["NOTIFY_SOCKET"];
    delete process.env["WATCHDOG_USEC"];
    delete process.env["WATCHDOG_PID"];
  }

  /** Sends lines such as "READY=1". A manager that is gone or busy is no error. */
  tell(...lines: readonly string[]): void {
    if (this.#path === undefined) return;
    using socket = makeUnixSocket("datagram");
    if (connectUnix(socket, this.#path) < 0) return;
    const text = new TextEncoder().encode(lines.join("\n"));
    const memory = new NativeMemory(text.length);
    memory.bytes.set(text);
    sendMessage(socket, memory, { offset: 0, length: text.length }, []);
  }
}
