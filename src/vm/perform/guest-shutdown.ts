import { existsSync, readFileSync } from "node:fs";
import { rebootInto, syncFilesystems } from "../../../ffi/kexec.ts";
import { errnoMessage } from "../../../ffi/system-call-error.ts";
import type { EventLoop } from "../../event-loop/event-loop.ts";
import { GuestProgram } from "./guest-program.ts";

export type ShutdownKind = "power-off" | "reboot";

/** sysvinit's, systemd's and OpenRC's: it has the first process end what runs. */
const orderly = ["/sbin/shutdown", "/usr/sbin/shutdown"];
const flags: Readonly<Record<ShutdownKind, string>> = { "power-off": "-P", reboot: "-r" };
/** busybox' init has no shutdown: it listens to these. */
const busybox: Readonly<Record<ShutdownKind, string>> = {
  "power-off": "/sbin/poweroff",
  reboot: "/sbin/reboot",
};
const SHUTDOWN_TIME = 60_000;

/** The words that have this guest's init shut down; undefined where nothing does. */
function shutdownWords(kind: ShutdownKind): readonly string[] | undefined {
  const program = orderly.find((path) => existsSync(path));
  if (program !== undefined) return [program, flags[kind], "now"];
  const first = readFileSync("/proc/1/comm", "utf8").trim();
  return first === "init" && existsSync(busybox[kind]) ? [busybox[kind]] : undefined;
}

/**
 * Shuts this machine down in the order that its init has for it. Where there is no such init the
 * disks are written and the kernel is ended.
 * @returns why not; undefined when it is under way
 */
export function shutDownMachine(loop: EventLoop, kind: ShutdownKind): string | undefined {
  const argv = shutdownWords(kind);
  if (argv !== undefined) {
    const plan = {
      argv: [...argv],
      ...{ input: false, output_limit: 0, streams: "together" as const },
      ...{ outlives: true, time_limit: SHUTDOWN_TIME },
    };
    const program = GuestProgram.start(loop, plan, { onOutput: () => {}, onEnded: () => {} });
    return typeof program === "string" ? program : undefined;
  }
  syncFilesystems();
  const result = rebootInto(kind === "reboot" ? "restart" : "power-off");
  return result < 0 ? `The kernel does not end: ${errnoMessage(-result)}` : undefined;
}
