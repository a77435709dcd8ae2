/** Tasks of the compiled file on disks of a test's own: it sees these, and no other disk. */
import { chmodSync } from "node:fs";
import type { TaskOrder } from "../../../src/vetting/protocol-task.ts";
import { hostler } from "../binary.ts";
import type { DiskHost, LoopDisk } from "./loop-disks.ts";
import { type StartedTask, startTask } from "./run-task.ts";

/** In a mount namespace of its own /dev and /sys/block are the test's. */
const script = `set -e
for device in null zero urandom; do
  touch devices/$device
  mount --bind /dev/$device devices/$device
done
touch "devices/$NAME"
mount --bind "$DEVICE" "devices/$NAME"
mount --rbind devices /dev
mount --bind sys/block /sys/block
PATH="$TOOLS" exec "$@"`;

export function startDiskTask(
  host: DiskHost,
  disk: LoopDisk,
  order: TaskOrder,
  /** Folders in which it finds tools. */
  tools: string = process.env["PATH"] ?? "",
): StartedTask {
  host.write("devices/shm/.keep", "");
  const begin = `cd '${host.path(".")}'\n`;
  const words = ["unshare", "--mount", "sh", "-c", begin + script, "sh", hostler()];
  const environment = { NAME: "sda", DEVICE: disk.device, TOOLS: tools };
  return startTask(words, order, { environment });
}

/** A program of the test's own in "bin"; its folder, for `startDiskTask`. */
export function installTool(host: DiskHost, name: string, lines: readonly string[]): string {
  host.write(`bin/${name}`, ["#!/bin/sh", ...lines].join("\n"));
  chmodSync(host.path(`bin/${name}`), 0o755);
  return host.path("bin");
}
