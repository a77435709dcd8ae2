/** An agent whose supervisor is not there. */
import { expect, test } from "bun:test";
import { ExecutorRefused } from "../../../src/fleet/executor.ts";
import {
  SuperviseExecutor,
  supervisorLooks,
} from "../../../src/fleet/perform/supervise-executor.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

test("a candidate is refused after so many looks, by the host's fault", async () => {
  using folder = temporaryFolder();
  const waits: number[] = [];
  const executor = new SuperviseExecutor(folder.file("supervise.sock"), {
    wakeAfter: (wait, call) => {
      waits.push(wait);
      call();
      return { [Symbol.dispose]: () => {} };
    },
  });
  const start = { instance: "0".repeat(32), program: "/bin/true", words: [], environment: {} };
  const refused = await rejectionOf(
    executor.startCandidate({ ...start, endsAfter: 1_000, readyWithin: 1_000 }),
  );
  expect(refused).toBeInstanceOf(ExecutorRefused);
  expect(refused.message).toContain("supervise.sock");
  expect(waits).toEqual(Array.from({ length: supervisorLooks.most }, () => supervisorLooks.every));
});
