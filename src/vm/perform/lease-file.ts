import { readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as v from "valibot";
import type { LeaseNote } from "../lifecycle-lease.ts";
import { masterLimits } from "../protocol-master.ts";
import { passStep } from "./kill-points.ts";

const mostBytes = 8192;

const fileSchema = v.strictObject({
  format: v.literal(1),
  boot: v.string(),
  heard_at: v.nullable(v.pipe(v.number(), v.finite())),
  lease_ms: v.pipe(v.number(), v.minValue(0), v.maxValue(masterLimits.leaseTime)),
  watchdog: v.nullable(v.pipe(v.string(), v.maxLength(4095))),
});

/**
 * What the next worker of this boot has to know of the lease. It lies in the run folder and is not
 * synchronised: a boot that it does not outlive makes an end of what it speaks of.
 */
export class LeaseFile {
  readonly #path: string;
  readonly #boot: string;

  constructor(runFolder: string, boot: string) {
    this.#path = join(runFolder, "lease.json");
    this.#boot = boot;
  }

  /** undefined where nobody can say: it is not there, is damaged, or of another boot. */
  read(): LeaseNote | undefined {
    try {
      if (statSync(this.#path).size > mostBytes) return undefined;
      const parsed = v.safeParse(fileSchema, JSON.parse(readFileSync(this.#path, "utf8")));
      if (!parsed.success || parsed.output.boot !== this.#boot) return undefined;
      const { heard_at: heardAt, lease_ms: leaseTime, watchdog } = parsed.output;
      return { heardAt, leaseTime, watchdog };
    } catch {
      return undefined;
    }
  }

  /** @throws Error (ENOSPC …): the former one stands */
  write({ heardAt, leaseTime, watchdog }: LeaseNote): void {
    const lease = { heard_at: heardAt, lease_ms: leaseTime, watchdog };
    const content = { format: 1, boot: this.#boot, ...lease };
    const temporary = `${this.#path}.new`;
    passStep("lease:noting");
    writeFileSync(temporary, `${JSON.stringify(content)}\n`, { mode: 0o600 });
    renameSync(temporary, this.#path);
    passStep("lease:noted");
  }
}
