import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { armWatchdog, type Watchdog } from "../../../ffi/watchdog.ts";
import type { Milliseconds } from "../../units/units.ts";
import type { Watchdog as ReportedWatchdog } from "../protocol-master.ts";
import { passStep } from "./kill-points.ts";

/** A software watchdog of the kernel: one that hangs is not reset by it. */
const softwareNames = ["Software Watchdog"];
/** Letters of a name that a report has. */
const longestName = 63;

/** The watchdog that this worker has open. */
export class HeldWatchdog implements Disposable {
  readonly #device: Watchdog;
  readonly #path: string;

  private constructor(device: Watchdog, path: string) {
    this.#device = device;
    this.#path = path;
  }

  /** It counts from now on. @throws SystemCallError (EBUSY: another has it open; ENOTTY …) */
  static arm(path: string, timeout: Milliseconds): HeldWatchdog {
    const device = armWatchdog(path, Math.max(1, Math.round(timeout / 1000)));
    passStep("watchdog:armed");
    return new HeldWatchdog(device, path);
  }

  /** As its driver took it. */
  get timeout(): Milliseconds {
    return this.#device.timeout * 1000;
  }

  /** False where its driver was told to go on for ever, whatever its device is told: nowayout. */
  get canStop(): boolean {
    const name = basename(this.#path).replace(/^watchdog$/, "watchdog0");
    try {
      return readFileSync(`/sys/class/watchdog/${name}/nowayout`, "latin1").trim() !== "1";
    } catch {
      // A kernel without CONFIG_WATCHDOG_SYSFS does not tell.
      return true;
    }
  }

  get reported(): ReportedWatchdog {
    const { name, staysArmed } = this.#device;
    return {
      timeout_ms: this.timeout,
      hardware: !softwareNames.includes(name),
      stays_armed: staysArmed,
      identity: name.slice(0, longestName),
    };
  }

  /** @throws SystemCallError */
  feed(): void {
    this.#device.ping();
  }

  /** @throws SystemCallError: it counts on */
  disarm(): void {
    this.#device.disarm();
    passStep("watchdog:disarmed");
  }

  /** It counts on, and whoever follows may open it. */
  [Symbol.dispose](): void {
    this.#device[Symbol.dispose]();
  }
}
