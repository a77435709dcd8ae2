/** A watchdog of the guest's own kernel: what becomes of the guest is what the test is about. */
import { existsSync, readFileSync } from "node:fs";
import { HeldWatchdog } from "../../../src/vm/perform/watchdog.ts";
import { waitFor } from "../../support/wait-for.ts";

const DEVICE = "/dev/watchdog";
const TIMEOUT = 4_000;
const LONG = 3 * TIMEOUT;

/** For three times as long as the watchdog waits. */
async function live(each: () => void): Promise<void> {
  const end = performance.now() + LONG;
  const look = () => {
    each();
    return performance.now() >= end;
  };
  await waitFor("the time of three resets", look, 10 * LONG);
}

if (!existsSync(DEVICE)) throw new Error(`${DEVICE} is not there`);
const watchdog = HeldWatchdog.arm(DEVICE, TIMEOUT);
const { timeout_ms: timeout, hardware, stays_armed: staysArmed } = watchdog.reported;
console.log(`HOSTLER-NOTE ${JSON.stringify({ timeout, hardware, staysArmed })}`);
const { canStop } = watchdog;
if (timeout !== TIMEOUT || hardware || !staysArmed || !canStop) throw new Error("Another one");
if (readFileSync("/scenario/what", "utf8").trim() === "fed") {
  await live(() => watchdog.feed());
  watchdog.disarm();
  await live(() => undefined);
} else {
  // As the end of the worker leaves it.
  watchdog[Symbol.dispose]();
  await live(() => undefined);
}
