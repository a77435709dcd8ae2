/** Whether a store in NATS is reached, and what an operator hears of it. */
import { expect, test } from "bun:test";
import { SharedLink } from "../../../src/store/nats/shared-link.ts";
import type { LinkState } from "../../../src/store/store.ts";
import { LinkBoard } from "../../../src/store/wire/link-board.ts";
import { waitFor } from "../../support/wait-for.ts";

function world() {
  const board = new LinkBoard("down");
  const timers: (() => void)[] = [];
  const said: string[] = [];
  const clock = { now: 1_000 };
  const link = new SharedLink({
    store: { link: (signal) => board.follow(signal) },
    servers: ["tls://a.example:4222", "tls://b.example:4222"],
    meanwhile: "nobody acts",
    loop: {
      wakeAfter: (_wait, call) => {
        timers.push(call);
        return { [Symbol.dispose]: () => void timers.splice(timers.indexOf(call), 1) };
      },
    },
    logger: { info: (message) => said.push(message), warn: (message) => said.push(message) },
    now: () => clock.now,
    onFailure: (failure) => {
      throw failure;
    },
  });
  const becomes = async (state: LinkState) => {
    board.set(state);
    const isSo = () => (link.lostFor === undefined) === (state === "up");
    await waitFor(`the link to be ${state}`, isSo);
  };
  return { link, timers, said, clock, becomes };
}

test("one that is never reached is told once, with where it was looked for", async () => {
  const { link, timers, said, clock, becomes } = world();
  clock.now += 7_000;
  expect(link.lostFor).toBe(7_000);
  expect(timers).toHaveLength(1);
  timers[0]?.();
  expect(said).toEqual([
    expect.stringContaining("not reached at tls://a.example:4222, tls://b.example:4222 for 5.00 s"),
  ]);
  await becomes("up");
  expect(said[1]).toContain("NATS is reached at tls://a.example:4222");
  link.close();
});

test("one that is away for a moment is told by nobody, and counts from then", async () => {
  const { link, timers, said, clock, becomes } = world();
  await becomes("up");
  expect(timers).toEqual([]);
  clock.now += 9_000;
  await becomes("stale");
  clock.now += 2_000;
  expect(link.lostFor).toBe(2_000);
  await becomes("up");
  expect(timers).toEqual([]);
  expect(said).toEqual([]);
  link.close();
});
