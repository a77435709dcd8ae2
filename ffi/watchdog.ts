import { libc } from "./c-library.ts";
import {
  O_CLOEXEC,
  O_RDWR,
  WDIOC_GETSUPPORT,
  WDIOC_GETTIMEOUT,
  WDIOC_KEEPALIVE,
  WDIOC_SETTIMEOUT,
  WDIOF_MAGICCLOSE,
  WDIOF_SETTIMEOUT,
} from "./constants.ts";
import { control } from "./descriptor.ts";
import { isFaultWatchdog, openFaultWatchdog } from "./fault-watchdog.ts";
import { layouts } from "./layouts.ts";
import { cString, NativeMemory } from "./memory.ts";
import { OwnedDescriptor } from "./owned-descriptor.ts";
import { attempt, check, SystemCallError } from "./system-call-error.ts";

/**
 * A watchdog that counts down, and resets the machine when nobody pings it: Linux's watchdog API.
 */
export interface Watchdog extends Disposable {
  /** As its driver calls it: "Software Watchdog". */
  readonly name: string;
  /** Seconds from a ping to the reset, as the driver has taken them. */
  readonly timeout: number;
  /** It counts on when its device is closed without a word, as by the end of a process. */
  readonly staysArmed: boolean;
  /** It counts from the beginning again. @throws SystemCallError */
  ping(): void;
  /** It counts no more, and its device is closed. @throws SystemCallError (it counts on) */
  disarm(): void;
  /** Closes the device: it counts on. */
  [Symbol.dispose](): void;
}

/**
 * Opens a watchdog, by which it begins to count (watchdog-api.rst of the kernel), and sets its
 * timeout. A device that another has open is EBUSY.
 * @param timeout seconds; the driver may round them, and says so
 * @throws SystemCallError (ENOTTY: it is no watchdog, and EBUSY, ENOENT …). A device that was
 *   opened and is found wanting is asked to stop again.
 */
export function armWatchdog(path: string, timeout: number): Watchdog {
  if (isFaultWatchdog(path)) return openFaultWatchdog(path, timeout);
  const name = cString(path);
  const file = new OwnedDescriptor(
    check("open", libc.open(name.address, O_RDWR | O_CLOEXEC, 0), path),
  );
  const device = new WatchdogDevice(file, path);
  try {
    device.setTime(timeout);
    return device;
  } catch (error) {
    device.abandon();
    throw error;
  }
}

class WatchdogDevice implements Watchdog {
  readonly #file: OwnedDescriptor;
  readonly #path: string;
  readonly #options: number;
  readonly name: string;
  #timeout = 0;

  constructor(file: OwnedDescriptor, path: string) {
    this.#file = file;
    this.#path = path;
    const layout = layouts.watchdog_info;
    const info = new NativeMemory(layout.size);
    const result = control(file, WDIOC_GETSUPPORT, info);
    if (result < 0) {
      file.close();
      throw new SystemCallError("ioctl", -result, `WDIOC_GETSUPPORT ${path}`);
    }
    this.#options = info.view.getUint32(layout.options, true);
    const text = new TextDecoder().decode(info.bytes.subarray(layout.identity));
    this.name = text.replace(/\0.*$/s, "");
  }

  get staysArmed(): boolean {
    return (this.#options & WDIOF_MAGICCLOSE) !== 0;
  }

  get timeout(): number {
    return this.#timeout;
  }

  setTime(wanted: number): void {
    const number = new NativeMemory(4);
    number.view.setInt32(0, wanted, true);
    if ((this.#options & WDIOF_SETTIMEOUT) !== 0) this.#ask(WDIOC_SETTIMEOUT, number);
    this.#ask(WDIOC_GETTIMEOUT, number);
    this.#timeout = number.view.getInt32(0, true);
    this.ping();
  }

  ping(): void {
    this.#ask(WDIOC_KEEPALIVE, new NativeMemory(4));
  }

  disarm(): void {
    // Where there is no magic letter, closing it is enough.
    const magic = cString("V");
    const result = attempt(() => libc.write(this.#file.number, magic.address, 1));
    if (result < 0) throw new SystemCallError("write", -result, this.#path);
    this.#file.close();
  }

  /** Of one that is not to be used after all. */
  abandon(): void {
    try {
      this.disarm();
    } catch {
      this.#file.close();
    }
  }

  #ask(request: number, memory: NativeMemory): void {
    const result = control(this.#file, request, memory);
    if (result < 0) throw new SystemCallError("ioctl", -result, this.#path);
  }

  [Symbol.dispose](): void {
    this.#file.close();
  }
}
