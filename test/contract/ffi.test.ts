import { describe, test } from "bun:test";
import { join } from "node:path";
import { skipUnless } from "../support/skips.ts";
import { checkGroups } from "./ffi-checks/all.ts";
import type { CheckContext } from "./ffi-checks/check.ts";

const context: CheckContext = {
  self: [process.execPath, join(import.meta.dirname, "ffi-main.ts")],
  errnoCalls: 2_000_000,
};

for (const [group, checks] of Object.entries(checkGroups)) {
  describe(group, () => {
    for (const check of checks) {
      const { name, run, absence } = check;
      if (absence === undefined) test(name, () => run(context));
      else skipUnless(name, { absence }, () => test(name, () => run(context)));
    }
  });
}

test("errno is each thread's own while two threads fail at once", async () => {
  const worker = new Worker(new URL("./ffi-checks/errno-worker.ts", import.meta.url));
  const answer = Promise.withResolvers<number>();
  worker.onmessage = (event: MessageEvent<number>) => answer.resolve(event.data);
  worker.onerror = (event) => answer.reject(new Error(event.message));
  const { countWrongErrors } = await import("./ffi-checks/errors.ts");
  worker.postMessage(1_000_000);
  const ours = countWrongErrors(1_000_000);
  const theirs = await answer.promise;
  worker.terminate();
  if (ours !== 0 || theirs !== 0) throw new Error(`${ours} wrong here, ${theirs} in the Worker`);
});
