/** What the demo keeps running: two processes of the first configuration, and two more. */
import { spawnSync } from "node:child_process";
import { closeSync, constants, openSync, writeSync } from "node:fs";
import { join } from "node:path";

/** In the order in which they may start. */
export const processNames = ["brake-monitor", "media", "navigation", "diagnosis"] as const;
export type ProcessName = (typeof processNames)[number];

/** The text of the configuration. Its programs are stand-ins that every Debian has. */
export function configurationText(agentSocket: string, orders: string): string {
  return `[partition.qm]
socket = "${agentSocket}"
other_pid_namespace = true

[process.brake-monitor]
command = ["/bin/sleep", "infinity"]
restart = "always"

[process.media]
partition = "qm"
command = ["/bin/sh", "-c", "echo media plays as process $$; exec sleep infinity"]
after = ["brake-monitor"]

[process.navigation]
partition = "qm"
command = ["/bin/sleep", "infinity"]
after = ["media"]

[process.diagnosis]
partition = "qm"
command = ["/bin/sh", "-c", "read status < ${orders}; exit $status"]
restart = "on-failure"
`;
}

/** A FIFO by which a process is told to end with a status. */
export class Orders implements Disposable {
  readonly path: string;
  readonly #descriptor: number;

  constructor(folder: string) {
    this.path = join(folder, "orders");
    const made = spawnSync("mkfifo", [this.path], { encoding: "utf8" });
    if (made.status !== 0) throw new Error(`mkfifo ${this.path}: ${made.stderr}`);
    // Both ends, so that opening waits for nobody and a reader sees no end.
    this.#descriptor = openSync(this.path, constants.O_RDWR | constants.O_NONBLOCK);
  }

  tell(status: number): void {
    writeSync(this.#descriptor, `${status}\n`);
  }

  [Symbol.dispose](): void {
    closeSync(this.#descriptor);
  }
}
