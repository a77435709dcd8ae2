/** An agent whose supervisor is not there. */
import { describe, expect, test } from "bun:test";
import { ExecutorRefused } from "../../../src/fleet/executor.ts";
import {
  SuperviseExecutor,
  supervisorLooks,
} from "../../../src/fleet/perform/supervise-executor.ts";
import { encodeFrame, FrameReader } from "../../../src/messaging/frame.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { rejectionOf } from "../../support/wait-for.ts";

/** An executor for which no time passes, and how long it would have waited. */
function timeless(socket: string) {
  const waits: number[] = [];
  const executor = new SuperviseExecutor(socket, {
    wakeAfter: (wait, call) => {
      waits.push(wait);
      call();
      return { [Symbol.dispose]: () => {} };
    },
  });
  return { executor, waits };
}

test("a candidate is refused after so many looks, by the host's fault", async () => {
  using folder = temporaryFolder();
  const { executor, waits } = timeless(folder.file("supervise.sock"));
  const start = { instance: "0".repeat(32), program: "/bin/true", words: [], environment: {} };
  const refused = await rejectionOf(
    executor.startCandidate({ ...start, endsAfter: 1_000, readyWithin: 1_000 }),
  );
  expect(refused).toBeInstanceOf(ExecutorRefused);
  expect(refused.message).toContain("supervise.sock");
  expect(waits).toEqual(Array.from({ length: supervisorLooks.most }, () => supervisorLooks.every));
});

/** A supervisor that is killed so many times while it is asked, and then answers. */
function listenAt(socket: string, deaths: number, answer: object) {
  const asked: string[] = [];
  const server = Bun.listen<FrameReader>({
    unix: socket,
    socket: {
      open: (connection) => {
        connection.data = new FrameReader({ frameBytes: 1024, frameDescriptors: 0 });
      },
      data: (connection, bytes) => {
        connection.data.push(bytes);
        for (let one = connection.data.next(); one !== undefined; one = connection.data.next()) {
          const { id, verb } = (one as { body: { id: number; verb: string } }).body;
          if (verb !== "ping") asked.push(verb);
          if (verb !== "ping" && asked.length <= deaths) connection.end();
          else connection.write(encodeFrame({ id, ...answer }));
        }
      },
    },
  });
  return { asked, [Symbol.dispose]: () => server.stop(true) };
}

describe("the canonical agent's restart", () => {
  test("is asked of the next supervisor, where one was killed while it was asked", async () => {
    using folder = temporaryFolder();
    const path = folder.file("supervise.sock");
    using supervisor = listenAt(path, 2, { ok: null });
    const { executor, waits } = timeless(path);
    await executor.restartCanonical();
    expect(supervisor.asked).toEqual(Array.from({ length: 3 }, () => "restart-canonical"));
    expect(waits).toEqual([supervisorLooks.every, supervisorLooks.every]);
  });

  test("is refused at once by a supervisor that says no", async () => {
    using folder = temporaryFolder();
    const path = folder.file("supervise.sock");
    const error = { kind: "limit", message: "not now" };
    using _supervisor = listenAt(path, 0, { error });
    const { executor, waits } = timeless(path);
    const refused = await rejectionOf(executor.restartCanonical());
    expect(refused).toBeInstanceOf(ExecutorRefused);
    expect(refused.message).toContain("not now");
    expect(waits).toEqual([]);
  });

  test("is refused after so many looks for one that is not there", async () => {
    using folder = temporaryFolder();
    const { executor, waits } = timeless(folder.file("supervise.sock"));
    expect(await rejectionOf(executor.restartCanonical())).toBeInstanceOf(ExecutorRefused);
    expect(waits).toHaveLength(supervisorLooks.most);
  });
});
