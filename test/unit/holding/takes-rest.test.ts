/** What a peer sent before it died is taken, also when a send finds the peer gone first. */
import { expect, test } from "bun:test";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { makeSocketPair } from "../../../ffi/unix-socket.ts";
import { EventLoop } from "../../../src/event-loop/event-loop.ts";
import { FrameConnection } from "../../../src/messaging/frame-connection.ts";
import { StreamConnection } from "../../../src/messaging/stream-connection.ts";
import { repositoryRoot } from "../../support/binary.ts";
import { withDeadline } from "../../support/wait-for.ts";

const limits = { frameBytes: 4096, frameDescriptors: 1 };

test("frames with descriptors, more than are read in one turn", async () => {
  using loop = new EventLoop(() => new Worker(join(repositoryRoot, "src/main.ts")));
  const [ours, theirs] = makeSocketPair();
  const options = { queuedBytes: 1 << 20, handlers: { onBytes: () => {}, onEnd: () => {} } };
  const peer = new FrameConnection(new StreamConnection(loop, theirs, options), limits, {
    onFrame: () => {},
    onViolation: () => {},
    onEnd: () => {},
  });
  const file = openSync("/dev/null", "r");
  const count = 50;
  for (let index = 0; index < count; index++) peer.send({ index }, [file]);
  closeSync(file);
  peer.close();
  const said: string[] = [];
  const ended = Promise.withResolvers<void>();
  const stream = new StreamConnection(loop, ours, { ...options, takesRest: true });
  const frames = new FrameConnection(stream, limits, {
    onFrame: (body, descriptors) => {
      said.push(`${(body as { index: number }).index} with ${descriptors.length}`);
      for (const descriptor of descriptors) descriptor.close();
    },
    onViolation: () => {},
    onEnd: (reason) => {
      said.push(reason);
      ended.resolve();
    },
  });
  expect(frames.send({ late: true })).toBe(false);
  expect(said).toEqual([]);
  await withDeadline("the end", ended.promise);
  const sent = Array.from({ length: count }, (_value, index) => `${index} with 1`);
  expect(said.slice(0, -1)).toEqual(sent);
  expect(said.at(-1)).toMatch(/the peer closed the connection|cannot/);
});
