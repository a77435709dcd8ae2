import { join } from "node:path";
import { freshnessOf } from "../../artifact/lifecycle-verify.ts";
import { TrustFolder } from "../../artifact/trust-folder.ts";
import type { Milliseconds } from "../../units/units.ts";
import { layoutNames } from "../layout.ts";
import type { DeviceStatus } from "../protocol.ts";

/** Between two looks of an agent at which nothing happens. */
export const LOOK_AT_TRUST: Milliseconds = 600_000;

/**
 * The metadata that this host goes by, where its time is over; undefined: it is fresh, or there is
 * none yet, or what is pinned cannot be read, which the next upgrade says.
 * @param now milliseconds since 1970
 */
export function staleMetadata(folder: string, now: number): DeviceStatus["stale_metadata"] {
  try {
    const { metadata } = TrustFolder.open(join(folder, layoutNames.trust)).trust;
    const time = new Date(now).toISOString().replace(/\.\d+Z$/, "Z");
    if (metadata === null || freshnessOf(metadata, time) !== "stale") return undefined;
    return { version: metadata.version, expires: metadata.expires };
  } catch {
    return undefined;
  }
}

/** Tells what an agent says of itself with whether what it believes of releases is stale. */
export class TrustWatch implements Disposable {
  readonly #look: () => DeviceStatus["stale_metadata"];
  readonly #wakeAfter: (wait: Milliseconds, call: () => void) => Disposable;
  readonly #onChange: () => void;
  #told: string | undefined;
  #wake: Disposable;

  constructor(parts: {
    readonly look: () => DeviceStatus["stale_metadata"];
    wakeAfter(wait: Milliseconds, call: () => void): Disposable;
    /** Its status is to be told again. */
    onChange(): void;
  }) {
    this.#look = parts.look;
    this.#wakeAfter = (wait, call) => parts.wakeAfter(wait, call);
    this.#onChange = () => parts.onChange();
    this.#wake = this.#later();
  }

  /** As it is now; where nothing is stale the word is left out, which older operators refuse. */
  with(status: DeviceStatus): DeviceStatus {
    const stale = this.#look();
    this.#told = JSON.stringify(stale);
    return stale === undefined ? status : { ...status, stale_metadata: stale };
  }

  [Symbol.dispose](): void {
    this.#wake[Symbol.dispose]();
  }

  #later(): Disposable {
    return this.#wakeAfter(LOOK_AT_TRUST, () => {
      this.#wake = this.#later();
      if (JSON.stringify(this.#look()) !== this.#told) this.#onChange();
    });
  }
}
